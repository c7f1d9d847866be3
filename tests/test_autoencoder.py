from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from scgap import _autoencoder
from scgap._autoencoder import (
    add_norms,
    apply_layers,
    decode,
    encode,
    epoch_batches,
    fit_autoencoder,
    fold,
    init_weights,
    linear_layers,
    unexplained,
)

D, K = 12, 3


def make_cells(n, *, curved=0.0, seed=0):
    """Cells on a surface of K dimensions, bent where ``curved``, and a little noise; in units of their own."""
    truth, rng = np.random.default_rng(7), np.random.default_rng(seed)
    axes, others = truth.normal(size=(K, D)), truth.normal(size=(K, D))
    hidden = rng.normal(size=(n, K)) * [3.0, 2.0, 1.0]
    cells = hidden @ axes + curved * (np.abs(hidden) @ others) + 0.1 * rng.normal(size=(n, D))
    return (5.0 + 2.0 * cells).astype(np.float32)


TRAIN, VALID = make_cells(300), make_cells(100, seed=1)
BENT = make_cells(600, curved=1.0), make_cells(200, curved=1.0, seed=1)


def fit(train=TRAIN, valid=VALID, **options):
    settings = {
        "n_latent": K,
        "hidden": (16, 8),
        "ghost_batch_norm": False,
        "batch_size": 64,
        "n_epochs": 5,
        "learning_rate": 1e-3,
        "seed": 0,
        "on_report": lambda report: None,
    }
    return fit_autoencoder(train, valid, **(settings | options))


def all_equal(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def gelu(x):
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def by_hand(layers, rows):
    rows = rows.astype(np.float64)
    for i in range(len(layers)):
        rows = (gelu(rows) if i else rows) @ layers[str(i)]["kernel"].astype(float) + layers[str(i)]["bias"]
    return rows


def unexplained_by_components(train, cells, n):
    centre = train.mean(0)
    axes = np.linalg.svd(train - centre, full_matrices=False)[2][:n]
    left = (cells - centre) - (cells - centre) @ axes.T @ axes
    return np.square(left).sum() / np.square(cells - cells.mean(0)).sum()


@pytest.fixture(scope="module")
def layers():
    """Twelve layers, more than there are digits, with biases."""
    rng = np.random.default_rng(0)
    sizes = [5, *range(3, 14), 4]
    return {
        str(i): {"kernel": rng.normal(size=(a, b)).astype(np.float32), "bias": rng.normal(size=b).astype(np.float32)}
        for i, (a, b) in enumerate(pairwise(sizes))
    }


@pytest.mark.parametrize("n", [0, 1, 7, 23])
def test_layers_equal_a_forward_pass_by_hand(layers, n, monkeypatch):
    monkeypatch.setattr(_autoencoder, "CHUNK", 8)
    rows = np.random.default_rng(1).normal(size=(n, 5)).astype(np.float32)
    rows[rows < 0] = 0.0
    result = apply_layers(layers, rows)
    assert result.shape == (n, 4)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, by_hand(layers, rows), rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(apply_layers(layers, sparse.csr_matrix(rows)), result)
    # zarr and h5ad return keys in the order of their names.
    np.testing.assert_array_equal(apply_layers({name: layers[name] for name in sorted(layers)}, rows), result)


@pytest.mark.parametrize("hidden", [(8,), (8, 9), (20, 8, 11)])
def test_pairs_of_hidden_units_carry_a_linear_map(hidden):
    rng = np.random.default_rng(0)
    first, last = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (4, 5)))
    rows = rng.normal(size=(30, 6)).astype(np.float32)
    np.testing.assert_allclose(
        apply_layers(linear_layers(first, last, hidden, rng), rows), rows @ first @ last, atol=1e-5
    )


@pytest.mark.parametrize("ghost_batch_norm", [False, True])
def test_training_starts_at_the_principal_components(ghost_batch_norm):
    network, history = fit(n_epochs=0, ghost_batch_norm=ghost_batch_norm)
    assert len(history) == 1
    expected = unexplained_by_components(TRAIN, VALID, K)
    assert unexplained(network._asdict(), VALID) == pytest.approx(expected, rel=1e-3)
    assert history[0].loss == pytest.approx(unexplained_by_components(TRAIN, TRAIN, K), rel=1e-3)
    # Distances between points are those between projections of the cells.
    centre = TRAIN.mean(0)
    axes = np.linalg.svd(TRAIN - centre, full_matrices=False)[2][:K]
    points, coordinates = encode(network._asdict(), VALID), (VALID - centre) @ axes.T
    np.testing.assert_allclose(np.abs(points), np.abs(coordinates), atol=2e-2)


def test_of_linear_data_it_explains_what_components_explain():
    network, _ = fit(n_epochs=60)
    test = make_cells(500, seed=2)
    explained = unexplained(network._asdict(), test)
    assert 0 < explained < 0.01
    assert explained == pytest.approx(unexplained_by_components(TRAIN, test, K), rel=0.1)


@pytest.mark.parametrize("ghost_batch_norm", [False, True])
def test_of_bent_data_it_explains_more(ghost_batch_norm):
    network, history = fit(*BENT, n_epochs=60, learning_rate=3e-3, hidden=(32, 32), ghost_batch_norm=ghost_batch_norm)
    test = make_cells(500, curved=1.0, seed=2)
    assert unexplained(network._asdict(), test) < 0.5 * unexplained_by_components(BENT[0], test, K)
    assert min(report.valid for report in history) < 0.5 * history[0].valid


def test_unexplained_is_a_share_of_the_variance(monkeypatch):
    monkeypatch.setattr(_autoencoder, "CHUNK", 32)
    stored = fit(n_epochs=1)[0]._asdict()
    left = VALID - decode(stored, encode(stored, VALID))
    expected = np.square(left).sum() / np.square(VALID - VALID.mean(0)).sum()
    assert unexplained(stored, VALID) == pytest.approx(expected, rel=1e-4)
    assert unexplained(stored, sparse.csr_matrix(VALID)) == pytest.approx(expected, rel=1e-4)
    assert np.isnan(unexplained(stored, VALID[:1]))
    far = (VALID + 1e5).astype(np.float32)
    left = far - decode(stored, encode(stored, far)).astype(float)
    expected = np.square(left).sum() / np.square(far.astype(float) - far.mean(0, dtype=float)).sum()
    assert unexplained(stored, far) == pytest.approx(expected, rel=1e-3)


def test_same_seed_same_weights():
    (network, history), again, other = fit(), fit(), fit(seed=1)
    assert all_equal(network, again[0])
    assert history == again[1]
    assert not all_equal(network, other[0])


@pytest.mark.parametrize("ghost_batch_norm", [False, True])
@pytest.mark.parametrize(("n", "batch_size"), [(1, 5), (10, 3), (130, 130), (500, 128), (1_001, 256), (64, 1)])
def test_an_epoch_sees_every_cell_once(n, batch_size, ghost_batch_norm):
    generator = np.random.default_rng(0)
    batches = epoch_batches(n, batch_size, ghost_batch_norm, generator)
    assert sorted(batches[batches >= 0]) == list(range(n))
    assert batches.shape[0] == -(-n // batch_size)
    assert ((batches < 0).sum(-1) <= 1).all()
    present = (batches >= 0).sum((1, 2))
    assert present.max() <= batch_size
    assert (batches.shape[1] > 1) == (ghost_batch_norm and min(batch_size, n) > 96)
    if n > 1:
        assert (epoch_batches(n, batch_size, ghost_batch_norm, generator) != batches).any()


def test_every_cell_trains():
    # One outlying cell in a hundred moves the weights, whichever it is; none is dropped at the end of an epoch.
    expected, _ = fit(TRAIN[:100], n_epochs=1)
    for i in (0, 50, 99):
        cells = TRAIN[:100].copy()
        cells[i] += 1.0
        assert not all_equal(fit(cells, n_epochs=1)[0], expected)


def test_an_epoch_is_one_update_for_each_batch():
    # The padding of a batch has no say: each batch is as good as its cells alone.
    weights, _ = init_weights(jnp.asarray(TRAIN - TRAIN.mean(0)), K, (8,), np.random.default_rng(0))
    norms = {"encoder": {}, "decoder": {}}
    state = _autoencoder.State(weights, norms, _autoencoder.OPTIMIZER.init(weights), jnp.int32(0))
    batches = epoch_batches(10, 4, False, np.random.default_rng(0))
    cells = jnp.asarray(TRAIN - TRAIN.mean(0))
    at_once, loss = _autoencoder._advance(state, cells, batches, 1e-2, 3)
    losses = []
    for batch in batches:
        alone = batch[batch >= 0].reshape(1, 1, -1)
        state, one = _autoencoder._advance(state, cells, alone, 1e-2, 3)
        losses.append(one)
    assert int(at_once.update) == int(state.update) == len(batches)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), at_once.weights, state.weights)


def test_norms_are_folded_into_the_layers():
    cells = jnp.asarray((TRAIN - TRAIN.mean(0)) / TRAIN.std())
    weights, _ = init_weights(cells, K, (16, 8), np.random.default_rng(0))
    weights, norms = add_norms(weights, cells)
    rng = np.random.default_rng(1)
    # Any statistics, as after training.
    norms = jax.tree.map(lambda values: values + jnp.asarray(rng.uniform(0.1, 1.0, values.shape), jnp.float32), norms)
    expected = np.asarray(cells)
    for part in ("encoder", "decoder"):
        for i in range(3):
            layer = weights[part][str(i)]
            expected = expected @ layer["kernel"] + layer["bias"]
            if i < 2:
                norm = norms[part][str(i)]
                spread = np.sqrt(norm["variance"] + _autoencoder.VARIANCE_FLOOR)
                expected = gelu((expected - norm["mean"]) / spread * layer["gain"] + layer["shift"])
    plain = fold(weights, norms)
    assert {name for part in plain.values() for layer in part.values() for name in layer} == {"kernel", "bias"}
    np.testing.assert_allclose(decode(plain, encode(plain, np.asarray(cells))), expected, atol=1e-4)


def test_ghost_batches_are_normalised_each_by_itself():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 9, 4)).astype(np.float32) * [[[1.0]], [[5.0]]] + [[[0.0]], [[3.0]]]
    present = np.ones((2, 9), bool)
    present[1, -1] = False
    rows[1, -1] = 1e6  # padding has no say
    layer = {"kernel": np.eye(4), "bias": np.zeros(4), "gain": np.ones(4), "shift": np.zeros(4)}
    last = {"kernel": np.eye(4), "bias": np.zeros(4)}
    result, measured = _autoencoder._forward({"0": layer, "1": last}, jnp.asarray(rows), jnp.asarray(present))
    means, variances = [], []
    for ghost, n in ((0, 9), (1, 8)):
        some = rows[ghost, :n]
        means.append(some.mean(0))
        variances.append(some.var(0))
        expected = gelu((some - some.mean(0)) / np.sqrt(some.var(0) + _autoencoder.VARIANCE_FLOOR))
        np.testing.assert_allclose(result[ghost, :n], expected, atol=1e-4)
    np.testing.assert_allclose(measured["0"]["mean"], np.mean(means, axis=0), atol=1e-4)
    np.testing.assert_allclose(measured["0"]["variance"], np.mean(variances, axis=0), rtol=1e-4)


def test_training_with_norms_follows_their_statistics():
    network, history = fit(*BENT, ghost_batch_norm=True, batch_size=256, n_epochs=30, learning_rate=3e-3)
    # With statistics that had stayed behind, held-out cells would be decoded far worse than batches in training.
    assert history[-1].valid < 2.0 * history[-1].loss
    assert {name for part in network for layer in part.values() for name in layer} == {"kernel", "bias"}


def test_training_stops_early_and_keeps_the_best_weights(monkeypatch):
    monkeypatch.setattr(_autoencoder, "PATIENCE", 4)
    monkeypatch.setattr(_autoencoder, "PATIENT_UPDATES", 0)
    seen = []
    # Few cells and a high rate: the network learns them by heart.
    few = BENT[0][:40]
    network, history = fit(
        few, BENT[1], n_epochs=400, learning_rate=1e-2, hidden=(64, 64), on_report=seen.append, batch_size=20
    )
    losses = [report.valid for report in history]
    best = int(np.argmin(losses))
    assert [report.epoch for report in history] == list(range(len(history)))
    assert best > 0
    assert len(history) == best + 1 + 4 < 401
    assert history[1:] == seen
    unit = np.square(few - few.mean(0)).mean()
    kept = np.square(decode(network._asdict(), encode(network._asdict(), BENT[1])) - BENT[1]).mean() / unit
    assert kept == pytest.approx(losses[best], rel=1e-3)
    assert kept < losses[-1]


def test_training_is_patient_for_a_number_of_updates(monkeypatch):
    monkeypatch.setattr(_autoencoder, "PATIENCE", 1)
    monkeypatch.setattr(_autoencoder, "PATIENT_UPDATES", 20)
    _, history = fit(TRAIN[:20], learning_rate=0.3, batch_size=10, n_epochs=100)
    assert len(history) - 1 - int(np.argmin([report.valid for report in history])) == 10  # of two updates


def test_centre_and_unit_of_the_features_do_not_matter():
    # And are those of training cells: others could not be brought back otherwise.
    cells = 100 * VALID - 70
    scaled, plain = fit(100 * TRAIN - 70, cells)[0]._asdict(), fit()[0]._asdict()
    np.testing.assert_allclose(encode(scaled, cells) / 100, encode(plain, VALID), atol=0.05)
    np.testing.assert_allclose(decode(scaled, encode(scaled, cells)) / 100, VALID - 0.7, atol=1.5)


def test_constant_features_and_few_dimensions_are_fine():
    cells = np.concatenate([TRAIN[:, :1], np.full((300, 3), 4.0, np.float32), TRAIN[:, :1] * 2], axis=1)
    network, history = fit(cells, cells[:50], n_epochs=20)
    assert np.isfinite(history).all()
    decoded = decode(network._asdict(), encode(network._asdict(), cells))
    np.testing.assert_allclose(decoded[:, 1:4], 4.0, atol=0.1)
    assert unexplained(network._asdict(), cells) < 1e-3


def test_a_loss_that_is_not_finite_stops_and_says_so():
    with pytest.raises(FloatingPointError, match=r"At epoch \d+ the loss is .*last finite loss.*Lower learning_rate"):
        fit(learning_rate=1e30)


def test_interrupt_keeps_the_best_weights_and_warns():
    def interrupt(report):
        if report.epoch == 3:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="Interrupted at epoch 3 of 5: the best weights so far are kept"):
        network, history = fit(on_report=interrupt)
    assert [report.epoch for report in history] == [0, 1, 2, 3]
    assert np.isfinite(encode(network._asdict(), VALID)).all()
