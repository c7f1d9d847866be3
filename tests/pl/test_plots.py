import importlib
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from scipy import stats

import scgap
from scgap.pl._cells import Cells
from scgap.pl._panel import Errors, draw_panel
from scgap.pl._points import make_points
from scgap.pl._style import BASELINE, MODEL

QUERY = {"perturbation": "drug_3", "dose_value": 1_000.0}


def correlation(cells, axis=0):
    """Pearson's r of each pair, one pair after the other."""
    return np.array([stats.pearsonr(one, other)[0] for one, other in combinations(cells.T, 2)])


STATISTICS = {
    "mean": np.mean,
    "std": np.std,
    "skewness": stats.skew,
    "kurtosis": stats.kurtosis,
    "correlation": correlation,
}


@pytest.fixture
def only_control(monkeypatch):
    """As where there is nothing to learn baselines from."""
    monkeypatch.setattr(importlib.import_module("scgap.pl._cells"), "BASELINES", {})


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def adata(fitted):
    scgap.tl.predict(fitted, QUERY)
    return fitted


@pytest.fixture
def shown(monkeypatch):
    """How often a figure was shown."""
    calls = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: calls.append(args))
    return calls


def scatter(axis, colour):
    """The points of one colour."""
    found = [c for c in axis.collections if len(c.get_offsets()) > 1 and to_hex(c.get_facecolor()[0]) == colour.lower()]
    assert len(found) == 1
    return found[0]


def points(axis, colour):
    """Coordinates (n, 2) of the points of one colour."""
    return np.asarray(scatter(axis, colour).get_offsets())


def rows(adata, line, *, observed):
    """Test cells of the condition, or the controls it is predicted from, in one cell line."""
    obs = adata.obs
    query = QUERY if observed else {"perturbation": "control", "dose_value": 0.0}
    mask = (obs["perturbation"] == query["perturbation"]) & (obs["dose_value"] == query["dose_value"])
    return (mask & (obs["cell_line"] == line) & (obs["split"] == "test")).to_numpy()


@pytest.mark.usefixtures("only_control")
def test_moments_hold_a_point_for_each_feature_and_group(adata):
    axes = scgap.pl.moments(adata, show=False)
    assert [axis.get_title() for axis in axes] == list(STATISTICS)
    for axis in axes:
        statistic = STATISTICS[axis.get_title()]
        expected = {MODEL: [], BASELINE: []}
        for line in ("line_1", "line_2"):
            observed = statistic(adata.X[rows(adata, line, observed=True)].astype(float), axis=0)
            source = rows(adata, line, observed=False)
            for colour, layer in ((MODEL, adata.layers["scgap"]), (BASELINE, adata.X)):
                expected[colour].append(np.column_stack([observed, statistic(layer[source].astype(float), axis=0)]))
        for colour, coordinates in expected.items():
            np.testing.assert_allclose(points(axis, colour), np.concatenate(coordinates), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("only_control")
def test_moments_say_what_is_drawn(adata):
    figure = scgap.pl.moments(adata, return_fig=True)
    axes = figure.axes
    assert len(axes) == 5
    assert figure.get_suptitle() == "drug_3 1000"
    assert axes[0].get_ylabel() == "predicted"
    for axis in axes:
        assert axis.get_xlabel() == "observed"
        assert axis.get_xlim() == axis.get_ylim()
        inside = np.concatenate([points(axis, MODEL), points(axis, BASELINE)])
        assert axis.get_xlim()[0] < inside.min() < inside.max() < axis.get_xlim()[1]
        texts = [text.get_text() for text in axis.texts]
        for name, colour in (("predicted", MODEL), ("control", BASELINE)):
            x, y = points(axis, colour).T
            assert f"{name} $R^2$ {np.corrcoef(x, y)[0, 1] ** 2:.2f}" in texts
        named = [text for text in texts if not text.startswith(("score", "predicted", "control"))]
        assert len(named) <= 3
        assert {name for text in named for name in text.split(",\n")} <= set(adata.var_names)


def test_moments_name_the_features_that_are_furthest_off(adata):
    for line, shift in (("line_1", 30.0), ("line_2", 15.0)):
        adata.layers["scgap"][rows(adata, line, observed=False), 7] += shift
    axis = scgap.pl.moments(adata, moments=["mean"], show=False)
    assert [text.get_text() for text in axis.texts].count("feature_7") == 2


def test_moments_name_no_feature_over_another_text(adata):
    source = rows(adata, "line_1", observed=False) | rows(adata, "line_2", observed=False)
    adata.layers["scgap"][source] += np.linspace(3.0, 3.01, adata.n_vars)
    figure = scgap.pl.moments(adata, moments="mean", return_fig=True)
    texts = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(texts) > 4  # the score, R² of predicted and control, and at least two names
    assert not any(one.overlaps(other) for i, one in enumerate(texts) for other in texts[:i])


def test_moments_write_r2_where_fewest_points_are_hidden(adata):
    source = rows(adata, "line_1", observed=False) | rows(adata, "line_2", observed=False)
    for shift, above in ((-20.0, True), (20.0, False)):
        adata.layers["scgap"][source] += shift
        axis = scgap.pl.moments(adata, moments="mean", show=False)
        texts = [text for text in axis.texts if "R^2" in text.get_text()]
        assert [text.get_position()[1] > 0.5 for text in texts] == [above] * 2
        assert all(to_hex(text.get_bbox_patch().get_facecolor()) == "#ffffff" for text in texts)
        adata.layers["scgap"][source] -= shift


@pytest.mark.usefixtures("only_control")
def test_moments_leave_out_shapes_of_constant_and_rare_features(adata):
    for matrix in (adata.X, adata.layers["scgap"]):
        np.abs(matrix, out=matrix)
        matrix[:, 3] = 2.0
    observed = np.flatnonzero(rows(adata, "line_1", observed=True))
    adata.X[observed, 5] = 0.0
    adata.X[observed[:9], 5] = 1.0
    axes = scgap.pl.moments(adata, show=False)
    n_pairs = 18 * 17 // 2 + 19 * 18 // 2
    assert [len(points(axis, MODEL)) for axis in axes] == [40, 40, 37, 37, n_pairs]
    labels = [f"observed ({n_pairs} of 380 pairs,\nmost variable first)"]
    assert [axis.get_xlabel() for axis in axes] == ["observed"] * 2 + ["observed (37 of 40 points)"] * 2 + labels
    skewness = stats.skew(adata.X[rows(adata, "line_2", observed=True), 5].astype(float))
    assert np.isclose(points(axes[2], MODEL)[:, 0], skewness, rtol=1e-4).any()  # rare in the other line alone


def test_moments_of_features_without_any_shape(adata):
    adata.X[:] = adata.layers["scgap"][:] = 1.0
    figure = scgap.pl.moments(adata, return_fig=True)
    labels = ["observed (0 of 40 points)"] * 2 + ["observed (0 of 380 pairs,\nmost variable first)"]
    assert [axis.get_xlabel() for axis in figure.axes[2:]] == labels
    assert all("score undefined" in [text.get_text() for text in axis.texts] for axis in figure.axes[2:])
    assert all("predicted $R^2$ undefined" in [text.get_text() for text in axis.texts] for axis in figure.axes)


def test_correlations_are_of_the_pairs_that_vary_most(adata, monkeypatch):
    everything = points(scgap.pl.moments(adata, moments="correlation", show=False), MODEL)
    assert len(everything) == 2 * 20 * 19 // 2
    monkeypatch.setattr(importlib.import_module("scgap.pl._points"), "MAX_PAIRS", 25)
    axis = scgap.pl.moments(adata, moments="correlation", show=False)
    assert axis.get_xlabel() == "observed (20 of 380 pairs,\nmost variable first)"  # 5 features have 10 pairs
    for line, found in zip(("line_1", "line_2"), np.split(points(axis, MODEL), 2), strict=True):
        observed = adata.X[rows(adata, line, observed=True)].astype(float)
        chosen = np.sort(np.argsort(-observed.var(axis=0))[:5])
        np.testing.assert_allclose(found[:, 0], correlation(observed[:, chosen]), atol=1e-5)
        predicted = adata.layers["scgap"][rows(adata, line, observed=False)].astype(float)
        np.testing.assert_allclose(found[:, 1], correlation(predicted[:, chosen]), atol=1e-5)


def beside(predicted, baseline, observed):
    """Cells with a single baseline."""
    return Cells(predicted, observed, {"control": baseline})


def panel(moment, cells):
    """Texts of a panel of features A, B and C."""
    axis = plt.subplots()[1]
    draw_panel(axis, moment, make_points(moment, [cells], np.array(["A", "B", "C"], object)))
    return [text.get_text() for text in axis.texts]


def test_pairs_furthest_off_are_named():
    cells = np.random.default_rng(0).normal(size=(3, 400, 3))
    cells[0, :, 2] = cells[0, :, 0]  # A and C go together in the prediction alone
    assert panel("correlation", beside(*cells))[3] == "A,\nC"


@pytest.mark.parametrize("moment", ["mean", "std", "correlation"])
def test_the_score_is_0_for_the_baseline_and_near_1_for_a_replicate(moment):
    one, other, truth = np.random.default_rng(0).normal(size=(3, 20_000, 3))
    mixing = np.array([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 2.0]])
    replicate, observed = other @ mixing + 3.0, truth @ mixing + 3.0
    assert abs(float(panel(moment, beside(one, one[::-1], observed))[0].removeprefix("score "))) <= 0.05
    assert abs(float(panel(moment, beside(replicate, one, observed))[0].removeprefix("score ")) - 1.0) <= 0.05


def test_without_anything_to_gain_there_is_no_score():
    cells = beside(*np.random.default_rng(0).normal(size=(3, 50, 3)))
    points = make_points("mean", [cells], np.array(["A", "B", "C"], object))
    for errors, text in ((Errors(0.5, 0.2, 0.2), "score undefined"), (Errors(0.5, 0.4, 0.2), "score -0.50")):
        axis = plt.subplots()[1]
        draw_panel(axis, "mean", points._replace(errors=errors))
        assert axis.texts[0].get_text() == text


def test_errors_are_those_of_halves_of_equally_many_cells():
    generator = np.random.default_rng(0)
    groups = [beside(*(generator.normal(loc, 1.0, (n, 3)) for loc, n in ((0.5, 51), (1.0, 30), (0.0, 20))))]
    found = make_points("mean", groups, np.array(["a", "b", "c"], object))
    generator = np.random.default_rng(0)
    predicted, baseline, observed = (
        part[generator.permutation(len(part))[:20]]
        for part in groups[0][:1] + tuple(groups[0].baselines.values()) + groups[0][1:2]
    )
    halves = slice(0, 10), slice(10, 20)

    def error(one, other):
        return np.mean([np.abs(one[half].mean(axis=0) - other[half].mean(axis=0)).mean() for half in halves])

    replicate = np.abs(observed[:10].mean(axis=0) - observed[10:].mean(axis=0)).mean()
    np.testing.assert_allclose(found.errors, [error(predicted, observed), error(baseline, observed), replicate])


def test_the_best_simple_baseline_stands_behind_under_its_name(adata):
    group = Cells(*np.random.default_rng(0).normal(size=(2, 400, 3)), {})
    baselines = {"far": group.observed + 1.0, "near": group.observed * 1.5, "wide": group.observed + 0.1}
    for moment, best in (("mean", "near"), ("std", "far")):
        found = make_points(moment, [group._replace(baselines=baselines)], np.array(["A", "B", "C"], object))
        assert found.baseline_name in ({"near", "wide"} if moment == "mean" else {"far", "wide"}), best
    axis = scgap.pl.moments(adata, moments="mean", show=False)
    names = {text.get_text().split(" $")[0] for text in axis.texts} - {"predicted"}
    assert names & {"mean_shift", "gaussian", "ridge"}  # all of which have the training cells' mean, or nearly
    adata.obs["split"] = "test"  # nothing to learn baselines from
    axis = scgap.pl.moments(adata, moments="mean", show=False)
    assert any(text.get_text().startswith("control $R^2$") for text in axis.texts)


def test_dark_styles_have_light_lines_and_texts_on_dark(adata):
    with plt.style.context("dark_background"):
        axis = scgap.pl.moments(adata, moments="mean", show=False)
    assert to_hex(axis.lines[0].get_color()) == "#ffffff"
    boxes = [text.get_bbox_patch() for text in axis.texts if text.get_bbox_patch() is not None]
    assert [to_hex(box.get_facecolor()) for box in boxes] == ["#000000"] * 3
    light = scgap.pl.moments(adata, moments="mean", show=False)
    for one, other in zip(axis.texts[:3], light.texts[:3], strict=True):
        assert np.greater(to_rgb(one.get_color()), to_rgb(other.get_color())).all()


def test_moments_of_many_features_are_small_pixels(adata, monkeypatch):
    module = importlib.import_module("scgap.pl._panel")
    few = scgap.pl.moments(adata, moments="mean", show=False)
    monkeypatch.setattr(module, "MANY", 39)
    many = scgap.pl.moments(adata, moments="mean", show=False)
    for colour in (MODEL, BASELINE):
        one, other = (scatter(axis, colour) for axis in (few, many))
        assert other.get_sizes()[0] < one.get_sizes()[0]
        assert (one.get_rasterized(), other.get_rasterized()) == (False, True)


@pytest.mark.parametrize("plot", [scgap.pl.moments, scgap.pl.history])
def test_nothing_is_cut_off_in_the_first_file(adata, plot, tmp_path):
    figure = plot(adata, return_fig=True)
    figure.savefig(tmp_path / "plot.png")
    for axis in figure.axes:
        box = axis.get_tightbbox()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        if plot is scgap.pl.moments:
            assert box.y1 <= figure.texts[0].get_window_extent().y0


def test_moments_look_at_test_cells_alone(adata):
    before = points(scgap.pl.moments(adata, moments=["mean"], show=False), MODEL)
    adata.X[(adata.obs["split"] == "train").to_numpy()] += 10.0
    adata.layers["scgap"][(adata.obs["split"] == "train").to_numpy()] += 10.0
    np.testing.assert_array_equal(points(scgap.pl.moments(adata, moments=["mean"], show=False), MODEL), before)


def test_moments_of_one_group_of_another_layer(adata):
    condition = {**QUERY, "cell_line": "line_2"}
    scgap.tl.predict(adata, condition, key_added="moved")
    axis = scgap.pl.moments(adata, moments=("std",), layer="moved", show=False)
    assert points(axis, MODEL).shape == (20, 2)
    observed = adata.X[rows(adata, "line_2", observed=True)].std(axis=0)
    np.testing.assert_allclose(points(axis, MODEL)[:, 0], observed, rtol=1e-4)
    assert axis.figure.get_suptitle() == "drug_3 1000, line_2"


def test_moments_of_one_group_of_a_prediction_of_all(adata):
    both = points(scgap.pl.moments(adata, moments="mean", show=False), MODEL)
    figure = scgap.pl.moments(adata, {**QUERY, "cell_line": "line_2"}, moments="mean", return_fig=True)
    assert figure.get_suptitle() == "drug_3 1000, line_2"
    np.testing.assert_array_equal(points(figure.axes[0], MODEL), both[20:])


def test_moments_against_another_condition(adata):
    other = {"perturbation": "drug_1", "dose_value": 100}
    figure = scgap.pl.moments(adata, other, return_fig=True)
    assert figure.get_suptitle() == "drug_1 100"
    own = points(scgap.pl.moments(adata, show=False)[0], MODEL)
    found = points(figure.axes[0], MODEL)
    np.testing.assert_array_equal(found[:, 1], own[:, 1])
    assert (found[:, 0] != own[:, 0]).all()


def test_moments_of_reordered_features(adata):
    expected = points(scgap.pl.moments(adata, moments=["mean"], show=False), MODEL)
    found = points(scgap.pl.moments(adata[:, ::-1].copy(), moments=["mean"], show=False), MODEL)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_moments_of_combinations(pairs):
    scgap.tl.predict(pairs, "B+A")
    figure = scgap.pl.moments(pairs, return_fig=True)
    assert figure.get_suptitle() == "A + B"
    assert points(figure.axes[0], MODEL).shape == (40, 2)


@pytest.mark.parametrize(("plot", "n"), [(scgap.pl.moments, 5), (scgap.pl.history, 3)])
def test_what_a_plot_returns(adata, shown, plot, n):
    assert plot(adata) is None
    assert len(shown) == 1
    axes = plot(adata, show=False)
    assert [type(axis) for axis in axes] == [plt.Axes] * n
    figure = plot(adata, return_fig=True)
    assert isinstance(figure, plt.Figure)
    assert len(figure.axes) == n
    own, given = plt.subplots(1, n)
    assert list(plot(adata, ax=given)) == list(given)
    assert all(axis.has_data() for axis in given)
    assert own.get_suptitle() == ""  # the user's figure is the user's
    assert len(shown) == 1
    assert plot(adata, ax=given, show=True) is None
    assert len(shown) == 2
    with pytest.raises(ValueError, match=rf"ax holds 1 axes, and {n} are drawn"):
        plot(adata, ax=plt.subplots()[1])


def test_one_panel_is_one_axis(adata):
    given = plt.subplots()[1]
    assert scgap.pl.moments(adata, moments=["kurtosis"], ax=given) is given
    assert given.get_title() == "kurtosis"


def test_plots_leave_the_object_alone(adata, same):
    before = adata.copy()
    scgap.pl.moments(adata, show=False)
    scgap.pl.history(adata, show=False)
    assert same(adata, before)


def test_history_draws_the_table(adata):
    table = adata.uns["scgap"]["history"]
    axes = scgap.pl.history(adata, show=False)
    best = table["iteration"][table["valid"].astype(float).idxmin()]
    for axis, column in zip(axes, ("fitting_loss", "monge_gap", "valid"), strict=True):
        curve, line = axis.lines
        np.testing.assert_array_equal(curve.get_xdata(), table["iteration"])
        np.testing.assert_array_equal(curve.get_ydata(), table[column])
        assert set(line.get_xdata()) == {best}
        assert line.get_linestyle() == "--"
        assert axis.get_xlabel() == "iteration"
    assert "Sinkhorn divergence" in axes[0].get_title()
    assert "Monge gap" in axes[1].get_title()
    assert "energy distance" in axes[2].get_title()


def test_history_of_no_iterations(screen, settings):
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    assert all(len(axis.lines) == 1 for axis in scgap.pl.history(screen, show=False))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"key": "other"}, KeyError, ("'other' is not in adata.uns", "Fit a map first")),
        ({"moments": ["mean", "median"]}, KeyError, ("'median' is not in the moments", "'std'")),
        ({"layer": "moved"}, KeyError, ("'moved' is not in adata.layers", "Predict first")),
        ({"layer": "untreated"}, KeyError, ("adata.layers['untreated'] is not a prediction", "Predict again")),
        (
            {"condition": {**QUERY, "dose_value": 300}},
            ValueError,
            ("No measured cells to compare with", "Predict and compare a measured condition", "'drug_3 1000, line_1'"),
        ),
        ({"layer": "untreated", "condition": QUERY}, KeyError, ("adata.layers['untreated'] is not a prediction",)),
        ({"condition": "drug_3"}, ValueError, ("leaves 'dose_value' open", "'drug_3 1000'")),
        ({"condition": {"drug": "drug_3"}}, KeyError, ("'drug' is not in the columns of the fit",)),
        ({"mod": "rna"}, ValueError, ("mod='rna' was given with an AnnData",)),
    ],
)
def test_wrong_arguments_are_refused(adata, refused, arguments, error, words):
    with refused(adata, error, *words):
        scgap.pl.moments(adata, show=False, **arguments)
    assert plt.get_fignums() == []


def test_a_layer_of_an_older_map_is_refused(adata, settings, refused):
    scgap.tl.fit_transport(adata, **{**settings, "n_iters": 0})
    with refused(adata, KeyError, "adata.layers['scgap'] is not a prediction of the map", "Predict again"):
        scgap.pl.moments(adata, show=False)


def test_moments_of_another_object_with_the_map(adata):
    expected = points(scgap.pl.moments(adata[adata.obs["split"] == "test"].copy(), show=False)[0], MODEL)
    other = adata[adata.obs["split"] == "test"].copy()
    del other.obs["split"]
    np.testing.assert_array_equal(points(scgap.pl.moments(other, show=False)[0], MODEL), expected)


def test_moments_need_no_controls(fitted):
    treated = fitted[fitted.obs["perturbation"] != "control"].copy()
    scgap.tl.predict(treated, QUERY, source=(treated.obs["perturbation"] == "drug_1"))
    assert len(points(scgap.pl.moments(treated, show=False)[0], MODEL)) == 40


def test_moments_without_decoder_are_refused(screen, settings, refused):
    screen.obsm["X_other"] = screen.X[:, ::-1].copy()
    scgap.tl.fit_transport(screen, use_rep="X_other", **{**settings, "n_iters": 0})
    with pytest.warns(UserWarning, match="no decoder"):
        scgap.tl.predict(screen, QUERY)
    with refused(screen, ValueError, "fitted in 'X_other', which has no decoder", "Fit X, a layer or 'X_pca'"):
        scgap.pl.moments(screen, show=False)


def test_history_without_a_map_is_refused(screen, refused):
    with refused(screen, KeyError, "'scgap' is not in adata.uns", "scgap.tl.fit_transport"):
        scgap.pl.history(screen, show=False)
