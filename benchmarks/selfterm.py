"""The divergence's self term between independent batches, and on one batch as in the papers: Sachs, held-out cells."""

import held_out
import pandas as pd
import sachs
from report import markdown

import scgap

METRICS = (
    "energy_distance",
    "std_error",
    "skewness_error",
    "correlation_error",
    "spread",
    "same_sample_divergence",
    "divergence",
)


def tables(*, quick: bool) -> list[str]:
    if not held_out.has_sachs():
        return [held_out.NO_SACHS]
    seeds, n_iters = (1, 100) if quick else (3, 3_000)
    runs = []
    for seed in range(seeds):
        adata = held_out.read_sachs(seed)
        for debias in ("independent", "same"):
            settings = {"n_iters": n_iters, "batch_size": 256, "debias": debias, "seed": seed}
            scgap.tl.fit_transport(adata, **sachs.COLUMNS, split_col="split", **settings, progress=False)
            runs.append(held_out.scores(adata, METRICS, seed).rename({"scgap": f"scgap, {debias} self term"}))
            print(runs[-1].to_string(), flush=True)
    # What is not a map of scgap was scored twice, with the same result.
    by_method = pd.concat(runs, keys=range(len(runs)), names=["run"]).groupby("method", sort=False)
    rows = [
        {"method": method}
        | {metric.replace("_", " "): held_out.summary(values[metric].drop_duplicates()) for metric in METRICS}
        for method, values in by_method
    ]
    return [markdown(f"Sachs, ten seen conditions, {n_iters:,} updates of 256 cells, {seeds} seeds", rows, NOTE)]


NOTE = """\
Mean ± standard deviation over seeds of split and fit; lower is better, except that the right spread (standard deviation
of mapped cells in units of the observed ones') is 1. Features are in units of the training controls' standard
deviation. The ceiling is one half of the observed cells as prediction of the other."""
