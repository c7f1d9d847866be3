"""Observed and predicted cells in one object, as the metrics of other tools take them."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from scgap._adata import Data, check_predicted, get_modality, get_obs, to_dense
from scgap._conditions import Condition, condition_label, make_design, read_conditions
from scgap._messages import listed
from scgap._splits import read_split
from scgap.tl._predicted import predicted_conditions, read_cells, same_features

LABELS = ("origin", "perturbation_label", "population")  # columns of the result beside those of the design


def join_predictions(
    observed: Data,
    predicted: AnnData,
    *,
    target_col: str | Sequence[str] = "perturbation",
    reference_key: str = "control",
    dose_col: str | Sequence[str] | None = None,
    group_col: str | Sequence[str] | None = None,
    time_col: str | None = None,
    sep: str | None = None,
    split_col: str | None = None,
    layer: str | None = None,
    mod: str | None = None,
) -> AnnData:
    """Put observed and predicted cells into one AnnData, for the metrics of pertpy and cell-eval.

    Parameters
    ----------
    observed
        Measured cells, controls among them.
    predicted
        Predicted cells in ``X``, by `scgap.tl.screen` or any other tool, with the same features, in any order, on the
        same scale, and with the same columns in obs. Control cells among them are left out.
    target_col, reference_key, dose_col, group_col, time_col, sep
        Which obs columns say what was done to a cell, as in `scgap.tl.fit_transport`.
    split_col
        Column of ``observed.obs``, of whose cells those in ``"test"`` are taken. Default: all cells.
    layer
        Layer of ``observed`` with the measured features; default ``X``.
    mod
        Modality of a MuData.

    Returns
    -------
    AnnData with the controls, the observed and the predicted cells of all conditions that were both observed and
    predicted. ``X`` holds the features, in the order of ``observed``, as a dense float32 array; ``var`` is that of
    ``observed``; names of predicted cells start with ``predicted_``. ``obs`` holds the columns of the design, in which
    predicted conditions are written as the observed ones are, and

    - ``origin``: ``"control"``, ``"observed"`` or ``"predicted"``;
    - ``perturbation_label``: perturbations, doses and time without the group, such as ``"drug_1 10"``, and
      ``"control"`` for all controls;
    - ``population``: origin and condition, such as ``"control, line_1"``, ``"observed drug_1 10, line_1"`` and
      ``"predicted drug_1 10, line_1"``.

    Raises
    ------
    KeyError
        A column or layer is missing.
    TypeError
        ``predicted`` is not an AnnData.
    ValueError
        Features differ or have names twice, values are not finite, no condition is both observed and predicted, or a
        column of the design is called as one that is added.

    Warns
    -----
    UserWarning
        Conditions that were not predicted, not observed, or have no controls in their group, are left out.

    Notes
    -----
    pertpy's ``Distance`` groups by ``population``. It reads layers and ``obsm``, but not ``X``. Its energy distance
    counts the pairs of a cell with itself, so it is not 0 for a perfect sampler, and larger than that of
    `scgap.tl.evaluate`, the more the fewer cells there are. pertpy's perturbation spaces take ``perturbation_label`` as
    ``target_col``, with ``reference_key="control"`` and the ``group_col`` of the design, or ``population``.

    cell-eval takes a pair of objects with the same controls and ``perturbation_label`` as ``pert_col``. It knows no
    groups, so each of several has to be judged apart from the others. It refuses negative values and those above 15:
    log-normalised expression is what it is made for.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(750, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> screened = scgap.tl.screen(adata, n_cells=50, progress=False)
    >>> joined = scgap.tl.join_predictions(adata, screened, dose_col="dose_value")
    >>> sorted(joined.obs["population"].unique())[:3]
    ['control', 'observed drug_1 100', 'observed drug_2 100']

    Distances of pertpy:

    >>> joined.layers["features"] = joined.X
    >>> import pertpy  # doctest: +SKIP
    >>> pertpy.tl.Distance("edistance", layer_key="features").onesided_distances(  # doctest: +SKIP
    ...     joined, groupby="population", selected_group="observed drug_1 100"
    ... )

    The pair of cell-eval, here of the only group:

    >>> real = joined[joined.obs["origin"] != "predicted"].copy()
    >>> pred = joined[joined.obs["origin"] != "observed"].copy()
    >>> from cell_eval import MetricsEvaluator  # doctest: +SKIP
    >>> MetricsEvaluator(  # doctest: +SKIP
    ...     adata_real=real, adata_pred=pred, control_pert="control", pert_col="perturbation_label"
    ... ).compute()
    """
    design = make_design(target_col, reference_key, dose_col, group_col, time_col, sep)
    if taken := sorted(set(design.columns) & set(LABELS)):
        raise ValueError(f"The result has columns {listed(taken)} of its own. Call those of the design otherwise.")
    check_predicted(predicted, "predicted")
    adata = get_modality(observed, mod)
    features = same_features(adata, predicted, "predicted")
    obs = get_obs(observed, mod, [*design.columns, split_col])
    conditions, of_cell, _ = read_conditions(design, obs)
    if split_col:
        of_cell = np.where(read_split(obs[split_col], of_cell) == "test", of_cell, -1)
    found, of_found = predicted_conditions(design, predicted, "predicted")

    keeps = _kept(conditions, of_cell, found)
    of_predicted = _positions(conditions, found)[of_found]
    rows, predicted_rows = np.flatnonzero(keeps[of_cell]), np.flatnonzero(keeps[of_predicted])
    cells = to_dense(read_cells(adata, layer, rows, "observed"))
    predicted_cells = to_dense(read_cells(predicted, None, predicted_rows, "predicted"))[:, features]
    table = obs.iloc[rows][design.columns]
    joined_ones, first = np.unique(of_cell[rows], return_index=True)
    predicted_table = table.iloc[first[np.searchsorted(joined_ones, of_predicted[predicted_rows])]]
    joined = pd.concat([table, predicted_table]).apply(_without_unused)
    joined.index = pd.Index([*table.index, *("predicted_" + predicted.obs_names[predicted_rows])])
    of_row = np.concatenate([of_cell[rows], of_predicted[predicted_rows]])
    joined = joined.assign(**_labels(conditions, of_row, len(rows)))
    return AnnData(np.concatenate([cells, predicted_cells]), obs=joined, var=adata.var.copy())  # type: ignore[arg-type]  # anndata's lazy var


def _kept(conditions: Sequence[Condition], of_cell: np.ndarray, found: Sequence[Condition]) -> np.ndarray:
    """Which conditions (n_conditions + 1,), controls among them, are joined; the last stands for cells without one."""
    measured = [conditions[i] for i in np.unique(of_cell[of_cell >= 0])]
    groups = {c.group for c in measured if c.is_control}
    perturbed = dict.fromkeys(c for c in measured if not c.is_control)
    predicted = dict.fromkeys(c for c in found if not c.is_control)
    kept = {c for c in perturbed if c in predicted and c.group in groups}
    lost = {
        "not predicted": [c for c in perturbed if c not in predicted],
        "not observed": [c for c in predicted if c not in perturbed],
        "no control cells of the group": [c for c in perturbed if c in predicted and c not in kept],
    }
    reasons = "; ".join(f"{reason}: {listed(map(condition_label, some))}" for reason, some in lost.items() if some)
    if not kept:
        raise ValueError(
            f"No condition can be joined ({reasons or 'only controls'}). Pass cells of conditions that are on both "
            "sides, with doses and groups alike, and their controls; with split_col these are cells of 'test'."
        )
    if reasons:
        warnings.warn(f"Conditions are left out ({reasons}).", stacklevel=3)
    groups = {c.group for c in kept}
    return np.array([*(c.group in groups if c.is_control else c in kept for c in conditions), False])


def _positions(conditions: Sequence[Condition], found: Sequence[Condition]) -> np.ndarray:
    """Positions of the predicted conditions, -1 for controls and what was not observed; the last is that of -1."""
    position = {c: i for i, c in enumerate(conditions) if not c.is_control}
    return np.array([*(position.get(c, -1) for c in found), -1])


def _labels(conditions: Sequence[Condition], of_row: np.ndarray, n_observed: int) -> dict[str, pd.Categorical]:
    """The columns LABELS of the result, of which the first ``n_observed`` rows are observed cells."""
    chosen = [conditions[i] for i in of_row]
    origins = [
        "predicted" if row >= n_observed else "control" if c.is_control else "observed" for row, c in enumerate(chosen)
    ]
    names = {c: condition_label(c) for c in set(chosen)}
    short = {c: condition_label(c._replace(group=())) for c in names}
    populations = [
        names[c] if c.is_control else f"{origin} {names[c]}" for origin, c in zip(origins, chosen, strict=True)
    ]
    columns = (origins, [short[c] for c in chosen], populations)
    return {name: pd.Categorical(np.array(column)) for name, column in zip(LABELS, columns, strict=True)}


def _without_unused(column: pd.Series) -> pd.Series:
    """Categories that no cell has would be empty groups to other tools."""
    return column.cat.remove_unused_categories() if isinstance(column.dtype, pd.CategoricalDtype) else column
