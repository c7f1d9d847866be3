import numpy as np
import pandas as pd
import pytest

from scgap._splits import assign_split, n_valid_of


@pytest.mark.parametrize(
    ("n_cells", "n_valid"), [(0, 0), (9, 0), (10, 0), (11, 1), (12, 2), (15, 5), (50, 5), (100, 10), (1_005, 100)]
)
def test_a_tenth_validates_and_enough_train(n_cells, n_valid):
    assert n_valid_of(n_cells) == n_valid
    split = assign_split(None, np.zeros(n_cells, int), np.arange(n_cells), seed=0)
    assert (split == "valid").sum() == n_valid
    assert (split == "train").sum() == n_cells - n_valid


def test_valid_cells_that_are_named_are_left_as_they_are():
    labels = pd.Series(["train"] * 30 + ["valid", "test", None])
    of_cell = np.array([0] * 32 + [-1])
    assert assign_split(labels, of_cell, np.arange(33), seed=0).tolist() == [*labels[:32], ""]


def test_test_cells_never_validate():
    labels = pd.Series(["train", "test"] * 50)
    split = assign_split(labels, np.zeros(100, int), np.arange(100), seed=0)
    assert (split[1::2] == "test").all()
    assert (split == "valid").sum() == 5
