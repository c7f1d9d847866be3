"""Principal components of cells that are read in chunks, of which no more than one is in memory."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigh, qr
from scipy.sparse.linalg import eigsh

from scgap._adata import Rows

HEAVY = 5.0  # times the median norm; in real sets no cell is above 1.8 once normalised and logged, raw ones up to 9
MOST_FEATURES = 5_000  # of which all products, 200 MB, are summed up: one pass, and the components are exact
FEW = 5  # times fewer eigenvectors than rows are found faster by Lanczos iteration, to the same precision
OVERSAMPLING = 10  # columns of a block beyond the components
MOST_PASSES = 15  # a block of as many rows as features is kept of each
NO_SPREAD = 1e-15  # sum of squared distances from the mean, relative to that of squared norms: rounding
PRECISION = 1e-8  # of every component: its residual, relative to the largest variance

type Chunks = Callable[[], Iterator[tuple[slice, Rows]]]
"""A pass over all cells in their order: positions and features (n, n_features) of each chunk."""

type Take = Callable[[np.ndarray], Iterator[tuple[np.ndarray, Rows]]]
"""The same of the cells at some positions."""


class Components(NamedTuple):
    """Directions in which cells differ, the most first."""

    directions: np.ndarray
    """(n_features, n_components), orthonormal."""
    mean: np.ndarray
    """(n_features,)"""
    variance: np.ndarray
    """(n_components,)"""
    variance_ratio: np.ndarray
    """(n_components,)"""
    norms: np.ndarray
    """(n_cells,) of the cells as they are."""


class Spectrum(NamedTuple):
    """What the components follow from, the largest value last."""

    values: np.ndarray
    """(n_components,) sums of squares."""
    vectors: np.ndarray
    """(n_features, n_components)"""
    trace: float
    mean: np.ndarray
    norms: np.ndarray


class Products(NamedTuple):
    """Sums over cells."""

    shift: np.ndarray
    """(n_features,) taken from every cell: near the mean, so that small variances are no differences of large sums."""
    total: np.ndarray
    """(n_features,) sum of shifted cells."""
    outer: np.ndarray
    """(n_features, n_features) sum of the outer products of shifted cells."""


def find_components(
    chunks: Chunks, take: Take, shape: tuple[int, int], *, n_components: int, centred: bool, clip: bool, seed: int
) -> Components:
    """Components of cells (n_cells, n_features), in one pass, or in several where features are many."""
    n_cells, n_features = shape
    found = (
        _by_products(chunks, take, shape, n_components, centred=centred, clip=clip, seed=seed)
        if n_features <= MOST_FEATURES
        else _by_blocks(chunks, shape, n_components, centred=centred, clip=clip, seed=seed)
    )
    values, directions = found.values[::-1], found.vectors[:, ::-1]
    # The sign of scikit-learn and so of scanpy: the largest entry of a component is positive.
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), np.arange(n_components)])
    if centred:
        variance, whole = values / (n_cells - 1), found.trace / (n_cells - 1)
    else:  # as of scikit-learn's truncated SVD: about the mean, although the cells are not centred
        variance = values / n_cells - np.square(found.mean @ directions)
        whole = found.trace / n_cells - found.mean @ found.mean
    return Components(directions, found.mean, variance, variance / whole, found.norms)


def scales(norms: np.ndarray) -> np.ndarray:
    """Factors (n_cells,) that bring heavy cells down to HEAVY times the median norm; 1 for all others."""
    limit = HEAVY * np.median(norms)
    return limit / np.maximum(norms, limit) if limit > 0 else np.ones_like(norms)


def _by_products(
    chunks: Chunks, take: Take, shape: tuple[int, int], n_components: int, *, centred: bool, clip: bool, seed: int
) -> Spectrum:
    """Eigenvectors of the matrix of products, which one pass sums up."""
    n_cells, n = shape
    norms = np.empty(n_cells)
    products = Products(np.zeros(n), np.zeros(n), np.zeros((n, n)))
    for rows, chunk in chunks():
        cells = _double(chunk)
        norms[rows] = np.linalg.norm(cells, axis=1)
        if centred and rows.start == 0:
            products.shift[:] = cells.mean(0)
        _add(products, cells, 1)
    if clip:
        scale = scales(norms)
        for some, chunk in take(np.flatnonzero(scale < 1)):  # few, which are read again instead of all
            _add(products, _double(chunk) * scale[some, None], 1)
            _add(products, _double(chunk), -1)
    matrix = products.outer
    if centred:
        matrix -= np.outer(products.total, products.total / n_cells)
    trace = float(np.trace(matrix))
    _check_spread(trace, norms)
    values, vectors = _largest(matrix, n_components, seed)
    return Spectrum(values, vectors, trace, products.shift + products.total / n_cells, norms)


def _add(products: Products, cells: np.ndarray, sign: int) -> None:
    """Add cells (n, n_features), or take them away; they are overwritten."""
    cells -= products.shift
    products.outer[:] += sign * (cells.T @ cells)
    products.total[:] += sign * cells.sum(0)


def _check_spread(trace: float, norms: np.ndarray) -> None:
    if trace <= NO_SPREAD * np.square(norms).sum():
        raise ValueError(
            "There are no components, for all cells are the same. Look at the data, and pass the layer that holds it."
        )


def _largest(matrix: np.ndarray, n_wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues, in rising order, and eigenvectors (n, n_wanted) of a symmetric matrix."""
    n = len(matrix)
    if n_wanted > n // FEW:
        return eigh(matrix, subset_by_index=(n - n_wanted, n - 1))
    return eigsh(matrix, n_wanted, which="LA", v0=np.random.default_rng(seed).normal(size=n))


def _by_blocks(
    chunks: Chunks, shape: tuple[int, int], n_components: int, *, centred: bool, clip: bool, seed: int
) -> Spectrum:
    """The same without the matrix: each pass multiplies a block of vectors by it."""
    n_cells, n_features = shape
    norms = np.concatenate([_norms(chunk) for _, chunk in chunks()])
    scale = scales(norms) if clip else np.ones(n_cells)
    mean = sum((scale[rows] @ chunk for rows, chunk in chunks()), np.zeros(n_features)) / n_cells

    def multiply(block: np.ndarray) -> np.ndarray:
        result = -n_cells * np.outer(mean, mean @ block) if centred else np.zeros_like(block)
        for rows, chunk in chunks():
            cells = chunk.astype(np.float64)
            result += cells.T @ (np.square(scale[rows, None]) * (cells @ block))
        return result

    trace = float(np.square(scale * norms).sum() - (n_cells * mean @ mean if centred else 0.0))
    _check_spread(trace, norms)
    values, vectors = _block_krylov(multiply, n_features, n_components, seed)
    return Spectrum(values, vectors, trace, mean, norms)


def _block_krylov(
    multiply: Callable[[np.ndarray], np.ndarray], n: int, n_wanted: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same of a matrix that is known by what it makes of a block of vectors (n, n_vectors).

    Block power iteration that keeps all its blocks (Halko et al. 2011): the best vectors that they span need far fewer
    passes than the last block alone.
    """
    block = qr(np.random.default_rng(seed).normal(size=(n, min(n, n_wanted + OVERSAMPLING))), mode="economic")[0]
    basis = images = np.zeros((n, 0))
    for _ in range(MOST_PASSES):
        new = multiply(block)
        basis, images = np.hstack([basis, block]), np.hstack([images, new])
        inner = basis.T @ images
        values, inside = _largest((inner + inner.T) / 2, n_wanted, seed)
        vectors = basis @ inside
        residual = np.linalg.norm(images @ inside - vectors * values, axis=0).max() / values.max()
        block = _new_directions(new, basis)
        if residual < PRECISION or not block.shape[1]:
            return values, vectors
    warnings.warn(
        f"The components have not settled in {MOST_PASSES} passes (relative residual {residual:.1g}): the last of them "
        "vary as little as those left out. Ask for fewer, or for highly variable features alone.",
        stacklevel=5,
    )
    return values, vectors


def _new_directions(block: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span what the block adds to an orthonormal basis; none, if it adds nothing."""
    size = np.linalg.norm(block)
    for _ in range(2):  # the second time takes away what rounding left
        block = block - basis @ (basis.T @ block)
    columns, triangle, _ = qr(block, mode="economic", pivoting=True)
    return columns[:, np.abs(np.diag(triangle)) > 1e-12 * size]


def _double(chunk: Rows) -> np.ndarray:
    """A dense copy of double precision."""
    return (chunk if isinstance(chunk, np.ndarray) else chunk.toarray()).astype(np.float64)


def _norms(chunk: Rows) -> np.ndarray:
    """Euclidean norms (n,) of the rows."""
    cells: Any = chunk.astype(np.float64)
    if not isinstance(cells, np.ndarray):
        return np.sqrt(np.asarray(cells.multiply(cells).sum(axis=1)).ravel())
    return np.linalg.norm(cells, axis=1)
