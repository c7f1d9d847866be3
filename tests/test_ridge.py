import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from scgap._conditions import Condition
from scgap._ridge import PENALTIES, fit_ridge, predict_shift, ridge_coefficients


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def single(name, dose=None, group="x", time=None):
    return Condition(((name, dose),), (group,), time)


@pytest.mark.parametrize(("n", "n_columns"), [(30, 5), (6, 12), (3, 2)])
@pytest.mark.parametrize("noise", [0.01, 30.0])
def test_coefficients_and_penalty_against_scikit_learn(generator, n, n_columns, noise):
    rows = generator.normal(size=(n, n_columns))
    rows -= rows.mean(0)
    targets = rows @ generator.normal(size=(n_columns, 4)) + noise * generator.normal(size=(n, 4))
    targets -= targets.mean(0)
    expected = RidgeCV(alphas=PENALTIES, fit_intercept=True).fit(rows, targets)
    coefficients, penalty = ridge_coefficients(rows, targets, PENALTIES)
    assert penalty == pytest.approx(expected.alpha_)
    np.testing.assert_allclose(coefficients, expected.coef_.T, rtol=1e-6, atol=1e-10)


def test_the_penalty_is_the_one_that_a_loop_over_left_out_rows_chooses(generator):
    rows = generator.normal(size=(8, 3))
    rows -= rows.mean(0)
    targets = rows[:, :1] + generator.normal(size=(8, 2))
    targets -= targets.mean(0)

    def error(penalty):
        total = 0.0
        for i in range(8):
            others = np.arange(8) != i
            x, y = rows[others] - rows[others].mean(0), targets[others] - targets[others].mean(0)
            solved = np.linalg.solve(x.T @ x + penalty * np.eye(3), x.T @ y)
            predicted = targets[others].mean(0) + (rows[i] - rows[others].mean(0)) @ solved
            total += ((targets[i] - predicted) ** 2).sum()
        return total

    _, penalty = ridge_coefficients(rows, targets, PENALTIES)
    assert penalty == PENALTIES[np.argmin([error(penalty) for penalty in PENALTIES])]
    assert PENALTIES[0] < penalty < PENALTIES[-1]


def test_effects_that_are_linear_in_the_vectors_are_predicted(generator):
    vectors = {f"drug_{i}": generator.normal(size=3) for i in range(40)}
    effect = generator.normal(size=(3, 5))
    shifts = {single(name): vector @ effect + 1.0 for name, vector in list(vectors.items())[:-1]}
    fitted = fit_ridge(shifts, vectors)
    np.testing.assert_allclose(
        predict_shift(fitted, single("drug_39")), vectors["drug_39"] @ effect + 1.0, rtol=1e-2, atol=1e-2
    )


def test_doses_times_and_groups_are_part_of_it():
    def truth(drug, dose, group, time):
        slope = {"A": 1.0, "B": -2.0}[drug]
        return np.array([slope * np.log10(dose), 3.0 * (group == "x") + np.log1p(time)])

    grid = [(d, dose, g, t) for d in "AB" for dose in (1.0, 100.0) for g in "xy" for t in (6.0, 24.0)]
    fitted = fit_ridge({single(*asked): truth(*asked) for asked in grid}, {})
    for asked in [("A", 10.0, "x", 12.0), ("B", 10.0, "y", 12.0), ("B", 1000.0, "x", 24.0)]:
        np.testing.assert_allclose(predict_shift(fitted, single(*asked)), truth(*asked), rtol=2e-2, atol=2e-2)


def test_members_are_added_up():
    shifts = {single(name): value * np.ones(1) for name, value in (("A", 1.0), ("B", 2.0), ("C", 4.0), ("D", 8.0))}
    pairs = [("A", "B", 3.0), ("A", "C", 5.0), ("B", "C", 6.0), ("B", "D", 10.0), ("C", "D", 12.0)]
    shifts |= {Condition(((a, None), (b, None)), ("x",)): value * np.ones(1) for a, b, value in pairs}
    fitted = fit_ridge(shifts, {})
    found = predict_shift(fitted, Condition((("A", None), ("D", None)), ("x",)))
    np.testing.assert_allclose(found, 9.0, rtol=2e-2)


def test_without_anything_to_learn_from_it_is_the_average(generator):
    shifts = {single(f"drug_{i}"): generator.normal(size=2) for i in range(6)}
    vectors = {name: np.zeros(3) for name in [*(f"drug_{i}" for i in range(6)), "new"]}
    average = np.mean(list(shifts.values()), axis=0)
    np.testing.assert_allclose(predict_shift(fit_ridge(shifts, vectors), single("new")), average)


def test_noise_is_penalised_away(generator):
    # Random vectors say nothing of random shifts: the average is better than any fit.
    names = [f"drug_{i}" for i in range(40)]
    vectors = {name: generator.normal(size=30) for name in [*names, "new"]}
    shifts = {single(name): generator.normal(size=50) for name in names}
    average = np.mean(list(shifts.values()), axis=0)
    found = predict_shift(fit_ridge(shifts, vectors), single("new"))
    assert np.linalg.norm(found - average) < 0.2 * np.sqrt(50)


def test_too_few_conditions_and_unknown_perturbations():
    shifts = {single(name): np.ones(2) for name in "ABC"}
    vectors = {name: np.full(2, float(i)) for i, name in enumerate("ABCD")}
    assert fit_ridge({}, {}) is None
    assert fit_ridge({single(name): np.ones(2) for name in "AB"}, vectors) is None
    assert fit_ridge(shifts, {name: vectors[name] for name in "AB"}) is None
    assert predict_shift(fit_ridge(shifts, vectors), single("E")) == "no vector for 'E'"
    assert predict_shift(fit_ridge(shifts, {}), single("D")) == "no vector for 'D'"


def test_a_dose_that_is_like_no_other_says_nothing(generator):
    shifts = {single(f"drug_{i}", 10.0): generator.normal(size=5) for i in range(12)}
    fitted = fit_ridge(shifts, {})
    at_the_dose, beyond = (predict_shift(fitted, single("drug_1", dose)) for dose in (10.0, 20.0))
    np.testing.assert_array_equal(at_the_dose, beyond)
