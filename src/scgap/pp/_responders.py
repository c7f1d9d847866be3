"""Tell the cells that answered a perturbation from those that escaped it."""

import json
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from scgap._adata import Data, Matrix, check_key, check_writable, get_modality, get_obs, keep_map, to_dense
from scgap._checks import is_number, whole_number
from scgap._classifier import TwoSample, two_sample_test
from scgap._conditions import Condition, condition_label, make_design, read_conditions
from scgap._messages import listed
from scgap._representation import read_points, warn_of_counts
from scgap._splits import MIN_CELLS

LEVEL = 0.05  # of the test, and of the controls at most that would be called responders
CONTROL, RESPONDER, ESCAPER = CLASSES = ("control", "responder", "escaper")


class Calls(NamedTuple):
    """What is known of every cell, and of every condition."""

    labels: np.ndarray
    """(n_obs,) one of CLASSES, None where there is no call."""
    probabilities: np.ndarray
    """(n_obs,), NaN where there is none."""
    table: pd.DataFrame


def responders(
    data: Data,
    *,
    target_col: str | Sequence[str] = "perturbation",
    reference_key: str = "control",
    dose_col: str | Sequence[str] | None = None,
    group_col: str | Sequence[str] | None = None,
    sep: str | None = None,
    layer: str | None = None,
    use_rep: str | None = None,
    mod: str | None = None,
    tau: float = 1.5,
    seed: int = 0,
    key_added: str = "responder",
    copy: bool = False,
) -> Data | None:
    r"""Call the perturbed cells that answered, and those that escaped.

    A guide may not cut, a drug may not reach a cell. For every condition (perturbations, doses, group) a classifier is
    trained on one half of its cells and of the controls of its group, and scores the other half: the probability
    :math:`p` that a cell is perturbed, were both populations equally large. Some cells that are labelled as perturbed
    are really controls, so its loss is a comp-sum loss (Mao, Mohri & Zhong 2023), which listens the less to cells that
    seem mislabelled the larger :math:`\tau` is:

    .. math::
        \Phi_\tau(p) = \frac{1 - p^{\tau - 1}}{\tau - 1}

    A perturbed cell is a **responder** if its probability is above .5 and above those of 95 % of the controls,
    otherwise an **escaper**. Where held-out cells cannot be told apart (p-value above .05), all cells are escapers. In
    terms of Mixscape, responders are perturbed (KO), escapers are not (NP). Of weak effects, many cells that answered
    look like controls and count as escapers.

    With ``tau=1`` and many cells for every feature, :math:`p` is a frequency. A penalty draws it the more towards .5
    the fewer cells there are; a larger :math:`\tau` draws it away from .5 where the populations overlap. Escapers are
    not at 0: where a share :math:`s` of the cells escaped, so many of those that look like controls are perturbed that
    their :math:`p` is :math:`s / (1 + s)`, at most a half.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``.
    target_col, reference_key, dose_col, group_col, sep
        As in `scgap.tl.fit_transport`. Controls are those of the same group.
    layer, use_rep, mod
        As in `scgap.tl.fit_transport`. Features are standardised, so their units do not matter; counts have to be
        normalised and logged. With thousands of genes, pass ``use_rep="X_pca"``. The first 50 principal components are
        compared by their means, the first 10 also by their spreads and correlations.
    tau
        1 is the cross-entropy, 2 the mean absolute error. In simulated screens in which 30 to 85 % had escaped, all
        found about as many responders; the larger, the lower were the probabilities of escapers.
    seed
        Decides the halves.
    key_added
        Column of ``obs`` and key of ``uns`` to write to.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields:

    obs[key_added] : categorical
        ``control``, ``responder`` or ``escaper``; missing where a cell has no label, or its condition too few cells.
    obs[f"{key_added}_probability"] : float
        Of a held-out cell to be perturbed and not a control, from 0 to 1; of controls the mean over the conditions that
        they were compared with; NaN where there is none. It is there also where the populations are alike: then
        about .5.
    uns[key_added]["table"] : DataFrame
        One row a condition: ``condition``, ``n_cells``, ``n_controls``, ``auc`` (chance that a held-out perturbed cell
        looks more perturbed than a control; .5 is no effect), ``p_value`` (one-sided, of no effect, not corrected for
        the number of conditions), ``fraction`` of responders, and ``reason``: why there are no numbers, or empty.
    uns[key_added]["params"] : str
        Settings, as JSON.

    Raises
    ------
    KeyError
        A column, layer, modality or ``obsm`` key is absent.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        There are no controls or no perturbed cells, ``tau`` is out of range, or no condition has 10 cells and as many
        controls.

    Warns
    -----
    UserWarning
        Names conditions without a call: fewer than 10 cells, or fewer than 10 controls in their group.

    See Also
    --------
    scgap.tl.fit_transport

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[1_000.0], n_groups=1)
    >>> scgap.pp.responders(adata, dose_col="dose_value")
    >>> adata.obs["responder"].cat.categories.tolist()
    ['control', 'responder', 'escaper']
    >>> adata.uns["responder"]["table"]["condition"].tolist()
    ['drug_1 1000', 'drug_2 1000']

    To train on responders and controls alone:

    >>> answered = adata[adata.obs["responder"].isin(["responder", "control"])].copy()
    """
    tau = _check_tau(tau)
    seed = whole_number("seed", seed, 0)
    check_key(key_added)
    adata = get_modality(data, mod)
    check_writable(adata, copy=copy)
    keep_map(adata, key_added)
    design = make_design(target_col, reference_key, dose_col, group_col, None, sep)
    if key_added in design.columns:
        raise ValueError(
            f"key_added={key_added!r} is a column that says what was done to the cells. Pass another name."
        )
    conditions, of_cell, _ = read_conditions(design, get_obs(data, mod, design.columns))
    points = read_points(adata, layer, use_rep)
    if use_rep is None or use_rep == "X":
        warn_of_counts(points, layer, stacklevel=3)
    # Its matrices are small: more threads would wait for each other for longer than they compute.
    with threadpool_limits(1, "blas"):
        calls = _call(points, conditions, of_cell, tau, seed)
    _warn_of_reasons(calls.table)
    settings = {"design": design._asdict(), "layer": layer, "use_rep": use_rep, "tau": tau, "seed": seed}
    result = data.copy() if copy else data
    adata = get_modality(result, mod)
    adata.obs[key_added] = pd.Categorical(calls.labels, categories=list(CLASSES))
    adata.obs[f"{key_added}_probability"] = calls.probabilities
    adata.uns[key_added] = {"params": json.dumps(settings), "table": calls.table}
    return result if copy else None


def _check_tau(tau: Any) -> float:
    if not is_number(tau, Real) or not 1 <= float(tau) <= 2:
        raise ValueError(
            f"tau={tau!r}. Pass a number from 1 (cross-entropy) to 2 (mean absolute error), the larger the more cells "
            "have escaped."
        )
    return float(tau)


def _call(points: Matrix, conditions: Sequence[Condition], of_cell: np.ndarray, tau: float, seed: int) -> Calls:
    """Compare every perturbed condition with the controls of its group."""
    labels = np.full(len(of_cell), None, dtype=object)
    probabilities = np.full(len(of_cell), np.nan)
    is_control = np.isin(of_cell, [i for i, condition in enumerate(conditions) if condition.is_control])
    labels[is_control] = CONTROL
    rows = []
    for group in dict.fromkeys(condition.group for condition in conditions):
        members = [i for i, condition in enumerate(conditions) if condition.group == group]
        controls = np.flatnonzero(is_control & np.isin(of_cell, members))
        reference, of_controls = to_dense(points[controls]), []
        for i in (i for i in members if not conditions[i].is_control):
            cells = np.flatnonzero(of_cell == i)
            row = {"condition": condition_label(conditions[i]), "n_cells": len(cells), "n_controls": len(controls)}
            if reason := _reason(len(cells), len(controls)):
                rows.append(row | {"reason": reason})
                continue
            # One seed for all, so that no condition's call depends on which others there are.
            test = two_sample_test(reference, to_dense(points[cells]), tau=tau, seed=seed)
            answered = _answered(test)
            labels[cells] = np.where(answered, RESPONDER, ESCAPER)
            probabilities[cells] = test.scores_other
            of_controls.append(test.scores_one)
            rows.append(row | {"auc": test.auc, "p_value": test.p_value, "fraction": answered.mean(), "reason": ""})
        if of_controls:
            probabilities[controls] = np.mean(of_controls, axis=0)
    return Calls(labels, probabilities, _table(rows))


def _answered(test: TwoSample) -> np.ndarray:
    """Which perturbed cells (m,) are responders."""
    if test.p_value > LEVEL:
        return np.zeros(len(test.scores_other), bool)
    # Half of all cells look more perturbed than not where the effect is small; few of them may be controls.
    return test.scores_other > max(0.5, np.quantile(test.scores_one, 1 - LEVEL))


def _reason(n_cells: int, n_controls: int) -> str:
    """Why there can be no call, or nothing."""
    few = [f"{n} {name}" for n, name in ((n_cells, "cells"), (n_controls, "controls")) if n < MIN_CELLS]
    return f"{' and '.join(few)}, fewer than {MIN_CELLS}" if few else ""


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a condition, under an index of strings, the one kind that every AnnData writer keeps."""
    if not rows:
        raise ValueError("There are no perturbed cells, all labels are of controls. Check target_col and dose_col.")
    columns = ["condition", "n_cells", "n_controls", "auc", "p_value", "fraction", "reason"]
    table = pd.DataFrame(rows, [str(i) for i in range(len(rows))], columns)
    return table.astype(dict.fromkeys(("auc", "p_value", "fraction"), float))


def _warn_of_reasons(table: pd.DataFrame) -> None:
    """Say which conditions have no call, or refuse if none has."""
    without = table[table["reason"] != ""]
    if without.empty:
        return
    message = f"No call for {listed(without['condition'])}: fewer than {MIN_CELLS} cells, or controls in their group. "
    if len(without) == len(table):
        raise ValueError(message + "Check target_col and group_col, or pool doses or groups by leaving them out.")
    warnings.warn(
        message + "Their cells are missing in the result; to have calls, pool doses or groups by leaving dose_col or "
        "group_col out.",
        stacklevel=3,
    )
