"""The comparison with rivals is fair only if no method sees a test cell, and choices see none either."""

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """A script of the benchmarks, by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def parts(fold):
    """Names of training and of test cells."""
    tests = fold.adata.obs["split"] == "test"
    return set(fold.adata.obs_names[~tests]), set(fold.adata.obs_names[tests])


def test_folds_to_choose_by_are_without_the_cells_that_test(module):
    tasks = module("tasks")
    for test, valid in zip(tasks.folds("simulated"), tasks.folds("simulated", part="valid"), strict=True):
        assert test.name == valid.name
        training, tested = parts(test)
        chosen_from, chosen_by = parts(valid)
        assert not tested & (chosen_from | chosen_by)
        assert chosen_by <= training


def test_what_is_held_out_does_not_train(module):
    tasks = module("tasks")
    for fold in tasks.folds("simulated"):
        held_out = tasks.TASKS["simulated"].held_out[fold.name]
        trains = fold.adata.obs[fold.adata.obs["split"] != "test"]
        perturbed = trains[trains["perturbation"] != "control"]
        for row in held_out.to_dict("records"):
            asked = {column: value for column, value in row.items() if pd.notna(value)}
            assert not (perturbed[list(asked)] == pd.Series(asked)).all(axis=1).any(), asked


def test_rivals_get_no_test_cell_and_the_controls_of_each_group(module, tmp_path):
    fold = next(module("tasks").folds("simulated"))
    module("rivals").write(tmp_path, fold.adata, fold.columns, fold.options["encoding"])
    design = json.loads((tmp_path / "design.json").read_text())
    tests = (fold.adata.obs["split"] == "test").to_numpy()
    with np.load(tmp_path / "train.npz") as train, np.load(tmp_path / "source.npz") as source:
        np.testing.assert_array_equal(train["cells"], fold.adata.X[~tests])
        moved = [design["conditions"][i]["members"] for i in np.unique(source["condition"])]
        groups = [design["conditions"][i]["group"] for i in source["condition"]]
    assert moved == [[]] * 4
    controls = fold.adata.obs[tests & (fold.adata.obs["perturbation"] == "control")]
    assert groups == controls["cell_line"].tolist()
    assert design["groups"]["line_3"] == [0.0] * 3  # held out whole
    vectors = np.array(list(design["vectors"].values()))
    np.testing.assert_allclose(vectors.mean(0), 0.0, atol=1e-9)


def test_predictions_are_asked_for_every_test_condition(module):
    tasks, methods = module("tasks"), module("methods")
    fold = next(tasks.folds("simulated"))
    asked = methods.questions(fold)
    moved = {question.i: fold.adata.X[question.source] for question in asked}
    cells = methods.as_cells(fold, moved)
    rows = fold.adata.obs[(fold.adata.obs["split"] == "test") & (fold.adata.obs["perturbation"] != "control")]
    keys = ["perturbation", "dose_value", "cell_line"]
    expected = {tuple(map(str, row)) for row in rows[keys].itertuples(index=False)}
    assert {tuple(map(str, row)) for row in cells.obs[keys].itertuples(index=False)} == expected


def test_a_draw_of_the_cells_counts_once_however_many_methods_it_was_given(module):
    tables, draws = module("generalisation_tables"), module("tasks").DRAWS
    # A baseline comes with the scores of every fit: three of the first draw, one of the second.
    folds, values = [draws, draws, draws, f"{draws}, draw 1"], [1.0, 1.0, 1.0, 3.0]
    scores = pd.DataFrame({"fold": folds, "value": values, "task": "norman_id", "support": "seen", "condition": "A"})
    found = tables.summarise(scores.assign(method="identity", metric="energy_distance"))
    assert found["mean"].tolist() == [2.0]


@pytest.mark.slow
def test_the_whole_comparison_runs(module):
    generalisation, tables = module("generalisation"), module("generalisation_tables")
    scores = generalisation.quick_scores()
    found = tables.summarise(scores).set_index(["support", "metric", "method"])["mean"]
    # The true map is as good as half of the observed cells for the other half; and whoever stays where it is errs by 1.
    perfect, ceiling, identity = (
        found["seen", "energy_distance", method] for method in ("true map", "ceiling", "identity")
    )
    assert abs(perfect - ceiling) < 0.1 < identity - perfect
    assert found["seen", "error_to_true_map", "true map"] == 0.0
    assert found["seen", "error_to_true_map", "scgap"] < found["seen", "error_to_true_map", "identity"] == 1.0
    for method in ("one map each", "scgap, effects"):
        assert np.isnan(found.get(("unseen perturbation", "energy_distance", method), np.nan))
    assert any("| simulated | seen |" in table for table in tables.make_tables(scores))
