"""Give a perturbation a place among the effects of others."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from scgap._adata import Data, Matrix, check_writable, get_modality, get_obs, select_cells
from scgap._conditions import design_from_dict, group_texts, label_text, split_label
from scgap._descriptors import Descriptors, descriptors_from_uns, descriptors_to_uns
from scgap._messages import listed
from scgap._representation import read_points
from scgap._splits import MIN_CELLS
from scgap.pp._effects import N_HALVINGS, Samples, deal, divergences, draw_samples, self_costs, training_populations

N_STARTS = 8  # nearest perturbations from which the stress is descended
SAME = 1e-3  # relative difference of self costs of the same cells: devices add up in different orders


def place_effect(
    data: Data,
    perturbation: str,
    cells: Sequence[str] | np.ndarray | pd.Series,
    *,
    key: str = "effect",
    mod: str | None = None,
    copy: bool = False,
) -> Data | None:
    r"""Give a perturbation a vector in an effect-based encoding, from a few measured cells of its own.

    The vectors :math:`z_p` that `scgap.pp.encode_effects` found stay as they are; the new one minimises the stress of
    its distances,

    .. math::
        \min_z \sum_p \bigl(\lVert z - z_p \rVert - S_\varepsilon(\nu, \nu_p)\bigr)^2

    The cells are seen: do not test predictions of the perturbation on them.

    Parameters
    ----------
    data
        The object that `scgap.pp.encode_effects` was called on, which still holds the cells it drew, in the same order.
        The new cells may have been concatenated behind them.
    perturbation
        Label of the row that is added; a row that was placed before is replaced.
    cells
        Cells that got the perturbation, a boolean mask or a list of obs names: at least 10, in some group that the
        others were measured in, too.
    key
        Where the encoding is in ``uns``.
    mod
        Modality of a MuData.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields:

    uns[key]["perturbations"], ["values"] : array of str, float32 array
        With one more row. A map that was fitted before does not know it.

    Raises
    ------
    KeyError
        There is nothing under ``key``, or cells or columns are absent.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        The encoding is not of effects, or made of other cells; the perturbation has a vector from its training cells;
        there are too few cells.

    See Also
    --------
    scgap.pp.encode_effects

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=4, doses=[1_000.0], n_groups=1, n_features=10)
    >>> is_new = adata.obs["perturbation"] == "drug_4"
    >>> adata.obs["split"] = is_new.map({True: "test", False: "train"})
    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     scgap.pp.encode_effects(adata, dose_col="dose_value", split_col="split", n_components=2)
    >>> scgap.pp.place_effect(adata, "drug_4", adata.obs_names[is_new][:30])
    >>> adata.uns["effect"]["perturbations"].tolist()
    ['drug_1', 'drug_2', 'drug_3', 'drug_4']
    """
    perturbation = label_text(perturbation)
    adata = get_modality(data, mod)
    check_writable(adata, copy=copy)
    descriptors = descriptors_from_uns(adata.uns, key)
    _check_place(descriptors, perturbation, key)
    mask = select_cells(adata, cells, "cells")
    reference, own, groups = _draw_again(data, mod, key, descriptors)
    epsilon, found = descriptors.params["epsilon"], []
    new = _draw_new(data, mod, descriptors, perturbation, mask, groups)
    new_own, generator = self_costs(new, epsilon), np.random.default_rng(descriptors.params["seed"])
    # Cells to place may be few: their two batches are dealt several times.
    for _ in range(N_HALVINGS):
        found.append(divergences(new, new_own, reference, own, epsilon).loc[perturbation].dropna())
        new = new._replace(cells=deal(new, generator))
    distances = pd.concat(found, axis=1).mean(axis=1)
    table = descriptors.table.drop(index=perturbation, errors="ignore")
    table.loc[perturbation] = _least_stress(table.loc[distances.index].to_numpy(float), distances.to_numpy(float))
    result = data.copy() if copy else data
    get_modality(result, mod).uns[key] = descriptors_to_uns(descriptors._replace(table=table))
    return result if copy else None


def _check_place(descriptors: Descriptors, perturbation: str, key: str) -> None:
    """Refuse what is no encoding of effects, and to move a perturbation that it was made of."""
    if descriptors.method != "effect":
        raise ValueError(
            f"adata.uns[{key!r}] holds an encoding of method {descriptors.method!r}. Pass the key of one that "
            "scgap.pp.encode_effects made."
        )
    design = design_from_dict(descriptors.params["design"])
    if perturbation == design.reference_key or split_label(perturbation, design) != [perturbation]:
        raise ValueError(
            f"{perturbation!r} is not the label of one perturbation, which alone has a vector. Pass one that is "
            "neither of controls nor of a combination."
        )
    if perturbation in descriptors.table.index[: len(descriptors.arrays["distances"])]:
        raise ValueError(
            f"{perturbation!r} has a vector already, from its training cells. Pass another label, or hold the "
            "perturbation out and encode again."
        )


def _draw_again(
    data: Data, mod: str | None, key: str, descriptors: Descriptors
) -> tuple[Samples, np.ndarray, list[tuple[str, ...]]]:
    """The samples that the encoding was made of, their self costs and the names of their groups.

    Cells are drawn again and not stored: of many perturbations they would outweigh the data set they were drawn from.
    """
    params, stored = descriptors.params, descriptors.arrays
    everything, _ = training_populations(data, mod, design_from_dict(params["design"]), params["split_col"])
    known = set(descriptors.table.index[: len(stored["distances"])])
    populations = {(name, group): rows for (name, group), rows in everything.items() if name in known}
    groups = sorted({group for _, group in populations})
    if len(populations) == len(stored["self_costs"]):
        samples = draw_samples(_points(data, mod, descriptors), populations, groups, params["n_cells"], params["seed"])
        own = self_costs(samples, params["epsilon"])
        if np.allclose(own, stored["self_costs"], rtol=SAME):
            return samples, own, groups
    raise ValueError(
        f"The training cells are no longer those that adata.uns[{key!r}] was made of: cells, their features or the "
        "split have changed. Call scgap.pp.encode_effects again."
    )


def _draw_new(
    data: Data,
    mod: str | None,
    descriptors: Descriptors,
    perturbation: str,
    mask: np.ndarray,
    groups: list[tuple[str, ...]],
) -> Samples:
    """Samples of the cells to place, in the groups of the reference."""
    columns = list(design_from_dict(descriptors.params["design"]).group_cols)
    of_cell = pd.Series(list(map(tuple, group_texts(get_obs(data, mod, columns)).to_numpy())), dtype=object)
    rows = {(perturbation, group): np.flatnonzero(mask & (of_cell == group).to_numpy()) for group in groups}
    populations = {name: found for name, found in rows.items() if len(found) >= MIN_CELLS}
    if not populations:
        raise ValueError(
            f"cells selects {mask.sum()} cells. A place takes {MIN_CELLS} of them in one group"
            + (f" of {listed(', '.join(group) for group in groups)}" if columns else "")
            + ": select more."
        )
    params = descriptors.params
    return draw_samples(_points(data, mod, descriptors), populations, groups, params["n_cells"], params["seed"])


def _points(data: Data, mod: str | None, descriptors: Descriptors) -> Matrix:
    return read_points(get_modality(data, mod), descriptors.params["layer"], descriptors.params["use_rep"])


def _least_stress(points: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The place (n,) whose distances to the points (n_points, n) are closest to those wanted."""

    def residuals(place: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points - place, axis=1) - distances

    nearest = points[np.argsort(distances)[:N_STARTS]]
    # Not on the points themselves, where the distance has no gradient.
    starts = 0.9 * nearest + 0.1 * points.mean(0)
    solutions = [least_squares(residuals, start) for start in starts]
    return np.asarray(min(solutions, key=lambda solution: solution.cost).x, np.float32)
