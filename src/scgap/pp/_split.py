"""Split cells and conditions into those that train and those that test."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from scgap._adata import Data, check_key, check_writable, get_modality, get_obs
from scgap._checks import is_number, whole_number
from scgap._conditions import Condition, make_design, read_conditions
from scgap._messages import not_found, shown
from scgap._splits import SPLITS, n_valid_of
from scgap.pp._holdout import COMBINATIONS, STRATEGIES, named_cells, unseen_conditions

TEST_FRACTION = 0.2  # the papers' share of each condition's cells

type Holdout = Mapping[str, Any] | pd.DataFrame | str | None


def split(
    data: Data,
    *,
    holdout: Mapping[str, Sequence[Any]] | pd.DataFrame | str | None = None,
    fraction: float = TEST_FRACTION,
    parts_seen: int | None = None,
    target_col: str | Sequence[str] = "perturbation",
    reference_key: str = "control",
    dose_col: str | Sequence[str] | None = None,
    group_col: str | Sequence[str] | None = None,
    sep: str | None = None,
    mod: str | None = None,
    seed: int = 0,
    key_added: str = "split",
    copy: bool = False,
) -> Data | None:
    """Hold out cells, and whole conditions, for testing.

    Of every condition and of the controls of every group, ``fraction`` of the cells become ``test`` and a tenth of the
    others ``valid`` (at least 5, as long as 10 are left to train on), at random: scores of seen conditions. Conditions
    that ``holdout`` names or chooses go to ``test`` with all their cells: scores of unseen ones. Where that takes all
    perturbed cells of a group, its controls go to ``test`` as well: the group trains nothing, and all its controls are
    there to predict from.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``.
    holdout
        Conditions never to train on. One of the strategies below, which choose at random; or a mapping from columns to
        values, ``{"perturbation": ["A"], "dose_value": [100]}``; or a table, each row of which is such a mapping.
        By a mapping a condition is held out, with all its cells in whatever way they are written, if every named column
        holds one of the values. If a column is not of the design (a batch, a plate), the cells are held out that hold
        the values, and the others of their conditions still train. Values are those of the column: ``"A"`` leaves the
        combination ``"A+B"`` in training, unless it is named as well.

        ``"unseen_perturbation"``
            Perturbations, with all conditions that they are part of.
        ``"unseen_dose"``
            Doses of a perturbation between others of it, in all conditions that hold it at this dose: to interpolate.
        ``"unseen_dose_highest"``, ``"unseen_dose_lowest"``
            The highest, or lowest, dose of a perturbation: to extrapolate.
        ``"unseen_combination"``
            Sets of two or more perturbations, at all doses, in all groups; see ``parts_seen``.
        ``"unseen_group"``
            Groups with all their perturbed cells.
    fraction
        Test cells of each condition that is not held out, from 0 to below 1. With a strategy: how much it holds out of
        what it chooses from (the perturbations, the doses between others, the perturbations with a highest or lowest
        dose, the combinations, the groups), rounded, at least one, and never all perturbations or groups; of each other
        condition a fifth of the cells test.
    parts_seen
        For ``"unseen_combination"``: how many parts of each chosen combination training sees, in other conditions. By
        default all; for pairs 2, 1 or 0. To leave parts unseen, all conditions that hold them go to ``test``, and count
        as held out where they are combinations. Fewer than ``fraction`` are held out where the data allow no more.
    target_col, reference_key, dose_col, group_col, sep, mod
        As in `scgap.tl.fit_transport`.
    seed
        Same seed: same split.
    key_added
        Column of ``obs`` to write to.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following field:

    obs[key_added] : categorical
        ``train``, ``valid`` or ``test``; missing where a cell has no label.

    Raises
    ------
    KeyError
        A column is absent, or a value of ``holdout`` is not in its column.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        ``fraction`` or ``parts_seen`` out of range, no control cells, an unknown strategy or one that the data have
        nothing for, ``holdout`` names no perturbed cells, or nothing is left to train on.

    Warns
    -----
    UserWarning
        A perturbation in combinations is called as controls usually are.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.pp.split(adata, holdout={"perturbation": ["drug_2"]}, dose_col="dose_value")
    >>> adata.obs["split"][adata.obs["perturbation"] == "drug_2"].unique().tolist()
    ['test']
    >>> scgap.pp.split(adata, holdout="unseen_perturbation", dose_col="dose_value")
    """
    _check_arguments(holdout, fraction, parts_seen)
    seed = whole_number("seed", seed, 0)
    check_key(key_added)
    adata = get_modality(data, mod)
    check_writable(adata, copy=copy)
    design = make_design(target_col, reference_key, dose_col, group_col, None, sep)
    named = [] if holdout is None or isinstance(holdout, str) else [str(column) for column in holdout]
    if key_added in (sources := [*design.columns, *named]):
        raise ValueError(
            f"key_added={key_added!r} is a column that the split is made from, and would be lost. Pass another name."
        )
    obs = get_obs(data, mod, list(dict.fromkeys(sources)))
    conditions, of_cell, _ = read_conditions(design, obs)
    perturbed = np.isin(of_cell, [i for i, condition in enumerate(conditions) if not condition.is_control])
    if isinstance(holdout, str):
        held_out = np.isin(of_cell, unseen_conditions(holdout, conditions, fraction, parts_seen, seed))
        fraction = TEST_FRACTION
    else:
        held_out = perturbed & named_cells(design, obs, of_cell, holdout)
    if holdout is not None and not held_out.any():
        raise ValueError(
            f"holdout={_shown(holdout)} names no perturbed cells. A condition is held out if every named column "
            "holds one of the values, and controls never are: name values that occur together."
        )
    part = _parts(conditions, of_cell, held_out, fraction, seed)
    if not (perturbed & (part == "train")).any():
        raise ValueError(
            f"Nothing is left to train on: holdout={_shown(holdout)} takes every perturbed condition. Name fewer of "
            "them, or pass a smaller fraction."
        )
    result = data.copy() if copy else data
    get_modality(result, mod).obs[key_added] = pd.Categorical(part, categories=list(SPLITS))
    return result if copy else None


def _check_arguments(holdout: Holdout, fraction: float, parts_seen: int | None) -> None:
    if not is_number(fraction, Real) or not 0 <= fraction < 1:
        raise ValueError(f"fraction={shown(fraction)}. Pass the fraction to test on, from 0 to below 1.")
    if isinstance(holdout, str) and holdout not in STRATEGIES:
        raise ValueError(not_found(holdout, "the strategies of holdout", STRATEGIES))
    if not (holdout is None or isinstance(holdout, str | Mapping | pd.DataFrame)):
        raise TypeError(
            f"holdout={shown(holdout)}. Pass a mapping from obs columns to the values that are held out, a table of "
            "such values, or the name of a strategy."
        )
    if parts_seen is None:
        return
    if not isinstance(holdout, str) or holdout != COMBINATIONS:
        raise ValueError(
            f"parts_seen={parts_seen!r} has no meaning for holdout={_shown(holdout)}. Leave it out, or pass "
            f"holdout={COMBINATIONS!r}."
        )
    if not is_number(parts_seen, Integral) or parts_seen < 0:
        raise ValueError(
            f"parts_seen={parts_seen!r}. Pass how many parts of a held-out combination training sees: 0, 1, 2, …, or "
            "None for all."
        )


def _parts(
    conditions: Sequence[Condition], of_cell: np.ndarray, held_out: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """``train``, ``valid``, ``test``, or None without a condition, for every cell (n_obs,)."""
    generator = np.random.default_rng(seed)
    part = np.full(len(of_cell), None, dtype=object)
    for i in range(len(conditions)):
        cells = np.flatnonzero(of_cell == i)
        n_test = round(fraction * len(cells))
        n_valid = n_valid_of(len(cells) - n_test)
        order = generator.permutation(cells)
        part[order] = "train"
        part[order[:n_test]] = "test"
        part[order[n_test : n_test + n_valid]] = "valid"
    part[held_out] = "test"
    for i, control in ((i, condition) for i, condition in enumerate(conditions) if condition.is_control):
        in_group = [j for j, other in enumerate(conditions) if other.group == control.group and j != i]
        perturbed = np.isin(of_cell, in_group)
        if perturbed.any() and held_out[perturbed].all():
            part[of_cell == i] = "test"
    return part


def _shown(holdout: Holdout) -> str:
    if isinstance(holdout, pd.DataFrame):
        return f"a table of {len(holdout)} rows"
    return repr(dict(holdout) if isinstance(holdout, Mapping) else holdout)
