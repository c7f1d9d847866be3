"""Cells to judge quality by, what is measured on those held out, and how seeds are summarised."""

from collections.abc import Callable
from functools import partial

import anndata
import jax
import numpy as np
import pandas as pd
import sachs

import scgap
from scgap import _comparison, _losses
from scgap.tl._fit_transport import EPSILON

MOST, STEP = 128, 32  # cells in a divergence: at most so many, and a multiple, so that conditions share a compilation
COST = _losses.COSTS["euclidean"]
SCREEN = {"dose_col": "dose_value", "group_col": "cell_line"}
NO_SACHS = "No Sachs data in the folder that SCGAP_DATA names: left out.\n"


def has_sachs() -> bool:
    return (sachs.DATA / "sachs2005.h5ad").exists()


def read_sachs(seed: int) -> anndata.AnnData:
    """Five inhibitors in two contexts, a fifth of the cells held out, in units of the training controls' spread."""
    adata, *_ = sachs.read()
    scgap.pp.split(adata, **sachs.COLUMNS, seed=seed)
    control = adata.X[((adata.obs["agent"] == "none") & (adata.obs["split"] == "train")).to_numpy()]
    adata.X = (adata.X - control.mean(0)) / control.std(0)
    return adata


def make_screen(seed: int) -> anndata.AnnData:
    """Two drugs at two doses in two cell lines: another screen, and another split, for every seed."""
    adata = scgap.datasets.simulate_screen(
        12_000, n_features=20, n_drugs=2, doses=[100.0, 1_000.0], n_groups=2, seed=seed
    )
    scgap.pp.split(adata, **SCREEN, seed=seed)
    return adata


def _of_cells(metric: Callable[[np.ndarray, np.ndarray], float], comparison: _comparison.Comparison) -> float:
    return metric(comparison.mapped, comparison.target.cells)


def spread(mapped: np.ndarray, target: np.ndarray) -> float:
    """Standard deviation of the mapped cells in units of the target's, averaged over features: 1 is right."""
    return float((mapped.std(0) / target.std(0)).mean())


def same_sample_divergence(mapped: np.ndarray, target: np.ndarray) -> float:
    """Sinkhorn divergence whose self terms are of the samples themselves."""
    return float(_divergence(*_cut(mapped, target), independent=False))


def divergence(mapped: np.ndarray, target: np.ndarray) -> float:
    """Sinkhorn divergence whose self terms are between halves of the samples: 0 for a replicate on average."""
    return float(_divergence(*_cut(mapped, target), independent=True))


OWN = {
    metric.__name__: _comparison.Metric(partial(_of_cells, metric), frozenset())
    for metric in (spread, same_sample_divergence, divergence)
}


def scores(adata: anndata.AnnData, metrics: tuple[str, ...], seed: int) -> pd.DataFrame:
    """One row a method, one column a metric, each averaged over the conditions' test cells."""
    _comparison.METRICS.update(OWN)  # `tl.evaluate` scores whatever is listed there
    table = scgap.tl.evaluate(adata, metrics=metrics, seed=seed)
    for name in OWN:
        del _comparison.METRICS[name]
    means = table.groupby(["method", "metric"], observed=True)["value"].mean().unstack()
    return means[list(metrics)].loc[["scgap", "ceiling", "identity", "mean_shift"]]


def error_to_true_map(adata: anndata.AnnData) -> float:
    """Mean distance of a screen's mapped test controls to where they truly go, in units of the true displacement."""
    test = adata[adata.obs["split"] == "test"].copy()
    columns = ["perturbation", *SCREEN.values()]
    perturbed = adata.obs.loc[adata.obs["perturbation"] != "control", columns].astype({"perturbation": str})
    errors = []
    for condition in perturbed.drop_duplicates().to_dict("records"):
        scgap.tl.predict(test, condition)
        moved = test.obs["scgap_transported"].to_numpy()
        truth = scgap.datasets.true_transport(test, condition, source=moved)
        error, displacement = (truth - cells[moved] for cells in (test.layers["scgap"], test.X))
        errors.append(np.linalg.norm(error, axis=1).mean() / np.linalg.norm(displacement, axis=1).mean())
    return float(np.mean(errors))


def summary(values: pd.Series) -> str:
    """Mean and, of several seeds, standard deviation."""
    if values.isna().all():
        return "-"
    mean = f"{values.mean():.3f}"
    return f"{mean} ± {values.std():.3f}" if len(values) > 1 else mean


def _cut(mapped: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = min(len(mapped), MOST) // STEP * STEP
    return mapped[:n], target[:n]


@partial(jax.jit, static_argnames="independent")
def _divergence(mapped: jax.Array, target: jax.Array, *, independent: bool) -> jax.Array:
    cost = partial(
        _losses.transport_cost, cost=COST, epsilon=EPSILON * _losses.cost_matrix(target, target, COST).mean()
    )
    if not independent:
        return cost(mapped, target) - 0.5 * (cost(mapped, mapped) + cost(target, target))
    (m, other_m), (y, other_y) = (cells.reshape(2, -1, cells.shape[1]) for cells in (mapped, target))
    cross = (cost(m, y) + cost(m, other_y) + cost(other_m, y) + cost(other_m, other_y)) / 4
    return cross - 0.5 * (cost(m, other_m) + cost(y, other_y))
