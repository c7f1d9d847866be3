from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgap._baselines import BASELINES, halves, learn
from scgap._conditions import Condition
from scgap._gaussian import MAX_FEATURES

N_FEATURES = 4


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def condition(members, group="x", time=None):
    """``"A 10 + B 5"``, or ``"A + B"`` without doses, in a group at a time; controls are ``""``."""
    parts = [part.split() for part in members.split("+")] if members else []
    pairs = sorted((name, float(dose[0]) if dose else None) for name, *dose in parts)
    return Condition(tuple(pairs), (group,), time)


def populations(generator, means, n_cells=50):
    """Normal cells (n_cells, N_FEATURES) around means, by condition."""
    return {
        condition(*key) if isinstance(key, tuple) else condition(key): (
            generator.normal(size=(n_cells, N_FEATURES)) + mean
        ).astype(np.float32)
        for key, mean in means.items()
    }


def trained(cells, descriptors=None, *, nonnegative=False):
    return learn(cells, descriptors or {}, nonnegative=nonnegative)


def predicted(name, training, asked, source, seed=0):
    return BASELINES[name](training, asked, source, np.random.default_rng(seed))


def shift_of(name, training, asked, source):
    """The one vector (n_features,) by which all cells are moved."""
    moved = predicted(name, training, asked, source).astype(float) - source
    np.testing.assert_allclose(moved, moved[:1].repeat(len(moved), 0), atol=1e-5)
    return moved[0]


def mean(cells, *key):
    return cells[condition(*key)].mean(0, dtype=float)


def rows_in(cells, pool):
    """How often each row of a pool is among cells; all cells have to be rows of the pool."""
    place = {row.tobytes(): i for i, row in enumerate(pool)}
    return np.bincount([place[row.tobytes()] for row in cells], minlength=len(pool))


@pytest.fixture
def cells(generator):
    """Two drugs at two doses in two groups, one of them only in one, and a combination."""
    means = {"": 0.0, "A 1": 1.0, "A 100": 3.0, "B 1": 5.0, "A 1 + B 1": 8.0, ("", "y"): 10.0, ("A 1", "y"): 12.0}
    return populations(generator, means)


@pytest.fixture
def source(generator):
    return generator.normal(size=(40, N_FEATURES)).astype(np.float32)


def test_the_order_is_that_of_the_tables():
    names = "identity training_cells average_shift mean_shift additive gaussian nearest ridge"
    assert list(BASELINES) == names.split()


def test_identity_is_the_source_itself(cells, source):
    assert predicted("identity", trained(cells, nonnegative=True), condition("A 1"), source) is source


def test_training_cells_weigh_conditions_alike(generator, source):
    means = {"": 0.0, "A": 0.0, "B": 0.0, "C": 0.0, ("D", "y"): 0.0}
    cells = populations(generator, means, 30)
    cells[condition("A")] = generator.normal(size=(1_000, N_FEATURES)).astype(np.float32)
    drawn = predicted("training_cells", trained(cells), condition("E"), np.repeat(source, 2, 0)[:60])
    assert [rows_in(drawn, np.concatenate(list(cells.values())))[i].sum() for i in blocks(cells)] == [0, 20, 20, 20, 0]
    # In a group without any, those of all groups.
    drawn = predicted("training_cells", trained(cells), condition("E", "z"), source)
    assert [rows_in(drawn, np.concatenate(list(cells.values())))[i].sum() for i in blocks(cells)] == [0, 10, 10, 10, 10]


def blocks(cells):
    """The rows of each population in all cells."""
    ends = np.cumsum([len(population) for population in cells.values()])
    return [slice(end - len(population), end) for end, population in zip(ends, cells.values(), strict=True)]


def test_draws_are_those_of_the_generator(cells, source):
    training = trained(cells)
    for name, asked in product(BASELINES, (condition("A 10"), condition("B 100"))):
        one, again, other = (predicted(name, training, asked, source, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert isinstance(one, str) or (one != other).any() == (name in {"training_cells", "nearest"})


def test_the_average_shift_is_that_of_all_conditions(cells, source):
    shifts = [mean(cells, *key) - mean(cells, "") for key in [("A 1",), ("A 100",), ("B 1",), ("A 1 + B 1",)]]
    shifts.append(mean(cells, "A 1", "y") - mean(cells, "", "y"))
    for asked in (condition("A 1"), condition("C 1"), condition("C 1", "z")):
        np.testing.assert_allclose(
            shift_of("average_shift", trained(cells), asked, source), np.mean(shifts, 0), atol=1e-5
        )


def test_the_mean_shift_is_the_own_else_the_groups_else_that_of_all(cells, source):
    training = trained(cells)
    own = mean(cells, "A 100") - mean(cells, "")
    np.testing.assert_allclose(shift_of("mean_shift", training, condition("A 100"), source), own, atol=1e-5)
    of_group = mean(cells, "A 1", "y") - mean(cells, "", "y")
    np.testing.assert_allclose(shift_of("mean_shift", training, condition("A 100", "y"), source), of_group, atol=1e-5)
    of_all = shift_of("average_shift", training, condition("A 1"), source)
    np.testing.assert_array_equal(shift_of("mean_shift", training, condition("A 1", "z"), source), of_all)


def test_additive_is_exact_where_effects_add_up(generator, source):
    base = generator.normal(size=(300, N_FEATURES))
    effects = {name: generator.normal(size=N_FEATURES) for name in "ABC"}
    cells = {
        condition(names): (base + sum(effects[name] for name in names.split(" + ") if name)).astype(np.float32)
        for names in ("", "A", "B", "C", "A + B")
    }
    for asked in ("A + B", "A + C", "A + B + C"):  # trained or not
        expected = source + sum(effects[name] for name in asked.split(" + "))
        np.testing.assert_allclose(
            predicted("additive", trained(cells), condition(asked), source), expected, rtol=1e-4, atol=1e-5
        )


def test_additive_takes_parts_of_its_dose_and_time_in_its_group_first(generator, source):
    means = {
        ("",): 0.0,
        ("A 1", "x", 6.0): 1.0,
        ("A 10", "x", 6.0): 50.0,
        ("A 1", "x", 24.0): 90.0,
        ("", "y"): 0.0,
        ("A 1", "y", 6.0): 70.0,
        ("B 1", "y", 6.0): 3.0,
        ("", "z"): 0.0,
        ("B 1", "z", 6.0): 7.0,
    }
    cells = populations(generator, means)
    found = shift_of("additive", trained(cells), condition("A 1 + B 1", "x", 6.0), source)
    controls = [mean(cells, "", group) for group in "xyz"]
    of_a = mean(cells, "A 1", "x", 6.0) - controls[0]
    of_b = (mean(cells, "B 1", "y", 6.0) - controls[1] + mean(cells, "B 1", "z", 6.0) - controls[2]) / 2
    np.testing.assert_allclose(found, of_a + of_b, atol=1e-4)
    assert predicted("additive", trained(cells), condition("A 1 + B 1", "x", 24.0), source) == "not measured alone: 'B'"


def test_additive_is_for_combinations_of_measured_parts(cells, source):
    training = trained(cells)
    assert predicted("additive", training, condition("A 1"), source) == "not a combination"
    assert predicted("additive", training, condition("A 1 + C 1"), source) == "not measured alone: 'C'"
    assert predicted("additive", training, condition("B 2 + C 1"), source) == "not measured alone: 'B', 'C'"


def gaussian_cells(generator, n, mean, root):
    return (mean + generator.normal(size=(n, len(mean))) @ root.T).astype(np.float32)


def test_the_gaussian_map_is_exact_for_gaussian_populations(generator):
    # The controls' image under a symmetric positive definite matrix is their optimal image: cell by cell.
    controls = gaussian_cells(generator, 20_000, np.zeros(4), generator.normal(size=(4, 4)))
    root = generator.normal(size=(4, 4))
    matrix, offset = root @ root.T / 4 + 0.3 * np.eye(4), np.arange(4.0)
    training = trained({condition(""): controls, condition("A"): (controls @ matrix + offset).astype(np.float32)})
    source = controls[:200]
    np.testing.assert_allclose(
        predicted("gaussian", training, condition("A"), source), source @ matrix + offset, rtol=0.05, atol=0.05
    )


def test_the_gaussian_map_carries_mean_and_covariance_over(generator):
    controls, treated = (
        gaussian_cells(generator, 5_000, generator.normal(size=6), generator.normal(size=(6, 6))) for _ in range(2)
    )
    training = trained({condition(""): controls, condition("A"): treated})
    moved = predicted("gaussian", training, condition("A"), controls)
    np.testing.assert_allclose(moved.mean(0), treated.mean(0), atol=1e-4)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(treated.T), rtol=0.02, atol=0.05)


def test_the_gaussian_map_averages_displacements_of_other_groups(generator):
    # 2 x + 3 in y and x / 2 - 1 in z, whose controls lie elsewhere: on average 1.25 x + 1, wherever the own cells are.
    controls = generator.normal(size=(5_000, 3))
    cells = {("", "y"): controls, ("A", "y"): 2.0 * controls + 3.0}
    cells |= {("", "z"): controls + 9.0, ("A", "z"): 0.5 * (controls + 9.0) - 1.0}
    training = trained({condition(*key): values.astype(np.float32) for key, values in cells.items()})
    source = (controls[:100] + 5.0).astype(np.float32)
    moved = predicted("gaussian", training, condition("A", "x"), source)
    np.testing.assert_allclose(moved, 1.25 * source + 1.0, rtol=0.02, atol=0.02)


def test_the_gaussian_map_averages_displacements_of_neighbours(generator):
    controls = generator.normal(size=(5_000, 2))
    cells = {"": controls, "A 1": controls, "A 10000": 5.0 * controls + 8.0}
    cells = {condition(key): values.astype(np.float32) for key, values in cells.items()}
    source = cells[condition("")][:100]
    # 10 is a quarter of the way, so is the displacement 4 x + 8.
    np.testing.assert_allclose(
        predicted("gaussian", trained(cells), condition("A 10"), source), 2.0 * source + 2.0, rtol=0.02, atol=0.02
    )


def test_many_features_are_stretched_along_the_leading_components(generator):
    n_features = MAX_FEATURES + 100
    directions = np.linalg.qr(generator.normal(size=(n_features, 2)))[0]
    scores, rest = generator.normal(size=(2_000, 2)) * [4.0, 8.0], 0.01 * generator.normal(size=(2_000, n_features))
    cells = {"": scores @ directions.T + rest, "A": (3.0 * scores) @ directions.T + rest + 2.0}
    cells = {condition(key): values.astype(np.float32) for key, values in cells.items()}
    source = cells[condition("")]
    moved = predicted("gaussian", trained(cells), condition("A"), source)
    np.testing.assert_allclose(moved.mean(0), cells[condition("A")].mean(0), atol=1e-3)
    stretched = (moved - moved.mean(0)) @ directions
    np.testing.assert_allclose(stretched, 3.0 * (source - source.mean(0)) @ directions, rtol=0.1, atol=0.3)


def test_nearest_mixes_the_neighbours_by_log_dose(generator, source):
    cells = populations(generator, {"": 0.0, "A 1": 0.0, "A 10": 0.0, "A 10000": 0.0})
    drawn = predicted("nearest", trained(cells), condition("A 100"), source[:30])
    assert [rows_in(drawn, np.concatenate(list(cells.values())))[i].sum() for i in blocks(cells)] == [0, 0, 20, 10]


def test_nearest_knows_descriptors_whatever_their_scale(generator, source):
    cells = populations(generator, {"": 0.0, "A": 0.0, "B": 0.0, "C": 0.0, "D": 0.0})
    # Unscaled, the first descriptor would be all that counts.
    descriptors = {name: np.array([1e6 * (name == "A"), i, 7.0]) for i, name in enumerate("DEBCA")}
    drawn = predicted("nearest", trained(cells, descriptors), condition("E"), source)
    counts = [rows_in(drawn, np.concatenate(list(cells.values())))[i].sum() for i in blocks(cells)]
    assert counts == [0, 0, 16, 8, 16]  # B and D are one away, C two


def test_nearest_does_not_show_a_condition_its_own_cells(cells, source):
    found = predicted("nearest", trained(cells), condition("A 1"), source)
    assert found == "measured: the condition's own cells would be a replicate"
    assert not isinstance(predicted("nearest", trained(cells), condition("A 10"), source), str)


def test_ridge_moves_by_the_predicted_shift(generator, source):
    effect = generator.normal(size=(2, N_FEATURES))
    descriptors = {f"drug_{i}": generator.normal(size=2) for i in range(30)}
    base = generator.normal(size=(100, N_FEATURES))
    cells = {condition(name): (base + vector @ effect).astype(np.float32) for name, vector in descriptors.items()}
    asked = condition("drug_29")
    del cells[asked]
    training = trained({condition(""): base.astype(np.float32), **cells}, descriptors)
    found = shift_of("ridge", training, asked, source)
    np.testing.assert_allclose(found, descriptors["drug_29"] @ effect, rtol=0.02, atol=0.02)


def test_ridge_needs_conditions_and_vectors(cells, source):
    descriptors = {name: np.array([value]) for name, value in zip("ABD", (0.0, 1.0, 2.0), strict=True)}
    assert predicted("ridge", trained(cells, descriptors), condition("C 1"), source) == "no vector for 'C'"
    two = {key: cells[key] for key in list(cells)[:3]}
    reason = "fewer than 3 training conditions with a shift and a vector"
    assert predicted("ridge", trained(two), condition("A 10"), source) == reason


def test_what_has_no_counterpart_in_training_is_said(cells, source):
    training = trained(cells)
    for name in ("gaussian", "nearest"):
        assert predicted(name, training, condition("C 1"), source) == "no training condition to compare with"


@pytest.mark.parametrize("seen", [[], ["", "y"]])
def test_without_perturbed_training_cells_there_is_the_identity_alone(cells, source, seen):
    only_controls = {key: values for key, values in cells.items() if key.is_control and seen}
    training = trained(only_controls)
    for asked in (condition("A 1"), condition("A 1 + B 1")):
        found = {name: predicted(name, training, asked, source) for name in BASELINES}
        assert found.pop("identity") is source
        assert found == {
            "training_cells": "no training cells of a perturbed condition",
            "average_shift": "no training condition whose group has training controls",
            "mean_shift": "no training condition whose group has training controls",
            "additive": "not a combination" if len(asked.members) == 1 else "not measured alone: 'A', 'B'",
            "gaussian": "no training condition whose group has training controls",
            "nearest": "no training cells of a perturbed condition",
            "ridge": "fewer than 3 training conditions with a shift and a vector",
        }


def test_a_population_without_cells_is_not_there(cells, source):
    empty = np.zeros((0, N_FEATURES), np.float32)
    one, other = trained(cells), trained({**cells, condition("C 1"): empty, condition("", "z"): empty})
    for name, asked in product(BASELINES, (condition("C 1"), condition("A 1", "z"))):
        np.testing.assert_array_equal(predicted(name, one, asked, source), predicted(name, other, asked, source))


def test_a_group_without_training_controls_has_no_shifts_of_its_own(cells, source):
    del cells[condition("", "y")]
    training = trained(cells)
    assert condition("A 1", "y") not in training.shifts
    asked = condition("A 1", "y")
    average = shift_of("average_shift", training, asked, source)
    np.testing.assert_array_equal(shift_of("mean_shift", training, asked, source), average)
    # The map is that of the same condition where there are controls.
    moved = predicted("gaussian", training, asked, source)
    np.testing.assert_allclose((moved - source).mean(0), mean(cells, "A 1") - mean(cells, ""), atol=1e-4)
    np.testing.assert_array_equal(
        predicted("training_cells", training, asked, source).mean(0) > 6, True
    )  # measured they were


def test_one_training_cell_is_a_shift(generator, source):
    cells = populations(generator, {"": 0.0, "A": 2.0, "B": 3.0, "C": 4.0})
    cells[condition("A")] = cells[condition("A")][:1]
    moved = predicted("gaussian", trained(cells), condition("A"), source)
    np.testing.assert_allclose(moved, source + cells[condition("A")] - mean(cells, ""), atol=1e-4)
    cells[condition("")] = cells[condition("")][:1]
    for name in BASELINES:
        for asked in (condition("A"), condition("A + B")):
            found = predicted(name, trained(cells), asked, source)
            assert isinstance(found, str) or np.isfinite(found).all()


@pytest.mark.parametrize("n_features", [30, MAX_FEATURES + 30])
@pytest.mark.parametrize("kind", ["constant", "zero", "duplicated", "few"])
def test_degenerate_cells_are_predicted_too(generator, kind, n_features):
    names = ["", "A 1", "A 100", "B 1", "A 1 + B 1"]
    cells = {condition(name): generator.normal(size=(20, n_features)).astype(np.float32) + 1 for name in names}
    if kind == "constant":
        cells = {key: np.where(np.arange(n_features) < 5, np.float32(0.1), values) for key, values in cells.items()}
    elif kind == "zero":
        cells = {key: np.zeros_like(values) for key, values in cells.items()}
    elif kind == "duplicated":
        cells = {key: values[[0] * 20] for key, values in cells.items()}
    else:
        cells = {key: values[:2] for key, values in cells.items()}
    training = trained(cells)
    source = generator.normal(size=(10, n_features)).astype(np.float32)
    for members, without in [("A 1", {"additive", "nearest"}), ("A 10", {"additive"}), ("A 100 + B 1", set())]:
        found = {name: predicted(name, training, condition(members), source) for name in BASELINES}
        assert {name for name, moved in found.items() if isinstance(moved, str)} == without
        assert all(np.abs(moved).max() < 100 for name, moved in found.items() if name not in without)


def test_predictions_are_as_many_and_of_the_type_of_the_source(cells, source):
    training = trained(cells)
    for name, n, dtype in product(BASELINES, (0, 1, 7), (np.float32, np.float64)):
        found = predicted(name, training, condition("A 100 + B 1"), source[:n].astype(dtype))
        assert found.shape == (n, N_FEATURES)
        assert found.dtype == dtype


def test_predictions_are_not_negative_where_none_are(cells, source):
    source = np.abs(source)
    cells = {key: 20.0 - values if key.is_control else np.abs(values) for key, values in cells.items()}
    raw, clipped = trained(cells), trained(cells, nonnegative=True)
    for name in set(BASELINES) - {"identity", "training_cells", "nearest"}:
        free, found = (predicted(name, training, condition("A 100 + B 1"), source) for training in (raw, clipped))
        assert free.min() < 0
        np.testing.assert_array_equal(found, np.maximum(free, 0.0))


def test_nothing_is_changed_in_place(cells, source):
    before = {key: values.copy() for key, values in cells.items()}, source.copy()
    training = trained(cells, nonnegative=True)
    for name in BASELINES:
        predicted(name, training, condition("A 10"), source)
    np.testing.assert_array_equal(source, before[1])
    for key, values in cells.items():
        np.testing.assert_array_equal(values, before[0][key])


CELLS = populations(np.random.default_rng(1), {"": 0.0, "A 1": 1.0, "B 1": 2.0, "C 1": 3.0, "A 1 + B 1": 2.5})
DESCRIPTORS = {name: np.random.default_rng(i).normal(size=3) for i, name in enumerate("ABCD")}


@given(st.data(), st.sampled_from(list(BASELINES)), st.booleans())
def test_the_order_of_members_changes_nothing(data, name, with_descriptors):
    descriptors = DESCRIPTORS if with_descriptors else {}
    drugs = data.draw(st.dictionaries(st.sampled_from("ABCD"), st.sampled_from([1.0, 10.0]), min_size=1))
    asked = Condition(tuple(sorted(drugs.items())), ("x",))
    mixed = asked._replace(members=tuple(data.draw(st.permutations(asked.members))))
    source = CELLS[condition("")][:5]
    turned = {key._replace(members=key.members[::-1]): values for key, values in CELLS.items()}
    expected = predicted(name, trained(CELLS, descriptors), asked, source)
    np.testing.assert_array_equal(predicted(name, trained(turned, descriptors), mixed, source), expected)


def test_halves_share_no_cell():
    one, other = halves(np.arange(7.0)[:, None])
    assert (one.ravel().tolist(), other.ravel().tolist()) == ([0, 1, 2], [3, 4, 5, 6])
