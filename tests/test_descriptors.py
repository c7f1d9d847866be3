import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scgap._descriptors import Descriptors, check_table, descriptors_from_uns, descriptors_to_uns, join_encodings


def table(rows, columns="x"):
    values = np.arange(len(rows) * len(columns), dtype=float).reshape(len(rows), len(columns))
    return pd.DataFrame(values, list(rows), list(columns))


@pytest.fixture
def uns():
    """Two stored encodings and a bare table."""
    stored = {
        "drug": descriptors_to_uns(Descriptors("rdkit2d", check_table(table("ABC", "xy"), "t"), {"n": 1}, {})),
        "effect": descriptors_to_uns(Descriptors("effect", check_table(table("CAD", "yz"), "t"), {}, {})),
    }
    return stored | {"bare": table("AB", "w"), "pca": {"variance": np.ones(3)}, "number": 3}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"A": [1.0]}, TypeError, ["table is a dict", "DataFrame", "one row a perturbation"]),
        (pd.Series([1.0]), TypeError, ["table is a Series", "DataFrame"]),
        (pd.DataFrame({"x": [1, 2, 3]}, ["A", "B", "B"]), ValueError, ["names 'B' twice", "Keep one row"]),
        (pd.DataFrame({"x": [1, 2]}, ["A", " A"]), ValueError, ["names 'A' twice"]),
        (pd.DataFrame({"x": [1, np.nan], "y": 1}, ["A", "B"]), ValueError, ["finite numbers", "'x'", "Fill or drop"]),
        (pd.DataFrame({"x": [1, np.inf], "y": 1}, ["A", "B"]), ValueError, ["finite numbers", "'x'", "Fill or drop"]),
        (pd.DataFrame({"x": [1, 1e300], "y": 1}, ["A", "B"]), ValueError, ["finite numbers", "'x'", "Fill or drop"]),
        (pd.DataFrame({"x": ["CCO", "C"]}, ["A", "B"]), ValueError, ["finite numbers", "'x'", "Fill or drop"]),
        (pd.DataFrame(index=["A", "B"]), ValueError, ["at least one column"]),
        (pd.DataFrame({"x": []}), ValueError, ["finite numbers"]),
    ],
)
def test_a_table_that_cannot_be_used(given, error, words):
    with pytest.raises(error) as caught:
        check_table(given, "table")
    assert not [word for word in words if word not in str(caught.value)]


@pytest.mark.parametrize(
    ("index", "expected"), [([1, 2], ["1", "2"]), ([1.0, 2.0], ["1", "2"]), ([" A", "B "], ["A", "B"])]
)
def test_rows_are_named_as_conditions_are(index, expected):
    checked = check_table(pd.DataFrame({7: ["1.5", 2]}, index), "table")
    assert checked.index.tolist() == expected
    assert checked.columns.tolist() == ["7"]
    assert checked.dtypes.tolist() == [np.float32]
    np.testing.assert_array_equal(checked["7"], [1.5, 2.0])


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_descriptors_survive_files(tmp_path, suffix):
    names = ["5/6-drug", "(+)-JQ1", "αβ 抗", "a, b"]
    values = check_table(pd.DataFrame(np.random.default_rng(0).normal(size=(4, 2)), names, ["x/y", "z"]), "t")
    expected = Descriptors("m", values, {"a": [1, None], "b": {"c": "d"}}, {"mean": np.arange(2.0)})
    adata = AnnData(np.zeros((2, 1), np.float32), uns={"drug": descriptors_to_uns(expected)})
    path = tmp_path / f"x.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    found = descriptors_from_uns(getattr(anndata, f"read_{suffix}")(path).uns, "drug")
    assert (found.method, found.params) == (expected.method, expected.params)
    pd.testing.assert_frame_equal(found.table, expected.table)
    np.testing.assert_array_equal(found.arrays["mean"], expected.arrays["mean"])


def test_tables_are_joined_by_perturbation(uns):
    joined = join_encodings(["drug", "effect"], uns)
    assert joined.index.tolist() == ["A", "C"]
    assert joined.columns.tolist() == ["x", "drug: y", "effect: y", "z"]
    np.testing.assert_array_equal(joined, [[0, 1, 2, 3], [4, 5, 0, 1]])
    assert (joined.dtypes == np.float32).all()


def test_tables_and_keys_mix(uns):
    joined = join_encodings([table("BA", "x"), "drug", "bare"], uns)
    assert joined.columns.tolist() == ["table_1: x", "drug: x", "y", "w"]
    np.testing.assert_array_equal(joined, [[0, 2, 3, 1], [1, 0, 1, 0]])


def test_one_table_is_taken_as_it_is(uns):
    for encoding in ("drug", ["drug"], table("ABC", "xy")):
        pd.testing.assert_frame_equal(join_encodings(encoding, uns), check_table(table("ABC", "xy"), "t"))
    assert join_encodings(None, uns) is None


@pytest.mark.parametrize(
    ("encoding", "error", "words"),
    [
        ("drugs", KeyError, ["'drugs' is not in adata.uns", "Did you mean 'drug'?", "scgap.pp.encode_drugs"]),
        (["drug", "drog"], KeyError, ["'drog' is not in adata.uns"]),
        ("pca", ValueError, ["adata.uns['pca'] is not an encoding but a dict", "scgap.pp.encode_drugs"]),
        ("number", ValueError, ["adata.uns['number'] is not an encoding but an int"]),
        ([], ValueError, ["empty list", "or None"]),
        (["drug", "drug"], ValueError, ["'drug' twice"]),
        (
            ["drug", table("XY")],
            ValueError,
            ["'drug', 'table_2'", "no perturbation in common"],
        ),
        ({"A": [1.0]}, TypeError, ["encoding is a dict", "Pass a DataFrame"]),
        (["drug", 3], TypeError, ["encoding is an int", "Pass a DataFrame"]),
    ],
)
def test_encodings_that_cannot_be_joined(uns, encoding, error, words):
    with pytest.raises(error) as caught:
        join_encodings(encoding, uns)
    message = str(caught.value.args[0])
    assert not [word for word in words if word not in message], message
