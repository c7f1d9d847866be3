import mudata
import numpy as np
import pytest
from mudata import MuData
from scipy import stats

import scgap
from scgap.datasets import simulate_imaging, simulate_screen, true_transport


@pytest.fixture(scope="module")
def imaging():
    return simulate_imaging(2_000, n_drugs=4, n_combinations=3, seed=1)


def test_looks_like_imaging(imaging):
    assert isinstance(imaging, MuData)
    adata = imaging["protein"]
    assert adata.shape == (2_000, 48)
    assert adata.X.dtype == np.float32
    assert (adata.X > 0).all()
    assert np.isfinite(adata.X).all()
    control = adata[(adata.obs["perturbation"] == "control").to_numpy()].X
    assert np.median(stats.skew(control)) > 1
    assert set(adata.obs["subpopulation"]) == {"G1", "S", "G2/M"}
    assert sum("+" in name for name in adata.obs["perturbation"].cat.categories) == 3
    assert set(adata.obs["dose_value"]) == {0.0, 1_000.0}


def test_every_phase_has_its_markers(imaging):
    adata = imaging["protein"]
    control = adata[(adata.obs["perturbation"] == "control").to_numpy()]
    means = control.to_df().groupby(control.obs["subpopulation"], observed=True).mean()
    assert adata.var["marker_of"].value_counts().to_dict() == {"none": 24, "G1": 8, "S": 8, "G2/M": 8}
    for phase in ("G1", "S", "G2/M"):
        markers = (adata.var["marker_of"] == phase).to_numpy()
        others = means.drop(phase).loc[:, markers].max()
        assert (means.loc[phase, markers] > 2 * others).all()


def test_the_true_map_carries_every_cell_to_where_it_is(imaging):
    adata = imaging["protein"]
    spread = adata.uns["simulation"]["spread"]
    np.testing.assert_allclose(np.log(adata.X) / spread, adata.layers["state"], rtol=1e-4, atol=1e-4)
    for perturbation, source in adata.obs.groupby("perturbation", observed=True).groups.items():
        mask = adata.obs_names.isin(source)
        condition = {"perturbation": perturbation, "dose_value": 0.0 if perturbation == "control" else 1_000.0}
        state = true_transport(adata, condition, source=mask)
        np.testing.assert_allclose(np.exp(spread * state), adata.X[mask], rtol=1e-4)


def test_effects_are_those_of_the_screen(imaging):
    screen = simulate_screen(2_000, n_features=48, n_drugs=4, doses=[1_000.0], n_groups=1, n_combinations=3, seed=1)
    adata = imaging["protein"]
    moved, of_screen = (one.layers["state"] - one.layers["untreated"] for one in (adata, with_state(screen)))
    np.testing.assert_allclose(moved, of_screen, atol=1e-5)


def with_state(screen):
    screen.layers["state"] = screen.X
    return screen


def test_a_map_of_it_survives_the_file(tmp_path):
    mdata = simulate_imaging(600, n_features=6, n_drugs=2, n_combinations=1)
    scgap.tl.fit_transport(mdata, mod="protein", sep="+", n_iters=20, batch_size=32, hidden=(16,), progress=False)
    mdata.write_h5mu(tmp_path / "imaging.h5mu")
    again = mudata.read_h5mu(tmp_path / "imaging.h5mu")
    condition = {"perturbation": "drug_1+drug_2", "dose_value": 1_000.0}
    for one in (mdata, again):
        scgap.tl.predict(one, "drug_1+drug_2", mod="protein")
    np.testing.assert_array_equal(mdata["protein"].layers["scgap"], again["protein"].layers["scgap"])
    np.testing.assert_array_equal(
        true_transport(mdata["protein"], condition), true_transport(again["protein"], condition)
    )


def test_same_seed_same_cells():
    one, other, third = (
        simulate_imaging(300, n_drugs=2, n_combinations=0, seed=seed)["protein"].X for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, other)
    assert (one != third).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_features": 5}, "n_features=5. Pass a whole number from 6 on"),
        ({"n_drugs": 0}, "n_drugs=0"),
        ({"n_cells": 10}, "n_cells=10"),
        ({"doses": [0.0]}, "doses="),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        simulate_imaging(**arguments)
