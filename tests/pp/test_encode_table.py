import numpy as np
import pandas as pd
import pytest
from mudata import MuData

import scgap

TARGETS = pd.DataFrame({"EGFR": [1, 0, 1], "MEK1": [0, 1, 1]}, index=["drug_1", "drug_2", "new"])


def test_the_table_is_kept(screen):
    assert scgap.pp.encode_table(screen, TARGETS, key_added="target") is None
    stored = screen.uns["target"]
    assert set(stored) == {"method", "perturbations", "features", "values", "params"}
    assert stored["method"] == "table"
    assert stored["perturbations"].tolist() == ["drug_1", "drug_2", "new"]
    assert stored["features"].tolist() == ["EGFR", "MEK1"]
    assert stored["values"].dtype == np.float32
    np.testing.assert_array_equal(stored["values"], TARGETS)


def test_a_copy_leaves_the_input_alone(screen, same):
    before = screen.copy()
    result = scgap.pp.encode_table(screen, TARGETS, key_added="target", copy=True)
    assert "target" in result.uns
    assert same(screen, before)


def test_it_is_kept_in_the_modality(screen):
    mdata = MuData({"protein": screen})
    scgap.pp.encode_table(mdata, TARGETS, key_added="target", mod="protein")
    assert "target" in mdata["protein"].uns


@pytest.mark.parametrize(
    ("table", "key", "error", "words"),
    [
        (TARGETS.to_dict(), "target", TypeError, ("table is a dict", "Pass a DataFrame")),
        (TARGETS.replace(0, np.nan), "target", ValueError, ("table needs finite numbers", "'EGFR', 'MEK1'")),
        (TARGETS, "a/b", ValueError, ("'a/b' cannot be a key",)),
    ],
)
def test_what_cannot_be_kept_is_refused(screen, refused, table, key, error, words):
    with refused(screen, error, *words):
        scgap.pp.encode_table(screen, table, key_added=key)


def test_a_view_is_refused(screen, refused):
    view = screen[:1_400]
    with refused(view, ValueError, "view", "copy=True"):
        scgap.pp.encode_table(view, TARGETS, key_added="target")
    assert not scgap.pp.encode_table(view, TARGETS, key_added="target", copy=True).is_view


def test_a_fitted_map_is_not_written_over(fitted, refused):
    with refused(fitted, ValueError, "adata.uns['scgap'] holds a fitted map, which would be lost"):
        scgap.pp.encode_table(fitted, TARGETS, key_added="scgap")
    with refused(fitted, ValueError, "holds a fitted map"):
        scgap.pp.responders(fitted, dose_col="dose_value", key_added="scgap")
    with refused(fitted, ValueError, "key_added='perturbation' is a column that says what was done"):
        scgap.pp.responders(fitted, dose_col="dose_value", key_added="perturbation")
    with refused(fitted, ValueError, "holds a fitted map"):
        scgap.pp.streaming_pca(fitted, n_comps=3, key_added="scgap")
