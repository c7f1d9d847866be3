"""Distances between perturbed populations, which embeddings of effects are made of."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from scgap._adata import Data, Matrix, get_obs, to_dense
from scgap._conditions import Design, read_conditions
from scgap._losses import COSTS, cost_matrix, transport_cost
from scgap._splits import MIN_CELLS, read_split

EPSILON = 0.05  # of the mean cost within a population, as in a fit
CHUNK = 128  # pairs of populations a call: large enough to be fast, and small enough to be stopped between two
AT_ONCE = 8  # pairs solved together, the fastest of 1, 8 and 32 on two cores

N_HALVINGS = 8  # of a population, over which its self cost is averaged; of cells to place, over which all is

EUCLIDEAN = COSTS["euclidean"]

type Populations = dict[tuple[str, tuple[str, ...]], np.ndarray]
"""Perturbation and group -> rows of the cells."""


class Samples(NamedTuple):
    """Two batches without a cell in common from each population, padded by cells without weight."""

    perturbation: np.ndarray
    """(n_populations,) labels."""
    group: np.ndarray
    """(n_populations,) numbers that tell groups apart."""
    cells: jax.Array
    """(n_populations, 2, n, n_features)"""
    weights: jax.Array
    """(n_populations, n), the same for both batches."""


def training_populations(
    data: Data, mod: str | None, design: Design, split_col: str | None
) -> tuple[Populations, set[str]]:
    """Training cells, 10 or more, that got one perturbation alone at any dose; and all perturbations there are."""
    obs = get_obs(data, mod, [*design.columns, split_col])
    conditions, of_cell, _ = read_conditions(design, obs)
    train = read_split(obs[split_col] if split_col else None, of_cell) == "train"
    of_population: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for i, condition in enumerate(conditions):
        if len(condition.members) == 1:
            of_population.setdefault((condition.members[0][0], condition.group), []).append(i)
    rows = {key: np.flatnonzero(train & np.isin(of_cell, numbers)) for key, numbers in sorted(of_population.items())}
    populations = {key: found for key, found in rows.items() if len(found) >= MIN_CELLS}
    return populations, {name for condition in conditions for name, _ in condition.members}


def draw_samples(matrix: Matrix, populations: Populations, groups: Sequence[Any], n_cells: int, seed: int) -> Samples:
    """Up to ``n_cells`` cells a batch; ``groups`` are numbered by their place."""
    generator = np.random.default_rng(seed)
    n = max(min(n_cells, len(rows) // 2) for rows in populations.values())
    drawn = np.zeros((len(populations), 2, n), int)
    weights = np.zeros((len(populations), n), np.float32)
    for i, rows in enumerate(populations.values()):
        size = min(n_cells, len(rows) // 2)
        for half, batch in enumerate(np.split(generator.permutation(rows)[: 2 * size], 2)):
            drawn[i, half] = np.resize(batch, n)
        weights[i, :size] = 1.0 / size
    return Samples(
        np.array([name for name, _ in populations], dtype=object),
        np.array([groups.index(group) for _, group in populations]),
        jnp.asarray(to_dense(matrix[drawn.ravel()]).reshape(*drawn.shape, -1)),
        jnp.asarray(weights),
    )


def mean_cost_within(samples: Samples) -> float:
    """Mean distance between two cells of one population."""

    def of_population(batches: tuple[jax.Array, jax.Array]) -> jax.Array:
        (x, y), weights = batches
        return weights @ cost_matrix(x, y, EUCLIDEAN) @ weights

    return float(jax.lax.map(of_population, (samples.cells, samples.weights)).mean())


def self_costs(samples: Samples, epsilon: float) -> np.ndarray:
    """Transport cost (n_populations,) between the halves of a population: what sampling alone costs.

    The mean over several ways to halve its cells: all distances of a perturbation share this number and its noise.
    """
    generator = np.random.default_rng(0)
    pairs = np.repeat(np.arange(len(samples.cells))[:, None], 2, axis=1)
    costs = []
    for _ in range(N_HALVINGS):
        one, other = jnp.moveaxis(deal(samples, generator), 1, 0)
        costs.append(_costs((one, samples.weights), (other, samples.weights), pairs, epsilon))
    return np.mean(costs, axis=0)


def deal(samples: Samples, generator: np.random.Generator) -> jax.Array:
    """The cells (n_populations, 2, n, n_features) of the two batches, dealt anew."""
    cells, n = np.asarray(samples.cells), samples.weights.shape[1]
    dealt = np.empty_like(cells)
    for i, size in enumerate((np.asarray(samples.weights) > 0).sum(1)):
        both = generator.permutation(cells[i, :, :size].reshape(2 * size, -1)).reshape(2, size, -1)
        dealt[i] = both[:, np.resize(np.arange(size), n)]
    return jnp.asarray(dealt)


def divergences(
    samples: Samples, own: np.ndarray, others: Samples, others_own: np.ndarray, epsilon: float
) -> pd.DataFrame:
    """Sinkhorn divergence of every perturbation (rows) from every other one (columns).

    It is the mean over the groups that both were measured in, NaN without any. The self terms ``own`` are of
    independent batches, so that two samples of one population are 0 apart on average; what falls below 0 is cut off.
    """
    pairs = np.argwhere(samples.group[:, None] == others.group[None, :])
    if samples is others:  # each pair once
        pairs = pairs[samples.perturbation[pairs[:, 0]] < samples.perturbation[pairs[:, 1]]]
    i, j = pairs.T
    # Of both batches, for one alone is noisier by a third.
    cross = [
        _costs((samples.cells[:, half], samples.weights), (others.cells[:, half], others.weights), pairs, epsilon)
        for half in (0, 1)
    ]
    found = pd.DataFrame(
        {
            "row": samples.perturbation[i],
            "column": others.perturbation[j],
            "divergence": np.mean(cross, axis=0) - 0.5 * (own[i] + others_own[j]),
        }
    )
    means = found.groupby(["row", "column"])["divergence"].mean().clip(lower=0.0).unstack("column")
    return means.reindex(index=sorted(set(samples.perturbation)), columns=sorted(set(others.perturbation)))


def _costs(
    one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array], pairs: np.ndarray, epsilon: float
) -> np.ndarray:
    """Entropic transport costs (n_pairs,) between populations, given as batches and weights."""
    size = next(size for size in (AT_ONCE, 4 * AT_ONCE, CHUNK) if size >= min(len(pairs), CHUNK))  # few compilations
    costs = [
        _costs_of_chunk(one, other, np.resize(pairs[start : start + size], (size, 2)), epsilon)
        for start in range(0, len(pairs), size)
    ]
    return np.concatenate([np.zeros(0), *costs])[: len(pairs)]


@jax.jit
def _costs_of_chunk(
    one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array], pairs: jax.Array, epsilon: float
) -> jax.Array:
    def of_pair(pair: jax.Array) -> jax.Array:
        (x, wx), (y, wy) = jax.tree.map(lambda array: array[pair[0]], one), jax.tree.map(lambda a: a[pair[1]], other)
        return transport_cost(x, y, wx, wy, cost=EUCLIDEAN, epsilon=epsilon)

    return jax.lax.map(of_pair, pairs, batch_size=AT_ONCE)
