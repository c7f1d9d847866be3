"""Fit, predict, store: what a user does, and what a user does wrong."""

import warnings

import anndata
import jax
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import scgap

COLUMNS = {"dose_col": "dose_value", "group_col": "cell_line"}
QUICK = {"n_iters": 20, "batch_size": 64, "progress": False}
CONDITION = {"perturbation": "drug_2", "dose_value": 1000.0}


@pytest.fixture(scope="module")
def trained():
    """A map trained for longer, to be judged."""
    screen = scgap.datasets.simulate_screen(1500, n_drugs=3, doses=[100.0, 1000.0], n_groups=2, n_features=20)
    scgap.pp.split(screen, **COLUMNS)
    return scgap.tl.fit_transport(
        screen, **COLUMNS, split_col="split", n_iters=500, batch_size=128, progress=False, copy=True
    )


def predicted(adata, **options):
    return scgap.tl.predict(adata, CONDITION, copy=True, **options).layers["scgap"]


def snapshot(adata):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of repeated names
        copy = adata.copy()
    return copy, list(adata.uns), list(adata.obs), list(adata.layers), list(adata.obsm)


def assert_unchanged(adata, before):
    old, *keys = before
    assert [list(adata.uns), list(adata.obs), list(adata.layers), list(adata.obsm)] == keys
    pd.testing.assert_frame_equal(adata.obs, old.obs)
    np.testing.assert_array_equal(np.asarray(adata.X), np.asarray(old.X))


def test_map_is_ahead_of_the_baselines_on_held_out_cells(trained):
    table = scgap.tl.evaluate(trained.copy(), metrics=["energy_distance"])
    energy = table.groupby("method")["value"].mean()
    assert energy["ceiling"] < energy["scgap"] < 0.7 * energy["identity"]


def test_prediction_is_near_the_truth(trained):
    adata = scgap.tl.predict(trained, CONDITION, copy=True)
    moved = adata.obs["scgap_transported"].to_numpy()
    assert (moved == (adata.obs["perturbation"] == "control")).all()
    truth = scgap.datasets.true_transport(adata, CONDITION)
    error, before = (np.linalg.norm(x - truth, axis=1).mean() for x in (adata.layers["scgap"][moved], adata.X[moved]))
    assert error < 0.6 * before
    np.testing.assert_array_equal(adata.layers["scgap"][~moved], adata.X[~moved])


def test_control_is_the_identity(fitted):
    adata = scgap.tl.predict(fitted, "control", copy=True)
    np.testing.assert_array_equal(adata.layers["scgap"], fitted.X)


@pytest.mark.parametrize("form", ["h5ad", "zarr", "safetensors"])
def test_round_trips_predict_the_same_bit_for_bit(fitted, form, tmp_path):
    path = tmp_path / f"file.{form}"
    adata = fitted.copy()
    if form == "safetensors":
        scgap.write_transport(adata, path)
        adata.uns["scgap"] = scgap.read_transport(path)
    else:
        getattr(adata, f"write_{form}")(path)
        adata = getattr(anndata, f"read_{form}")(path)
    np.testing.assert_array_equal(predicted(adata), predicted(fitted))
    pd.testing.assert_frame_equal(
        pd.DataFrame(adata.uns["scgap"]["history"]), fitted.uns["scgap"]["history"], check_names=False
    )


def test_mudata_round_trip(screen, tmp_path):
    rna = screen.copy()
    other = rna[:, :3].copy()
    other.var_names = ["a", "b", "c"]
    data = mudata.MuData({"rna": rna, "other": other})
    scgap.tl.fit_transport(data, mod="rna", **COLUMNS, **QUICK)
    data.write_h5mu(tmp_path / "file.h5mu")
    again = mudata.read_h5mu(tmp_path / "file.h5mu")
    for each in (data, again):
        scgap.tl.predict(each, CONDITION, mod="rna")
    np.testing.assert_array_equal(again["rna"].layers["scgap"], data["rna"].layers["scgap"])


def test_same_seed_same_weights_whatever_the_matrix(screen):
    other = screen.copy()
    other.X = sparse.csc_matrix(other.X.astype(np.float64))
    weights = [
        scgap.tl.fit_transport(a, **COLUMNS, **QUICK, copy=True).uns["scgap"]["weights"] for a in (screen, other)
    ]
    jax.tree.map(np.testing.assert_array_equal, *weights)


def test_test_cells_are_never_touched(screen):
    other = screen.copy()
    other.X[(other.obs["split"] == "test").to_numpy()] += 100.0
    weights = [
        scgap.tl.fit_transport(a, **COLUMNS, **QUICK, split_col="split", copy=True).uns["scgap"]["weights"]
        for a in (screen, other)
    ]
    jax.tree.map(np.testing.assert_array_equal, *weights)


def test_interrupted_run_goes_on_to_the_same_weights(screen, tmp_path, monkeypatch):
    from scgap.tl import _fit_transport

    options = {**COLUMNS, **QUICK, "n_iters": 60}
    whole = scgap.tl.fit_transport(screen, **options, copy=True)
    on_report = _fit_transport._on_report

    def broken(bar, path, fingerprint, progress):
        on_report(bar, path, fingerprint, progress)
        if len(progress.history) == 11:
            raise RuntimeError("killed")

    monkeypatch.setattr(_fit_transport, "_on_report", broken)
    path = tmp_path / "run.safetensors"
    with pytest.raises(RuntimeError, match="killed"):
        scgap.tl.fit_transport(screen, **options, checkpoint=path, copy=True)
    monkeypatch.setattr(_fit_transport, "_on_report", on_report)
    again = scgap.tl.fit_transport(screen, **options, checkpoint=path, copy=True)
    jax.tree.map(np.testing.assert_array_equal, again.uns["scgap"]["weights"], whole.uns["scgap"]["weights"])
    with pytest.raises(ValueError, match="other data or settings"):
        scgap.tl.fit_transport(screen, **{**options, "batch_size": 32}, checkpoint=path, copy=True)


def test_pca_is_decoded_to_features(screen):
    adata = screen.copy()
    sc.pp.pca(adata, n_comps=5)
    scgap.tl.fit_transport(adata, **COLUMNS, **QUICK, use_rep="X_pca")
    scgap.tl.predict(adata, CONDITION)
    moved = adata.obs["scgap_transported"].to_numpy()
    change = adata.layers["scgap"][moved] - adata.X[moved]
    components = adata.varm["PCs"]
    np.testing.assert_allclose(change @ components @ components.T, change, atol=1e-4)
    assert np.abs(change).max() > 0.01


def test_embedding_without_decoder_stays_in_its_space(screen):
    adata = screen.copy()
    adata.obsm["X_foreign"] = adata.X[:, :4].copy()
    scgap.tl.fit_transport(adata, **COLUMNS, **QUICK, use_rep="X_foreign")
    with pytest.warns(UserWarning, match="has no decoder"):
        scgap.tl.predict(adata, CONDITION)
    assert adata.obsm["X_scgap"].shape == (adata.n_obs, 4)
    assert "scgap" not in adata.layers


def test_combinations_in_one_label_or_two_columns():
    adata = scgap.datasets.simulate_screen(1200, n_drugs=2, doses=[1000.0], n_groups=1, n_combinations=1, n_features=10)
    label = adata.obs["perturbation"].astype(str)
    parts = label.str.split("+", expand=True).fillna("control")
    adata.obs["first"], adata.obs["second"] = parts[1], parts[0]  # the order within a set means nothing
    one = scgap.tl.fit_transport(adata, sep="+", **QUICK, copy=True)
    two = scgap.tl.fit_transport(adata, target_col=["first", "second"], **QUICK, copy=True)
    scgap.tl.predict(one, "drug_2+drug_1")
    scgap.tl.predict(two, {"first": "drug_1", "second": "drug_2"})
    np.testing.assert_array_equal(one.layers["scgap"], two.layers["scgap"])


def test_unseen_perturbation_needs_descriptors(screen):
    adata = screen[screen.obs["perturbation"] != "drug_3"].copy()
    scgap.tl.fit_transport(adata, **COLUMNS, **QUICK)
    unseen = {"perturbation": "drug_3", "dose_value": 100.0}
    with pytest.raises(KeyError, match=r"fit with encoding="):
        scgap.tl.predict(adata, unseen)
    scgap.tl.fit_transport(adata, **COLUMNS, **QUICK, encoding=screen.uns["drug_descriptors"])
    scgap.tl.predict(adata, unseen)
    assert np.isfinite(adata.layers["scgap"]).all()


def test_names_with_any_sign_survive_files(screen, tmp_path):
    adata = screen.copy()
    names = {"drug_1": "(+)-JQ1/β", "drug_2": "ENMD-2076 L-(+)-Tartaric acid", "drug_3": "a_b+c"}
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace(names)
    scgap.tl.fit_transport(adata, **COLUMNS, **QUICK)
    adata.write_h5ad(tmp_path / "file.h5ad")
    again = anndata.read_h5ad(tmp_path / "file.h5ad")
    for name in names.values():
        scgap.tl.predict(again, {"perturbation": name, "dose_value": 100.0})


def test_features_may_be_reordered_but_not_missing(fitted):
    shuffled = fitted[:, ::-1].copy()
    np.testing.assert_array_equal(predicted(shuffled), predicted(fitted)[:, ::-1])
    with pytest.raises(ValueError, match="adata lacks 1 of the 20 features"):
        predicted(fitted[:, 1:].copy())


def test_prediction_feeds_scanpy(fitted):
    adata = scgap.tl.predict(fitted, CONDITION, copy=True)
    cells = adata[adata.obs["scgap_transported"]].copy()
    cells.X = cells.layers["scgap"]
    both = anndata.concat({"observed": fitted, "predicted": cells}, label="kind", index_unique="-")
    sc.pp.pca(both, n_comps=5)
    sc.pp.neighbors(both)
    sc.tl.umap(both, maxiter=20)
    sc.pl.umap(both, color="kind", show=False)
    sc.pl.violin(adata, adata.var_names[0], groupby="cell_line", layer="scgap", show=False)
    assert sc.get.aggregate(both, by="kind", func=["mean", "var"]).n_obs == 2


def test_plots_hold_every_feature(fitted):
    adata = scgap.tl.predict(fitted, CONDITION, copy=True)
    axes = scgap.pl.moments(adata, show=False)
    assert len(axes) == 4
    # Points of 20 features in 2 groups, for controls and for predictions.
    assert [len(points.get_offsets()) for points in axes[1].collections[-2:]] == [40, 40]
    assert len(scgap.pl.history(adata, show=False)) == 3
    with pytest.raises(KeyError, match="Predict first"):
        scgap.pl.moments(fitted, show=False)


def with_(adata, column, value, rows=slice(0, 1)):
    values = adata.obs[column].astype(object).to_numpy(copy=True)
    values[rows] = value
    adata.obs[column] = values


def no_controls_in_a_group(adata):
    with_(adata, "cell_line", "line_9", (adata.obs["perturbation"] == "drug_1").to_numpy())


def too_few_cells(adata):
    with_(adata, "perturbation", "rare", np.flatnonzero(adata.obs["perturbation"] == "drug_1")[:3])


def missing_value(adata):
    adata.X[3, 2] = np.nan


def infinite_value(adata):
    adata.X[3, 2] = np.inf


def negative_dose(adata):
    with_(adata, "dose_value", -1.0, (adata.obs["perturbation"] == "drug_1").to_numpy())


def dose_in_words(adata):
    with_(adata, "dose_value", "high", (adata.obs["perturbation"] == "drug_1").to_numpy())


def repeated_features(adata):
    adata.var.index = ["gene"] * adata.n_vars


def nothing(adata):
    pass


@pytest.mark.parametrize(
    ("spoil", "options", "error", "words"),
    [
        (nothing, {"target_col": "perturbatoin"}, KeyError, "Did you mean 'perturbation'"),
        (nothing, {"dose_col": "dose"}, KeyError, "'dose' is not in adata.obs"),
        (nothing, {"reference_key": "Control"}, ValueError, "Did you mean 'control'"),
        (no_controls_in_a_group, {}, ValueError, "No control cells to train on in 'line_9'"),
        (too_few_cells, {}, ValueError, "Fewer than 10 training cells in 'rare"),
        (missing_value, {}, ValueError, "holds NaN or infinite values in 1 of 1500 cells"),
        (infinite_value, {}, ValueError, "holds NaN or infinite values"),
        (negative_dose, {}, ValueError, "finite and not negative"),
        (dose_in_words, {}, ValueError, "'high', which is not a number"),
        (repeated_features, {}, ValueError, "var_names are not unique"),
        (nothing, {"use_rep": "X_pca"}, KeyError, "Compute it first"),
        (nothing, {"layer": "untreatd"}, KeyError, "Did you mean 'untreated'"),
        (nothing, {"split_col": "cell_line"}, ValueError, "'train', 'valid' and 'test'"),
        (nothing, {"mod": "rna"}, ValueError, "Leave mod out"),
        (nothing, {"cost": "euclid"}, ValueError, "Did you mean 'euclidean'"),
        (nothing, {"batch_size": 0}, ValueError, "batch_size=0"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(screen, spoil, options, error, words):
    adata = screen.copy()
    spoil(adata)
    before = snapshot(adata)
    with pytest.raises(error, match=words):
        scgap.tl.fit_transport(adata, **{**COLUMNS, **QUICK, **options})
    assert_unchanged(adata, before)


def test_a_view_is_refused_unless_copied(screen):
    view = screen[:, :5]
    with pytest.raises(ValueError, match="is a view"):
        scgap.tl.fit_transport(view, **COLUMNS, **QUICK)
    assert view.is_view
    assert "scgap" in scgap.tl.fit_transport(view, **COLUMNS, **QUICK, copy=True).uns


@pytest.mark.parametrize(
    ("condition", "options", "error", "words"),
    [
        (CONDITION, {"key": "other"}, KeyError, "Fit a map first"),
        ("drug_2", {}, ValueError, "leaves 'dose_value' open"),
        ({"dose_value": 10.0}, {}, ValueError, "names no perturbation"),
        ({"drug": "drug_2"}, {}, KeyError, "'drug' is not in the columns of the fit"),
        ({"perturbation": "drug_9", "dose_value": 10.0}, {}, KeyError, "fit with encoding="),
        ({**CONDITION, "cell_line": "line_9"}, {}, ValueError, "no control cells in the group"),
        (CONDITION, {"source": np.zeros(1500, bool)}, ValueError, "source selects no cells"),
        (CONDITION, {"source": []}, ValueError, "source selects no cells"),
        (CONDITION, {"source": ["nobody"]}, KeyError, "not in adata.obs_names"),
    ],
)
def test_bad_questions_are_refused_and_nothing_written(fitted, condition, options, error, words):
    adata = fitted.copy()
    before = snapshot(adata)
    with pytest.raises(error, match=words):
        scgap.tl.predict(adata, condition, **options)
    assert_unchanged(adata, before)
