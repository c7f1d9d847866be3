"""Principal components of cells on disk."""

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from tqdm.auto import tqdm

from scgap._adata import (
    Data,
    Matrix,
    Rows,
    check_finite,
    check_key,
    check_writable,
    chunk_rows,
    get_matrix,
    get_modality,
    is_csc_file,
    iter_chunks,
    keep_map,
    take_features,
)
from scgap._checks import choice, text, whole_number
from scgap._messages import not_found
from scgap.pp._principal import HEAVY, find_components, scales


def streaming_pca(
    data: Data,
    *,
    n_comps: int = 50,
    layer: str | None = None,
    mod: str | None = None,
    zero_center: bool = True,
    mask_var: np.ndarray | str | None = "highly_variable",
    heavy: Literal["flag", "clip"] | None = "flag",
    chunk_size: int | None = None,
    seed: int = 0,
    progress: bool = True,
    key_added: str | None = None,
    copy: bool = False,
) -> Data | None:
    r"""Principal components of cells that need not fit into memory.

    Cells are read in chunks, in whatever order they are stored. Of up to 5,000 features the components are those of the
    matrix

    .. math::
        \sum_i (x_i - \bar x)(x_i - \bar x)^\top

    which one pass sums up; a second one projects the cells. Of more features a block of vectors is multiplied by this
    matrix once a pass, and all blocks are kept (Halko et al. 2011). Either way the result is that of
    ``scanpy.pp.pca``, in the same places, and `scgap.tl.fit_transport` takes it with ``use_rep="X_pca"``. As there, all
    cells make up the components, those of a test split too.

    A few cells that are far larger than others, such as cells that were not normalised, turn components towards
    themselves. As of Kacham & Woodruff (2024), such heavy cells are told by their norms and treated apart.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``. ``X`` may be in memory, in a file that was opened with
        ``backed="r"``, a zarr array or a dask array. A file stored by columns (CSC) is read into memory whole, with a
        warning.
    n_comps
        Number of components.
    layer
        Layer to use; default ``X``.
    mod
        Modality of a MuData.
    zero_center
        Whether to subtract the mean.
    mask_var
        Features that make up the components: a column of ``var``, or a mask. Default: ``var["highly_variable"]`` where
        there is such a column, else all, as with ``None``.
    heavy
        What to do with cells whose norm is more than five times the median. ``"flag"``: say so, and mark them in
        ``obs``. ``"clip"``: also scale them to that limit before components are computed; they are projected as they
        are. ``None``: nothing.
    chunk_size
        Cells to read at once. Default: as many as take 64 MB, were they dense and of double precision. The result does
        not depend on it.
    seed
        Of the first block of vectors, above 5,000 features.
    progress
        Whether to show a progress bar.
    key_added
        Key of ``obsm``, ``varm`` and ``uns`` instead of ``"X_pca"``, ``"PCs"`` and ``"pca"``.
    copy
        Whether to return a copy instead of writing to ``data``; of a file there is none.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields, with those of a file in memory only:

    obsm["X_pca"] : float32 array (n_obs, n_comps)
        Coordinates of the cells.
    varm["PCs"] : float32 array (n_vars, n_comps)
        Components; 0 for features that were left out. The largest entry of each is positive.
    uns["pca"]["variance"], ["variance_ratio"] : float64 arrays (n_comps,)
        Variance along the components, and its fraction of all.
    uns["pca"]["params"] : dict
        Settings, as ``scanpy.pp.pca`` writes them, and ``heavy``.
    obs["X_pca_heavy"] : bool
        Which cells are heavy; not with ``heavy=None``.

    Raises
    ------
    KeyError
        A layer, modality or column is absent.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        More components than cells or features, NaN or infinite values, a mask of another length, cells that are all
        the same, a view, or a copy of a file.

    Warns
    -----
    UserWarning
        Some cells are heavy; a file is stored by columns; above 5,000 features, the last components have not settled.

    See Also
    --------
    scgap.tl.fit_transport

    References
    ----------
    N. Halko, P.-G. Martinsson, Y. Shkolnisky, M. Tygert. An algorithm for the principal component analysis of large
    data sets. SIAM Journal on Scientific Computing 33, 2011.

    P. Kacham, D. P. Woodruff. Approximating the top eigenvector in random order streams. NeurIPS 2024.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.pp.streaming_pca(adata, n_comps=5, progress=False)
    >>> adata.obsm["X_pca"].shape, adata.varm["PCs"].shape == (adata.n_vars, 5)
    ((600, 5), True)

    Cells in a file, of which only chunks are read; what was added can be kept in another file:

    >>> import anndata, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> adata.write_h5ad(f"{folder}/cells.h5ad")
    >>> cells = anndata.read_h5ad(f"{folder}/cells.h5ad", backed="r")
    >>> scgap.pp.streaming_pca(cells, n_comps=5, progress=False)
    >>> scgap.tl.fit_transport(cells, dose_col="dose_value", use_rep="X_pca", n_iters=10, progress=False)
    >>> cells.write_h5ad(f"{folder}/fitted.h5ad")
    >>> cells.file.close()
    """
    n_comps = whole_number("n_comps", n_comps, 1)
    chunk_size = None if chunk_size is None else whole_number("chunk_size", chunk_size, 1)
    seed = whole_number("seed", seed, 0)
    choice("heavy", heavy, ("flag", "clip", None))
    keys = ("X_pca", "PCs", "pca") if key_added is None else (check_key(key_added),) * 3
    adata = get_modality(data, mod)
    check_writable(adata, copy=copy)
    keep_map(adata, keys[2])
    mask, mask_name = _read_mask(adata, mask_var)
    stored: Any = adata.X if layer is None else adata.layers.get(text("layer", layer))
    if is_csc_file(stored):
        warnings.warn(
            "The file is stored by columns (CSC), of which no cells can be read alone: it is read into memory whole. "
            "To go through it in chunks, write it anew with adata.X as scipy.sparse.csr_matrix.",
            stacklevel=2,
        )
    matrix = take_features(get_matrix(adata, layer), slice(None) if mask.all() else np.flatnonzero(mask))
    most = min(matrix.shape)
    if n_comps > most:
        raise ValueError(
            f"n_comps={n_comps}, but {matrix.shape[0]} cells of {matrix.shape[1]} features have no more than {most} "
            f"components. Pass a number up to {most}."
        )

    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    chunks = partial(_watched, matrix, chunk_size, where, progress)
    found = find_components(
        chunks,
        partial(_some, matrix, chunk_size),
        matrix.shape,
        n_components=n_comps,
        centred=zero_center,
        clip=heavy == "clip",
        seed=seed,
    )
    is_heavy = scales(found.norms) < 1
    if heavy and is_heavy.any():
        _warn_of_heavy(found.norms, is_heavy, clipped=heavy == "clip")
    points = np.empty((adata.n_obs, n_comps), np.float32)
    offset = found.mean @ found.directions if zero_center else 0.0
    for rows, chunk in chunks():
        points[rows] = chunk @ found.directions - offset

    result = data.copy() if copy else data
    adata = get_modality(result, mod)
    adata.obsm[keys[0]] = points
    components = np.zeros((adata.n_vars, n_comps), np.float32)
    components[mask] = found.directions
    adata.varm[keys[1]] = components
    is_variable = isinstance(mask_name, str) and mask_name == "highly_variable"
    params = {"zero_center": zero_center, "use_highly_variable": is_variable, "mask_var": mask_name}
    adata.uns[keys[2]] = {
        "params": params | ({} if layer is None else {"layer": layer}) | {"heavy": heavy},
        "variance": found.variance,
        "variance_ratio": found.variance_ratio,
    }
    if heavy:
        adata.obs[f"{keys[0]}_heavy"] = is_heavy
    return result if copy else None


def _read_mask(adata: AnnData, mask_var: np.ndarray | str | None) -> tuple[np.ndarray, np.ndarray | str | None]:
    """Which features (n_vars,) make up the components, and how ``scanpy.pp.pca`` notes it."""
    everything = np.ones(adata.n_vars, bool)
    if mask_var is None or (isinstance(mask_var, str) and mask_var == "highly_variable" and mask_var not in adata.var):
        return everything, None
    if isinstance(mask_var, str) and mask_var not in adata.var:
        raise KeyError(not_found(mask_var, "adata.var", list(adata.var.columns)))
    mask = np.asarray(adata.var[mask_var] if isinstance(mask_var, str) else mask_var)
    if mask.dtype != bool or mask.shape != everything.shape or not mask.any():
        raise ValueError(
            f"mask_var gives {mask.dtype} values of shape {mask.shape}, {np.count_nonzero(mask)} of them set. Pass "
            f"True or False for each of {adata.n_vars} features, True for some, or the column of adata.var with these."
        )
    return mask, mask_var


def _watched(matrix: Matrix, chunk_size: int | None, where: str, progress: bool) -> Iterator[tuple[slice, Rows]]:
    """One pass in chunks of finite numbers, with a progress bar."""
    with tqdm(total=matrix.shape[0], desc="streaming_pca", unit="cell", disable=not progress) as bar:
        for rows, chunk in iter_chunks(matrix, chunk_size):
            values: Any = chunk if isinstance(chunk, np.ndarray) else chunk.data
            if not np.isfinite([values.min(initial=0), values.max(initial=0)]).all():
                check_finite(matrix, where)  # which counts them all
            yield rows, chunk
            bar.update(chunk.shape[0])


def _some(matrix: Matrix, chunk_size: int | None, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Rows]]:
    """Cells at some positions, in chunks."""
    size = chunk_size or chunk_rows(matrix.shape[1])
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield some, matrix[some]


def _warn_of_heavy(norms: np.ndarray, is_heavy: np.ndarray, *, clipped: bool) -> None:
    warnings.warn(
        f"{is_heavy.sum()} of {len(norms)} cells have norms above {HEAVY:g} times the median, up to "
        f"{norms.max() / np.median(norms):.1f} times: "
        + (
            "they were scaled to that limit for the components."
            if clipped
            else "components may turn towards them. If they are artefacts or were not normalised, drop them, or pass "
            'heavy="clip".'
        ),
        stacklevel=3,
    )
