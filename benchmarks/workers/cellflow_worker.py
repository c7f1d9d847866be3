"""CellFlow (flow matching between the same populations), on cells and conditions that `rivals.write` wrote."""

import functools
import json
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pandas as pd
from anndata import AnnData
from cellflow.model import CellFlow
from cellflow.utils import match_linear
from serve import serve

model = described = None
# Its own defaults are made for thousands of genes: these widths fit a few features, and are faster for it.
DEFAULTS = {
    "width": 256,
    "learning_rate": 1e-3,
    "constant_noise": 0.1,
    "epsilon": 0.1,
    "cond_output_dropout": 0.0,
    "condition_embedding_dim": 64,
}


def read(folder, name):
    """Cells of one file, with what was done to them in obs and the vectors of all names in uns."""
    folder = Path(folder)
    design = json.loads((folder / "design.json").read_text())
    with np.load(folder / f"{name}.npz") as arrays:
        cells, of_cell = arrays["cells"], arrays["condition"]
    table = conditions(design)
    obs = table.iloc[of_cell].reset_index(drop=True)
    obs.index = obs.index.astype(str)
    vectors = {name: np.asarray(vector, np.float32) for name, vector in design["vectors"].items()}
    width = len(next(iter(vectors.values())))
    uns = {"drug": vectors | {"control": np.zeros(width, np.float32)}}
    uns["group"] = {name: np.asarray(vector, np.float32) for name, vector in design["groups"].items()}
    return AnnData(cells, obs, obsm={"X_cells": cells}, uns=uns), table, design


def conditions(design):
    """One row a condition; a condition of fewer members than others has controls in their place."""
    most = max(len(condition["members"]) for condition in design["conditions"])
    rows = []
    for condition in design["conditions"]:
        members = [*condition["members"], *[["control", None]] * most][:most]
        row = {"group": condition["group"], "control": not condition["members"]}
        row |= {f"drug_{i}": name for i, (name, _) in enumerate(members)}
        row |= {f"dose_{i}": float(np.log1p(dose or 0.0)) for i, (_, dose) in enumerate(members)}
        row["time"] = float(np.log1p(condition["time"] or 0.0))
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.astype({column: "category" for column in table if column == "group" or column.startswith("drug_")})


def load(folder, seed=0, **settings):
    """Prepare its data and its network."""
    global model, described
    adata, _, design = read(folder, "train")
    described = {**DEFAULTS, **settings}
    members = range(max(len(condition["members"]) for condition in design["conditions"]))
    covariates = {"drug": [f"drug_{i}" for i in members]}
    if design["has_doses"]:
        covariates["dose"] = [f"dose_{i}" for i in members]
    if design["has_times"]:
        covariates["time"] = ["time"]
    has_context = bool(design["groups"])
    model = CellFlow(adata)
    model.prepare_data(
        sample_rep="X_cells",
        control_key="control",
        perturbation_covariates=covariates,
        perturbation_covariate_reps={"drug": "drug"},
        sample_covariates=["group"] if has_context else None,
        sample_covariate_reps={"group": "group"} if has_context else None,
        split_covariates=["group"],
    )
    options = dict(described)
    width, rate, noise, epsilon = (options.pop(name) for name in list(DEFAULTS)[:4])
    widths = (width,) * 3
    model.prepare_model(
        time_freqs=64,
        time_encoder_dims=widths,
        hidden_dims=widths,
        decoder_dims=widths,
        probability_path={"constant_noise": noise},
        match_fn=functools.partial(match_linear, epsilon=epsilon, tau_a=1.0, tau_b=1.0),
        optimizer=optax.adam(rate),
        seed=seed,
        **options,
    )
    return {"jax": jax.__version__}


def train(n_steps):
    start = time.perf_counter()
    model.train(num_iterations=n_steps, batch_size=512, valid_freq=10**9)
    return {"seconds": time.perf_counter() - start}


def predict(folder, out):
    """Move the source cells to every condition that is asked for, each from the controls of its group."""
    cells, table, design = read(folder, "source")
    asked = table.iloc[design["queries"]].copy()
    asked["condition"] = [str(i) for i in design["queries"]]
    moved = model.predict(cells, covariate_data=asked, sample_rep="X_cells", condition_id_key="condition")
    np.savez(out, **{name: np.asarray(points) for name, points in moved.items()})
    return {}


serve(load, train, predict)
