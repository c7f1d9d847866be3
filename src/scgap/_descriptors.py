"""Tables of descriptors, one row a perturbation: checked, stored in ``uns``, read back and joined."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from scgap._checks import text
from scgap._conditions import label_text
from scgap._messages import kind_of, listed, not_found

# Not a `type` statement, which the rendered signature would show by name alone.
EncodingArgument: TypeAlias = pd.DataFrame | str | Sequence[pd.DataFrame | str] | None  # noqa: UP040


class Descriptors(NamedTuple):
    """A table and how it came about."""

    method: str
    table: pd.DataFrame
    """(n_perturbations, n_features) float32, labels of perturbations as index."""
    params: dict[str, Any]
    """Settings, JSON-able."""
    arrays: dict[str, np.ndarray]
    """What else the method has to remember, such as the statistics of its reference."""


def check_table(table: Any, name: str) -> pd.DataFrame:
    """The table as float32, its labels and columns as strings; refused if it is not one row of numbers a label."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{name} is {kind_of(table)}. Pass a DataFrame: one row a perturbation, its name as index.")
    index = pd.Index([label_text(label) for label in table.index])
    if not index.is_unique:
        raise ValueError(f"{name} names {listed(index[index.duplicated()])} twice. Keep one row a perturbation.")
    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite, and are named below
        values = table.apply(pd.to_numeric, errors="coerce").to_numpy(float).astype(np.float32)
    finite = np.isfinite(values).all(0)
    if not table.size or not finite.all():
        bad = [str(column) for column, ok in zip(table.columns, finite, strict=True) if not ok]
        raise ValueError(
            f"{name} needs finite numbers in at least one column; look at {listed(bad)}. Fill or drop these."
        )
    return pd.DataFrame(values, index, [str(column) for column in table.columns])


def descriptors_to_uns(descriptors: Descriptors) -> dict[str, Any]:
    """Plain values that every AnnData writer takes."""
    return {
        "method": descriptors.method,
        "perturbations": np.array(descriptors.table.index, dtype=object),
        "features": np.array(descriptors.table.columns, dtype=object),
        "values": descriptors.table.to_numpy(np.float32, copy=True),
        "params": json.dumps(descriptors.params),
        **descriptors.arrays,
    }


def descriptors_from_uns(uns: Mapping[str, Any], key: str) -> Descriptors:
    """What is stored under ``uns[key]``; a DataFrame there is a table, too."""
    if text("key", key) not in uns:
        raise KeyError(not_found(key, "adata.uns", list(uns)) + " scgap.pp.encode_drugs and its like make encodings.")
    stored = uns[key]
    if isinstance(stored, pd.DataFrame):
        return Descriptors("table", check_table(stored, f"adata.uns[{key!r}]"), {}, {})
    own = ("method", "perturbations", "features", "values", "params")
    if not isinstance(stored, Mapping) or not set(own) <= set(stored):
        raise ValueError(
            f"adata.uns[{key!r}] is not an encoding but {kind_of(stored)}. Pass the key of an encoding, which "
            "scgap.pp.encode_drugs, encode_table and encode_effects make, or of a DataFrame."
        )
    index, columns = ([str(name) for name in stored[name]] for name in ("perturbations", "features"))
    return Descriptors(
        str(stored["method"]),
        check_table(pd.DataFrame(np.asarray(stored["values"]), index, columns), f"adata.uns[{key!r}]"),
        json.loads(str(stored["params"])),
        {name: np.asarray(value) for name, value in stored.items() if name not in own},
    )


def join_encodings(encoding: EncodingArgument, uns: Mapping[str, Any]) -> pd.DataFrame | None:
    """One table of all that ``encoding`` names: the perturbations that every table has, and all columns."""
    if encoding is None:
        return None
    parts = list(encoding) if isinstance(encoding, list | tuple) else [encoding]
    if not parts:
        raise ValueError("encoding is an empty list. Pass tables or keys of adata.uns, or None to learn the vectors.")
    keys = [part if isinstance(part, str) else f"table_{i}" for i, part in enumerate(parts, 1)]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"encoding names {twice[0]!r} twice. Name every table once.")
    tables = [
        descriptors_from_uns(uns, part).table if isinstance(part, str) else check_table(part, "encoding")
        for part in parts
    ]
    shared = [name for name in tables[0].index if all(name in table.index for table in tables)]
    if not shared:
        raise ValueError(
            f"The tables {listed(keys)} of encoding have no perturbation in common. Their rows are joined by name: "
            "spell the names alike."
        )
    return pd.concat([table.loc[shared] for table in _tell_apart(keys, tables)], axis=1)


def _tell_apart(keys: Sequence[str], tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables, with their keys before the names of columns that several of them have."""
    everywhere = [column for table in tables for column in set(table.columns)]
    clashing = {column for column in everywhere if everywhere.count(column) > 1}
    return [
        table.rename(columns={column: f"{key}: {column}" for column in clashing})
        for key, table in zip(keys, tables, strict=True)
    ]
