import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from scgap import _train
from scgap._losses import COSTS, sinkhorn_divergence
from scgap._map import ConditionalMap, init_weights, transport
from scgap._populations import ConditionArrays, make_populations, padded_size

D = 4
SHIFTS = np.array([[2.0, -1.0, 0.5, 0.0], [0.0, 1.0, 1.0, -2.0]])  # of the two conditions
NETWORK = ConditionalMap(hidden=(16,), n_embedding=8)
SETUP = _train.Setup(NETWORK, COSTS["euclidean"], 32, 2, debias="independent", learn_encoding=True)
LOSS = _train.Loss(epsilon=0.3, gap_epsilon=0.1, gap_weight=1.0)


def make_data(n_cells=200, n_conditions=2, seed=0):
    """Controls from N(0, I), and as many cells of each condition, translated; the last ones beyond `n_conditions`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_conditions + 1).repeat(n_cells)
    shifts = np.concatenate([np.zeros((1, D)), np.resize(SHIFTS, (n_conditions, D))])
    cells = rng.normal(size=(len(labels), D)) + shifts[labels]
    return make_populations(cells, labels, [0] * n_conditions, range(1, n_conditions + 1))


def make_conditions(n_conditions=2):
    """One perturbation each, padded as for a fit."""
    n = padded_size(n_conditions)
    members = np.zeros((n, 4), np.int32)
    members[:, 0] = np.arange(n) % len(SHIFTS)
    mask = np.tile(np.float32([1, 0, 0, 0]), (n, 1))
    return ConditionArrays(members, np.zeros((n, 4), np.float32), mask, np.zeros((n, 0), np.float32))


@pytest.fixture(scope="module")
def weights():
    conditions = make_conditions()
    one = ConditionArrays(*(array[0] for array in conditions))
    cells = np.random.default_rng(0).normal(size=(100, D)).astype(np.float32)
    return init_weights(NETWORK, 0, np.eye(2, 3, dtype=np.float32), one, cells)


@pytest.fixture(scope="module")
def fit(weights):
    """`_train.fit` with everything given; what is passed replaces it. All share one compilation."""
    data = _train.TrainingData(make_data(), make_data(seed=1), make_conditions(), 2, np.arange(2))

    def run(
        *,
        n_iters=20,
        learning_rate=1e-2,
        loss=LOSS,
        seed=0,
        on_report=lambda progress: None,
        resume=lambda fresh: fresh,
        n_reports=5,
        **changed,
    ):
        of = {name: changed.pop(name) for name in _train.Setup._fields if name in changed}
        return _train.fit(
            weights,
            data._replace(**changed),
            SETUP._replace(**of),
            loss,
            n_iters=n_iters,
            learning_rate=learning_rate,
            key=jax.random.key(seed),
            on_report=on_report,
            resume=resume,
            n_reports=n_reports,
        )

    return run


@pytest.fixture
def advance(weights):
    """The compiled loop: state, number of steps -> state, mean fitting loss."""

    def run(state, n_steps):
        return _train._advance(
            state, jax.random.key(0), make_data(), make_conditions(), 2, jnp.zeros(2), LOSS, 1e-2, 20, n_steps,
            setup=SETUP,
        )  # fmt: skip

    return run


def make_state(weights):
    trainable = {name: weights[name] for name in ("network", "encoding")}
    return _train.State(weights, weights, _train.OPTIMIZER.init(trainable), jnp.int32(0))


def all_equal(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_compiled_loop_equals_a_python_loop(weights, advance):
    at_once, mean_loss = advance(make_state(weights), 6)
    state, losses = make_state(weights), []
    for _ in range(6):
        state, loss = advance(state, 1)
        losses.append(loss)
    assert state.iteration == at_once.iteration == 6
    assert all_equal(state, at_once)
    np.testing.assert_allclose(mean_loss, np.mean(losses), rtol=1e-5)
    assert len(set(map(float, losses))) == 6


def test_steps_change_what_is_trained_and_nothing_else(weights, advance):
    state, _ = advance(make_state(weights), 2)
    for name in ("network", "encoding"):
        assert not all_equal(state.weights[name], weights[name])
    for name in ("centre", "scale"):
        assert all_equal(state.weights[name], weights[name])
    # The average follows the weights at the rate AVERAGING.
    once, _ = advance(make_state(weights), 1)
    jax.tree.map(
        lambda average, first, start: np.testing.assert_allclose(
            average, start + _train.AVERAGING * (first - start), atol=1e-6
        ),
        once.average,
        once.weights,
        weights,
    )


def test_same_seed_same_weights(fit):
    (weights, history), again, other = fit(), fit(), fit(seed=1)
    assert all_equal(weights, again[0])
    assert history == again[1]
    assert not all_equal(weights, other[0])


def test_large_batches_are_split_into_ghost_batches(fit, monkeypatch):
    assert _train._ghost_batches(1_024) == (1, 1_024)
    assert _train._ghost_batches(1_025) == (2, 513)
    assert _train._ghost_batches(4_096) == (4, 1_024)
    sizes = set()

    def divergence(mapped, other, target, **options):
        sizes.update(map(len, (mapped, other, target)))
        return sinkhorn_divergence(mapped, other, target, **options)

    monkeypatch.setattr(_train, "GHOST_BATCH", 16)
    monkeypatch.setattr(_train, "sinkhorn_divergence", divergence)
    _, history = fit(batch_size=48, n_iters=400, learning_rate=5e-3)
    assert sizes == {16}
    assert history[-1].valid < 0.1 * history[0].valid


def test_rate_grows_with_the_root_of_the_batch_size(fit, weights):
    # Adam's first updates have the size of the rate, whatever the gradient.
    def first_change(batch_size):
        trained, _ = fit(batch_size=batch_size, n_iters=1)
        return np.abs(trained["network"]["displacement"]["bias"] - weights["network"]["displacement"]["bias"]).max()

    assert first_change(64) / first_change(16) == pytest.approx(2.0, rel=1e-3)


def test_self_term_on_the_same_batch_shrinks_predictions(fit):
    cells = jnp.asarray(np.random.default_rng(7).normal(size=(500, D)), jnp.float32)
    condition = ConditionArrays(*(array[0] for array in make_conditions()))
    loss = _train.Loss(epsilon=0.3, gap_epsilon=0.1, gap_weight=0.0)
    spread = {}
    for debias in ("independent", "same"):
        trained, _ = fit(debias=debias, n_iters=400, loss=loss)
        spread[debias] = transport(NETWORK, trained, cells, condition).std(0).mean()
    assert spread["independent"] == pytest.approx(1.0, abs=0.1)
    assert spread["same"] < spread["independent"] - 0.03


def test_no_iterations_return_the_initial_weights(fit, weights):
    trained, history = fit(n_iters=0)
    assert all_equal(trained, weights)
    assert history == []


def test_history_covers_the_run(fit):
    _, history = fit(n_iters=18)
    assert [report.iteration for report in history] == [4, 8, 12, 16, 18]
    assert np.isfinite(history).all()


def test_translations_are_learned(fit):
    weights, history = fit(n_iters=400)
    cells = jnp.asarray(np.random.default_rng(7).normal(size=(500, D)), jnp.float32)
    conditions = make_conditions()
    for i, shift in enumerate(SHIFTS):
        condition = ConditionArrays(*(array[i] for array in conditions))
        displacement = transport(NETWORK, weights, cells, condition) - cells
        np.testing.assert_allclose(displacement.mean(0), shift, atol=0.25)
        assert np.abs(displacement - shift).mean() < 0.35
    first, last = history[0], history[-1]
    assert last.valid < 0.05 * first.valid
    assert abs(last.fitting_loss) < 0.25 * first.fitting_loss
    assert abs(last.monge_gap) < 0.2  # a shift is an optimal map; its cost is 2.4


def huge_cells():
    train = make_data()
    return train._replace(cells=1e30 * train.cells)


@pytest.mark.parametrize("bad", [{"learning_rate": 1e9}, {"train": huge_cells()}], ids=["learning rate", "cells"])
def test_a_loss_that_is_not_finite_stops_and_says_so(fit, bad):
    with pytest.raises(
        FloatingPointError,
        match=r"At iteration \d+ the fitting loss is (nan|-?inf) .*epsilon=0\.3.*Lower learning_rate",
    ):
        fit(**bad)


def test_weights_that_are_not_finite_are_never_the_best(fit, weights):
    # The training loss can be finite where validation is not.
    valid = make_data(seed=1)
    valid = valid._replace(cells=valid.cells.at[0].set(jnp.nan))
    with pytest.raises(
        FloatingPointError,
        match=r"At iteration 4 the fitting loss is \d.* and the validation score nan \(last finite loss: none",
    ):
        fit(valid=valid)


def test_training_stops_early_and_keeps_the_best_weights(fit, monkeypatch):
    monkeypatch.setattr(_train, "PATIENCE", 3)
    monkeypatch.setattr(_train, "PATIENT_ITERS", 60)  # the updates of three reports
    seen = []
    # A rate at which the map is good after some iterations, and is thrown about by the next.
    trained, history = fit(n_iters=2_000, n_reports=100, learning_rate=0.3, on_report=seen.append)
    scores = [report.valid for report in history]
    best = int(np.argmin(scores))
    assert len(history) == best + 1 + 3 < 100
    assert best > 0
    assert all_equal(trained, seen[best].state.average)
    assert not all_equal(trained, seen[-1].state.average)


def test_short_trainings_do_not_stop_before_the_average_has_moved(fit, monkeypatch):
    monkeypatch.setattr(_train, "PATIENCE", 3)
    _, history = fit(n_iters=_train.PATIENT_ITERS, n_reports=100, learning_rate=0.3)
    assert history[-1].iteration == _train.PATIENT_ITERS
    assert _train._reports_since_best(history) > 3


def test_interrupt_keeps_the_best_weights_and_warns(fit):
    seen = []

    def interrupt(progress):
        seen.append(progress)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="Interrupted at iteration 8 of 20: the best weights so far are kept"):
        trained, history = fit(on_report=interrupt)
    assert history == seen[1].history
    assert all_equal(trained, seen[1].best)
    assert all_equal(trained, seen[int(np.argmin([report.valid for report in history]))].state.average)


def test_interrupt_before_the_first_report_is_not_swallowed(fit, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_train, "_advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit()


def test_resumed_run_equals_an_unbroken_one(fit):
    seen = []
    trained, history = fit(on_report=seen.append)
    resumed, resumed_history = fit(resume=lambda fresh: seen[2])
    assert resumed_history == history
    assert all_equal(resumed, trained)


def test_numbers_within_a_padded_size_compile_nothing_anew(fit, monkeypatch):
    monkeypatch.setattr(_train, "MOST_PROGRAMS", np.inf)  # for those of other tests count, too
    fit(n_iters=2)
    compiled = _train._advance._cache_size(), _train._target_terms._cache_size()
    train = make_data(n_cells=195)
    assert train.cells.shape == make_data().cells.shape
    fit(train=train, valid=make_data(n_cells=198), n_iters=2)
    fit(n_iters=35, learning_rate=1e-3, loss=_train.Loss(0.2, 0.2, 0.5), seed=3)
    fit(n_conditions=1, validated=np.arange(1), n_iters=2)
    assert compiled == (_train._advance._cache_size(), _train._target_terms._cache_size())


def test_only_the_given_number_of_conditions_is_trained_on(fit, weights):
    # The second condition's cells would stop the training.
    train = make_data()
    start, size = int(train.start[2]), int(train.size[2])
    train = train._replace(cells=train.cells.at[start : start + size].set(jnp.nan))
    fit(train=train, n_conditions=1, validated=np.arange(1))
    with pytest.raises(FloatingPointError):
        fit(train=train, n_conditions=2)


def test_the_score_is_the_energy_distance_of_all_moved_controls(weights):
    valid, conditions = make_data(n_cells=400), make_conditions()
    score, _ = _train._validate(weights, valid, conditions, jnp.arange(2), 2, LOSS.gap_epsilon, setup=SETUP)
    expected = []
    for i in range(2):
        condition = jax.tree.map(lambda array, i=i: array[i], conditions)
        moved = np.asarray(transport(NETWORK, weights, valid.cells[:400], condition), float)
        start = 400 * (i + 1)
        target = np.asarray(valid.cells, float)[start + np.arange(256) * 400 // 256]
        expected.append(2 * cdist(moved, target).mean() - pdist(moved).mean() - pdist(target).mean())
    np.testing.assert_allclose(score, np.mean(expected), rtol=1e-3)


def test_mean_cost_equals_scipy():
    train = make_data(n_cells=50)
    expected = [cdist(cells, cells).mean() for cells in (train.cells[50:100], train.cells[100:150])]
    mean = _train.mean_cost(train, 2, cost=COSTS["euclidean"])
    np.testing.assert_allclose(mean, np.mean(expected), rtol=1e-4)
