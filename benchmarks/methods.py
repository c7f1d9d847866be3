"""What is compared: from a fold of a task to predicted cells, by scgap and by rivals."""

import hashlib
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
import rivals
from task_cells import is_control
from tasks import Fold

import scgap
from scgap._conditions import condition_label, make_design, read_conditions

SOURCES = Path(scgap.__file__).parent
ONE_MAP_ITERS = 1_000  # of a map of one condition, of which there are many
CMONGE = {"batch_size": 256, "hidden": [64] * 4, "epsilon": 1.0, "gap_epsilon": 0.01, "learning_rate": 1e-4}
CELLFLOW_STEPS = 2_000
PUBLISHED = "cmonge, as published"  # takes from twenty minutes to hours a fold
EFFECTS = "scgap, effects"  # with perturbations described by what they do
CMONGE_SHORT = {"n_steps": 1_000, "learning_rate": 1e-3}

type Moved = dict[int, np.ndarray]
"""Position of a condition -> its group's test controls, moved (n, n_features)."""


class Question(NamedTuple):
    """A condition with test cells."""

    i: int
    """Its position among the conditions of the fold."""
    label: str
    row: dict[str, Any]
    """The columns of obs that say what is done."""
    source: np.ndarray
    """Rows of the fold with the test controls of its group."""


class Method(NamedTuple):
    """How a method predicts, and what its result depends on beside fold and seed."""

    predict: Callable[[Fold, int], tuple[Moved, dict[str, Any]]]
    """To moved cells, and what it took: steps and seconds."""
    version: Callable[[Fold], str]
    """Results of another version are made anew."""


def questions(fold: Fold) -> list[Question]:
    """The conditions that are asked for."""
    design = make_design(**{"target_col": "perturbation", "reference_key": "control"} | fold.columns)
    conditions, of_cell, written = read_conditions(design, fold.adata.obs)
    tests = (fold.adata.obs["split"] == "test").to_numpy()
    control_of = {condition.group: i for i, condition in enumerate(conditions) if condition.is_control}
    return [
        Question(
            i,
            condition_label(condition),
            written.loc[i].to_dict(),
            np.flatnonzero(tests & (of_cell == control_of[condition.group])),
        )
        for i, condition in enumerate(conditions)
        if not condition.is_control and (tests & (of_cell == i)).any()
    ]


def as_cells(fold: Fold, moved: Moved) -> anndata.AnnData:
    """Predicted cells with the columns of their conditions."""
    asked = [question for question in questions(fold) if question.i in moved]
    obs = pd.DataFrame([question.row for question in asked for _ in moved[question.i]])
    obs.index = obs.index.astype(str)
    return anndata.AnnData(np.concatenate([moved[question.i] for question in asked]), obs, var=fold.adata.var[[]])


def fit_scgap(adata: anndata.AnnData, columns: dict[str, Any], options: dict[str, Any], seed: int) -> None:
    """Its defaults, whatever the task, without the validation by left-out conditions, which changes no prediction."""
    options = {"condition_folds": 0, "progress": False} | options
    scgap.tl.fit_transport(adata, **columns, **options, split_col="split", seed=seed)


def conditional(fold: Fold, seed: int) -> tuple[Moved, dict[str, Any]]:
    """One map of all conditions."""
    adata, groups = fold.adata.copy(), _groups(fold)
    start = time.perf_counter()
    fit_scgap(adata, fold.columns, fold.options, seed)
    moved = {}
    for question in (question for question in questions(fold) if _has_vectors(fold, question)):
        asked = {column: value for column, value in question.row.items() if column not in groups}
        moved[question.i] = _predict(adata, asked, question.source)
    return moved, _note(adata, start)


def by_effects(fold: Fold, seed: int) -> tuple[Moved, dict[str, Any]]:
    """One map of all conditions whose perturbations are described by what they do; none where they have descriptors."""
    if "encoding" not in fold.options:
        return {}, {}
    columns = {name: value for name, value in fold.columns.items() if name != "time_col"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # perturbations that were never measured have no vector
        effects = scgap.pp.encode_effects(fold.adata, **columns, split_col="split", seed=seed, copy=True).uns["effect"]
    encoding = pd.DataFrame(effects["values"], effects["perturbations"], effects["features"])
    return conditional(fold._replace(options=fold.options | {"encoding": encoding}), seed)


def pooled(fold: Fold, seed: int) -> tuple[Moved, dict[str, Any]]:
    """One map to the cells of all conditions together."""
    adata = _under_one_label(fold.adata, fold)
    start = time.perf_counter()
    options = {name: value for name, value in fold.options.items() if name != "encoding"}
    fit_scgap(adata, {}, options, seed)
    return {q.i: _predict(adata, "any", q.source) for q in questions(fold)}, _note(adata, start)


def one_each(fold: Fold, seed: int) -> tuple[Moved, dict[str, Any]]:
    """A map for each condition, of its cells and its group's controls; none for conditions that were not trained."""
    moved, start, n_iters = {}, time.perf_counter(), min(fold.options.get("n_iters", ONE_MAP_ITERS), ONE_MAP_ITERS)
    for question in questions(fold):
        own, matched = (_holds(fold, question.row, columns) for columns in (list(question.row), _groups(fold)))
        trains = (fold.adata.obs["split"] != "test").to_numpy()
        if not (own & trains).any():
            continue
        moves = np.isin(np.arange(len(trains)), question.source)
        adata = _under_one_label(fold.adata[(trains & (own | (matched & _controls(fold)))) | moves], fold)
        scgap.tl.fit_transport(adata, split_col="split", n_iters=n_iters, seed=seed, progress=False)
        source = np.flatnonzero((adata.obs["split"] == "test") & (adata.obs["perturbation"] == "control"))
        moved[question.i] = _predict(adata, "any", source)
    return moved, {"steps": n_iters, "seconds": time.perf_counter() - start}


def truth(fold: Fold, seed: int) -> tuple[Moved, dict[str, Any]]:
    """Where cells truly go, which only simulations know."""
    moved = {}
    for question in questions(fold) if "simulation" in fold.adata.uns else ():
        source = np.isin(np.arange(fold.adata.n_obs), question.source)
        moved[question.i] = scgap.datasets.true_transport(fold.adata, question.row, source=source)
    return moved, {}


def rival(name: str, settings: Callable[[Fold], dict[str, Any]]) -> Method:
    """A package in an environment of its own."""

    def predict(fold: Fold, seed: int) -> tuple[Moved, dict[str, Any]]:
        options = settings(fold)
        n_steps = options.pop("n_steps")
        folder = Path(tempfile.mkdtemp())
        rivals.write(folder, fold.adata, fold.columns, fold.options.get("encoding"))
        worker = rivals.Worker(name)
        worker.call("load", folder=str(folder), seed=seed, **options)
        seconds = worker.call("train", n_steps=n_steps)["seconds"]
        worker.call("predict", folder=str(folder), out=str(folder / "moved.npz"))
        worker.close()
        with np.load(folder / "moved.npz") as arrays:
            moved = {int(i): np.asarray(cells, np.float32) for i, cells in arrays.items()}
        return moved, {"steps": n_steps, "seconds": seconds}

    return Method(predict, lambda fold: _digest(json.dumps([name, settings(fold)], sort_keys=True).encode()))


def cmonge_settings(fold: Fold) -> dict[str, Any]:
    """Its published settings, but for fewer steps, at a higher rate for that."""
    return {**CMONGE, **CMONGE_SHORT, "n_iters": CMONGE_SHORT["n_steps"], "keep": True}


def published_settings(fold: Fold) -> dict[str, Any]:
    """Its published settings."""
    return {**CMONGE, "n_steps": 10_000, "n_iters": 10_000, "keep": True}


def cellflow_settings(fold: Fold) -> dict[str, Any]:
    """Those of its worker."""
    return {"n_steps": CELLFLOW_STEPS}


def scgap_version(fold: Fold) -> str:
    """Of the code that fits, and of its settings."""
    files = sorted([*SOURCES.glob("*.py"), *SOURCES.glob("tl/*.py")])
    settings = {name: value for name, value in fold.options.items() if name != "encoding"}
    return _digest(json.dumps(settings, sort_keys=True).encode(), *(file.read_bytes() for file in files))


def version_of(fold: Fold) -> str:
    """Of the cells of a fold and what is asked of them."""
    return _digest(np.asarray(fold.adata.X).tobytes(), fold.adata.obs.to_csv().encode())


METHODS = {
    "scgap": Method(conditional, scgap_version),
    EFFECTS: Method(by_effects, scgap_version),
    "pooled map": Method(pooled, scgap_version),
    "one map each": Method(one_each, scgap_version),
    "cmonge": rival("cmonge", cmonge_settings),
    PUBLISHED: rival("cmonge", published_settings),
    "CellFlow": rival("cellflow", cellflow_settings),
    "true map": Method(truth, lambda fold: _digest(b"")),
}


def _predict(adata: anndata.AnnData, condition: Any, source: np.ndarray) -> np.ndarray:
    mask = np.isin(np.arange(adata.n_obs), source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a group was not trained is what the task asks
        scgap.tl.predict(adata, condition, source=mask)
    return np.asarray(adata.layers["scgap"][mask], np.float32)


def _under_one_label(adata: anndata.AnnData, fold: Fold) -> anndata.AnnData:
    is_control = _controls(fold)[fold.adata.obs_names.get_indexer(adata.obs_names)]
    obs = pd.DataFrame({"perturbation": np.where(is_control, "control", "any")}, adata.obs_names)
    return anndata.AnnData(adata.X.copy(), obs.assign(split=adata.obs["split"]), adata.var[[]])


def _has_vectors(fold: Fold, question: Question) -> bool:
    if "encoding" not in fold.options:
        return True
    label, separator = str(question.row[fold.columns.get("target_col", "perturbation")]), fold.columns.get("sep")
    return set(label.split(separator) if separator else [label]) <= set(fold.options["encoding"].index)


def _groups(fold: Fold) -> list[str]:
    return [fold.columns["group_col"]] if "group_col" in fold.columns else []


def _holds(fold: Fold, row: dict[str, Any], columns: list[str]) -> np.ndarray:
    """Boolean (n_obs,): cells with the values of a row in some columns."""
    found = [fold.adata.obs[column].astype(str) == str(row[column]) for column in columns]
    return np.logical_and.reduce(found) if found else np.ones(fold.adata.n_obs, bool)


def _controls(fold: Fold) -> np.ndarray:
    return is_control(fold.adata, fold.columns)


def _note(adata: anndata.AnnData, start: float) -> dict[str, Any]:
    return {"steps": int(adata.uns["scgap"]["history"]["iteration"].iloc[-1]), "seconds": time.perf_counter() - start}


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]
