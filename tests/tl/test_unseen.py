"""Fits that leave conditions out: what they keep, what predicts unseen conditions, and where that errs."""

import anndata
import numpy as np
import pandas as pd
import pytest

import scgap
from scgap._arrays import ConditionArrays
from scgap._conditions import parse_condition
from scgap._encoding import encode_conditions
from scgap._map import transport_cells
from scgap._model import model_from_uns
from scgap.datasets import true_transport
from scgap.tl import _fit_transport

COLUMNS = {"dose_col": "dose_value", "group_col": "cell_line"}
SEEN, UNSEEN = ({"perturbation": drug, "dose_value": 100.0, "cell_line": "line_1"} for drug in ("drug_5", "drug_1"))
HELD_OUT = ["drug_1", "drug_2", "drug_3"]


def fit(adata, **options):
    settings = {"split_col": "split", "hidden": (64, 64), "batch_size": 128, "progress": False, "n_iters": 3_000}
    encoding = adata.uns["drug_descriptors"]
    return scgap.tl.fit_transport(adata, **COLUMNS, encoding=encoding, **settings | options)


@pytest.fixture(scope="module")
def _validated():
    adata = scgap.datasets.simulate_screen(9_000, n_features=6, n_drugs=16, doses=[10.0, 100.0], n_groups=2, seed=1)
    scgap.pp.split(adata, **COLUMNS, holdout={"perturbation": HELD_OUT})
    fit(adata, condition_folds=3)
    return adata


@pytest.fixture
def validated(_validated):
    return _validated.copy()


def test_what_is_kept(validated):
    model = model_from_uns(validated.uns["scgap"])
    assert len(model.unseen.maps) == _fit_transport.N_MAPS
    table = model.unseen.validation
    assert "unseen perturbation" in set(table["support"])
    assert not table["condition_label"].str.contains("|".join(f"{drug} " for drug in HELD_OUT)).any()
    assert table["error"].mean() < table["identity"].mean()


def test_unseen_conditions_take_the_mean_of_the_maps(validated):
    model = model_from_uns(validated.uns["scgap"])
    scgap.tl.predict(validated, UNSEEN)
    moved = validated.obs["scgap_transported"].to_numpy()
    condition = parse_condition(model.design, UNSEEN)
    arrays = ConditionArrays(*(array[0] for array in encode_conditions(model.encoding, [condition])))
    points = validated.X[moved]
    mean = np.mean([transport_cells(model.network, weights, points, arrays) for weights in model.unseen.maps], axis=0)
    np.testing.assert_allclose(validated.layers["scgap"][moved], mean, rtol=1e-5, atol=1e-5)


def test_seen_conditions_keep_the_one_map(validated):
    alone = fit(validated, condition_folds=0, copy=True)
    assert "unseen" not in alone.uns["scgap"]
    one, other = (scgap.tl.predict(adata, SEEN, copy=True).layers["scgap"] for adata in (alone, validated))
    np.testing.assert_array_equal(one, other)


def test_round_trips(validated, tmp_path):
    expected = scgap.tl.predict(validated, UNSEEN, copy=True).layers["scgap"]
    validated.write_h5ad(tmp_path / "cells.h5ad")
    scgap.write_transport(validated, tmp_path / "map.safetensors")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    validated.uns["read"] = scgap.read_transport(tmp_path / "map.safetensors")
    for adata, key in ((again, "scgap"), (validated, "read")):
        np.testing.assert_array_equal(scgap.tl.predict(adata, UNSEEN, key=key, copy=True).layers[key], expected)


def test_error_rises_with_spread(validated):
    """Of single cells and of conditions, against where the simulation truly carries each cell."""
    screened = scgap.tl.screen(validated, n_cells=60, progress=False)
    rows = []
    for label, obs in screened.obs.groupby("condition_label", observed=True):
        query = {column: obs[column].iloc[0] for column in SEEN}
        truth = true_transport(validated, query, source=validated.obs_names.isin(obs["source_cell"]))
        cells = validated.obs_names[validated.obs_names.isin(obs["source_cell"])]
        truth = pd.DataFrame(truth, cells).loc[obs["source_cell"].astype(str)].to_numpy()
        error = np.linalg.norm(screened[obs.index].X - truth, axis=1)
        rows.append((label, obs["support"].iloc[0], error.mean(), obs["spread"].mean()))
    table = pd.DataFrame(rows, columns=["label", "support", "error", "spread"])
    assert table["error"].corr(table["spread"], "spearman") > 0.5
    by_tier = table.groupby("support", observed=True)[["error", "spread"]].mean()
    assert (by_tier.loc["unseen perturbation"] > by_tier.loc["seen"]).all()


def test_scores_have_the_spread_of_the_map(validated):
    scores = scgap.tl.evaluate(validated, metrics=["energy_distance"], baselines=["identity"])
    of_map = scores["method"] == "scgap"
    assert scores.loc[of_map, "spread"].gt(0).all()
    assert scores.loc[~of_map, "spread"].isna().all()
    assert "spread" not in scgap.tl.evaluate(fit(validated, n_iters=5, copy=True), metrics=["r2"], baselines=[])


def test_short_fits_and_single_conditions_leave_nothing_out(validated):
    assert "unseen" not in fit(validated, n_iters=5, copy=True).uns["scgap"]
    two = validated[validated.obs["perturbation"].isin(["control", "drug_5"])].copy()
    two = two[two.obs["dose_value"].isin([0.0, 10.0]) & (two.obs["cell_line"] == "line_1")].copy()
    scgap.tl.fit_transport(two, dose_col="dose_value", n_iters=5, condition_folds=3, progress=False)
    assert "unseen" not in two.uns["scgap"]


def test_ctrl_c_keeps_the_one_map(validated, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(_fit_transport, "fit_unseen", interrupted)
    with pytest.warns(UserWarning, match="Interrupted while conditions were left out"):
        fit(validated, n_iters=5, condition_folds=3)
    assert "unseen" not in validated.uns["scgap"]


@pytest.mark.parametrize("folds", [-1, 1.5, "five"])
def test_condition_folds_is_a_number(validated, folds, refused):
    with pytest.raises((TypeError, ValueError), match="condition_folds"):
        fit(validated, condition_folds=folds)
