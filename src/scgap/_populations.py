"""Cells and conditions as arrays on the device."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scgap._arrays import ConditionArrays as ConditionArrays
from scgap._arrays import pad_rows, padded_size


class Populations(NamedTuple):
    """Cells sorted so that each population is one block of rows: ragged, without padding between blocks."""

    cells: jax.Array
    """(n_cells, n_features) float32."""
    start: jax.Array
    """(n_populations,) first row of each block."""
    size: jax.Array
    """(n_populations,) rows in each block."""
    source_of: jax.Array
    """(n_conditions,) population of the matched controls."""
    target_of: jax.Array
    """(n_conditions,) population of the perturbed cells."""


def make_populations(
    cells: np.ndarray,
    population: np.ndarray,
    source_of: Sequence[int],
    target_of: Sequence[int],
    order: np.ndarray | None = None,
) -> Populations:
    """Sort cells (n_cells, n_features) by their population (n_cells,), rows with -1 left out, and move them over.

    Within a block they stand in ``order`` (n_cells,), by default as they come. A random one keeps apart what comes
    together, such as the cells of a plate: `sample_independent` draws a batch from neighbours.
    """
    n_populations = padded_size(max(population.max(), *source_of, *target_of) + 1)
    order = np.arange(len(cells)) if order is None else order
    order = order[np.argsort(population[order], kind="stable")]
    order = order[population[order] >= 0]
    size = np.bincount(population[order], minlength=n_populations)
    start = np.cumsum(size) - size
    padded = np.zeros((padded_size(len(order)), cells.shape[1]), np.float32)
    # In place, and without a copy in between: `clip` is the one mode that makes none, and no position is outside.
    np.take(cells, order, axis=0, out=padded[: len(order)], mode="clip")
    return Populations(
        jnp.asarray(padded),
        *(jnp.asarray(index, jnp.int32) for index in (start, size)),
        *(jnp.asarray(pad_rows(np.asarray(index)), jnp.int32) for index in (source_of, target_of)),
    )


def sample_cells(key: jax.Array, populations: Populations, population: jax.Array, n: int) -> jax.Array:
    """Draw n cells (n, n_features) of one population, with replacement."""
    size = populations.size[population]
    rows = _below(size, jax.random.uniform(key, (n,)))
    return populations.cells[populations.start[population] + rows]


def sample_independent(key: jax.Array, populations: Populations, population: jax.Array, n: int) -> jax.Array:
    """Draw two batches (2, n, n_features) of one population that have no cell in common.

    Two draws from all of a small population share cells, which are at distance 0 and bias a self term low: each batch
    is drawn from its own half of a circle of rows, cut anew at a random place.
    """
    size = populations.size[population]
    half = jnp.maximum(size // 2, 1)
    chances = jax.random.uniform(key, (2 * n + 1,))
    ranks = _below(half, chances[:-1].reshape(2, n)) + jnp.array([[0], [1]]) * (size - half)
    rows = (ranks + _below(size, chances[-1])) % size
    return populations.cells[populations.start[population] + rows]


def spread_cells(populations: Populations, population: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Up to n distinct cells (n, n_features) spread evenly over one population, and their weights (n,)."""
    size = populations.size[population]
    taken = jnp.minimum(size, n)
    rank = jnp.arange(n)
    # In floats: rank * size can leave int32 for atlases.
    rows = jnp.minimum((rank * (size / taken)).astype(jnp.int32), size - 1)
    weights = jnp.where(rank < taken, 1.0 / taken, 0.0)
    return populations.cells[populations.start[population] + rows], weights


def _below(size: jax.Array, chances: jax.Array) -> jax.Array:
    """Whole numbers below ``size`` from chances in [0, 1): one draw, where `jax.random.randint` makes two."""
    return jnp.minimum((chances * size).astype(jnp.int32), size - 1)  # the product can be rounded up
