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
    assert [*theirs, "expected_error"] == list(ours)
    one, other = (t[t["method"] == "scgap"].groupby("metric")["value"].mean() for t in (ours, theirs))
    np.testing.assert_allclose(one, other, atol=0.15)
    shared = [name for name in BASELINES if name != "ridge"]  # its descriptors are one-hot in both
    one, other = (
        t[t["method"].isin([*shared, "ceiling"])].set_index(KEYS)["value"].sort_index() for t in (ours, theirs)
    )
    pd.testing.assert_series_equal(one, other)


def test_a_perfect_prediction_is_as_good_as_a_replicate(screen, predicted):
    # Ten cells of a condition are compared, of which a single draw tells little.
    table = pd.concat([evaluate(screen, predicted, metrics=["energy_distance"], seed=seed) for seed in range(20)])
    energy = table.groupby("method")["value"].mean()
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


def test_which_control_became_which_predicted_cell_is_not_known(screen, predicted):
    table = evaluate(screen, predicted, metrics=["monge_gap", "mean_error"])
    table = table.set_index(["metric", "method"]).sort_index()
    assert set(table.loc[("monge_gap", "prediction"), "reason"]) == {"it is not known which control cell became which"}
    assert table.loc[("monge_gap", "prediction"), "value"].isna().all()
    assert table.loc[("monge_gap", "identity"), "value"].notna().all()
    assert table.loc[("mean_error", "prediction"), "value"].notna().all()


def test_expression_is_known_by_its_zeros(screen, predicted):
    least = screen.X.mean()
    for adata in (screen, predicted):
        adata.X = np.maximum(adata.X - least, 0.0)
    table = evaluate(screen, predicted, metrics="zero_fraction_error").groupby("method")["value"].mean()
    assert table["prediction"] < table["identity"] < table["mean_shift"]  # a shift leaves no zeros, even if clipped


def test_methods_are_compared_by_as_many_cells_as_the_one_with_the_fewest_has(screen, predicted):
    place = predicted.obs.groupby(["perturbation", "dose_value", "cell_line"], observed=True).cumcount()
    few = predicted[((predicted.obs["perturbation"] != "drug_1") | (place < 9)).to_numpy()].copy()
    table = evaluate(screen, {"many": predicted, "few": few})
    assert set(table["n_cells"][~table["condition"].str.startswith("drug_1 ")]) == {10}  # half of the observed ones
    assert set(table["n_cells"][table["condition"].str.startswith("drug_1 ")]) == {4}
    assert table["value"][table["method"].isin(["many", "few", "ceiling"])].notna().all()


def test_without_training_cells_there_is_a_warning(screen, predicted):
    test = screen[screen.obs["split"] == "test"].copy()
    with pytest.warns(UserWarning, match="No cells are 'train' in 'split', so most baselines") as log:
        table = evaluate(test, predicted)
    assert [warning.filename for warning in log] == [evaluate.__code__.co_filename]
    assert set(table["method"][table["value"].notna()]) == {"prediction", "identity", "ceiling"}


def test_an_encoding_is_for_the_baselines(screen, predicted):
    held = ((screen.obs["perturbation"] == "drug_1") & (screen.obs["split"] == "train")).to_numpy()
    screen = screen[~held].copy()
    learned = evaluate(screen, predicted, metrics="mean_error")
    described = evaluate(screen, predicted, metrics="mean_error", encoding=screen.uns["drug_descriptors"])
    assert learned[KEYS].equals(described[KEYS])
    of_drug = learned["condition"].str.startswith("drug_1 ")
    assert (learned["support"] == np.where(of_drug, "unseen perturbation", "seen")).all()
    differ = ~(learned["value"].eq(described["value"]) | (learned["value"].isna() & described["value"].isna()))
    assert set(learned["method"][differ]) == {"ridge", "nearest", "gaussian"}


def test_the_units_of_descriptors_do_not_matter(screen, predicted):
    held = ((screen.obs["perturbation"] == "drug_1") & (screen.obs["split"] == "train")).to_numpy()
    screen = screen[~held].copy()
    table = screen.uns["drug_descriptors"]
    scaled = (table * np.linspace(0.1, 500.0, table.shape[1]) + 7.0).assign(constant=3.3)
    before, after = (evaluate(screen, predicted, encoding=encoding) for encoding in (table, scaled))
    pd.testing.assert_frame_equal(before, after, rtol=1e-4)


def test_what_was_not_predicted_or_not_observed_has_rows_and_reasons(screen, predicted):
    some = predicted[predicted.obs["perturbation"] != "drug_1"].copy()
    new = predicted[predicted.obs["perturbation"] == "drug_2"].copy()
    new.obs["perturbation"] = "drug_9"
    joined = anndata.concat([some, new], index_unique="-")
    with pytest.warns(UserWarning, match=r"8 of 16 conditions have no scores of 'prediction' \(.*'drug_") as log:
        table = evaluate(screen, joined)
    assert [warning.filename for warning in log] == [__file__]
    reasons = table[table["method"] == "prediction"].groupby("condition")["reason"].agg(set)
    expected = {"drug_1": "not predicted", "drug_9": "no observed cells with split 'test'", "drug_2": "", "drug_3": ""}
    assert len(reasons) == 16
    for condition, found in reasons.items():
        assert found == {expected[condition.split()[0]]}
    others = table[(table["method"] == "identity") & table["condition"].str.startswith("drug_1 ")]
    assert others["value"].notna().all()  # what can be said of the condition is said


def test_each_method_has_a_warning_of_its_own(screen, predicted):
    parts = {f"no {name}": predicted[predicted.obs["perturbation"] != name].copy() for name in ("drug_1", "drug_2")}
    with pytest.warns(UserWarning, match="have no scores") as log:
        evaluate(screen, parts)
    for warning, name in zip(log, ("drug_1", "drug_2"), strict=True):
        assert f"4 of 12 conditions have no scores of 'no {name}' (not predicted: '{name} 100, " in str(warning.message)


def test_few_predicted_cells_have_a_reason(screen, predicted):
    is_first = (
        (predicted.obs["perturbation"] == "drug_1")
        & (predicted.obs["dose_value"] == 100)
        & (predicted.obs["cell_line"] == "line_1")
    ).to_numpy()
    few = predicted[np.sort([*np.flatnonzero(~is_first), *np.flatnonzero(is_first)[:3]])].copy()
    words = r"1 of 12 conditions have no scores of 'prediction' \(fewer than 4 predicted cells: 'drug_1 100, line_1'\)"
    with pytest.warns(UserWarning, match=words):
        table = evaluate(screen, few)
    lost = table["condition"] == "drug_1 100, line_1"
    assert set(table["reason"][lost]) == {"fewer than 4 predicted cells"}
    assert table["value"][lost].isna().all()
    assert set(table["n_cells"][lost]) == {0}


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
        (lambda p: {}, {}, ValueError, ("predicted is empty", "Pass at least one")),
        (lambda p: {"ridge": p}, {}, ValueError, ("'ridge' are names of baselines", "Call the methods otherwise")),
        (lambda p: {"permuted_conditions": p}, {}, ValueError, ("'permuted_conditions' are names of baselines",)),
        (lambda p: {"a": p, 1: p}, {}, TypeError, ("The method 1 is an int", "Pass names of methods as strings")),
        (lambda p: {"good": p, "bad": p.X}, {}, TypeError, ("predicted['bad'] is an ndarray", "Pass an AnnData")),
        (lambda p: p, {"metrics": "r3"}, KeyError, ("'r3' is not in the metrics",)),
        (lambda p: p, {"baselines": "zero"}, KeyError, ("'zero' is not in the baselines",)),
        (lambda p: p, {"target_col": "drug"}, KeyError, ("'drug' is not in adata.obs",)),
        (lambda p: p, {"split_col": "fold"}, KeyError, ("'fold' is not in adata.obs",)),
        (lambda p: p, {"layer": "counts"}, KeyError, ("'counts' is not in adata.layers",)),
        (lambda p: p, {"n_cells": 0}, ValueError, ("n_cells=0",)),
        (lambda p: p, {"seed": -1}, ValueError, ("seed=-1", "from 0 on")),
        (lambda p: p, {"encoding": "drugs"}, KeyError, ("'drugs' is not in adata.uns",)),
    ],
)
def test_bad_input_is_refused(screen, predicted, refused, change, options, error, words):
    with refused(screen, error, *words):
        evaluate(screen, change(predicted), **options)


@pytest.mark.parametrize(
    ("column", "value", "label"),
    [("perturbation", "drug_9", "drug_9 100, line_1"), ("dose_value", 5.0, "drug_1 5, line_1")],
)
def test_nothing_to_compare_is_refused(screen, predicted, refused, column, value, label):
    predicted.obs[column] = value
    words = ("No condition has scores of 'prediction'", f"no observed cells with split 'test': '{label}'")
    with refused(screen, ValueError, *words, "not predicted: 'drug_1 100, line_1'", "as in observed.obs"):
        evaluate(screen, predicted)
    with refused(screen, ValueError, "No condition has scores of 'other'"):
        evaluate(screen, {"good": screen, "other": predicted})


def test_test_cells_are_looked_for_where_a_split_is_named(screen, predicted, refused):
    controls = screen[screen.obs["perturbation"] == "control"].copy()
    screen.obs["split"] = "train"
    with refused(screen, ValueError, "no observed cells with split 'test'", "leave it out to compare with all"):
        evaluate(screen, predicted)
    with refused(screen, ValueError, "No perturbed cells with split 'test'", "leave it out to compare with all"):
        evaluate(screen, controls)
