import os
import re
import warnings
from pathlib import Path

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

pytestmark = pytest.mark.real_data

FOLDER = Path(os.environ.get("SCGAP_DATA", Path(__file__).parents[2] / "shared" / "data"))
# Hundreds of iterations instead of the default's thousands: enough to be far ahead of doing nothing.
QUICK = {"hidden": (64, 64), "learning_rate": 3e-3, "batch_size": 128, "progress": False}


def read(name):
    if not (FOLDER / name).exists():
        pytest.skip(f"no {name} in the folder that SCGAP_DATA names")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old versions of anndata wrote these files, and new ones say so
        return anndata.read_h5ad(FOLDER / name)


def share_of_identity(adata, columns, **options):
    """Energy distance on held-out cells in units of what control cells as they are score, averaged over conditions."""
    scgap.pp.split(adata, **columns)
    scgap.tl.fit_transport(adata, **columns, split_col="split", **QUICK, **options)
    energy = scgap.tl.evaluate(adata, metrics=["energy_distance"]).groupby("method")["value"].mean()
    return energy["scgap"] / energy["identity"]


def unseen_share_of_identity(adata, columns, holdout, *, standardise=False, **options):
    """The same of conditions that were held out whole, with the tiers of support that these are of."""
    split_by = {name: value for name, value in columns.items() if name != "time_col"}
    scgap.pp.split(adata, **split_by, holdout=holdout)
    if standardise:
        control = adata.X[((adata.obs["perturbation"] == "control") & (adata.obs["split"] == "train")).to_numpy()]
        adata.X = (adata.X - control.mean(0)) / control.std(0)
    scgap.tl.fit_transport(adata, **columns, split_col="split", **QUICK, **options)
    table = scgap.tl.evaluate(adata, metrics=["energy_distance"], baselines=["identity"])
    unseen = table[table["support"] != "seen"]
    energy = unseen.groupby("method")["value"].mean()
    return energy["scgap"] / energy["identity"], set(unseen["support"]), unseen["condition"].nunique()


def test_sachs_inhibitors_in_two_contexts(refused):
    everything = read("sachs2005.h5ad")
    columns = {"target_col": "agent", "reference_key": "none", "group_col": "stimulation"}
    # PMA and beta2cAMP were given without stimulation, where there are no controls.
    with refused(everything, ValueError, "No control cells to train on in 'none'", "Drop the group"):
        scgap.tl.fit_transport(everything, **columns)
    adata = everything[everything.obs["stimulation"] != "none"].copy()
    assert share_of_identity(adata, columns, n_iters=200) < 0.3
    scgap.tl.predict(adata, {"agent": "U0126", "stimulation": "CD3CD28"})
    moved = adata.obs["scgap_transported"].to_numpy()
    assert set(adata.obs["stimulation"][moved]) == {"CD3CD28"}
    assert set(adata.obs["agent"][moved]) == {"none"}


def test_kang_cell_types_in_pca_space():
    adata = read("kang_pbmc_ifnb.h5ad")
    sc.pp.pca(adata, n_comps=20)
    columns = {"target_col": "condition", "group_col": "cell_type"}
    assert share_of_identity(adata, columns, n_iters=200, use_rep="X_pca") < 0.3
    assert adata.uns["scgap"]["weights"]["centre"].shape == (20,)
    scgap.tl.predict(adata, "stimulated")
    # Decoded to genes: ISG15, which interferon turns on, rises in the controls to where it is in stimulated cells.
    assert adata.layers["scgap"].shape == adata.shape
    assert adata.layers["scgap"].min() >= 0
    gene = adata.var_names.get_loc("ISG15")
    control = (adata.obs["condition"] == "control").to_numpy()
    before, after = (np.asarray(x[control][:, [gene]].sum() / control.sum()) for x in (adata.X, adata.layers["scgap"]))
    observed = adata.X[~control][:, [gene]].sum() / (~control).sum()
    assert before < 0.5 * observed
    assert after == pytest.approx(observed, rel=0.25)


def test_norman_combinations():
    adata = read("norman_k562_subset.h5ad")
    columns = {"target_col": "perturbation", "sep": "+"}
    assert share_of_identity(adata, columns, n_iters=300) < 0.6
    moved = {}
    for condition in ("KLF1+MAP2K6", "MAP2K6+KLF1", "KLF1+SLC38A2"):  # the last one was never measured
        scgap.tl.predict(adata, condition)
        moved[condition] = adata.layers["scgap"]
    np.testing.assert_array_equal(moved["KLF1+MAP2K6"], moved["MAP2K6+KLF1"])
    assert np.isfinite(moved["KLF1+SLC38A2"]).all()
    assert (moved["KLF1+SLC38A2"] != moved["KLF1+MAP2K6"]).any()


NULLS = ["CD86", "ETV7", "PDCD1LG2", "POU2F2"]  # knock-outs that change nothing
CLEAR = ["IFNGR1", "JAK2", "STAT1", "SMAD4"]


def papalexi():
    """Ten knock-outs in 20 components of training cells, 80/20."""
    adata = read("papalexi_thp1_10targets.h5ad")
    columns = {"target_col": "target", "reference_key": "non-targeting"}
    scgap.pp.split(adata, **columns)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    cells = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X)
    train = (adata.obs["split"] != "test").to_numpy()
    centre = cells[train].mean(0)
    _, _, components = np.linalg.svd(cells[train] - centre, full_matrices=False)
    return AnnData(((cells - centre) @ components[:20].T).astype(np.float32), adata.obs), columns


def way_and_errors(adata, columns):
    """Mean way of a cell under each knock-out, and the energy distances of map and identity."""
    scgap.tl.fit_transport(adata, **columns, split_col="split", **QUICK, n_iters=600)
    table = scgap.tl.evaluate(adata, metrics=["energy_distance"], baselines=["identity"])
    errors = table.pivot_table(index="condition", columns="method", values="value", observed=True)
    screened = scgap.tl.screen(adata, n_cells=300, progress=False)
    source = adata[screened.obs["source_cell"].astype(str)].X
    way = pd.Series(np.linalg.norm(screened.X - source, axis=1))
    return way.groupby(screened.obs["condition_label"].astype(str).to_numpy()).mean(), errors


def test_papalexi_knock_outs_without_effect_move_nothing():
    way, errors = way_and_errors(*papalexi())
    assert way[NULLS].max() < 0.4 * way[CLEAR].min()
    assert (errors.loc[CLEAR, "scgap"] < 0.3 * errors.loc[CLEAR, "identity"]).all()
    # No farther from the observed cells than control cells, but for the noise of 150 cells.
    assert (errors.loc[NULLS, "scgap"] - errors.loc[NULLS, "identity"]).max() < 0.05


def test_papalexi_with_permuted_labels_stays_at_the_identity():
    adata, columns = papalexi()
    generator = np.random.default_rng(0)
    target = adata.obs["target"].astype(str).to_numpy()
    for part in ("train", "valid", "test"):
        cells = (adata.obs["split"] == part).to_numpy()
        target[cells] = generator.permutation(target[cells])
    spread = np.linalg.norm(adata.X - adata.X.mean(0), axis=1).mean()
    adata.obs["target"] = target
    way, errors = way_and_errors(adata, columns)
    assert way.max() < 0.1 * spread
    assert (errors["scgap"] - errors["identity"]).mean() < 0.02


def test_norman_doubles_from_their_singles():
    adata = read("norman_k562_subset.h5ad")
    doubles = ["KLF1+MAP2K6", "KLF1+TGFBR2", "MAP2K3+MAP2K6", "MAP2K3+SLC38A2", "MAPK1+TGFBR2"]
    share, tiers, n = unseen_share_of_identity(adata, {"sep": "+"}, {"perturbation": doubles}, n_iters=1_000)
    assert (tiers, n) == ({"unseen combination"}, 5)
    assert share < 0.4


def test_four_i_palbociclib_between_two_doses():
    adata = read("four_i_palbociclib.h5ad")
    adata.obs["dose"] = adata.obs["well"].astype(str).astype(float)
    adata.obs["perturbation"] = np.where(adata.obs["dose"] > 0, "palbociclib", "control")
    share, tiers, n = unseen_share_of_identity(
        adata, {"dose_col": "dose"}, {"dose": [10.0]}, standardise=True, n_iters=1_000
    )
    # Of perturbed cells there is one dose alone, which this one is not between.
    assert (tiers, n) == ({"extrapolated dose"}, 1)
    assert share < 0.7


def test_cycif_ligands_at_a_time_left_out():
    adata = read("cycif_mcf10a_46feat.h5ad")
    adata.obs["perturbation"] = adata.obs["ligand"].astype(str).replace({"ctrl": "control"})
    with pytest.warns(UserWarning, match="fewer than 4 observed cells"):
        share, tiers, n = unseen_share_of_identity(
            adata, {"time_col": "time"}, {"time": [8]}, standardise=True, n_iters=1_000
        )
    assert tiers == {"interpolated time"}
    assert n >= 5
    assert share < 0.7


def cycif():
    """Ligands in hours as a MuData; proteins are named as microscopists name them, with brackets and a slash."""
    adata = read("cycif_mcf10a_46feat.h5ad")
    adata.obs["perturbation"] = adata.obs["ligand"].astype(str).replace({"ctrl": "control"})
    return MuData({"protein": adata})


def check_imaging(mdata, condition, columns, tmp_path, **fit):
    """Through all that one does with a map of proteins; return the mean energy distance of each method."""
    scgap.pp.split(mdata, mod="protein", dose_col=columns.get("dose_col"))
    options = {**QUICK, "split_col": "split", "standardise": True, "n_iters": 200, **fit}
    scgap.tl.fit_transport(mdata, mod="protein", **columns, **options)
    scgap.tl.predict(mdata, condition, mod="protein")
    predicted = mdata["protein"].layers["scgap"].copy()
    scores = scgap.tl.evaluate(mdata, mod="protein", metrics=["energy_distance"])
    axes = scgap.pl.moments(mdata, mod="protein", show=False)
    assert [axis.get_title() for axis in axes] == ["mean", "std", "skewness", "kurtosis", "correlation"]
    named = {re.sub(r"\s", "", text.get_text()) for text in axes[0].texts}  # long names take two lines
    assert named <= {re.sub(r"\s", "", name) for name in mdata["protein"].var_names}
    plt.close(axes[0].figure)
    mdata.write_h5mu(tmp_path / "map.h5mu")
    mdata.write_zarr(tmp_path / "map.zarr")
    for again in (mudata.read_h5mu(tmp_path / "map.h5mu"), mudata.read_zarr(tmp_path / "map.zarr")):
        assert again["protein"].var_names.tolist() == mdata["protein"].var_names.tolist()
        del again["protein"].layers["scgap"]
        scgap.tl.predict(again, condition, mod="protein")
        np.testing.assert_array_equal(again["protein"].layers["scgap"], predicted)
    return scores.groupby("method")["value"].mean()


def test_four_i_from_loader_to_file(tmp_path, monkeypatch):
    if not (FOLDER / "four_i_palbociclib.h5ad").exists():
        pytest.skip("no four_i_palbociclib.h5ad in the folder that SCGAP_DATA names")
    monkeypatch.setenv("SCGAP_DATA", str(FOLDER))  # where it is not set, too
    mdata = scgap.datasets.four_i_palbociclib()
    condition = {"perturbation": "palbociclib", "dose_value": "0.1 uM"}
    energy = check_imaging(mdata, condition, {"dose_col": "dose_value", "dose_unit": "nM"}, tmp_path)
    assert energy["scgap"] < 0.2 * energy["identity"]


@pytest.mark.filterwarnings("ignore:3 of 35 conditions have no scores .*fewer than 4 observed cells:UserWarning")
def test_cycif_from_file_to_file(tmp_path):
    condition = {"perturbation": "EGF", "time": "1 d"}
    # Twenty cells of each of 35 conditions: an update has to average over some of these.
    fit = {"conditions_per_step": 8, "batch_size": 32}
    energy = check_imaging(cycif(), condition, {"time_col": "time", "time_unit": "h"}, tmp_path, **fit)
    assert energy["scgap"] < 0.7 * energy["identity"]


def test_sciplex_drugs_are_all_described():
    pytest.importorskip("rdkit")
    path = FOLDER / "sciplex_smiles.csv"
    if not path.exists():
        pytest.skip("no sciplex_smiles.csv in the folder that SCGAP_DATA names")
    drugs = pd.read_csv(path, names=["name", "smiles", "pathway"]).set_index("name")["smiles"]
    adata = AnnData(np.zeros((len(drugs), 1), np.float32))
    adata.obs["perturbation"] = drugs.index.to_numpy()
    with pytest.warns(UserWarning, match="29 of 187 drugs are salts or mixtures: 'Alendronate', .*29 in all") as log:
        scgap.pp.encode_drugs(adata, smiles=drugs)
    assert len(log) == 1  # none fails, and no descriptor has to be left out for one of them
    values = adata.uns["drug"]["values"]
    assert len(values) == 187  # and the vehicle, which needs no vector
    assert 180 <= values.shape[1] <= 217  # of 217, less those that do not vary
    np.testing.assert_allclose(values.std(0), 1.0, atol=1e-3)
    # Valproic acid is there twice, once as divalproex, and so is ruxolitinib, once as its mirror image.
    assert len(np.unique(values, axis=0)) == 187 - 2
    with pytest.warns(UserWarning, match="29 of 187"):
        scgap.pp.encode_drugs(adata, smiles=drugs, method="morgan", key_added="bits")
    assert set(np.unique(adata.uns["bits"]["values"])) == {0.0, 1.0}


def test_papalexi_responders_are_of_targets_with_an_effect():
    adata = read("papalexi_thp1_10targets.h5ad")
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    scgap.pp.responders(adata, target_col="target", reference_key="non-targeting")
    fraction = adata.uns["responder"]["table"].set_index("condition")["fraction"]
    assert fraction[["IFNGR1", "JAK2", "STAT1"]].min() > 0.5
    assert fraction[["CD86", "ETV7", "PDCD1LG2", "POU2F2"]].max() < 0.2
