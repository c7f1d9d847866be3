"""Split cells and conditions into those that train and those that test."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scgap._adata import Data, check_key, check_writable, get_modality, get_obs
from scgap._conditions import make_design, read_conditions
from scgap._messages import not_found
from scgap._splits import SPLITS, n_valid_of


def split(
    data: Data,
    *,
    holdout: Mapping[str, Sequence[Any]] | None = None,
    fraction: float = 0.2,
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
    others ``valid`` (at least 5, as long as 10 are left to train on), at random. Conditions named by ``holdout`` go to
    ``test`` with all their cells.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``.
    holdout
        Conditions never to train on: from columns to values, ``{"perturbation": ["A"], "dose_value": [100]}``.
        A condition is held out, with all its cells in whatever way they are written, if every named column holds one of
        the values. If a column is not of the design (a batch, a plate), the cells are held out that hold the values,
        and the others of their conditions still train. Values are those of the column: ``"A"`` leaves the combination
        ``"A+B"`` in training, unless it is named as well. Controls are never held out whole.
    fraction
        Test cells of each condition that is not held out, between 0 and 1.
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
    ValueError
        ``fraction`` out of range, no control cells, ``holdout`` names no perturbed cells, or nothing is left to train
        on.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.pp.split(adata, holdout={"perturbation": ["drug_2"]}, dose_col="dose_value")
    >>> adata.obs["split"][adata.obs["perturbation"] == "drug_2"].unique().tolist()
    ['test']
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction={fraction!r}. Pass the fraction of cells to test on, from 0 to below 1.")
    if holdout is not None and not isinstance(holdout, Mapping):
        raise TypeError(f"holdout={holdout!r}. Pass a mapping from obs columns to the values that are held out.")
    check_key(key_added)
    adata = get_modality(data, mod)
    check_writable(adata, copy=copy)
    design = make_design(target_col, reference_key, dose_col, group_col, None, sep)
    obs = get_obs(data, mod, list(dict.fromkeys([*design.columns, *(holdout or {})])))
    conditions, of_cell, _ = read_conditions(design, obs)
    held_out = _held_out(obs, holdout)
    if held_out is not None and set(holdout or {}) <= set(design.columns):
        # A condition may be written in several ways, B+A for A+B: none of its cells may train.
        held_out = np.isin(of_cell, of_cell[held_out & (of_cell >= 0)])
    perturbed = np.isin(of_cell, [i for i, condition in enumerate(conditions) if not condition.is_control])
    if held_out is not None and not (held_out & perturbed).any():
        raise ValueError(
            f"holdout={dict(holdout or {})!r} names no perturbed cells. A condition is held out if every named column "
            "holds one of the values, and controls never are: name values that occur together."
        )

    generator = np.random.default_rng(seed)
    part = np.full(adata.n_obs, None, dtype=object)
    for i, condition in enumerate(conditions):
        cells = np.flatnonzero(of_cell == i)
        n_test = round(fraction * len(cells))
        n_valid = n_valid_of(len(cells) - n_test)
        order = generator.permutation(cells)
        part[order] = "train"
        part[order[:n_test]] = "test"
        part[order[n_test : n_test + n_valid]] = "valid"
        if held_out is not None and not condition.is_control:
            part[cells[held_out[cells]]] = "test"
    if not any((part[of_cell == i] == "train").any() for i, c in enumerate(conditions) if not c.is_control):
        raise ValueError("Nothing is left to train on: holdout names every perturbed condition. Name fewer of them.")
    result = data.copy() if copy else data
    get_modality(result, mod).obs[key_added] = pd.Categorical(part, categories=list(SPLITS))
    return result if copy else None


def _held_out(obs: pd.DataFrame, holdout: Mapping[str, Sequence[Any]] | None) -> np.ndarray | None:
    """Boolean (n_obs,): cells whose every named column holds one of the held-out values."""
    if not holdout:
        return None
    mask = np.ones(len(obs), bool)
    for column, values in holdout.items():
        values = [values] if isinstance(values, str) or np.isscalar(values) else list(values)
        # Doses are compared as numbers: the column may hold '10' and the call 10.0, or the other way round.
        numbers = pd.to_numeric(obs[column].astype(object), errors="coerce")
        found = np.zeros(len(obs), bool)
        for value in values:
            same = (obs[column].astype(str) == str(value)).to_numpy()
            same = same | (numbers == pd.to_numeric(value, errors="coerce")).to_numpy()
            if not same.any():
                raise KeyError(not_found(str(value), f"adata.obs[{column!r}]", sorted(set(obs[column].astype(str)))))
            found |= same
        mask &= found
    return mask
