"""CellFlow (flow matching between the same populations), on cells and conditions that the benchmark wrote."""

import functools
import time

import jax
import numpy as np
import optax
import pandas as pd
from anndata import AnnData
from cellflow.model import CellFlow
from cellflow.utils import match_linear
from serve import serve

model = adata = None


def read(path):
    """Cells of an .npz file; conditions are "perturbation@context-dose", controls "control@context"."""
    with np.load(path) as arrays:
        cells, labels = (
            arrays["cells"],
            pd.Series(arrays["condition"]).str.split("-").str[0].str.split("@", expand=True),
        )
    obs = pd.DataFrame({"perturbation": labels[0], "context": labels[1]}).astype("category")
    obs["control"] = obs["perturbation"] == "control"
    obs.index = obs.index.astype(str)
    cells_of = AnnData(cells, obs, obsm={"X_cells": cells})
    for column in ("perturbation", "context"):
        values = obs[column].cat.categories
        vectors = np.eye(len(values), dtype=np.float32)
        # Its controls are the null vector.
        cells_of.uns[column] = {v: vector * (v != "control") for v, vector in zip(values, vectors, strict=True)}
    return cells_of


def load(path, width):
    """Its defaults, but for the widths: the network is made to fit a few features, and is faster for it."""
    global model, adata
    adata = read(path)
    model = CellFlow(adata)
    model.prepare_data(
        sample_rep="X_cells",
        control_key="control",
        perturbation_covariates={"perturbation": ["perturbation"]},
        perturbation_covariate_reps={"perturbation": "perturbation"},
        sample_covariates=["context"],
        sample_covariate_reps={"context": "context"},
        split_covariates=["context"],
    )
    widths = (width,) * 3
    model.prepare_model(
        condition_embedding_dim=64,
        time_freqs=64,
        time_encoder_dims=widths,
        hidden_dims=widths,
        decoder_dims=widths,
        cond_output_dropout=0.0,
        probability_path={"constant_noise": 0.1},
        match_fn=functools.partial(match_linear, epsilon=0.1, tau_a=1.0, tau_b=1.0),
        optimizer=optax.adam(1e-3),
    )
    return {"jax": jax.__version__}


def train(n_steps):
    start = time.perf_counter()
    model.train(num_iterations=n_steps, batch_size=512, valid_freq=10**9)
    return {"seconds": time.perf_counter() - start}


def predict(path, out):
    """Move the control cells of a file to every condition it was trained on."""
    cells = read(path)
    asked = adata.obs.loc[~adata.obs["control"], ["perturbation", "context"]].drop_duplicates()
    asked["condition"] = asked["perturbation"].astype(str) + "@" + asked["context"].astype(str) + "-1"
    asked["control"] = False
    cells = cells[cells.obs["control"].to_numpy()].copy()
    cells.uns = adata.uns
    moved = model.predict(cells, covariate_data=asked, sample_rep="X_cells", condition_id_key="condition")
    np.savez(out, **{name: np.asarray(points) for name, points in moved.items()})
    return {}


serve(load, train, predict)
