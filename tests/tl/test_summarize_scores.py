import anndata
import numpy as np
import pandas as pd
import pytest

import scgap

ROWS = [
    {"condition": condition, "split": "test", "support": tier, "method": method, "metric": "std_error", "value": value}
    for condition, tier, shift in (("A", "seen", 0.0), ("B", "seen", 0.4), ("C", "unseen group", 0.2))
    for method, value in (("scgap", 1.0 + shift), ("identity", 2.0 + shift), ("ceiling", 0.5))
]


@pytest.fixture
def scores():
    return pd.DataFrame(ROWS)


def test_scores_of_tiers_apart(scores):
    table = scgap.tl.summarize_scores(scores)
    found = table.set_index(["support", "method"])["score"]
    assert np.isclose(found["seen", "scgap"], 1.0 / 1.7)
    assert np.isclose(found["unseen group", "scgap"], 1.0 / 1.7)
    assert table["n_conditions"].tolist() == [2] * 3 + [1] * 3
    pd.testing.assert_frame_equal(scores, pd.DataFrame(ROWS))  # the user's table is the user's


def test_what_evaluate_returns_and_what_a_file_keeps(fitted, tmp_path):
    scores = scgap.tl.evaluate(fitted, metrics=["energy_distance", "std_error"])
    table = scgap.tl.summarize_scores(scores, by="split")
    values = scores[scores["method"].eq("scgap") & scores["metric"].eq("std_error")]["value"]
    row = table[table["method"].eq("scgap") & table["metric"].eq("std_error")].iloc[0]
    assert row["n_conditions"] == len(values) == scores["condition"].nunique()
    assert np.isclose(row["mean"], values.mean())
    fitted.write_h5ad(tmp_path / "screen.h5ad")
    stored = anndata.read_h5ad(tmp_path / "screen.h5ad").uns["scgap"]["scores"]
    again = scgap.tl.summarize_scores(stored, by="split")
    pd.testing.assert_frame_equal(again.astype({"split": str}), table.astype({"split": str}))


@pytest.mark.parametrize(
    ("change", "arguments", "error", "words"),
    [
        (lambda scores: scores.to_numpy(), {}, TypeError, ("scores is an ndarray", "scgap.tl.evaluate")),
        (
            lambda scores: scores.drop(columns="value"),
            {},
            KeyError,
            ("scores has no column 'value'", "'method'", "scgap.tl.evaluate"),
        ),
        (lambda scores: scores[:0], {}, ValueError, ("scores has no rows", "scgap.tl.evaluate")),
        (
            lambda scores: scores.drop(columns="support"),
            {},
            KeyError,
            ("'support' is not in the columns to group by", "found 'split'"),
        ),
        (lambda scores: scores, {"by": "suport"}, KeyError, ("'suport' is not in", "Did you mean 'support'")),
        (lambda scores: scores, {"by": ["support", "method"]}, KeyError, ("'method' is not in the columns to group",)),
        (
            lambda scores: scores,
            {"by": "split"},
            ValueError,
            ("Seen and unseen conditions with split 'test' would be pooled", "'unseen group'", "Add 'support' to by"),
        ),
        (
            lambda scores: pd.concat([scores, scores.assign(value=0.3)]),
            {},
            ValueError,
            ("'scgap' has several values of 'std_error' for 'A'", "with support 'seen'", "to by"),
        ),
        (lambda scores: scores, {"n_bootstrap": 0}, ValueError, ("n_bootstrap=0", "from 1 on")),
        (lambda scores: scores, {"n_bootstrap": 10.5}, ValueError, ("n_bootstrap=10.5", "whole number")),
        (lambda scores: scores, {"seed": -1}, ValueError, ("seed=-1", "from 0 on")),
    ],
)
def test_wrong_arguments_are_refused(scores, refused, change, arguments, error, words):
    table = change(scores)
    with refused(table, error, *words):
        scgap.tl.summarize_scores(table, **arguments)
