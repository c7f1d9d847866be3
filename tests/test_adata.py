import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from scgap._adata import (
    check_finite,
    check_key,
    check_writable,
    get_layers,
    get_matrix,
    get_modality,
    get_obs,
    match_features,
    select_cells,
    to_dense,
)


@pytest.fixture
def adata():
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    obs = pd.DataFrame({"drug": ["a", "b", "a", "b"]}, index=["c0", "c1", "c2", "c3"])
    return AnnData(X, obs=obs, var=pd.DataFrame(index=["f0", "f1", "f2"]), layers={"double": 2 * X})


@pytest.fixture
def mdata(adata):
    protein = AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame(index=["c3", "c1", "c0"]))
    protein.var_names = ["p0", "p1"]
    return MuData({"rna": adata, "protein": protein})


def test_a_modality_is_found(adata, mdata):
    assert get_modality(adata, None) is adata
    assert get_modality(mdata, "protein") is mdata["protein"]


def test_a_wrong_modality_is_refused(adata, mdata, refused):
    with refused(mdata, ValueError, "mod is None", "'rna', 'protein'"):
        get_modality(mdata, None)
    with refused(mdata, KeyError, "'protien' is not in mdata.mod", "Did you mean 'protein'?"):
        get_modality(mdata, "protien")
    with refused(adata, ValueError, "mod='rna'", "Leave mod out"):
        get_modality(adata, "rna")
    with refused(adata.X, TypeError, "data is an ndarray", "Pass an AnnData"):
        get_modality(adata.X, None)


def test_a_view_is_refused_unless_copied(adata, refused):
    view = adata[:2]
    with refused(view, ValueError, "view", "adata.copy()", "copy=True"):
        check_writable(view, copy=False)
    check_writable(view, copy=True)
    check_writable(adata, copy=False)


def test_repeated_features_are_refused(adata, refused):
    adata.var_names = pd.Index(["f0", "f1", "f0"])
    for copy in (False, True):
        with refused(adata, ValueError, "not unique: 'f0'.", "var_names_make_unique"):
            check_writable(adata, copy=copy)


@pytest.mark.parametrize("name", ["a/b", "", 1, ("a",)])
def test_names_that_no_file_takes_are_refused(name):
    with pytest.raises(ValueError, match=r"cannot be a key: AnnData's files .* without '/'"):
        check_key(name)


def test_obs_is_looked_up_in_the_modality_and_then_in_the_mudata(mdata):
    mdata.obs["dose"] = [0.0, 1.0, 2.0, 3.0]
    obs = get_obs(mdata, "rna", ["drug", "dose"])
    assert obs["drug"].tolist() == ["a", "b", "a", "b"]
    assert obs["dose"].tolist() == [0.0, 1.0, 2.0, 3.0]
    # The rows of the modality, in its own order and without the cell that it lacks.
    obs = get_obs(mdata, "protein", ["dose"])
    assert obs.index.tolist() == ["c3", "c1", "c0"]
    assert obs["dose"].tolist() == [3.0, 1.0, 0.0]
    mdata["protein"].obs["dose"] = [7.0, 8.0, 9.0]
    assert get_obs(mdata, "protein", ["dose"])["dose"].tolist() == [7.0, 8.0, 9.0]


def test_a_missing_column_is_refused(adata, mdata, refused):
    with refused(adata, KeyError, "'drugs' is not in adata.obs", "found 'drug'", "Did you mean 'drug'?"):
        get_obs(adata, None, ["drugs"])
    mdata.obs["dose"] = 0.0
    with refused(mdata, KeyError, "'doze'", "'drug'", "'dose'"):
        get_obs(mdata, "rna", ["doze"])


def test_layers_have_names(adata):
    assert get_layers(adata) == ["double"]


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_matrices_of_any_kind_are_read(adata, kind, dtype):
    expected = adata.X.copy()
    adata.X = kind(expected.astype(dtype))
    matrix = get_matrix(adata, None)
    assert isinstance(matrix, np.ndarray) or matrix.format == "csr"
    dense = to_dense(matrix)
    assert dense.dtype == np.float32
    np.testing.assert_array_equal(dense, expected)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_matrices_in_a_file_are_read(adata, tmp_path, kind):
    expected = adata.X.copy()
    adata.X = kind(expected)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(to_dense(get_matrix(backed, None)), expected)
    backed.file.close()


def test_layers_are_read(adata, refused):
    np.testing.assert_array_equal(get_matrix(adata, "double"), 2 * adata.X)
    with refused(adata, KeyError, "'doubel' is not in adata.layers", "Did you mean 'double'?"):
        get_matrix(adata, "doubel")
    adata.X = None
    with refused(adata, ValueError, "adata.X is None", "layer="):
        get_matrix(adata, None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_numbers_that_are_none_are_counted(kind, value):
    matrix = np.ones((4, 3), np.float32)
    check_finite(kind(matrix), "adata.X")
    matrix[[1, 2], [0, 2]] = value
    with pytest.raises(ValueError, match=r"adata.X holds NaN or infinite values in 2 of 4 cells.*drop these cells"):
        check_finite(kind(matrix), "adata.X")


def test_features_are_matched_by_name(adata):
    names = np.array(["f0", "f1", "f2"])
    assert match_features(adata, names) is None
    order = match_features(adata[:, ["f2", "f0", "f1"]].copy(), names)
    assert order.tolist() == [1, 2, 0]


def test_missing_and_unknown_features_are_refused(adata, refused):
    with refused(adata, ValueError, "lacks 2 of the 4 features", "'g0', 'g1'", "order does not matter"):
        match_features(adata, np.array(["f0", "g0", "f1", "g1"]))
    with refused(adata, ValueError, "1 features that the map was not fitted on: 'f2'", "adata.uns[key]['var_names']"):
        match_features(adata, np.array(["f0", "f1"]))


@pytest.mark.parametrize(
    "cells",
    [
        np.array([True, False, True, False]),
        [True, False, True, False],
        pd.Series([True, False, True, False], index=["c0", "c1", "c2", "c3"]),
        pd.Series([True, True, False, False, True], index=["c2", "c0", "c3", "c1", "c9"]),
        pd.Series([True, True, False, False], index=["c2", "c0", "c3", "c1"], dtype=object),
        pd.array([True, False, True, False], dtype="boolean"),
        ["c2", "c0"],
        np.array(["c0", "c2"]),
        pd.Index(["c0", "c2"]),
    ],
)
def test_cells_are_selected_by_mask_or_name(adata, cells):
    assert select_cells(adata, cells).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("cells", "error", "words"),
    [
        ([True, False], ValueError, ("shape (2,)", "each of 4 cells")),
        (["c0", "c9"], KeyError, ("1 cells", "'c9'", "boolean mask")),
        ([0, 1], TypeError, ("source holds numbers, '0', '1'", "boolean mask or obs names")),
        (np.array([0.0, 1.0]), TypeError, ("source holds numbers",)),
        (pd.Series([True, False], index=["c0", "c9"]), KeyError, ("without 3 of the 4 cells: 'c1', 'c2', 'c3'",)),
        (
            pd.Series([True] * 4, index=["c0", "c0", "c1", "c2"]),
            ValueError,
            ("names cells twice", "order of the cells"),
        ),
        (pd.Series([True] * 4), KeyError, ("without 4 of the 4 cells", "as an array in the order of the cells")),
        ([], ValueError, ("selects no cells", "at least one")),
        ([False] * 4, ValueError, ("selects no cells", "leave it out for all controls")),
        ("c0", TypeError, ("source is a str", "list of obs names")),
        (slice(2), TypeError, ("source is a slice", "boolean mask")),
        (np.ones((4, 1), bool), TypeError, ("source is an ndarray",)),
    ],
)
def test_wrong_selections_are_refused(adata, refused, cells, error, words):
    with refused(adata, error, *words):
        select_cells(adata, cells)


def test_names_that_several_cells_have_select_none_of_them(adata, refused):
    """As concatenation leaves them: a control of one batch may be called as a treated cell of the other."""
    adata.obs_names = ["c0", "c1", "c0", "c2"]
    assert select_cells(adata, ["c1", "c2"]).tolist() == [False, True, False, True]
    assert select_cells(adata, [True, False, False, False]).tolist() == [True, False, False, False]
    with refused(adata, ValueError, "several cells have: 'c0'", "obs_names_make_unique()", "boolean mask"):
        select_cells(adata, ["c0", "c1"])
