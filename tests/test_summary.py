from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scgap._comparison import METRICS
from scgap._summary import loss_of, summarize

BY = ("split", "support")
NUMBERS = ["mean", "low", "high", "score", "score_low", "score_high"]
LEVELS = {"scgap": 1.0, "permuted_conditions": 1.8, "identity": 2.5, "mean_shift": 1.6, "ridge": 2.2, "ceiling": 0.2}


def make_table(sizes, metrics=("energy_distance", "std_error"), seed=0, **columns):
    """Scores of all methods; sizes are conditions of each tier."""
    generator = np.random.default_rng(seed)
    rows = [
        {"condition": f"{tier} {i}", "split": "test", "support": tier, "method": method, "metric": metric, **columns}
        | {"value": level * generator.gamma(16.0, 1 / 16)}
        for tier, n in sizes.items()
        for i in range(n)
        for metric in metrics
        for method, level in LEVELS.items()
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def scores():
    """8 seen and 6 unseen conditions, three baselines and two metrics, some values missing."""
    table = make_table({"seen": 8, "unseen perturbation": 6})
    missing = table["method"].eq("mean_shift") & table["condition"].isin(["seen 3", "unseen perturbation 0"])
    missing |= table["method"].eq("permuted_conditions") & table["condition"].eq("seen 7")
    missing |= table["method"].eq("scgap") & table["condition"].eq("seen 5") & table["metric"].eq("std_error")
    table.loc[missing, "value"] = np.nan
    return table


def summary_of(scores, by=BY, n_bootstrap=200, seed=0):
    return summarize(scores, by, n_bootstrap, seed)


def same_rows(one, other):
    """Whether the rows of one are there in the other, with the same numbers."""
    keys = [*BY, "method", "metric"]
    both = one.set_index(keys)
    pd.testing.assert_frame_equal(both, other.set_index(keys).loc[both.index])


def mean_of(values, names):
    return sum(values[name] for name in names) / len(names)


def limits_of(estimate, draws, n):
    """By sorting; undefined draws may lie on either side."""
    if n == 1 or np.isnan(estimate):
        return np.nan, np.nan
    tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))
    left_out = int(tail * len(draws))
    lows = sorted(-np.inf if np.isnan(draw) else draw for draw in draws)
    highs = sorted(np.inf if np.isnan(draw) else draw for draw in draws)
    return lows[left_out], highs[len(draws) - 1 - left_out]


def by_hand(part, method, metric, loss, n_bootstrap, seed):
    """One row, condition by condition."""
    of_method = {
        name: dict(zip(rows["condition"], rows["value"], strict=True))
        for name, rows in part[(part["metric"] == metric) & part["value"].notna()].groupby("method")
    }
    conditions = sorted(of_method[method])
    complete = {name: values for name, values in of_method.items() if set(values) >= set(conditions)}
    losses = {name: {c: loss(values[c]) for c in conditions} for name, values in complete.items()}
    means = {name: mean_of(losses[name], conditions) for name in ("identity", "mean_shift", "ridge") if name in losses}
    baseline = min(means, key=means.get)

    def score(names):
        v, b, c = (mean_of(losses[name], names) for name in (method, baseline, "ceiling"))
        return (b - v) / (b - c) if b > c else np.nan

    generator = np.random.default_rng([seed, crc32(metric.encode())])
    drawn = [
        [conditions[i] for i in row] for row in generator.integers(len(conditions), size=(n_bootstrap, len(conditions)))
    ]
    mean, estimate = mean_of(of_method[method], conditions), score(conditions)
    low, high = limits_of(mean, [mean_of(of_method[method], names) for names in drawn], len(conditions))
    score_low, score_high = limits_of(estimate, [score(names) for names in drawn], len(conditions))
    return len(conditions), baseline, [mean, low, high, estimate, score_low, score_high]


def test_summaries_are_those_of_a_plain_loop(scores, monkeypatch):
    monkeypatch.setitem(METRICS, "share", SimpleNamespace(loss=lambda values: 1.0 - values))
    share = scores[scores["metric"] == "std_error"].assign(metric="share")
    share["value"] = 1.0 - share["value"] / 4.0
    table = pd.concat([scores, share])
    found = summary_of(table, seed=3)
    assert len(found) == 2 * 3 * len(LEVELS)
    for row in found.itertuples():
        part = table[table["support"] == row.support]
        loss = (lambda value: 1.0 - value) if row.metric == "share" else (lambda value: value)
        n, baseline, numbers = by_hand(part, row.method, row.metric, loss, 200, 3)
        assert (row.n_conditions, row.baseline, row.split) == (n, baseline, "test")
        np.testing.assert_allclose([getattr(row, name) for name in NUMBERS], numbers, rtol=1e-12, atol=1e-12)


def test_rows_come_in_order_with_all_columns(scores):
    found = summary_of(scores)
    columns = ["split", "support", "method", "metric", "n_conditions", "n_missing", "mean", "low", "high", "baseline"]
    assert list(found) == [*columns, "score", "score_low", "score_high"]
    expected = [(t, m, s) for t in scores["support"].unique() for m in scores["metric"].unique() for s in LEVELS]
    assert list(zip(found["support"], found["metric"], found["method"], strict=True)) == expected
    assert (found["low"] < found["mean"]).all()
    assert (found["mean"] < found["high"]).all()


def test_missing_values_are_left_out_and_counted(scores):
    found = summary_of(scores).set_index(["support", "metric", "method"])
    assert found.loc[("seen", "std_error", "scgap"), ["n_conditions", "n_missing"]].tolist() == [7, 1]
    assert found.loc[("seen", "energy_distance", "scgap"), ["n_conditions", "n_missing"]].tolist() == [8, 0]
    # mean_shift is better, but knows nothing of some conditions; where these are not asked for, it counts.
    values = scores[scores["metric"].eq("std_error") & scores["support"].eq("seen")]
    values = values.pivot(index="condition", columns="method", values="value")
    assert found.loc[("seen", "std_error", "scgap"), "baseline"] != "mean_shift"
    assert values["mean_shift"].mean() < values[["identity", "ridge"]].mean().min()
    assert found.loc[("seen", "std_error", "mean_shift"), "baseline"] == "mean_shift"
    assert found.loc[("seen", "std_error", "mean_shift"), "score"] == 0.0


def test_a_method_without_values_has_no_score(scores):
    scores.loc[scores["method"] == "scgap", "value"] = np.nan
    found = summary_of(scores).query("method == 'scgap'")
    assert found["n_conditions"].eq(0).all()
    assert found["n_missing"].tolist() == [8, 8, 6, 6]
    assert found["baseline"].eq("").all()
    assert found[NUMBERS].isna().all(axis=None)


@pytest.mark.parametrize("how", ["no rows", "one value missing"])
def test_without_a_ceiling_there_are_means_and_no_scores(scores, how):
    ceiling = scores["method"] == "ceiling"
    if how == "no rows":
        scores = scores[~ceiling]
    else:
        scores.loc[ceiling & scores["condition"].isin(["seen 0", "unseen perturbation 1"]), "value"] = np.nan
    found = summary_of(scores).query("method == 'scgap'")
    assert found[NUMBERS[:3]].notna().all(axis=None)
    assert found[NUMBERS[3:]].isna().all(axis=None)


def test_baseline_and_ceiling_are_0_and_1_without_an_interval(scores):
    found = summary_of(scores)
    own = found[found["method"] == found["baseline"]]
    assert len(own)
    assert (own[NUMBERS[3:]] == 0.0).all(axis=None)
    assert (found.loc[found["method"] == "ceiling", NUMBERS[3:]] == 1.0).all(axis=None)


def test_a_model_is_no_baseline_however_good(scores):
    scores.loc[scores["method"] == "permuted_conditions", "value"] = 0.3
    found = summary_of(scores)
    assert set(found["baseline"]) == {"identity", "mean_shift", "ridge"} & set(found["baseline"])


def test_one_noisy_ceiling_does_not_spoil_the_score():
    table = make_table({"seen": 12}, metrics=["energy_distance"])
    noisy = table["condition"] == "seen 0"
    table.loc[noisy & (table["method"] == "ceiling"), "value"] = 2.6  # above every baseline
    row = summary_of(table).iloc[0]
    assert 0 < row["score_low"] < row["score"] < row["score_high"] < 2
    by_condition = table.pivot(index="condition", columns="method", values="value")
    assert by_condition.loc["seen 0", "ceiling"] > by_condition.loc["seen 0", row["baseline"]]


def test_scores_without_anything_to_gain_are_missing_and_their_intervals_may_be_open():
    table = make_table({"seen": 6}, metrics=["energy_distance"])
    ceiling = table["method"] == "ceiling"
    table.loc[ceiling & table["condition"].isin(["seen 0", "seen 1"]), "value"] = 3.0
    row = summary_of(table).iloc[0]
    assert np.isfinite(row["score"])
    assert (row["score_low"], row["score_high"]) == (-np.inf, np.inf)
    table.loc[ceiling, "value"] = 5.0
    row = summary_of(table).iloc[0]
    assert row[NUMBERS[3:]].isna().all()
    assert row["low"] < row["mean"] < row["high"]


def test_one_condition_has_no_interval():
    row = summary_of(make_table({"seen": 1})).iloc[0]
    assert np.isfinite([row["mean"], row["score"]]).all()
    assert row[["low", "high", "score_low", "score_high"]].isna().all()


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(0)
    n, repetitions = 6, 200
    common = generator.normal(0.0, 0.3, (repetitions, n))  # some conditions are hard for all
    means = {"scgap": 1.2, "identity": 2.0, "ceiling": 0.4}
    rows = [
        pd.DataFrame(
            {
                "condition": np.tile([f"condition {i}" for i in range(n)], repetitions),
                "repetition": np.repeat(np.arange(repetitions), n),
                "method": method,
                "metric": "energy_distance",
                "value": (mean + common + generator.normal(0.0, 0.2, (repetitions, n))).ravel(),
            }
        )
        for method, mean in means.items()
    ]
    found = summary_of(pd.concat(rows), by="repetition", n_bootstrap=1_000).query("method == 'scgap'")
    assert len(found) == repetitions
    for names, truth in ((("low", "high"), 1.2), (("score_low", "score_high"), 0.5)):
        low, high = (found[name] for name in names)
        assert 0.88 <= ((low < truth) & (truth < high)).mean() <= 0.99


def test_same_seed_same_table_in_any_order(scores):
    before = summary_of(scores)
    pd.testing.assert_frame_equal(summary_of(scores), before)
    same_rows(summary_of(scores.sample(frac=1.0, random_state=0)), before)
    other = summary_of(scores, seed=1)
    pd.testing.assert_frame_equal(other[["mean", "score", "baseline"]], before[["mean", "score", "baseline"]])
    assert (other.loc[other["n_conditions"] > 0, "low"] != before["low"]).any()


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("metric", "energy_distance"),
        ("metric", "std_error"),
        ("method", "permuted_conditions"),
        ("method", "scgap"),
        ("support", "seen"),
    ],
)
def test_leaving_rows_out_changes_no_other_number(scores, column, name):
    part = summary_of(scores[scores[column] != name])
    assert len(part)
    same_rows(part, summary_of(scores))


def test_leaving_out_a_baseline_that_is_not_the_best_changes_nothing(scores):
    scores.loc[scores["method"] == "identity", "value"] = 50.0
    same_rows(summary_of(scores[scores["method"] != "identity"]), summary_of(scores))


def test_metrics_have_draws_of_their_own(scores):
    copied = scores[scores["metric"] == "std_error"]
    found = summary_of(pd.concat([copied, copied.assign(metric="other")])).query("method == 'identity'")
    one, other = found.query("metric == 'std_error'"), found.query("metric == 'other'")
    np.testing.assert_array_equal(one["mean"], other["mean"])
    assert (one["low"].to_numpy() != other["low"].to_numpy()).any()


def test_losses_of_metrics(monkeypatch):
    monkeypatch.setitem(METRICS, "ratio", SimpleNamespace(loss=lambda values: np.abs(np.log(values))))
    np.testing.assert_allclose(loss_of("ratio")(np.array([0.5, 1.0, 2.0])), [np.log(2.0), 0.0, np.log(2.0)])
    np.testing.assert_array_equal(loss_of("a metric of somebody else")(np.array([0.5, 2.0])), [0.5, 2.0])


def test_infinite_losses_are_far_below_the_baseline(monkeypatch):
    monkeypatch.setitem(METRICS, "ratio", SimpleNamespace(loss=lambda values: np.abs(np.log(values))))
    table = make_table({"seen": 6}, metrics=["ratio"])
    table.loc[table["method"] == "ceiling", "value"] = 1.0
    table.loc[(table["method"] == "scgap") & (table["condition"] == "seen 2"), "value"] = 0.0
    row = summary_of(table).iloc[0]
    assert (row["score"], row["score_low"]) == (-np.inf, -np.inf)
    assert np.isfinite(row["mean"])


def test_groups_are_what_by_says(scores):
    several = pd.concat([scores.assign(fit=fit, value=scores["value"] + fit) for fit in (0, 1)])
    found = summary_of(several, by=(*BY, "fit"))
    assert list(found["fit"].unique()) == [0, 1]
    for fit, part in found.groupby("fit"):
        expected = summary_of(scores.assign(value=scores["value"] + fit))
        pd.testing.assert_frame_equal(part.drop(columns="fit").reset_index(drop=True), expected)
    seen = scores[scores["support"] == "seen"]
    alone = summary_of(seen, by=())
    assert list(alone)[:2] == ["method", "metric"]
    expected = summary_of(seen, by="support").drop(columns="support")
    pd.testing.assert_frame_equal(alone, expected)


def test_rows_without_a_tier_are_a_group():
    # As of predictions without a split, of which nobody knows what they were trained on.
    scores = make_table({"seen": 8}).assign(support=np.nan)
    found = summary_of(scores)
    assert found["support"].isna().all()
    pd.testing.assert_frame_equal(found.drop(columns="support"), summary_of(scores, by="split"))


def test_unseen_tiers_may_be_pooled():
    found = summary_of(make_table({"unseen group": 3, "unseen perturbation": 4}), by="split")
    assert set(found["n_conditions"]) == {7}


def test_categories_are_names(scores):
    categories = scores.astype(dict.fromkeys(["condition", "method", "metric", "split", "support"], "category"))
    categories["method"] = categories["method"].cat.add_categories("unused")
    found = summary_of(categories)
    pd.testing.assert_frame_equal(found.astype({"split": str, "support": str}), summary_of(scores))


def test_rows_that_are_there_twice_count_once(scores):
    twice = pd.concat([scores, scores[scores["method"] != "scgap"]])
    pd.testing.assert_frame_equal(summary_of(twice), summary_of(scores))
