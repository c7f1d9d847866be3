"""Same seed, same numbers; and how far the order of cells and the number of threads move them."""

import doctest
import operator
import os
import random
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scgap

CONDITION = {"perturbation": "drug_1", "dose_value": 100.0, "cell_line": "line_1"}
ROUNDING = 1e-5  # of the largest value: sums in another order, where any are
THREADS = 1e-4  # of the largest weight


# --- the seed -------------------------------------------------------------------------------------------------------


def test_same_seed_same_file(screen, settings, tmp_path):
    for name in ("one", "two"):
        scgap.tl.fit_transport(screen, **settings, n_maps=2, condition_folds=2, seed=3)
        scgap.write_transport(screen, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


PARTS = {"pp": scgap.pp, "tl": scgap.tl, "pl": scgap.pl, "datasets": scgap.datasets}
PUBLIC = [f"{part}.{name}" for part, module in PARTS.items() for name in module.__all__]


# mudata draws the names of passing columns from `random` whenever a MuData is made.
MAKE_MUDATA = {"datasets.four_i", "datasets.simulate_imaging"}


@pytest.mark.slow  # every example of the documentation
@pytest.mark.parametrize("name", [*PUBLIC, "read_transport", "write_transport"])
@pytest.mark.filterwarnings("ignore")
def test_global_random_numbers_are_left_alone(name):
    """By the examples in their documentation; those of data sets are not run, for they are downloads."""
    function = operator.attrgetter(name)(scgap)
    (example,) = (test for test in doctest.DocTestFinder(recurse=False).find(function, name) if test.examples)
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 (what is tested)
    doctest.DocTestRunner(verbose=False).run(example, out=[].append)
    after = random.getstate(), np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0] or name in MAKE_MUDATA
    assert all(np.array_equal(one, other) for one, other in zip(before[1], after[1], strict=True))


# --- the order of cells ---------------------------------------------------------------------------------------------


@pytest.fixture
def shuffled(fitted):
    """The same cells in another order, with the same map."""
    return fitted[np.random.default_rng(0).permutation(fitted.n_obs)].copy()


def test_predictions_follow_their_cells(fitted, shuffled):
    for adata in (fitted, shuffled):
        scgap.tl.predict(adata, CONDITION)
    np.testing.assert_allclose(fitted[shuffled.obs_names].layers["scgap"], shuffled.layers["scgap"], rtol=1e-6)


def shuffled_rows(adata):
    """The object as it is, and with its rows in another order."""
    return adata.copy(), adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()


@pytest.mark.parametrize("use_rep", [None, "X_pca"])
@pytest.mark.parametrize("split_col", [None, "split"])
def test_the_order_of_cells_does_not_move_a_fit(screen, settings, use_rep, split_col):
    if use_rep:
        sc.pp.pca(screen, n_comps=4)
    weights = []
    for adata in shuffled_rows(screen):
        scgap.tl.fit_transport(adata, **settings | {"split_col": split_col, "use_rep": use_rep, "n_iters": 20})
        weights.append(all_weights(adata))
    np.testing.assert_allclose(*weights, rtol=0, atol=ROUNDING * np.abs(weights[0]).max())


def test_the_order_of_cells_does_not_move_scores(fitted):
    tables = [scgap.tl.evaluate(adata, seed=2) for adata in shuffled_rows(fitted)]
    pd.testing.assert_frame_equal(*tables, rtol=ROUNDING)


def test_the_order_of_cells_does_not_move_scores_of_predictions(fitted):
    tables = []
    for observed, predicted in zip(shuffled_rows(fitted), shuffled_rows(scgap.tl.screen(fitted)), strict=True):
        design = {"dose_col": "dose_value", "group_col": "cell_line", "split_col": "split"}
        tables.append(scgap.tl.evaluate_predictions(observed, predicted, **design, metrics=["energy_distance"]))
    pd.testing.assert_frame_equal(*tables, rtol=ROUNDING)


def test_the_order_of_cells_does_not_move_what_is_drawn_of_them(fitted):
    mixture = {"condition": "drug_1", "on_ambiguous": "marginal"}
    sources, moved = [], []
    for adata in shuffled_rows(fitted):
        sources.append(set(scgap.tl.screen(adata, [CONDITION], n_cells=20).obs["source_cell"]))
        scgap.tl.predict(adata, **mixture)
        moved.append(adata[fitted.obs_names].layers["scgap"])
    assert sources[0] == sources[1]
    np.testing.assert_allclose(*moved, rtol=ROUNDING)


def all_weights(adata):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(adata.uns["scgap"]["weights"])])


# --- threads --------------------------------------------------------------------------------------------------------

THREADED = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
import numpy as np, jax, scgap
adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1, n_features=20)
scgap.tl.fit_transport(adata, n_iters=40, batch_size=128, hidden=(32,), condition_folds=0, progress=False)
np.save(sys.argv[2], np.concatenate([w.ravel() for w in jax.tree.leaves(adata.uns["scgap"]["weights"])]))
"""


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2, reason="needs two cores")
def test_the_number_of_threads_hardly_moves_weights(tmp_path):
    weights = []
    for n in ("1", "2"):
        path = tmp_path / f"{n}.npy"
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), n)
        subprocess.run([sys.executable, "-W", "ignore", "-c", THREADED, n, path], env=os.environ | threads, check=True)
        weights.append(np.load(path))
    np.testing.assert_allclose(*weights, rtol=0, atol=THREADS * np.abs(weights[0]).max())
