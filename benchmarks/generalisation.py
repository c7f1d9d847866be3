"""scgap beside its rivals and simple baselines, on the same cells: conditions that were held out, and held-out cells.

    python benchmarks/generalisation.py                                    # all that is not in the cache, then tables
    python benchmarks/generalisation.py --tasks sachs_ood --methods scgap  # some of it
    python benchmarks/generalisation.py --part valid --methods scgap       # to choose by: scores of training conditions
    python benchmarks/generalisation.py --tables                           # of what is in the cache
    python benchmarks/generalisation.py --quick                            # a smoke run, without rivals

Predictions and scores are kept in the folder that SCGAP_CACHE names, by default benchmarks/cache, one after the other:
a run that was interrupted goes on, and results of scgap are made anew when its code changes. Rivals run in environments
of their own, which are made in the folder that SCGAP_RIVALS names.
"""

import argparse
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import methods
import numpy as np
import pandas as pd
import report
import tasks
from generalisation_tables import draw, make_tables

import scgap

CACHE = Path(os.environ.get("SCGAP_CACHE", Path(__file__).parent / "cache"))
PACKAGES = ("scgap", "jax", "ott-jax", "flax")
METRICS = [
    *("energy_distance", "mmd", "sinkhorn_divergence", "smooth_sinkhorn_divergence", "wasserstein"),
    *("mean_error", "std_error", "skewness_error", "correlation_error", "variance_ratio", "pearson_delta"),
]
TRUE_MAP = "error_to_true_map"
SEEDS = {"scgap": 3}  # of fits; else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks.TASKS, default=list(tasks.TASKS))
    by_default = [name for name in methods.METHODS if name != methods.PUBLISHED]
    parser.add_argument("--methods", nargs="+", choices=methods.METHODS, default=by_default)
    parser.add_argument("--seeds", nargs="+", type=int, help="of fits; default: 0 to 2 for scgap, 0 for all others")
    parser.add_argument("--part", choices=tasks.PARTS, default="test", help="valid: scores to choose by")
    parser.add_argument("--tables", action="store_true", help="fit nothing")
    parser.add_argument("--quick", action="store_true", help="a tiny task, nothing is kept")
    options = parser.parse_args()
    if options.quick:
        print("\n".join(make_tables(quick_scores())))
        return
    if not options.tables:
        for fold, name, seed in runs(options.tasks, options.methods, options.seeds, options.part):
            run(fold, name, seed, CACHE / options.part)
    scores = collect(options.tasks, CACHE / options.part)
    tables = make_tables(scores)
    if options.part == "valid" or options.tasks != list(tasks.TASKS):
        print("\n".join(tables))
    else:
        draw(scores)
        report.store(f"generalisation, {report.platform()}", tables, report.versions(*PACKAGES))


def runs(names: list[str], which: list[str], seeds: list[int] | None, part: str) -> Iterator[tuple[Any, str, int]]:
    """Folds, methods and seeds: seed by seed, so that every task has something early."""
    most = max(seeds or [max(SEEDS.values()) - 1]) + 1
    for seed in seeds or range(most):
        for name in names:
            for fold in tasks.folds(name, part=part):
                for method in which:
                    if seeds or seed < SEEDS.get(method, 1):
                        yield fold, method, seed


def run(fold: tasks.Fold, name: str, seed: int, cache: Path) -> None:
    """Predictions and scores of one method, unless they are there."""
    method = methods.METHODS[name]
    folder = cache / fold.task / slug(fold.name)
    stem = f"{slug(name)}-{seed}-{method.version(fold)}-{methods.version_of(fold)}"
    if (folder / f"{stem}.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    moved, note = method.predict(fold, seed)
    print(f"{fold.task}, {fold.name}: {name}, seed {seed}, {note}", flush=True)
    if not moved:  # a map for each condition, of conditions that were not trained
        return
    np.savez_compressed(folder / f"{stem}.npz", **{str(i): cells for i, cells in moved.items()})
    table = score(fold, moved)
    for outdated in folder.glob(f"{slug(name)}-{seed}-*.csv"):
        outdated.unlink()
    table.assign(**note, seed=seed, method=table["method"].replace("prediction", name)).to_csv(folder / f"{stem}.csv")


def score(fold: tasks.Fold, moved: methods.Moved) -> pd.DataFrame:
    """Scores of predictions, of all baselines and of the ceiling, and errors to the true map where there is one."""
    columns = {"target_col": "perturbation", "reference_key": "control"} | fold.columns
    predicted = methods.as_cells(fold, moved)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # conditions that a method does not predict
        table = scgap.tl.evaluate_predictions(
            fold.adata,
            predicted,
            **columns,
            split_col="split",
            encoding=fold.options.get("encoding"),
            metrics=METRICS,
        )
    table = table.assign(task=fold.task, fold=fold.name)
    if "simulation" not in fold.adata.uns:
        return table
    tier = table.drop_duplicates("condition").set_index("condition")["support"]
    errors = true_errors(fold, moved)
    return pd.concat([table, errors.assign(support=errors["condition"].map(tier))], ignore_index=True)


def true_errors(fold: tasks.Fold, moved: methods.Moved) -> pd.DataFrame:
    """Mean distance of moved cells to where they truly go, in units of the true displacement's."""
    rows = []
    for question in (question for question in methods.questions(fold) if question.i in moved):
        source = np.isin(np.arange(fold.adata.n_obs), question.source)
        truth = scgap.datasets.true_transport(fold.adata, question.row, source=source)
        error, shift = (truth - cells for cells in (moved[question.i], fold.adata.X[source]))
        value = np.linalg.norm(error, axis=1).mean() / np.linalg.norm(shift, axis=1).mean()
        values = {"prediction": value, "identity": 1.0, "ceiling": 0.0}
        rows += [{"condition": question.label, "method": name, "value": value} for name, value in values.items()]
    return pd.DataFrame(rows).assign(metric=TRUE_MAP, task=fold.task, fold=fold.name)


def quick_scores() -> pd.DataFrame:
    """One small fold, few updates, no rivals."""
    adata = scgap.datasets.simulate_screen(2_000, n_features=10, n_drugs=4, doses=[100.0, 1_000.0], n_groups=1)
    columns = {"dose_col": "dose_value"}
    scgap.pp.split(adata, **columns, holdout={"perturbation": ["drug_1"]}, fraction=1 / 3)
    options = {"encoding": adata.uns["drug_descriptors"], "n_iters": 50}
    fold = tasks.Fold("simulated", "drug_1", adata, columns, options)
    found = []
    for name in ("scgap", methods.EFFECTS, "pooled map", "one map each", "true map"):
        moved, note = methods.METHODS[name].predict(fold, 0)
        table = score(fold, moved)
        found.append(table.assign(**note, seed=0, method=table["method"].replace("prediction", name)))
    return pd.concat(found, ignore_index=True)


def slug(name: str) -> str:
    """A name of a file."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name)


def collect(names: list[str], cache: Path) -> pd.DataFrame:
    """All scores in the cache."""
    files = [file for name in names for file in sorted((cache / name).glob("*/*.csv"))]
    if not files:
        raise SystemExit(f"No scores of {', '.join(names)} in {cache}. Run without --tables first.")
    return pd.concat([pd.read_csv(file, index_col=0) for file in files], ignore_index=True)


if __name__ == "__main__":
    main()
