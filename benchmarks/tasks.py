"""The tasks that methods are compared on: cells with a split, and how to read them.

    for fold in tasks.folds("sachs_ood"):                # each inhibitor held out in one context
    for fold in tasks.folds("sachs_ood", part="valid"):  # the same among the cells that train in these

Choices are made on the folds of ``part="valid"``: cells that test in a fold are gone before the fold of the same name
is made there. Units, genes and components come from training cells alone.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import anndata
import sachs
import task_cells as cells
import tiers

import scgap

PARTS = ("test", "valid")
# Where all that is judged was held out whole, fits are as short as those that chose the model; elsewhere by default.
SHORT = MappingProxyType({"n_iters": 3_000})
SCREEN = {"dose_col": "dose_value", "group_col": "cell_line", "sep": "+"}


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
    """Name of a fold -> ``holdout`` of `scgap.pp.split`; or the seed by which a fifth of the cells is drawn."""
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
    options: Mapping[str, Any] = SHORT
    """Of the fit."""


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
        options = dict(made_of.options)
        if made_of.encoding:
            options["encoding"] = adata.uns[made_of.encoding]
        yield Fold(task, name, adata, made_of.columns, options)


def _split(task: Task, adata: anndata.AnnData, name: str) -> anndata.AnnData:
    columns = {key: value for key, value in task.columns.items() if key != "time_col"}
    holdout = task.held_out[name]
    if isinstance(holdout, int):
        scgap.pp.split(adata, **columns, seed=holdout)
        return adata
    scgap.pp.split(adata, **columns, holdout=holdout, fraction=task.controls or 0.0)
    if not task.seen:  # all cells of the other conditions train or validate
        whole = scgap.pp.split(adata, **columns, holdout=holdout, fraction=0.0, copy=True)
        perturbed = ~cells.is_control(adata, columns)
        adata.obs.loc[perturbed, "split"] = whole.obs.loc[perturbed, "split"]
    return adata


def _with_moved_controls(adata: anndata.AnnData, columns: dict[str, Any]) -> anndata.AnnData:
    """Controls once more, to be moved."""
    moved = adata[cells.is_control(adata, columns)].copy()
    moved.obs["split"] = "test"
    moved.obs_names += "_moved"
    return anndata.concat([adata, moved], merge="same", uns_merge="first")


INHIBITORS = ("Akt-inhibitor", "G06976", "LY294002", "U0126", "psitectorigenin")
LIGANDS = ("BMP2", "EGF", "HGF", "IFNG", "OSM", "PBS", "TGFB")
TYPES = ("B", "CD14+Mono", "CD4T", "CD8T", "Dendritic", "FCGR3A+Mono", "NK")
# Several, for the controls that test are the same for all conditions: of one draw, even a perfect map would be off.
DRAWS = "cells"
CELLS = {DRAWS: 0} | {f"{DRAWS}, draw {seed}": seed for seed in range(1, 5)}
TASKS = {
    "sachs_ood": Task(
        cells.sachs_cells,
        sachs.COLUMNS,
        cells.standardised,
        {name: {"agent": [name], "stimulation": ["CD3CD28+ICAM2"]} for name in INHIBITORS},
        cells.SACHS,
    ),
    # With one dose gone there is one condition, and nothing is left without it.
    "four_i_dose": Task(
        lambda: tiers.palbociclib()[0],
        {"dose_col": "dose"},
        cells.standardised,
        {"10 nM": {"dose": [10.0]}, "100 nM": {"dose": [100.0]}},
        cells.FOUR_I,
        validates=False,
    ),
    "norman_combo": Task(
        lambda: tiers.norman()[0],
        {"sep": "+"},
        cells.components,
        {name: {"perturbation": [name]} for name in tiers.DOUBLES},
        cells.NORMAN,
        controls=None,
    ),
    # With all its perturbed cells a type's controls are held out, too.
    "kang_celltype": Task(
        cells.kang,
        {"group_col": "cell_type"},
        cells.of_variable_genes,
        {name: {"cell_type": [name]} for name in TYPES},
        cells.KANG,
        0.0,
    ),
    "sachs_id": Task(cells.sachs_cells, sachs.COLUMNS, cells.standardised, CELLS, cells.SACHS, options={}),
    "simulated": Task(
        cells.screen,
        SCREEN,
        cells.of_screen_judged,
        {
            "one": cells.of_screen(
                (2, 3, 4, 8, 9, 12),
                ("drug_5+drug_6", "drug_6+drug_11", "drug_13+drug_35", "drug_15+drug_39"),
                "line_3",
            ),
            "other": cells.of_screen(
                (14, 16, 17, 19, 20, 23),
                ("drug_5+drug_33", "drug_18+drug_33", "drug_22+drug_36", "drug_31+drug_36"),
                "line_4",
            ),
        },
        seen=True,
        encoding="drug_descriptors",
        options={},
    ),
    "norman_id": Task(lambda: tiers.norman()[0], {"sep": "+"}, cells.components, CELLS, cells.NORMAN, options={}),
    "cycif_time": Task(
        lambda: tiers.cycif()[0],
        {"time_col": "time"},
        cells.standardised,
        {f"{name}, 8 h": {"perturbation": [name], "time": [8]} for name in LIGANDS},
        cells.CYCIF,
        controls=None,
    ),
    "papalexi_id": Task(
        cells.papalexi,
        {"target_col": "target", "reference_key": "non-targeting"},
        cells.of_counts,
        CELLS,
        cells.PAPALEXI,
        options={},
    ),
}
