"""Tables of scores made short: means over conditions with intervals, and scores against the best simple baseline."""

from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from scipy import stats

from scgap._baselines import BASELINES
from scgap._checks import texts, whole_number
from scgap._comparison import METRICS, Loss, as_it_is
from scgap._messages import kind_of, listed, not_found

SIMPLE = tuple(BASELINES)  # methods that a score may be measured against
CEILING = "ceiling"  # the method that a replicate stands for
LEVEL = 0.95  # of the intervals
REQUIRED = ("condition", "method", "metric", "value")
NUMBERS = ("mean", "low", "high", "score", "score_low", "score_high")


def summarize(scores: Any, by: str | Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """One row a group, metric and method, as `scgap.tl.summarize_scores` describes it."""
    by = texts("by", by)
    n_bootstrap, seed = whole_number("n_bootstrap", n_bootstrap, 1), whole_number("seed", seed, 0)
    rows = []
    for group, part in _groups(_checked(scores, by), by):
        for metric in part["metric"].unique():
            block = part[part["metric"] == metric]
            values = block.pivot(index="condition", columns="method", values="value")
            for method in block["method"].unique():
                n_missing = int((block["method"].eq(method) & block["value"].isna()).sum())
                # Seeded by its name, so that leaving a metric out changes no other. crc32 is the same on every machine.
                generator = np.random.default_rng([seed, crc32(metric.encode())])
                numbers = _numbers(values[values[method].notna()], method, loss_of(metric), generator, n_bootstrap)
                rows.append({**group, "method": method, "metric": metric, "n_missing": n_missing, **numbers})
    columns = [*by, "method", "metric", "n_conditions", "n_missing", *NUMBERS[:3], "baseline", *NUMBERS[3:]]
    return pd.DataFrame(rows)[columns]


def loss_of(metric: str) -> Loss:
    """The loss of a metric; the value itself for metrics that are not ours."""
    return METRICS[metric].loss if metric in METRICS else as_it_is


@np.errstate(divide="ignore", invalid="ignore")  # losses may be infinite, such as that of a ratio of 0
def _numbers(
    values: pd.DataFrame, method: str, loss: Loss, generator: np.random.Generator, n_bootstrap: int
) -> dict[str, Any]:
    """Mean, score and their intervals of one method, over the conditions (rows) that it has a value for."""
    n = len(values)
    if not n:
        return {"n_conditions": 0, "baseline": "", **dict.fromkeys(NUMBERS, np.nan)}
    # The same conditions for all: who lacks one of them is no yardstick.
    losses = {name: loss(column.to_numpy()) for name, column in values.items() if column.notna().all()}
    baseline = min((name for name in SIMPLE if name in losses), key=lambda name: losses[name].mean(), default="")
    # The first draw is every condition once. Methods with the same conditions share the draws.
    drawn = np.vstack([np.arange(n), generator.integers(n, size=(n_bootstrap, n))])
    value, best, ceiling = (
        losses[name][drawn].mean(axis=1) if name in losses else np.full(len(drawn), np.nan)
        for name in (method, baseline, CEILING)
    )
    gain = best - ceiling
    score = (best - value) / np.where(gain > 0, gain, np.nan)
    return {
        "n_conditions": n,
        **dict(zip(NUMBERS[:3], _interval(values[method].to_numpy()[drawn].mean(axis=1), n), strict=True)),
        "baseline": baseline,
        **dict(zip(NUMBERS[3:], _interval(score, n), strict=True)),
    }


def _interval(draws: np.ndarray, n: int) -> tuple[float, float, float]:
    """The first draw and the limits that the others set; infinite where too many of them are undefined.

    Percentiles alone are too narrow for few conditions; these are expanded to the width of Student's t interval
    (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, section 3.2).
    """
    estimate, others = float(draws[0]), draws[1:]
    if n < 2 or np.isnan(estimate):
        return estimate, np.nan, np.nan
    tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf((1 - LEVEL) / 2, n - 1))
    left_out = int(tail * len(others))  # draws beyond each limit
    low = np.sort(np.nan_to_num(others, nan=-np.inf, posinf=np.inf, neginf=-np.inf))[left_out]
    high = np.sort(np.nan_to_num(others, nan=np.inf, posinf=np.inf, neginf=-np.inf))[-1 - left_out]
    return estimate, float(low), float(high)


def _groups(scores: pd.DataFrame, by: list[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Values of the columns, and the rows that have them, in order of appearance."""
    if not by:
        yield {}, scores
        return
    for key, part in scores.groupby(by, sort=False, observed=True, dropna=False):
        yield dict(zip(by, key, strict=True)), part


def _checked(scores: Any, by: list[str]) -> pd.DataFrame:
    """The table with names as strings and no row twice, after every refusal."""
    if not isinstance(scores, pd.DataFrame):
        raise TypeError(f"scores is {kind_of(scores)}. Pass the table that scgap.tl.evaluate returns.")
    for name in REQUIRED:
        if name not in scores:
            raise KeyError(
                f"scores has no column {name!r}; found {listed(scores)}. Pass the table that scgap.tl.evaluate returns."
            )
    for name in by:
        if name not in (others := [column for column in scores if column not in REQUIRED]):
            raise KeyError(not_found(str(name), "the columns to group by", others))
    if scores.empty:
        raise ValueError("scores has no rows. Pass some that scgap.tl.evaluate returned.")
    names = list(REQUIRED[:3])
    if (missing := scores[names].isna().any(axis=1)).any():
        raise ValueError(
            f"{missing.sum()} rows of scores lack a condition, method or metric. Every row needs all three: drop these."
        )
    scores = scores.astype(dict.fromkeys(names, str)).drop_duplicates([*by, *REQUIRED])
    for group, part in _groups(scores, by):
        where = "".join(f" with {name} {str(value)!r}" for name, value in group.items())
        tiers = list(part["support"].unique()) if "support" in part else []
        if "seen" in tiers and len(tiers) > 1:
            raise ValueError(
                f"Seen and unseen conditions{where} would be pooled: {listed(tiers)}. Add 'support' to by, or pass the "
                "rows of one kind."
            )
        if (twice := part.duplicated(list(REQUIRED[:3]))).any():
            one = part[twice].iloc[0]
            raise ValueError(
                f"{one['method']!r} has several values of {one['metric']!r} for {one['condition']!r}{where}. Add the "
                "column that tells them apart to by, such as the split or the seed of a fit, or pass one value of each."
            )
    return scores
