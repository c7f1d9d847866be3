import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData, read_h5ad
from mudata import MuData

import scgap

OPEN = {"perturbation": "drug_1"}


def screened(adata, conditions=None, **options):
    return scgap.tl.screen(adata, conditions, progress=False, **options)


def controls(adata):
    return (adata.obs["perturbation"] == "control").to_numpy()


def equals_predictions(adata, result):
    """Whether each block is what predict gives for its condition and group."""
    for _, obs in result.obs.groupby("condition_label", observed=True):
        query = {column: obs[column].iloc[0] for column in ("perturbation", "dose_value", "cell_line")}
        expected = scgap.tl.predict(adata, query, copy=True)[obs["source_cell"].tolist()]
        np.testing.assert_allclose(result[obs.index].X, expected.layers["scgap"], rtol=1e-5, atol=1e-5)
    return True


def test_all_measured_conditions_from_all_controls(fitted, same):
    before = fitted.copy()
    result = screened(fitted)
    assert same(fitted, before)
    table = fitted.uns["scgap"]["conditions"].set_index("condition_label")
    n_controls = fitted.obs.loc[controls(fitted), "cell_line"].value_counts()
    counted = result.obs["condition_label"].value_counts()
    assert counted.to_dict() == {label: n_controls[line] for label, line in table["cell_line"].items()}
    assert list(result.var_names) == list(fitted.var_names)
    assert result.X.dtype == np.float32
    assert list(result.obsm) == []
    assert list(result.obs["support"].cat.categories) == ["seen"]  # which a plot's legend shows
    source = fitted.obs.loc[result.obs["source_cell"].tolist()]
    assert (source["perturbation"] == "control").all()
    assert (source["cell_line"].to_numpy() == result.obs["cell_line"].astype(str)).all()
    assert equals_predictions(fitted, result)


def test_so_many_cells_of_each_group(fitted):
    one, again, other = (screened(fitted, n_cells=7, seed=seed) for seed in (0, 0, 1))
    assert set(one.obs["condition_label"].value_counts()) == {7}
    np.testing.assert_array_equal(one.X, again.X)
    assert set(one.obs["source_cell"]) != set(other.obs["source_cell"])
    # The same cells under every condition of a group.
    of = one.obs.groupby("condition_label", observed=True)["source_cell"].agg(lambda cells: tuple(cells))
    assert of.nunique() == 2
    assert screened(fitted, n_cells=10**6).n_obs == screened(fitted).n_obs


def test_queries_are_expanded(fitted):
    result = screened(
        fitted, ["drug_1", {"perturbation": "Drug 2", "dose_value": 50, "cell_line": "line_2"}], n_cells=3
    )
    expected = {"drug_1 100, line_1", "drug_1 100, line_2", "drug_1 1000, line_1", "drug_1 1000, line_2"}
    assert set(result.obs["condition_label"]) == {*expected, "drug_2 50, line_2"}
    assert result.obs["condition_label"].value_counts().eq(3).all()
    support = result.obs.groupby("condition_label", observed=True)["support"].first()
    assert support["drug_2 50, line_2"] == "extrapolated dose"
    assert equals_predictions(fitted, result)


def test_what_is_named_twice_is_predicted_once(fitted):
    result = screened(fitted, ["drug_1 100", "drug_1 100, line_1", {**OPEN, "dose_value": 100}], n_cells=3)
    assert result.n_obs == 6


def test_tables_of_queries(fitted):
    resolved = scgap.tl.resolve(fitted, OPEN)
    written = pd.DataFrame({"perturbation": ["drug_1", "drug_1"], "dose_value": [100, 1_000]})
    results = [screened(fitted, table, n_cells=5) for table in (resolved, written, [OPEN])]
    for other in results[1:]:
        order = [result.obs.sort_values(["condition_label", "source_cell"]).index for result in (results[0], other)]
        np.testing.assert_array_equal(results[0][order[0]].X, other[order[1]].X)


def test_control_is_a_condition(fitted):
    result = screened(fitted, ["control"], n_cells=5)
    np.testing.assert_array_equal(result.X, fitted[result.obs["source_cell"].tolist()].X)
    assert set(result.obs["support"]) == {"control"}


def test_cells_to_move_may_be_named(fitted):
    source = controls(fitted) & (fitted.obs["cell_line"] == "line_2").to_numpy()
    result = screened(fitted, source=source)
    assert set(result.obs["cell_line"]) == {"line_2"}
    assert result.obs["condition_label"].nunique() == 6
    assert result.n_obs == 6 * source.sum()


def test_pca_is_decoded(screen, settings):
    sc.pp.pca(screen, n_comps=10)
    scgap.tl.fit_transport(screen, use_rep="X_pca", **settings)
    result = screened(screen, n_cells=20)
    assert result.shape == (20 * 12, screen.n_vars)
    assert result.obsm["X_scgap"].shape == (20 * 12, 10)
    assert result.obsm["X_scgap"].dtype == result.X.dtype == np.float32
    assert equals_predictions(screen, result)
    points = screened(screen, n_cells=20, decoded=False)
    np.testing.assert_array_equal(points.X, result.obsm["X_scgap"])
    source = screen[result.obs["source_cell"].tolist()]
    moved = source.X + (result.obsm["X_scgap"] - source.obsm["X_pca"]) @ screen.varm["PCs"].T
    np.testing.assert_allclose(result.X, moved, atol=1e-4)


def test_an_autoencoder_is_decoded(screen, settings):
    scgap.pp.autoencoder(screen, n_latent=4, hidden=(16,), n_epochs=3, split_col="split", progress=False)
    scgap.tl.fit_transport(screen, use_rep="X_ae", **settings)
    result = screened(screen, n_cells=20)
    assert result.shape == (20 * 12, screen.n_vars)
    assert list(result.var_names) == list(screen.var_names)
    assert result.obsm["X_scgap"].shape == (20 * 12, 4)
    assert equals_predictions(screen, result)
    np.testing.assert_array_equal(screened(screen, n_cells=20, decoded=False).X, result.obsm["X_scgap"])


def test_features_have_names_decoded_or_not(fitted):
    result = screened(fitted, n_cells=2, decoded=False)
    assert list(result.var_names) == list(fitted.var_names)
    np.testing.assert_array_equal(result.X, screened(fitted, n_cells=2).X)


def test_an_embedding_without_decoder(screen, settings):
    screen.obsm["X_other"] = screen.X[:, :5].copy()
    scgap.tl.fit_transport(screen, use_rep="X_other", **settings)
    result = screened(screen, n_cells=4, decoded=False)
    assert result.shape == (48, 5)
    with pytest.warns(UserWarning, match=r"'X_other' has no decoder: X is in its space. Pass decoded=False") as log:
        np.testing.assert_array_equal(screened(screen, n_cells=4).X, result.X)
    assert log[0].filename == __file__


def test_drugs_that_no_cell_trained(encoded):
    result = screened(encoded, [{"perturbation": "drug_2", "dose_value": 100}], n_cells=4)
    assert set(result.obs["support"]) == {"unseen perturbation"}
    assert equals_predictions(encoded, result)


def test_drugs_without_a_vector_are_left_out(screen, settings, refused):
    scgap.pp.split(screen, holdout={"perturbation": ["drug_2"]}, dose_col="dose_value", group_col="cell_line")
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    with pytest.warns(UserWarning, match=r"No vector for a perturbation of 'drug_2 100, line_1'.*left out") as log:
        result = screened(screen, n_cells=2)
    assert log[0].filename == __file__
    assert set(result.obs["perturbation"]) == {"drug_1", "drug_3"}
    with refused(screen, KeyError, "No vector for 'drug_2'"):
        screened(screen, ["drug_2"])


def test_groups_that_were_not_trained_on(screen, settings):
    scgap.pp.split(screen, holdout={"cell_line": ["line_2"]}, dose_col="dose_value", group_col="cell_line")
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    with pytest.warns(UserWarning, match="'cell_line' 'line_2' was not trained on"):
        result = screened(screen, n_cells=2)
    assert set(result.obs.loc[result.obs["cell_line"] == "line_2", "support"]) == {"unseen group"}
    screened(screen, [{"cell_line": "line_1"}], n_cells=2)  # and no warning


def test_combinations(pairs, tmp_path):
    result = screened(pairs, [["A", "B"], "A+C", {"genes": ["A", "B", "C"]}][1:], n_cells=3)
    assert set(result.obs["condition_label"]) == {
        f"{s}, {g}" for s in ("A + C", "A + B + C") for g in ("line_1", "line_2")
    }
    result.write_h5ad(tmp_path / "combinations.h5ad")


def test_modalities_of_a_mudata(fitted):
    protein = AnnData(fitted.X, obs=pd.DataFrame(index=fitted.obs_names), var=fitted.var, uns=fitted.uns)
    mdata = MuData({"protein": protein})
    mdata.obs = fitted.obs
    result = screened(mdata, n_cells=5, mod="protein")
    np.testing.assert_array_equal(result.X, screened(fitted, n_cells=5).X)


@pytest.mark.parametrize(
    ("conditions", "options", "error", "words"),
    [
        (["drug_9"], {}, KeyError, ("No vector for 'drug_9'", "encoding=")),
        ([OPEN, "drgu_1"], {}, KeyError, ("No vector for 'drgu_1'", "Did you mean 'drug_1'?")),
        ("drug_1", {}, TypeError, ("conditions is a single query", "Pass a list")),
        (OPEN, {}, TypeError, ("conditions is a single query",)),
        ([], {}, ValueError, ("conditions is empty",)),
        ([{"dose_value": 55}], {}, ValueError, ("No measured condition has dose_value=55.0",)),
        ([{**OPEN, "cell_line": "line_9"}], {}, ValueError, ("name the group 'line_9'", "are of 'line_1', 'line_2'")),
        (None, {"n_cells": 0}, ValueError, ("n_cells=0. Pass a whole number from 1 on",)),
        (None, {"source": []}, ValueError, ("source selects no cells",)),
        (None, {"key": "other"}, KeyError, ("'other' is not in adata.uns",)),
    ],
)
def test_wrong_questions_are_refused(fitted, refused, conditions, options, error, words):
    with refused(fitted, error, *words):
        screened(fitted, conditions, **options)


def test_what_scanpy_and_anndata_do_with_it(fitted, tmp_path):
    result = screened(fitted, n_cells=10)
    result.write_h5ad(tmp_path / "screen.h5ad")
    read = read_h5ad(tmp_path / "screen.h5ad")
    np.testing.assert_array_equal(read.X, result.X)
    for column in result.obs:
        assert read.obs[column].astype(str).tolist() == result.obs[column].astype(str).tolist()
    sc.pp.pca(result, n_comps=5)
    assert result.obsm["X_pca"].shape == (120, 5)
    both = anndata.concat({"observed": fitted, "predicted": result}, label="what", index_unique="-")
    assert both.n_obs == fitted.n_obs + 120


@pytest.mark.slow  # importing pertpy takes seconds
@pytest.mark.filterwarnings("default")  # of others
def test_pertpy_takes_it(fitted):
    import pertpy as pt

    result = screened(fitted, ["control", *fitted.uns["scgap"]["conditions"]["condition_label"]], n_cells=20)
    result.obsm["X_pca"] = result.X
    distances = pt.tl.Distance("edistance", obsm_key="X_pca").pairwise(result, groupby="condition_label")
    assert distances.shape == (14, 14)
    assert np.isfinite(distances.to_numpy()).all()
    space = pt.tl.PseudobulkSpace().compute(result, target_col="perturbation", groups_col="cell_line", mode="mean")
    assert space.n_obs == 8


def test_tables_of_single_precision_ask_for_measured_doses(screen, settings):
    screen.obs["dose_value"] = (screen.obs["dose_value"] / 1_000).astype(np.float32)
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    columns = ["perturbation", "dose_value", "cell_line"]
    table = screen.obs.loc[screen.obs["perturbation"] != "control", columns].drop_duplicates()
    result = screened(screen, conditions=table, n_cells=2)
    assert set(result.obs["support"]) == {"seen"}
    assert "drug_1 0.1, line_1" in set(result.obs["condition_label"])
