"""The one reader of user objects: matrices, labels and rows of AnnData and MuData."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from scgap._checks import text, texts
from scgap._messages import kind_of, listed, not_found, shown

# Not `type` statements, which the rendered signatures would show by name alone.
Data: TypeAlias = AnnData | MuData  # noqa: UP040
Modality: TypeAlias = str | Sequence[str] | None  # noqa: UP040
Rows: TypeAlias = np.ndarray | sparse.csr_matrix | sparse.csr_array  # noqa: UP040

CHUNK_BYTES = 2**26  # of rows read at once, were they dense and of double precision: large enough to be fast


@dataclass(frozen=True)
class OnDisk:
    """A matrix of which only those rows are in memory that were asked for: of a file, or of a dask array."""

    source: Any
    columns: np.ndarray | slice = slice(None)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of cells and of the chosen columns."""
        n_columns = self.source.shape[1]
        return self.source.shape[0], n_columns if isinstance(self.columns, slice) else len(self.columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Rows:
        """Some rows in memory: a slice, a mask, or positions in any order."""
        if isinstance(rows, slice):
            return self._read(rows)
        rows = np.asarray(rows)
        if rows.dtype == bool:
            return self._read(np.flatnonzero(rows))
        found, back = np.unique(rows, return_inverse=True)  # h5py takes positions in order, and each but once
        return self._read(found)[back]

    def _read(self, rows: slice | np.ndarray) -> Rows:
        if isinstance(rows, np.ndarray) and not len(rows):
            rows = slice(0, 0)
        found = self.source[rows, :]
        found = found.compute() if hasattr(found, "compute") else found  # dask
        return (found.tocsr() if sparse.issparse(found) else np.asarray(found))[:, self.columns]


Matrix: TypeAlias = Rows | OnDisk  # noqa: UP040


def get_modality(data: Data, mod: str | None) -> AnnData:
    """The AnnData to work on: ``data`` itself, or modality ``mod`` of a MuData."""
    if not isinstance(mod, str | None):
        raise TypeError(f"mod={shown(mod)}. Pass one modality: several at once are for fits and what is made of them.")
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
    if not isinstance(data.obs, pd.DataFrame):
        raise TypeError(
            "adata.obs was read lazily. Load the tables, which are small, first: adata.obs = adata.obs.to_memory() and "
            "adata.var = adata.var.to_memory(); adata.X can stay where it is."
        )
    return data


def check_predicted(predicted: Any, name: str) -> None:
    """Refuse what is no AnnData."""
    if not isinstance(predicted, AnnData):
        raise TypeError(f"{name} is {kind_of(predicted)}. Pass an AnnData with the predicted cells of one method.")


def check_writable(adata: AnnData, *, copy: bool) -> None:
    """Refuse objects that results cannot be written to, or that cannot be copied."""
    if adata.is_view and not copy:
        raise ValueError(
            "adata is a view of another object, and writing to it would silently make it a copy. "
            "Pass adata.copy(), or copy=True, where there is one, to get the result back."
            if not adata.isbacked
            else "adata is a view of an object in a file, to which nothing can be written. Pass adata.to_memory()."
        )
    if adata.isbacked and copy:
        raise ValueError(
            "adata.X is in a file, and a copy would share it. Leave copy out: results are written to adata in memory, "
            "and the file stays as it is; or pass adata.to_memory()."
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


def check_mods(data: Data, mod: Modality) -> None:
    """Refuse what names no several modalities."""
    if not isinstance(mod, list | tuple):
        raise TypeError(f"mod={shown(mod)}. Pass the name of one modality, or a list of several.")
    if not isinstance(data, MuData):
        raise TypeError(f"mod={shown(mod)} was given with {kind_of(data)}. Pass a MuData that holds these modalities.")
    if len(set(texts("mod", mod))) < max(2, len(mod)):
        raise ValueError(f"mod={shown(mod)}. Pass the name of one modality, or a list of two or more different ones.")
    for one in mod:
        get_modality(data, one)


def check_key(name: str) -> str:
    """Refuse names that no AnnData writer takes."""
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(
            f"{name!r} cannot be a key: AnnData's files hold only non-empty names, in which '/' would start a folder. "
            "Pass a name without '/' as key_added."
        )
    return name


def is_map(stored: Any) -> bool:
    """Whether something in ``uns`` is what `scgap.tl.fit_transport` writes."""
    return isinstance(stored, Mapping) and "format_version" in stored


def keep_map(adata: AnnData, key: str) -> None:
    """Refuse to write over a fitted map."""
    if is_map(adata.uns.get(key)):
        raise ValueError(
            f"adata.uns[{key!r}] holds a fitted map, which would be lost. Pass another name as key_added, or delete it."
        )


def get_obs(data: Data, mod: str | None, columns: Sequence[str | None], *, hint: str = "") -> pd.DataFrame:
    """The named obs columns, None left out, one row a cell; looked up in the modality first, then in the MuData.

    ``hint`` ends the message about one that is missing.
    """
    adata = get_modality(data, mod)
    found: dict[str, pd.Series] = {}
    for column in columns:
        if column is None:
            continue
        if text("A column of obs", column) in adata.obs:
            found[column] = adata.obs[column]  # type: ignore[assignment]  # anndata's lazy obs
        elif isinstance(data, MuData) and column in data.obs:
            found[column] = data.obs[column].reindex(adata.obs_names)
        else:
            everywhere = [*adata.obs.columns, *(data.obs.columns if isinstance(data, MuData) else [])]
            raise KeyError(not_found(column, "adata.obs", everywhere) + hint)
    return pd.DataFrame(found, index=adata.obs_names)


def random_order(names: pd.Index) -> np.ndarray:
    """Positions of cells in a random order that follows from their names, and so is the same for any order of rows.

    By names and not by values, for the last bits of values depend on versions and threads.
    """
    texts = np.asarray(names, str)
    digests = np.fromiter((crc32(name.encode()) for name in texts), np.uint32, len(texts))
    return np.lexsort((texts, digests))


def get_layers(adata: AnnData) -> list[str]:
    """Names of the layers; anndata lists X among them, as None."""
    return [str(name) for name in list(adata.layers.keys()) if name is not None]


def get_matrix(adata: AnnData, layer: str | None) -> Matrix:
    """``X`` or a layer: a NumPy array or a CSR matrix in memory, or rows on disk."""
    if layer is not None and text("layer", layer) not in adata.layers:
        raise KeyError(not_found(layer, "adata.layers", get_layers(adata)))
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("adata.X is None. Pass the layer that holds the data as layer=.")
    _check_numbers(matrix, "adata.X" if layer is None else f"adata.layers[{layer!r}]")
    if is_csc_file(matrix):
        matrix = matrix.to_memory()  # for each of its rows lies scattered over the whole file
    if sparse.issparse(matrix):
        return matrix.tocsr()
    # The marks of dask, of sparse data sets of backed objects, of h5py and of zarr.
    if any(hasattr(matrix, mark) for mark in ("compute", "to_memory", "file", "oindex")):
        return OnDisk(matrix)
    return np.asarray(matrix)


def _check_numbers(matrix: Any, where: str) -> None:
    """Refuse what is no matrix of real numbers, all of which are there."""
    kind = getattr(getattr(matrix, "dtype", None), "kind", "O")
    if kind not in "biuf" or len(getattr(matrix, "shape", ())) != 2:
        raise TypeError(
            f"{where} is {kind_of(matrix)} of {getattr(matrix, 'dtype', 'objects')} and shape "
            f"{getattr(matrix, 'shape', ())}. Features are a matrix of real numbers: convert them, e.g. with "
            ".astype('float32')."
        )
    if np.ma.is_masked(matrix):
        raise ValueError(
            f"{where} is a masked array with {np.ma.count_masked(matrix)} values missing. Transport needs all of them: "
            "fill them in, with .filled(...), or drop these cells or features."
        )


def is_csc_file(matrix: Any) -> bool:
    """Whether a matrix is on disk, stored by columns."""
    return hasattr(matrix, "to_memory") and getattr(matrix, "format", "") == "csc"


def take_features(matrix: Matrix, columns: np.ndarray | slice) -> Matrix:
    """The matrix with these columns, in their order; on disk nothing is read."""
    return replace(matrix, columns=columns) if isinstance(matrix, OnDisk) else matrix[:, columns]


def chunk_rows(n_features: int) -> int:
    """Rows of a chunk."""
    return max(1, CHUNK_BYTES // (8 * max(n_features, 1)))


def iter_chunks(matrix: Matrix, n_rows: int | None = None) -> Iterator[tuple[slice, Rows]]:
    """A matrix in chunks of at most ``n_rows`` rows, by default of CHUNK_BYTES: where they stand, and what they hold.

    The way to go through a matrix that may be on disk: no more than one chunk of it is in memory.
    """
    n_cells = matrix.shape[0]
    n_rows = n_rows or chunk_rows(matrix.shape[1])
    for start in range(0, n_cells, n_rows):
        rows = slice(start, min(start + n_rows, n_cells))
        yield rows, matrix[rows]


def to_dense(matrix: Matrix, out: np.ndarray | None = None) -> np.ndarray:
    """A dense float32 array of a matrix, written to ``out`` where it is given."""
    if out is None:
        if isinstance(matrix, np.ndarray):
            return np.asarray(matrix, dtype=np.float32)
        out = np.empty(matrix.shape, np.float32)
    if isinstance(matrix, OnDisk):
        for rows, chunk in iter_chunks(matrix):
            to_dense(chunk, out=out[rows])
    elif isinstance(matrix, np.ndarray):
        out[:] = matrix
    else:
        matrix.astype(np.float32, copy=False).toarray(out=out)
    return out


def check_finite(matrix: Matrix, where: str) -> np.ndarray:
    """Refuse NaN and infinite values, with the number of cells that hold them.

    Return the least value (n_obs,) of each cell, which comes with it: a matrix on disk is read once.
    """
    if not matrix.shape[1]:
        raise ValueError(f"{where} holds no features. There has to be at least one: look at how they were selected.")
    least = np.empty(matrix.shape[0])
    n_bad = 0
    for rows, chunk in iter_chunks(matrix):
        # A NaN is both least and greatest; np.isfinite would take a fourth of the matrix again.
        ends: list[Any] = [chunk.min(axis=1), chunk.max(axis=1)]
        low, high = (end.toarray().ravel() if sparse.issparse(end) else end for end in ends)
        n_bad += int((~np.isfinite(low) | ~np.isfinite(high)).sum())
        least[rows] = low
    if n_bad:
        raise ValueError(
            f"{where} holds NaN or infinite values in {n_bad} of {len(least)} cells. Transport needs finite numbers: "
            "drop these cells or features, or fill them in."
        )
    return least


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
    if isinstance(cells, pd.Series) and _is_mask(cells) and not cells.index.equals(adata.obs_names):
        if not cells.index.is_unique:
            raise ValueError(
                f"{name} is a Series whose index names cells twice, in another order than adata has them. Pass its "
                "values as an array in the order of the cells."
            )
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
    if _is_mask(chosen):
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
        if mask.sum() > names.nunique():
            twice = adata.obs_names[mask & adata.obs_names.duplicated()].unique()
            raise ValueError(
                f"{name} names cells by names that several cells have: {listed(twice)}. Call "
                "adata.obs_names_make_unique(), or pass a boolean mask."
            )
    if not mask.any():
        raise ValueError(
            f"{name} selects no cells. Pass a mask or names of at least one cell"
            + (", or leave it out for all controls." if name == "source" else ".")
        )
    return mask


def _is_mask(cells: np.ndarray | pd.Series) -> bool:
    """Whether there is True or False for each cell, in a column of objects, too."""
    if cells.dtype != object:
        return bool(pd.api.types.is_bool_dtype(cells))
    return len(cells) > 0 and all(isinstance(cell, bool | np.bool_) for cell in cells)
