"""Cells of groups that were not trained on: which trained groups stand in for theirs, and with what share."""

import json

import numpy as np
import pytest

import scgap
from scgap._arrays import ConditionArrays
from scgap._conditions import parse_condition
from scgap._encoding import encode_conditions
from scgap._groups import group_shares, stand_in_groups
from scgap._map import transport_cells
from scgap._model import get_model
from scgap._moving import make_mover, move_to

QUERY = {"perturbation": "drug_1", "dose_value": 10.0}
COLUMNS = {"dose_col": "dose_value", "group_col": ["cell_line", "donor"]}


@pytest.fixture(scope="module")
def _fitted():
    adata = scgap.datasets.simulate_screen(2_000, n_features=4, n_drugs=2, doses=[10.0], n_groups=3, seed=1)
    adata.obs["donor"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    scgap.pp.split(adata, **COLUMNS, fraction=0.3)
    scgap.tl.fit_transport(adata, **COLUMNS, split_col="split", n_iters=30, n_maps=2, hidden=(16,), progress=False)
    return adata


@pytest.fixture
def fitted(_fitted):
    return _fitted.copy()


def moved(adata, source, line, donor):
    """Source cells moved as if they were of a group."""
    adata = adata[source].copy()
    adata.obs["cell_line"], adata.obs["donor"] = line, donor
    with pytest.warns(UserWarning, match="was not trained on: each of its cells is moved by a mean over trained"):
        return scgap.tl.predict(adata, QUERY, source=np.ones(adata.n_obs, bool), copy=True).layers["scgap"]


def moved_as(adata, source, line, donor):
    adata = adata[source].copy()
    adata.obs["cell_line"], adata.obs["donor"] = line, donor
    return scgap.tl.predict(adata, QUERY, source=np.ones(adata.n_obs, bool), copy=True).layers["scgap"]


def nearness(adata, source, groups):
    """Inverse squared distance to the means of training controls, cell by cell."""
    obs = adata.obs
    train = (obs["perturbation"] == "control") & (obs["split"] == "train")
    own = [train & (obs["cell_line"] == line) & (obs["donor"] == donor) for line, donor in groups]
    return np.array([1.0 / ((adata.X[source] - adata[some].X.mean(0)) ** 2).sum(1) for some in own])


SOURCE = np.arange(40)


def test_an_unknown_donor_is_moved_as_those_of_its_line(fitted):
    groups = [("line_2", "a"), ("line_2", "b")]
    near = nearness(fitted, SOURCE, groups)
    each = np.array([moved_as(fitted, SOURCE, *group) for group in groups])
    wanted = (near[:, :, None] * each).sum(0) / near.sum(0)[:, None]
    assert np.abs(each[0] - each[1]).max() > 1e-3
    np.testing.assert_allclose(moved(fitted, SOURCE, "line_2", "c"), wanted, atol=2e-5)


def test_an_unknown_group_is_moved_as_all_others(fitted):
    groups = [(line, donor) for line in ("line_1", "line_2", "line_3") for donor in "ab"]
    near = nearness(fitted, SOURCE, groups)
    each = np.array([moved_as(fitted, SOURCE, *group) for group in groups])
    wanted = (near[:, :, None] * each).sum(0) / near.sum(0)[:, None]
    np.testing.assert_allclose(moved(fitted, SOURCE, "line_9", "c"), wanted, atol=2e-5)


def test_a_cell_is_moved_alike_in_whatever_company(fitted):
    together = moved(fitted, SOURCE, "line_9", "c")
    alone = np.concatenate([moved(fitted, SOURCE[i : i + 1], "line_9", "c") for i in range(3)])
    np.testing.assert_allclose(together[:3], alone, atol=1e-5)


def test_a_cell_where_the_controls_are_is_moved_as_these(fitted):
    means = make_mover(get_model(fitted, None, "scgap")).control_means
    shares = group_shares(means, means["line_2", "b"][None], ("line_9", "c"))
    assert max(shares, key=lambda group: shares[group]) == ("line_2", "b")
    assert shares["line_2", "b"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_shares_have_no_unit(fitted, unit):
    means = make_mover(get_model(fitted, None, "scgap")).control_means
    points = np.asarray(fitted.X[SOURCE], float)
    expected = group_shares(means, points, ("line_9", "c"))
    in_units = {group: unit * mean.astype(float) for group, mean in means.items()}
    found = group_shares(in_units, unit * points, ("line_9", "c"))
    for group, share in expected.items():
        np.testing.assert_allclose(found[group], share, rtol=1e-4)
    at_them = group_shares({group: np.zeros(3) for group in means}, np.zeros((1, 3)), ("line_9", "c"))
    np.testing.assert_allclose([share[0] for share in at_them.values()], 1 / 6)


def test_as_many_as_are_nearest_stand_in(fitted, monkeypatch):
    monkeypatch.setattr("scgap._groups.N_NEAREST", 2)
    means = make_mover(get_model(fitted, None, "scgap")).control_means
    shares = np.array(list(group_shares(means, fitted.X[SOURCE], ("line_9", "c")).values()))
    assert len(shares) == 6
    assert ((shares > 0).sum(0) == 2).all()
    np.testing.assert_allclose(shares.sum(0), 1.0, rtol=1e-6)
    groups = sorted({(line, donor) for line in ("line_1", "line_2", "line_3") for donor in "ab"})
    np.testing.assert_array_equal(shares.argmax(0), nearness(fitted, SOURCE, groups).argmax(0))


def test_which_groups_stand_in():
    trained = [("x", "a"), ("x", "b"), ("y", "a")]
    assert stand_in_groups(trained, ("y", "b")) == [("y", "b")]  # both labels were trained
    assert stand_in_groups(trained, ("x", "c")) == trained[:2]
    assert stand_in_groups(trained, ("z", "c")) == trained
    assert stand_in_groups([()], ()) == stand_in_groups([], ()) == [()]
    assert stand_in_groups([], ("x", "c")) == [("x", "c")]  # which were trained is not known


def test_an_earlier_map_moves_without_context(fitted):
    del fitted.uns["scgap"]["control_means"]
    model = get_model(fitted, None, "scgap")
    points = fitted.X[SOURCE]
    condition = parse_condition(model.design, {**QUERY, "cell_line": "line_9", "donor": "c"})
    arrays = ConditionArrays(*(array[0] for array in encode_conditions(model.encoding, [condition])))
    assert not arrays.context.any()
    several = [transport_cells(model.network, weights, points, arrays) for weights in (model.weights, *model.others)]
    moved = move_to(make_mover(model), points, condition)
    np.testing.assert_allclose(moved.points, np.mean(several, axis=0), atol=1e-5)
    fitted.obs["cell_line"] = "line_9"
    with pytest.warns(UserWarning, match="'line_9' was not trained on: its cells are moved without its context"):
        scgap.tl.predict(fitted, QUERY)


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_control_stays_exactly_where_it_is(fitted):
    fitted.obs["cell_line"], fitted.obs["donor"] = "line_9", "c"
    scgap.tl.predict(fitted, "control", source=np.ones(fitted.n_obs, bool))
    np.testing.assert_array_equal(fitted.layers["scgap"], fitted.X)


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_a_screen_says_the_same(fitted):
    fitted.obs["cell_line"] = "line_9"
    screened = scgap.tl.screen(fitted, [QUERY], progress=False)
    scgap.tl.predict(fitted, QUERY)
    np.testing.assert_allclose(screened.X, fitted[screened.obs["source_cell"]].layers["scgap"], atol=1e-5)


def test_means_survive_a_file(fitted, tmp_path):
    before = moved(fitted, SOURCE, "line_9", "c")
    scgap.write_transport(fitted, tmp_path / "map.safetensors")
    fitted.uns["scgap"] = scgap.read_transport(tmp_path / "map.safetensors")
    np.testing.assert_array_equal(before, moved(fitted, SOURCE, "line_9", "c"))


@pytest.mark.parametrize("change", [lambda m: m[1:], lambda m: m[:, 1:], lambda m: m * np.nan])
def test_damage_is_told(fitted, change):
    fitted.uns["scgap"]["control_means"] = change(fitted.uns["scgap"]["control_means"])
    with pytest.raises(ValueError, match="The stored map is damaged"):
        scgap.tl.predict(fitted, QUERY)


def test_maps_without_groups_have_no_means():
    adata = scgap.datasets.simulate_screen(400, n_features=3, n_drugs=2, doses=[10.0], n_groups=1)
    scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=1, progress=False)
    assert "control_means" not in adata.uns["scgap"]
    assert json.loads(adata.uns["scgap"]["params"])["design"]["group_cols"] == []


def test_groups_that_stand_in_disagree_in_the_spread(fitted):
    """It is of all their predictions by all maps, each with its share."""
    model, points = get_model(fitted, None, "scgap"), fitted.X[SOURCE]
    lines = [("line_1", "a"), ("line_2", "a"), ("line_3", "a")]
    conditions = [parse_condition(model.design, {**QUERY, "cell_line": line, "donor": donor}) for line, donor in lines]
    arrays = encode_conditions(model.encoding, conditions)
    shares = nearness(fitted, SOURCE, lines)
    shares /= shares.sum(0)
    maps = (model.weights, *model.others)
    each = np.array(
        [
            [
                transport_cells(model.network, weights, points, ConditionArrays(*(part[i] for part in arrays)))
                for i in range(3)
            ]
            for weights in maps
        ]
    )  # (n_maps, n_groups, n_cells, n_features)
    mean = (shares[:, :, None] * each.mean(0)).sum(0)
    squares = (shares * np.square(each - mean).sum(-1).mean(0)).sum(0)
    asked = parse_condition(model.design, {**QUERY, "cell_line": "line_9", "donor": "a"})
    moved = move_to(make_mover(model), points, asked)
    np.testing.assert_allclose(moved.points, mean, atol=1e-4)
    np.testing.assert_allclose(moved.spread, np.sqrt(squares), rtol=1e-3)
    one = [move_to(make_mover(model), points, condition) for condition in conditions]
    between = np.sqrt((shares * np.square(np.array([m.points for m in one]) - mean).sum(-1)).sum(0))
    assert (moved.spread > between).all()
    assert (between > 0).all()
