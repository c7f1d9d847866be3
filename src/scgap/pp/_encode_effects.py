"""Describe perturbations by what they do to cells."""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from sklearn.manifold import smacof

from scgap._adata import Data, check_key, check_writable, get_modality, keep_map
from scgap._checks import whole_number
from scgap._conditions import make_design
from scgap._descriptors import Descriptors, descriptors_to_uns
from scgap._messages import listed
from scgap._representation import read_points
from scgap._splits import MIN_CELLS
from scgap.pp._effects import EPSILON, divergences, draw_samples, mean_cost_within, self_costs, training_populations

N_STARTS = 4  # random starts of SMACOF, of which the one with the least stress is kept


def encode_effects(
    data: Data,
    *,
    target_col: str | Sequence[str] = "perturbation",
    reference_key: str = "control",
    dose_col: str | Sequence[str] | None = None,
    group_col: str | Sequence[str] | None = None,
    sep: str | None = None,
    split_col: str | None = None,
    layer: str | None = None,
    use_rep: str | None = None,
    mod: str | None = None,
    n_components: int = 10,
    n_cells: int = 256,
    seed: int = 0,
    key_added: str = "effect",
    copy: bool = False,
) -> Data | None:
    r"""Describe perturbations by the distances between their cells, as in Driessen et al. (2026).

    Points :math:`z_p` are placed such that their distances are those of the perturbed populations :math:`\nu_p`, in the
    sense of the Sinkhorn divergence :math:`S`, by metric multidimensional scaling (SMACOF):

    .. math::
        \min_z \sum_{p < q} \bigl(\lVert z_p - z_q \rVert - S_\varepsilon(\nu_p, \nu_q)\bigr)^2

    Only training cells are looked at. A perturbation without them has no vector and cannot be predicted from this
    encoding alone, unless `scgap.pp.place_effect` places it by cells of its own.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``.
    target_col, reference_key, sep
        As in `scgap.tl.fit_transport`. A perturbation is described by cells that got it alone, in no combination.
    dose_col
        As in `scgap.tl.fit_transport`: cells at dose 0 are controls. The other doses are pooled.
    group_col
        As in `scgap.tl.fit_transport`. Distances are taken within each group, and averaged over the groups that two
        perturbations share. Without it, cells are pooled.
    split_col
        Column of ``obs`` with the values ``train``, ``valid``, ``test``. Default: all cells train.
    layer, use_rep, mod
        As in `scgap.tl.fit_transport`. With thousands of genes, pass ``use_rep="X_pca"``.
    n_components
        Length of the vectors; at most one less than there are perturbations.
    n_cells
        Cells in a batch, at most; of each population two batches are drawn. Time grows with its square, and with the
        square of the number of perturbations.
    seed
        Of drawn cells and of SMACOF's starts.
    key_added
        Key of ``uns`` to write to, and the name by which `scgap.tl.fit_transport` takes it as ``encoding``.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields:

    uns[key_added]["perturbations"], ["features"] : arrays of str
        Labels of perturbations; ``effect_1``, ...
    uns[key_added]["values"] : float32 array (n_perturbations, n_components)
        Vectors, in the unit of the cells' distances.
    uns[key_added]["distances"] : float32 array (n_perturbations, n_perturbations)
        Sinkhorn divergences.
    uns[key_added]["self_costs"] : float64 array (n_populations,)
        Transport costs between two batches of one population, by which `scgap.pp.place_effect` knows the cells again.
    uns[key_added]["method"], ["params"] : str
        ``effect``, and settings as JSON, with epsilon (5 % of the mean distance within populations) and the stress, as
        a fraction of the sum of squared distances.

    Raises
    ------
    KeyError
        A column, layer, modality or ``obsm`` key is absent.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        Fewer than two perturbations have 10 training cells, two were measured in no common group, or all cells are the
        same.

    Warns
    -----
    UserWarning
        Names perturbations without a vector: fewer than 10 training cells got them alone, in any group.

    See Also
    --------
    scgap.pp.place_effect, scgap.pp.encode_drugs, scgap.pp.encode_table

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=4, doses=[1_000.0], n_groups=1, n_features=10)
    >>> scgap.pp.encode_effects(adata, dose_col="dose_value", n_components=2)
    >>> adata.uns["effect"]["values"].shape
    (4, 2)
    """
    n_components = whole_number("n_components", n_components, 1)
    n_cells = whole_number("n_cells", n_cells, 5)
    seed = whole_number("seed", seed, 0)
    check_key(key_added)
    adata = get_modality(data, mod)
    check_writable(adata, copy=copy)
    keep_map(adata, key_added)
    design = make_design(target_col, reference_key, dose_col, group_col, None, sep)
    populations, measured = training_populations(data, mod, design, split_col)
    names = sorted({name for name, _ in populations})
    _check_names(names, measured)

    groups = sorted({group for _, group in populations})
    samples = draw_samples(read_points(adata, layer, use_rep), populations, groups, n_cells, seed)
    epsilon = EPSILON * mean_cost_within(samples)
    if not epsilon > 0:
        raise ValueError("All cells of a perturbation are the same. Pass the layer or embedding that was measured.")
    own = self_costs(samples, epsilon)
    distances = _square(divergences(samples, own, samples, own, epsilon), names)
    n_components = min(n_components, len(names) - 1)
    points, stress = smacof(
        distances, n_components=n_components, n_init=N_STARTS, random_state=seed, normalized_stress=False
    )
    descriptors = Descriptors(
        "effect",
        pd.DataFrame(points.astype(np.float32), names, [f"effect_{i + 1}" for i in range(n_components)]),
        {
            "design": design._asdict(),
            "split_col": split_col,
            "layer": layer,
            "use_rep": use_rep,
            "n_cells": n_cells,
            "seed": seed,
            "epsilon": epsilon,
            "stress": float(stress / (np.triu(distances) ** 2).sum()),
        },
        {"distances": distances.astype(np.float32), "self_costs": own},
    )
    result = data.copy() if copy else data
    get_modality(result, mod).uns[key_added] = descriptors_to_uns(descriptors)
    return result if copy else None


def _check_names(names: Sequence[str], measured: Iterable[str]) -> None:
    """Say which perturbations get no vector, or refuse to go on with less than two."""
    without = sorted(set(measured) - set(names))
    if len(names) < 2:
        raise ValueError(
            f"Only {listed(names)} has {MIN_CELLS} training cells that got it alone; {listed(without)} have fewer. "
            "Distances take two perturbations: check split_col and sep, or pool groups."
        )
    if without:
        warnings.warn(
            f"No vector for {listed(without)}: fewer than {MIN_CELLS} training cells got them alone. They cannot be "
            "predicted from this encoding, unless scgap.pp.place_effect places them by cells of their own.",
            stacklevel=3,
        )


def _square(divergences: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The symmetric matrix (n, n) of divergences that are known above the diagonal."""
    upper = np.triu(divergences.to_numpy(float), 1)
    if unknown := [f"{names[i]} and {names[j]}" for i, j in np.argwhere(np.isnan(upper))]:
        raise ValueError(
            f"There is no distance between {listed(unknown)}: they were measured in no common group. Leave group_col "
            "out to pool groups, or drop these perturbations."
        )
    return upper + upper.T
