"""The true map of a simulated screen."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData
from scipy.special import expit

from scgap._checks import is_number
from scgap._messages import kind_of, not_found, shown

type Array = npt.NDArray[np.floating]
type Indices = npt.NDArray[np.intp]


def true_transport(
    data: AnnData, condition: Mapping[str, Any], *, source: np.ndarray | pd.Series | None = None
) -> np.ndarray:
    """Carry untreated cells of a simulated screen to their true state under a condition, measured or not.

    Parameters
    ----------
    data
        An object made by `scgap.datasets.simulate_screen`, or a selection of its cells.
    condition
        ``{"perturbation": "drug_1", "dose_value": 100.0}``; several drugs as ``"drug_1+drug_4"``, each at this dose,
        0 or more, in nM. Cells stay in their own cell line, so ``"cell_line"`` may be present and changes nothing.
    source
        Boolean mask (n_cells,) of the cells to carry; the controls if not given. Treated cells are carried from their
        state before treatment.

    Returns
    -------
    Array (source cells, features), float32, on the scale of ``data.layers["untreated"]``.

    Raises
    ------
    KeyError
        If ``data`` does not come from `scgap.datasets.simulate_screen`.
    TypeError
        If ``data`` is no AnnData, or the condition no mapping.
    ValueError
        If the condition has an unknown drug or field, or a dose that is no number from 0 on, if ``source`` is no mask
        of the cells, or if features are missing.

    Examples
    --------
    >>> from scgap.datasets import simulate_screen, true_transport
    >>> adata = simulate_screen(600, n_drugs=3)
    >>> true_transport(adata, {"perturbation": "drug_2", "dose_value": 1_000.0}).shape
    (120, 50)
    """
    truth = _get_truth(data)
    members, dose = _read_condition(condition, truth["drugs"].tolist())
    chosen: Any = data.obs["perturbation"] == "control" if source is None else source
    if isinstance(chosen, pd.Series) and chosen.index.is_unique and data.obs_names.isin(chosen.index).all():
        chosen = chosen.reindex(data.obs_names)
    mask = np.asarray(chosen)
    if mask.dtype != bool or mask.shape != (data.n_obs,):
        raise ValueError(
            f"`source` is an array of {mask.dtype} and shape {mask.shape}; allowed is a boolean mask of shape "
            f"({data.n_obs},). Pass one such as `data.obs['cell_line'] == 'line_1'`."
        )
    line = pd.Index(truth["cell_lines"]).get_indexer(data.obs["cell_line"][mask])
    subpopulation = pd.Index(truth["subpopulations"]).get_indexer(data.obs["subpopulation"][mask])
    every = (len(line), len(members))
    untreated = np.asarray(data.layers["untreated"])[mask]
    return apply_map(truth, untreated, np.broadcast_to(members, every), np.full(len(line), dose), line, subpopulation)


def apply_map(
    truth: Mapping[str, Any], state: Array, members: Indices, dose: Array, line: Indices, subpopulation: Indices
) -> Array:
    """Move `state` (n_cells, n_features) by each cell's drugs, `members` (n_cells, n_members) with -1 for none."""
    # Along v the displacement is monotone and depends on v'x alone: within a subpopulation T is the gradient of a
    # convex function, hence optimal.
    centred = state.astype(np.float64) - truth["centre"][line, subpopulation]
    displacement, factor = np.zeros_like(centred), np.ones(len(state))
    earlier: list[tuple[Indices, Array]] = []
    power = dose ** truth["hill_exponent"]
    for drug in members.T:
        hill = np.where(drug < 0, 0.0, power / (truth["ec50"][drug, line] ** truth["hill_exponent"] + power))
        direction = truth["direction"][drug, subpopulation]
        along = np.einsum("ij,ij->i", centred, direction)
        gain = 2.0 * expit(truth["steepness"][drug, subpopulation] * along)
        displacement += (hill * truth["amplitude"][drug, subpopulation] * gain)[:, None] * direction
        for other, other_hill in earlier:
            factor *= 1.0 + truth["interaction"][other, drug] * other_hill * hill
        earlier.append((drug, hill))
    moved: Array = state + factor[:, None] * displacement
    return moved.astype(np.float32)


def _get_truth(data: AnnData) -> Mapping[str, Any]:
    if not isinstance(data, AnnData):
        raise TypeError(f"`data` is {kind_of(data)}. Pass an AnnData made by `scgap.datasets.simulate_screen`.")
    if "simulation" not in data.uns or "untreated" not in data.layers:
        raise KeyError(
            f"`data` has {list(data.uns)} in uns; the true map needs uns['simulation'] and layers['untreated']. "
            "Pass an object made by `scgap.datasets.simulate_screen`."
        )
    truth: Mapping[str, Any] = data.uns["simulation"]
    if data.n_vars != truth["centre"].shape[-1]:
        raise ValueError(
            f"`data` has {data.n_vars} features; the true map needs all {truth['centre'].shape[-1]} in their order. "
            "Call `true_transport` before selecting features."
        )
    return truth


def _read_condition(condition: Mapping[str, Any], drugs: list[str]) -> tuple[list[int], float]:
    """Give the indices of a condition's drugs, none for the control, and their dose."""
    if not isinstance(condition, Mapping):
        raise TypeError(
            f"`condition` is {kind_of(condition)}, {shown(condition)}. Pass a dictionary, for example "
            '{"perturbation": "drug_1", "dose_value": 100.0}.'
        )
    if "perturbation" not in condition or not set(condition) <= {"perturbation", "dose_value", "cell_line"}:
        raise ValueError(
            f"`condition` has the fields {list(condition)}; allowed are 'perturbation', 'dose_value' and 'cell_line'. "
            'Pass for example {"perturbation": "drug_1", "dose_value": 100.0}.'
        )
    members = [name for name in str(condition["perturbation"]).split("+") if name != "control"]
    for name in members:
        if name not in drugs:
            raise ValueError("`condition`: " + not_found(name, "the drugs of the simulation", drugs))
        if members.count(name) > 1:
            raise ValueError(
                f"`condition` names {name!r} twice; allowed are distinct drugs joined by '+'. Name it once."
            )
    dose = condition.get("dose_value", None if members else 0.0)
    if not is_number(dose, Real) or not 0.0 <= dose < np.inf:
        raise ValueError(
            f"`condition` has the 'dose_value' {dose!r}; allowed are numbers from 0 on, in nM. Pass such a dose."
        )
    return [drugs.index(name) for name in members], float(dose)
