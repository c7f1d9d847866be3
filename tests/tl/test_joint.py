# One map of two modalities of a MuData.

import anndata
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from mudata import MuData

import scgap

MODS = ["rna", "protein"]
COLUMNS = {"dose_col": "dose_value"}
FIT = {"split_col": "split", "n_iters": 200, "hidden": (32, 32), "batch_size": 128, "progress": False}
CONDITION = {"perturbation": "drug_1", "dose_value": 1_000.0}
MISSING = 100  # cells without protein


@pytest.fixture(scope="module")
def _measured():
    """RNA that is never negative, and protein in units a hundred times as large, of fewer cells."""
    screen = scgap.datasets.simulate_screen(2_000, n_drugs=2, doses=[100.0, 1_000.0], n_groups=1, n_features=30)
    scgap.pp.split(screen, **COLUMNS)
    few = slice(0, screen.n_obs - MISSING)
    rna = AnnData(np.maximum(screen.X[:, :20] + 3.0, 0.0), screen.obs[[]].copy())
    protein = AnnData(100.0 * screen.X[few, 20:], screen.obs.iloc[few].copy())
    rna.var_names, protein.var_names = [f"g{i}" for i in range(20)], [f"p{i}" for i in range(10)]
    sc.pp.pca(rna, n_comps=8)
    return MuData({"rna": rna, "protein": protein})


@pytest.fixture
def measured(_measured):
    return _measured.copy()


@pytest.fixture(scope="module")
def _joint(_measured):
    mdata = _measured.copy()
    scgap.tl.fit_transport(mdata, mod=MODS, use_rep={"rna": "X_pca"}, **COLUMNS, **FIT)
    return mdata


@pytest.fixture
def joint(_joint):
    return _joint.copy()


def test_neither_modality_drowns_the_other(joint, measured):
    stored = joint.uns["scgap"]
    cells = measured["protein"].obs_names
    controls = (measured["protein"].obs["perturbation"] == "control") & (measured["protein"].obs["split"] == "train")
    points = measured["rna"][cells].obsm["X_pca"], measured["protein"].X
    for part, scale in zip(points, np.split(stored["representation"]["scale"], [8]), strict=True):
        assert (part[controls] / scale).var(0).sum() == pytest.approx(1.0, rel=1e-3)
    assert "scgap" not in joint["rna"].uns
    names = [f"{mod}:{name}" for mod in MODS for name in measured[mod].var_names]
    assert list(stored["var_names"]) == names


def test_both_modalities_are_predicted(joint, measured):
    scgap.tl.predict(joint, CONDITION, mod=MODS)
    protein = measured["protein"].obs
    control = protein.index[protein["perturbation"] == "control"]
    for mod in MODS:
        adata, before = joint[mod], measured[mod]
        moved = adata.obs["scgap_transported"].to_numpy()
        assert moved.dtype == bool
        assert set(adata.obs_names[moved]) == set(control)
        layer = adata.layers["scgap"]
        np.testing.assert_allclose(layer[~moved], before.X[~moved])
        target = protein.index[(protein["perturbation"] == "drug_1") & (protein["dose_value"] == 1_000.0)]
        start, goal, end = before[control].X.mean(0), before[target].X.mean(0), layer[moved].mean(0)
        assert np.linalg.norm(end - goal) < 0.5 * np.linalg.norm(start - goal)
    assert joint["rna"].layers["scgap"].min() >= 0.0
    assert joint["protein"].layers["scgap"].min() < 0.0


def test_scores_are_of_both_alike(joint):
    metrics = ["energy_distance", "std_error"]
    table = scgap.tl.evaluate(joint, mod=MODS, metrics=metrics)
    value = table.groupby(["metric", "method"])["value"].mean().unstack()
    assert value["scgap"]["energy_distance"] < 0.5 * value["identity"]["energy_distance"]
    assert value["identity"]["energy_distance"] < 3.0  # in units in which controls have a variance of 2
    assert (table["reconstruction"] >= table["ceiling"] - 0.1).all()
    pd.testing.assert_frame_equal(
        joint.uns["scgap"]["scores"].reset_index(drop=True), table, check_dtype=False, check_categorical=False
    )


def test_everything_that_reads_a_map_reads_this_one(joint, tmp_path):
    screened = scgap.tl.screen(joint, mod=MODS, n_cells=5, progress=False)
    assert screened.n_vars == 30
    assert len(scgap.tl.resolve(joint, "drug_1", mod=MODS)) == 2
    scgap.tl.predict(joint, CONDITION, mod=MODS)
    scgap.tl.evaluate(joint, mod=MODS, metrics=["mean_error"])
    figure = scgap.pl.moments(joint, mod=MODS, moments=["mean"], return_fig=True)
    assert len(figure.axes[0].collections) > 0
    for plot in (scgap.pl.history, scgap.pl.conditions, scgap.pl.scores):
        assert plot(joint, mod=MODS, show=False) is not None
    axis = scgap.pl.dose_response(joint, screened, mod=MODS, features="protein:p0", show=False)
    assert axis.get_title() == "protein:p0"
    plt.close("all")
    scgap.write_transport(joint, tmp_path / "map.safetensors", mod=MODS)
    expected = {mod: joint[mod].layers["scgap"].copy() for mod in MODS}
    joint.uns["again"] = scgap.read_transport(tmp_path / "map.safetensors")
    scgap.tl.predict(joint, CONDITION, mod=MODS, key="again")
    for mod in MODS:
        np.testing.assert_array_equal(joint[mod].layers["again"], expected[mod])


def test_a_file_keeps_the_map(joint, tmp_path):
    scgap.tl.predict(joint, CONDITION, mod=MODS)
    expected = {mod: joint[mod].layers["scgap"].copy() for mod in MODS}
    joint.write(tmp_path / "both.h5mu")
    read = mudata.read_h5mu(tmp_path / "both.h5mu")
    scgap.tl.predict(read, CONDITION, mod=MODS)
    for mod in MODS:
        np.testing.assert_array_equal(read[mod].layers["scgap"], expected[mod])


def test_a_mixture_is_known_in_both_modalities_and_forgotten(joint):
    scgap.tl.predict(joint, "drug_1", mod=MODS, on_ambiguous="marginal")
    drawn = joint["rna"].obs["scgap_condition"]
    assert set(drawn.dropna()) == {"drug_1 100", "drug_1 1000"}
    scgap.tl.predict(joint, CONDITION, mod=MODS)
    assert all("scgap_condition" not in joint[mod].obs for mod in MODS)


@pytest.mark.parametrize(
    ("mod", "options", "error", "words"),
    [
        (["rna", "rna"], {}, ValueError, ("['rna', 'rna']", "two or more different")),
        (["rna"], {}, ValueError, ("['rna']", "two or more different")),
        ({"rna": "X_pca"}, {}, TypeError, ("mod={'rna': 'X_pca'}", "a list of several")),
        (3, {}, TypeError, ("mod=3", "a list of several")),
        (["rna", "atac"], {}, KeyError, ("'atac' is not in mdata.mod",)),
        (MODS, {"use_rep": "X_pca"}, ValueError, ("use_rep='X_pca'", "dictionary")),
        (MODS, {"use_rep": {"dna": "X_pca"}}, ValueError, ("'dna'", "dictionary")),
        (MODS, {"use_rep": {"rna": "X_own"}}, ValueError, ("'X_own'", "cannot be fitted together")),
        ("rna", {"use_rep": {"rna": "X_pca"}}, ValueError, ("a dictionary is for several modalities",)),
        ("rna", {"standardise": "zscore"}, TypeError, ("standardise='zscore'", "Pass True")),
    ],
)
def test_what_cannot_be_joined_is_refused(measured, refused, mod, options, error, words):
    measured["rna"].obsm["X_own"] = measured["rna"].obsm["X_pca"][:, :2]
    if mod == "rna":
        measured = MuData(
            {"rna": measured["rna"][measured["protein"].obs_names].copy(), "protein": measured["protein"]}
        )
        measured.obs = measured["protein"].obs
    with refused(measured, error, *words):
        scgap.tl.fit_transport(measured, mod=mod, **COLUMNS, **{**FIT, "split_col": None}, **options)


def test_modalities_without_a_cell_in_common_are_refused(measured, refused):
    strange = measured["protein"].copy()
    strange.obs_names = [f"x{i}" for i in range(strange.n_obs)]
    mdata = MuData({"rna": measured["rna"], "protein": strange})
    with refused(mdata, ValueError, "No cell is in all of the modalities"):
        scgap.tl.fit_transport(mdata, mod=MODS, **COLUMNS, **FIT)


def test_a_joint_map_asked_of_one_modality_is_told(joint, refused):
    with refused(joint, KeyError, "'scgap' is not in adata.uns", "mdata.uns has it", "mod=["):
        scgap.tl.predict(joint, "drug_1", mod="rna")


def test_preprocessing_takes_one_modality(measured, refused):
    with refused(measured, TypeError, "Pass one modality"):
        scgap.pp.split(measured, **COLUMNS, mod=MODS)
    with pytest.raises(TypeError, match="given with an AnnData"):
        scgap.tl.fit_transport(anndata.AnnData(np.zeros((3, 2))), mod=MODS)


def test_layers_and_columns_of_one_modality_are_not_written_over(joint, refused):
    joint["rna"].layers["counts"] = joint["rna"].X.copy()
    with refused(joint, ValueError, "adata.layers['counts'] exists"):
        scgap.tl.predict(joint, CONDITION, mod=MODS, key_added="counts")
    joint["rna"].obs["own_condition"] = "mine"
    scgap.tl.predict(joint, CONDITION, mod=MODS, key_added="own")
    assert (joint["rna"].obs["own_condition"] == "mine").all()
    assert "own_condition" not in joint["protein"].obs


def test_views_are_refused(measured):
    some = measured[:1_500]
    with pytest.raises(ValueError, match="view of another object"):
        scgap.tl.fit_transport(some, mod=MODS, **COLUMNS, **FIT)


@pytest.mark.parametrize("use_rep", [{}, {"protein": "X"}])
def test_features_are_standardised_one_by_one(measured, use_rep):
    scgap.tl.fit_transport(measured, mod=MODS, use_rep=use_rep, standardise=True, **COLUMNS, **{**FIT, "n_iters": 0})
    scale = measured.uns["scgap"]["representation"]["scale"]
    assert len(np.unique(scale[20:].round(3))) == 10


def test_an_encoding_may_be_in_a_modality(measured):
    drugs = ["drug_1", "drug_2"]
    measured["protein"].uns["own"] = pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 1.0]}, index=drugs)
    scgap.tl.fit_transport(measured, mod=MODS, encoding="own", **COLUMNS, **{**FIT, "n_iters": 5})
    assert list(measured.uns["scgap"]["encoding"]["perturbations"]) == drugs


def test_a_modality_may_have_a_colon_in_its_name(measured):
    mods = ["rna", "rna:a"]
    mdata = MuData({"rna": measured["rna"], "rna:a": measured["protein"]})
    scgap.tl.fit_transport(mdata, mod=mods, **COLUMNS, **{**FIT, "n_iters": 5})
    table = scgap.tl.evaluate(mdata, mod=mods, metrics=["mean_error"])
    assert table["value"].max() < 5.0  # and not hundreds


def test_masks_are_in_the_order_of_the_mudata(measured):
    protein = measured["protein"]
    shuffled = protein[np.random.default_rng(0).permutation(protein.n_obs)].copy()
    rna = measured["rna"][protein.obs_names].copy()
    mdata = MuData({"rna": rna, "protein": shuffled})
    mods = ["protein", "rna"]
    scgap.tl.fit_transport(mdata, mod=mods, **COLUMNS, **{**FIT, "n_iters": 0})
    chosen = (shuffled.obs["perturbation"] == "control").reindex(mdata.obs_names).to_numpy()
    assert (mdata.obs_names != shuffled.obs_names).any()
    scgap.tl.predict(mdata, CONDITION, mod=mods, source=chosen)
    for mod in mods:
        moved = mdata[mod].obs_names[mdata[mod].obs["scgap_transported"]]
        assert set(moved) == set(mdata.obs_names[chosen])


def test_cells_that_cannot_be_told_apart_are_refused(measured):
    mdata = measured.copy()
    mdata.mod["rna"].obs_names = ["same", "same", *mdata["rna"].obs_names[2:]]
    with pytest.raises(ValueError, match=r"mdata\['rna'\].obs_names are not unique"):
        scgap.tl.fit_transport(mdata, mod=MODS, **COLUMNS, **FIT)
