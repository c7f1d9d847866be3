"""Maps fitted in genes, in principal components and in an autoencoder's space, all judged in genes."""

import time
from typing import Any

import anndata
import numpy as np
import pandas as pd
import sachs
import scanpy as sc
import tiers
from held_out import summary
from report import markdown

import scgap
from scgap._baselines import BASELINES

FIT = {"progress": False}
METRICS = ("energy_distance", "mean_error", "std_error", "skewness_error", "correlation_error")  # less is better
N_GENES, N_POINTS = 2_000, 50
USE_REP = {"genes": None, "PCA": "X_pca", "autoencoder": "X_ae"}
PARTS = ["train", "test"]


def tables(*, quick: bool) -> list[str]:
    seeds, n_iters = ((0,), 200) if quick else ((0, 1, 2), 3_000)
    scores, kept = [], []
    for name, (file, read) in READERS.items():
        if not (sachs.DATA / file).exists():
            continue
        for seed in seeds:
            adata, columns = read(seed)
            kept += [{"data": name, "seed": seed} | row for row in compress(adata, seed)]
            for representation, use_rep in USE_REP.items():
                start = time.perf_counter()
                scgap.tl.fit_transport(
                    adata, **columns, use_rep=use_rep, split_col="split", n_iters=n_iters, seed=seed, **FIT
                )
                print(name, seed, representation, f"fitted in {time.perf_counter() - start:.0f} s", flush=True)
                found = scgap.tl.evaluate(adata, metrics=METRICS, seed=seed)
                scores.append(found.assign(data=name, seed=seed, representation=representation))
    if not scores:
        return ["Representations: no data in the folder that SCGAP_DATA names.\n"]
    found = [kept_table(pd.DataFrame(kept))]
    for (name, tier), part in pd.concat(scores).groupby(["data", "support"], observed=True, sort=False):
        n = part["condition"].nunique()
        found.append(markdown(f"{name}, {tier}: {n} conditions", score_rows(part)))
    found[-1] += NOTE
    return found


def compress(adata: anndata.AnnData, seed: int) -> list[dict[str, Any]]:
    """Components and an autoencoder of the training cells, and the variance that neither brings back.

    `scanpy.pp.pca` and `scgap.pp.streaming_pca` look at all cells they are given, so they are given the training ones,
    and the others are projected.
    """
    train = (adata.obs["split"] == "train").to_numpy()
    learned = sc.pp.pca(adata[train].copy(), n_comps=N_POINTS, copy=True, random_state=seed)
    mean, components = adata.X[train].mean(0), learned.varm["PCs"]
    adata.varm["PCs"], adata.uns["pca"] = components, learned.uns["pca"]
    adata.obsm["X_pca"] = np.asarray((adata.X - mean) @ components, np.float32)
    scgap.pp.autoencoder(adata, n_latent=N_POINTS, split_col="split", seed=seed, progress=False)
    lost = adata.X - mean - adata.obsm["X_pca"] @ components.T
    by_pca = {}
    for part in PARTS:
        cells = (adata.obs["split"] == part).to_numpy()
        by_pca[part] = float((lost[cells] ** 2).sum() / ((adata.X[cells] - adata.X[cells].mean(0)) ** 2).sum())
    by_network = adata.uns["ae"]["unexplained"]
    return [
        {"representation": name, **{part: shares[part] for part in PARTS}}
        for name, shares in (("PCA", by_pca), ("autoencoder", by_network))
    ]


def kept_table(kept: pd.DataFrame) -> str:
    rows = [
        {"data": name, "representation": representation, **{part: summary(values[part]) for part in PARTS}}
        for (name, representation), values in kept.groupby(["data", "representation"], sort=False)
    ]
    title = f"Share of the cells' variance that {N_POINTS} numbers, made on training cells, do not bring back"
    return markdown(title, rows)


def score_rows(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a metric: maps, what the representations alone do to observed cells, and what all has to beat."""
    rows = []
    for metric in METRICS:
        part = scores[scores["metric"] == metric]
        of_method = part.groupby(["representation", "method", "seed"], observed=True)["value"].mean()
        cells = part[part["method"] == "scgap"].groupby(["representation", "seed"])["reconstruction"].mean()
        simple = of_method["genes"]  # what is the same for all representations
        best = min(BASELINES, key=lambda name: simple.get(name, pd.Series([np.nan])).mean())
        rows.append(
            {"metric": metric}
            | {name: summary(of_method[name, "scgap"]) for name in USE_REP}
            | {f"{name} of the truth": summary(cells[name]) for name in ("PCA", "autoencoder")}
            | {"identity": summary(simple["identity"])}
            | {"best simple baseline": f"{summary(simple[best])} ({best})", "replicate": summary(simple["ceiling"])}
        )
    return rows


def kang(seed: int) -> tuple[anndata.AnnData, dict[str, Any]]:
    """Interferon in seven cell types, held-out cells of all, in the genes that vary most among training cells."""
    adata = tiers.read("kang_pbmc_ifnb.h5ad")
    adata.obs["perturbation"] = adata.obs["condition"].astype(str)
    columns = {"group_col": "cell_type"}
    scgap.pp.split(adata, **columns, seed=seed)
    variable = np.argsort(-adata.X[(adata.obs["split"] == "train").to_numpy()].var(0), kind="stable")[:N_GENES]
    return adata[:, np.sort(variable)].copy(), columns


def norman(seed: int) -> tuple[anndata.AnnData, dict[str, Any]]:
    """Singles and doubles in 250 genes; held out are five doubles both of whose singles are measured."""
    adata, columns, holdout = tiers.norman()
    scgap.pp.split(adata, **columns, holdout=holdout, seed=seed)
    return adata, columns


READERS = {"Kang": ("kang_pbmc_ifnb.h5ad", kang), "Norman": ("norman_k562_subset.h5ad", norman)}
NOTE = f"""
Errors on held-out cells, in genes, averaged over conditions; mean and standard deviation of three splits and fits of
3,000 updates in batches of 256. Of Kang's cells the {N_GENES:,} genes that vary most among training cells, of Norman's
all 250. "PCA of the truth" is the column `reconstruction` of `scgap.tl.evaluate`: of one half of the observed cells
what the representation keeps, held against the other half. A prediction is its control cell, moved, so what a
representation does not see comes from there, and its error can be the smaller one. The replicate is the column
`ceiling`.
"""
