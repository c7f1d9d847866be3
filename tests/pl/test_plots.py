import importlib
import json
import subprocess
import sys
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from scipy import stats

import scgap
from scgap._baselines import BASELINES
from scgap.pl._cells import Cells
from scgap.pl._panel import Errors, draw_panel, error_texts, write_panel
from scgap.pl._points import make_points, nearest_baseline
from scgap.pl._style import BASELINE, MODEL, settle

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
    monkeypatch.setattr(importlib.import_module("scgap.pl._baselines"), "BASELINES", {})


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


def legend_texts(axis):
    """Heading and lines of the corner."""
    legend = axis.get_legend()
    return [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]


def baseline_of(axis):
    """Name of the baseline that stands behind."""
    return legend_texts(axis)[2].split(" ")[0]


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
        heading, *lines = legend_texts(axis)
        assert heading.startswith(("error (score ", "error (nothing to gain)"))
        assert [line.split(" ")[0] for line in lines] == ["predicted", "control", "replicate"]
        named = [text.get_text() for text in axis.texts]
        assert len(named) <= 3
        assert {name for text in named for name in text.split(",\n")} <= set(adata.var_names)


def test_moments_name_the_features_that_are_furthest_off(adata):
    for line, shift in (("line_1", 30.0), ("line_2", 15.0)):
        adata.layers["scgap"][rows(adata, line, observed=False), 7] += shift
    axis = scgap.pl.moments(adata, moments=["mean"], show=False)
    assert [text.get_text() for text in axis.texts].count("feature_7") == 2


def texts_of(axis):
    """Where the corner and the names are, in pixels."""
    return [axis.get_legend().get_window_extent(), *(text.get_window_extent() for text in axis.texts)]


@pytest.mark.parametrize("n_letters", [1, 12, 60])
def test_no_text_overprints_another_or_leaves_the_panel(adata, n_letters, tmp_path):
    adata = adata.copy()
    adata.uns["scgap"] = {**adata.uns["scgap"]}
    source = rows(adata, "line_1", observed=False) | rows(adata, "line_2", observed=False)
    adata.layers["scgap"][source] += np.linspace(3.0, 3.01, adata.n_vars)
    adata.layers["scgap"][source, :7] *= 4.0
    names = np.array([f"{i}{'x' * n_letters}" for i in range(adata.n_vars)], object)
    adata.var_names = adata.uns["scgap"]["var_names"] = names
    figure = scgap.pl.moments(adata, return_fig=True)
    figure.savefig(tmp_path / "plot.png")  # whose layout must be the one that texts were placed for
    assert sum(len(axis.texts) for axis in figure.axes) >= 5
    for axis in figure.axes:
        texts = texts_of(axis)
        assert not any(one.overlaps(other) for i, one in enumerate(texts) for other in texts[:i])
        for box in texts:
            assert (box.min >= axis.bbox.min - 1).all()
            assert (box.max <= axis.bbox.max + 1).all()


def test_texts_are_placed_in_the_layout_that_is_saved(adata, monkeypatch, tmp_path):
    module, sizes = importlib.import_module("scgap.pl._moments"), {}

    def write(axis, points):
        sizes[axis] = axis.bbox.size
        write_panel(axis, points)

    monkeypatch.setattr(module, "write_panel", write)
    # A label of two lines, for which the first draw leaves too little space.
    monkeypatch.setattr(importlib.import_module("scgap.pl._points"), "MAX_PAIRS", 25)
    figure = scgap.pl.moments(adata, return_fig=True)
    figure.savefig(tmp_path / "plot.png")
    for axis in figure.axes:
        np.testing.assert_allclose(sizes[axis], axis.bbox.size, atol=1.0)  # pixels


def test_the_corner_is_where_fewest_points_are_hidden(adata):
    source = rows(adata, "line_1", observed=False) | rows(adata, "line_2", observed=False)
    for shift, above in ((-20.0, True), (20.0, False)):
        adata.layers["scgap"][source] += shift
        axis = scgap.pl.moments(adata, moments="mean", show=False)
        box = axis.get_legend().get_window_extent()
        assert (box.y0 > axis.bbox.y0 + axis.bbox.height / 2) == above
        assert to_hex(axis.get_legend().get_frame().get_facecolor()) == "#ffffff"
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
    labels = ["observed\n(37 of 40 points)"] * 2 + [f"observed\n({n_pairs} of 380 pairs)"]
    assert [axis.get_xlabel() for axis in axes] == ["observed"] * 2 + labels
    skewness = stats.skew(adata.X[rows(adata, "line_2", observed=True), 5].astype(float))
    assert np.isclose(points(axes[2], MODEL)[:, 0], skewness, rtol=1e-4).any()  # rare in the other line alone


def test_moments_of_features_without_any_shape(adata):
    adata.X[:] = adata.layers["scgap"][:] = 1.0
    figure = scgap.pl.moments(adata, return_fig=True)
    labels = ["observed\n(0 of 40 points)"] * 2 + ["observed\n(0 of 380 pairs)"]
    assert [axis.get_xlabel() for axis in figure.axes[2:]] == labels
    assert [legend_texts(axis) for axis in figure.axes[:2]] == [
        ["error (nothing to gain)", "predicted 0", "control 0", "replicate 0"]
    ] * 2
    for axis in figure.axes[2:]:
        assert axis.get_legend() is None
        assert [text.get_text() for text in axis.texts] == ["no feature varies\nin enough cells"]


def test_correlations_are_of_the_pairs_that_vary_most(adata, monkeypatch):
    everything = points(scgap.pl.moments(adata, moments="correlation", show=False), MODEL)
    assert len(everything) == 2 * 20 * 19 // 2
    monkeypatch.setattr(importlib.import_module("scgap.pl._points"), "MAX_PAIRS", 25)
    axis = scgap.pl.moments(adata, moments="correlation", show=False)
    assert axis.get_xlabel() == "observed\n(20 of 380 pairs)"  # 5 features have 10 pairs
    for line, found in zip(("line_1", "line_2"), np.split(points(axis, MODEL), 2), strict=True):
        observed = adata.X[rows(adata, line, observed=True)].astype(float)
        chosen = np.sort(np.argsort(-observed.var(axis=0))[:5])
        np.testing.assert_allclose(found[:, 0], correlation(observed[:, chosen]), atol=1e-5)
        predicted = adata.layers["scgap"][rows(adata, line, observed=False)].astype(float)
        np.testing.assert_allclose(found[:, 1], correlation(predicted[:, chosen]), atol=1e-5)


NAMES = np.array(["A", "B", "C"], object)


def points_beside(moment, predicted, source, observed, **baselines):
    """Points of features A, B and C in one group, with control cells and others as baselines."""
    cells = Cells(predicted, source, observed, None)
    return make_points(moment, [cells], [{"control": source, **baselines}], NAMES)


def panel(moment, found):
    """Axes with a panel."""
    axis = plt.subplots()[1]
    draw_panel(axis, moment, found)
    settle(np.array([axis]))
    write_panel(axis, found)
    return axis


def test_pairs_furthest_off_are_named():
    predicted, source, observed = np.random.default_rng(0).normal(size=(3, 400, 3))
    predicted[:, 2] = predicted[:, 0]  # A and C go together in the prediction alone
    axis = panel("correlation", points_beside("correlation", predicted, source, observed))
    assert [text.get_text() for text in axis.texts] == ["A,\nC"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Cytoplasm_LC3A/B", "Cytoplasm_LC3A/B"),
        ("Cytoplasm_S6 (p-S235/S236)", "Cytoplasm_S6\n(p-S235/S236)"),
        ("Cytoplasm_Cytokeratin 18", "Cytoplasm_\nCytokeratin 18"),
        ("protein:CD8_clone_of_1989_number_17", "protein:CD8_clone_\nof_1989_number_17"),
        ("ENSG00000000000000000003", "ENSG000000000000000…"),
        ("nuclear " + "x" * 30, "nuclear\n" + "x" * 19 + "…"),
    ],
)
def test_long_names_take_two_lines_and_keep_their_end(name, shown):
    predicted, source, observed = np.random.default_rng(0).normal(size=(3, 400, 3))
    predicted[:, 0] += 3.0
    points = points_beside("mean", predicted, source, observed)
    axis = panel("mean", points._replace(names=np.array([name, "B", "C"], object)))
    assert [text.get_text() for text in axis.texts] == [shown]


@pytest.mark.parametrize(("moment", "needed"), [("mean", 1), ("std", 1), ("skewness", 5), ("correlation", 5)])
def test_halves_of_few_cells_have_no_shape_and_no_errors_of_it(moment, needed):
    cells = np.random.default_rng(0).normal(size=(3, 11, 3))
    for n in (needed - 1, needed):
        predicted, source, observed = cells[:, : 2 * n + 1]
        if n:
            replicate = points_beside(moment, predicted, source, observed).errors.replicate
            assert np.isnan(replicate) == (n < needed)
    few = panel(moment, points_beside(moment, *cells[:, :9]))
    assert (legend_texts(few) == ["too few cells for errors", "predicted", "control"]) == (needed == 5)
    assert needed == 1 or not few.texts  # nobody knows which is far off


@pytest.mark.parametrize("moment", ["mean", "std", "correlation"])
def test_the_score_is_0_for_the_baseline_and_near_1_for_a_replicate(moment):
    one, other, truth = np.random.default_rng(0).normal(size=(3, 20_000, 3))
    mixing = np.array([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 2.0]])
    replicate, observed = other @ mixing + 3.0, truth @ mixing + 3.0
    for predicted, expected in ((one[::-1], 0.0), (replicate, 1.0)):
        heading = legend_texts(panel(moment, points_beside(moment, predicted, one, observed)))[0]
        assert abs(float(heading.removeprefix("error (score ").removesuffix(")")) - expected) <= 0.05


@pytest.mark.parametrize(
    ("errors", "heading", "lines"),
    [
        (Errors(0.5, 0.4, 0.2), "error (score -0.50)", ["predicted 0.50", "near 0.40", "replicate 0.20"]),
        (Errors(0.05, 0.022, 0.02), "error (score -14)", ["predicted 0.050", "near 0.022", "replicate 0.020"]),
        (Errors(0.5, 0.2, 0.2), "error (nothing to gain)", ["predicted 0.50", "near 0.20", "replicate 0.20"]),
        (Errors(4e3, 1.04e3, 1e3), "error (nothing to gain)", ["predicted 4,000", "near 1,040", "replicate 1,000"]),
        (Errors(0.0, 0.0, 0.0), "error (nothing to gain)", ["predicted 0", "near 0", "replicate 0"]),
        (Errors(np.nan, np.nan, np.nan), "too few cells for errors", ["predicted", "near"]),
    ],
)
def test_the_corner_always_gives_the_errors(errors, heading, lines):
    assert error_texts(errors, "near") == (heading, lines)


def test_errors_are_those_of_halves_of_equally_many_cells(monkeypatch):
    monkeypatch.setattr(importlib.import_module("scgap.pl._points"), "N_HALVINGS", 2)
    generator = np.random.default_rng(0)
    source, observed = generator.normal(1.0, 1.0, (51, 3)), generator.normal(0.0, 1.0, (20, 3))
    predicted = source - 0.5
    found = points_beside("mean", predicted, source, observed)
    generator, errors = np.random.default_rng(0), []

    def error(one, other):
        return np.mean([np.abs(one[i : i + 10].mean(0) - other[i : i + 10].mean(0)).mean() for i in (0, 10)])

    for _ in range(2):
        moved, seen = generator.permutation(51)[:20], observed[generator.permutation(20)]
        replicate = np.abs(seen[:10].mean(0) - seen[10:].mean(0)).mean()
        errors.append([error(predicted[moved], seen), error(source[moved], seen), replicate])
    np.testing.assert_allclose(found.errors, np.mean(errors, axis=0))


def test_the_best_simple_baseline_stands_behind_under_its_name(adata):
    predicted, source, observed = np.random.default_rng(0).normal(size=(3, 400, 3))
    baselines = {"far": observed + 1.0, "narrow": 0.5 * (observed - observed.mean(0)) + observed.mean(0)}
    for moment, best in (("mean", "narrow"), ("std", "far")):
        found = points_beside(moment, predicted, source, observed, **baselines)
        assert found.baseline_name == best
        expected = {"mean": np.mean, "std": np.std}[moment](baselines[best], axis=0)
        np.testing.assert_allclose(found.baseline, expected)
    trained = baseline_of(scgap.pl.moments(adata, moments="mean", show=False))
    assert trained in BASELINES
    assert trained != "identity"  # effects are large
    adata.obs["split"] = "test"  # nothing to learn baselines from
    assert baseline_of(scgap.pl.moments(adata, moments="mean", show=False)) == "control"


def test_of_equally_good_baselines_the_first_is_taken():
    observed = np.zeros(4)
    points = {name: np.full(4, error) for name, error in (("a", 1.0), ("b", 0.9991), ("c", 0.9995), ("d", 0.99))}
    assert nearest_baseline(points, observed) == "d"
    del points["d"]
    assert nearest_baseline(points, observed) == "a"
    assert nearest_baseline({"a": observed + 1.0, "b": observed, "c": observed}, observed) == "b"


def test_the_simplest_baselines_come_first(adata, monkeypatch):
    module = importlib.import_module("scgap.pl._baselines")
    asked = []
    same = {
        name: lambda training, condition, source, generator, name=name: asked.append(name) or source
        for name in BASELINES
    }
    monkeypatch.setattr(module, "BASELINES", same)
    assert baseline_of(scgap.pl.moments(adata, moments="mean", show=False)) == "control"
    assert asked == [name for name in BASELINES if name != "identity"] * 2  # once in each group


@pytest.mark.parametrize("moment", ["skewness", "kurtosis", "correlation"])
def test_baselines_do_not_choose_the_features(moment):
    generator = np.random.default_rng(0)
    predicted, observed = generator.gamma(1.0, size=(2, 400, 3))
    source = generator.normal(size=(400, 3))
    alone = points_beside(moment, predicted, source, observed)
    constant = observed.copy()
    constant[:, 1] = 2.0  # right in the other features: still the nearest
    found = points_beside(moment, predicted, source, observed, constant=constant)
    assert found.baseline_name == "constant"
    np.testing.assert_array_equal(found.names, alone.names)
    np.testing.assert_array_equal(found.observed, alone.observed)
    of_b = ["B" in name.split(",\n") for name in found.names]
    assert (found.baseline[of_b] == 0).all()
    assert (found.baseline[~np.array(of_b)] != 0).all()
    source[:, 1] = 2.0  # of control cells, it does matter
    assert not any("B" in name for name in points_beside(moment, predicted, source, observed).names)


def test_dark_styles_have_light_lines_and_texts_on_dark(adata):
    with plt.style.context("dark_background"):
        axis = scgap.pl.moments(adata, moments="mean", show=False)
    assert to_hex(axis.lines[0].get_color()) == "#ffffff"
    assert to_hex(axis.get_legend().get_frame().get_facecolor()) == "#000000"
    assert to_hex(axis.get_legend().get_title().get_color()) == "#ffffff"
    light = scgap.pl.moments(adata, moments="mean", show=False)
    for one, other in zip(axis.get_legend().get_texts(), light.get_legend().get_texts(), strict=True):
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
        curve, line, zero = axis.lines
        np.testing.assert_array_equal(curve.get_xdata(), table["iteration"])
        np.testing.assert_array_equal(curve.get_ydata(), table[column])
        assert set(line.get_xdata()) == {best}
        assert line.get_linestyle() == "--"
        assert set(zero.get_ydata()) == {0}
        assert axis.get_xlabel() == "iteration"
    assert "Sinkhorn divergence" in axes[0].get_title()
    assert "Monge gap" in axes[1].get_title()
    assert "energy distance" in axes[2].get_title()


def test_history_of_no_iterations(screen, settings):
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    for axis in scgap.pl.history(screen, show=False):
        assert [list(line.get_ydata()) for line in axis.lines] == [[], [0, 0]]


def test_history_shows_where_the_gap_of_an_optimal_map_lies(adata):
    _, axis, _ = scgap.pl.history(adata, show=False)
    band = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    blur = json.loads(adata.uns["scgap"]["params"])["resolved"]["gap_epsilon"]
    np.testing.assert_allclose([band.y0, band.y1], [-blur, 0], atol=1e-6)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["an optimal map"]


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


def test_drawing_loads_no_library_for_training(adata, tmp_path):
    adata.write_h5ad(tmp_path / "screen.h5ad")
    script = """
import sys, anndata, matplotlib, scgap
matplotlib.use("agg")
adata = anndata.read_h5ad(sys.argv[1])
figure = scgap.pl.moments(adata, return_fig=True)
assert all(axis.get_legend() is not None for axis in figure.axes)
print(*({"anndata", "jax", "jaxlib", "flax", "optax", "ott"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", script, tmp_path / "screen.h5ad"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["anndata"]


def test_moments_need_no_controls(fitted):
    treated = fitted[fitted.obs["perturbation"] != "control"].copy()
    scgap.tl.predict(treated, QUERY, source=(treated.obs["perturbation"] == "drug_1"))
    assert len(points(scgap.pl.moments(treated, show=False)[0], MODEL)) == 40


def test_moments_without_decoder_are_refused(screen, settings, refused):
    screen.obsm["X_other"] = screen.X[:, ::-1].copy()
    scgap.tl.fit_transport(screen, use_rep="X_other", **{**settings, "n_iters": 0})
    with pytest.warns(UserWarning, match="no decoder"):
        scgap.tl.predict(screen, QUERY)
    with refused(screen, ValueError, "fitted in 'X_other', which has no decoder", "or call sc.pp.pca and fit 'X_pca'"):
        scgap.pl.moments(screen, show=False)


def test_history_without_a_map_is_refused(screen, refused):
    with refused(screen, KeyError, "'scgap' is not in adata.uns", "scgap.tl.fit_transport"):
        scgap.pl.history(screen, show=False)


def test_several_modalities_are_those_of_a_mudata(fitted, refused):
    with refused(fitted, TypeError, "mod=['rna', 'protein'] was given with an AnnData", "Pass a MuData"):
        scgap.pl.history(fitted, mod=["rna", "protein"])
