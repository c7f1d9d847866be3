"""The space the map lives in: features, PCA, an autoencoder's latent space, or an embedding without a decoder.

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
from scgap._checks import text
from scgap._messages import not_found, shown

LARGEST_LOG = 50  # above any logarithm or arcsinh of a measurement
N_LOOKED_AT = 256  # cells, in which counts would show
MANY_FEATURES = 2_000  # a usual number of highly variable genes
CONSTANT = 1e-6  # spread, relative to the largest value, up to which a feature is constant, as in the metrics
CONSISTENT = 1e-3  # largest deviation of stored from recomputed PCA coordinates, relative to their spread

NOTHING = np.zeros(0, np.float32)


class Representation(NamedTuple):
    """How cells become points, and points cells."""

    kind: str
    """``features``, ``pca``, ``autoencoder``, or ``obsm`` (no decoder)."""
    layer: str | None
    """Layer that holds the features; None for X."""
    use_rep: str | None
    """Key in obsm; None for features."""
    components: np.ndarray
    """(n_vars, n_components) of a PCA, else (0, 0)."""
    offset: np.ndarray
    """(n,) origin of the points, (0,) for none: of a PCA the projected mean, ``z = x @ components - offset``."""
    nonnegative: bool | np.ndarray
    """Whether no feature was negative, as in expression: predictions are then clipped at 0. Or of each (n_vars,)."""
    scale: np.ndarray = NOTHING
    """(n,) unit of the points after the offset is taken away, (0,) for none."""
    network: Mapping[str, Any] = {}
    """``encoder`` and ``decoder`` of an autoencoder."""


def make_representation(
    adata: AnnData,
    layer: str | None,
    use_rep: str | Mapping[str, str] | None,
    seen: np.ndarray,
    unit_cells: np.ndarray | None = None,
) -> tuple[Representation, np.ndarray]:
    """Choose and check the representation that ``layer`` and ``use_rep`` name; return it and the cells as points.

    ``seen`` (n_obs,) are the cells that may decide what is possible: all but test cells. Features are standardised by
    ``unit_cells`` (n_obs,), where these are given.
    """
    if use_rep is None or (isinstance(use_rep, str) and use_rep == "X"):
        matrix, nonnegative = _checked(adata, layer, seen)
        _warn_of_many_features(adata.n_vars)
        points = to_dense(matrix)
        offset, scale = (NOTHING, NOTHING) if unit_cells is None else _units(points[unit_cells])
        representation = Representation(
            "features", layer, None, np.zeros((0, 0), np.float32), offset, nonnegative, scale
        )
        return representation, _standardised(representation, points)
    if not isinstance(use_rep, str):
        raise ValueError(f"use_rep={shown(use_rep)}. Pass a key of obsm; a dictionary is for several modalities.")
    if unit_cells is not None:
        raise ValueError(
            f"standardise=True is for features, and use_rep={use_rep!r} is an embedding. Scale the features before it "
            "is made, e.g. with sc.pp.scale, or leave standardise out."
        )
    points = _finite_points(adata, use_rep)
    if is_autoencoder(adata.uns.get(use_rep.removeprefix("X_"))):
        return _make_autoencoder(adata, use_rep, points, seen)
    components_key, uns_key = ("PCs", "pca") if use_rep == "X_pca" else (use_rep, use_rep)
    if components_key not in adata.varm:
        if use_rep == "X_pca":
            warnings.warn(
                "adata.obsm['X_pca'] has no decoder, for adata.varm['PCs'] is missing: predictions will stay in the "
                "embedding. To have them in features, call sc.pp.pca(adata) and fit again.",
                stacklevel=3,
            )
        return Representation("obsm", layer, use_rep, np.zeros((0, 0), np.float32), NOTHING, nonnegative=False), points
    layer = layer if layer is not None else adata.uns.get(uns_key, {}).get("params", {}).get("layer")
    # In the order of rows that a file has, too: products of another order differ in their last bits.
    components = np.asarray(adata.varm[components_key], np.float32, order="C")
    if components.shape[1] != points.shape[1]:
        raise ValueError(
            f"adata.obsm[{use_rep!r}] has {points.shape[1]} columns and its components {components.shape[1]}. "
            "They belong to different runs: call sc.pp.pca again."
        )
    matrix, nonnegative = _checked(adata, layer, seen)
    without_offset = Representation("pca", layer, use_rep, components, NOTHING, nonnegative)
    projections = encode(without_offset, matrix)
    offset = _pca_offset(projections, points, use_rep, seen)
    projections -= offset
    return without_offset._replace(offset=offset), projections


def is_autoencoder(stored: Any) -> bool:
    """Whether something in ``uns`` is what `scgap.pp.autoencoder` writes."""
    return isinstance(stored, Mapping) and {"encoder", "decoder"} <= set(stored)


def read_matrix(representation: Representation, adata: AnnData) -> Matrix:
    """What the map was fitted on, checked: features (n_obs, n_vars), or the embedding where it has no decoder."""
    if representation.kind != "obsm":
        return _finite_matrix(adata, representation.layer)
    return read_points(adata, representation.layer, representation.use_rep)


def read_points(adata: AnnData, layer: str | None, use_rep: str | None) -> Matrix:
    """Features or embedding (n_obs, n) that ``layer`` and ``use_rep`` name, checked."""
    if use_rep is None or text("use_rep", use_rep) == "X":
        return _finite_matrix(adata, layer)
    return _finite_points(adata, use_rep)


def feature_order(representation: Representation, adata: AnnData, var_names: np.ndarray) -> np.ndarray | slice:
    """Which columns of the matrix are the fitted features, in the order of the fit."""
    order = None if representation.kind == "obsm" else match_features(adata, var_names)
    return slice(None) if order is None else order


def encode(representation: Representation, cells: Matrix) -> np.ndarray:
    """Cells (n_cells, n_vars), features in the order of the fit, as points (n_cells, n) float32."""
    if representation.kind == "pca":
        points = np.empty((cells.shape[0], representation.components.shape[1]), np.float32)
        for rows, chunk in iter_chunks(cells):
            points[rows] = chunk @ representation.components
        return _standardised(representation, points, overwrite=True)
    if representation.kind == "autoencoder":
        from scgap._autoencoder import encode as encode_by_network  # here, so that plots do not load JAX

        return np.concatenate([encode_by_network(representation.network, chunk) for _, chunk in iter_chunks(cells)])
    return _standardised(representation, to_dense(cells))


def decode(representation: Representation, cells: np.ndarray, points: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Features (n_cells, n_vars) of cells whose points were moved by the map; ``cells`` may be overwritten."""
    if representation.kind == "autoencoder":
        from scgap._autoencoder import decode as decode_by_network

        network = representation.network
        moved = cells + (decode_by_network(network, moved) - decode_by_network(network, points))
    elif representation.kind == "pca" or len(representation.scale):
        delta = moved - points
        if len(representation.scale):
            delta *= representation.scale
        moved = _added(cells, delta, representation.components) if representation.kind == "pca" else cells + delta
    return clip(representation, moved)


def reconstruct(representation: Representation, cells: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """What the representation keeps of cells (n_cells, n_vars), all else at the mean (n_vars,): features again."""
    if representation.kind == "autoencoder":
        from scgap._autoencoder import decode as decode_by_network

        return clip(representation, decode_by_network(representation.network, encode(representation, cells)))
    if representation.kind == "pca":
        kept = (cells - mean) @ representation.components
        return clip(representation, mean + kept @ representation.components.T)
    return cells


def clip(representation: Representation, features: np.ndarray) -> np.ndarray:
    """Predicted features in place, not below 0 where the fitted ones were not."""
    clipped = representation.nonnegative
    return np.maximum(features, 0.0, out=features, where=clipped) if np.any(clipped) else features


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
        np.asarray(stored["nonnegative"], bool) if np.ndim(stored["nonnegative"]) else bool(stored["nonnegative"]),
        np.asarray(stored["scale"], np.float32),
        stored["network"],
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


def _make_autoencoder(
    adata: AnnData, use_rep: str, points: np.ndarray, seen: np.ndarray
) -> tuple[Representation, np.ndarray]:
    """That of `scgap.pp.autoencoder`, whose layer it is decoded to."""
    stored = adata.uns[use_rep.removeprefix("X_")]
    layer = str(stored["layer"]) or None
    matrix, nonnegative = _checked(adata, layer, seen)
    network = {part: stored[part] for part in ("encoder", "decoder")}
    representation = Representation(
        "autoencoder", layer, use_rep, np.zeros((0, 0), np.float32), NOTHING, nonnegative, network=network
    )
    same_features = np.array_equal(adata.var_names, stored["var_names"])
    encoded = encode(representation, matrix) if same_features else np.zeros((0, 0), np.float32)
    if encoded.shape != points.shape or np.abs(encoded - points).max() > CONSISTENT * points.std():
        raise ValueError(
            f"adata.obsm[{use_rep!r}] is not what the autoencoder in adata.uns makes of the features, so predictions "
            "could not be decoded: the features changed after it was trained. Call scgap.pp.autoencoder again."
        )
    return representation, encoded


def _units(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n_vars,) of cells (n_cells, n_vars); 1 where they are constant."""
    mean, spread = cells.mean(0, dtype=np.float64), cells.std(0, dtype=np.float64)
    varies = spread > CONSTANT * np.abs(cells).max(0)
    return mean.astype(np.float32), np.where(varies, spread, 1.0).astype(np.float32)


def _standardised(representation: Representation, points: np.ndarray, *, overwrite: bool = False) -> np.ndarray:
    """Points (n_cells, n) from the representation's origin, in its units."""
    offset, scale = representation.offset, representation.scale
    if len(offset):
        points = np.subtract(points, offset, out=points if overwrite else None)
    if len(scale):
        points = np.divide(points, scale, out=points if overwrite else None)
    return points


def _added(cells: np.ndarray, delta: np.ndarray, components: np.ndarray) -> np.ndarray:
    """``cells + delta @ components.T``, by BLAS in place: an atlas of genes is written once."""
    return sgemm(1.0, components.T, delta.T, beta=1.0, c=cells.T, trans_a=True, overwrite_c=True).T


def _checked(adata: AnnData, layer: str | None, seen: np.ndarray) -> tuple[Matrix, bool]:
    """A matrix of finite numbers, and whether none of the seen cells (n_obs,) has one below 0; warns of counts."""
    matrix = get_matrix(adata, layer)
    nonnegative = bool(check_finite(matrix, _place(layer))[seen].min() >= 0)
    warn_of_counts(matrix, layer, stacklevel=5)
    return matrix, nonnegative


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
    if text("use_rep", use_rep) not in adata.obsm:
        raise KeyError(
            not_found(use_rep, "adata.obsm", list(adata.obsm)) + " Compute it first, e.g. with sc.pp.pca(adata)."
        )
    points = np.asarray(adata.obsm[use_rep], np.float32)
    check_finite(points, f"adata.obsm[{use_rep!r}]")
    return points
