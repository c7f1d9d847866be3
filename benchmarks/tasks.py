"""The tasks that methods are compared on: cells with a split, and how to read them.

    for fold in tasks.folds("sachs_ood"):                # each inhibitor held out in one context
    for fold in tasks.folds("sachs_ood", part="valid"):  # the same among the cells that train in these

Choices are made on the folds of ``part="valid"``: cells that test in a fold are gone before the fold of the same name
is made there. Units, genes and components come from training cells alone.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
import sachs
import scanpy as sc
import tiers
from sklearn.decomposition import PCA

import scgap

N_COMPS, N_GENES = 20, 2_000
PARTS = ("test", "valid")
SCREEN = {"dose_col": "dose_value", "group_col": "cell_line", "sep": "+"}
DOSES = [100.0, 1_000.0, 10_000.0]


class Fold(NamedTuple):
    """One split of one task."""

    task: str
    name: str
    """What is held out."""
    adata: anndata.AnnData
    """Features in X, in which everything is fitted and scored; by ``obs["split"]`` the test cells alone are judged."""
    columns: dict[str, Any]
    """Arguments of `scgap.tl.fit_transport` that say what was done to a cell."""
    options: dict[str, Any]
    """Its other arguments that belong to the task: descriptors."""


class Task(NamedTuple):
    """What its folds are made of."""

    read: Callable[[], anndata.AnnData]
    columns: dict[str, Any]
    features: Callable[[anndata.AnnData, dict[str, Any]], anndata.AnnData]
    """From cells with a split, and columns, to what is fitted."""
    held_out: dict[str, Any]
    """Name of a fold -> ``holdout`` of `scgap.pp.split`; None holds out a fifth of the cells."""
    file: str | None = None
    controls: float | None = 1 / 3
    """Where conditions are held out: share of the controls that is moved and does not train. None: too few to divide,
    all of them train and all are moved."""
    seen: bool = False
    """Whether cells of the other conditions are held out and judged, too."""
    validates: bool = True
    """Whether another condition can be held out beside the one that tests."""
    encoding: str | None = None
    """Key of ``uns`` of the descriptors."""


def folds(task: str, *, part: str = "test") -> Iterator[Fold]:
    """The folds of a task; none where its file is missing, or where there is nothing to validate by."""
    if part not in PARTS:
        raise ValueError(f"part={part!r}. Pass one of {', '.join(PARTS)}.")
    made_of = TASKS[task]
    if (made_of.file and not (sachs.DATA / made_of.file).exists()) or (part == "valid" and not made_of.validates):
        return
    names = list(made_of.held_out)
    for name, following in zip(names, names[1:] + names[:1], strict=True):
        adata = _split(made_of, made_of.read(), name)
        if part == "valid":
            adata = _split(made_of, adata[adata.obs["split"] != "test"].copy(), following)
        adata = made_of.features(adata, made_of.columns)
        if made_of.controls is None:
            adata = _with_moved_controls(adata, made_of.columns)
        options = {"encoding": adata.uns[made_of.encoding]} if made_of.encoding else {}
        yield Fold(task, name, adata, made_of.columns, options)


def is_control(adata: anndata.AnnData, columns: dict[str, Any]) -> np.ndarray:
    """Boolean (n_obs,)."""
    labels = adata.obs[columns.get("target_col", "perturbation")].astype(str)
    return (labels == columns.get("reference_key", "control")).to_numpy()


def _split(task: Task, adata: anndata.AnnData, name: str) -> anndata.AnnData:
    columns = {key: value for key, value in task.columns.items() if key != "time_col"}
    holdout = task.held_out[name]
    if holdout is None:
        scgap.pp.split(adata, **columns)
        return adata
    scgap.pp.split(adata, **columns, holdout=holdout, fraction=task.controls or 0.0)
    if not task.seen:  # all cells of the other conditions train or validate
        whole = scgap.pp.split(adata, **columns, holdout=holdout, fraction=0.0, copy=True)
        perturbed = ~is_control(adata, columns)
        adata.obs.loc[perturbed, "split"] = whole.obs.loc[perturbed, "split"]
    return adata


def _with_moved_controls(adata: anndata.AnnData, columns: dict[str, Any]) -> anndata.AnnData:
    """Controls once more, to be moved."""
    moved = adata[is_control(adata, columns)].copy()
    moved.obs["split"] = "test"
    moved.obs_names += "_moved"
    return anndata.concat([adata, moved], merge="same", uns_merge="first")


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


def as_they_are(adata: anndata.AnnData, columns: dict[str, Any]) -> anndata.AnnData:
    return adata


def sachs_cells() -> anndata.AnnData:
    return sachs.read()[0]


def kang() -> anndata.AnnData:
    adata = tiers.read(KANG)
    adata.obs["perturbation"] = adata.obs["condition"].astype(str)
    return adata


def papalexi() -> anndata.AnnData:
    return tiers.read(PAPALEXI)


def screen() -> anndata.AnnData:
    """Forty drugs with descriptors and twenty pairs in two cell lines, seven of the drugs in two more."""
    adata = scgap.datasets.simulate_screen(
        80_000, n_features=20, n_drugs=40, doses=DOSES, n_groups=4, n_combinations=20, control_fraction=0.1, seed=0
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


INHIBITORS = ("Akt-inhibitor", "G06976", "LY294002", "U0126", "psitectorigenin")
LIGANDS = ("BMP2", "EGF", "HGF", "IFNG", "OSM", "PBS", "TGFB")
TYPES = ("B", "CD14+Mono", "CD4T", "CD8T", "Dendritic", "FCGR3A+Mono", "NK")
SACHS, NORMAN, FOUR_I = "sachs2005.h5ad", "norman_k562_subset.h5ad", "four_i_palbociclib.h5ad"
CYCIF, KANG, PAPALEXI = "cycif_mcf10a_46feat.h5ad", "kang_pbmc_ifnb.h5ad", "papalexi_thp1_10targets.h5ad"
CELLS = {"cells": None}
TASKS = {
    "sachs_ood": Task(
        sachs_cells,
        sachs.COLUMNS,
        standardised,
        {name: {"agent": [name], "stimulation": ["CD3CD28+ICAM2"]} for name in INHIBITORS},
        SACHS,
    ),
    # With one dose gone there is one condition, and nothing is left without it.
    "four_i_dose": Task(
        lambda: tiers.palbociclib()[0],
        {"dose_col": "dose"},
        standardised,
        {"10 nM": {"dose": [10.0]}, "100 nM": {"dose": [100.0]}},
        FOUR_I,
        validates=False,
    ),
    "norman_combo": Task(
        lambda: tiers.norman()[0],
        {"sep": "+"},
        components,
        {name: {"perturbation": [name]} for name in tiers.DOUBLES},
        NORMAN,
        controls=None,
    ),
    # With all its perturbed cells a type's controls are held out, too.
    "kang_celltype": Task(
        kang, {"group_col": "cell_type"}, of_variable_genes, {name: {"cell_type": [name]} for name in TYPES}, KANG, 0.0
    ),
    "sachs_id": Task(sachs_cells, sachs.COLUMNS, standardised, CELLS, SACHS),
    "simulated": Task(
        screen,
        SCREEN,
        as_they_are,
        {
            "one": of_screen(
                (1, 2, 3, 7, 12, 16),
                ("drug_4+drug_13", "drug_5+drug_9", "drug_8+drug_15", "drug_13+drug_22"),
                "line_3",
            ),
            "other": of_screen(
                (18, 24, 25, 28, 29, 30),
                ("drug_5+drug_8", "drug_6+drug_10", "drug_11+drug_19", "drug_14+drug_36"),
                "line_4",
            ),
        },
        seen=True,
        encoding="drug_descriptors",
    ),
    "norman_id": Task(lambda: tiers.norman()[0], {"sep": "+"}, components, CELLS, NORMAN),
    "cycif_time": Task(
        lambda: tiers.cycif()[0],
        {"time_col": "time"},
        standardised,
        {f"{name}, 8 h": {"perturbation": [name], "time": [8]} for name in LIGANDS},
        CYCIF,
        controls=None,
    ),
    "papalexi_id": Task(
        papalexi, {"target_col": "target", "reference_key": "non-targeting"}, of_counts, CELLS, PAPALEXI
    ),
}
