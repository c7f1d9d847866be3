"""Both regularisations over a small grid: Sachs and simulated screens, cells split off from the training cells."""

import json

import anndata
import held_out
import pandas as pd
import sachs
from report import markdown

import scgap
from scgap.tl._fit_transport import EPSILON, GAP_EPSILON

METRICS = ("energy_distance", "divergence", "std_error")
EPSILONS = (0.01, 0.02, 0.05, 0.1, 0.2)
GAP_EPSILONS = (0.005, 0.02, 0.05, 0.1)
SETS = {
    "Sachs": (held_out.read_sachs, sachs.COLUMNS),
    "simulated screens": (held_out.make_screen, held_out.SCREEN),
}


def tables(*, quick: bool) -> list[str]:
    seeds, n_iters = (1, 40) if quick else (3, 1_000)
    grid = [(epsilon, GAP_EPSILON) for epsilon in EPSILONS]
    grid += [(EPSILON, gap_epsilon) for gap_epsilon in GAP_EPSILONS if gap_epsilon != GAP_EPSILON]
    found = []
    for name, (make, columns) in SETS.items():
        if name == "Sachs" and not held_out.has_sachs():
            found.append(held_out.NO_SACHS)
            continue
        runs = {}
        for seed in range(seeds):
            adata = training_cells(make(seed), columns, seed)
            scale = mean_cost(adata, columns)
            for epsilon, gap_epsilon in grid:
                settings = {"epsilon": epsilon * scale, "gap_epsilon": gap_epsilon * scale, "n_iters": n_iters}
                fit(adata, columns, **settings, seed=seed)
                run = held_out.scores(adata, METRICS, seed).loc["scgap"].to_dict()
                if columns is held_out.SCREEN:
                    run["error_to_true_map"] = held_out.error_to_true_map(adata)
                runs[epsilon, gap_epsilon, seed] = run
                print(name, epsilon, gap_epsilon, seed, run, flush=True)
        rows = table(pd.DataFrame(runs).T.sort_index(), grid)
        found.append(markdown(f"{name}, {n_iters:,} updates of 256 cells, {seeds} seeds", rows, NOTE))
    return found


def training_cells(adata: anndata.AnnData, columns: dict, seed: int) -> anndata.AnnData:
    """Without the test cells, by which no default may be chosen; a quarter of the others takes their place."""
    adata = adata[adata.obs["split"] != "test"].copy()
    scgap.pp.split(adata, **columns, fraction=0.25, seed=seed)
    return adata


def fit(adata: anndata.AnnData, columns: dict, **settings: float) -> None:
    scgap.tl.fit_transport(adata, **columns, split_col="split", batch_size=256, **settings, progress=False)


def mean_cost(adata: anndata.AnnData, columns: dict) -> float:
    """What the fractions are of, as a fit without updates resolves it."""
    fit(adata, columns, n_iters=0)
    return json.loads(adata.uns["scgap"]["params"])["resolved"]["epsilon"] / EPSILON


def table(runs: pd.DataFrame, grid: list[tuple[float, float]]) -> list[dict]:
    default = runs.loc[EPSILON, GAP_EPSILON]["energy_distance"]
    rows = []
    for epsilon, gap_epsilon in grid:
        values = runs.loc[epsilon, gap_epsilon]
        is_default = (epsilon, gap_epsilon) == (EPSILON, GAP_EPSILON)
        row = {"epsilon": f"{epsilon:g}", "gap_epsilon": f"{gap_epsilon:g}" + (" (defaults)" if is_default else "")}
        row["energy distance, less the defaults'"] = held_out.summary(values["energy_distance"] - default)
        rows.append(row | {name.replace("_", " "): held_out.summary(values[name]) for name in values})
    return rows


NOTE = """\
Epsilons are fractions of the mean cost. Mean ± standard deviation over seeds; differences are taken within a seed.
Scores are of cells that neither train nor choose the weights; the test cells of the other benchmarks are left out. The
error to the true map is in units of the true displacement."""
