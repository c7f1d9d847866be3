"""Scores of every metric, with intervals, on simulated and real cells; and the time that an evaluation takes."""

import time
from typing import Any

import anndata
import numpy as np
import pandas as pd
import sachs
import scanpy as sc
import tiers
from report import markdown

import scgap

FIT = {"progress": False}
SPEED = {"conditions": 748, "cells": 200, "features": 50}


def tables(*, quick: bool) -> list[str]:
    n_iters = 200 if quick else 3_000
    found = [speed(20 if quick else SPEED["conditions"])]
    for name, read in READERS.items():
        data = read()
        if data is None:
            continue
        adata, columns, options = data
        scgap.tl.fit_transport(adata, **columns, **options, split_col="split", n_iters=n_iters, **FIT)
        start = time.perf_counter()
        scores = scgap.tl.evaluate(adata)
        seconds = time.perf_counter() - start
        print(f"{name}: evaluated in {seconds:.0f} s", flush=True)
        summary = scgap.tl.summarize_scores(scores)
        for tier, rows in summary.groupby("support", observed=True, sort=False):
            n = int(rows["n_conditions"].max())
            title = f"{name}, {tier}: {n} condition{'s' if n > 1 else ''}"
            found.append(markdown(title, table(rows), ""))
    found[-1] += NOTE
    return found


def table(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a metric: the map, the best simple baseline, a replicate, and the score between the two."""
    rows = []
    for metric, part in summary.groupby("metric", sort=False):
        by_method = part.set_index("method")
        mine = by_method.loc["scgap"]
        if not mine["n_conditions"]:
            continue
        best = mine["baseline"]
        simple = f"{number(by_method.loc[best, 'mean'])} ({best})" if best else "-"
        rows.append(
            {
                "metric": metric,
                "scgap": between(mine, "mean", "low", "high"),
                "best simple baseline": simple,
                "another condition": number(by_method.loc["permuted_conditions", "mean"]),
                "replicate": number(by_method.loc["ceiling", "mean"]),
                "score": between(mine, "score", "score_low", "score_high"),
            }
        )
    return rows


def between(row: pd.Series, mean: str, low: str, high: str) -> str:
    """A mean with its interval."""
    if pd.isna(row[mean]):
        return "-"
    interval = "" if pd.isna(row[low]) else f" [{number(row[low])}, {number(row[high])}]"
    return number(row[mean]) + interval


def number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:z.3g}"


def speed(n_conditions: int) -> str:
    """Predictions of many conditions, by all metrics and beside all baselines."""
    generator, n, d = np.random.default_rng(0), SPEED["cells"], SPEED["features"]
    mixing = generator.normal(size=(d, d)) / 7.0 + np.eye(d)
    shifts = 0.5 * generator.normal(size=(n_conditions + 1, d)) * (np.arange(n_conditions + 1) > 0)[:, None]
    labels = np.array(["control", *(f"drug_{i}" for i in range(1, n_conditions + 1))])
    cells = [(generator.gamma(2.0, size=(n, d)) - 2.0) @ mixing + shift for _ in range(2) for shift in shifts]
    obs = pd.DataFrame(
        {"perturbation": np.tile(np.repeat(labels, n), 2), "split": np.repeat(["train", "test"], n * len(labels))}
    )
    adata = anndata.AnnData(np.concatenate(cells).astype(np.float32), obs.set_index(obs.index.astype(str)))
    predicted = adata[(adata.obs["split"] == "test") & (adata.obs["perturbation"] != "control")].copy()
    predicted.X *= 0.95
    for some in (labels[:3], labels):  # the first compiles
        start = time.perf_counter()
        scores = scgap.tl.evaluate_predictions(
            adata[adata.obs["perturbation"].isin(some)].copy(),
            predicted[predicted.obs["perturbation"].isin(some)].copy(),
            split_col="split",
        )
    row = {**SPEED, "conditions": n_conditions, "metrics": scores["metric"].nunique()}
    methods = scores.loc[scores["value"].notna(), "method"].nunique()
    row |= {"methods": methods, "seconds": time.perf_counter() - start}
    return markdown("An evaluation with all metrics, baselines and the ceiling", [row], "After a first, small one.\n")


def screen() -> tuple[anndata.AnnData, dict[str, Any], dict[str, Any]]:
    """Drugs in doses and two cell lines; held out are one drug and one dose of others."""
    adata = scgap.datasets.simulate_screen(
        20_000, n_features=20, n_drugs=8, doses=[10.0, 100.0, 1_000.0], n_groups=2, seed=0
    )
    columns = {"dose_col": "dose_value", "group_col": "cell_line"}
    held_out = [{"perturbation": "drug_1"}, *({"perturbation": f"drug_{i}", "dose_value": 100.0} for i in (2, 3))]
    scgap.pp.split(adata, **columns, holdout=pd.DataFrame(held_out))
    return adata, columns, {"encoding": adata.uns["drug_descriptors"]}


def sachs_cells() -> tuple[anndata.AnnData, dict[str, Any], dict[str, Any]] | None:
    """Five inhibitors in two contexts, held-out cells of all, in units of the training controls' spread."""
    if not (sachs.DATA / "sachs2005.h5ad").exists():
        return None
    adata, *_ = sachs.read()
    control = adata.X[((adata.obs["agent"] == "none") & (adata.obs["split"] == "train")).to_numpy()]
    adata.X = (adata.X - control.mean(0)) / control.std(0)
    return adata, sachs.COLUMNS, {}


def norman() -> tuple[anndata.AnnData, dict[str, Any], dict[str, Any]] | None:
    """Singles and doubles; held out are five doubles both of whose singles are measured. In 20 components."""
    if not (sachs.DATA / "norman_k562_subset.h5ad").exists():
        return None
    adata, columns, holdout = tiers.norman()
    sc.pp.pca(adata, n_comps=20)
    scgap.pp.split(adata, **columns, holdout=holdout)
    return adata, columns, {"use_rep": "X_pca"}


def kang() -> tuple[anndata.AnnData, dict[str, Any], dict[str, Any]] | None:
    """Interferon in seven cell types, held-out cells of all; in 20 components, judged in 1,000 variable genes."""
    if not (sachs.DATA / "kang_pbmc_ifnb.h5ad").exists():
        return None
    adata = tiers.read("kang_pbmc_ifnb.h5ad")
    adata.obs["perturbation"] = adata.obs["condition"].astype(str)
    variable = np.argsort(-adata.X.var(0))[:1_000]
    adata = adata[:, np.sort(variable)].copy()
    sc.pp.pca(adata, n_comps=20)
    columns = {"group_col": "cell_type"}
    scgap.pp.split(adata, **columns)
    return adata, columns, {"use_rep": "X_pca"}


def four_i() -> tuple[anndata.AnnData, dict[str, Any], dict[str, Any]] | None:
    """Palbociclib; 10 nM is held out, between 0 and 100."""
    if not (sachs.DATA / "four_i_palbociclib.h5ad").exists():
        return None
    adata, columns, holdout = tiers.palbociclib()
    scgap.pp.split(adata, **columns, holdout=holdout)
    return adata, columns, {}


READERS = {"Simulated screen": screen, "Sachs": sachs_cells, "Norman": norman, "Kang": kang, "4i": four_i}
NOTE = """
Each metric's mean over conditions with a 95 % interval by bootstrap over conditions; one fit of 3,000 updates each.
The best simple baseline is the best of eight on average; "another condition" is the map asked for another condition of
the group; a replicate is one half of the observed cells as prediction of the other. The score is 0 at the best simple
baseline and 1 at the replicate, not clipped, and missing where the baseline is as good as a replicate.
"""
