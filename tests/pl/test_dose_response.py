import matplotlib.pyplot as plt
import numpy as np
import pytest

import scgap

FEATURES = ["feature_3", "feature_0"]
DOSES = [10.0, 100.0, 500.0, 1_000.0]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def curve(fitted):
    return scgap.tl.screen(fitted, [{"perturbation": "drug_1", "dose_value": d} for d in DOSES], progress=False)


def mean_of(adata, feature, above, **values):
    """Mean of a feature, or the fraction of cells above a value, of the cells that have the given values in obs."""
    rows = np.all([adata.obs[column] == value for column, value in values.items()], axis=0)
    column = np.asarray(adata[rows, feature].X, float).ravel()
    return column.mean() if above is None else (column > above).mean()


@pytest.mark.parametrize("above", [None, 0.5])
def test_lines_are_predicted_and_points_measured(fitted, curve, above):
    axes = scgap.pl.dose_response(fitted, curve, features=FEATURES, above=above, show=False)
    for axis, feature in zip(axes, FEATURES, strict=True):
        assert (axis.get_title(), axis.get_xscale()) == (feature, "log")
        *lines, control = axis.get_legend_handles_labels()[0]
        levels = [line for line in axis.lines if line.get_linestyle() == ":"]
        assert (control.get_label(), control) == ("control", levels[0])
        expected = [mean_of(fitted, feature, above, perturbation="control", cell_line=g) for g in ("line_1", "line_2")]
        np.testing.assert_allclose([line.get_ydata()[0] for line in levels], expected, rtol=1e-4, atol=1e-5)
        for line, label in zip(lines, ["drug_1, line_1", "drug_1, line_2"], strict=True):
            group = label.split(", ")[1]
            assert line.get_label() == label
            np.testing.assert_array_equal(line.get_xdata(), DOSES)
            expected = [mean_of(curve, feature, above, dose_value=dose, cell_line=group) for dose in DOSES]
            np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-4, atol=1e-5)
        for bars, group in zip(axis.containers, ["line_1", "line_2"], strict=True):
            x, y = bars.lines[0].get_data()
            np.testing.assert_array_equal(x, [100.0, 1_000.0])
            expected = [
                mean_of(fitted, feature, above, perturbation="drug_1", dose_value=dose, cell_line=group) for dose in x
            ]
            np.testing.assert_allclose(np.asarray(y, float), expected, rtol=1e-4, atol=1e-5)
    assert axes[0].get_ylabel() == ("mean" if above is None else "fraction above 0.5")


def test_the_unit_of_doses_is_shown(screen, settings):
    scgap.tl.fit_transport(screen, **settings, dose_unit="nM")
    curve = scgap.tl.screen(screen, [{"perturbation": "drug_1", "dose_value": "1 uM"}], n_cells=20, progress=False)
    axis = scgap.pl.dose_response(screen, curve, features=FEATURES[0], show=False)
    assert axis.get_xlabel() == "dose (nM)"


def test_what_cannot_be_drawn_is_refused(fitted, curve, refused, settings):
    with refused(fitted, KeyError, "'feature_99' is not in adata.var_names"):
        scgap.pl.dose_response(fitted, curve, features="feature_99", show=False)
    with refused(fitted, KeyError, "'feature_3' is not in predicted.var_names"):
        scgap.pl.dose_response(fitted, curve[:, ["feature_0"]].copy(), features=FEATURES, show=False)
    pair = {"perturbation": ["drug_1", "drug_2"], "dose_value": [100.0, 100.0]}
    pairs = scgap.tl.screen(fitted, [pair], n_cells=20, progress=False)
    with refused(fitted, ValueError, "no single perturbation", "scgap.tl.screen"):
        scgap.pl.dose_response(fitted, pairs, features=FEATURES, show=False)
    scgap.tl.fit_transport(fitted, **settings | {"dose_col": None})
    with refused(fitted, ValueError, "fitted without doses", "dose_col="):
        scgap.pl.dose_response(fitted, curve, features=FEATURES, show=False)


def test_lines_beyond_the_palette_differ_in_dashes(fitted, curve):
    curves = curve.copy()
    names = [f"drug {i}" for i in range(10)]
    curves.obs["perturbation"] = np.resize(names, curves.n_obs)
    axis = scgap.pl.dose_response(fitted, curves, features=FEATURES[0], show=False)
    lines = axis.get_legend_handles_labels()[0][:-1]
    assert len(lines) == 20
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_single_perturbations_in_one_of_several_columns_are_drawn(screen, settings):
    given = screen.obs["perturbation"] == "drug_1"
    screen.obs["second"], screen.obs["second_dose"] = np.where(given, "drug_2", "control"), given * 50.0
    columns = {"target_col": ["perturbation", "second"], "dose_col": ["dose_value", "second_dose"]}
    scgap.tl.fit_transport(screen, **{**settings, **columns})
    queries = [*({"perturbation": "drug_3", "dose_value": dose} for dose in DOSES), "drug_1 7 + drug_2 50 + drug_3 9"]
    curve = scgap.tl.screen(screen, queries, n_cells=20, progress=False)
    axis = scgap.pl.dose_response(screen, curve, features=FEATURES[0], show=False)
    lines, labels = axis.get_legend_handles_labels()
    assert labels == ["drug_3, line_1", "drug_3, line_2", "control"]
    for line in lines[:-1]:
        np.testing.assert_array_equal(line.get_xdata(), DOSES)


def test_each_time_has_a_line_of_its_own(screen):
    screen.obs["hours"] = np.random.default_rng(0).choice([6.0, 24.0], screen.n_obs)
    columns = {"dose_col": "dose_value", "time_col": "hours", "time_unit": "h"}
    scgap.tl.fit_transport(screen, **columns, n_iters=0, hidden=(4,), progress=False)
    queries = [{"perturbation": "drug_1", "dose_value": d, "hours": h} for d in (100.0, 1_000.0) for h in (6, 24)]
    curve = scgap.tl.screen(screen, queries, progress=False)
    axis = scgap.pl.dose_response(screen, curve, features="feature_0", show=False)
    *lines, _ = axis.get_legend_handles_labels()[0]
    assert [line.get_label() for line in lines] == ["drug_1, time 24 h", "drug_1, time 6 h"]
    assert all(line.get_xdata().tolist() == [100.0, 1_000.0] for line in lines)
