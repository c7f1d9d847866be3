import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import scgap
from scgap import _autoencoder as autoencoder
from scgap._adata import to_dense
from scgap._representation import (
    decode,
    encode,
    feature_order,
    make_representation,
    read_matrix,
    representation_from_dict,
    representation_to_dict,
)


@pytest.fixture
def adata():
    """Expression-like: nonnegative, with features of unlike spread."""
    generator = np.random.default_rng(0)
    X = np.maximum(generator.normal(1.0, np.linspace(0.2, 3.0, 12), size=(80, 12)), 0.0)
    adata = AnnData(X.astype(np.float32))
    adata.layers["shifted"] = adata.X - 2.0
    return adata


def make(adata, layer=None, use_rep=None):
    return make_representation(adata, layer, use_rep, np.ones(adata.n_obs, bool))


def read(representation, adata, var_names):
    order = feature_order(representation, adata, np.asarray(var_names))
    return to_dense(read_matrix(representation, adata)[:, order])


@pytest.mark.parametrize("use_rep", [None, "X"])
def test_features_are_taken_as_they_are(adata, use_rep):
    representation, points = make(adata, use_rep=use_rep)
    assert representation.kind == "features"
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, adata.X)
    moved = points - 1.0
    np.testing.assert_array_equal(decode(representation, adata.X.copy(), points, moved), np.maximum(moved, 0.0))


def test_features_below_zero_are_not_clipped(adata):
    representation, points = make(adata, "shifted")
    np.testing.assert_array_equal(points, adata.layers["shifted"])
    np.testing.assert_array_equal(decode(representation, points, points, points - 1.0), points - 1.0)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("zero_center", [True, False])
def test_pca_points_are_those_of_scanpy(adata, kind, zero_center):
    expected = np.asarray(adata.X, np.float64)
    adata.X = kind(adata.X)
    sc.pp.pca(adata, n_comps=4, zero_center=zero_center, svd_solver="arpack")
    representation, points = make(adata, use_rep="X_pca")
    assert representation.kind == "pca"
    np.testing.assert_allclose(points, adata.obsm["X_pca"], atol=1e-4)
    projected_mean = expected.mean(0) @ adata.varm["PCs"]
    np.testing.assert_allclose(representation.offset, projected_mean if zero_center else 0.0, atol=1e-4)


def test_rounding_does_not_add_up_over_an_atlas():
    n_cells = 2**20
    X = np.random.default_rng(0).normal(7.0, 0.1, size=(n_cells, 3)).astype(np.float32)
    atlas = AnnData(X, obsm={"X_pca": X - X.mean(0, dtype=np.float64)}, varm={"PCs": np.eye(3)})
    representation, points = make(atlas, use_rep="X_pca")
    np.testing.assert_allclose(representation.offset, X.mean(0, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(points, atlas.obsm["X_pca"], atol=1e-5)


def test_pca_of_highly_variable_features(adata):
    adata.var["highly_variable"] = np.arange(12) >= 4
    sc.pp.pca(adata, n_comps=4)
    representation, points = make(adata, use_rep="X_pca")
    moved = decode(representation, adata.X.copy(), points, points + 1.0)
    np.testing.assert_array_equal(moved[:, :4], adata.X[:, :4])
    assert (moved[:, 4:] != adata.X[:, 4:]).any(axis=0).all()


def test_pca_of_a_layer_is_decoded_to_the_layer(adata):
    sc.pp.pca(adata, n_comps=4, layer="shifted")
    representation, points = make(adata, use_rep="X_pca")
    assert representation.layer == "shifted"
    features = read(representation, adata, adata.var_names)
    np.testing.assert_array_equal(features, adata.layers["shifted"])
    decoded = decode(representation, features.copy(), points, points - 2.0)
    np.testing.assert_allclose(decoded, features - 2.0 * adata.varm["PCs"].sum(axis=1), atol=1e-5)
    assert decoded.min() < 0


def test_decoding_moves_cells_by_what_the_map_changed(adata):
    sc.pp.pca(adata, n_comps=4)
    representation, points = make(adata, use_rep="X_pca")
    moved = points + np.random.default_rng(1).normal(size=points.shape).astype(np.float32)
    expected = adata.X + (moved - points) @ adata.varm["PCs"].T
    assert (expected < 0).any()
    np.testing.assert_allclose(
        decode(representation, adata.X.copy(), points, moved), np.maximum(expected, 0.0), atol=1e-5
    )
    np.testing.assert_array_equal(decode(representation, adata.X.copy(), points, points), adata.X)


def test_cells_of_another_object_are_projected(adata):
    # Their own X_pca, of another PCA, must not be looked at.
    sc.pp.pca(adata, n_comps=4)
    representation, points = make(adata, use_rep="X_pca")
    other = adata[:30, ::-1].copy()
    sc.pp.pca(other, n_comps=3)
    np.testing.assert_allclose(
        encode(representation, read(representation, other, adata.var_names)), points[:30], atol=1e-5
    )


def test_an_embedding_without_decoder(adata, refused):
    adata.obsm["X_other"] = np.arange(160.0).reshape(80, 2)
    representation, points = make(adata, use_rep="X_other")
    assert representation.kind == "obsm"
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, adata.obsm["X_other"])
    del adata.obsm["X_other"]
    with refused(adata, KeyError, "'X_other' is not in adata.obsm"):
        read_matrix(representation, adata)


def test_what_cannot_be_used_is_refused(adata, refused):
    sc.pp.pca(adata, n_comps=4)
    with refused(adata, KeyError, "'X_pac' is not in adata.obsm", "Did you mean 'X_pca'?", "sc.pp.pca"):
        make(adata, None, "X_pac")[0]
    with refused(adata, KeyError, "'log' is not in adata.layers", "'shifted'"):
        make(adata, "log", None)[0]

    stale = adata.copy()
    stale.X = np.log1p(stale.X)
    with refused(stale, ValueError, "not the projection of the features", "Call sc.pp.pca again", "layer="):
        make(stale, None, "X_pca")[0]
    stale.layers["before"] = adata.X
    assert make(stale, "before", "X_pca")[0].kind == "pca"

    mixed = adata.copy()
    mixed.obsm["X_pca"] = mixed.obsm["X_pca"][:, :3]
    with refused(mixed, ValueError, "has 3 columns and its components 4", "sc.pp.pca again"):
        make(mixed, None, "X_pca")[0]


@pytest.mark.parametrize(("place", "use_rep"), [("X", None), ("X", "X_pca"), ("obsm", "X_pca"), ("obsm", "X_other")])
def test_numbers_that_are_none_are_refused(adata, refused, place, use_rep):
    sc.pp.pca(adata, n_comps=4)
    adata.obsm["X_other"] = adata.obsm["X_pca"].copy()
    matrix = adata.X if place == "X" else adata.obsm[use_rep]
    matrix[3, 2] = np.nan
    where = "adata.X" if place == "X" else f"adata.obsm['{use_rep}']"
    with refused(adata, ValueError, f"{where} holds NaN or infinite values in 1 of 80 cells"):
        make(adata, None, use_rep)[0]


@pytest.fixture
def counts():
    """Whole numbers up to some hundreds, most of them 0."""
    generator = np.random.default_rng(0)
    return AnnData(generator.poisson(generator.gamma(0.3, 30.0, size=(600, 12))).astype(np.float32))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, lambda X: sparse.csr_array(X.astype(np.uint16))])
def test_raw_counts_are_told(counts, kind):
    counts.layers["counts"] = kind(counts.X)
    sc.pp.pca(counts, n_comps=4, layer="counts")
    for use_rep in (None, "X_pca"):
        with pytest.warns(
            UserWarning, match=r"adata.layers\['counts'\] looks like raw counts, whole numbers up to \d+"
        ):
            make(counts, "counts", use_rep)
    sc.pp.normalize_total(counts)
    sc.pp.log1p(counts)
    make(counts)  # and no warning


def test_what_is_no_count_is_not_taken_for_one(counts):
    original = counts.X
    for X in (np.minimum(original, 50.0), original + 0.5, original - 1.0):
        counts.X = X
        make(counts)


def test_many_features_are_told():
    X = np.random.default_rng(0).normal(size=(20, 2_001)).astype(np.float32)
    make(AnnData(X[:, :2_000]))
    adata = AnnData(X)
    with pytest.warns(UserWarning, match=r"all 2001 features.*sc.pp.pca\(adata\), then use_rep='X_pca'"):
        make(adata)
    sc.pp.pca(adata, n_comps=4)
    make(adata, use_rep="X_pca")


def test_a_pca_without_its_components_is_told(adata):
    sc.pp.pca(adata, n_comps=4)
    del adata.varm["PCs"]
    with pytest.warns(UserWarning, match=r"adata.varm\['PCs'\] is missing: predictions will stay.*call sc.pp.pca"):
        representation, _ = make(adata, use_rep="X_pca")
    assert representation.kind == "obsm"


@pytest.mark.parametrize(("layer", "use_rep"), [(None, None), ("shifted", None), (None, "X_pca"), (None, "X_other")])
def test_stored_and_read_back(adata, layer, use_rep):
    sc.pp.pca(adata, n_comps=4)
    adata.obsm["X_other"] = adata.obsm["X_pca"]
    representation = make(adata, layer, use_rep)[0]
    back = representation_from_dict(representation_to_dict(representation))
    for one, other in zip(representation, back, strict=True):
        assert type(one) is type(other)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("use_rep", [None, "X_pca"])
def test_test_cells_do_not_decide_whether_predictions_are_clipped(adata, kind, use_rep):
    adata.X[5, 3] = -1.0
    adata.X = kind(adata.X)
    sc.pp.pca(adata, n_comps=4)
    everything = np.ones(80, bool)
    assert not make_representation(adata, None, use_rep, everything)[0].nonnegative
    assert make_representation(adata, None, use_rep, np.arange(80) != 5)[0].nonnegative


def test_features_in_units_of_some_cells(adata, refused):
    adata.X[:, 3] = 2.0
    some = np.arange(80) < 30
    representation, points = make_representation(adata, None, None, np.ones(80, bool), some)
    np.testing.assert_allclose(points[some].mean(0), 0.0, atol=1e-5)
    expected = np.where(np.arange(12) == 3, 0.0, 1.0)  # a constant feature stays as it is
    np.testing.assert_allclose(points[some].std(0), expected, atol=1e-5)
    np.testing.assert_array_equal(encode(representation, adata.X), points)
    np.testing.assert_array_equal(decode(representation, adata.X.copy(), points, points), adata.X)
    moved = decode(representation, adata.X.copy(), points, points + 1.0)
    np.testing.assert_allclose(moved - adata.X, np.tile(representation.scale, (80, 1)), rtol=1e-4, atol=1e-5)
    again = representation_from_dict(representation_to_dict(representation))
    np.testing.assert_array_equal(encode(again, adata.X), points)
    sc.pp.pca(adata, n_comps=4)
    with refused(adata, ValueError, "standardise=True is for features", "sc.pp.scale"):
        make_representation(adata, None, "X_pca", np.ones(80, bool), some)


def test_an_autoencoder_decodes_what_the_map_changed(adata, refused):
    scgap.pp.autoencoder(adata, n_latent=4, hidden=(16,), n_epochs=2, progress=False)
    representation, points = make(adata, use_rep="X_ae")
    assert representation.kind == "autoencoder"
    np.testing.assert_allclose(points, adata.obsm["X_ae"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(decode(representation, adata.X.copy(), points, points), adata.X)
    network, moved = adata.uns["ae"], points + 0.5
    change = autoencoder.decode(network, moved) - autoencoder.decode(network, points)
    np.testing.assert_allclose(
        decode(representation, adata.X.copy(), points, moved), np.maximum(adata.X + change, 0.0), atol=1e-5
    )
    again = representation_from_dict(representation_to_dict(representation))
    np.testing.assert_array_equal(encode(again, adata.X), points)
    adata.X[:, 0] += 5.0
    with refused(adata, ValueError, "features changed", "scgap.pp.autoencoder"):
        make(adata, use_rep="X_ae")
