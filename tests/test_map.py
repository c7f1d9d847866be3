import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scgap import _map
from scgap._conditions import Condition, make_design
from scgap._encoding import encode_conditions, make_encoding
from scgap._populations import ConditionArrays

N_FEATURES, N_PERTURBATIONS, N_MEMBERS = 6, 5, 4

NETWORK = _map.ConditionalMap(hidden=(16, 16), n_embedding=8)
POOLINGS = ("sum", "mean", "attention")
ENCODING = np.random.default_rng(0).normal(size=(N_PERTURBATIONS, 3)).astype(np.float32)
CELLS = np.random.default_rng(1).normal(3.0, 2.0, size=(50, N_FEATURES)).astype(np.float32)

transport = jax.jit(_map.transport, static_argnums=0)


def make_condition(members, doses=None, context=(1.0, 0.0), n_members=N_MEMBERS):
    """A set of perturbations, padded to n_members."""
    padding = n_members - len(members)
    doses = [0.0] * len(members) if doses is None else doses
    return ConditionArrays(
        np.pad(np.array(members, np.int32), (0, padding)),
        np.pad(np.array(doses, np.float32), (0, padding)),
        np.repeat(np.float32([1, 0]), [len(members), padding]),
        np.array(context, np.float32),
    )


@pytest.fixture(scope="module")
def fresh():
    return _map.init_weights(NETWORK, 0, ENCODING, make_condition([0]), CELLS)


def randomised(weights):
    """Weights of a map far from the identity: every array is random, biases too."""
    rng = np.random.default_rng(2)
    network = jax.tree.map(lambda array: rng.normal(0.0, 0.5, array.shape).astype(np.float32), weights["network"])
    return weights | {"network": network}


@pytest.fixture(scope="module")
def weights(fresh):
    return randomised(fresh)


@pytest.fixture(scope="module", params=POOLINGS)
def pooled(request):
    """A network of each pooling, with weights far from the identity."""
    network = NETWORK.clone(pooling=request.param)
    return network, randomised(_map.init_weights(network, 0, ENCODING, make_condition([0]), CELLS))


# What a set of perturbations can be: distinct members with doses.
sets = st.lists(
    st.tuples(st.integers(0, N_PERTURBATIONS - 1), st.floats(-3, 3, width=32)),
    min_size=1,
    max_size=N_MEMBERS,
    unique_by=lambda member: member[0],
)


@settings(deadline=None)  # the first example compiles
@given(sets, st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.0, -2.5)]))
def test_fresh_weights_are_the_identity(fresh, members, context):
    condition = make_condition(*zip(*members, strict=True), context)
    np.testing.assert_array_equal(transport(NETWORK, fresh, CELLS, condition), CELLS)


def test_random_weights_move_cells_by_condition(weights):
    moved = [
        transport(NETWORK, weights, CELLS, condition)
        for condition in (
            make_condition([1]),
            make_condition([2]),
            make_condition([1, 2]),
            make_condition([1], doses=[1.0]),
            make_condition([1], context=(0.0, 1.0)),
        )
    ]
    for i, one in enumerate(moved):
        assert np.abs(one - CELLS).mean() > 0.1
        for other in moved[:i]:
            assert np.abs(one - other).mean() > 0.01


@pytest.mark.parametrize("context", [(0.0, 0.0), (1.0, 0.0), (0.0, -2.5)])
def test_empty_set_is_exactly_the_identity(pooled, context):
    np.testing.assert_array_equal(transport(*pooled, CELLS, make_condition([], context=context)), CELLS)


@settings(deadline=None)  # the first example compiles
@given(st.data(), sets)
def test_order_of_members_changes_nothing(pooled, data, members):
    shuffled = data.draw(st.permutations(members))
    one, other = (make_condition(*zip(*order, strict=True)) for order in (members, shuffled))
    expected = transport(*pooled, CELLS, one)
    np.testing.assert_allclose(transport(*pooled, CELLS, other), expected, rtol=1e-5, atol=1e-4)


def present(condition, presence):
    """The condition whose members are present to the given degrees."""
    return condition._replace(presence=np.pad(np.float32(presence), (0, N_MEMBERS - len(presence))))


def test_a_member_fades_out_of_the_set(pooled):
    """With its dose a member leaves the set, and the last one leaves control behind."""
    both, one = make_condition([3, 1], [0.5, -2.0]), make_condition([3], [0.5])
    left, alone = (transport(*pooled, CELLS, present(*c)) for c in ((both, [1.0, 1e-6]), (one, [1.0])))
    displaced = np.abs(alone - CELLS).max()
    np.testing.assert_allclose(left, alone, atol=1e-4 * displaced)
    assert np.abs(transport(*pooled, CELLS, both) - alone).max() > 0.02 * displaced
    np.testing.assert_allclose(transport(*pooled, CELLS, present(both, [1e-6, 1e-6])), CELLS, atol=1e-4 * displaced)


def test_what_a_pair_is_made_of(pooled):
    """Embeddings of pairs: what they are more than their parts' sum, or mean, or the one that attention chose."""
    network, weights = pooled
    weights = jax.tree.map(np.copy, weights)
    if network.pooling == "attention":
        weights["network"]["encoder"]["attention"]["kernel"] *= 1e3  # all of the weight on one member
    pair, first, second, nothing = (
        np.asarray(encoder_output(network, weights, make_condition(members))) for members in ([3, 1], [3], [1], [])
    )
    assert np.abs(first - second).max() > 0.1
    if network.pooling == "sum":
        np.testing.assert_allclose(pair, first + second - nothing, atol=1e-4)
    elif network.pooling == "mean":
        np.testing.assert_allclose(pair, (first + second) / 2, atol=1e-4)
    else:
        assert min(np.abs(pair - single).max() for single in (first, second)) < 1e-3


def test_by_parts_each_member_moves_the_cells_alone(pooled):
    network, weights = pooled

    def move(condition, detail=None, cells=CELLS):
        return _map.transport_cells(network, weights, cells, condition, detail=detail)

    a, b = (make_condition([i], [dose]) for i, dose in ((0, 0.5), (3, -1.0)))
    pair = make_condition([0, 3], [0.5, -1.0])
    np.testing.assert_allclose(move(a, 1.0), move(a), rtol=1e-5, atol=1e-5)
    both = CELLS + sum(move(condition) - CELLS for condition in (a, b))
    np.testing.assert_allclose(move(pair, 1.0), both, rtol=1e-4, atol=1e-4)
    assert np.abs(move(pair) - both).max() > 0.1
    centre = np.asarray(weights["centre"])
    nearer = 0.25 * CELLS + 0.75 * centre
    quarter = CELLS + sum(move(condition, cells=nearer) - nearer for condition in (a, b))
    np.testing.assert_allclose(move(pair, 0.25), quarter, rtol=1e-4, atol=1e-4)
    assert np.ptp(move(pair, 0.0) - CELLS, axis=0).max() < 1e-4 < np.ptp(quarter - CELLS, axis=0).max()


def encoder_output(network, weights, condition):
    encoder = _map.ConditionEncoder(network.n_embedding, network.pooling)
    return encoder.apply({"params": weights["network"]["encoder"]}, ENCODING[condition.members], condition)


@settings(deadline=None)  # the first example compiles
@given(st.data(), sets)
def test_what_stands_in_the_padding_changes_nothing(pooled, data, members):
    condition = make_condition(*zip(*members, strict=True))
    padding = condition.presence == 0
    filling = data.draw(st.integers(0, N_PERTURBATIONS - 1))
    filled = condition._replace(
        members=np.where(padding, filling, condition.members), doses=np.where(padding, 7.0, condition.doses)
    )
    expected = transport(*pooled, CELLS, condition)
    np.testing.assert_allclose(transport(*pooled, CELLS, filled), expected, rtol=1e-6, atol=1e-6)


def test_more_padding_changes_nothing(pooled):
    expected = transport(*pooled, CELLS, make_condition([3, 1], [0.5, -1.0]))
    padded = transport(*pooled, CELLS, make_condition([3, 1], [0.5, -1.0], n_members=2 * N_MEMBERS))
    np.testing.assert_allclose(padded, expected, rtol=1e-5, atol=1e-5)


def test_cells_are_moved_one_by_one(weights):
    condition = make_condition([3, 1])
    order = np.random.default_rng(0).permutation(len(CELLS))
    moved = transport(NETWORK, weights, CELLS, condition)
    np.testing.assert_allclose(transport(NETWORK, weights, CELLS[order], condition), moved[order], rtol=1e-5, atol=1e-5)


def test_units_of_the_features_are_those_of_the_cells(weights):
    # Cells in other units, and weights initialised on them, move by the same displacement in their units.
    factor, offset = 1e3, -2e3
    rescaled = factor * CELLS + offset
    units = _map.init_weights(NETWORK, 0, ENCODING, make_condition([0]), rescaled)
    units["network"] = weights["network"]
    condition = make_condition([3, 1])
    expected = factor * transport(NETWORK, weights, CELLS, condition) + offset
    np.testing.assert_allclose(transport(NETWORK, units, rescaled, condition), expected, atol=1e-4 * factor)


def test_units_are_right_far_from_the_origin():
    """Sums of many large numbers of single precision lose the digits that tell cells apart."""
    cells = (np.random.default_rng(0).normal(size=(20_000, N_FEATURES)) + 1e5).astype(np.float32)
    units = _map.init_weights(NETWORK, 0, ENCODING, make_condition([0]), cells)
    np.testing.assert_allclose(units["centre"], 1e5, atol=0.05)
    assert units["scale"] == pytest.approx(1.0, rel=0.02)


def test_init_weights_survives_constant_features():
    weights = _map.init_weights(NETWORK, 0, ENCODING, make_condition([0]), np.full((9, N_FEATURES), 2.0))
    assert weights["scale"] == 1.0
    np.testing.assert_array_equal(weights["centre"], 2.0)


@pytest.mark.parametrize("chunk", [1, 16, 49, 50, 1_000])
def test_transport_in_chunks_equals_one_pass(monkeypatch, weights, chunk):
    monkeypatch.setattr(_map, "CHUNK", chunk)
    condition = make_condition([3, 1])
    before = CELLS.copy()
    moved = _map.transport_cells(NETWORK, weights, CELLS, condition)
    assert isinstance(moved, np.ndarray)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, transport(NETWORK, weights, CELLS, condition), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(CELLS, before)


def test_transport_of_no_cells(weights):
    moved = _map.transport_cells(NETWORK, weights, CELLS[:0], make_condition([3, 1]))
    assert moved.shape == (0, N_FEATURES)


def test_numbers_of_cells_share_compilations(weights):
    condition = make_condition([3, 1])
    compiled = _map._transport._cache_size()
    for n in range(33, 65, 3):
        _map.transport_cells(NETWORK, weights, np.resize(CELLS, (n, N_FEATURES)), condition)
    assert _map._transport._cache_size() - compiled <= 4


def at_dose(dose, *others):
    """Perturbation 1 at a dose, and others at theirs, as the encoding of doses from 10 to 1000 has it."""
    trained = [Condition((("p1", 10.0),)), Condition((("p1", 1_000.0),)), Condition((("p2", 10.0), ("p3", 10.0)))]
    table = pd.DataFrame(ENCODING, [f"p{i}" for i in range(N_PERTURBATIONS)])
    encoding = make_encoding(make_design("drug", "control", "dose"), trained, table)
    members = tuple(sorted((("p1", dose), *others)))
    arrays = encode_conditions(encoding, [Condition(members)])
    condition = ConditionArrays(*(array[0] for array in arrays))
    return condition._replace(context=np.float32([1, 0]))


@pytest.mark.parametrize("others", [(), (("p2", 50.0),)])
def test_the_map_is_continuous_in_the_dose(pooled, others):
    """With any weights: a step of a hundredth of the dose moves no cell far, and smaller steps move it less."""
    doses = np.geomspace(1e-3, 1e4, 40)
    start, far, near = (
        np.array([transport(*pooled, CELLS, at_dose(dose * step, *others)) for dose in doses])
        for step in (1.0, 1.01, 1.001)
    )
    far, near = (np.abs(moved - start).max(axis=(1, 2)) for moved in (far, near))
    displaced = np.abs(start - CELLS).max()
    assert far.max() < 0.1 * displaced
    assert (near < 0.2 * far + 1e-4 * displaced).all()


def test_the_displacement_goes_to_zero_with_the_dose(pooled):
    displaced = [np.abs(transport(*pooled, CELLS, at_dose(dose)) - CELLS).max() for dose in (1e-2, 1e-4, 1e-6, 1e-12)]
    assert displaced[0] > displaced[1] > displaced[2] > displaced[3]
    assert displaced[3] < 1e-4 * displaced[0]


def test_a_drug_leaves_a_combination_with_its_dose(pooled):
    left = transport(*pooled, CELLS, at_dose(1e-7, ("p2", 50.0)))
    only = at_dose(50.0)._replace(members=np.int32([2, 0, 0, 0]))
    np.testing.assert_allclose(left, transport(*pooled, CELLS, only), atol=1e-3)
