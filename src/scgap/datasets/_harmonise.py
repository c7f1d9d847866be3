"""The same columns in every data set, whatever they are called in the file."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scgap._messages import listed, not_found

CONTROL = "control"
MISSING = ("", "nan", "None")  # what becomes of a missing label that is written as text


def get_column(obs: Any, name: str, file: str) -> pd.Series:
    """A column that the file must have."""
    if name not in obs:
        raise KeyError(not_found(name, f"the obs columns of {file!r}", list(obs)) + " Is it another data set's file?")
    column: pd.Series = obs[name]
    return column


def harmonised(
    perturbation: pd.Series,
    *,
    controls: Collection[str] = (CONTROL,),
    dose: pd.Series | None = None,
    unit: pd.Series | None = None,
    context: Mapping[str, pd.Series | str] | None = None,
) -> pd.DataFrame:
    """Harmonised columns, one row a cell: labels categorical, missing ones NaN; doses numbers, 0 for controls."""
    labels = _labels(perturbation)
    is_control = labels.isin(controls)
    labels = labels.mask(is_control, CONTROL)
    columns = {"perturbation": labels}
    if dose is not None:
        numbers = pd.to_numeric(dose.astype(object).astype(str), errors="coerce").astype(float)
        columns["dose_value"] = numbers.mask(is_control, 0.0)
        if without := sorted(set(labels[numbers.isna() & ~is_control].dropna())):
            warnings.warn(
                f"{listed(without)} have cells without a dose, NaN in obs['dose_value']. Leave these cells out before "
                "you fit with dose_col.",
                stacklevel=3,
            )
    if unit is not None:
        units = _labels(unit)
        known = units.dropna().unique()
        columns["dose_unit"] = units.fillna(known[0]) if len(known) == 1 else units  # controls may have none
    for name, values in (context or {}).items():
        columns[name] = _labels(pd.Series(values, labels.index) if isinstance(values, str) else values)
    return pd.DataFrame(
        {name: values if name == "dose_value" else _categorical(values) for name, values in columns.items()},
        index=labels.index,
    )


def set_columns[T: (AnnData, MuData)](data: T, columns: pd.DataFrame) -> T:
    """The object with these columns in ``obs``, that of all modalities too, without the cells that lack a label.

    What a column of the same name held is kept as ``<name>_original``.
    """
    labelled = columns[[name for name in columns if name not in ("dose_value", "dose_unit")]].notna().all(axis=1)
    if n_unlabelled := int((~labelled).sum()):
        names = [name for name in columns if columns[name][~labelled].isna().any()]
        warnings.warn(
            f"{n_unlabelled} of {len(columns)} cells are left out: they have no label in {listed(names)}.",
            stacklevel=3,
        )
        data, columns = data[labelled.to_numpy()].copy(), columns[labelled]
    if isinstance(data, AnnData):
        _set_obs(data, columns)
        return data
    for adata in data.mod.values():
        _set_obs(adata, columns.loc[adata.obs_names])
    data.pull_obs()
    return data


def _set_obs(adata: AnnData, columns: pd.DataFrame) -> None:
    obs: Any = adata.obs
    for name in columns:
        values = columns[name].set_axis(adata.obs_names)
        if name in obs and not _same(obs[name], values):
            obs[f"{name}_original"] = obs[name]
        obs[name] = values.cat.remove_unused_categories() if values.dtype == "category" else values


def _same(one: pd.Series, other: pd.Series) -> bool:
    """Whether both say the same, be it as text, categories or numbers."""
    if pd.api.types.is_numeric_dtype(one.dtype) and pd.api.types.is_numeric_dtype(other.dtype):
        return np.array_equal(one.to_numpy(float), other.to_numpy(float), equal_nan=True)
    return np.array_equal(one.astype(object).astype(str), other.astype(object).astype(str))


def _labels(values: pd.Series) -> pd.Series:
    """Labels as text, NaN where there is none."""
    text = values.astype(object).astype(str).astype(object)
    return text.mask(values.isna() | text.isin(MISSING), np.nan)


def _categorical(labels: pd.Series) -> pd.Series:
    """The control comes first, where there is one."""
    names = sorted(labels.dropna().unique(), key=lambda name: (name != CONTROL, name))
    return pd.Series(pd.Categorical(labels, pd.Index(names, dtype="str")), labels.index)
