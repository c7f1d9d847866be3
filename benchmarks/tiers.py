"""Errors by tier of support, on simulated screens and on real experiments, beside identity and mixed-up conditions."""

import warnings
from typing import Any

import anndata
import numpy as np
import pandas as pd
import sachs
from held_out import summary
from report import markdown

import scgap
from scgap._conditions import Condition, Design, make_design, read_conditions
from scgap._support import TIERS

N_DRUGS, N_PAIRS, N_HELD_OUT = 40, 100, 6
DRUGS = [f"drug_{i}" for i in range(1, N_DRUGS + 1)]
PAIRED = DRUGS[:22]  # in whose pairs alone we look, so that the others can be held out alone
PAIRS, INTERACTING = "unseen combination", "unseen combination that interacts"
DOSES = [10.0, 100.0, 1_000.0, 10_000.0]
SCREEN = {"dose_col": "dose_value", "group_col": "cell_line", "sep": "+"}
FIT = {"hidden": (128, 128), "batch_size": 256, "progress": False}
N_CELLS = 500  # source cells of a prediction
DOUBLES = ("KLF1+MAP2K6", "KLF1+TGFBR2", "MAP2K3+MAP2K6", "MAP2K3+SLC38A2", "MAPK1+TGFBR2")


def tables(*, quick: bool) -> list[str]:
    seeds, n_iters = ((3,), 300) if quick else ((3, 4, 5), 6_000)  # 0 to 2 chose how combinations are pooled
    found = pd.concat([screen_errors(seed, n_iters).assign(seed=seed) for seed in seeds])
    methods = ["scgap", "another condition", "identity"]
    means = found.groupby(["support", "seed"], observed=True)[methods].mean()
    means["scgap / identity"] = means["scgap"] / means["identity"]
    rows = [
        {"support": tier, "conditions": int((found["support"] == tier).sum())}
        | {column: summary(values[column]) for column in values}
        for tier, values in means.groupby("support", sort=False)
    ]
    order = [tier for support in TIERS for tier in ((support, INTERACTING) if support == PAIRS else (support,))]
    rows.sort(key=lambda row: order.index(row["support"]))
    real = [real_errors(name, n_iters) for name in READERS if (sachs.DATA / name).exists()]
    return [
        markdown("Simulated screens: energy distance by tier of support", rows, SCREEN_NOTE),
        *([markdown("Held-out conditions of real experiments: energy distance", real, REAL_NOTE)] if real else []),
    ]


def screen_errors(seed: int, n_iters: int) -> pd.DataFrame:
    """Errors of all conditions of a screen in which some of every kind are held out."""
    adata = scgap.datasets.simulate_screen(
        80_000, n_features=20, n_drugs=N_DRUGS, doses=DOSES, n_groups=2, n_combinations=N_PAIRS, seed=seed
    )
    parts = adata.obs["perturbation"].astype(str).str.split("+")
    adata = adata[parts.map(lambda names: len(names) == 1 or set(names) <= set(PAIRED))].copy()
    pairs = sorted({name for name in adata.obs["perturbation"].unique() if "+" in name})
    alone = iter(DRUGS[len(PAIRED) :])
    held_out = [
        *[{"perturbation": next(alone), "dose_value": 100.0} for _ in range(N_HELD_OUT)],
        *[{"perturbation": next(alone), "dose_value": 10_000.0} for _ in range(N_HELD_OUT)],
        *[{"perturbation": next(alone)} for _ in range(N_HELD_OUT)],
        *[{"perturbation": pair} for pair in pairs[:N_HELD_OUT]],
    ]
    scgap.pp.split(adata, **SCREEN, holdout=pd.DataFrame(held_out), seed=seed)
    encoding = adata.uns["drug_descriptors"]
    scgap.tl.fit_transport(adata, **SCREEN, encoding=encoding, split_col="split", n_iters=n_iters, seed=seed, **FIT)
    found = errors(adata, SCREEN, seed)
    # What two drugs do beyond the sum of their effects can be learned from no other condition.
    interacts = found["perturbations"].isin(adata.uns["simulation"]["interacting_pairs"])
    found["support"] = found["support"].mask((found["support"] == PAIRS) & interacts, INTERACTING)
    return found


def errors(adata: anndata.AnnData, columns: dict[str, Any], seed: int) -> pd.DataFrame:
    """Energy distance to the test cells of every condition: of the map, of another condition's map, of identity."""
    test = adata[adata.obs["split"] == "test"].copy()
    screened = scgap.tl.screen(test, n_cells=N_CELLS, seed=seed, progress=False)
    labels = screened.obs["condition_label"].astype(str).to_numpy()
    design = make_design(**{"target_col": "perturbation", "reference_key": "control"} | columns)
    conditions, of_cell, _ = read_conditions(design, test.obs[design.columns])
    table = adata.uns["scgap"]["conditions"]
    # A distance needs two cells.
    perturbed = [i for i, condition in enumerate(conditions) if not condition.is_control and (of_cell == i).sum() > 1]
    generator, rows = np.random.default_rng(seed), []
    for i in perturbed:
        mine = scgap.tl.resolve(test, dict(as_row(design, conditions[i]))).iloc[0]
        same_group = (table[list(design.group_cols)].astype(str) == conditions[i].group).all(axis=1)
        others = table.loc[same_group & (table["condition_label"] != mine["condition_label"]), "condition_label"]
        observed, predicted = test.X[of_cell == i], screened[labels == mine["condition_label"]]
        wrong = screened.X[labels == generator.choice(others)]
        source = test[predicted.obs["source_cell"].astype(str)].X
        parts = {"scgap": predicted.X, "another condition": wrong, "identity": source}
        scores = {name: sachs.energy_distance(np.asarray(cells), observed) for name, cells in parts.items()}
        names = "+".join(name for name, _ in conditions[i].members)
        rows.append(
            {"label": mine["condition_label"], "perturbations": names, "support": str(mine["support"]), **scores}
        )
    return pd.DataFrame(rows)


def as_row(design: Design, condition: Condition) -> dict[str, Any]:
    """A condition as a query."""
    names, doses = [name for name, _ in condition.members], [dose for _, dose in condition.members]
    row: dict[str, Any] = {design.target_cols[0]: names, **dict(zip(design.group_cols, condition.group, strict=True))}
    if design.dose_cols:
        row[design.dose_cols[0]] = doses
    return row | ({design.time_col: condition.time} if design.time_col else {})


def real_errors(name: str, n_iters: int) -> dict[str, Any]:
    """Errors of the held-out conditions of one experiment, averaged."""
    adata, columns, held_out = READERS[name]()
    scgap.pp.split(adata, **{k: v for k, v in columns.items() if k != "time_col"}, holdout=held_out)
    if name in IMAGING:
        control = adata.X[((adata.obs["perturbation"] == "control") & (adata.obs["split"] == "train")).to_numpy()]
        adata.X = (adata.X - control.mean(0)) / control.std(0)
    scgap.tl.fit_transport(adata, **columns, split_col="split", n_iters=n_iters, **FIT)
    found = errors(adata, columns, 0)
    unseen = found[found["support"] != "seen"]
    means = {column: unseen[column].mean() for column in ("scgap", "another condition", "identity")}
    return {"data": name, "held out": ", ".join(unseen["label"].head(5)), **means}


def norman() -> tuple[anndata.AnnData, dict[str, Any], dict[str, list[Any]]]:
    """Doubles both of whose singles are measured."""
    return read("norman_k562_subset.h5ad"), {"sep": "+"}, {"perturbation": list(DOUBLES)}


def palbociclib() -> tuple[anndata.AnnData, dict[str, Any], dict[str, list[Any]]]:
    """10 nM, from 0 and 100."""
    adata = read("four_i_palbociclib.h5ad")
    adata.obs["dose"] = adata.obs["well"].astype(str).astype(float)
    adata.obs["perturbation"] = np.where(adata.obs["dose"] > 0, "palbociclib", "control")
    return adata, {"dose_col": "dose"}, {"dose": [10.0]}


def cycif() -> tuple[anndata.AnnData, dict[str, Any], dict[str, list[Any]]]:
    """Ligands at 8 h, from 1, 4, 24 and 48 h."""
    adata = read("cycif_mcf10a_46feat.h5ad")
    adata.obs["perturbation"] = adata.obs["ligand"].astype(str).replace({"ctrl": "control"})
    return adata, {"time_col": "time"}, {"time": [8]}


def read(name: str) -> anndata.AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old versions of anndata wrote these files
        adata = anndata.read_h5ad(sachs.DATA / name)
    adata.X = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X, np.float32)
    return adata


READERS = {"norman_k562_subset.h5ad": norman, "four_i_palbociclib.h5ad": palbociclib, "cycif_mcf10a_46feat.h5ad": cycif}
IMAGING = {"four_i_palbociclib.h5ad", "cycif_mcf10a_46feat.h5ad"}
SCREEN_NOTE = f"""\
Three screens of {N_DRUGS} drugs in four doses, and of about thirty pairs of {len(PAIRED)} of them, in two cell lines,
with the drugs' descriptors as encoding. Held out, in both lines: a dose between others of {N_HELD_OUT} drugs, the
highest dose of {N_HELD_OUT}, all doses of {N_HELD_OUT}, and {N_HELD_OUT} pairs. Mean and standard deviation of three
seeds; {N_CELLS} source cells at most. "Another condition" is the map's prediction of one drawn at random from the same
cell line. Tiers differ in the size of their effects, so their errors are also given in units of the identity's. Half
of the pairs do more together than the sum of what each does alone, which no other condition tells of."""
REAL_NOTE = """\
One fit each, default settings but for the size of the network and the number of updates. Features of imaging are in
units of the training controls' standard deviation. Of CycIF there are six test controls: its figures are rough."""
