"""Scores of predictions: the same cells, the same baselines and the same ceiling for whatever is judged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from scgap._adata import Matrix, random_order, to_dense
from scgap._baselines import BASELINES, Training, halves, learn
from scgap._comparison import METRICS, Comparison, Target, measure
from scgap._conditions import Condition, condition_label
from scgap._reference import Reference, References, make_references

MIN_CELLS = 4  # observed cells: two in each half
MOST_TRAINING = 1_000  # training cells of a condition that baselines and references are made of
COLUMNS = [
    *("condition", "split", "method", "metric", "value", "n_cells", "baseline", "reconstruction", "ceiling", "score"),
    "reason",
]

type Prediction = np.ndarray | str
"""Cells (n, n_features), or why there are none."""

type Method = Callable[[int, np.ndarray, np.random.Generator], Prediction]
"""From the position of a condition and rows (n,) of control cells of its group to as many predicted cells."""

type Reconstruct = Callable[..., np.ndarray]
"""From cells (n, n_features) and the ``mean`` (n_features,) of training cells to what a representation keeps."""


@dataclass(frozen=True)
class Observations:
    """What was measured."""

    conditions: list[Condition]
    of_cell: np.ndarray
    """(n_obs,) position of each cell's condition, -1 for none."""
    split: np.ndarray
    """(n_obs,) ``train``, ``valid`` or ``test``."""
    features: Matrix
    """(n_obs, n_features)"""
    nonnegative: bool
    """Whether predictions below 0 are wrong for sure."""
    names: pd.Index
    """(n_obs,) of the cells, by which they are drawn."""

    def rows(self, i: int, split: str) -> np.ndarray:
        """Cells of a condition in one split, in an order that their names decide."""
        return np.asarray(self._rows.get((i, split), []), int)

    @cached_property
    def _rows(self) -> Mapping[Any, Any]:
        # One pass for all conditions: they may be hundreds, and the cells a million.
        order = random_order(self.names)
        split = self.split[order]
        found = pd.Series(split).groupby([self.of_cell[order], split]).indices
        return {part: order[places] for part, places in found.items()}

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """Features (n, n_features) of some cells."""
        return to_dense(self.features[rows])

    def control_of(self, i: int) -> int | None:
        """Position of the controls of a condition's group."""
        group = self.conditions[i].group
        return next((j for j, c in enumerate(self.conditions) if c.is_control and c.group == group), None)


def score_conditions(
    observations: Observations,
    methods: Mapping[str, Method],
    descriptors: Mapping[str, np.ndarray],
    *,
    split: str,
    metrics: Sequence[str],
    most_cells: int,
    n_predicted: Mapping[int, int] | None = None,
    reconstruct: Reconstruct | None = None,
    seed: int,
) -> pd.DataFrame:
    """One row (COLUMNS and ``judged``) a condition with cells in the split, method, baseline and metric.

    ``judged`` says whether the method has a prediction and there is something to compare it with.

    ``n_predicted`` says how many predicted cells there are of each condition; None, where methods move source cells.
    """
    training = read_training(observations, descriptors, seed)
    wanted = [
        i
        for i, condition in enumerate(observations.conditions)
        if not condition.is_control and (len(observations.rows(i, split)) or i in (n_predicted or ()))
    ]
    unpaired = set() if n_predicted is None else set(methods)
    kept = None
    if reconstruct is not None and training.cells:
        kept = partial(reconstruct, mean=np.concatenate(list(training.cells.values())).mean(0))

    def score(i: int) -> pd.DataFrame:
        condition = observations.conditions[i]
        label = condition_label(condition)
        chosen = _choose(observations, i, split, most_cells, n_predicted, seed)
        if isinstance(chosen, str):
            return _nothing([*methods, *BASELINES, "ceiling"], metrics, chosen).assign(condition=label)
        observed, source = chosen
        cells = observations.cells(source)
        predicted = {name: method(i, source, _generator(seed, label, name)) for name, method in methods.items()}
        for name, baseline in BASELINES.items():
            predicted[name] = baseline(training, condition, cells, _generator(seed, label, name))
        reference = references.of(condition)  # there are controls, or none would have been chosen
        scores = score_methods(predicted, observations.cells(observed), cells, reference, metrics, unpaired, kept)
        return scores.assign(condition=label, n_cells=len(observed) // 2)

    # Matrices are small: more threads would wait for each other for longer than they compute.
    with threadpool_limits(1, "blas"):
        references = _read_references(observations, training, split, seed)
        tables = [score(i) for i in wanted]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return table.assign(split=split).reindex(columns=[*COLUMNS, "judged"])


def score_methods(
    predicted: Mapping[str, Prediction],
    observed: np.ndarray,
    source: np.ndarray,
    reference: Reference,
    metrics: Sequence[str],
    unpaired: set[str],
    reconstruct: Callable[[np.ndarray], np.ndarray] | None = None,
) -> pd.DataFrame:
    """One row a method and metric; each half of a prediction against one half of the observed cells.

    Halves, because the ceiling is one half of the observed cells as prediction of the other: so every value is of the
    same number of cells, and none is favoured by its noise. What the representation keeps of that half is measured
    as it is.
    """
    targets = [Target(half, reference) for half in halves(observed)]
    sources = halves(source)
    comparisons = {
        name: cells
        if isinstance(cells, str)
        else [
            Comparison(half, target, None if name in unpaired else source)
            for half, target, source in zip(halves(cells), targets, sources, strict=True)
        ]
        for name, cells in predicted.items()
    }
    comparisons["ceiling"] = [Comparison(targets[1 - j].cells, targets[j], None) for j in (0, 1)]
    of_kept: list[Comparison] | str = "no representation"
    if reconstruct is not None:
        parts = [reconstruct(target.cells) for target in targets]
        is_all = all(part is target.cells for part, target in zip(parts, targets, strict=True))  # and measured already
        of_kept = comparisons["ceiling"] if is_all else [Comparison(parts[1 - j], targets[j], None) for j in (0, 1)]
    rows: list[dict[str, Any]] = []
    for metric in metrics:
        loss = METRICS[metric].loss
        measured = {name: _measure(metric, pair) for name, pair in comparisons.items()}
        values = {name: value for name, (value, _) in measured.items()}
        simple = [values[name] for name in BASELINES if name in values and np.isfinite(values[name])]
        baseline = min(simple, key=loss, default=np.nan)
        gain = loss(baseline) - loss(values["ceiling"])
        reconstruction, _ = _measure(metric, of_kept)
        rows += [
            {
                "method": name,
                "metric": metric,
                "value": value,
                "baseline": baseline,
                "reconstruction": reconstruction,
                "ceiling": values["ceiling"],
                "score": (loss(baseline) - loss(value)) / gain if gain > 0 else np.nan,
                "reason": reason,
                "judged": not isinstance(comparisons[name], str),
            }
            for name, (value, reason) in measured.items()
        ]
    return pd.DataFrame(rows)


def read_training(observations: Observations, descriptors: Mapping[str, np.ndarray], seed: int) -> Training:
    """What baselines learn from: training cells, of each condition not more than MOST_TRAINING."""
    cells = {}
    for i, condition in enumerate(observations.conditions):
        rows = observations.rows(i, "train")
        if len(rows) > MOST_TRAINING:
            rows = _generator(seed, condition_label(condition)).permutation(rows)[:MOST_TRAINING]
        if len(rows):
            cells[condition] = observations.cells(rows)
    with threadpool_limits(1, "blas"):  # as in `score_conditions`
        return learn(cells, descriptors, nonnegative=observations.nonnegative)


def _measure(metric: str, comparisons: list[Comparison] | str) -> tuple[float, str]:
    """Mean over the halves, or NaN and a reason."""
    if isinstance(comparisons, str):
        return np.nan, comparisons
    measured = [measure(metric, comparison) for comparison in comparisons]
    return float(np.mean([value for value, _ in measured])), next((reason for _, reason in measured if reason), "")


def _nothing(methods: Sequence[str], metrics: Sequence[str], reason: str) -> pd.DataFrame:
    """Rows of a condition that cannot be judged."""
    rows = [{"method": method, "metric": metric, "reason": reason} for metric in metrics for method in methods]
    return pd.DataFrame(rows).assign(
        value=np.nan, baseline=np.nan, reconstruction=np.nan, ceiling=np.nan, score=np.nan, n_cells=0, judged=False
    )


def _choose(
    observations: Observations,
    i: int,
    split: str,
    most_cells: int,
    n_predicted: Mapping[int, int] | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray] | str:
    """Equally many observed and control cells (n,), n even, or why there are none to compare."""
    control = observations.control_of(i)
    observed = observations.rows(i, split)
    if not len(observed):
        return f"no observed cells with split {split!r}"
    if control is None or not len(source := observations.rows(control, split)):
        return f"no control cells of the group with split {split!r}"
    sizes = {"observed": len(observed), "control": len(source), "predicted": (n_predicted or {}).get(i, most_cells)}
    n_cells = min(most_cells, *sizes.values()) // 2 * 2
    if n_cells < MIN_CELLS:
        return f"fewer than {MIN_CELLS} {' and '.join(name for name, n in sizes.items() if n < MIN_CELLS)} cells"
    # A generator of its own for each condition, so that leaving one out changes no other number.
    generator = _generator(seed, condition_label(observations.conditions[i]))
    return generator.permutation(observed)[:n_cells], generator.permutation(source)[:n_cells]


def _read_references(observations: Observations, training: Training, split: str, seed: int) -> References:
    """What the metrics of all conditions measure with."""
    rows = {condition: observations.rows(i, split) for i, condition in enumerate(observations.conditions)}
    observed = {condition: observations.cells(of) for condition, of in rows.items() if len(of)}
    controls = [cells for condition, cells in observed.items() if condition.is_control]
    return make_references(
        training.cells,
        {condition: cells.mean(0, dtype=np.float64) for condition, cells in observed.items()},
        controls,
        nonnegative=observations.nonnegative,
        generator=_generator(seed, "scale"),
    )


def _generator(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(crc32(name.encode()) for name in names)])
