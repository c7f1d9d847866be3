"""Condition-level validation: what left-out conditions choose."""

import numpy as np
import pytest

from scgap import _transfer
from scgap._conditions import Condition
from scgap._transfer import SCALES, Transfer, evident_choice
from scgap._unseen import fit_unseen


def test_an_evident_gain_is_taken():
    errors = np.random.default_rng(0).normal([[1.0, 0.2, 0.5]] * 20, 0.1)
    assert evident_choice(errors) == 1


def test_one_condition_decides_nothing():
    assert evident_choice(np.array([[0.0, 1.0]])) == 1
    # The mean is lower for one condition's sake, of which there may have been none.
    errors = np.ones((10, 2))
    errors[0] = 0.0, 30.0
    errors[1:, 0] = 1.5
    assert errors.mean(0)[0] < errors.mean(0)[1]
    assert evident_choice(errors) == 1


def test_equal_choices_leave_the_default():
    assert evident_choice(np.ones((5, 4))) == 3


TRAINED = [Condition(((name, dose),), ()) for name in "abcd" for dose in (1.0, 10.0)]
FOLDS = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]


def errors_by_scale(best):
    return np.abs(np.array(SCALES) - best) + np.random.default_rng(0).normal(0.0, 0.01, (6, len(SCALES)))


@pytest.mark.parametrize("best", SCALES)
def test_left_out_conditions_choose_how_much_to_trust(best):
    transfer = Transfer([], 10, np.arange(6), errors_by_scale(best))
    unseen = fit_unseen(TRAINED, list("abcd"), FOLDS, lambda folds: transfer)
    assert unseen.scales == {"": best, "unseen perturbation": best}
    assert unseen.scale("unseen perturbation") == unseen.scale("unseen group") == best
    chosen = transfer.errors[:, SCALES.index(best)]
    np.testing.assert_array_equal(unseen.validation["error"], chosen)
    np.testing.assert_array_equal(unseen.validation["identity"], transfer.errors[:, 0])
    assert unseen.validation["condition_label"].tolist()[:2] == ["a 1", "a 10"]


def test_tiers_of_few_conditions_share_a_scale():
    folds = [np.array([0]), np.array([2]), np.array([4, 6])]
    transfer = Transfer([], 10, np.array([0, 2, 4, 6]), errors_by_scale(0.5)[:4])
    unseen = fit_unseen(TRAINED, list("abcd"), folds, lambda folds: transfer)
    assert set(unseen.validation["support"]) == {"extrapolated dose"}
    assert unseen.scales == {"": 0.5, "extrapolated dose": 0.5}
    transfer = transfer._replace(left_out=np.array([0, 2]), errors=transfer.errors[:2])
    few = fit_unseen(TRAINED[:4], list("abcd"), folds[:2], lambda folds: transfer)
    assert set(few.scales) == {""}


def test_runs_that_were_stopped_keep_their_last_errors():
    errors = [np.full((2, len(SCALES)), value) for value in (3.0, 2.0)]
    assert _transfer._at_reports(errors, 4)[:, 0, 0].tolist() == [3.0, 2.0, 2.0, 2.0]
