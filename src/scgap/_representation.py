"""The space the map lives in: features as they are, PCA, or an embedding without a decoder.

Decoding moves a cell by what the map changed and keeps what the representation does not see: under the identity every
cell comes back as it was, and a PCA prediction keeps each cell's own variation outside of the components.
"""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData
from scipy import sparse
from scipy.linalg.blas import sgemm

from scgap._adata import Matrix, check_finite, get_matrix, iter_chunks, match_features, to_dense
from scgap._messages import not_found

LARGEST_LOG = 50  # above any logarithm or arcsinh of a measurement
N_LOOKED_AT = 256  # cells, in which counts would show
MANY_FEATURES = 2_000  # a usual number of highly variable genes
CONSISTENT = 1e-3  # largest deviation of stored from recomputed PCA coordinates, relative to their spread


class Representation(NamedTuple):
    """How cells become points, and points cells."""

    kind: str
    """``features``, ``pca``, or ``obsm`` (no decoder)."""
    layer: str | None
    """Layer that holds the features; None for X."""
    use_rep: str | None
    """Key in obsm; None for features."""
    components: np.ndarray
    """(n_vars, n_components) of a PCA, else (0, 0)."""
    offset: np.ndarray
    """(n_components,) projection of the PCA's mean: ``z = x @ components - offset``."""
    nonnegative: bool
    """Whether no feature was negative, as in expression: predictions are then clipped at 0."""


def make_representation(
    adata: AnnData, layer: str | None, use_rep: str | None, seen: np.ndarray
) -> tuple[Representation, np.ndarray]:
    """Choose and check the representation that ``layer`` and ``use_rep`` name; return it and the cells as points.

    ``seen`` (n_obs,) are the cells that may decide what is possible: all but test cells.
    """
    empty = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
    if use_rep is None or use_rep == "X":
        matrix = get_matrix(adata, layer)
        nonnegative = bool(check_finite(matrix, _place(layer))[seen].min() >= 0)
        warn_of_counts(matrix, layer)
        _warn_of_many_features(adata.n_vars)
        return Representation("features", layer, None, *empty, nonnegative), to_dense(matrix)
    points = _finite_points(adata, use_rep)
    components_key, uns_key = ("PCs", "pca") if use_rep == "X_pca" else (use_rep, use_rep)
    if components_key not in adata.varm:
        if use_rep == "X_pca":
            warnings.warn(
                "adata.obsm['X_pca'] has no decoder, for adata.varm['PCs'] is missing: predictions will stay in the "
                "embedding. To have them in features, call sc.pp.pca(adata) and fit again.",
                stacklevel=3,
            )
        return Representation("obsm", layer, use_rep, *empty, nonnegative=False), points
    layer = layer if layer is not None else adata.uns.get(uns_key, {}).get("params", {}).get("layer")
    components = np.asarray(adata.varm[components_key], np.float32)
    if components.shape[1] != points.shape[1]:
        raise ValueError(
            f"adata.obsm[{use_rep!r}] has {points.shape[1]} columns and its components {components.shape[1]}. "
            "They belong to different runs: call sc.pp.pca again."
        )
    matrix = get_matrix(adata, layer)
    nonnegative = bool(check_finite(matrix, _place(layer))[seen].min() >= 0)
    warn_of_counts(matrix, layer)
    without_offset = Representation(
        "pca", layer, use_rep, components, np.zeros(components.shape[1], np.float32), nonnegative
    )
    projections = encode(without_offset, matrix)
    offset = _pca_offset(projections, points, use_rep, seen)
    projections -= offset
    return without_offset._replace(offset=offset), projections


def read_matrix(representation: Representation, adata: AnnData) -> Matrix:
    """What the map was fitted on, checked: features (n_obs, n_vars), or the embedding where it has no decoder."""
    if representation.kind != "obsm":
        return _finite_matrix(adata, representation.layer)
    return read_points(adata, representation.layer, representation.use_rep)


def read_points(adata: AnnData, layer: str | None, use_rep: str | None) -> Matrix:
    """Features or embedding (n_obs, n) that ``layer`` and ``use_rep`` name, checked."""
    return _finite_matrix(adata, layer) if use_rep is None or use_rep == "X" else _finite_points(adata, use_rep)


def feature_order(representation: Representation, adata: AnnData, var_names: np.ndarray) -> np.ndarray | slice:
    """Which columns of the matrix are the fitted features, in the order of the fit."""
    order = None if representation.kind == "obsm" else match_features(adata, var_names)
    return slice(None) if order is None else order


def encode(representation: Representation, cells: Matrix) -> np.ndarray:
    """Cells (n_cells, n_vars), features in the order of the fit, as points (n_cells, n) float32."""
    if representation.kind != "pca":
        return to_dense(cells)
    points = np.empty((cells.shape[0], representation.components.shape[1]), np.float32)
    for rows, chunk in iter_chunks(cells):
        points[rows] = chunk @ representation.components
        points[rows] -= representation.offset
    return points


def decode(representation: Representation, cells: np.ndarray, points: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Features (n_cells, n_vars) of cells whose points were moved by the map; ``cells`` may be overwritten."""
    if representation.kind == "pca":
        # cells + (moved - points) @ components.T, by BLAS in place: an atlas of genes is written once.
        components, delta = representation.components, moved - points
        moved = sgemm(1.0, components.T, delta.T, beta=1.0, c=cells.T, trans_a=True, overwrite_c=True).T
    return clip(representation, moved)


def clip(representation: Representation, features: np.ndarray) -> np.ndarray:
    """Predicted features in place, not below 0 where the fitted ones were not."""
    return np.maximum(features, 0.0, out=features) if representation.nonnegative else features


def representation_to_dict(representation: Representation) -> dict[str, Any]:
    """Plain values for ``uns``; empty strings stand for None."""
    stored = representation._asdict()
    return stored | {"layer": representation.layer or "", "use_rep": representation.use_rep or ""}


def representation_from_dict(stored: Mapping[str, Any]) -> Representation:
    """The inverse of `representation_to_dict`."""
    return Representation(
        str(stored["kind"]),
        str(stored["layer"]) or None,
        str(stored["use_rep"]) or None,
        np.asarray(stored["components"], np.float32),
        np.asarray(stored["offset"], np.float32),
        bool(stored["nonnegative"]),
    )


def _pca_offset(projections: np.ndarray, points: np.ndarray, use_rep: str, seen: np.ndarray) -> np.ndarray:
    """The projected mean of the PCA, which scanpy does not keep: what separates coordinates from projections.

    It is the same for every cell, also in a subset of those the PCA was made of; if it is not, the coordinates belong
    to other features.
    """
    gaps = projections - points
    # Rounding, too, must not depend on test cells; and that of single precision adds up over a million.
    offset = gaps.mean(0, dtype=np.float64, where=seen[:, None]).astype(np.float32)
    gaps -= offset
    if np.abs(gaps, out=gaps).max() > CONSISTENT * points.std():
        raise ValueError(
            f"adata.obsm[{use_rep!r}] is not the projection of the features on its components, so predictions could "
            "not be decoded: the features changed after the PCA. Call sc.pp.pca again, or pass its layer as layer=."
        )
    return offset


def _finite_matrix(adata: AnnData, layer: str | None) -> Matrix:
    matrix = get_matrix(adata, layer)
    check_finite(matrix, _place(layer))
    return matrix


def _place(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def warn_of_counts(matrix: Matrix, layer: str | None, stacklevel: int = 4) -> None:
    """Say so where features look like raw counts."""
    some: Any = matrix[:: max(1, matrix.shape[0] // N_LOOKED_AT)]
    values = some.data if sparse.issparse(some) else some
    if values.max(initial=0) > LARGEST_LOG and values.min(initial=0) >= 0 and (values == np.round(values)).all():
        warnings.warn(
            f"{_place(layer)} looks like raw counts, whole numbers up to {values.max():g}, and is fitted as it is: "
            "distances between cells are then mostly depth of sequencing. Normalise and log it first: "
            "sc.pp.normalize_total(adata), sc.pp.log1p(adata).",
            stacklevel=stacklevel,
        )


def _warn_of_many_features(n_features: int) -> None:
    if n_features > MANY_FEATURES:
        warnings.warn(
            f"The map is fitted on all {n_features} features, where distances between cells are mostly noise. Better: "
            "principal components, which are decoded to features: sc.pp.pca(adata), then use_rep='X_pca'.",
            stacklevel=4,
        )


def _finite_points(adata: AnnData, use_rep: str) -> np.ndarray:
    if use_rep not in adata.obsm:
        raise KeyError(
            not_found(use_rep, "adata.obsm", list(adata.obsm)) + " Compute it first, e.g. with sc.pp.pca(adata)."
        )
    points = np.asarray(adata.obsm[use_rep], np.float32)
    check_finite(points, f"adata.obsm[{use_rep!r}]")
    return points
