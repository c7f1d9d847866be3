"""One small screen and one small fit, made once for all tests, and what compares objects."""

from contextlib import contextmanager

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import settings
from mudata import MuData
from scipy import sparse

import scgap

matplotlib.use("agg")

# `--hypothesis-profile=nightly`: each property is tried on 20 times as many inputs.
settings.register_profile("nightly", max_examples=2_000, deadline=None)

# Fits of one shape share one compilation, which takes far longer than their few iterations.
DESIGN = {"dose_col": "dose_value", "group_col": "cell_line"}
FIT = {
    **DESIGN,
    "split_col": "split",
    "n_iters": 100,
    "batch_size": 64,
    "learning_rate": 1e-2,
    "hidden": (16,),
    "progress": False,
}
PAIRS = {"target_col": "genes", "reference_key": "none", "group_col": "line", "dose_col": None, "sep": "+"}


@pytest.fixture(scope="session")
def _screen():
    adata = scgap.datasets.simulate_screen(1_500, n_drugs=3, doses=[100.0, 1_000.0], n_groups=2, n_features=20)
    scgap.pp.split(adata, **DESIGN)
    return adata


@pytest.fixture(scope="session")
def _fitted(_screen):
    adata = _screen.copy()
    scgap.tl.fit_transport(adata, **FIT)
    return adata


@pytest.fixture
def screen(_screen):
    """3 drugs at 2 doses in 2 cell lines, 20 features, with a split."""
    return _screen.copy()


@pytest.fixture
def fitted(_fitted):
    """The screen with a map in ``uns["scgap"]``."""
    return _fitted.copy()


@pytest.fixture(scope="session")
def _pairs(_screen):
    adata = _screen.copy()
    pairs = ["none", "A", "B", "A+B", "A+C", "C", "B+C"]
    code = adata.obs.groupby(["perturbation", "dose_value"], observed=True).ngroup()
    adata.obs = pd.DataFrame({"genes": [pairs[i] for i in code], "line": adata.obs["cell_line"]})
    scgap.pp.split(adata, target_col="genes", reference_key="none", group_col="line", sep="+")
    scgap.tl.fit_transport(adata, **{**FIT, **PAIRS})
    return adata


@pytest.fixture
def pairs(_pairs):
    """A screen of single and double perturbations without doses, ``obs["genes"]`` in ``obs["line"]``, with a map."""
    return _pairs.copy()


@pytest.fixture(scope="session")
def _encoded(_screen):
    adata = _screen.copy()
    scgap.pp.split(adata, holdout={"perturbation": ["drug_2"]}, **DESIGN)
    scgap.tl.fit_transport(adata, encoding=adata.uns["drug_descriptors"], **FIT)
    return adata


@pytest.fixture
def encoded(_encoded):
    """The screen with a map that knows the descriptors of all drugs and has not seen drug_2."""
    return _encoded.copy()


@pytest.fixture(scope="session")
def pairs_settings():
    """Arguments of the fit of pairs."""
    return {**FIT, **PAIRS}


@pytest.fixture(scope="session")
def settings():
    """Arguments of the fit."""
    return dict(FIT)


@pytest.fixture(scope="session")
def same():
    """Whether two objects are the same in all that they hold."""
    return _difference_is_none


@pytest.fixture(scope="session")
def refused():
    """A call that must raise the error with these words, and leave the object as it was."""

    @contextmanager
    def check(data, error, *words):
        before = _content(data, copy=True)
        with pytest.raises(error) as caught:
            yield
        message = str(caught.value.args[0])  # str() of a KeyError would be its repr
        missing = [word for word in words if word not in message]
        assert not missing, f"{missing} not in {message!r}"
        assert _difference(before, _content(data), "") is None

    return check


def _content(data, *, copy=False):
    """All that an AnnData or MuData holds, as nested dicts; other objects as they are."""
    if isinstance(data, MuData):
        content = {"obs": data.obs, "uns": dict(data.uns)} | {name: _content(mod) for name, mod in data.mod.items()}
    elif isinstance(data, AnnData):
        content = {"X": data.X, "obs": data.obs, "var": data.var, "uns": dict(data.uns), "is_view": data.is_view}
        for name in ("layers", "obsm", "varm", "obsp"):
            content[name] = dict(getattr(data, name))
    else:
        content = data
    return _copied(content) if copy else content


def _copied(content):
    if isinstance(content, dict):
        return {name: _copied(value) for name, value in content.items()}
    return content.copy() if hasattr(content, "copy") else content


def _difference_is_none(one, other):
    difference = _difference(_content(one), _content(other), "")
    assert difference is None, difference
    return True


def _difference(one, other, where):
    """Where two contents differ first, or None."""
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return f"{where}: {list(one)} and {list(other)}"
        found = (_difference(one[name], other[name], f"{where}/{name}") for name in one)
        return next((difference for difference in found if difference), None)
    if isinstance(one, pd.DataFrame):
        equal = one.equals(other) and list(one.dtypes) == list(other.dtypes)
    elif sparse.issparse(one):
        equal = one.format == other.format and one.dtype == other.dtype and _equal(one.toarray(), other.toarray())
    else:
        equal = _equal(one, other)
    return None if equal else f"{where}: {one!r} and {other!r}"


def _equal(one, other):
    if not isinstance(one, np.ndarray):
        return type(one) is type(other) and one == other
    if not isinstance(other, np.ndarray) or one.dtype != other.dtype:
        return False
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
