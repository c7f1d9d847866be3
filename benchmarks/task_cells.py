"""Cells of the tasks in `tasks.py`, and what of them is fitted: units, genes, components, of training cells alone."""

from typing import Any

import anndata
import numpy as np
import pandas as pd
import sachs
import scanpy as sc
import tiers
from sklearn.decomposition import PCA

import scgap

N_COMPS, N_GENES = 20, 2_000
DOSES = [100.0, 1_000.0, 10_000.0]
SACHS, NORMAN, FOUR_I = "sachs2005.h5ad", "norman_k562_subset.h5ad", "four_i_palbociclib.h5ad"
CYCIF, KANG, PAPALEXI = "cycif_mcf10a_46feat.h5ad", "kang_pbmc_ifnb.h5ad", "papalexi_thp1_10targets.h5ad"


def is_control(adata: anndata.AnnData, columns: dict[str, Any]) -> np.ndarray:
    """Boolean (n_obs,)."""
    labels = adata.obs[columns.get("target_col", "perturbation")].astype(str)
    return (labels == columns.get("reference_key", "control")).to_numpy()


def standardised(adata: anndata.AnnData, columns: dict[str, Any]) -> anndata.AnnData:
    """Features in units of the training controls' spread."""
    control = adata.X[is_control(adata, columns) & (adata.obs["split"] == "train").to_numpy()]
    adata.X = (adata.X - control.mean(0)) / control.std(0)
    return adata


def components(adata: anndata.AnnData, columns: dict[str, Any]) -> anndata.AnnData:
    """Principal components of the training cells."""
    seen = (adata.obs["split"] != "test").to_numpy()
    points = PCA(N_COMPS, random_state=0).fit(adata.X[seen]).transform(adata.X)
    return anndata.AnnData(points.astype(np.float32), adata.obs)


def of_variable_genes(adata: anndata.AnnData, columns: dict[str, Any]) -> anndata.AnnData:
    """Principal components of the genes that vary most among the training cells."""
    genes = sc.pp.highly_variable_genes(adata[adata.obs["split"] != "test"], n_top_genes=N_GENES, inplace=False)
    return components(adata[:, genes["highly_variable"].to_numpy()], columns)


def of_counts(adata: anndata.AnnData, columns: dict[str, Any]) -> anndata.AnnData:
    """Principal components of counts, normalised and in logarithms."""
    scgap.pp.recipe_log1p(adata, n_top_genes=adata.n_vars, split_col="split")
    return components(adata, columns)


def of_screen_judged(adata: anndata.AnnData, columns: dict[str, Any]) -> anndata.AnnData:
    """Seen conditions, which are hundreds, are judged in one line at one dose alone."""
    seen = adata.obs["split"] != "test"
    keys = ["perturbation", "dose_value", "cell_line"]
    is_seen = pd.MultiIndex.from_frame(adata.obs[keys]).isin(pd.MultiIndex.from_frame(adata.obs.loc[seen, keys]))
    judged = (adata.obs["cell_line"] == "line_1") & (adata.obs["dose_value"] == DOSES[1])
    return adata[seen | ~is_seen | judged | is_control(adata, columns)].copy()


def sachs_cells() -> anndata.AnnData:
    return sachs.read()[0]


def kang() -> anndata.AnnData:
    adata = tiers.read(KANG)
    adata.obs["perturbation"] = adata.obs["condition"].astype(str)
    return adata


def papalexi() -> anndata.AnnData:
    return tiers.read(PAPALEXI)


def screen() -> anndata.AnnData:
    """Forty drugs with descriptors and twenty pairs in two cell lines, seven of the drugs in two more.

    A thousand controls of each line are moved, the same to all its conditions. With a hundred, such a sample is so far
    from the population by chance that the true map itself scores 0.1.
    """
    adata = scgap.datasets.simulate_screen(
        258_000, n_features=20, n_drugs=40, doses=DOSES, n_groups=4, n_combinations=20, control_fraction=0.05, seed=0
    )
    everywhere = adata.obs["perturbation"].isin(["control", *(f"drug_{i}" for i in range(34, 41))])
    return adata[everywhere | adata.obs["cell_line"].isin(["line_1", "line_2"])].copy()


def of_screen(alone: tuple[int, ...], pairs: tuple[str, ...], line: str) -> pd.DataFrame:
    """Held out: of six drugs that are in no pair the middle dose, the highest dose and all doses; pairs; a cell line.

    Doses that a drug has in a pair or another line would count as seen.
    """
    drugs = [f"drug_{i}" for i in alone]
    return pd.DataFrame(
        [
            *({"perturbation": drug, "dose_value": DOSES[1]} for drug in drugs[:2]),
            *({"perturbation": drug, "dose_value": DOSES[2]} for drug in drugs[2:4]),
            *({"perturbation": name} for name in (*drugs[4:], *pairs)),
            {"cell_line": line},
        ]
    )
