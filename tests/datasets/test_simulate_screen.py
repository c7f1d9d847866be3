import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from scgap.datasets._simulate_screen import _draw_truth, simulate_screen
from scgap.datasets._true_transport import true_transport

TOP = 10_000.0


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(3_000, n_drugs=6, n_combinations=4, seed=1)


@pytest.fixture(scope="module")
def one_line():
    """Many cells a drug, in one cell line, at the top dose alone."""
    return simulate_screen(3_000, n_drugs=6, n_groups=1, doses=(TOP,), seed=2)


def rows(data, perturbation, dose=0.0):
    return ((data.obs["perturbation"] == perturbation) & (data.obs["dose_value"] == dose)).to_numpy()


def move(data, perturbation, dose=TOP, source=None):
    return true_transport(data, {"perturbation": perturbation, "dose_value": dose}, source=source)


def energy_distance(x, y):
    """Unbiased: without the zero distances of points to themselves."""
    n, m = len(x), len(y)
    return 2 * cdist(x, y).mean() - cdist(x, x).sum() / (n * (n - 1)) - cdist(y, y).sum() / (m * (m - 1))


def assert_same_counts(a, b):
    pd.testing.assert_frame_equal(a.obs, b.obs)
    for key in ("untreated", "state"):
        np.testing.assert_array_equal(a.layers[key], b.layers[key])
    np.testing.assert_array_equal(a.X.toarray(), b.X.toarray())


def test_follows_the_schema_of_scperturb(screen):
    assert list(screen.obs) == ["perturbation", "dose_value", "dose_unit", "cell_line", "subpopulation"]
    assert screen.obs["perturbation"].cat.categories[:3].tolist() == ["control", "drug_1", "drug_2"]
    assert screen.obs["dose_value"].dtype == np.float64
    assert set(screen.obs["dose_unit"]) == {"nM"}
    assert set(screen.obs["cell_line"]) == {"line_1", "line_2", "line_3"}
    assert set(screen.obs["subpopulation"]) == {"state_1", "state_2", "state_3"}
    assert screen.obs_names[0] == "cell_0"
    assert screen.var_names[0] == "feature_0"
    assert screen.X.dtype == np.float32
    assert screen.uns["drug_descriptors"].shape == (6, 8)
    assert ((screen.obs["perturbation"] == "control") == (screen.obs["dose_value"] == 0)).all()


def test_cells_are_spread_evenly(screen):
    sizes = screen.obs.groupby(["perturbation", "dose_value", "cell_line"], observed=True).size()
    assert sizes["control"].tolist() == [200, 200, 200]
    treated = sizes.drop("control")
    assert len(treated) == 10 * 4 * 3
    assert set(treated) == {20}


@pytest.mark.parametrize("counts", [False, True])
def test_the_true_map_carries_every_cell_to_where_it_is(counts):
    data = simulate_screen(1_000, n_drugs=4, n_combinations=3, counts=counts)
    observed = data.layers["state"] if counts else data.X
    conditions = data.obs.groupby(["perturbation", "dose_value"], observed=True).groups
    assert len(conditions) == 1 + 7 * 4
    for perturbation, dose in conditions:
        source = rows(data, perturbation, dose)
        np.testing.assert_allclose(move(data, perturbation, dose, source), observed[source], rtol=1e-6, atol=1e-6)


def test_nothing_moves_without_a_drug_or_a_dose(screen):
    control = rows(screen, "control")
    untreated = screen.layers["untreated"][control]
    np.testing.assert_array_equal(screen.X[control], untreated)
    np.testing.assert_array_equal(true_transport(screen, {"perturbation": "control"}), untreated)
    for perturbation in ("control", "drug_1", "drug_1+drug_2"):
        np.testing.assert_array_equal(move(screen, perturbation, 0.0), untreated)


def test_a_series_selects_cells_by_name(screen):
    controls = screen.obs["perturbation"] == "control"
    condition = {"perturbation": "drug_1", "dose_value": 100.0}
    expected = true_transport(screen, condition, source=controls.to_numpy())
    np.testing.assert_array_equal(true_transport(screen, condition, source=controls.sort_values()), expected)


def test_the_cell_line_of_a_condition_changes_nothing(screen):
    condition = {"perturbation": "drug_1", "dose_value": TOP}
    np.testing.assert_array_equal(
        true_transport(screen, condition | {"cell_line": "line_2"}), true_transport(screen, condition)
    )


def test_displacement_grows_along_a_hill_curve(screen):
    untreated = screen.layers["untreated"][rows(screen, "control")]
    doses = [10.0, 100.0, 1_000.0, TOP]
    lengths = np.array([np.linalg.norm(move(screen, "drug_3", dose) - untreated, axis=1) for dose in doses])
    assert (np.diff(lengths, axis=0) > 0).all()
    truth = screen.uns["simulation"]
    line = screen.obs["cell_line"][rows(screen, "control")].cat.codes.to_numpy()
    power, half = np.array(doses)[:, None] ** 1.2, truth["ec50"][2, line] ** 1.2
    hill = power / (half + power)
    np.testing.assert_allclose(lengths / lengths[-1], hill / hill[-1], rtol=1e-2)


def test_effects_are_clear_at_the_top_dose_and_small_at_the_lowest(screen):
    control = rows(screen, "control")
    untreated = screen.layers["untreated"][control]
    for number in range(1, 7):
        shift = np.abs(move(screen, f"drug_{number}") - untreated)
        # In the subpopulation that answers most some features move by several of their deviations (about 1).
        most = shift.max(axis=1) >= np.quantile(shift.max(axis=1), 0.9)
        assert (shift[most].mean(axis=0) > 2.0).sum() >= 3
        assert np.linalg.norm(move(screen, f"drug_{number}", 10.0) - untreated, axis=1).mean() < 2.0


def test_additive_pairs_add_up_and_interacting_pairs_do_not(screen):
    untreated = screen.layers["untreated"][rows(screen, "control")]
    pairs = [label for label in screen.obs["perturbation"].cat.categories if "+" in label]
    interacting = screen.uns["simulation"]["interacting_pairs"].tolist()
    assert len(pairs) == 4
    assert len(interacting) == 2
    assert set(interacting) < set(pairs)
    for pair in pairs:
        together = move(screen, pair) - untreated
        added = sum(move(screen, drug) - untreated for drug in pair.split("+"))
        if pair in interacting:
            ratio = np.linalg.norm(together, axis=1) / np.linalg.norm(added, axis=1)
            assert ((ratio > 1.2) & (ratio < 1.5)).all()  # 1 + 0.5 * h_a * h_b
        else:
            np.testing.assert_allclose(together, added, atol=1e-5)


def test_the_true_map_is_nearly_optimal(screen, one_line):
    pair = screen.uns["simulation"]["interacting_pairs"][0]
    for data, perturbation in ((screen, pair), *((one_line, f"drug_{number}") for number in range(1, 7))):
        source = np.flatnonzero(rows(data, "control"))[:300]
        mask = np.isin(np.arange(data.n_obs), source)
        cost = cdist(data.layers["untreated"][mask], move(data, perturbation, TOP, mask))
        best = cost[linear_sum_assignment(cost)].sum()
        assert np.trace(cost) <= 1.02 * best


def test_the_map_keeps_order_along_each_direction(one_line):
    # Even where the spread shrinks most: a map that folded would be no transport map.
    control = rows(one_line, "control")
    state = one_line.obs["subpopulation"][control].cat.codes.to_numpy()
    untreated = one_line.layers["untreated"][control]
    for drug, moved in enumerate(move(one_line, f"drug_{number}") for number in range(1, 7)):
        for k, direction in enumerate(one_line.uns["simulation"]["direction"][drug]):
            before, after = untreated[state == k] @ direction, moved[state == k] @ direction
            assert (np.diff(after[np.argsort(before)]) > -1e-4).all()


def test_a_mean_shift_fails_where_the_true_map_does_not(one_line):
    control = one_line.X[rows(one_line, "control")]
    fails = 0
    for number in range(1, 7):
        treated = one_line.X[rows(one_line, f"drug_{number}", TOP)]
        shifted = control + (treated.mean(axis=0) - control.mean(axis=0))
        truth = abs(energy_distance(move(one_line, f"drug_{number}"), treated))
        fails += energy_distance(shifted, treated) > 3 * truth
    assert fails >= 5


def test_subpopulations_and_features_differ(screen, one_line):
    shares = pd.crosstab(screen.obs["cell_line"], screen.obs["subpopulation"], normalize="index")
    assert np.ptp(shares.to_numpy(), axis=0).max() > 0.1
    cells = one_line.layers["untreated"][one_line.obs["subpopulation"] == "state_1"]
    skewness = stats.skew(cells)
    assert 10 < (skewness > 0.5).sum() < 30
    assert np.abs(np.corrcoef(cells.T)[np.triu_indices(50, 1)]).max() > 0.5
    assert 0.7 < cells.std(axis=0).mean() < 1.5


def test_drugs_of_like_descriptors_have_like_effects():
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(5, 8))
    truth = _draw_truth(rng, np.concatenate([descriptors, descriptors + 1e-7]), TOP, 2, 3, 20)
    for key in ("direction", "amplitude", "steepness", "ec50"):
        np.testing.assert_allclose(truth[key][5:], truth[key][:5], rtol=1e-3, atol=1e-5)
        assert not np.allclose(truth[key][0], truth[key][1])


@pytest.mark.parametrize("n_combinations", [0, 3])
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_the_true_map_survives_a_round_trip(tmp_path, kind, n_combinations):
    data = simulate_screen(500, n_drugs=3, n_combinations=n_combinations, counts=True)
    getattr(data, f"write_{kind}")(tmp_path / f"screen.{kind}")
    back = getattr(anndata, f"read_{kind}")(tmp_path / f"screen.{kind}")
    assert_same_counts(data, back)
    for perturbation in ("drug_2", "drug_1+drug_3", "drug_1+drug_2+drug_3"):
        np.testing.assert_array_equal(move(back, perturbation), move(data, perturbation))
    interacting = [screen.uns["simulation"]["interacting_pairs"].tolist() for screen in (data, back)]
    assert interacting[0] == interacting[1]
    pd.testing.assert_frame_equal(back.uns["drug_descriptors"], data.uns["drug_descriptors"])


@pytest.mark.parametrize("seed", range(4))
def test_counts_look_like_counts(seed):
    data = simulate_screen(1_000, counts=True, seed=seed)
    assert isinstance(data.X, sparse.csr_matrix)
    assert data.X.dtype == np.float32
    assert data.var_names[0] == "gene_0"
    assert (data.X.data > 0).all()
    assert (data.X.data == data.X.data.round()).all()
    assert 0.4 < 1 - data.X.nnz / np.prod(data.shape) < 0.8
    expected = data.obs["size_factor"].to_numpy()[:, None] * np.logaddexp(0, data.layers["state"])
    assert data.X.sum() == pytest.approx(expected.sum(), rel=0.02)
    control = rows(data, "control")
    np.testing.assert_array_equal(data.layers["state"][control], data.layers["untreated"][control])


def test_the_seed_decides_everything():
    np.random.seed(0)  # noqa: NPY002 - the global state must neither be used nor moved
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (simulate_screen(500, n_combinations=2, counts=True, seed=seed) for seed in (5, 5, 6))
    assert_same_counts(first, again)
    assert not np.array_equal(first.layers["state"], other.layers["state"])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_more_cells_leave_the_drugs_as_they_are():
    few, many = (simulate_screen(n_cells, n_combinations=2, seed=3) for n_cells in (500, 800))
    pd.testing.assert_frame_equal(few.uns["drug_descriptors"], many.uns["drug_descriptors"])
    np.testing.assert_array_equal(few.uns["simulation"]["centre"], many.uns["simulation"]["centre"])
    assert list(few.obs["perturbation"].cat.categories) == list(many.obs["perturbation"].cat.categories)


def test_the_smallest_screen():
    data = simulate_screen(
        4, n_features=2, n_drugs=1, doses=[1], n_groups=1, n_subpopulations=1, n_descriptors=1, control_fraction=0.5
    )
    assert data.shape == (4, 2)
    assert np.isfinite(data.X).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_drugs": 0}, "`n_drugs=0`; allowed are whole numbers from 1"),
        ({"n_features": 1}, "`n_features=1`; allowed are whole numbers from 2"),
        ({"n_cells": 1e4}, r"`n_cells=10000.0`; allowed are whole numbers"),
        ({"n_combinations": -1}, "whole numbers from 0"),
        ({"n_drugs": 3, "n_combinations": 4}, "at most the 3 distinct pairs of 3 drugs.*Lower `n_combinations`"),
        ({"doses": (0.0, 10.0)}, "distinct positive numbers in nM. Leave out 0"),
        ({"doses": (10.0, 10.0)}, "distinct positive numbers"),
        ({"doses": (np.nan,)}, "distinct positive numbers"),
        ({"doses": ()}, "distinct positive numbers"),
        ({"control_fraction": 1.0}, "a share between 0 and 1"),
        ({"control_fraction": np.nan}, "a share between 0 and 1"),
        ({"interaction": -1.0}, "numbers above -1. Pass 0"),
        ({"n_cells": 100}, "80 treated cells to 96 conditions and 20 controls to 3 cell lines.*Raise `n_cells`"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        simulate_screen(**arguments)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (
            {"perturbation": "drug_77", "dose_value": 1.0},
            "'drug_77' is not in the drugs.*Did you mean 'drug_",
        ),
        ({"perturbation": "drug_1+durg_2", "dose_value": 1.0}, "'durg_2' is not in the drugs.*Did you mean 'drug_2'"),
        ({"perturbation": "drug_1+drug_1", "dose_value": 1.0}, "distinct drugs joined by"),
        ({"perturbation": "drug_1", "dose_value": -1.0}, "'dose_value' -1.0; allowed are numbers from 0 on, in nM"),
        ({"perturbation": "drug_1", "dose_value": np.inf}, "numbers from 0 on"),
        ({"perturbation": "drug_1", "dose_value": "high"}, "'dose_value' 'high'; allowed are numbers"),
        ({"perturbation": "drug_1", "dose_value": True}, "'dose_value' True; allowed are numbers"),
        ({"perturbation": "drug_1"}, "'dose_value' None; allowed are numbers"),
        ({"perturbation": "drug_1", "dose": 1.0}, r"fields \['perturbation', 'dose'\]; allowed are"),
        ({"dose_value": 1.0}, r"Pass for example \{\"perturbation\""),
    ],
)
def test_bad_conditions_are_refused(screen, condition, words):
    with pytest.raises(ValueError, match=words):
        true_transport(screen, condition)


def test_bad_data_are_refused(screen):
    condition = {"perturbation": "control"}
    with pytest.raises(KeyError, match=r"has \[\] in uns.*Pass an object made by `scgap.datasets.simulate_screen`"):
        true_transport(anndata.AnnData(screen.X, obs=screen.obs, var=screen.var), condition)
    fewer = anndata.AnnData(screen.X[:, :3], obs=screen.obs, var=screen.var[:3], uns=screen.uns)
    fewer.layers["untreated"] = screen.layers["untreated"][:, :3]
    with pytest.raises(ValueError, match="has 3 features; the true map needs all 50"):
        true_transport(fewer, condition)
    with pytest.raises(ValueError, match=r"boolean mask of shape \(3000,\). Pass one such as"):
        true_transport(screen, condition, source=[0, 1, 2])
