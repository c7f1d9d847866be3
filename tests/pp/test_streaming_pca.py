import anndata
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import scgap
from scgap import _adata
from scgap.pp import _principal, _streaming_pca

RANK = 6


def make(n_cells):
    """Sparse cells of six programmes, unlike in strength, beside noise."""
    generator = np.random.default_rng(0)
    programmes = generator.normal(size=(RANK, 30)) * np.geomspace(4, 1, RANK)[:, None]
    X = np.maximum(generator.normal(size=(n_cells, RANK)) @ programmes + generator.normal(size=(n_cells, 30)), 0.0)
    return AnnData(X.astype(np.float32), layers={"shifted": X - 1_000.0})


@pytest.fixture
def adata():
    return make(400)


@pytest.fixture
def few_features(monkeypatch):
    """As if so many features were too many for the matrix of their products."""
    monkeypatch.setattr(_principal, "MOST_FEATURES", 10)


def pca(adata, n_comps=RANK, **settings):
    return scgap.pp.streaming_pca(adata, n_comps=n_comps, progress=False, **settings)


def assert_same(adata, expected, key=None):
    obsm, varm, uns = (key,) * 3 if key else ("X_pca", "PCs", "pca")
    scale = expected.obsm[obsm].std()
    np.testing.assert_allclose(adata.obsm[obsm] / scale, expected.obsm[obsm] / scale, atol=1e-5)
    np.testing.assert_allclose(adata.varm[varm], expected.varm[varm], atol=1e-5)
    for name in ("variance", "variance_ratio"):
        np.testing.assert_allclose(adata.uns[uns][name], expected.uns[uns][name], rtol=1e-5)


def overlap(one, other):
    """Mean squared cosine between two subspaces: 1 if they are the same."""
    return (np.linalg.svd(one.T @ other)[1] ** 2).mean()


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_array])
@pytest.mark.parametrize("zero_center", [True, False])
@pytest.mark.parametrize("path", ["products", "blocks"])
def test_components_are_those_of_scanpy(adata, kind, zero_center, path, request):
    if path == "blocks":
        request.getfixturevalue("few_features")
    expected = AnnData(adata.X.astype(np.float64))
    sc.pp.pca(expected, n_comps=RANK, zero_center=zero_center, svd_solver="arpack")
    adata.X = kind(adata.X)
    assert pca(adata, zero_center=zero_center) is None
    assert_same(adata, expected)
    assert adata.obsm["X_pca"].dtype == adata.varm["PCs"].dtype == np.float32
    assert adata.uns["pca"]["params"] == {**expected.uns["pca"]["params"], "heavy": "flag"}
    assert not adata.obs["X_pca_heavy"].any()


@pytest.mark.parametrize("n_comps", [1, 5, 29, 30])
def test_any_number_of_components(adata, n_comps):
    expected = AnnData(adata.X.astype(np.float64))
    sc.pp.pca(expected, n_comps=n_comps, svd_solver="full")
    pca(adata, n_comps)
    assert_same(adata, expected)


@pytest.mark.parametrize("path", ["products", "blocks"])
@pytest.mark.parametrize("heavy", ["flag", "clip"])
def test_neither_order_nor_chunks_matter(adata, path, heavy, request):
    if path == "blocks":
        request.getfixturevalue("few_features")
    adata.X[[3, 50, 51]] *= 30
    with pytest.warns(UserWarning, match="3 of 400 cells have norms above 5 times the median"):
        pca(adata, heavy=heavy)
    order = np.random.default_rng(1).permutation(adata.n_obs)
    for chunk_size in (1, 7, 399, 1_000):
        other = AnnData(adata.X[order])
        with pytest.warns(UserWarning, match="3 of 400"):
            pca(other, heavy=heavy, chunk_size=chunk_size)
        assert_same(other, adata[order])
        assert np.flatnonzero(other.obs["X_pca_heavy"].to_numpy()[np.argsort(order)]).tolist() == [3, 50, 51]


def test_small_variances_on_a_large_level_are_kept(adata):
    expected = AnnData(adata.layers["shifted"])
    sc.pp.pca(expected, n_comps=RANK, svd_solver="full")
    pca(adata, layer="shifted")
    assert_same(adata, expected)
    assert adata.uns["pca"]["params"]["layer"] == "shifted"


@pytest.mark.parametrize("path", ["products", "blocks"])
def test_clipping_heavy_cells_restores_the_components(path, request):
    if path == "blocks":
        request.getfixturevalue("few_features")
    adata = make(4_000)
    pca(adata)
    truth = adata.varm["PCs"].astype(float)
    generator = np.random.default_rng(2)
    few = adata.copy()
    few.X[:3] = generator.normal(size=(3, 30))
    few.X[:3] *= 30 * np.median(np.linalg.norm(few.X, axis=1)) / np.linalg.norm(few.X[:3], axis=1, keepdims=True)
    few.X = sparse.csr_matrix(few.X)
    with pytest.warns(UserWarning, match=r"up to 30.0 times: components may turn.*heavy=\"clip\""):
        pca(few)
    flagged = few.copy()
    with pytest.warns(UserWarning, match=r"up to 30.0 times: they were scaled to that limit"):
        pca(few, heavy="clip")
    assert flagged.obs["X_pca_heavy"].tolist() == few.obs["X_pca_heavy"].tolist() == [True] * 3 + [False] * 3_997
    assert overlap(truth, flagged.varm["PCs"].astype(float)) < 0.7
    assert overlap(truth, few.varm["PCs"].astype(float)) > 0.99
    # Clipped components are those of clipped cells, and cells are projected as they are.
    clipped = AnnData(few.X.toarray().astype(np.float64))
    norms = np.linalg.norm(clipped.X, axis=1)
    clipped.X[:3] *= 5 * np.median(norms) / norms[:3, None]
    sc.pp.pca(clipped, n_comps=RANK, svd_solver="full")
    np.testing.assert_allclose(few.varm["PCs"], clipped.varm["PCs"], atol=1e-5)
    centred = few.X.toarray() - clipped.X.mean(0)
    np.testing.assert_allclose(few.obsm["X_pca"], centred @ clipped.varm["PCs"], rtol=1e-4, atol=1e-2)
    pca(few, heavy=None, key_added="plain")
    assert "plain_heavy" not in few.obs
    np.testing.assert_array_equal(few.varm["plain"], flagged.varm["PCs"])


def test_masked_features_are_left_out(adata):
    adata.var["highly_variable"] = np.arange(30) % 3 > 0
    adata.var["other"] = np.arange(30) < 20
    for settings in ({}, {"mask_var": "other"}, {"mask_var": np.arange(30) > 9}, {"mask_var": None}):
        expected = AnnData(adata.X.astype(np.float64), var=adata.var)
        sc.pp.pca(expected, n_comps=RANK, svd_solver="full", **settings)
        pca(adata, **settings)
        assert_same(adata, expected)
        np.testing.assert_equal(adata.uns["pca"]["params"], expected.uns["pca"]["params"] | {"heavy": "flag"})


def test_other_keys_copies_and_modalities(adata):
    other = adata[:, :5].copy()
    other.var_names = [f"other_{i}" for i in range(5)]
    mdata = MuData({"rna": adata, "other": other})
    copy = pca(mdata, mod="rna", key_added="mine", copy=True)
    assert "mine" not in mdata["rna"].obsm
    pca(adata)
    np.testing.assert_array_equal(copy["rna"].obsm["mine"], adata.obsm["X_pca"])
    np.testing.assert_array_equal(copy["rna"].varm["mine"], adata.varm["PCs"])
    assert "mine_heavy" in copy["rna"].obs
    assert "variance" in copy["rna"].uns["mine"]


class Recorded:
    """A matrix on disk that notes how many rows are read at once."""

    def __init__(self, X):
        self.X, self.shape, self.sizes = X, X.shape, []

    def __getitem__(self, index):
        found = self.X[index]
        self.sizes.append(found.shape[0])
        return found


@pytest.mark.parametrize("path", ["products", "blocks"])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_no_more_than_a_chunk_is_read_at_once(adata, kind, path, request, monkeypatch):
    if path == "blocks":
        request.getfixturevalue("few_features")
    adata.X[:70] *= 100  # more heavy cells than fit into a chunk
    source = Recorded(kind(adata.X))
    monkeypatch.setattr(_streaming_pca, "get_matrix", lambda adata, layer: _adata.OnDisk(source))
    expected = adata.copy()
    with pytest.warns(UserWarning, match="70 of 400"):
        pca(adata, chunk_size=32, heavy="clip")
    assert max(source.sizes) == 32
    monkeypatch.undo()
    if path == "blocks":
        monkeypatch.setattr(_principal, "MOST_FEATURES", 10)
    with pytest.warns(UserWarning, match="70 of 400"):
        pca(expected, heavy="clip")
    assert_same(adata, expected)
    if path == "products":  # all cells once for the products and once to be projected, and 70 again
        assert sum(source.sizes) == 2 * 400 + 70


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_a_file_is_fitted_on_its_components_chunk_by_chunk(screen, settings, kind, tmp_path, monkeypatch):
    expected = screen.copy()
    pca(expected, 5)
    screen.X = kind(screen.X)
    screen.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    sizes, read = [], _adata.OnDisk._read

    def record(self, rows):
        found = read(self, rows)
        sizes.append(found.shape[0])
        return found

    monkeypatch.setattr(_adata.OnDisk, "_read", record)
    monkeypatch.setattr(_adata, "CHUNK_BYTES", 8 * 20 * 300)
    pca(backed, 5)
    assert_same(backed, expected)
    settings = settings | {"n_iters": 5, "use_rep": "X_pca"}
    for adata in (backed, expected):
        scgap.tl.fit_transport(adata, **settings)
    assert max(sizes) == 300
    for adata in (backed, expected):
        scgap.tl.predict(adata, {"perturbation": "drug_1", "dose_value": 100.0})
    np.testing.assert_allclose(backed.layers["scgap"], expected.layers["scgap"], atol=1e-3)
    backed.file.close()


def test_a_file_by_columns_is_told(adata, tmp_path):
    expected = adata.copy()
    pca(expected)
    adata.X = sparse.csc_matrix(adata.X)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.warns(UserWarning, match=r"stored by columns \(CSC\).*csr_matrix"):
        pca(backed)
    assert_same(backed, expected)
    backed.file.close()


def test_components_that_have_not_settled_are_told(few_features, monkeypatch):
    monkeypatch.setattr(_principal, "MOST_PASSES", 1)
    noise = AnnData(np.random.default_rng(0).normal(size=(100, 80)))
    with pytest.warns(UserWarning, match=r"have not settled in 1 passes \(relative residual"):
        pca(noise)


def test_it_survives_a_file(adata, tmp_path):
    pca(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert_same(anndata.read_h5ad(tmp_path / "a.h5ad"), adata)


def test_what_cannot_be_reduced_is_refused(adata, refused):
    with refused(adata, ValueError, "n_comps=31", "400 cells of 30 features", "up to 30"):
        pca(adata, 31)
    with refused(adata, ValueError, "n_comps=0", "whole number from 1"):
        pca(adata, 0)
    with refused(adata, ValueError, "chunk_size=0"):
        pca(adata, chunk_size=0)
    with refused(adata, ValueError, "heavy='drop'", '"flag", "clip" or None'):
        pca(adata, heavy="drop")
    with refused(adata, KeyError, "'variable' is not in adata.var"):
        pca(adata, mask_var="variable")
    with refused(adata, ValueError, "mask_var gives bool values of shape (3,)", "each of 30 features"):
        pca(adata, mask_var=np.ones(3, bool))
    with refused(adata, KeyError, "'shiftd' is not in adata.layers", "Did you mean 'shifted'?"):
        pca(adata, layer="shiftd")
    adata.layers["flat"] = np.ones(adata.shape)
    with refused(adata, ValueError, "all cells are the same"):
        pca(adata, layer="flat")
    adata.X[[3, 5], 2] = np.nan, np.inf
    for kind in (np.asarray, sparse.csr_matrix):
        adata.X = kind(adata.X)
        with refused(adata, ValueError, "adata.X holds NaN or infinite values in 2 of 400 cells"):
            pca(adata)
