"""A map that is trained for longer is judged: against the truth, and against what it has to beat."""

import numpy as np
import pytest

import scgap

COLUMNS = {"dose_col": "dose_value", "group_col": "cell_line"}
CONDITION = {"perturbation": "drug_2", "dose_value": 1000.0}


@pytest.fixture(scope="module")
def trained():
    """A map trained for longer, to be judged."""
    screen = scgap.datasets.simulate_screen(6000, n_drugs=3, doses=[100.0, 1000.0], n_groups=2, n_features=20)
    scgap.pp.split(screen, **COLUMNS)
    return scgap.tl.fit_transport(
        screen, **COLUMNS, split_col="split", n_iters=500, batch_size=128, progress=False, copy=True
    )


def test_training_helps(trained):
    history = trained.uns["scgap"]["history"]
    assert history["valid"].min() < 0.8 * history["valid"].iloc[0]
    assert history["fitting_loss"].iloc[-5:].mean() < 0.5 * history["fitting_loss"].iloc[:5].mean()


def test_map_is_ahead_of_the_baselines_on_held_out_cells(trained):
    table = scgap.tl.evaluate(trained.copy(), metrics=["energy_distance", "std_error", "skewness_error"])
    value = table.groupby(["metric", "method"])["value"].mean().unstack()
    # Against the mean shift, which is ahead of the identity without having learned any shape.
    assert value["ceiling"]["energy_distance"] < value["scgap"]["energy_distance"]
    for metric, most in (("energy_distance", 0.7), ("std_error", 0.85), ("skewness_error", 0.95)):
        assert value["scgap"][metric] < most * value["mean_shift"][metric]


def test_prediction_is_near_the_truth(trained):
    adata = scgap.tl.predict(trained, CONDITION, copy=True)
    moved = adata.obs["scgap_transported"].to_numpy()
    assert (moved == (adata.obs["perturbation"] == "control")).all()
    truth = scgap.datasets.true_transport(adata, CONDITION)
    error, before = (np.linalg.norm(x - truth, axis=1).mean() for x in (adata.layers["scgap"][moved], adata.X[moved]))
    assert error < 0.6 * before
    np.testing.assert_array_equal(adata.layers["scgap"][~moved], adata.X[~moved])
