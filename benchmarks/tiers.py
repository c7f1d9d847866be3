"""Errors by tier of support, on simulated screens and on real experiments, beside identity and mixed-up conditions."""

from collections.abc import Mapping
from typing import Any

import anndata
import numpy as np
import pandas as pd
import sachs
from held_out import summary
from report import markdown

import scgap
from scgap import _metrics

DOSES = [10.0, 100.0, 1_000.0, 10_000.0]
SCREEN = {"dose_col": "dose_value", "group_col": "cell_line", "sep": "+"}
FIT = {"hidden": (128, 128), "batch_size": 256, "learning_rate": 2e-3, "progress": False}


def tables(*, quick: bool) -> list[str]:
    seeds, n_iters = ((0,), 300) if quick else ((0, 1, 2), 3_000)
    simulated = pd.concat([screen_errors(seed, n_iters).assign(seed=seed) for seed in seeds])
    tiers = simulated.groupby(["support", "seed"], observed=True).mean(numeric_only=True)
    rows = [
        {"support": tier, **{column: summary(values[column]) for column in values}}
        for tier, values in tiers.groupby("support", observed=True)
    ]
    real = [real_errors(name, *task, n_iters=n_iters) for name, task in TASKS.items() if (sachs.DATA / name).exists()]
    return [
        markdown("Simulated screens, energy distance by tier of support", rows, SCREEN_NOTE),
        markdown("Held-out conditions of real experiments, energy distance", [row for rows in real for row in rows]),
    ]


def screen_errors(seed: int, n_iters: int) -> pd.DataFrame:
    """Energy distances of every condition of a screen in which each kind of condition is held out."""
    adata = scgap.datasets.simulate_screen(
        40_000, n_features=20, n_drugs=12, doses=DOSES, n_groups=2, n_combinations=6, seed=seed
    )
    encoding = adata.uns["drug_descriptors"]
    pairs = sorted({name for name in adata.obs["perturbation"].unique() if "+" in name})
    singles = [f"drug_{i}" for i in range(1, 13)]
    in_pairs = {name for pair in pairs for name in pair.split("+")}
    alone = [name for name in singles if name not in in_pairs] or singles[-1:]
    held_out = pd.DataFrame(
        [{"perturbation": name, "dose_value": 100.0} for name in singles[:3]]
        + [{"perturbation": name, "dose_value": 10_000.0} for name in singles[3:6]]
        + [{"perturbation": pair, "dose_value": np.nan} for pair in pairs[:2]]
        + [{"perturbation": name, "dose_value": np.nan} for name in alone[-1:]]
    )
    scgap.pp.split(adata, **SCREEN, holdout=held_out, seed=seed)
    scgap.tl.fit_transport(adata, **SCREEN, encoding=encoding, split_col="split", n_iters=n_iters, seed=seed, **FIT)
    return errors(adata, [row for _, row in adata.uns["scgap"]["conditions"].iterrows()], SCREEN["group_col"], seed)


def errors(
    adata: anndata.AnnData, queries: list[Mapping[str, Any] | pd.Series], group_col: str | None, seed: int
) -> pd.DataFrame:
    """For each measured condition, the energy distance of the map, of identity, and of another condition's prediction."""
    test = adata[adata.obs["split"] == "test"].copy()
    screened = scgap.tl.screen(test, queries, n_cells=500, seed=seed, progress=False)
    labels = screened.obs["condition_label"].astype(str).to_numpy()
    found = [scgap.tl.resolve(test, query).iloc[0] for query in queries]
    predicted = {row["condition_label"]: screened.X[labels == row["condition_label"]] for row in found}
    order = np.random.default_rng(seed).permutation(len(found))
    rows = []
    for i, (query, row) in enumerate(zip(queries, found, strict=True)):
        observed = cells_of(test, adata.uns["scgap"], query)
        group = None if group_col is None else str(row[group_col])
        others = [found[j]["condition_label"] for j in order if group_col is None or str(found[j][group_col]) == group]
        other = others[(others.index(row["condition_label"]) + 1) % len(others)]
        sources = pd.Index(screened.obs["source_cell"].astype(str)[labels == row["condition_label"]])
        rows.append(
            {
                "support": row["support"],
                "scgap": _metrics.energy_distance(predicted[row["condition_label"]], observed),
                "another condition": _metrics.energy_distance(predicted[other], observed),
                "identity": _metrics.energy_distance(test[sources].X, observed),
            }
        )
    return pd.DataFrame(rows)
