"""Condition-level validation: what is left out neither trains nor validates, and is what is judged."""

import numpy as np

from scgap import _transfer
from scgap._arrays import ConditionArrays
from scgap._conditions import Condition
from scgap._populations import make_populations
from scgap._train import TrainingData
from scgap._transfer import Transfer
from scgap._unseen import fit_unseen

TRAINED = [Condition(((name, dose),), ()) for name in "abcd" for dose in (1.0, 10.0)]
FOLDS = [np.array([0, 1]), np.array([2, 3]), np.array([4])]


def make_data():
    """Controls, population 0, and six conditions, of which all but the fourth validate; each has its own context."""
    generator = np.random.default_rng(0)
    population = np.repeat(np.arange(7), 8)
    cells = generator.normal(size=(56, 2)).astype(np.float32) + population[:, None]
    source, target = [0] * 6, list(range(1, 7))
    populations = make_populations(cells, population, source, target)
    n = len(populations.target_of)
    zeros = np.zeros((n, 4), np.float32)
    conditions = ConditionArrays(np.zeros((n, 4), np.int32), zeros, zeros, np.eye(n, 7, dtype=np.float32))
    return TrainingData(populations, populations, conditions, 6, np.array([0, 1, 2, 4, 5]))


def test_left_out_conditions_neither_train_nor_validate():
    data = make_data()
    without = _transfer._without(data, np.array([1, 3]))
    assert without.n_conditions == 4
    assert np.asarray(without.train.target_of)[:6].tolist() == [1, 3, 5, 6, 2, 4]
    assert np.asarray(without.valid.target_of)[:6].tolist() == [1, 3, 5, 6, 2, 4]
    assert without.validated.tolist() == [0, 1, 2, 3]
    context = np.asarray(without.conditions.context)
    np.testing.assert_array_equal(context[:4].argmax(1), [0, 2, 4, 5])
    assert not context[4:6].any()  # groups that no condition trains


def test_the_table_of_left_out_conditions():
    errors = np.arange(10.0).reshape(5, 2)
    transfer = Transfer([], np.concatenate(FOLDS), errors)
    unseen = fit_unseen(TRAINED, list("abcd"), FOLDS, lambda folds: transfer)
    table = unseen.validation
    assert table["condition_label"].tolist() == ["a 1", "a 10", "b 1", "b 10", "c 1"]
    assert table["support"].tolist() == ["unseen perturbation"] * 4 + ["extrapolated dose"]
    np.testing.assert_array_equal(table[["identity", "error"]], errors)
    assert unseen.expected_error("unseen perturbation") == errors[:4, 1].mean()
    assert unseen.expected_error("extrapolated dose") == errors[4, 1]
    assert np.isnan(unseen.expected_error("unseen group"))
