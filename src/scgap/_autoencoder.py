"""An autoencoder of cells: dense layers with GELU between them, which start at the principal components.

gelu(u) - gelu(-u) = u, so pairs of hidden units carry a linear map through the network exactly. The other units start
at random and weigh nothing, and training finds what is not linear. On the few thousand cells of a small screen, random
weights end behind the principal components, which this start cannot.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from scipy import sparse

from scgap._arrays import pad_rows

PATIENCE = 10  # epochs, and
PATIENT_UPDATES = 200  # updates, without a better validation loss before training stops
BASE_BATCH = 512  # cells for which the learning rate is given
GHOST_BATCH = 64  # cells whose statistics normalise them, about; Hoffer et al. (2017) took 128
VARIANCE_FLOOR = 1e-3  # added to the variance of a hidden unit, in which cells have a variance of 1
NORM_AVERAGING = 0.05  # of the statistics, each update: what cells are normalised by after training
WARM_UP = 0.03  # fraction of the updates
FINAL_RATE = 0.01  # of the learning rate, at the end of the cosine
WEIGHT_DECAY = 1e-5  # the paper's
N_POWERS = 12  # subspace iterations (Halko et al. 2011), and
OVERSAMPLED = 50  # more axes than are kept: for noisy genes, whose components hardly differ in variance
LEAST_SPREAD = 1e-2  # of the largest, for what is rounding is not to be brought to the size of the others
N_MEASURED = 4_096  # cells that the first statistics are taken of
CHUNK = 16_384  # cells encoded or decoded at once

# As in the training of maps, the rate is applied by hand and all weights are flat.
OPTIMIZER = optax.flatten(
    optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam(), optax.add_decayed_weights(WEIGHT_DECAY))
)

type Layers = dict[str, dict[str, Any]]
"""``"0"``, ``"1"``, … -> ``kernel`` (n_in, n_out), ``bias`` (n_out,); with a norm also ``gain``, ``shift`` (n_out,)."""
type Norms = dict[str, dict[str, Any]]
"""``"encoder"``, ``"decoder"`` -> layer -> ``mean`` and ``variance`` (n_out,), where there is a norm."""


class Autoencoder(NamedTuple):
    """Plain layers, of cells in their own units."""

    encoder: Layers
    decoder: Layers


class Report(NamedTuple):
    """One row of the history."""

    epoch: int
    loss: float
    """Mean squared error of the training cells while they were trained on, as a share of their variance."""
    valid: float
    """The same of validation cells, after the epoch, in the same unit."""


class State(NamedTuple):
    """What an update changes."""

    weights: dict[str, Layers]
    """``encoder``, ``decoder``."""
    norms: Norms
    moments: Any
    """Of the optimiser."""
    update: jax.Array


def encode(stored: Mapping[str, Any], cells: Any) -> np.ndarray:
    """Points (n_cells, n_latent) float32 of cells (n_cells, n_features), dense or sparse; ``stored`` as in ``uns``."""
    return apply_layers(stored["encoder"], cells)


def decode(stored: Mapping[str, Any], points: Any) -> np.ndarray:
    """Cells (n_cells, n_features) float32 of points (n_cells, n_latent): the inverse of `encode`, with a loss."""
    return apply_layers(stored["decoder"], points)


def apply_layers(layers: Mapping[str, Mapping[str, Any]], rows: Any) -> np.ndarray:
    """What plain layers make of rows (n, n_in) on the host, dense or sparse: (n, n_out) float32, in chunks."""
    on_device = {
        name: {kind: jnp.asarray(layer[kind]) for kind in ("kernel", "bias")} for name, layer in layers.items()
    }
    chunks = [
        np.asarray(_apply(on_device, pad_rows(chunk)))[: len(chunk)]  # cut on the host: nothing to compile
        for chunk in _chunks(rows)
    ]
    return np.concatenate(chunks)


def unexplained(stored: Mapping[str, Any], cells: Any) -> float:
    """Share of the variance of cells (n_cells, n_features), about their own mean, that decoding does not bring back."""
    lost, squares, total = 0.0, 0.0, np.zeros(cells.shape[1])
    origin = next(_chunks(cells))[0].astype(np.float64)  # a cell: far from all of them, squares would lose their digits
    for chunk in _chunks(cells):
        lost += float(np.square(decode(stored, encode(stored, chunk)) - chunk).sum(dtype=np.float64))
        away = chunk - origin
        squares += float(np.square(away).sum())
        total += away.sum(0)
    variance = squares - float(total @ total) / cells.shape[0]
    return lost / variance if variance > 0 else float("nan")


def fit_autoencoder(
    train: np.ndarray,
    valid: np.ndarray,
    *,
    n_latent: int,
    hidden: Sequence[int],
    ghost_batch_norm: bool,
    batch_size: int,
    n_epochs: int,
    learning_rate: float,
    seed: int,
    on_report: Callable[[Report], None],
) -> tuple[Autoencoder, list[Report]]:
    """Train on cells (n_cells, n_features), and return the network that is best on validation cells, and the history.

    Every epoch is one compiled scan over all training cells, each of which it sees once. The first row of the history
    is the start, the principal components.

    Raises
    ------
    FloatingPointError
        A loss is no longer finite.
    """
    generator = np.random.default_rng(seed)
    centre = train.mean(0, dtype=np.float64).astype(np.float32)
    cells, others = jnp.asarray(train - centre), jnp.asarray(valid - centre)
    # One scale for all features: what varies most counts most, as in the components and for the cost of transport.
    scale = float(jnp.sqrt(jnp.square(cells).mean(0).mean()))
    cells, others = cells / scale, others / scale
    weights, spreads = init_weights(cells, n_latent, hidden, generator)
    norms: Norms = {"encoder": {}, "decoder": {}}
    if ghost_batch_norm:
        weights, norms = add_norms(weights, cells[:N_MEASURED])
    n_updates = n_epochs * len(epoch_batches(len(cells), batch_size, ghost_batch_norm, generator))
    rate = learning_rate * float(np.sqrt(min(batch_size, len(cells)) / BASE_BATCH))
    validated = epoch_batches(len(others), batch_size, False, generator)
    state = State(weights, norms, OPTIMIZER.init(weights), jnp.int32(0))
    best = fold(weights, norms)
    at_start = epoch_batches(len(cells), batch_size, False, generator)
    history = [Report(0, float(_error(best, cells, at_start)), float(_error(best, others, validated)))]
    try:
        while history[-1].epoch < n_epochs and not _is_stale(history, n_updates / n_epochs):
            batches = epoch_batches(len(cells), batch_size, ghost_batch_norm, generator)
            state, loss = _advance(state, cells, batches, rate, n_updates)
            folded = fold(state.weights, state.norms)
            error = _error(folded, others, validated)
            # Here the host waits for the device, and nowhere within an epoch.
            report = Report(history[-1].epoch + 1, float(loss), float(error))
            if not np.isfinite(report.loss + report.valid):
                raise FloatingPointError(_not_finite(report, history[-1]))
            history = [*history, report]
            best = folded if _epochs_since_best(history) == 0 else best
            on_report(report)
    except KeyboardInterrupt:
        warnings.warn(
            f"Interrupted at epoch {history[-1].epoch} of {n_epochs}: the best weights so far are kept.", stacklevel=3
        )
    return in_own_units(best, centre, scale, spreads), history


def init_weights(
    cells: jax.Array, n_latent: int, hidden: Sequence[int], generator: np.random.Generator
) -> tuple[dict[str, Layers], np.ndarray]:
    """Weights that start at the principal components of standard cells, and the components' spreads (n_latent,).

    Training sees points of spread 1: with the components' own, it left of Norman et al.'s held-out cells as much
    unexplained as the components do, .061, and so it leaves .053. The spreads come back when training is over, so that
    distances between points are about those between cells.
    """
    n_axes = min(n_latent + OVERSAMPLED, cells.shape[1])
    axes = np.asarray(_principal_axes(cells, generator.standard_normal((cells.shape[1], n_axes), np.float32)))
    axes = axes[:, :n_latent]
    spreads = np.sqrt(np.asarray(jnp.square(cells @ axes).mean(0)))
    spreads = np.maximum(spreads, LEAST_SPREAD * spreads.max())
    identity = np.eye(n_latent, dtype=np.float32)
    weights = {
        "encoder": linear_layers(axes / spreads, identity, hidden, generator),
        "decoder": linear_layers(identity, spreads[:, None] * axes.T, hidden, generator),
    }
    return jax.tree.map(jnp.asarray, weights), spreads


def linear_layers(first: np.ndarray, last: np.ndarray, hidden: Sequence[int], generator: np.random.Generator) -> Layers:
    """Layers that take x (..., n_in) to ``x @ first @ last``, through pairs of hidden units.

    ``first`` (n_in, r) and ``last`` (r, n_out); every hidden layer holds 2 r units or more.
    """
    n = 2 * first.shape[1]
    split = np.concatenate([np.eye(n // 2), -np.eye(n // 2)], axis=1, dtype=np.float32)  # u -> u, -u
    sizes = [len(first), *hidden, last.shape[1]]
    kernels = [
        generator.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0])) for shape in pairwise(sizes)
    ]
    kernels[0][:, :n] = first @ split
    for kernel in kernels[1:-1]:
        kernel[:, :n] = 0.0
        kernel[:n, :n] = split.T @ split
    kernels[-1][:] = 0.0
    kernels[-1][:n] = split.T @ last
    return {str(i): {"kernel": k, "bias": np.zeros(k.shape[1], np.float32)} for i, k in enumerate(kernels)}


def add_norms(weights: dict[str, Layers], cells: jax.Array) -> tuple[dict[str, Layers], Norms]:
    """A norm after every hidden layer, and its statistics; gain and shift undo it, so that the start stays as it is."""
    normed = {part: dict(layers) for part, layers in weights.items()}
    norms: Norms = {part: {} for part in weights}
    for part in ("encoder", "decoder"):
        for i in range(len(weights[part])):
            layer = weights[part][str(i)]
            cells = cells @ layer["kernel"] + layer["bias"]
            if i < len(weights[part]) - 1:
                norm = {"mean": cells.mean(0), "variance": cells.var(0)}
                gain = jnp.sqrt(norm["variance"] + VARIANCE_FLOOR)
                normed[part][str(i)] = layer | {"gain": gain, "shift": norm["mean"]}
                norms[part][str(i)] = norm
                cells = jax.nn.gelu(cells)
    return normed, norms


def epoch_batches(n_cells: int, batch_size: int, ghost_batch_norm: bool, generator: np.random.Generator) -> np.ndarray:
    """All cells in random order, each once, as rows (n_batches, n_ghosts, n); -1 where a batch lacks one.

    Batches are of one size, ``batch_size`` at most; no ghost batch lacks more than one cell.
    """
    n_batches = -(-n_cells // batch_size)
    n_ghosts = max(1, round(min(batch_size, n_cells) / GHOST_BATCH)) if ghost_batch_norm else 1
    n = -(-n_cells // (n_batches * n_ghosts))
    rows = np.full(n * n_batches * n_ghosts, -1, np.int32)
    rows[:n_cells] = generator.permutation(n_cells)
    return rows.reshape(n, n_batches, n_ghosts).transpose(1, 2, 0)


@jax.jit
def fold(weights: dict[str, Layers], norms: Norms) -> dict[str, Layers]:
    """The same network without norms: they are linear once training is over, and go into kernel and bias."""

    def plain(layer: dict[str, Any], norm: dict[str, Any] | None) -> dict[str, Any]:
        if norm is None:
            return layer
        factor = layer["gain"] * lax.rsqrt(norm["variance"] + VARIANCE_FLOOR)
        return {"kernel": layer["kernel"] * factor, "bias": (layer["bias"] - norm["mean"]) * factor + layer["shift"]}

    return {
        part: {name: plain(layer, norms[part].get(name)) for name, layer in layers.items()}
        for part, layers in weights.items()
    }


def in_own_units(weights: dict[str, Layers], centre: np.ndarray, scale: float, spreads: np.ndarray) -> Autoencoder:
    """The network of cells and points as they are: standardising them goes into the first and last layers."""
    encoder, decoder = (
        {name: {kind: np.asarray(v, np.float64) for kind, v in layer.items()} for name, layer in weights[part].items()}
        for part in ("encoder", "decoder")
    )
    _standardise_input(encoder, centre, scale)
    _restore_output(encoder, np.zeros(len(spreads)), scale * spreads)
    _standardise_input(decoder, np.zeros(len(spreads)), scale * spreads)
    _restore_output(decoder, centre, scale)
    return Autoencoder(*jax.tree.map(lambda values: values.astype(np.float32), (encoder, decoder)))


def _standardise_input(layers: Layers, centre: np.ndarray, scale: float | np.ndarray) -> None:
    layers["0"]["kernel"] /= np.reshape(scale, (-1, 1))
    layers["0"]["bias"] -= centre @ layers["0"]["kernel"]


def _restore_output(layers: Layers, centre: np.ndarray, scale: float | np.ndarray) -> None:
    last = layers[str(len(layers) - 1)]
    last["kernel"] *= scale
    last["bias"] = last["bias"] * scale + centre


@jax.jit
def _principal_axes(cells: jax.Array, start: jax.Array) -> jax.Array:
    """Axes (n_features, n) of the most variance of centred cells, the largest first, by subspace iteration."""
    axes = lax.fori_loop(0, N_POWERS, lambda _, axes: jnp.linalg.qr(cells.T @ (cells @ axes))[0], start)
    scores = cells @ axes
    return axes @ jnp.linalg.eigh(scores.T @ scores)[1][:, ::-1]


@jax.jit
def _advance(
    state: State, cells: jax.Array, batches: jax.Array, learning_rate: float, n_updates: int
) -> tuple[State, jax.Array]:
    """One epoch; return the new state and the mean loss of its batches."""

    def loss_of(weights: dict[str, Layers], rows: jax.Array) -> tuple[jax.Array, Norms]:
        batch, present = cells[rows], rows >= 0
        points, of_encoder = _forward(weights["encoder"], batch, present)
        decoded, of_decoder = _forward(weights["decoder"], points, present)
        return _mean_error(decoded, batch, present), {"encoder": of_encoder, "decoder": of_decoder}

    def step(state: State, rows: jax.Array) -> tuple[State, jax.Array]:
        (loss, measured), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.weights, rows)
        changes, moments = OPTIMIZER.update(gradient, state.moments, state.weights)
        rate = learning_rate * _schedule((state.update + 1) / n_updates)
        weights = jax.tree.map(lambda w, change: w - rate * change, state.weights, changes)
        norms = jax.tree.map(lambda mean, new: mean + NORM_AVERAGING * (new - mean), state.norms, measured)
        return State(weights, norms, moments, state.update + 1), loss

    state, losses = lax.scan(step, state, batches)
    return state, losses.mean()


@jax.jit
def _error(weights: dict[str, Layers], cells: jax.Array, batches: jax.Array) -> jax.Array:
    """Mean squared error of all cells under plain layers."""

    def add(total: jax.Array, rows: jax.Array) -> tuple[jax.Array, None]:
        batch, present = cells[rows], rows >= 0
        decoded = _plain(weights["decoder"], _plain(weights["encoder"], batch))
        return total + _mean_error(decoded, batch, present) * present.sum(), None

    return lax.scan(add, jnp.float32(0.0), batches)[0] / len(cells)


def _forward(layers: Layers, rows: jax.Array, present: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
    """Ghost batches (n_ghosts, n, n_in) through layers, each normalised by itself; and the mean of their statistics."""
    measured = {}
    for i in range(len(layers)):
        layer = layers[str(i)]
        # Not in the shortened products of GPUs: what one device encodes, another must find the same.
        rows = jnp.matmul(rows, layer["kernel"], precision="highest") + layer["bias"]
        if "gain" in layer:
            mean, variance = _statistics(rows, present)
            measured[str(i)] = {"mean": mean.mean((0, 1)), "variance": variance.mean((0, 1))}
            rows = (rows - mean) * lax.rsqrt(variance + VARIANCE_FLOOR) * layer["gain"] + layer["shift"]
        rows = jax.nn.gelu(rows) if i < len(layers) - 1 else rows
    return rows, measured


def _plain(layers: Layers, rows: jax.Array) -> jax.Array:
    return _forward(layers, rows, jnp.ones(rows.shape[:-1]))[0]


_apply = jax.jit(_plain)


def _statistics(rows: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance (n_ghosts, 1, n_out) of the rows of each ghost batch that are present."""
    share = (present / present.sum(-1, keepdims=True))[..., None]
    mean = (share * rows).sum(-2, keepdims=True)
    return mean, (share * jnp.square(rows - mean)).sum(-2, keepdims=True)


def _mean_error(decoded: jax.Array, cells: jax.Array, present: jax.Array) -> jax.Array:
    return (present * jnp.square(decoded - cells).mean(-1)).sum() / present.sum()


def _schedule(progress: jax.Array) -> jax.Array:
    """Linear warm-up, then a cosine to FINAL_RATE."""
    cosine = FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.minimum(progress / WARM_UP, 1.0) * cosine


def _chunks(rows: Any) -> Iterator[np.ndarray]:
    """Rows as dense float32 arrays of CHUNK rows; one that is empty, where there are none."""
    for start in range(0, max(rows.shape[0], 1), CHUNK):
        chunk = rows[start : start + CHUNK]
        yield np.asarray(chunk.toarray() if sparse.issparse(chunk) else chunk, np.float32)


def _epochs_since_best(history: Sequence[Report]) -> int:
    return len(history) - 1 - int(np.argmin([report.valid for report in history]))


def _is_stale(history: Sequence[Report], updates_per_epoch: float) -> bool:
    since = _epochs_since_best(history)
    return since >= PATIENCE and since * updates_per_epoch >= PATIENT_UPDATES


def _not_finite(report: Report, last: Report) -> str:
    return (
        f"At epoch {report.epoch} the loss is {report.loss:.4g} and the validation loss {report.valid:.4g} (last "
        f"finite loss: {last.loss:.4g} at epoch {last.epoch}). Lower learning_rate, or scale features that are larger "
        "than the others by orders of magnitude."
    )
