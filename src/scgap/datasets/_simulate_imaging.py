"""Protein imaging whose true map is known cell by cell."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scgap._checks import whole_number
from scgap.datasets._simulate_screen import simulate_screen

PHASES = ("G1", "S", "G2/M")
MARKED = 6  # one feature in so many marks a given phase: 8 of 48
RAISED, LOWERED = 3.0, -1.5  # markers in their phase and in the others, in standard deviations within a phase
SPREAD = 0.4  # of log intensities within a phase, about: a skewness of 1.3, as of raw fluorescence


def simulate_imaging(
    n_cells: int = 10_000,
    *,
    n_features: int = 48,
    n_drugs: int = 8,
    doses: Sequence[float] = (1_000.0,),
    n_groups: int = 1,
    n_combinations: int = 4,
    interaction: float = 0.5,
    seed: int = 0,
) -> MuData:
    r"""Simulate multiplexed protein imaging (4i-like) in which the true effect of every condition is known.

    A `scgap.datasets.simulate_screen` whose subpopulations are phases of the cell cycle, each with proteins that mark
    it, seen as intensities, which are positive and skewed:

    .. math::
        \text{intensity} = \exp(s \, x)

    with the state :math:`x` of the screen and :math:`s = 0.4`. The map of a condition on intensities is the screen's
    between the logarithm and this, :math:`\exp(s \, T(\log(\cdot) / s \mid c))`.

    Parameters
    ----------
    n_cells
        Cells in total, a fifth of them controls.
    n_features
        Proteins, at least 6. One in six marks each phase.
    n_drugs, doses, n_groups, n_combinations, interaction, seed
        As in `scgap.datasets.simulate_screen`; by default one dose, one cell line and four pairs of drugs.

    Returns
    -------
    One modality, ``protein``, with the following fields:

    X : float32 array (n_cells, n_features)
        Intensities.
    obs["perturbation"], ["dose_value"], ["dose_unit"], ["cell_line"], ["subpopulation"]
        As in `scgap.datasets.simulate_screen`. Pairs are ``"drug_1+drug_4"``: pass ``sep="+"``. Subpopulations are
        ``G1``, ``S`` and ``G2/M``.
    var["marker_of"] : categorical
        The phase that the protein marks, or ``none``.
    layers["state"], ["untreated"] : float32 arrays (n_cells, n_features)
        :math:`x` after and before treatment; `scgap.datasets.true_transport` gives it under any condition.
    uns["drug_descriptors"], ["simulation"]
        As in `scgap.datasets.simulate_screen`, and :math:`s` as ``uns["simulation"]["spread"]``.

    Raises
    ------
    TypeError
        Doses, shares or strengths are no numbers.
    ValueError
        An argument is out of its range, or ``n_cells`` is too small for the number of conditions.

    Examples
    --------
    >>> import numpy as np
    >>> import scgap
    >>> mdata = scgap.datasets.simulate_imaging(600, n_drugs=3, n_combinations=1)
    >>> mdata["protein"].shape
    (600, 48)
    >>> scgap.tl.fit_transport(mdata, mod="protein", sep="+", n_iters=10, progress=False)

    Where untreated cells truly go, as intensities:

    >>> condition = {"perturbation": "drug_1+drug_3", "dose_value": 1_000.0}
    >>> state = scgap.datasets.true_transport(mdata["protein"], condition)
    >>> intensity = np.exp(mdata["protein"].uns["simulation"]["spread"] * state)
    """
    n_features = whole_number("n_features", n_features, MARKED)
    adata = simulate_screen(
        n_cells,
        n_features=n_features,
        n_drugs=n_drugs,
        doses=doses,
        n_groups=n_groups,
        n_subpopulations=len(PHASES),
        n_combinations=n_combinations,
        interaction=interaction,
        seed=seed,
    )
    adata.layers["state"] = adata.X
    marker_of = np.full(n_features, -1)
    each = n_features // MARKED
    marker_of[: each * len(PHASES)] = np.repeat(np.arange(len(PHASES)), each)
    _mark_phases(adata, marker_of)
    adata.X = np.exp(SPREAD * adata.layers["state"])
    adata.uns["simulation"]["spread"] = SPREAD
    adata.uns["simulation"]["subpopulations"] = np.array(PHASES)
    obs: Any = adata.obs
    obs["subpopulation"] = obs["subpopulation"].cat.rename_categories(PHASES)
    adata.var_names = [f"protein_{i}" for i in range(n_features)]
    adata.var["marker_of"] = pd.Categorical(np.array([*PHASES, "none"])[marker_of])
    return MuData({"protein": adata})


def _mark_phases(adata: AnnData, marker_of: npt.NDArray[np.intp]) -> None:
    """Move the centres of markers (-1 for none) apart, and every cell, treated or not, with its centre.

    The map moves a cell by what it is off its centre, so it stays what it was.
    """
    centre = adata.uns["simulation"]["centre"]
    pattern = np.where(np.arange(len(PHASES))[:, None] == marker_of, RAISED, LOWERED)
    marked = np.where(marker_of >= 0, centre.mean(axis=1, keepdims=True) + pattern, centre)
    line, phase = adata.obs["cell_line"].cat.codes, adata.obs["subpopulation"].cat.codes
    shift = (marked - centre)[line, phase].astype(np.float32)
    adata.uns["simulation"]["centre"] = marked
    for layer in ("untreated", "state"):
        adata.layers[layer] = adata.layers[layer] + shift
