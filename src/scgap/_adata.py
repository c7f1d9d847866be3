"""The one reader of user objects: matrices, labels and rows of AnnData and MuData."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from scgap._messages import kind_of, listed, not_found

# Not `type` statements, which the rendered signatures would show by name alone.
Data: TypeAlias = AnnData | MuData  # noqa: UP040
Matrix: TypeAlias = np.ndarray | sparse.csr_matrix | sparse.csr_array  # noqa: UP040


def get_modality(data: Data, mod: str | None) -> AnnData:
    """The AnnData to work on: ``data`` itself, or modality ``mod`` of a MuData."""
    if isinstance(data, MuData):
        if mod is None:
            raise ValueError(
                f"data is a MuData and mod is None. Pass one of its modalities as mod: {listed(data.mod)}."
            )
        if mod not in data.mod:
            raise KeyError(not_found(mod, "mdata.mod", list(data.mod)))
        return data.mod[mod]
    if not isinstance(data, AnnData):
        raise TypeError(f"data is {kind_of(data)}. Pass an AnnData, or a MuData together with mod=.")
    if mod is not None:
        raise ValueError(f"mod={mod!r} was given with an AnnData. Leave mod out, or pass the MuData that holds it.")
    return data


def check_writable(adata: AnnData, *, copy: bool) -> None:
    """Refuse objects that results cannot be written to."""
    if adata.is_view and not copy:
        raise ValueError(
            "adata is a view of another object, and writing to it would silently make it a copy. "
            "Pass adata.copy(), or copy=True, where there is one, to get the result back."
        )
    check_unique(adata.var_names, "adata")


def check_unique(var_names: pd.Index, name: str) -> None:
    """Refuse features that cannot be told apart by name."""
    if not var_names.is_unique:
        twice = var_names[var_names.duplicated()].unique()
        raise ValueError(
            f"{name}.var_names are not unique: {listed(twice)}. Features are matched by name; "
            f"call {name}.var_names_make_unique() first."
        )


def check_key(name: str) -> str:
    """Refuse names that no AnnData writer takes."""
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(
            f"{name!r} cannot be a key: AnnData's files hold only non-empty names, in which '/' would start a folder. "
            "Pass a name without '/' as key_added."
        )
    return name


def check_folder(path: str | PathLike[str]) -> Path:
    """Refuse files in folders that do not exist."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{str(path)!r} is in a folder, {str(path.parent)!r}, that does not exist. Make it first.")
    return path


def get_obs(data: Data, mod: str | None, columns: Sequence[str | None], *, hint: str = "") -> pd.DataFrame:
    """The named obs columns, None left out, one row a cell; looked up in the modality first, then in the MuData.

    ``hint`` ends the message about one that is missing.
    """
    adata = get_modality(data, mod)
    found: dict[str, pd.Series] = {}
    for column in filter(None, columns):
        if column in adata.obs:
            found[column] = adata.obs[column]  # type: ignore[assignment]  # anndata's lazy obs
        elif isinstance(data, MuData) and column in data.obs:
            found[column] = data.obs[column].reindex(adata.obs_names)
        else:
            everywhere = [*adata.obs.columns, *(data.obs.columns if isinstance(data, MuData) else [])]
            raise KeyError(not_found(column, "adata.obs", everywhere) + hint)
    return pd.DataFrame(found, index=adata.obs_names)


def get_layers(adata: AnnData) -> list[str]:
    """Names of the layers; anndata lists X among them, as None."""
    return [str(name) for name in list(adata.layers.keys()) if name is not None]


def get_matrix(adata: AnnData, layer: str | None) -> Matrix:
    """``X`` or a layer, in memory: a NumPy array or a CSR matrix."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(not_found(layer, "adata.layers", get_layers(adata)))
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("adata.X is None. Pass the layer that holds the data as layer=.")
    if hasattr(matrix, "compute"):  # dask
        matrix = matrix.compute()
    elif hasattr(matrix, "to_memory"):  # sparse data sets of backed objects
        matrix = matrix.to_memory()
    if sparse.issparse(matrix):
        return matrix.tocsr()
    return np.asarray(matrix[:] if hasattr(matrix, "file") else matrix)


def to_dense(matrix: Matrix, out: np.ndarray | None = None) -> np.ndarray:
    """A dense float32 array of a matrix, written to ``out`` where it is given."""
    if out is None:
        return np.asarray(matrix if isinstance(matrix, np.ndarray) else matrix.toarray(), dtype=np.float32)
    if isinstance(matrix, np.ndarray):
        out[:] = matrix
    else:
        matrix.astype(np.float32, copy=False).toarray(out=out)
    return out


def check_finite(matrix: Matrix, where: str) -> None:
    """Refuse NaN and infinite values, with the number of cells that hold them."""
    values: Any = matrix.data if sparse.issparse(matrix) else matrix
    # A NaN is both least and greatest; np.isfinite would take a fourth of the matrix again.
    if np.isfinite([values.min(initial=0), values.max(initial=0)]).all():
        return
    dense = to_dense(matrix)
    bad = ~np.isfinite(dense).all(axis=1)
    raise ValueError(
        f"{where} holds NaN or infinite values in {bad.sum()} of {len(bad)} cells. Transport needs finite numbers: "
        "drop these cells or features, or fill them in."
    )


def match_features(adata: AnnData, var_names: np.ndarray) -> np.ndarray | None:
    """Positions in ``adata`` of the features a model was fitted on; ``None`` if they already stand in that order."""
    if np.array_equal(adata.var_names, var_names):
        return None
    missing = pd.Index(var_names).difference(adata.var_names, sort=False)
    if len(missing):
        raise ValueError(
            f"adata lacks {len(missing)} of the {len(var_names)} features the map was fitted on: {listed(missing)}. "
            "A map cannot be applied without them; their order does not matter."
        )
    if adata.n_vars > len(var_names):
        unknown = adata.var_names.difference(pd.Index(var_names), sort=False)
        raise ValueError(
            f"adata has {len(unknown)} features that the map was not fitted on: {listed(unknown)}. There is no "
            "prediction for them: pass adata[:, adata.uns[key]['var_names']].copy(), or fit the map on all features."
        )
    return adata.var_names.get_indexer(pd.Index(var_names))


def select_cells(adata: AnnData, cells: Any, name: str = "source") -> np.ndarray:
    """Boolean mask (n_obs,) of the chosen cells: a mask or a list of obs names, given as argument ``name``."""
    if isinstance(cells, pd.Series) and pd.api.types.is_bool_dtype(cells) and not cells.index.equals(adata.obs_names):
        if len(missing := adata.obs_names.difference(cells.index, sort=False)):
            raise KeyError(
                f"{name} is a Series without {len(missing)} of the {adata.n_obs} cells: {listed(missing)}. "
                "Pass one with obs names as index, or its values as an array in the order of the cells."
            )
        cells = cells.reindex(adata.obs_names)
    chosen = np.asarray(cells)
    if chosen.dtype.kind in "iuf" and chosen.size:
        raise TypeError(f"{name} holds numbers, {listed(chosen.ravel())}. Pass a boolean mask or obs names.")
    if chosen.ndim != 1:
        raise TypeError(f"{name} is {kind_of(cells)}. Pass a list of obs names or a boolean mask of all cells.")
    if chosen.dtype == bool or (chosen.dtype == object and all(isinstance(cell, bool) for cell in chosen)):
        if chosen.shape != (adata.n_obs,):
            raise ValueError(
                f"{name} is a mask of shape {chosen.shape}. Pass one value for each of {adata.n_obs} cells."
            )
        mask = chosen.astype(bool)
    else:
        names = pd.Index(chosen.astype(str)) if chosen.size else pd.Index([], dtype=str)
        unknown = names[~names.isin(adata.obs_names)]
        if len(unknown):
            raise KeyError(
                f"{name} names {len(unknown)} cells that are not in adata.obs_names: {listed(unknown)}. "
                "Pass obs names or a boolean mask of all cells."
            )
        mask = np.asarray(adata.obs_names.isin(names))
    if not mask.any():
        raise ValueError(
            f"{name} selects no cells. Pass a mask or names of at least one cell"
            + (", or leave it out for all controls." if name == "source" else ".")
        )
    return mask
