import os
import warnings
from pathlib import Path

import anndata
import pytest
import scanpy as sc

import scgap

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def data_folder():
    folder = Path(os.environ.get("SCGAP_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("SCGAP_DATA names no folder of data sets")
    return folder


def read(folder, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files were written by old versions of anndata
        return anndata.read_h5ad(folder / name)


def assert_beats_identity(adata, n_iters, columns, condition, **options):
    scgap.pp.split(adata, **columns)
    scgap.tl.fit_transport(adata, **columns, **options, split_col="split", n_iters=n_iters, progress=False)
    value = scgap.tl.evaluate(adata, metrics=["energy_distance"]).groupby("method")["value"].mean()
    assert value["scgap"] < 0.5 * value["identity"]
    scgap.tl.predict(adata, condition)
    assert adata.layers["scgap"].shape == adata.shape


def test_sachs_inhibitors_in_two_contexts(data_folder):
    adata = read(data_folder, "sachs2005.h5ad")
    adata = adata[adata.obs["stimulation"] != "none"].copy()
    columns = {"target_col": "agent", "reference_key": "none", "group_col": "stimulation"}
    assert_beats_identity(adata, 400, columns, "U0126", batch_size=256)


def test_kang_cell_types_in_pca_space(data_folder):
    adata = read(data_folder, "kang_pbmc_ifnb.h5ad")
    sc.pp.pca(adata, n_comps=20)
    columns = {"target_col": "condition", "group_col": "cell_type"}
    assert_beats_identity(adata, 300, columns, "stimulated", use_rep="X_pca", batch_size=128)


def test_norman_combinations(data_folder):
    adata = read(data_folder, "norman_k562_subset.h5ad")
    columns = {"target_col": "perturbation", "sep": "+"}
    assert_beats_identity(adata, 400, columns, "KLF1+MAP2K6", batch_size=128)
