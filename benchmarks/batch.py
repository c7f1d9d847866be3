"""Batches eight times as large, with as many updates and with as many epochs: simulated screens, held-out cells."""

import math

import held_out
import pandas as pd
from report import markdown

import scgap

METRICS = ("energy_distance", "divergence")
COLUMNS = ("error_to_true_map", *METRICS)
SMALL, LARGE, RATE = 128, 1_024, 1e-3
UPDATES = 500
SLOWER = math.sqrt(LARGE / SMALL)


def tables(*, quick: bool) -> list[str]:
    seeds, n_iters = (1, 40) if quick else (5, UPDATES)
    base = f"{SMALL}"
    cases = {
        base: {"batch_size": SMALL, "n_iters": n_iters},
        f"{LARGE:,}, equal updates": {"batch_size": LARGE, "n_iters": n_iters},
        f"{LARGE:,}, equal updates, rate of {SMALL}": {
            "batch_size": LARGE,
            "n_iters": n_iters,
            "learning_rate": RATE / SLOWER,
        },
        f"{LARGE:,}, equal epochs": {"batch_size": LARGE, "n_iters": n_iters * SMALL // LARGE},
    }
    runs = {}
    for seed in range(seeds):
        adata = held_out.make_screen(seed)
        for name, settings in cases.items():
            scgap.tl.fit_transport(adata, **held_out.SCREEN, split_col="split", **settings, seed=seed, progress=False)
            scores = held_out.scores(adata, METRICS, seed)
            runs[name, seed] = {"error_to_true_map": held_out.error_to_true_map(adata), **scores.loc["scgap"]}
            runs["ceiling", seed] = scores.loc["ceiling"].to_dict()
            print(name, seed, runs[name, seed], flush=True)
    table = pd.DataFrame(runs).T.sort_index()
    rows = []
    for name in [*cases, "ceiling"]:
        values, excess = table.loc[name], table.loc[name] - table.loc[base]
        row = {"batch size": name, "updates": cases[name]["n_iters"] if name in cases else float("nan")}
        row |= {metric.replace("_", " "): held_out.summary(values[metric]) for metric in COLUMNS}
        if name in cases and name != base:
            row |= {f"{m.replace('_', ' ')}, less that of {base}": held_out.summary(excess[m]) for m in COLUMNS}
        rows.append(row)
    return [markdown(f"Simulated screens, eight seen conditions, {seeds} seeds", rows, NOTE)]


NOTE = f"""\
Mean ± standard deviation over seeds, each of which is another screen, split and fit; differences are taken within a
seed. The rate is scaled by the root of the batch size, as always, from {RATE:g} for 512 cells, but for the row that
says so. Equal epochs means that as many cells are drawn in all. The error to the true map, cell by cell,
is in units of the true displacement."""
