import numpy as np
import pandas as pd
import pytest

from scgap._conditions import make_design, parse_condition, read_conditions, records
from scgap._encoding import make_encoding
from scgap._experiment import (
    condition_table,
    control_means,
    experiment_arrays,
    experiment_populations,
    make_experiment,
)

DESIGN = make_design("drug", "control", group_col="line")


def experiment_of(*blocks, learned=True):
    """Blocks of (drug, line, split, number of cells)."""
    cells = pd.DataFrame([block[:3] for block in blocks for _ in range(block[3])], columns=["drug", "line", "split"])
    conditions, of_cell, _ = read_conditions(DESIGN, cells)
    split = cells["split"].to_numpy(str)
    return make_experiment(conditions, of_cell, split, learned=learned), of_cell, split


TRAINED = [
    ("control", "x", "train", 20),
    ("control", "x", "valid", 2),
    ("A", "x", "train", 20),
    ("A", "x", "valid", 3),
]


def labels(conditions):
    return [(condition.members[0][0], *condition.group) for condition in conditions]


def test_one_valid_cell_validates_nothing():
    # The unbiased energy distance of a single cell is NaN, which stopped the fit.
    experiment, _, _ = experiment_of(
        *TRAINED, ("B", "x", "train", 20), ("B", "x", "valid", 1), ("A", "y", "valid", 1), ("control", "y", "valid", 5)
    )
    assert labels(experiment.trained) == [("A", "x"), ("B", "x")]
    assert experiment.validated.tolist() == [0]
    assert experiment.only_valid == []


@pytest.mark.parametrize(
    ("controls", "validates"),
    [
        ([], False),  # the group has no controls at all
        ([("control", "y", "test", 20)], False),
        ([("control", "y", "valid", 1)], False),
        ([("control", "y", "valid", 2)], True),
        ([("control", "y", "train", 5)], True),
        ([("control", "y", "train", 1), ("control", "y", "valid", 1)], True),
    ],
)
def test_conditions_validate_where_their_group_has_controls(controls, validates):
    experiment, of_cell, split = experiment_of(*TRAINED, ("A", "y", "valid", 5), *controls)
    assert labels(experiment.only_valid) == ([("A", "y")] if validates else [])
    points = np.zeros((len(of_cell), 2), np.float32)
    _, valid = experiment_populations(experiment, points, of_cell, split, np.arange(len(of_cell)))
    for populations in (valid.source_of, valid.target_of):
        assert (np.asarray(valid.size)[np.asarray(populations)[experiment.validated]] >= 2).all()


def test_all_controls_but_those_that_test_are_moved_to_validate():
    experiment, of_cell, split = experiment_of(*TRAINED, ("control", "x", "test", 7), ("A", "x", "test", 6))
    points = np.arange(2.0 * len(of_cell), dtype=np.float32).reshape(-1, 2)
    train, valid = experiment_populations(experiment, points, of_cell, split, np.arange(len(of_cell)))
    for part, n_controls, n_treated in ((train, 20, 20), (valid, 22, 3)):
        sizes = np.asarray(part.size)
        assert sizes[np.asarray(part.source_of)[0]] == n_controls
        assert sizes[np.asarray(part.target_of)[0]] == n_treated
        held = np.isin(points[split == "test"], np.asarray(part.cells)[: n_controls + n_treated])
        assert not held.any()


def test_as_many_controls_validate_as_are_looked_at():
    """Spread evenly over all of them, in the order that decides."""
    more = [("control", "x", "train", 1_000), ("control", "x", "valid", 500), ("A", "x", "train", 20)]
    experiment, of_cell, split = experiment_of(*more, ("A", "x", "valid", 3))
    order = np.random.default_rng(0).permutation(len(of_cell))
    points = np.arange(2.0 * len(of_cell), dtype=np.float32).reshape(-1, 2)
    _, valid = experiment_populations(experiment, points, of_cell, split, order)
    start, size = (int(np.asarray(part)[experiment.source_of[0]]) for part in (valid.start, valid.size))
    controls = order[order < 1_500]
    np.testing.assert_array_equal(
        np.asarray(valid.cells)[start : start + size], points[controls[np.arange(512) * 1_500 // 512]]
    )


def test_what_only_validates_in_a_new_group_does_so_in_the_nearest_trained_one():
    """By its validation controls; a test control, however near to another group, says nothing."""
    others = [(drug, line, "train", 20) for drug in ("control", "A") for line in ("u", "z")]
    new = [("control", "y", "valid", 4), ("A", "y", "valid", 5), ("control", "y", "test", 30)]
    experiment, of_cell, split = experiment_of(*TRAINED, *others, *new)
    line = np.repeat([0.0, 5.0, 9.0, 8.0, 5.0], [45, 20, 20, 20, 20])  # x; controls, then A, of u and z
    line = np.concatenate([line, np.full(4, 8.0), np.full(5, 0.0), np.full(30, 0.0)])
    points = np.stack([line, line], axis=1).astype(np.float32)
    train, valid = experiment_populations(experiment, points, of_cell, split, np.arange(len(of_cell)))
    means = control_means(experiment, train)
    assert {group: mean.tolist() for group, mean in means.items()} == {
        ("u",): [5.0, 5.0],
        ("x",): [0.0, 0.0],
        ("z",): [9.0, 9.0],
    }
    encoding = make_encoding(DESIGN, experiment.trained, None)
    context = experiment_arrays(experiment, encoding, means, valid).context
    assert labels(experiment.trained) == [("A", "u"), ("A", "x"), ("A", "z")]
    np.testing.assert_array_equal(context[:4, :3], np.eye(3)[[0, 1, 2, 2]])


def test_nothing_to_validate_says_what_is_needed():
    with pytest.raises(ValueError, match="No condition can validate: that takes 2 'valid' cells") as caught:
        experiment_of(("control", "x", "train", 10), ("A", "x", "train", 10))
    assert "Mark cells of trained conditions as valid, beside 10 that train" in str(caught.value)


def test_training_cells_are_counted_and_no_others():
    with pytest.raises(ValueError, match=r"Fewer than 10 training cells in 'A, x \(9\)'"):
        experiment_of(TRAINED[0], TRAINED[1], ("A", "x", "train", 9), ("A", "x", "valid", 30))


def test_a_dose_that_is_not_needed_leaves_the_others_numbers():
    design = make_design(["one", "two"], "control", ["dose_one", "dose_two"])
    obs = pd.DataFrame(
        {
            "one": ["A", "A", "control"],
            "two": ["B", "control", "control"],
            "dose_one": [1.0, 1.0, np.nan],
            "dose_two": [5.0, np.nan, np.nan],
        }
    )
    conditions, of_cell, rows = read_conditions(design, obs)
    table = condition_table(design, conditions, rows, of_cell, np.full(3, "train"))
    assert table[["dose_one", "dose_two"]].dtypes.tolist() == [float, float]
    np.testing.assert_array_equal(table["dose_two"], [np.nan, 5.0])
    assert [parse_condition(design, row) for row in records(table)] == conditions[1:]
