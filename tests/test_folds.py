"""What each fold of the condition-level validation leaves out."""

from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from scgap._conditions import Condition
from scgap._folds import condition_folds


def single(name, dose=None, group=()):
    return Condition(((name, dose),), group)


GRID = [single(name, dose, (group,)) for name, dose, group in product("abcdefghijkl", (1.0, 10.0), ("x", "y"))]
DOUBLE = Condition((("a", 1.0), ("b", 1.0)), ("x",))
PAIR = Condition((("a", None), ("b", None)), ())


def kept_names(trained, left_out):
    return {name for i, condition in enumerate(trained) if i not in left_out for name, _ in condition.members}


def test_without_an_encoding_every_perturbation_stays():
    folds = condition_folds(GRID, 5, has_encoding=False, seed=0)
    assert len(folds) == 5
    assert sorted(np.concatenate(folds)) == list(range(len(GRID)))
    for left_out in folds:
        assert kept_names(GRID, left_out) == set("abcdefghijkl")


def test_with_an_encoding_whole_perturbations_are_left_out_too():
    for left_out in condition_folds(GRID, 5, has_encoding=True, seed=0):
        gone = set("abcdefghijkl") - kept_names(GRID, left_out)
        assert gone
        assert any(GRID[i].members[0][0] not in gone for i in left_out)
        assert len(left_out) < len(GRID) / 2


@pytest.mark.parametrize("names", ["abc", "abcd", "abcdefghi"])
def test_of_few_perturbations_one_is_left_out_at_a_time(names):
    trained = [single(name, dose) for name in names for dose in (1.0, 10.0, 100.0)]
    folds = condition_folds(trained, 5, has_encoding=True, seed=0)
    gone = [set(names) - kept_names(trained, left_out) for left_out in folds]
    assert [len(each) for each in gone] == [1] * min(len(names), 5) + [0] * (5 - min(len(names), 5))
    assert len(set().union(*gone)) == min(len(names), 5)


def test_neither_of_two_perturbations_is_left_out():
    trained = [single(name, dose) for name in "ab" for dose in (1.0, 10.0, 100.0)]
    folds = condition_folds(trained, 2, has_encoding=True, seed=0)
    assert folds
    assert all(kept_names(trained, left_out) == {"a", "b"} for left_out in folds)


def test_what_no_other_condition_tells_of_stays():
    assert condition_folds([single("a"), single("b"), single("c")], 5, has_encoding=False, seed=0) == []
    trained = [single("a"), single("b"), PAIR]
    for left_out in condition_folds(trained, 5, has_encoding=False, seed=0):
        assert kept_names(trained, left_out) == {"a", "b"}


@given(
    st.lists(st.sampled_from([*GRID, DOUBLE]), min_size=1, max_size=30, unique=True),
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 3),
)
def test_folds_share_nothing_and_leave_something(trained, n_folds, has_encoding, seed):
    folds = condition_folds(trained, n_folds, has_encoding=has_encoding, seed=seed)
    for left_out in folds:
        assert 0 < len(set(left_out)) == len(left_out) < len(trained)
        if not has_encoding:
            assert kept_names(trained, left_out) == kept_names(trained, [])
    if not has_encoding and folds:
        assert len(set(np.concatenate(folds))) == sum(map(len, folds))


@pytest.mark.parametrize("has_encoding", [False, True])
def test_the_seed_decides(has_encoding):
    one, same, other = (condition_folds(GRID, 5, has_encoding=has_encoding, seed=seed) for seed in (0, 0, 1))
    assert all(map(np.array_equal, one, same))
    assert not all(map(np.array_equal, one, other))
