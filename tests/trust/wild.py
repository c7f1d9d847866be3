"""Objects and arguments that nobody should pass, and somebody will."""

import copy
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from hypothesis import strategies as st
from mudata import MuData
from scipy import sparse

import scgap

DESIGN = {"dose_col": "dose_value", "group_col": "cell_line"}
# No iterations, for the loop is not what is asked here; the shapes are those that were compiled for the first fit.
FIT = {**DESIGN, "split_col": "split", "n_iters": 0, "n_maps": 2, "batch_size": 16, "hidden": (8,), "progress": False}
ENCODING = pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [1.0, 0.0, 1.0]}, ["A", "B", "C"])


@cache
def fitted():
    """Three conditions of 20 cells and more with 4 features, a map, a prediction, scores and an encoding."""
    rng = np.random.default_rng(0)
    label = np.repeat(["control", "A", "B"], [24, 20, 20])
    obs = pd.DataFrame({"perturbation": pd.Categorical(label)}, [f"cell_{i}" for i in range(64)])
    obs["dose_value"] = np.repeat([0.0, 1.0, 10.0], [24, 20, 20])
    obs["cell_line"] = "line_1"
    # More or less the counts that responders and encodings of effects need in training, and metrics in the test.
    obs["split"] = np.concatenate([np.resize(["train", "train", "train", "valid", "test"], n) for n in (24, 20, 20)])
    obs["smiles"] = np.repeat(["C", "CCO", "CCN"], [24, 20, 20])
    X = rng.normal(5, 1, (64, 4)).astype(np.float32)
    X[label == "A", 0] += 2
    X[label == "B", 1] -= 2
    adata = AnnData(X, obs=obs, var=pd.DataFrame(index=[f"f{i}" for i in range(4)]))
    adata.layers["counts_like"] = np.round(np.abs(X))
    adata.layers["other"] = X.copy()
    adata.obsm["X_emb"] = X[:, :2].copy()
    scgap.pp.encode_table(adata, ENCODING, key_added="table")
    scgap.pp.encode_effects(adata, **DESIGN, split_col="split", n_components=1)
    scgap.tl.fit_transport(adata, **FIT)
    scgap.tl.predict(adata, {"perturbation": "A", "dose_value": 1.0})
    scgap.tl.evaluate(adata, metrics="mean_error")
    return adata


# --- labels and numbers ---------------------------------------------------------------------------------------------

LABELS = st.one_of(
    st.sampled_from(["control", "A", "B", "A+B", "A+control", "+", "", " ", "a", "A/B", "nan", "None", "é", "薬\x00"]),
    st.sampled_from([None, np.nan, pd.NA, 0, 1, 1.5, True, b"A", ("A", "B"), float("inf"), pd.Timestamp(0)]),
    st.text(max_size=6),
)
NUMBERS = st.sampled_from([0, 1, -1, 1.0, 1e-300, 1e300, np.nan, np.inf, "10", "1+10", "ten", "", None, True, b"1", 1j])
SPLITS = st.sampled_from(["train", "valid", "test", "Train", "", None, np.nan, 0, True])
# What stands where another type should; no large numbers, for 10**9 iterations are allowed.
NUMBERS_AND_WORDS = [
    None,
    True,
    0,
    1,
    -1,
    3,
    2.5,
    np.nan,
    np.inf,
    1j,
    "",
    "nope",
    "perturbation",
    "a/b",
    "é\x00",
    "X_emb",
]
COLLECTIONS = [
    [],
    ["perturbation"],
    [1, 2],
    [None],
    [["a"]],
    (),
    ("A", "B"),
    {},
    {"a": 1},
    {1: None},
    {"perturbation": "A"},
]
OTHERS = [
    b"x",
    set(),
    np.float32(0.5),
    np.int8(3),
    np.array("A"),
    pd.Timestamp(0),
    object,
    Path("nowhere"),
    range(2),
    max,
]
TABLES = st.builds(np.arange, st.integers(0, 3)) | st.builds(pd.Series, st.just([1.0])) | st.builds(pd.DataFrame)
VALUES = st.sampled_from([*NUMBERS_AND_WORDS, *COLLECTIONS, *OTHERS]) | TABLES
SCALARS = VALUES.filter(lambda value: not isinstance(value, np.ndarray | pd.Series | pd.DataFrame))


def _column(values):
    """A change of one column of obs: a few of its values, or their type."""

    @st.composite
    def change(draw, adata):
        column = draw(st.sampled_from(values[0]))
        if column not in adata.obs or not adata.n_obs:
            return adata
        content = adata.obs[column].astype(object).to_numpy(copy=True)
        for _ in range(draw(st.integers(1, 3))):
            wild = np.empty((), object)
            wild[()] = draw(values[1])
            rows = draw(st.sampled_from([slice(0, 1), slice(-1, None), slice(24, 44), slice(44, None), slice(None)]))
            content[rows] = wild
        series = pd.Series(content, adata.obs_names, dtype=object)
        kind = draw(st.sampled_from(["object", "category", "string", "Float64", "bool", "unused", "float16"]))
        try:
            if kind == "unused":
                series = series.astype("category").cat.add_categories(["never", "A+never"])
            else:
                series = series.astype(kind)
        except (TypeError, ValueError, AttributeError):
            pass  # there is no such column
        adata.obs[column] = series
        return adata

    return change


wild_labels = _column((["perturbation", "cell_line", "smiles"], LABELS))
wild_numbers = _column((["dose_value", "perturbation"], NUMBERS))
wild_splits = _column((["split"], SPLITS))


@st.composite
def missing_column(draw, adata):
    """Obs without a column."""
    column = draw(st.sampled_from([str(name) for name in adata.obs.columns]))
    del adata.obs[column]
    return adata


@st.composite
def wild_matrix(draw, adata):
    """X of another type or form, or with other numbers."""
    if adata.X is None:
        return adata
    X = np.array(np.asarray(adata.X.todense() if sparse.issparse(adata.X) else adata.X), float)
    kind = draw(st.sampled_from([*FORMS, "bad value"]))
    if kind == "bad value":
        bad = draw(st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -1e38, 1e-40]))
        X = X.astype(np.float32)
        X[: draw(st.sampled_from([1, 30, 64])), : draw(st.sampled_from([1, 4]))] = bad
        adata.X = draw(st.sampled_from([np.asarray, sparse.csr_matrix]))(X)
    else:
        adata.X = FORMS[kind](X)
    return adata


FORMS = {
    "int": lambda X: np.round(X).astype(np.int32),
    "uint8": lambda X: np.abs(X).astype(np.uint8),
    "float16": lambda X: X.astype(np.float16),
    "float64": lambda X: X,
    "bool": lambda X: X > 5,
    "object": lambda X: X.astype(object),
    "strings": lambda X: X.astype(object).astype(str).astype(object),
    "complex": lambda X: X.astype(complex),
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "sparse bool": lambda X: sparse.csr_matrix(X > 5),
    "masked": lambda X: np.ma.MaskedArray(X, X > 6),
    "constant": np.ones_like,
    "zeros": np.zeros_like,
    "empty sparse": lambda X: sparse.csr_matrix(X.shape),
    "none": lambda X: None,
}


@st.composite
def wild_shape(draw, adata):
    """Few cells or features, or cells twice; as a copy or as a view."""
    rows = draw(st.sampled_from([slice(0), slice(1), slice(24), slice(20, 30), slice(None), [0, 0, 1, 30, 30, 50]]))
    rows = slice(None) if isinstance(rows, list) and adata.n_obs <= 50 else rows
    columns = draw(st.sampled_from([slice(None), slice(0), slice(1), slice(None, None, -1)]))
    view = adata[rows, columns]
    return view if draw(st.booleans()) else view.copy()


@st.composite
def wild_names(draw, adata):
    """Names that are twice there, or are others."""
    names = draw(st.sampled_from([["a"] * 64, [str(i) for i in range(64)], [""] * 64, ["A"] + ["b"] * 63]))
    if draw(st.booleans()):
        adata.obs_names = names[: adata.n_obs]
    else:
        adata.var_names = names[: adata.n_vars]
    return adata


@st.composite
def wild_places(draw, adata):
    """An embedding, a layer or an entry of uns that is not what it should be."""
    n = adata.n_obs
    wild = draw(st.sampled_from([np.full((n, 2), np.nan), np.zeros((n, 0)), np.zeros((n, 2), int), np.ones((n, 2, 2))]))
    place = draw(st.sampled_from(["obsm", "layers", "uns"]))
    if place == "obsm":
        adata.obsm["X_emb"] = wild
    elif place == "layers":
        adata.layers["scgap"] = np.full(adata.shape, np.nan)
    else:
        key = draw(st.sampled_from(["scgap", "effect", "table"]))
        adata.uns[key] = draw(st.sampled_from([None, 3, "text", {}, {"format_version": 1}, [1], np.zeros(2)]))
    return adata


CHANGES = (
    wild_labels,
    wild_numbers,
    wild_splits,
    missing_column,
    wild_matrix,
    wild_shape,
    wild_names,
    wild_places,
)


@st.composite
def objects(draw, *, most=2):
    """The fitted object with up to ``most`` changes; now and then in a file, or a modality of a MuData."""
    adata = fitted().copy()
    adata.uns = copy.deepcopy(dict(adata.uns))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=most)):
        if adata.is_view:
            break
        adata = draw(change(adata))
    form = draw(st.sampled_from(["anndata", "anndata", "anndata", "anndata", "mudata", "file"]))
    if form == "mudata" and not adata.is_view and adata.obs_names.is_unique:
        return MuData({"rna": adata})
    if form == "file":
        return in_file() if draw(st.booleans()) else in_file()[:40]
    return adata


def in_file():
    """The object, opened in a file."""
    return anndata.read_h5ad(_file(), backed="r")


@cache
def _file():
    path = Path(mkdtemp(prefix="scgap-test-")) / "cells.h5ad"
    fitted().write_h5ad(path)
    return path
