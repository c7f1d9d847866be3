"""A drug screen whose true map is known cell by cell."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial.distance import pdist

from scgap._checks import is_number, number, whole_number
from scgap._messages import kind_of, shown
from scgap.datasets._true_transport import Array, Indices, apply_map

# Lengths are in units of a feature's standard deviation within a subpopulation, which is about 1.
HILL_EXPONENT = 1.2
SEPARATION = 2.0  # puts subpopulations about 3 sqrt(n_features) apart; a full effect is about 2 sqrt(n_features)
CORRELATED, INDEPENDENT = 0.45, 0.6  # noise: 3 * 0.45**2 + 0.6**2 is about 1
N_FACTORS = 3  # rank of the correlated noise
SKEW = 0.35  # (exp(SKEW z) - 1) / SKEW has a skewness of about 1 for a standard normal z
N_PROGRAMS = 6  # sets of features that drugs move together


def simulate_screen(
    n_cells: int = 10_000,
    *,
    n_features: int = 50,
    n_drugs: int = 8,
    doses: Sequence[float] = (10.0, 100.0, 1_000.0, 10_000.0),
    n_groups: int = 3,
    n_subpopulations: int = 3,
    n_combinations: int = 0,
    interaction: float = 0.5,
    n_descriptors: int = 8,
    control_fraction: float = 0.2,
    counts: bool = False,
    seed: int = 0,
) -> AnnData:
    r"""Simulate a drug screen in which the true effect of every condition on every cell is known.

    Every cell starts as a fresh untreated state :math:`x` of its cell line :math:`g` and subpopulation :math:`k`, and
    is moved by the drugs :math:`m` of its condition :math:`c`:

    .. math::
        T(x \mid c) = x + \prod_{\{a, b\} \subseteq c} (1 + \iota_{ab} h_a h_b)
        \sum_{m \in c} h_m A_{mk} \, 2\sigma\bigl(\beta_{mk} v_{mk}^\top (x - \mu_{gk})\bigr) \, v_{mk},
        \qquad h_m = \frac{d^n}{\mathrm{EC50}_{mg}^n + d^n}

    Amplitude :math:`A`, unit direction :math:`v`, steepness :math:`\beta` and EC50 are smooth functions of the drug's
    descriptors, so that an unseen drug can be predicted from them. Subpopulations differ in :math:`A`, :math:`v` and
    :math:`\beta`: some hardly answer, some in another direction, some spread out; shifting all controls by one mean
    fails. Effects stay below the distances between subpopulations, so :math:`T` is (nearly) the optimal transport map.

    Parameters
    ----------
    n_cells
        Cells in total: at least two for each drug or combination, dose and cell line.
    n_features
        Features (genes, or proteins), at least 2. With fewer than 5, neighbouring subpopulations may cross paths, and
        :math:`T` be less than optimal.
    n_drugs
        Drugs, ``drug_1``, ``drug_2``, ...
    doses
        Doses in nM, distinct and positive. The highest is 5 to 200 times a drug's EC50.
    n_groups
        Cell lines; each has its own means, mixture of subpopulations and EC50s (within a factor of 1.6).
    n_subpopulations
        Subpopulations within every cell line. With one alone, a mean shift comes close to the truth.
    n_combinations
        Random pairs of drugs, each given at all ``doses`` (the same dose of both members).
    interaction
        :math:`\iota` of the interacting pairs, half of the combinations (rounded up); above 0 for synergy, between -1
        and 0 for antagonism. The other pairs are additive.
    n_descriptors
        Descriptors a drug, standard normal.
    control_fraction
        Share of untreated cells, between 0 and 1, spread evenly over the cell lines.
    counts
        Whether ``X`` holds counts drawn from the state, as in single-cell RNA-seq, or the state itself.
    seed
        Seed of all random numbers.

    Returns
    -------
    Cells in random order, with the following fields:

    X : float32 array (n_cells, n_features)
        The state after treatment; with ``counts=True`` Poisson counts of rate ``size_factor * softplus(state)``, CSR.
    obs["perturbation"], obs["dose_value"], obs["dose_unit"] : categorical, number, str
        ``control``, ``drug_1`` or ``drug_1+drug_4``; the dose of each member, 0 for controls; ``nM``.
    obs["cell_line"], obs["subpopulation"] : categorical
        ``line_1``, ... and ``state_1``, ...
    obs["size_factor"] : float
        Sequencing depth of the cell, around 1 (``counts=True`` only).
    layers["untreated"] : float32 array (n_cells, n_features)
        The cell's state before treatment.
    layers["state"] : float32 array (n_cells, n_features)
        The cell's state after treatment (``counts=True`` only).
    uns["drug_descriptors"] : DataFrame
        Drugs by ``descriptor_0``, ``descriptor_1``, ...
    uns["simulation"] : dict
        The terms of the equation: ``centre`` (lines, subpopulations, features), ``direction`` (drugs, subpopulations,
        features), ``amplitude`` and ``steepness`` (drugs, subpopulations), ``ec50`` in nM (drugs, lines),
        ``hill_exponent``, ``interaction`` (drugs, drugs; 0 where additive); the labels of ``interacting_pairs``; and
        the names ``drugs``, ``cell_lines``, ``subpopulations`` of these axes.

    Raises
    ------
    TypeError
        Doses, shares or strengths are no numbers.
    ValueError
        If an argument is out of its range, or ``n_cells`` is too small for the number of conditions.

    See Also
    --------
    scgap.datasets.true_transport : where given cells truly go under any condition.

    Examples
    --------
    >>> from scgap.datasets import simulate_screen
    >>> adata = simulate_screen(600, n_drugs=3, n_combinations=1)
    >>> adata.shape
    (600, 50)
    >>> list(adata.obs["perturbation"].cat.categories)
    ['control', 'drug_1', 'drug_2', 'drug_3', 'drug_1+drug_2']
    """
    doses = _checked_doses(doses)
    control_fraction = number("control_fraction", control_fraction, "a share between 0 and 1, such as 0.2")
    interaction = number("interaction", interaction, "a number above -1, such as 0.5")
    seed = whole_number("seed", seed, 0)
    sizes = {"n_cells": n_cells, "n_features": n_features, "n_drugs": n_drugs, "n_groups": n_groups}
    sizes |= {"n_subpopulations": n_subpopulations, "n_combinations": n_combinations, "n_descriptors": n_descriptors}
    _check_arguments(sizes, doses, interaction, control_fraction)

    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(n_drugs, n_descriptors))
    truth = _draw_truth(rng, descriptors, max(doses), n_groups, n_subpopulations, n_features)
    labels, members = _draw_combinations(rng, truth, n_combinations, interaction)
    label, dose, line = _lay_out(rng, n_cells, round(control_fraction * n_cells), len(labels), doses, n_groups)
    subpopulation = _draw_subpopulations(rng, line, n_groups, n_subpopulations)
    untreated = _draw_untreated(rng, truth["centre"], line, subpopulation)
    state = apply_map(truth, untreated, members[label], dose, line, subpopulation)

    obs = pd.DataFrame({"perturbation": _categorical(label, labels)}, index=_names("cell", n_cells, 0))
    obs["dose_value"], obs["dose_unit"] = dose, pd.Categorical(["nM"] * n_cells)
    obs["cell_line"] = _categorical(line, truth["cell_lines"])
    obs["subpopulation"] = _categorical(subpopulation, truth["subpopulations"])
    var = pd.DataFrame(index=_names("gene" if counts else "feature", n_features, 0))
    layers, X = {"untreated": untreated}, state
    if counts:
        obs["size_factor"] = rng.lognormal(sigma=0.3, size=n_cells)
        rate = obs["size_factor"].to_numpy()[:, None] * np.logaddexp(0.0, state)
        layers["state"], X = state, sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    drugs = pd.DataFrame(descriptors, index=truth["drugs"], columns=_names("descriptor", n_descriptors, 0))
    return AnnData(X, obs=obs, var=var, layers=layers, uns={"drug_descriptors": drugs, "simulation": truth})


def _draw_truth(
    rng: np.random.Generator,
    descriptors: Array,
    top_dose: float,
    n_groups: int,
    n_subpopulations: int,
    n_features: int,
) -> dict[str, Any]:
    """Draw the centres, and each drug's response as a function of its descriptors (n_drugs, n_descriptors)."""
    n_drugs, n_descriptors = descriptors.shape

    def smooth(*shape: int) -> Array:
        """Draw a function of the descriptors with values in (-1, 1): (n_drugs, *shape)."""
        weights = rng.normal(size=(n_descriptors, *shape)) / np.sqrt(n_descriptors)
        return np.tanh(np.tensordot(descriptors, weights, axes=1) + rng.normal(scale=0.5, size=shape))

    # Products of two normals have heavy tails: a program moves some features much and most a little.
    programs = rng.normal(size=(2, N_PROGRAMS, n_features)).prod(axis=0)
    direction = (smooth(1, N_PROGRAMS) + smooth(n_subpopulations, N_PROGRAMS)) @ programs
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    sensitivity = np.exp(2.5 * smooth(n_subpopulations))
    sensitivity /= np.linalg.norm(sensitivity, axis=1, keepdims=True)
    e_max = np.sqrt(n_features) * (1.8 + 0.4 * smooth(1))
    # A full effect multiplies the spread along its direction by 1 + this, from 0.7 to 4.3; below 0 the map would fold.
    spread = 1.5 + 1.8 * smooth(n_subpopulations)
    log_ec50 = np.log10(top_dose) - 1.5 + 0.6 * smooth(1) + 0.2 * smooth(n_groups)

    level = rng.normal(-0.5, 1.0, size=n_features)
    # The best of many draws, for in few dimensions random centres may coincide.
    draws = rng.normal(scale=SEPARATION, size=(50, n_subpopulations, n_features))
    centre = max(draws, key=lambda points: pdist(points).min(initial=np.inf))
    of_line = rng.normal(scale=0.5, size=(n_groups, 1, n_features))
    of_both = rng.normal(scale=0.3, size=(n_groups, n_subpopulations, n_features))
    return {
        "drugs": _names("drug", n_drugs, 1),
        "cell_lines": _names("line", n_groups, 1),
        "subpopulations": _names("state", n_subpopulations, 1),
        "centre": level + centre + of_line + of_both,
        "direction": direction,
        "amplitude": e_max * sensitivity,
        "steepness": 2.0 * spread / e_max,
        "ec50": 10.0**log_ec50,
        "hill_exponent": HILL_EXPONENT,
        "interaction": np.zeros((n_drugs, n_drugs)),
    }


def _draw_combinations(
    rng: np.random.Generator, truth: dict[str, Any], n_combinations: int, interaction: float
) -> tuple[list[str], Indices]:
    """Label control, drugs and random pairs, with their `members` (n_labels, 2); half the pairs interact in `truth`."""
    drugs = truth["drugs"]
    pairs = np.column_stack(np.triu_indices(len(drugs), k=1))
    drawn = rng.permutation(len(pairs))[:n_combinations]
    combinations = [f"{drugs[first]}+{drugs[second]}" for first, second in pairs]
    interacting = np.sort(drawn[: (n_combinations + 1) // 2])
    first, second = pairs[interacting].T
    truth["interaction"][first, second] = truth["interaction"][second, first] = interaction
    truth["interacting_pairs"] = np.array([combinations[pair] for pair in interacting], dtype=str)

    drawn = np.sort(drawn)
    single = np.column_stack([np.arange(len(drugs)), np.full(len(drugs), -1)])
    labels = ["control", *drugs.tolist(), *(combinations[pair] for pair in drawn)]
    return labels, np.concatenate([[[-1, -1]], single, pairs[drawn]])


def _lay_out(
    rng: np.random.Generator, n_cells: int, n_controls: int, n_labels: int, doses: Sequence[float], n_groups: int
) -> tuple[Indices, Array, Indices]:
    """Spread the cells evenly over the conditions: label (0 for controls), dose and line, each (n_cells,)."""
    shape = (n_labels - 1, len(doses), n_groups)
    label, dose, line = np.unravel_index(np.arange(n_cells - n_controls) % np.prod(shape), shape)
    none, order = np.zeros(n_controls, dtype=int), rng.permutation(n_cells)
    return (
        np.concatenate([none, label + 1])[order],
        np.concatenate([none, np.asarray(doses)[dose]])[order],
        np.concatenate([np.arange(n_controls) % n_groups, line])[order],
    )


def _draw_subpopulations(rng: np.random.Generator, line: Indices, n_groups: int, n_subpopulations: int) -> Indices:
    """Draw each cell's subpopulation (n_cells,) in its line's proportions, none below half of an even share."""
    share = 0.5 / n_subpopulations + 0.5 * rng.dirichlet(np.ones(n_subpopulations), size=n_groups)
    # Rounding may leave the last sum below 1; comparing with all but the last keeps the index in range.
    return (rng.random((len(line), 1)) > share.cumsum(axis=1)[line, :-1]).sum(axis=1)


def _draw_untreated(rng: np.random.Generator, centre: Array, line: Indices, subpopulation: Indices) -> Array:
    """Draw untreated states (n_cells, n_features), correlated within a subpopulation and skewed in some features."""
    _, n_subpopulations, n_features = centre.shape
    loadings = rng.normal(scale=CORRELATED, size=(N_FACTORS, n_subpopulations, n_features))
    skewed = rng.random(n_features) < 0.4
    deviation = rng.normal(scale=INDEPENDENT, size=(len(line), n_features))
    for loading in loadings:
        deviation += rng.normal(size=(len(line), 1)) * loading[subpopulation]
    deviation[:, skewed] = np.expm1(SKEW * deviation[:, skewed]) / SKEW
    return (centre[line, subpopulation] + deviation).astype(np.float32)


def _names(stem: str, n: int, first: int) -> npt.NDArray[np.str_]:
    return np.array([f"{stem}_{i}" for i in range(first, first + n)])


def _categorical(codes: Indices, names: Sequence[str] | npt.NDArray[np.str_]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, pd.Index(names))


def _checked_doses(doses: Any) -> list[float]:
    if isinstance(doses, str) or not isinstance(doses, Iterable):
        raise TypeError(
            f"`doses` is {kind_of(doses)}, {shown(doses)}. Pass a list of numbers in nM, such as [10, 100]."
        )
    return [number("An entry of doses", dose, "numbers in nM, such as [10, 100]") for dose in doses]


def _check_arguments(
    sizes: dict[str, int], doses: Sequence[float], interaction: float, control_fraction: float
) -> None:
    for name, size in sizes.items():
        least = {"n_features": 2, "n_combinations": 0}.get(name, 1)
        if not is_number(size, Integral) or size < least:
            raise ValueError(f"`{name}={shown(size)}`; allowed are whole numbers from {least} on. Pass such a number.")
    n_cells, n_drugs, n_combinations, n_groups = (
        sizes[name] for name in ("n_cells", "n_drugs", "n_combinations", "n_groups")
    )
    n_pairs = n_drugs * (n_drugs - 1) // 2
    n_conditions = (n_drugs + n_combinations) * len(doses) * n_groups
    n_controls = round(control_fraction * n_cells) if 0.0 < control_fraction < 1.0 else 0
    rules = [
        (
            len(doses) == len(set(doses)) > 0 and all(0.0 < dose < np.inf for dose in doses),
            f"`doses={doses}`; allowed are distinct positive numbers in nM. Leave out 0: controls are always there.",
        ),
        (
            0.0 < control_fraction < 1.0,
            f"`control_fraction={control_fraction}`; allowed is a share between 0 and 1. Pass one such as 0.2.",
        ),
        (
            -1.0 < interaction < np.inf,
            f"`interaction={interaction}`; allowed are numbers above -1. Pass 0 for combinations that only add up.",
        ),
        (
            n_combinations <= n_pairs,
            f"`n_combinations={n_combinations}`; allowed are at most the {n_pairs} distinct pairs of {n_drugs} drugs. "
            "Lower `n_combinations` or raise `n_drugs`.",
        ),
        (
            n_cells - n_controls >= 2 * n_conditions and n_controls >= 2 * n_groups,
            f"`n_cells={n_cells}` gives {n_cells - n_controls} treated cells to {n_conditions} conditions and "
            f"{n_controls} controls to {n_groups} cell lines; allowed are at least two cells each. Raise `n_cells`, or "
            "ask for fewer drugs, combinations, doses or groups.",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise ValueError(message)
