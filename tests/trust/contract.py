"""What every public function promises of bad input: it works, or raises an error of its own and changes nothing."""

import copy
import inspect
import re
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import scgap

SOURCE = str(Path(scgap.__file__).parent)
SHORTEST = 30  # characters, below which a message cannot say what was found, what is allowed and what to do


def check(function, /, *args, **kwargs):
    """Call the function; say whether it worked, and fail if it breaks the promise."""
    objects = [value for value in (*args, *kwargs.values()) if isinstance(value, AnnData | MuData | pd.DataFrame)]
    before = [content(value, copied=True) for value in objects]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy and pandas; the object is what is looked at here
            function(*args, **kwargs)
    except Exception as error:
        complaint = fault(error, function)
        if complaint:
            raise AssertionError(f"{complaint}: {type(error).__name__}: {error}") from error
        if isinstance(error, FloatingPointError):
            return False  # what a fit that diverged keeps, tests/test_faults.py tells
        for value, old in zip(objects, before, strict=True):
            where = difference(old, content(value))
            if where is not None:
                raise AssertionError(f"{where} changed, though an error was raised: {error}") from error
        return False
    finally:
        plt.close("all")
    return True


def fault(error, function):
    """What is wrong with an error, or None."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if not names & documented(function):
        return f"not documented under Raises ({sorted(documented(function))})"
    last = list(traceback.walk_tb(error.__traceback__))[-1][0]
    if not last.f_code.co_filename.startswith(SOURCE):
        return f"not raised by scgap but in {last.f_code.co_filename}:{last.f_lineno}"
    message = str(error.args[0]) if error.args else ""  # str() of a KeyError would be its repr
    if len(message) < SHORTEST:
        return "too short to say what to do"
    if message.rstrip()[-1] not in ".?!":
        return "not a sentence"
    return None


def documented(function):
    """Names of the errors in the Raises section of a docstring."""
    section = re.search(r"\nRaises\n-+\n(.*?)(\n\w[\w ]*\n-+\n|\Z)", inspect.getdoc(function), re.DOTALL)
    titles = re.findall(r"^(\w[\w, ]*)$", section[1], re.MULTILINE) if section else []
    return {name.strip() for title in titles for name in title.split(",")}


def content(data, *, copied=False):
    """All that an object holds, as nested dicts."""
    if isinstance(data, MuData):
        own = {"obs": data.obs, "uns": dict(data.uns), "obsm": dict(data.obsm)}
        whole = own | {name: content(mod) for name, mod in data.mod.items()}
    elif isinstance(data, AnnData) and data.is_view and not data.isbacked:
        return {"a view": content(data.copy())}  # of arrays and tables that could not be copied one by one
    elif isinstance(data, AnnData):
        whole = {"obs": pd.DataFrame(data.obs), "var": pd.DataFrame(data.var), "uns": dict(data.uns)}
        whole["X"] = Path(data.filename).read_bytes() if data.isbacked else data.X
        for name in ("obsm", "varm", "obsp", *(() if data.isbacked else ("layers",))):  # layers are in the file, too
            whole[name] = dict(getattr(data, name))
    else:
        whole = {"": data}
    return copy.deepcopy(whole) if copied else whole


def difference(one, other, where="the object"):
    """Where two contents differ first, or None."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return f"{where}: {list(one)} and {list(other)}"
        found = (difference(one[name], other[name], f"{where}/{name}") for name in one)
        return next((place for place in found if place), None)
    return None if same(one, other) else where


def same(one, other):
    """Whether two values are the same in type and content; missing values are the same as themselves."""
    if type(one) is not type(other):
        return False
    if isinstance(one, pd.DataFrame):
        columns = one.columns.equals(other.columns) and same(one.index, other.index)
        return columns and all(same(one.iloc[:, i], other.iloc[:, i]) for i in range(one.shape[1]))
    if isinstance(one, pd.Series | pd.Index):
        return one.dtype == other.dtype and same(np.asarray(one, object), np.asarray(other, object))
    if sparse.issparse(one):
        parts = [(one.shape, other.shape), (one.format, other.format), (one.toarray(), other.toarray())]
        return all(same(a, b) for a, b in parts)
    if isinstance(one, np.ma.MaskedArray):
        return same(np.ma.getmaskarray(one), np.ma.getmaskarray(other)) and same(one.data, other.data)
    if isinstance(one, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if one.dtype == object:
            return all(same(a, b) for a, b in zip(one.ravel(), other.ravel(), strict=True))
        return np.array_equal(one, other, equal_nan=one.dtype.kind in "fcmM")
    return one is other or bool(one == other) or (one != one and other != other)
