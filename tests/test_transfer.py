"""Condition-level validation: what is left out neither trains nor validates, and is what is judged."""

import time

import jax
import numpy as np
import pytest

from scgap import _map, _transfer
from scgap._arrays import ConditionArrays
from scgap._conditions import Condition
from scgap._folds import combinations_known_in_parts, validation_table
from scgap._losses import COSTS
from scgap._populations import make_populations
from scgap._train import Setup, TrainingData

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
    assert not context[4:].any()  # groups that no condition trains, nor do those that only validate


def test_the_table_of_left_out_conditions():
    errors = np.arange(10.0).reshape(5, 2)
    table = validation_table(TRAINED, list("abcd"), FOLDS, errors)
    assert table["condition_label"].tolist() == ["a 1", "a 10", "b 1", "b 10", "c 1"]
    assert table["support"].tolist() == ["unseen perturbation"] * 4 + ["extrapolated dose"]
    np.testing.assert_array_equal(table[["identity", "error"]], errors)


def test_combinations_that_tell_how_to_add_up():
    labels = ["a", "b", "c", "e", "a+b", "a+b", "a+d", "a+b+c", "c+a", "a+e"]
    doses = [1.0] * 5 + [9.0] + [1.0] * 4
    trained = [
        Condition(tuple((name, dose) for name in label.split("+")), (str(i % 2),))
        for i, (label, dose) in enumerate(zip(labels, doses, strict=True))
    ]
    # Not a+d, whose d is never alone; not a+b+c, of which pairs are trained; both doses of a+b.
    assert combinations_known_in_parts(trained).tolist() == [4, 5, 8, 9]
    assert combinations_known_in_parts(trained[:9]).tolist() == []  # of two pairs
    assert combinations_known_in_parts(trained[:4]).tolist() == []


def test_all_pairs_of_a_hundred_perturbations_take_a_moment():
    names = [str(i) for i in range(100)]
    sets = [(name,) for name in names] + [(a, b) for a in names for b in names if a < b]
    trained = [Condition(tuple((name, None) for name in members), ()) for members in sets]
    start = time.perf_counter()
    assert len(combinations_known_in_parts(trained)) == 4_950
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("truth", [1.0, 0.5, 0.0])
def test_the_detail_of_sums_is_that_of_the_trained_combinations(truth):
    """Pairs that are what their members do alone to a cell of which so much is left of its distance to the centre."""
    network = _map.ConditionalMap(hidden=(16, 16), n_embedding=8)
    generator = np.random.default_rng(0)
    controls = generator.normal(size=(200, 3)).astype(np.float32)
    pairs = np.array([[0, 1], [0, 2], [1, 2]], np.int32)
    conditions = ConditionArrays(pairs, np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32), np.zeros((3, 0)))
    one = jax.tree.map(lambda array: array[0], conditions)
    encoding = generator.normal(size=(3, 4)).astype(np.float32)
    weights = _map.init_weights(network, 0, encoding, one, controls)
    weights["network"] = jax.tree.map(lambda array: generator.normal(0.0, 0.5, array.shape), weights["network"])
    pairs_of = [jax.tree.map(lambda array, i=i: array[i], conditions) for i in range(3)]
    cells = [controls, *(_map.transport_cells(network, weights, controls, pair, detail=truth) for pair in pairs_of)]
    populations = make_populations(np.concatenate(cells), np.repeat(np.arange(4), 200), [0] * 3, [1, 2, 3])
    data = TrainingData(populations, populations, conditions, 3, np.arange(3))
    setup = Setup(network, COSTS["euclidean"], 64, 1, "independent", learn_encoding=False)
    assert _transfer.choose_detail(weights, np.arange(3), data=data, setup=setup) == truth
    assert _transfer.choose_detail(weights, np.arange(0), data=data, setup=setup) == 1.0  # nothing to tell
