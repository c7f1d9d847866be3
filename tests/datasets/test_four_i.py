import os
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import pooch
import pytest
import requests
from anndata import AnnData
from mudata import MuData

import scgap
from scgap.datasets import _four_i_palbociclib as palbociclib

FIT = {"n_iters": 20, "batch_size": 32, "hidden": (16,), "progress": False}
REAL = Path(os.environ.get("SCGAP_DATA", Path(__file__).parents[3] / "shared" / "data")) / palbociclib.FILE


@pytest.fixture
def path(tmp_path):
    """A file of the papers' form, with a combination and proteins named as microscopists name them."""
    generator = np.random.default_rng(0)
    drug = np.repeat(["control", "trametinib", "dasatinib", "trametinib_dasatinib"], 40)
    names = ["LC3A/B (cyto)", "pERK", "Ki67", "DAPI area", "pS6", "p53"]
    X = generator.lognormal(size=(160, 6)).astype(np.float32)
    obs = pd.DataFrame({"drug": drug, "cell_type": "M130219"}, index=[f"cell_{i}" for i in range(160)])
    AnnData(X, obs=obs, var=pd.DataFrame(index=names)).write_h5ad(tmp_path / "8h.h5ad")
    return tmp_path / "8h.h5ad"


def test_the_file_of_the_papers_is_read_as_it_is(path):
    mdata = scgap.datasets.four_i(path)
    assert isinstance(mdata, MuData)
    assert list(mdata.mod) == ["protein"]
    adata, file = mdata["protein"], anndata.read_h5ad(path)
    np.testing.assert_array_equal(adata.X, file.X)
    assert adata.var_names.tolist() == file.var_names.tolist()
    assert adata.obs["perturbation"].cat.categories.tolist() == [
        "control",
        "dasatinib",
        "trametinib",
        "trametinib_dasatinib",
    ]
    assert adata.obs["drug"].astype(str).tolist() == file.obs["drug"].astype(str).tolist()
    assert adata.obs["cell_type"].astype(str).unique().tolist() == ["M130219"]


def test_features_come_in_the_order_asked_for(path, tmp_path):
    (tmp_path / "features.txt").write_text("Ki67\n\nLC3A/B (cyto)\n")
    for features in (["Ki67", "LC3A/B (cyto)"], tmp_path / "features.txt", str(tmp_path / "features.txt")):
        adata = scgap.datasets.four_i(path, features)["protein"]
        assert adata.var_names.tolist() == ["Ki67", "LC3A/B (cyto)"]
        np.testing.assert_array_equal(adata.X, anndata.read_h5ad(path)[:, ["Ki67", "LC3A/B (cyto)"]].X)


@pytest.mark.parametrize(
    ("features", "error", "words"),
    [
        (["pERK", "ki67"], KeyError, r"'ki67' is not in the features of .*8h\.h5ad.*Did you mean 'Ki67'"),
        ("pERK", FileNotFoundError, r"features='pERK' is read as the path of a text file.* or a list of names"),
        (["pERK", "pERK"], ValueError, "'pERK' more than once"),
        ([], TypeError, "features holds nothing"),
        ([1, 2], TypeError, "features holds an int"),
    ],
)
def test_bad_features_are_refused(path, features, error, words):
    with pytest.raises(error, match=words):
        scgap.datasets.four_i(path, features)


def test_bad_files_are_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*9h\.h5ad'"):
        scgap.datasets.four_i(tmp_path / "9h.h5ad")
    adata = anndata.read_h5ad(path)
    adata.obs["drug"] = adata.obs["drug"].cat.rename_categories({"control": "Control_1"})
    adata.write_h5ad(path)
    with pytest.raises(ValueError, match=r"'control' is not in obs.*Did you mean 'Control_1'.*Controls are needed"):
        scgap.datasets.four_i(path)
    adata.obs["Drug"] = adata.obs.pop("drug")
    adata.write_h5ad(path)
    with pytest.raises(KeyError, match=r"'drug' is not in the obs columns.*Did you mean 'Drug'"):
        scgap.datasets.four_i(path)


@pytest.mark.filterwarnings("ignore:The inplace keyword in")
def test_cells_without_drug_are_left_out(path):
    adata = anndata.read_h5ad(path)
    adata.obs["drug"] = adata.obs["drug"].cat.remove_categories("dasatinib")
    adata.write_h5ad(path)
    with pytest.warns(UserWarning, match="40 of 160 cells are left out: they have no label in 'perturbation'"):
        assert scgap.datasets.four_i(path).n_obs == 120


def test_imaging_is_fitted_plotted_and_stored(path, tmp_path):
    mdata = scgap.datasets.four_i(path)
    scgap.tl.fit_transport(mdata, mod="protein", sep="_", **FIT)
    assert set(mdata["protein"].uns["scgap"]["conditions"]["condition_label"]) == {
        "dasatinib",
        "trametinib",
        "dasatinib + trametinib",
    }
    mdata.write_h5mu(tmp_path / "map.h5mu")
    again = mudata.read_h5mu(tmp_path / "map.h5mu")
    for one in (mdata, again):
        scgap.tl.predict(one, "trametinib_dasatinib", mod="protein")
    np.testing.assert_array_equal(mdata["protein"].layers["scgap"], again["protein"].layers["scgap"])
    axes = scgap.pl.moments(mdata, mod="protein", show=False)
    assert len(axes) == 5


def test_labels_may_be_those_of_the_whole(path):
    mdata = scgap.datasets.four_i(path)
    inside = mdata.copy()
    mdata.obs["perturbation"] = mdata["protein"].obs.pop("perturbation")
    for one in (mdata, inside):
        scgap.tl.fit_transport(one, mod="protein", sep="_", **FIT)
        scgap.tl.predict(one, "trametinib", mod="protein")
    np.testing.assert_array_equal(mdata["protein"].layers["scgap"], inside["protein"].layers["scgap"])


def test_what_is_missing_of_imaging_is_said(path, refused):
    mdata = scgap.datasets.four_i(path)
    with refused(mdata, ValueError, "mod is None", "'protein'"):
        scgap.tl.fit_transport(mdata, **FIT)
    with refused(mdata, KeyError, "'proteins' is not in mdata.mod", "Did you mean 'protein'"):
        scgap.tl.fit_transport(mdata, mod="proteins", **FIT)
    other = MuData({"rna": mdata["protein"].copy()})
    for call in (scgap.tl.predict, scgap.tl.evaluate, scgap.pl.moments):
        arguments = ("trametinib",) if call is scgap.tl.predict else ()
        with refused(other, KeyError, "'protein' is not in mdata.mod; found 'rna'"):
            call(other, *arguments, mod="protein")
    with refused(mdata, KeyError, "'Drug' is not in adata.obs", "Did you mean 'drug'"):
        scgap.tl.fit_transport(mdata, mod="protein", target_col="Drug", **FIT)


def check_palbociclib(mdata):
    adata = mdata["protein"]
    assert adata.shape == (9_011, 14)
    sizes = adata.obs.groupby(["perturbation", "dose_value", "dose_unit"], observed=True).size()
    assert sizes.to_dict() == {
        ("control", 0.0, "nM"): 3_748,
        ("palbociclib", 10.0, "nM"): 2_457,
        ("palbociclib", 100.0, "nM"): 2_806,
    }
    assert adata.obs["dose_value"].dtype == float
    assert set(adata.obs["RB_status"]) == {"cycling", "arrested"}
    assert {"G0", "G1", "S"} <= set(adata.obs["phase"])


needs_file = pytest.mark.skipif(not REAL.exists(), reason="no file in the folder that SCGAP_DATA names")


@needs_file
@pytest.mark.real_data
def test_the_tumour_is_read_from_the_folder_of_data(monkeypatch, datasetdir, no_network):
    monkeypatch.setenv("SCGAP_DATA", str(REAL.parent))
    mdata = scgap.datasets.four_i_palbociclib()
    check_palbociclib(mdata)
    assert no_network == []
    scgap.tl.fit_transport(mdata, mod="protein", dose_col="dose_value", dose_unit="nM", **FIT)
    scgap.tl.predict(mdata, "palbociclib 0.1 uM", mod="protein")


@needs_file
@pytest.mark.real_data
def test_the_tumour_is_downloaded_once(monkeypatch, datasetdir):
    monkeypatch.delenv("SCGAP_DATA", raising=False)
    asked = download(monkeypatch, REAL.read_bytes())
    for _ in range(2):
        check_palbociclib(scgap.datasets.four_i_palbociclib())
    assert asked == [palbociclib.URL]
    assert [path.name for path in datasetdir.iterdir()] == [palbociclib.FILE]


def download(monkeypatch, content):
    """Give out this content instead of the file, and list what was asked for."""
    asked = []

    def downloader(url, output_file, pooch):
        asked.append(url)
        Path(output_file).write_bytes(content)

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *args, **kwargs: downloader)
    return asked


def test_another_file_is_refused_and_removed(monkeypatch, datasetdir):
    monkeypatch.delenv("SCGAP_DATA", raising=False)
    download(monkeypatch, b"a page that says 404")
    with pytest.raises(ValueError, match=f"has the SHA-256 .* and that of the data set is {palbociclib.SHA256}"):
        scgap.datasets.four_i_palbociclib()
    assert list(datasetdir.iterdir()) == []


def test_a_broken_file_of_ours_is_downloaded_again(monkeypatch, datasetdir):
    monkeypatch.delenv("SCGAP_DATA", raising=False)
    (datasetdir / palbociclib.FILE).write_bytes(b"half a file")
    with pytest.raises(ConnectionError, match=r"There is no network .*four_i_palbociclib\.h5ad"):
        scgap.datasets.four_i_palbociclib()


def test_another_file_in_the_folder_of_data_is_refused_and_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("SCGAP_DATA", str(tmp_path))
    (tmp_path / palbociclib.FILE).write_bytes(b"mine")
    with pytest.raises(ValueError, match="Replace it, or unset SCGAP_DATA"):
        scgap.datasets.four_i_palbociclib()
    assert (tmp_path / palbociclib.FILE).read_bytes() == b"mine"


@pytest.mark.parametrize("error", [requests.exceptions.ConnectTimeout, ConnectionResetError])
def test_no_network_is_said_in_one_sentence(monkeypatch, datasetdir, error):
    monkeypatch.setenv("SCGAP_DATA", str(datasetdir / "empty"))

    def refuse(*args, **kwargs):
        raise error("no way")

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *args, **kwargs: refuse)
    with pytest.raises(ConnectionError) as caught:
        scgap.datasets.four_i_palbociclib()
    assert str(caught.value) == (
        "There is no network to download the data set from, and no file "
        f"'{datasetdir / palbociclib.FILE}': connect, or put the file there."
    )
    assert list(datasetdir.iterdir()) == []
