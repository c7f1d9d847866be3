"""The target of OTT's tutorial on the Monge gap, moons to an s-curve: its figures, its estimator, and scgap."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from anndata import AnnData
from ott.geometry import pointcloud
from ott.neural.methods.monge_gap import MongeGapEstimator, monge_gap_from_samples
from ott.neural.networks.potentials import PotentialMLP
from ott.tools.sinkhorn_divergence import sinkhorn_divergence
from report import markdown
from sklearn.datasets import make_moons, make_s_curve

import scgap
from scgap import _losses

BATCH, POOL, MEASURED = 256, 50_000, 100  # points of a batch, points to draw from, batches that are averaged over
COST = _losses.COSTS["sqeuclidean"]
HIDDEN = (32, 64, 32)
RATE = 1e-3
COLUMNS = ["gap weight", "map", "updates", "fitting loss", "fitting loss by OTT", "gap", "gap by OTT", "divergence"]
COLUMNS += ["floor-free gap"]

type Map = Callable[[np.ndarray], np.ndarray]

# Of the tutorial: weight of the gap, fitting loss, gap.
PRINTED = [(0.0, 0.1896, float("nan")), (0.1, 0.1948, 0.6860)]


def moons(n: int, rng: np.random.Generator) -> np.ndarray:
    """The upper one of the two moons, as in the tutorial."""
    points, _ = make_moons((n, 0), noise=0.05, random_state=int(rng.integers(2**31)))
    return placed(points, np.pi / 6, 1.0, (0.0, -0.5))


def s_curve(n: int, rng: np.random.Generator) -> np.ndarray:
    points, _ = make_s_curve(n, noise=0.05, random_state=int(rng.integers(2**31)))
    return placed(points[:, [2, 0]], np.pi / 2, 0.6, (1.0, -2.0))


def placed(points: np.ndarray, angle: float, scale: float, mean: tuple[float, float]) -> np.ndarray:
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (np.array(mean) + scale * points @ rotation.T).astype(np.float32)


def tables(*, quick: bool) -> list[str]:
    seeds, n_iters = (1, 200) if quick else (2, 5_000)
    rng = np.random.default_rng(0)
    source, target = moons(BATCH, rng), s_curve(BATCH, rng)
    epsilons = [float(f * _losses.cost_matrix(x, target, COST).mean()) for f, x in ((0.1, target), (0.01, source))]
    fits = {
        "OTT's estimator": partial(ott_map, n_iters=n_iters),
        "scgap, same self term": partial(scgap_map, n_iters=n_iters, debias="same"),
        "scgap, independent self term (default)": partial(scgap_map, n_iters=n_iters, debias="independent"),
    }
    rows = [{"map": "none: other s-curve points"} | measure(None, epsilons)]
    for gap_weight, fitting_loss, gap in PRINTED:
        weight = {"gap weight": f"{gap_weight:g}"}
        rows.append(weight | {"map": "tutorial, as printed", "fitting loss": fitting_loss, "gap": gap})
        for name, fit in fits.items():
            measured = []
            for seed in range(seeds):
                mapped, updates = fit(epsilons, gap_weight, seed)
                measured.append({"updates": updates} | measure(mapped, epsilons))
                print(gap_weight, name, seed, measured[-1], flush=True)
            rows.append(weight | {"map": name} | pd.DataFrame(measured).mean().to_dict())
    table = pd.DataFrame(rows)[COLUMNS]
    table["updates"] = table["updates"].map("{:.0f}".format)
    written = table.map(lambda value: f"{value:.4f}" if isinstance(value, float) else value).replace("nan", "-")
    return [markdown(f"Moons to s-curve, squared Euclidean cost, {seeds} seeds", written.to_dict("records"), NOTE)]


def scgap_map(epsilons: list[float], gap_weight: float, seed: int, *, n_iters: int, debias: str) -> tuple[Map, int]:
    """The public way: two populations of two features. The rate is given for 512 cells, and scaled for 256."""
    rng = np.random.default_rng([seed, 1])
    cells = np.concatenate([moons(POOL, rng), s_curve(POOL, rng)])
    adata = as_adata(cells, np.repeat(["control", "s-curve"], POOL))
    scgap.tl.fit_transport(
        adata,
        cost="sqeuclidean",
        epsilon=epsilons[0],
        gap_epsilon=epsilons[1],
        gap_weight=gap_weight,
        debias=debias,
        n_iters=n_iters,
        batch_size=BATCH,
        learning_rate=RATE * np.sqrt(512 / BATCH),
        hidden=HIDDEN,
        seed=seed,
        progress=False,
    )

    def mapped(points: np.ndarray) -> np.ndarray:
        new = as_adata(points, np.repeat("control", len(points)))
        new.uns["scgap"] = adata.uns["scgap"]
        scgap.tl.predict(new, "s-curve")
        return new.layers["scgap"]

    return mapped, int(adata.uns["scgap"]["history"]["iteration"].iloc[-1])


def as_adata(points: np.ndarray, labels: np.ndarray) -> AnnData:
    return AnnData(points, obs=pd.DataFrame({"perturbation": labels}, index=np.arange(len(points)).astype(str)))


def ott_map(epsilons: list[float], gap_weight: float, seed: int, *, n_iters: int) -> tuple[Map, int]:
    """The tutorial's way: new points for every batch."""
    rng = np.random.default_rng([seed, 1])

    def batches(draw: Callable[..., np.ndarray]) -> Iterator[jax.Array]:
        while True:
            yield jnp.asarray(draw(BATCH, rng))

    estimator = MongeGapEstimator(
        dim_data=2,
        model=PotentialMLP(dim_hidden=HIDDEN, is_potential=False),
        optimizer=optax.adam(RATE),
        fitting_loss=lambda mapped, target: (otts_fitting_loss(mapped, target, epsilons[0]), None),
        regularizer=lambda source, mapped: (monge_gap_from_samples(source, mapped, epsilon=epsilons[1]), None),
        regularizer_strength=gap_weight,
        num_train_iters=n_iters,
        rng=jax.random.key(seed),
    )
    state, _ = estimator.train_map_estimator(*map(batches, (moons, s_curve, moons, s_curve)))
    return jax.jit(lambda points: state.apply_fn({"params": state.params}, points)), n_iters


def otts_fitting_loss(mapped: jax.Array, target: jax.Array, epsilon: float) -> jax.Array:
    """The tutorial's: without the target's own term, which does not depend on the map."""
    return sinkhorn_divergence(pointcloud.PointCloud, mapped, target, epsilon=epsilon, static_b=True)[0]


@jax.jit
def losses(source: jax.Array, mapped: jax.Array, target: jax.Array, epsilons: list[float]) -> dict[str, jax.Array]:
    """Of one batch, on the tutorial's terms, by scgap's functions and by OTT's, and on scgap's."""
    epsilon, gap_epsilon = epsilons
    by = {"cost": COST, "epsilon": epsilon}
    return {
        "fitting loss": _losses.sinkhorn_divergence(mapped, None, target, **by, target_term=0.0),
        "gap": _losses.monge_gap(source, mapped, cost=COST, epsilon=gap_epsilon),
        "fitting loss by OTT": otts_fitting_loss(mapped, target, epsilon),
        "gap by OTT": monge_gap_from_samples(source, mapped, epsilon=gap_epsilon),
        "divergence": _losses.sinkhorn_divergence(mapped, None, target, **by),
        "floor-free gap": _losses.floor_free_monge_gap(source, mapped, cost=COST, epsilon=gap_epsilon),
    }


def measure(mapped: Map | None, epsilons: list[float]) -> dict[str, float]:
    """Averages over fresh batches; without a map, of other target points, which are a perfect fit and have no gap."""
    rng = np.random.default_rng(2)
    sources, targets, others = (
        np.stack([draw(BATCH, rng) for _ in range(MEASURED)]) for draw in (moons, s_curve, s_curve)
    )
    moved = np.asarray(mapped(sources.reshape(-1, 2))).reshape(sources.shape) if mapped else others
    found = [losses(*batch, epsilons) for batch in zip(sources, moved, targets, strict=True)]
    means = pd.DataFrame(found).astype(float).mean().to_dict()
    return {name: value for name, value in means.items() if mapped or "gap" not in name}


NOTE = f"""\
Averages over seeds and {MEASURED} fresh batches of {BATCH} points. Fitting loss and gap are on the tutorial's terms:
the divergence without the target's own term and the gap with its entropic floor; divergence and floor-free gap are on
scgap's. Epsilon is 0.1 of the mean cost between target points, and 0.01 of that between source and target. All have
layers of 32, 64, 32 and a rate of 1e-3; scgap's map also is x + f(x), but modulated by the condition, with GELU for
leaky ReLU, a rate that follows a cosine, averaged weights, and of these the ones that were best on held-out points, so
that it may stop early."""
