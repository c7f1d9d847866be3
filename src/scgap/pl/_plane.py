"""Cells in two dimensions: principal components of those that were measured, or what is stored of a PCA."""

from typing import NamedTuple

import numpy as np
from anndata import AnnData
from scipy import linalg

from scgap._messages import listed, not_found
from scgap._model import TransportModel
from scgap._representation import CONSISTENT, feature_order


class Shown(NamedTuple):
    """Source, predicted and observed cells: which rows they are of, (n, n_vars), or (n, 2) in a plane."""

    source: np.ndarray
    predicted: np.ndarray
    """Row by row what became of the source."""
    observed: np.ndarray


def principal_plane(cells: Shown) -> tuple[Shown, list[str]]:
    """Cells (n, 2) in the plane in which source and observed cells vary most, and its axes' names.

    Both populations count alike, whichever is the larger. Where nothing was observed, predicted cells stand in.
    """
    parts = cells.source, cells.observed if len(cells.observed) else cells.predicted
    centre = np.mean([part.mean(axis=0, dtype=np.float64) for part in parts], axis=0)
    weighted = [(part - centre) / np.sqrt(len(part)) for part in parts]
    directions, shares = principal_axes(np.concatenate(weighted))
    return Shown(*((part - centre) @ directions for part in cells)), [f"PC{i + 1} ({shares[i]:.0%})" for i in (0, 1)]


def principal_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions (d, 2) in which centred points (n, d) spread most, and the shares (2,) of all squares along them."""
    wide = points.shape[0] < points.shape[1]
    products = points @ points.T if wide else points.T @ points  # the smaller of two matrices with the same spectrum
    n = len(products)
    squares, vectors = linalg.eigh(products, subset_by_index=[max(0, n - 2), n - 1])
    vectors = points.T @ vectors if wide else vectors
    vectors = vectors[:, ::-1] / np.maximum(np.linalg.norm(vectors[:, ::-1], axis=0), np.finfo(float).tiny)
    shares = np.maximum(squares[::-1], 0.0) / max(float(np.trace(products)), np.finfo(float).tiny)
    missing = 2 - len(shares)
    return np.pad(vectors, ((0, 0), (0, missing))), np.pad(shares, (0, missing))


def stored_plane(
    adata: AnnData, model: TransportModel, basis: str, rows: Shown, cells: Shown
) -> tuple[Shown, list[str]]:
    """Cells (n, 2) in the first two columns of ``obsm[basis]``, and the axes' names.

    ``rows`` of adata are the ``cells``, of which the predicted ones stand nowhere yet: their way from the source is
    projected.
    """
    if basis not in adata.obsm:
        raise KeyError(not_found(basis, "adata.obsm", list(adata.obsm)) + " Or leave basis out.")
    names = [f"{basis.removeprefix('X_').upper()}{i}" for i in (1, 2)]
    if model.representation.kind == "obsm":  # predictions are in the space that was fitted, and in no other
        if basis != model.representation.use_rep:
            raise ValueError(_no_place(basis, [str(model.representation.use_rep)]))
        return _in_two(Shown(*cells)), names
    components = adata.varm.get(_components_of(basis))
    if components is None:
        raise ValueError(_no_place(basis, [name for name in adata.obsm if _components_of(name) in adata.varm]))
    directions = np.asarray(components, np.float64)[feature_order(model.representation, adata, model.var_names), :2]
    stored = np.asarray(adata.obsm[basis], np.float64)[:, :2]
    source, observed = stored[rows.source], stored[rows.observed]
    offsets = cells.source @ directions - source
    if np.ptp(offsets, axis=0).max() > CONSISTENT * stored.std():
        raise ValueError(
            f"adata.obsm[{basis!r}] is not the projection of the fitted features on its components, so predicted cells "
            "cannot be placed there: it was made of another layer, or they changed. Call sc.pp.pca again, or leave "
            "basis out."
        )
    return _in_two(Shown(source, source + (cells.predicted - cells.source) @ directions, observed)), names


def _components_of(basis: str) -> str:
    """Where in ``varm`` a PCA has its components."""
    return "PCs" if basis == "X_pca" else basis


def _in_two(cells: Shown) -> Shown:
    """The first two columns (n, 2); 0 stands for one that is missing."""
    return Shown(*(np.pad(part[:, :2], ((0, 0), (0, 2 - min(2, part.shape[1])))) for part in cells))


def _no_place(basis: str, possible: list[str]) -> str:
    return (
        f"basis={basis!r} has no place for predicted cells: it was made of the observed cells and keeps no way to put "
        f"others there. Those that can: {listed(possible)}. Pass one of them, or leave basis out for principal "
        "components. For a UMAP of both, put them into one object with scgap.tl.join_predictions, and make it of all."
    )
