"""Fits of several maps that leave conditions out: what they keep, what they predict, and where that errs."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist, pdist

import scgap
from scgap import _folds, _further_maps, _train, _transfer
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
    assert len(model.others) == _fit_transport.N_MAPS - 1
    table = model.validation
    assert "unseen perturbation" in set(table["support"])
    assert not table["condition_label"].str.contains("|".join(f"{drug} " for drug in HELD_OUT)).any()
    assert table["error"].mean() < table["identity"].mean()
    unseen = table.loc[table["support"] == "unseen perturbation", "error"]
    assert model.expected_error("unseen perturbation") == pytest.approx(unseen.mean())
    assert model.expected_error("seen") == model.history["valid"].min()
    assert np.isnan(model.expected_error("unseen group"))


@pytest.mark.parametrize("query", [SEEN, UNSEEN])
def test_predictions_are_the_mean_of_the_maps(validated, query):
    model = model_from_uns(validated.uns["scgap"])
    screened = scgap.tl.screen(validated, [query], progress=False)
    condition = parse_condition(model.design, query)
    arrays = ConditionArrays(*(array[0] for array in encode_conditions(model.encoding, [condition])))
    points = np.array(validated[screened.obs["source_cell"]].X)
    several = [transport_cells(model.network, weights, points, arrays) for weights in (model.weights, *model.others)]
    np.testing.assert_allclose(screened.X, np.mean(several, axis=0), rtol=1e-5, atol=1e-5)
    spread = np.sqrt(np.var(several, axis=0).sum(1))
    np.testing.assert_allclose(screened.obs["spread"], spread, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def pairs():
    """Six drugs and three of their pairs, while a fourth pair is held out."""
    adata = scgap.datasets.simulate_screen(4_000, n_features=4, n_drugs=6, doses=[100.0], n_groups=1, n_combinations=4)
    scgap.pp.split(adata, dose_col="dose_value", holdout={"perturbation": [pair_of(adata)]})
    options = {"n_iters": 40, "n_maps": 2, "condition_folds": 3, "hidden": (16,), "batch_size": 64}
    scgap.tl.fit_transport(adata, dose_col="dose_value", sep="+", split_col="split", progress=False, **options)
    return adata


def pair_of(adata):
    return next(label for label in adata.obs["perturbation"].unique() if "+" in label)


@pytest.mark.parametrize("detail", [1.0, 0.25])
def test_pairs_are_added_up_with_the_detail_that_was_chosen(pairs, detail):
    adata = pairs.copy()
    params = json.loads(adata.uns["scgap"]["params"])
    assert params["resolved"]["detail_of_sums"] in _transfer.DETAILS
    params["resolved"]["detail_of_sums"] = detail
    adata.uns["scgap"]["params"] = json.dumps(params)
    query = {"perturbation": pair_of(adata), "dose_value": 100.0}
    screened = scgap.tl.screen(adata, [query], progress=False)
    model = model_from_uns(adata.uns["scgap"])
    arrays = ConditionArrays(
        *(array[0] for array in encode_conditions(model.encoding, [parse_condition(model.design, query)]))
    )
    points = np.array(adata[screened.obs["source_cell"]].X)
    maps = [model.weights, *model.others]
    several = [transport_cells(model.network, weights, points, arrays, detail=detail) for weights in maps]
    np.testing.assert_allclose(screened.X, np.mean(several, axis=0), rtol=1e-5, atol=1e-5)


def test_what_a_fit_chooses_is_what_predicts(pairs, monkeypatch):
    adata, chosen = pairs.copy(), iter([0.5, 0.0, 0.0, 0.0])  # of the fit, and of three folds
    monkeypatch.setattr(_transfer, "choose_detail", lambda *args, **options: next(chosen))
    monkeypatch.setattr(_further_maps, "choose_detail", lambda *args, **options: next(chosen))
    options = {"n_iters": 40, "n_maps": 2, "condition_folds": 3, "hidden": (16,), "batch_size": 64}
    scgap.tl.fit_transport(adata, dose_col="dose_value", sep="+", split_col="split", progress=False, **options)
    assert model_from_uns(adata.uns["scgap"]).detail_of_sums == 0.5
    first, again = (each.uns["scgap"]["validation"] for each in (pairs, adata))
    moved = first["error"] != again["error"]
    is_pair = first["condition_label"].str.contains(r"\+")
    assert set(first.loc[moved, "condition_label"]) <= set(first.loc[is_pair, "condition_label"])
    assert moved.any()


def test_pairs_that_a_fold_trains_choose_its_detail(pairs, monkeypatch):
    adata, choose_detail, judged = pairs.copy(), _transfer.choose_detail, []

    def noting(weights, combinations, *, data, setup):
        judged.append((combinations, data))
        return choose_detail(weights, combinations, data=data, setup=setup)

    monkeypatch.setattr(_transfer, "choose_detail", noting)
    monkeypatch.setattr(_folds, "MIN_SUMS", 1)
    options = {"n_iters": 5, "n_maps": 1, "condition_folds": 3, "hidden": (16,), "batch_size": 64}
    scgap.tl.fit_transport(adata, dose_col="dose_value", sep="+", split_col="split", progress=False, **options)
    assert any(len(combinations) for combinations, _ in judged)
    for combinations, data in judged:
        assert data.n_conditions < (pairs.uns["scgap"]["conditions"]["split"] == "train").sum()
        is_pair = np.asarray(data.conditions.presence)[: data.n_conditions].astype(bool).sum(1) == 2
        assert set(combinations) <= set(np.flatnonzero(is_pair))


def test_maps_without_a_detail_have_all_of_it(pairs):
    adata = pairs.copy()
    params = json.loads(adata.uns["scgap"]["params"])
    del params["resolved"]["detail_of_sums"]
    adata.uns["scgap"]["params"] = json.dumps(params)
    assert model_from_uns(adata.uns["scgap"]).detail_of_sums == 1.0


def test_one_map_is_the_first_of_three(validated):
    alone = fit(validated, n_maps=1, condition_folds=0, copy=True)
    assert not {"others", "validation"} & set(alone.uns["scgap"])
    first, one = (model_from_uns(adata.uns["scgap"]).weights["network"] for adata in (validated, alone))
    np.testing.assert_array_equal(first["displacement"]["kernel"], one["displacement"]["kernel"])


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


def test_short_fits_have_one_map_and_leave_nothing_out(validated):
    assert not {"others", "validation"} & set(fit(validated, n_iters=5, copy=True).uns["scgap"])


def test_how_long_further_maps_run(validated, monkeypatch):
    monkeypatch.setattr(_train, "PATIENCE", 1)
    monkeypatch.setattr(_train, "PATIENT_ITERS", 1)
    train, lengths = _transfer._fit, []

    def noting(*args, n_reports=_train.N_REPORTS, **options):
        lengths.append((options["n_iters"], n_reports))
        return train(*args, n_reports=n_reports, **options)

    monkeypatch.setattr(_transfer, "_fit", noting)
    fit(validated, n_iters=400, learning_rate=0.1, n_maps=3, condition_folds=2)
    last = int(validated.uns["scgap"]["history"]["iteration"].iloc[-1])
    assert last < 400
    assert lengths == [(200, 40)] * 2 + [(-(-last // 5), 8)] * 2


def test_left_out_groups_are_predicted_as_predict_does(monkeypatch):
    """By other groups in their stead: one drug in three lines, of which each fold leaves one out."""
    adata = scgap.datasets.simulate_screen(900, n_features=3, n_drugs=1, doses=[10.0], n_groups=3, seed=2)
    movers, predicted = [], []
    make_mover, transfer_errors = _further_maps.make_mover, _further_maps.transfer_errors

    def noting_mover(*args):
        movers.append(make_mover(*args))
        return movers[-1]

    def noting_errors(move, cells, i):
        predicted.append((movers[-1], move, i))
        return transfer_errors(move, cells, i)

    monkeypatch.setattr(_further_maps, "make_mover", noting_mover)
    monkeypatch.setattr(_further_maps, "transfer_errors", noting_errors)
    options = {"n_iters": 200, "n_maps": 2, "condition_folds": 3, "hidden": (16,), "progress": False}
    scgap.tl.fit_transport(adata, **COLUMNS, **options)
    model = model_from_uns(adata.uns["scgap"])
    assert set(model.validation["support"]) == {"unseen group"}
    assert len(predicted) == 3
    lines, points = ["line_1", "line_2", "line_3"], adata.X[:50]
    for mover, move, i in predicted:
        assert not mover.model.others  # a fold has one map
        near, each = [], []
        for j in set(range(3)) - {i}:
            near.append(1.0 / ((points - model.control_means[j]) ** 2).sum(1))
            condition = parse_condition(
                model.design, {"perturbation": "drug_1", "dose_value": 10.0, "cell_line": lines[j]}
            )
            arrays = ConditionArrays(*(array[0] for array in encode_conditions(model.encoding, [condition])))
            each.append(transport_cells(model.network, mover.model.weights, points, arrays))
        shares = np.array(near) / np.sum(near, axis=0)
        np.testing.assert_allclose(move(points), (shares[:, :, None] * each).sum(0), atol=1e-5)


def energy(x, y):
    return 2 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean()


def test_left_out_conditions_are_judged_by_all_their_training_cells(pairs, monkeypatch):
    """Where these are few: the errors are energy distances to the observed cells, of controls and of moved ones."""
    adata = pairs[pairs.obs["split"] != "test"]
    adata = adata[adata.obs.groupby(["perturbation", "split"], observed=True).cumcount() < 200].copy()
    moved, transfer_errors = [], _further_maps.transfer_errors

    def noting_errors(move, cells, i):
        moved.append(move)
        return transfer_errors(move, cells, i)

    monkeypatch.setattr(_further_maps, "transfer_errors", noting_errors)
    options = {"n_iters": 40, "n_maps": 1, "condition_folds": 2, "hidden": (16,), "progress": False}
    scgap.tl.fit_transport(adata, dose_col="dose_value", sep="+", split_col="split", **options)
    model = model_from_uns(adata.uns["scgap"])
    train = adata[adata.obs["split"] == "train"]
    labels = model.conditions.set_index("condition_label")["perturbation"]
    controls = np.asarray(train[train.obs["perturbation"] == "control"].X)
    for (_, row), move in zip(model.validation.iterrows(), moved, strict=True):
        target = np.asarray(train[train.obs["perturbation"] == labels[row["condition_label"]]].X)
        assert row["identity"] == pytest.approx(energy(controls, target), rel=1e-3, abs=1e-4)
        assert row["error"] == pytest.approx(energy(move(controls), target), rel=1e-3, abs=1e-4)


def test_embeddings_of_new_groups_are_between_those_of_trained_ones():
    adata = scgap.datasets.simulate_screen(900, n_features=3, n_drugs=2, doses=[10.0], n_groups=3, seed=2)
    scgap.pp.split(adata, **COLUMNS, holdout={"cell_line": ["line_2"]})
    scgap.tl.fit_transport(adata, **COLUMNS, split_col="split", n_iters=20, hidden=(16,), progress=False)
    model = model_from_uns(adata.uns["scgap"])
    embedding = pd.DataFrame(model.embedding, pd.MultiIndex.from_frame(model.conditions[["perturbation", "cell_line"]]))
    for drug in ("drug_1", "drug_2"):
        of_drug = embedding.loc[drug]
        assert of_drug.loc["line_1"].ne(of_drug.loc["line_3"]).any()
        np.testing.assert_allclose(of_drug.loc["line_2"], of_drug.loc[["line_1", "line_3"]].mean(), atol=1e-6)


def test_a_single_condition_is_not_left_out(validated):
    two = validated[validated.obs["perturbation"].isin(["control", "drug_5"])].copy()
    two = two[two.obs["dose_value"].isin([0.0, 10.0]) & (two.obs["cell_line"] == "line_1")].copy()
    scgap.tl.fit_transport(two, dose_col="dose_value", n_iters=5, n_maps=2, condition_folds=3, progress=False)
    assert len(two.uns["scgap"]["others"]) == 1
    assert "validation" not in two.uns["scgap"]


@pytest.mark.parametrize(
    ("step", "kept"), [("choose_detail", set()), ("fit_others", set()), ("fit_without", {"others"})]
)
def test_ctrl_c_keeps_the_maps_before(validated, monkeypatch, step, kept):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(_further_maps, step, interrupted)
    with pytest.warns(UserWarning, match="Interrupted while further maps were trained"):
        fit(validated, n_iters=5, n_maps=2, condition_folds=3)
    assert {"others", "validation"} & set(validated.uns["scgap"]) == kept


@pytest.mark.parametrize("error", [FloatingPointError("at iteration 3"), KeyboardInterrupt()])
@pytest.mark.parametrize(("last", "n_others", "n_folds"), [(2, 1, 0), (5, 2, 2)])
def test_what_was_trained_before_a_divergence_or_ctrl_c_is_kept(validated, monkeypatch, error, last, n_others, n_folds):
    train, calls, options = _transfer._fit, [], {"n_iters": 5, "n_maps": 3, "condition_folds": 3}
    whole = validated.copy()
    fit(whole, **options)

    def stop(*args, **options):
        calls.append(0)
        if len(calls) == last:
            raise error
        return train(*args, **options)

    monkeypatch.setattr(_transfer, "_fit", stop)
    with pytest.warns(UserWarning, match="what was trained before is kept"):
        fit(validated, **options)
    model, all_of_it = (model_from_uns(adata.uns["scgap"]) for adata in (validated, whole))
    assert len(model.others) == n_others
    if not n_folds:
        assert model.validation is None
    else:
        assert 0 < len(model.validation) < len(all_of_it.validation)
        pd.testing.assert_frame_equal(model.validation, all_of_it.validation[: len(model.validation)])


@pytest.mark.parametrize(("name", "least"), [("condition_folds", -1), ("n_maps", 0)])
@pytest.mark.parametrize("number", [None, 1.5, "five"])
def test_folds_and_maps_are_numbers(validated, name, least, number, refused):
    with pytest.raises((TypeError, ValueError), match=name):
        fit(validated, **{name: least if number is None else number})
