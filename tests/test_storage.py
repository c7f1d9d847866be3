# Whatever holds X, in memory, in a file or in a dask array: the same cells give the same results.

import anndata
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import scgap
from scgap._adata import OnDisk, get_matrix, iter_chunks, take_features, to_dense
from scgap._representation import make_representation

SPARSE = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}
QUERY = {"perturbation": "drug_3", "dose_value": 500.0}
N_ITERS = 10
METRICS = ["energy_distance", "mean_error"]

IN_MEMORY = {
    "float64": lambda adata, _: with_X(adata, adata.X.astype(np.float64)),
    "fortran": lambda adata, _: with_X(adata, np.asfortranarray(adata.X)),
    "csr": lambda adata, _: with_X(adata, sparse.csr_matrix(adata.X)),
    "csc": lambda adata, _: with_X(adata, sparse.csc_matrix(adata.X)),
    "csr_array": lambda adata, _: with_X(adata, sparse.csr_array(adata.X)),
    "csc float64": lambda adata, _: with_X(adata, sparse.csc_array(adata.X.astype(np.float64))),
    "zarr, read": lambda adata, folder: read_zarr(adata, folder),
}
ON_DISK = {
    "dense, r": lambda adata, folder: read_backed(adata, folder, np.asarray, "r"),
    "dense, r+": lambda adata, folder: read_backed(adata, folder, np.asarray, "r+"),
    "csr, r": lambda adata, folder: read_backed(adata, folder, sparse.csr_matrix, "r"),
    "csr, r+": lambda adata, folder: read_backed(adata, folder, sparse.csr_matrix, "r+"),
    "csc, r": lambda adata, folder: read_backed(adata, folder, sparse.csc_matrix, "r"),
    "zarr array": lambda adata, folder: hold_zarr(adata, folder, np.asarray),
    "zarr csr": lambda adata, folder: hold_zarr(adata, folder, sparse.csr_matrix),
    "dask": lambda adata, _: hold_dask(adata, np.asarray),
    "dask csr": lambda adata, _: hold_dask(adata, sparse.csr_matrix),
    "lazy csr": lambda adata, folder: read_lazy(adata, folder, sparse.csr_matrix),
    "lazy csc": lambda adata, folder: read_lazy(adata, folder, sparse.csc_matrix),
}
FORMS = IN_MEMORY | ON_DISK
SOME = ["csc", "dense, r", "csr, r", "dask csr"]  # for what takes long and reads by the same few functions


def with_X(adata, X):
    return AnnData(
        X, obs=adata.obs.copy(), var=adata.var.copy(), uns=dict(adata.uns), obsm=dict(adata.obsm), varm=dict(adata.varm)
    )


def read_zarr(adata, folder):
    with_X(adata, sparse.csr_matrix(adata.X)).write_zarr(folder / "a.zarr")
    return anndata.read_zarr(folder / "a.zarr")


def read_backed(adata, folder, kind, mode):
    with_X(adata, kind(adata.X)).write_h5ad(folder / "a.h5ad")
    return anndata.read_h5ad(folder / "a.h5ad", backed=mode)


def hold_zarr(adata, folder, kind):
    zarr = pytest.importorskip("zarr")
    with_X(adata, kind(adata.X)).write_zarr(folder / "a.zarr")
    stored = zarr.open(folder / "a.zarr", mode="r")["X"]
    return with_X(adata, stored if kind is np.asarray else anndata.io.sparse_dataset(stored))


def hold_dask(adata, kind):
    array = pytest.importorskip("dask.array")
    return with_X(adata, array.from_array(adata.X, chunks=(400, -1)).map_blocks(kind))


def read_lazy(adata, folder, kind):
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    with_X(adata, kind(adata.X)).write_zarr(folder / "a.zarr")
    lazy = anndata.experimental.read_lazy(folder / "a.zarr")
    lazy.obs, lazy.var = lazy.obs.to_memory(), lazy.var.to_memory()
    return lazy


DESIGN = {"dose_col": "dose_value", "group_col": "cell_line"}


@pytest.fixture(scope="module")
def expected(_screen, settings):
    """A screen with a map of its principal components, a prediction and scores; its X is dense and in memory."""
    adata = _screen.copy()
    mean = adata.X.mean(0)
    adata.varm["PCs"] = np.linalg.svd(adata.X - mean, full_matrices=False)[2][:5].T
    adata.obsm["X_pca"] = (adata.X - mean) @ adata.varm["PCs"]
    scgap.tl.fit_transport(adata, **settings | {"n_iters": N_ITERS}, use_rep="X_pca")
    scgap.tl.predict(adata, QUERY)
    scgap.tl.evaluate(adata, metrics=METRICS)
    return adata


def make(form, expected, folder, *, fitted=True):
    plain = with_X(expected, expected.X)
    del plain.obs["scgap_transported"]
    uns = plain.uns.pop("scgap")
    adata = FORMS[form](plain, folder)
    if fitted:
        adata.uns["scgap"] = uns
    return adata


@pytest.fixture
def stored(request, expected, tmp_path):
    """The same cells in another form, with the map, without what it predicted."""
    adata = make(request.param, expected, tmp_path)
    yield adata
    adata.file.close()


@pytest.mark.parametrize("stored", FORMS, indirect=True)
@pytest.mark.parametrize("use_rep", [None, "X_pca"])
def test_cells_are_the_same_points(stored, expected, use_rep):
    seen = np.ones(expected.n_obs, bool)
    (one, points), (other, as_expected) = (make_representation(a, None, use_rep, seen) for a in (stored, expected))
    assert (one.kind, one.nonnegative) == (other.kind, other.nonnegative)
    np.testing.assert_allclose(points, as_expected, atol=1e-4)


@pytest.mark.parametrize("form", ["csc", "csr, r", "dask csr"])
@pytest.mark.parametrize("use_rep", [None, "X_pca"])
def test_fits_are_the_same(form, use_rep, expected, settings, tmp_path):
    settings = settings | {"n_iters": N_ITERS, "use_rep": use_rep}
    adata, plain = make(form, expected, tmp_path, fitted=False), expected.copy()
    for one in (adata, plain):
        scgap.tl.fit_transport(one, **settings)
    histories = [one.uns["scgap"]["history"].to_numpy() for one in (adata, plain)]
    np.testing.assert_allclose(*histories, rtol=1e-3, atol=1e-3)  # the gap is about 0
    adata.file.close()


@pytest.mark.parametrize("stored", FORMS, indirect=True)
def test_predictions_are_the_same(stored, expected):
    scgap.tl.predict(stored, QUERY)
    assert stored.layers["scgap"].dtype == np.float32
    np.testing.assert_allclose(stored.layers["scgap"], expected.layers["scgap"], atol=1e-4)
    screened, as_expected = (scgap.tl.screen(a, [QUERY], n_cells=30, progress=False) for a in (stored, expected))
    np.testing.assert_allclose(screened.X, as_expected.X, atol=1e-4)
    assert scgap.tl.resolve(stored, "drug_1").equals(scgap.tl.resolve(expected, "drug_1"))


@pytest.mark.parametrize("stored", SOME, indirect=True)
def test_scores_are_the_same(stored, expected):
    scores = scgap.tl.evaluate(stored, metrics=METRICS)
    np.testing.assert_allclose(scores["value"], expected.uns["scgap"]["scores"]["value"], atol=1e-4)


@pytest.mark.parametrize("stored", SOME, indirect=True)
def test_cells_are_prepared_the_same(stored, expected):
    plain = expected.copy()
    for adata in (stored, plain):
        scgap.pp.split(adata, **DESIGN, key_added="again")
        scgap.pp.responders(adata, **DESIGN)
        scgap.pp.encode_effects(adata, **DESIGN, n_components=2, n_cells=32)
    for column in ("again", "responder"):
        assert stored.obs[column].astype(str).equals(plain.obs[column].astype(str))
    np.testing.assert_allclose(stored.uns["effect"]["distances"], plain.uns["effect"]["distances"], atol=1e-3)


@pytest.mark.parametrize("form", SOME)
def test_plots_are_the_same(form, expected, tmp_path):
    offsets = []
    for adata in (make(form, expected, tmp_path), expected.copy()):
        scgap.tl.predict(adata, QUERY)
        curve = scgap.tl.screen(adata, [QUERY], n_cells=30, progress=False)
        axes = [
            *scgap.pl.moments(adata, QUERY | {"dose_value": 1_000.0}, moments=["mean", "std"], show=False),
            scgap.pl.dose_response(adata, curve, features="feature_1", show=False),
        ]
        offsets.append(
            np.concatenate([c.get_offsets() for axis in axes for c in axis.collections if len(c.get_offsets())])
        )
        adata.file.close()
    np.testing.assert_allclose(*offsets, rtol=1e-3, atol=1e-3)
    plt.close("all")


@pytest.mark.parametrize("stored", SOME, indirect=True)
def test_predictions_of_other_tools_are_read(stored, expected):
    predicted = with_X(expected, expected.layers["scgap"])[expected.obs["scgap_transported"]].copy()
    predicted.obs["perturbation"], predicted.obs["dose_value"] = "drug_3", 1_000.0
    tables, joined = [], []
    for adata in (stored, expected):
        with pytest.warns(UserWarning, match="conditions have no scores"):
            tables.append(scgap.tl.evaluate_predictions(adata, predicted, **DESIGN, metrics="energy_distance"))
        with pytest.warns(UserWarning, match="Conditions are left out"):
            joined.append(scgap.tl.join_predictions(adata, predicted, **DESIGN))
    np.testing.assert_allclose(tables[0]["value"], tables[1]["value"], atol=1e-4)
    np.testing.assert_allclose(joined[0].X, joined[1].X, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16])
def test_counts_of_any_type_are_taken(dtype, expected, settings):
    counts = np.random.default_rng(0).poisson(np.exp(2 + expected.X)).clip(max=1_000)
    points = []
    for X in (sparse.csr_matrix(counts.astype(dtype)), counts.astype(np.float32)):
        with pytest.warns(UserWarning, match="looks like raw counts"):
            points.append(make_representation(with_X(expected, X), None, None, np.ones(len(counts), bool))[1])
    np.testing.assert_array_equal(*points)


@pytest.mark.parametrize("form", ON_DISK)
def test_rows_are_read_as_in_memory(form, expected, tmp_path):
    adata = make(form, expected, tmp_path)
    matrix, X = get_matrix(adata, None), expected.X
    assert isinstance(matrix, OnDisk) == ("csc, r" not in form)
    assert matrix.shape == X.shape
    columns = np.array([3, 0, 7])
    mask = np.arange(len(X)) % 7 == 3
    for rows in (slice(5, 9), slice(None, None, 100), np.array([4, 900, 4, 2]), mask, np.array([], int), ~mask & mask):
        np.testing.assert_array_equal(to_dense(matrix[rows]), X[rows])
        np.testing.assert_array_equal(to_dense(take_features(matrix, columns)[rows]), X[rows][:, columns])
    np.testing.assert_array_equal(to_dense(take_features(matrix, columns)), X[:, columns])
    chunks = list(iter_chunks(matrix, 400))
    assert (
        [rows.stop - rows.start for rows, _ in chunks] == [chunk.shape[0] for _, chunk in chunks] == [400] * 3 + [300]
    )
    np.testing.assert_array_equal(np.concatenate([to_dense(chunk) for _, chunk in chunks]), X)
    adata.file.close()


@pytest.mark.parametrize("form", ["dense, r", "csr, r+"])
def test_what_a_file_cannot_take_is_refused(form, expected, tmp_path, settings):
    adata = make(form, expected, tmp_path)
    with pytest.raises(ValueError, match=r"X is in a file.*Leave copy out.*adata.to_memory\(\)"):
        scgap.tl.predict(adata, QUERY, copy=True)
    with pytest.raises(ValueError, match=r"view of an object in a file.*Pass adata.to_memory\(\)"):
        scgap.tl.predict(adata[:900], QUERY)
    some = adata[:900].to_memory()
    scgap.tl.predict(some, QUERY)
    np.testing.assert_allclose(some.layers["scgap"], expected.layers["scgap"][:900], atol=1e-4)
    adata.file.close()


def test_results_of_a_file_are_kept(expected, tmp_path):
    adata = make("csr, r", expected, tmp_path)
    scgap.tl.predict(adata, QUERY)
    adata.write_h5ad(tmp_path / "other.h5ad")
    adata.file.close()
    again = anndata.read_h5ad(tmp_path / "other.h5ad", backed="r")
    np.testing.assert_allclose(again.layers["scgap"], expected.layers["scgap"], atol=1e-4)
    np.testing.assert_array_equal(to_dense(get_matrix(again, None)), expected.X)
    again.file.close()


def test_numbers_that_are_none_are_found_on_disk(expected, tmp_path):
    plain = with_X(expected, expected.X.copy())
    plain.X[[3, 700], 2] = np.nan, np.inf
    adata = FORMS["csr, r"](plain, tmp_path)
    with pytest.raises(ValueError, match=r"adata.X holds NaN or infinite values in 2 of 1500 cells"):
        scgap.tl.predict(adata, QUERY)
    adata.file.close()


def test_tables_read_lazily_are_refused(expected, tmp_path):
    pytest.importorskip("dask")
    with_X(expected, expected.X).write_zarr(tmp_path / "a.zarr")
    lazy = anndata.experimental.read_lazy(tmp_path / "a.zarr")
    with pytest.raises(TypeError, match=r"adata.obs was read lazily.*adata.obs = adata.obs.to_memory\(\)"):
        scgap.tl.predict(lazy, QUERY)


def test_a_mudata_in_a_file(expected, tmp_path):
    mdata = MuData({"rna": with_X(expected, sparse.csr_matrix(expected.X))})
    mdata.write_h5mu(tmp_path / "a.h5mu")
    backed = mudata.read_h5mu(tmp_path / "a.h5mu", backed="r")
    scgap.tl.predict(backed, QUERY, mod="rna")
    np.testing.assert_allclose(backed["rna"].layers["scgap"], expected.layers["scgap"], atol=1e-4)
    backed.file.close()
