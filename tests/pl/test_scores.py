from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import scgap
from scgap._comparison import METRICS as METRICS_OF_SCGAP
from scgap.pl._scores import MAIN
from scgap.pl._style import PALETTE

METRICS = ["energy_distance", "std_error"]
LEVELS = {"identity": 2.5, "scgap": 1.0, "permuted_conditions": 1.8, "mean_shift": 1.6, "ceiling": 0.3}
SIZES = {"unseen perturbation": 5, "seen": 8}


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def table():
    """Scores of five methods in two tiers, the harder tier first."""
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"condition": f"{tier} {i}", "split": "test", "support": tier, "method": method, "metric": metric}
            | {"value": level * generator.gamma(16.0, 1 / 16)}
            for tier, n in SIZES.items()
            for i in range(n)
            for metric in METRICS
            for method, level in LEVELS.items()
        ]
    )


@pytest.fixture
def evaluated(fitted):
    scgap.tl.evaluate(fitted)
    return fitted


def drawn(axis):
    """Method -> its line of points; the lines at 0 and 1 left out."""
    return {line.get_label(): line for line in axis.lines if line.get_marker() != "None"}


def intervals(axis, i):
    """Ends (n_metrics, 2) and heights of the intervals of the i-th method."""
    segments = np.array(axis.collections[i].get_segments())
    return segments[:, :, 0], segments[:, 0, 1]


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_points_and_lines_are_the_summary(table):
    axes = scgap.pl.scores(table, show=False)
    assert [axis.get_title() for axis in axes] == ["seen\n8 conditions", "unseen perturbation\n5 conditions"]
    summary = scgap.tl.summarize_scores(table)
    for axis, tier in zip(axes, ("seen", "unseen perturbation"), strict=True):
        methods = drawn(axis)
        assert list(methods) == ["scgap", "permuted_conditions", "identity", "mean_shift"]  # baselines last
        for i, (method, line) in enumerate(methods.items()):
            rows = summary[(summary["support"] == tier) & (summary["method"] == method)]
            assert rows["metric"].tolist() == METRICS
            np.testing.assert_allclose(line.get_xdata(), rows["score"])
            ends, heights = intervals(axis, i)
            np.testing.assert_allclose(ends, rows[["score_low", "score_high"]])
            np.testing.assert_allclose(heights, line.get_ydata())
            np.testing.assert_array_equal(np.round(line.get_ydata()), [0, 1])  # inside of the row of the metric
        assert axis.get_ylim() == (1.5, -0.5)  # the first metric on top
        assert axis.get_xlabel() == "score"


def test_what_the_axes_say(table):
    axes = scgap.pl.scores(table, show=False)
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["energy distance", "std error"]
    assert not any(tick.get_text() for tick in axes[1].get_yticklabels())
    for axis in axes:
        places = {line.get_label(): set(line.get_xdata()) for line in axis.lines if line.get_marker() == "None"}
        assert places == {"best simple baseline": {0}, "replicate": {1}}
        assert axis.get_xlim() == axes[0].get_xlim()
    names = [text.get_text() for text in axes[1].get_legend().get_texts()]
    assert names == ["best simple baseline", "replicate", *drawn(axes[1])]


def test_every_method_has_a_colour_and_a_marker_of_its_own(table):
    parts = [table.assign(method=table["method"] + end) for end in ("", " b", " c", " d")]
    axes = scgap.pl.scores(pd.concat([table, *parts[1:]]), show=False)
    looks = [(to_hex(line.get_color()), line.get_marker()) for line in drawn(axes[0]).values()]
    assert len(set(looks)) == len(looks) == 4 + 3 * 5
    assert [colour for colour, _ in looks[:7]] == [colour.lower() for colour in PALETTE]
    assert len({marker for _, marker in looks[:10]}) == 10


def test_chosen_methods_and_metrics_keep_their_numbers(table):
    everything = scgap.pl.scores(table, show=False)
    axes = scgap.pl.scores(table, methods=["mean_shift", "scgap"], metrics="std_error", show=False)
    for axis, other in zip(axes, everything, strict=True):
        assert list(drawn(axis)) == ["mean_shift", "scgap"]
        for method, line in drawn(axis).items():
            np.testing.assert_array_equal(line.get_xdata(), drawn(other)[method].get_xdata()[1:])
    assert list(drawn(scgap.pl.scores(table, methods="ceiling", show=False)[0])["ceiling"].get_xdata()) == [1.0, 1.0]


def with_metrics(table, names):
    """The table with one metric, under several names."""
    return pd.concat([table[table["metric"] == "std_error"].assign(metric=name) for name in names])


def metrics_of(axes):
    return [tick.get_text().replace(" ", "_") for tick in axes[0].get_yticklabels()]


def test_of_many_metrics_the_main_ones_are_shown_and_fit_beside_a_text(table):
    many = with_metrics(table, METRICS_OF_SCGAP)
    figure = scgap.pl.scores(many, return_fig=True)
    assert metrics_of(figure.axes) == [name for name in METRICS_OF_SCGAP if name in MAIN]
    assert figure.get_size_inches()[1] <= 5
    assert metrics_of(scgap.pl.scores(many, metrics="all", show=False)) == list(METRICS_OF_SCGAP)
    few = [name for name in METRICS_OF_SCGAP if name not in MAIN][:10]
    assert metrics_of(scgap.pl.scores(with_metrics(table, few), show=False)) == few
    own = [f"metric_{i}" for i in range(12)]
    assert metrics_of(scgap.pl.scores(with_metrics(table, own), show=False)) == own
    assert set(MAIN) <= set(METRICS_OF_SCGAP)


def test_a_figure_is_neither_a_strip_nor_a_scroll(table):
    one = scgap.pl.scores(table, metrics="std_error", return_fig=True)
    assert one.get_size_inches()[1] >= 2.5
    many = with_metrics(table, METRICS_OF_SCGAP)
    methods = [many.assign(method=many["method"] + end) for end in ("", " b", " c")]
    everything = scgap.pl.scores(pd.concat(methods), metrics="all", return_fig=True)
    assert len(drawn(everything.axes[0])) == 4 + 2 * 5
    assert everything.get_size_inches()[1] <= 9
    for figure in (one, everything):
        legend = figure.axes[-1].get_legend().get_window_extent()
        assert figure.bbox.y0 <= legend.y0 < legend.y1 <= figure.bbox.y1


def test_numbers_beyond_the_axis_are_written_where_there_is_room(table):
    table.loc[table["method"].eq("identity"), "value"] += 50.0
    roomy = scgap.pl.scores(table, show=False)[0]
    crowded = scgap.pl.scores(with_metrics(table, METRICS_OF_SCGAP), metrics="all", show=False)
    given = scgap.pl.scores(table, ax=plt.subplots(1, 2, figsize=(6, 0.4))[1])[0]
    assert len(texts(roomy)) == 2
    assert all(texts(roomy))
    assert all(texts(crowded[0]))
    assert texts(given) == ["", ""]  # arrows alone


def test_metrics_without_any_value_take_no_room(table):
    table.loc[table["metric"] == "std_error", "value"] = np.nan
    assert metrics_of(scgap.pl.scores(table, show=False)) == ["energy_distance"]
    assert metrics_of(scgap.pl.scores(table, metrics="all", show=False)) == METRICS
    assert metrics_of(scgap.pl.scores(table, metrics=pd.Series(METRICS), show=False)) == METRICS
    assert metrics_of(scgap.pl.scores(table, metrics="std_error", show=False)) == ["std_error"]


def test_scores_far_off_are_written_and_the_axis_ends_before(table):
    far = table["method"].eq("identity") & table["metric"].eq("std_error") & table["support"].eq("seen")
    table.loc[far, "value"] += 50.0
    axes = scgap.pl.scores(table, show=False)
    score = drawn(axes[0])["identity"].get_xdata()[1]
    assert score < -20  # not clipped
    assert texts(axes[0]) == [f"{score:.3g}"]
    assert texts(axes[1]) == []
    assert -3.5 < axes[0].get_xlim()[0] < -3
    (arrow,) = axes[0].texts
    assert arrow.xy == (axes[0].get_xlim()[0], drawn(axes[0])["identity"].get_ydata()[1])
    assert to_hex(arrow.arrow_patch.get_edgecolor()) == to_hex(drawn(axes[0])["identity"].get_color())


def test_scores_far_above_a_replicate_are_written_too(table):
    table.loc[table["method"].eq("scgap") & table["support"].eq("seen"), "value"] -= 50.0
    axes = scgap.pl.scores(table, show=False)
    assert 2 < axes[0].get_xlim()[1] < 3
    assert texts(axes[0]) == [f"{score:.3g}" for score in drawn(axes[0])["scgap"].get_xdata()]
    assert all(arrow.xy[0] == axes[0].get_xlim()[1] for arrow in axes[0].texts)
    assert texts(axes[1]) == []


def test_open_intervals_reach_beyond_the_axis(table):
    ceiling = table["method"].eq("ceiling") & table["condition"].isin([f"unseen perturbation {i}" for i in range(2)])
    table.loc[ceiling, "value"] = 2.0
    summary = scgap.tl.summarize_scores(table).query("support == 'unseen perturbation' and method == 'scgap'")
    assert np.isinf(summary[["score_low", "score_high"]]).all(axis=None)
    axis = scgap.pl.scores(table, show=False)[1]
    ends, _ = intervals(axis, 0)
    assert (ends[:, 0] < axis.get_xlim()[0]).all()
    assert (ends[:, 1] > axis.get_xlim()[1]).all()
    assert (axis.collections[0].get_colors()[:, 3] < 0.5).all()
    assert (scgap.pl.scores(table, show=False)[0].collections[0].get_colors()[:, 3] == 1).all()


def test_metrics_without_a_score_say_so(table):
    table.loc[table["method"].eq("ceiling") & table["metric"].eq("std_error"), "value"] = 9.0
    table.loc[table["support"].eq("seen"), "value"] = np.nan
    axes = scgap.pl.scores(table, show=False)
    assert [axis.get_title() for axis in axes] == ["seen\n0 conditions", "unseen perturbation\n5 conditions"]
    assert texts(axes[0]) == ["no values", "no values"]
    assert texts(axes[1]) == ["no score"]
    assert axes[1].texts[0].get_position()[1] == 1  # in the row of the second metric


def test_methods_without_any_value_take_no_room(table):
    seen, first = table["support"].eq("seen"), table["method"].eq("scgap")
    table.loc[first & ~(seen & table["metric"].eq("std_error")), "value"] = np.nan  # still the first of the methods
    table.loc[table["method"] == "identity", "value"] = np.nan
    axes = scgap.pl.scores(table, show=False)
    assert list(drawn(axes[0])) == ["scgap", "permuted_conditions", "mean_shift"]
    assert list(drawn(scgap.pl.scores(table, methods=["identity", "scgap"], show=False)[0])) == ["identity", "scgap"]
    table["value"] = np.nan
    assert list(drawn(scgap.pl.scores(table, show=False)[0])) == [
        "scgap",
        "permuted_conditions",
        "identity",
        "mean_shift",
    ]


def test_splits_are_panels_and_one_condition_is_a_point(table):
    one = table[table["condition"] == "seen 0"]
    axes = scgap.pl.scores(pd.concat([table, one.assign(split="valid")]), show=False)
    titles = ["seen, test\n8 conditions", "seen, valid\n1 condition", "unseen perturbation, test\n5 conditions"]
    assert [axis.get_title() for axis in axes] == titles
    assert all(len(lines.get_segments()) == 0 for lines in axes[1].collections)


def test_tables_without_tiers_are_one_panel(table):
    axis = scgap.pl.scores(table.drop(columns=["split", "support"]), show=False)
    assert axis.get_title() == "13 conditions"


def test_the_stored_table_is_drawn(evaluated, tmp_path):
    scores = scgap.pl.scores(evaluated.uns["scgap"]["scores"], show=False)
    stored = scgap.pl.scores(evaluated, show=False)
    for one, other in zip(np.atleast_1d(scores), np.atleast_1d(stored), strict=True):
        assert list(drawn(one)) == list(drawn(other))
        for method, line in drawn(one).items():
            np.testing.assert_array_equal(line.get_xdata(), drawn(other)[method].get_xdata())


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_nothing_is_cut_off_or_printed_over_another(table, style, tmp_path):
    names = [f"metric_{i}" for i in range(12)]
    wide = pd.concat([table[table["metric"] == "std_error"].assign(metric=name) for name in names])
    with plt.style.context(style):
        figure = scgap.pl.scores(wide, return_fig=True)
        figure.savefig(tmp_path / "plot.png")
    assert len(figure.axes) == 2
    for axis in figure.axes:
        box = axis.get_tightbbox()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert to_hex(axis.lines[0].get_color()) == {"default": "#000000"}.get(style, "#ffffff")
        labels = [tick.get_window_extent() for tick in axis.get_yticklabels() if tick.get_text()]
        assert not any(one.overlaps(other) for one, other in pairwise(labels))
        # Rows keep clear of one another: the lowest point of a metric is above the highest of the next.
        heights = np.sort(np.concatenate([line.get_ydata() for line in drawn(axis).values()]))
        assert np.diff(axis.transData.transform(np.column_stack([heights, heights]))[:, 1]).max() < -4 * figure.dpi / 72
    legend = figure.axes[-1].get_legend().get_window_extent()
    assert legend.x0 >= figure.axes[-1].get_window_extent().x1


def test_what_a_plot_returns(table, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    assert scgap.pl.scores(table) is None
    assert len(shown) == 1
    assert [type(axis) for axis in scgap.pl.scores(table, show=False)] == [plt.Axes] * 2
    assert isinstance(scgap.pl.scores(table, return_fig=True), plt.Figure)
    given = plt.subplots(1, 2)[1]
    assert list(scgap.pl.scores(table, ax=given)) == list(given)
    assert len(shown) == 1
    with pytest.raises(ValueError, match="ax holds 1 axes, and 2 are drawn"):
        scgap.pl.scores(table, ax=given[0])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"methods": ["scgap", "means_shift"]}, KeyError, ("'means_shift' is not in the methods of the scores", "Did")),
        ({"metrics": "mmd"}, KeyError, ("'mmd' is not in the metrics of the scores", "'std_error'")),
        ({"methods": []}, ValueError, ("There are no methods to show", "'scgap'")),
        ({"metrics": []}, ValueError, ("There are no metrics to show", "'std_error'")),
    ],
)
def test_wrong_names_are_refused(table, refused, arguments, error, words):
    with refused(table, error, *words):
        scgap.pl.scores(table, show=False, **arguments)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, KeyError, ("adata.uns['scgap'] holds no scores", "scgap.tl.evaluate(adata)")),
        ({"key": "other"}, KeyError, ("'other' is not in adata.uns", "Fit a map first")),
        ({"mod": "rna"}, ValueError, ("mod='rna' was given with an AnnData",)),
    ],
)
def test_an_object_without_scores_is_refused(fitted, refused, arguments, error, words):
    with refused(fitted, error, *words):
        scgap.pl.scores(fitted, show=False, **arguments)


def test_what_is_no_table_is_refused(table, refused):
    with refused(table, KeyError, "scores has no column 'value'"):
        scgap.pl.scores(table.drop(columns="value"), show=False)
    with pytest.raises(TypeError, match="data is an ndarray"):
        scgap.pl.scores(table.to_numpy(), show=False)


def test_predictions_without_a_tier_have_one_panel(table):
    table = table[table["support"] == "seen"].assign(support=np.nan)
    axis = scgap.pl.scores(table, show=False)
    assert axis.get_title() == "8 conditions"
