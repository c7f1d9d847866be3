"""The map T(x | condition) = x + f(x, c): an encoder of conditions and a network of cell and condition."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scgap._arrays import ConditionArrays, pad_rows

type Pooling = Literal["sum", "mean", "attention"]

CONDITION_SHARE = 4  # variance of the condition in the first layer, in units of the cell's
ABSENT = -1e30  # logarithm of the presence of padding: finite, for the empty set holds nothing else

type Weights = dict[str, Any]
"""``network`` (flax parameters), ``encoding`` (n_perturbations, n), ``centre`` (n_features,), ``scale`` ()."""


class ConditionEncoder(nn.Module):
    """A set of perturbations with doses, in a context, as one vector (n_embedding,)."""

    n_embedding: int = 64
    pooling: Pooling = "sum"

    @nn.compact
    def __call__(self, vectors: jax.Array, condition: ConditionArrays) -> jax.Array:
        """Embed each member's vector (n_members, n_descriptors) with its dose, and pool over the set.

        All of it is linear, with the product of vector and log dose for what a dose does to one perturbation and not to
        another: nonlinear encoders predicted left-out conditions worse (``benchmarks/MODEL.md``). Members count by
        their presence, so that a member fades out of the set as its dose goes to zero. A sum tells two perturbations
        from one, and what two do together starts from what each does alone; in a mean each would count half.
        """
        doses = condition.doses[:, None]
        features = jnp.concatenate([vectors, vectors * doses, doses], axis=1)
        members = nn.Dense(self.n_embedding, use_bias=False, name="perturbation")(features)
        weights = condition.presence
        if self.pooling != "sum":
            score = nn.Dense(1, name="attention")(members)[:, 0] if self.pooling == "attention" else 0.0
            weights = nn.softmax(score + jnp.maximum(jnp.log(weights), ABSENT))
        # Without groups and times the weights are (0, n): older versions of JAX divide by 0 for the scale of a default
        # start. `init_weights` draws all weights anyway.
        start = nn.initializers.zeros_init()
        context = nn.Dense(self.n_embedding, use_bias=False, kernel_init=start, name="context")(condition.context)
        return nn.Dense(self.n_embedding, name="joint")(jnp.concatenate([weights @ members, context]))


class ConditionalMap(nn.Module):
    """Displacement of cells (..., n_features) under one condition, whose embedding each cell carries along."""

    hidden: tuple[int, ...]
    n_embedding: int = 64
    pooling: Pooling = "sum"

    @nn.compact
    def __call__(self, cells: jax.Array, vectors: jax.Array, condition: ConditionArrays) -> jax.Array:
        """The displacement of control, the empty set, is zero by construction, and goes to zero with all doses."""
        c = ConditionEncoder(self.n_embedding, self.pooling, name="encoder")(vectors, condition)
        # However many features there are, the condition has four fifths of the variance that the first layer sees.
        c *= max(1.0, (CONDITION_SHARE * cells.shape[-1] / self.n_embedding) ** 0.5)
        h = jnp.concatenate([cells, jnp.broadcast_to(c, (*cells.shape[:-1], len(c)))], axis=-1)
        for i, width in enumerate(self.hidden):
            h = nn.gelu(nn.Dense(width, name=f"hidden_{i}")(h))
        # Its weights start at zero, and the map at the identity.
        displacement = nn.Dense(cells.shape[-1], name="displacement")(h)
        return displacement * (1.0 - jnp.prod(1.0 - condition.presence))


def init_weights(
    network: ConditionalMap, seed: int, encoding: np.ndarray, condition: ConditionArrays, cells: np.ndarray
) -> Weights:
    """Fresh weights; ``condition`` is any single condition, ``cells`` (n_cells, n_features) set the network's units."""
    # One scale for all features, so that the geometry the cost sees is the geometry the network sees.
    centre = cells.mean(0, dtype=np.float64)
    away = cells - centre.astype(np.float32)
    scale = np.sqrt(np.square(away, out=away).mean(dtype=np.float64)) or 1.0
    table = np.asarray(encoding, np.float32)
    one_cell = np.zeros((1, cells.shape[1]), np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), one_cell, table[condition.members], condition)["params"]
    weights = {
        "network": jax.tree_util.tree_map_with_path(partial(_draw, np.random.default_rng(seed)), shapes),
        "encoding": table,
        "centre": np.asarray(centre, np.float32),
        "scale": np.float32(scale),
    }
    return jax.tree.map(jnp.asarray, weights)


def _draw(generator: np.random.Generator, path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
    """Initial values of one array; on the host, for flax's initialisers take half a second to compile."""
    layer, kind = path[-2].key, path[-1].key
    if kind == "bias" or layer == "displacement":
        return np.zeros(shape.shape, np.float32)
    return generator.standard_normal(shape.shape, np.float32) / np.float32(np.sqrt(shape.shape[0]))  # LeCun et al. 1998


def transport(
    network: ConditionalMap, weights: Mapping[str, Any], cells: jax.Array, condition: ConditionArrays
) -> jax.Array:
    """T(x | condition) for cells (..., n_features), in their own units."""
    standard = (cells - weights["centre"]) / weights["scale"]
    vectors = weights["encoding"][condition.members]
    displacement = network.apply({"params": weights["network"]}, standard, vectors, condition)
    return cells + weights["scale"] * displacement


def embed(network: ConditionalMap, weights: Mapping[str, Any], conditions: ConditionArrays) -> jax.Array:
    """What the map makes of each condition: vectors (n_conditions, n_embedding), faded by their presence."""
    encoder = ConditionEncoder(network.n_embedding, network.pooling)

    def one(condition: ConditionArrays) -> jax.Array:
        vectors = weights["encoding"][condition.members]
        presence = 1.0 - jnp.prod(1.0 - condition.presence)
        return presence * jnp.asarray(encoder.apply({"params": weights["network"]["encoder"]}, vectors, condition))

    return jax.vmap(one)(conditions)


def transport_parts(
    network: ConditionalMap,
    weights: Mapping[str, Any],
    cells: jax.Array,
    condition: ConditionArrays,
    detail: float | jax.Array,
) -> jax.Array:
    """Cells (n_cells, n_features), each moved by the sum of what every member of the set does alone.

    A member's displacement is that of a cell with ``detail`` of its distance to the centre left: 1 is the cell itself,
    0 moves all cells alike.
    """
    seen = weights["centre"] + detail * (cells - weights["centre"])

    def add_member(j: int | jax.Array, moved: jax.Array) -> jax.Array:
        alone = condition._replace(presence=jnp.where(jnp.arange(len(condition.presence)) == j, condition.presence, 0))
        return moved + (transport(network, weights, seen, alone) - seen)  # exactly 0 of what is padding

    return jax.lax.fori_loop(0, len(condition.presence), add_member, cells)


CHUNK = 65_536  # cells moved at once, so that hidden layers of an atlas fit in memory


def transport_cells(
    network: ConditionalMap,
    weights: Mapping[str, Any],
    cells: np.ndarray,
    condition: ConditionArrays,
    *,
    detail: float | None = None,
) -> np.ndarray:
    """`transport`, or with ``detail`` `transport_parts`, of an array on the host (n_cells, n_features).

    In chunks of few shapes. Weights that are to be used again are best put on the device beforehand.
    """
    moved = np.empty_like(cells)
    move = _transport if detail is None else partial(_transport_parts, detail=np.float32(detail))
    for start in range(0, len(cells), CHUNK):
        chunk = cells[start : start + CHUNK]
        padded = move(network, weights, pad_rows(chunk), condition)
        moved[start : start + CHUNK] = np.asarray(padded)[: len(chunk)]  # cut on the host: nothing to compile
    return moved


_transport = jax.jit(transport, static_argnames="network")
_transport_parts = jax.jit(transport_parts, static_argnames="network")
