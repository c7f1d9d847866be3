import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import scgap
from scgap._baselines import BASELINES
from scgap._comparison import METRICS

DESIGN = {"dose_col": "dose_value", "group_col": "cell_line"}
FEW = ["energy_distance", "mean_error", "pearson_delta"]
KEYS = ["condition", "method", "metric"]


@pytest.fixture
def predicted(screen):
    """Other cells of the same conditions, as if some tool had predicted them."""
    return screen[(screen.obs["split"] == "train") & (screen.obs["perturbation"] != "control")].copy()


def evaluate(observed, predicted, **options):
    return scgap.tl.evaluate_predictions(
        observed, predicted, **{**DESIGN, "split_col": "split", "metrics": FEW, **options}
    )


def test_scores_of_the_maps_own_predictions_are_those_of_any_tool(fitted):
    # The same map through both doors; other cells are drawn, so the numbers agree but for noise.
    fitted.obs["split"] = fitted.obs["split"].astype(str).replace({"train": "test", "test": "train"})  # more cells
    screened = scgap.tl.screen(fitted[fitted.obs["split"] == "test"].copy(), progress=False)
    ours = scgap.tl.evaluate(fitted, metrics=["energy_distance", "mean_error"])
    theirs = evaluate(fitted, {"scgap": screened}, metrics=["energy_distance", "mean_error"])
    assert list(theirs) == list(ours)
    one, other = (t[t["method"] == "scgap"].groupby("metric")["value"].mean() for t in (ours, theirs))
    np.testing.assert_allclose(one, other, atol=0.15)
    shared = [name for name in BASELINES if name != "ridge"]  # its descriptors are one-hot in both
    one, other = (
        t[t["method"].isin([*shared, "ceiling"])].set_index(KEYS)["value"].sort_index() for t in (ours, theirs)
    )
    pd.testing.assert_series_equal(one, other)


def test_a_perfect_prediction_is_as_good_as_a_replicate(screen, predicted):
    table = evaluate(screen, predicted)
    energy = table[table["metric"] == "energy_distance"].groupby("method")["value"].mean()
    assert abs(energy["prediction"]) < 0.2 * energy["identity"]
    assert set(table["support"]) == {"seen"}
    assert set(table["split"]) == {"test"}


def test_the_control_rows_of_a_prediction_change_no_score(screen, predicted):
    controls = screen[screen.obs["perturbation"] == "control"].copy()
    before = evaluate(screen, predicted)
    for twist in (0.0, 100.0):
        controls.X[:] = twist
        pd.testing.assert_frame_equal(evaluate(screen, anndata.concat([predicted, controls])), before)


def test_several_methods_in_one_table(screen, predicted):
    shrunk = predicted.copy()
    shrunk.X *= 0.5
    both = evaluate(screen, {"good": predicted, "shrunk": shrunk})
    assert set(both["method"]) == {"good", "shrunk", *BASELINES, "ceiling"}
    alone = evaluate(screen, {"shrunk": shrunk})
    rest = both[both["method"] != "good"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, alone)
    energy = both[both["metric"] == "energy_distance"].groupby("method")["value"].mean()
    assert energy["good"] < energy["shrunk"]


def test_order_of_features_and_sparse_cells_do_not_matter(screen, predicted):
    before = evaluate(screen, predicted)
    other = predicted[:, ::-1].copy()
    other.X = sparse.csr_matrix(other.X)
    pd.testing.assert_frame_equal(evaluate(screen, other), before)
    same = screen.copy()
    same.layers["measured"], same.X = sparse.csr_matrix(same.X), np.zeros_like(same.X)
    pd.testing.assert_frame_equal(evaluate(same, predicted, layer="measured"), before)
    mdata = MuData({"protein": AnnData(screen.X, pd.DataFrame(index=screen.obs_names), screen.var)})
    mdata.obs = screen.obs
    pd.testing.assert_frame_equal(evaluate(mdata, predicted, mod="protein"), before)


def test_without_a_split_all_cells_are_compared_with(screen, predicted):
    table = evaluate(screen, predicted, split_col=None)
    assert set(table["method"][table["value"].notna()]) == {"prediction", "identity", "ceiling"}
    assert table["support"].isna().all()
    seen = evaluate(screen, predicted)
    assert table["n_cells"].min() > seen["n_cells"].max()


def test_an_encoding_is_for_the_baselines(screen, predicted):
    learned = evaluate(screen, predicted, metrics="mean_error")
    described = evaluate(screen, predicted, metrics="mean_error", encoding=screen.uns["drug_descriptors"])
    change = (learned["value"] != described["value"]).groupby(learned["method"]).any()
    assert change["ridge"]
    assert not change.drop(["ridge", "nearest"]).any() or set(change[change].index) <= {"ridge", "nearest", "additive"}


def test_what_was_not_predicted_or_not_observed_has_rows_and_reasons(screen, predicted):
    some = predicted[predicted.obs["perturbation"] != "drug_1"].copy()
    new = predicted[predicted.obs["perturbation"] == "drug_2"].copy()
    new.obs["perturbation"] = "drug_9"
    with pytest.warns(UserWarning, match=r"have no scores \(.*'drug_"):
        table = evaluate(screen, anndata.concat([some, new], index_unique="-"))
    mine = table[table["method"] == "prediction"].set_index("condition")
    assert set(mine["reason"][mine.index.str.startswith("drug_1 ")]) == {"not predicted"}
    assert set(mine["reason"][mine.index.str.startswith("drug_9 ")]) == {"no observed cells with split 'test'"}
    assert set(mine["reason"][mine.index.str.startswith("drug_2 ")]) == {""}
    others = table[(table["method"] == "identity") & table["condition"].str.startswith("drug_1 ")]
    assert others["value"].notna().any()  # what can be said of the condition is said


def test_few_predicted_cells_have_a_reason(screen, predicted):
    few = predicted[predicted.obs["perturbation"].isin(["drug_2", "drug_3"])].copy()
    one = predicted[predicted.obs["perturbation"] == "drug_1"][:1].copy()
    with pytest.warns(UserWarning, match="fewer than 4 observed, control or predicted cells"):
        table = evaluate(screen, anndata.concat([few, one], index_unique="-"))
    reasons = set(table["reason"][table["condition"].str.startswith("drug_1 ")])
    assert "fewer than 4 observed, control or predicted cells" in reasons


def test_same_seed_same_table(screen, predicted):
    pd.testing.assert_frame_equal(evaluate(screen, predicted, seed=3), evaluate(screen, predicted, seed=3))
    assert (evaluate(screen, predicted, seed=3)["value"] != evaluate(screen, predicted, seed=4)["value"]).any()


def test_leaving_out_metrics_and_baselines_changes_no_number(screen, predicted):
    full = evaluate(screen, predicted, metrics=None).set_index(KEYS)
    assert set(full.index.unique("metric")) == set(METRICS)
    part = evaluate(screen, predicted, metrics=["mmd"], baselines=[]).set_index(KEYS)
    assert set(part.index.unique("method")) == {"prediction", "ceiling"}
    pd.testing.assert_frame_equal(part, full.loc[part.index])


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        (
            lambda p: p[:, :5].copy(),
            {},
            ValueError,
            ("lacks 15 of the 20 observed", "select those they share"),
        ),
        (lambda p: {}, {}, ValueError, ("predicted is empty", "Pass at least one")),
        (lambda p: {"ridge": p}, {}, ValueError, ("'ridge' are names of baselines", "Call the methods otherwise")),
        (lambda p: p.X, {}, TypeError, ("'prediction' is an ndarray", "Pass an AnnData")),
        (lambda p: {"a": p.obs}, {}, TypeError, ("'a' is a DataFrame",)),
        (lambda p: p, {"metrics": "r3"}, KeyError, ("'r3' is not in the metrics",)),
        (lambda p: p, {"baselines": "zero"}, KeyError, ("'zero' is not in the baselines",)),
        (lambda p: p, {"target_col": "drug"}, KeyError, ("'drug' is not in adata.obs",)),
        (lambda p: p, {"split_col": "fold"}, KeyError, ("'fold' is not in adata.obs",)),
        (lambda p: p, {"layer": "counts"}, KeyError, ("'counts' is not in adata.layers",)),
        (lambda p: p, {"n_cells": 0}, ValueError, ("n_cells=0",)),
        (lambda p: p, {"encoding": "drugs"}, KeyError, ("'drugs' is not in adata.uns",)),
    ],
)
def test_bad_input_is_refused(screen, predicted, refused, change, options, error, words):
    with refused(screen, error, *words):
        evaluate(screen, change(predicted), **options)


def test_values_that_are_not_finite_and_missing_columns_are_refused(screen, predicted, refused):
    broken = predicted.copy()
    broken.X[3, 2] = np.nan
    with refused(screen, ValueError, "X of the prediction 'prediction'", "NaN or infinite values in 1 of"):
        evaluate(screen, broken)
    del predicted.obs["dose_value"]
    with refused(screen, KeyError, "'dose_value' is not in adata.obs", "the prediction 'prediction', too"):
        evaluate(screen, predicted)


def test_nothing_to_compare_is_refused(screen, predicted, refused):
    predicted.obs["perturbation"] = "drug_9"
    with refused(screen, ValueError, "No condition has scores", "no observed cells"):
        evaluate(screen, predicted)
