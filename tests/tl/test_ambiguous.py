"""Predictions of queries that leave something open, or write it in other words."""

import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad

import scgap

OPEN = {"perturbation": "drug_3"}


def predicted(adata, condition, **options):
    return scgap.tl.predict(adata, condition, copy=True, **options).layers["scgap"]


def test_expand_predicts_each(fitted):
    scgap.tl.predict(fitted, OPEN, on_ambiguous="expand", key_added="each")
    queries = fitted.uns["scgap"]["predictions"]
    assert {name: json.loads(query)["dose_value"] for name, query in queries.items()} == {"each_1": 100, "each_2": 1000}
    for i, dose in enumerate((100.0, 1_000.0)):
        expected = predicted(fitted, {**OPEN, "dose_value": dose})
        np.testing.assert_array_equal(fitted.layers[f"each_{i + 1}"], expected)
    assert {"each_1_transported", "each_2_transported"} <= set(fitted.obs)
    assert "each" not in fitted.layers


def test_expand_of_what_leaves_nothing_open_is_one_prediction(fitted):
    query = {**OPEN, "dose_value": 100}
    np.testing.assert_array_equal(predicted(fitted, query, on_ambiguous="expand"), predicted(fitted, query))


def test_marginal_moves_each_cell_to_one_of_the_conditions(fitted):
    result = scgap.tl.predict(fitted, OPEN, on_ambiguous="marginal", copy=True)
    moved, named = result.obs["scgap_transported"].to_numpy(), result.obs["scgap_condition"]
    assert named.notna().to_numpy().tolist() == moved.tolist()
    assert set(named.dropna()) == {"drug_3 100", "drug_3 1000"}
    for label in named.cat.categories:
        rows = (named == label).to_numpy()
        expected = predicted(fitted, label)[rows]  # the label is a query
        np.testing.assert_allclose(result.layers["scgap"][rows], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result.layers["scgap"][~moved], fitted.X[~moved])
    assert json.loads(result.uns["scgap"]["predictions"]["scgap"]) == OPEN


def test_marginal_is_seeded(fitted):
    one, again, other = (
        scgap.tl.predict(fitted, OPEN, on_ambiguous="marginal", seed=seed, copy=True) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.layers["scgap"], again.layers["scgap"])
    assert (one.obs["scgap_condition"] != other.obs["scgap_condition"]).any()


def test_shares_are_those_of_the_measured_cells_in_each_group(screen, settings):
    obs = screen.obs
    is_high = (obs["perturbation"] == "drug_3") & (obs["dose_value"] == 1_000)
    # Of the high dose all cells in line_1, a third in line_2.
    kept = ~is_high | (obs["cell_line"] == "line_1") | (np.arange(screen.n_obs) % 3 == 0)
    low = (obs["perturbation"] == "drug_3") & (obs["dose_value"] == 100) & (obs["cell_line"] == "line_1")
    adata = screen[kept & (~low | (np.arange(screen.n_obs) % 4 == 0))].copy()
    scgap.tl.fit_transport(adata, **{**settings, "n_iters": 0})
    rows = np.resize(np.flatnonzero(adata.obs["perturbation"] == "control"), 4_000)
    many = AnnData(adata.X[rows], obs=adata.obs.iloc[rows].reset_index(drop=True).rename(str), var=adata.var)
    many.uns["scgap"] = adata.uns["scgap"]
    scgap.tl.predict(many, OPEN, on_ambiguous="marginal")
    for line in ("line_1", "line_2"):
        measured = adata.obs[(adata.obs["perturbation"] == "drug_3") & (adata.obs["cell_line"] == line)]
        drawn = many.obs.loc[many.obs["cell_line"] == line, "scgap_condition"]
        share = (measured["dose_value"] == 1_000).mean()
        assert abs((drawn == "drug_3 1000").mean() - share) < 0.04
    assert abs(share - 0.75) > 0.2  # the lines differ


def test_a_new_prediction_forgets_the_mixture(fitted):
    fitted.obs["mine_condition"] = "my own"
    scgap.tl.predict(fitted, OPEN, on_ambiguous="marginal")
    scgap.tl.predict(fitted, {**OPEN, "dose_value": 100})
    for _ in range(2):
        scgap.tl.predict(fitted, {**OPEN, "dose_value": 100}, key_added="mine")
    assert "scgap_condition" not in fitted.obs
    assert (fitted.obs["mine_condition"] == "my own").all()


def test_a_mixture_survives_a_file(fitted, tmp_path):
    scgap.tl.predict(fitted, OPEN, on_ambiguous="marginal")
    fitted.write_h5ad(tmp_path / "mixture.h5ad")
    read = read_h5ad(tmp_path / "mixture.h5ad")
    assert read.obs["scgap_condition"].astype(str).tolist() == fitted.obs["scgap_condition"].astype(str).tolist()


def test_moments_of_a_mixture(fitted):
    scgap.tl.predict(fitted, OPEN, on_ambiguous="marginal")
    axes = scgap.pl.moments(fitted, moments=["mean", "std"], show=False)
    assert axes[0].figure.get_suptitle() == "drug_3 100, drug_3 1000"
    observed = fitted.X[(fitted.obs["perturbation"] == "drug_3").to_numpy() & (fitted.obs["cell_line"] == "line_1")]
    drawn = np.concatenate([points.get_offsets()[:, 0] for points in axes[0].collections if len(points.get_offsets())])
    assert np.isclose(drawn[:, None], observed.mean(0), atol=1e-4).any(axis=0).all()


@pytest.mark.parametrize(
    "condition",
    [
        "Drug 3 1000",
        "DRUG-3, 1000",
        {"perturbation": "the third", "dose_value": 1_000},
        "the third @ 1000",
        "1000; drug_3",
        pd.Series({"perturbation": "drug 3", "dose_value": "1e3"}),
    ],
)
def test_other_words_for_the_same_condition(fitted, condition):
    expected = predicted(fitted, {"perturbation": "drug_3", "dose_value": 1_000})
    np.testing.assert_array_equal(predicted(fitted, condition, aliases={"The Third": "drug_3"}), expected)


def test_groups_have_aliases_too(fitted):
    expected = predicted(fitted, {"perturbation": "drug_3", "dose_value": 1_000, "cell_line": "line_2"})
    found = predicted(fitted, "drug_3 1000, MCF 7", aliases={"mcf-7": "line_2"})
    np.testing.assert_array_equal(found, expected)


def test_units(screen, settings):
    scgap.tl.fit_transport(screen, dose_unit="dose_unit", **{**settings, "n_iters": 20})
    expected = predicted(screen, {"perturbation": "drug_3", "dose_value": 1_000})
    for query in ("drug_3 1 uM", {"perturbation": "drug_3", "dose_value": "0.001 mM"}, "drug_3, 1 µM"):
        np.testing.assert_array_equal(predicted(screen, query), expected)


@pytest.mark.parametrize(
    ("condition", "options", "error", "words"),
    [
        ("drug_3", {}, ValueError, ("leaves 'dose_value' open", "'drug_3 100', 'drug_3 1000'", "Give a value")),
        ("drug_3", {"on_ambiguous": "mean"}, ValueError, ("'mean' is not in the ways of on_ambiguous", "'marginal'")),
        ("drgu_3 100", {"on_ambiguous": "expand"}, KeyError, ("No vector for 'drgu_3'", "Did you mean 'drug_3'?")),
        ("drug_3 1 uM", {}, ValueError, ("'1 uM' has a unit", "fit with the unit of the column")),
        ({"cell_line": "line_9"}, {"on_ambiguous": "marginal"}, ValueError, ("No measured condition has",)),
    ],
)
def test_what_stays_open_is_refused(fitted, refused, condition, options, error, words):
    with refused(fitted, error, *words):
        scgap.tl.predict(fitted, condition, **options)


def test_expansions_write_over_nothing_else(fitted, refused):
    fitted.layers["each_2"] = fitted.X.copy()
    with refused(fitted, ValueError, "adata.layers['each_2'] exists and is not a prediction"):
        scgap.tl.predict(fitted, OPEN, on_ambiguous="expand", key_added="each")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"dose_unit": "dose_units"}, KeyError, ("'dose_units' is not in adata.obs", "Did you mean 'dose_unit'?")),
        ({"dose_unit": "cell_line"}, ValueError, ("holds the units 'line_1', 'line_2'", "Convert")),
        ({"dose_unit": 3}, TypeError, ("dose_unit is an int",)),
        ({"time_unit": "h"}, ValueError, ("time_unit='h' is the unit of nothing", "time_col")),
        ({"pooling": "max"}, ValueError, ("pooling='max'", '"sum", "mean" or "attention"')),
    ],
)
def test_wrong_units_and_poolings_are_refused(screen, settings, refused, arguments, error, words):
    with refused(screen, error, *words):
        scgap.tl.fit_transport(screen, **settings, **arguments)


LABELS = ["A+B", "A-B", "a_b", "x/y", "[1,2]-diol (R)", "β-estradiol µ", "5", "10 nM", "CD4+", "CD4-", "né;e"]


@pytest.mark.parametrize("pooling", ["sum", "mean", "attention"])
def test_labels_survive(screen, settings, tmp_path, pooling):
    n, control = screen.n_obs, (screen.obs["perturbation"] == "control").to_numpy()
    adata = screen.copy()
    adata.obs["label"] = np.where(control, "control", np.resize(LABELS, n))
    adata.obs["dose"] = np.where(control, 0.0, 7.0)
    design = {"target_col": "label", "dose_col": "dose", "group_col": None, "pooling": pooling}
    scgap.tl.fit_transport(adata, **{**settings, **design, "n_iters": 5, "split_col": None})
    adata.write_h5ad(tmp_path / "labels.h5ad")
    read = read_h5ad(tmp_path / "labels.h5ad")
    assert len(scgap.tl.resolve(read, {})) == len(LABELS)
    for label in LABELS:
        parts = [f" {label} ,7"] if label not in ("5", "10 nM") else []  # which may be doses
        for query in (label, {"label": label}, f"{label} 7", *parts):
            (found,) = scgap.tl.resolve(read, query).itertuples()
            assert (found.label, found.n_cells) == (label, (adata.obs["label"] == label).sum()), query
        query = {"label": label, "dose": 7}
        np.testing.assert_array_equal(predicted(read, query), predicted(adata, query))
    with pytest.raises(ValueError, match=r"'5' may be any of 'dose=5\.0', 'label=5'"):
        scgap.tl.resolve(read, "5, 7")


def test_a_shorter_expansion_leaves_nothing_of_a_longer_one(fitted):
    scgap.tl.predict(fitted, {"dose_value": 100.0}, on_ambiguous="expand", key_added="each")  # of 3 drugs
    scgap.tl.predict(fitted, "drug_1 100", key_added="each_7")  # one's own, which stays
    scgap.tl.predict(fitted, OPEN, on_ambiguous="expand", key_added="each")  # at 2 doses
    names = ["each_1", "each_2", "each_7"]
    assert [name for name in fitted.layers if name and name.startswith("each")] == names
    assert list(fitted.uns["scgap"]["predictions"]) == names
    assert [column for column in fitted.obs if column.startswith("each")] == [f"{name}_transported" for name in names]
    scgap.tl.predict(fitted, "drug_1 100", on_ambiguous="expand", key_added="each")
    assert [name for name in fitted.layers if name and name.startswith("each")] == ["each_7", "each"]
