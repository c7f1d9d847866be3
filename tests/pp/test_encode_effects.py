import json

import anndata
import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData
from scipy.spatial.distance import pdist, squareform

import scgap

DESIGN = {"dose_col": "dose_value", "group_col": "cell_line"}
TRAINED = {**DESIGN, "split_col": "split", "n_components": 2, "n_cells": 32}


@pytest.fixture
def shifts():
    """Six perturbations that shift a cloud along a line, by 0, 1, ... 5."""
    rng = np.random.default_rng(0)
    labels = np.repeat([*"ABCDEF", "control"], 60)
    adata = AnnData(rng.normal(size=(len(labels), 4)).astype(np.float32) * 0.05)
    adata.X[:, 0] += np.repeat([0, 1, 2, 3, 4, 5, 0], 60)
    adata.obs["perturbation"] = labels
    return adata


def encode(adata, **options):
    assert scgap.pp.encode_effects(adata, **options) is None
    return adata.uns[options.get("key_added", "effect")]


def test_sets_the_fields_that_are_documented(screen, same):
    before = screen.copy()
    stored = encode(screen, **TRAINED)
    assert set(stored) == {"method", "perturbations", "features", "values", "params", "distances", "self_costs"}
    assert stored["method"] == "effect"
    assert stored["perturbations"].tolist() == ["drug_1", "drug_2", "drug_3"]
    assert stored["features"].tolist() == ["effect_1", "effect_2"]
    assert stored["values"].dtype == stored["distances"].dtype == np.float32
    assert len(stored["self_costs"]) == 3 * 2  # in two cell lines
    params = json.loads(stored["params"])
    assert params["epsilon"] > 0
    assert params["stress"] >= 0
    del screen.uns["effect"]
    assert same(screen, before)


def test_shifts_are_on_a_line(shifts):
    stored = encode(shifts, n_components=2)
    wanted = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    np.testing.assert_allclose(stored["distances"], wanted, atol=0.15)
    np.testing.assert_allclose(squareform(pdist(stored["values"])), wanted, atol=0.2)  # 0.13 to 0.15 by versions
    assert json.loads(stored["params"])["stress"] < 1e-3


def test_there_are_no_more_components_than_the_distances_can_fill(shifts):
    assert encode(shifts)["values"].shape == (6, 5)


def test_the_seed_decides(screen, same):
    one, again, other = (scgap.pp.encode_effects(screen, **TRAINED, seed=s, copy=True).uns["effect"] for s in (1, 1, 2))
    assert same(one, again)
    assert (one["distances"] != other["distances"]).any()


def test_test_cells_are_not_touched(screen, settings, same):
    before = screen.copy()
    test = (screen.obs["split"] == "test").to_numpy()
    rng = np.random.default_rng(0)
    screen.X[test] = rng.permutation(screen.X[test]) + 50.0
    shuffled = screen.obs["perturbation"].astype(object).to_numpy(copy=True)
    perturbed = test & (shuffled != "control")
    shuffled[perturbed] = rng.permutation(shuffled[perturbed])
    screen.obs["perturbation"] = shuffled
    for adata in (before, screen):
        encode(adata, **TRAINED)
        scgap.tl.fit_transport(adata, encoding="effect", **settings)
    assert same(screen.uns["effect"], before.uns["effect"])
    for name in ("encoding", "weights", "representation", "params", "history"):
        assert same(screen.uns["scgap"][name], before.uns["scgap"][name])


def test_training_cells_are(screen):
    before = encode(screen, **TRAINED)["distances"]
    screen.X[((screen.obs["split"] == "train") & (screen.obs["perturbation"] == "drug_1")).to_numpy()] += 5.0
    assert (encode(screen, **TRAINED)["distances"][0, 1:] > before[0, 1:] + 1.0).all()


def test_a_perturbation_without_training_cells_has_no_vector(screen, settings, refused):
    scgap.pp.split(screen, holdout={"perturbation": ["drug_2"]}, **DESIGN)
    with pytest.warns(UserWarning, match=r"No vector for 'drug_2'.*10 training cells.*scgap\.pp\.place_effect"):
        stored = encode(screen, **TRAINED)
    assert stored["perturbations"].tolist() == ["drug_1", "drug_3"]
    scgap.tl.fit_transport(screen, encoding="effect", **{**settings, "n_iters": 0})
    with refused(screen, KeyError, "No vector for 'drug_2'", "rows of the encoding"):
        scgap.tl.predict(screen, {"perturbation": "drug_2", "dose_value": 100.0})


def test_combinations_describe_nobody(pairs):
    columns = {"target_col": "genes", "reference_key": "none", "group_col": "line", "sep": "+"}
    stored = encode(pairs, **columns, n_components=2, n_cells=32)
    assert stored["perturbations"].tolist() == ["A", "B", "C"]
    combinations = pairs.obs["genes"].isin(["A+B", "A+C", "B+C"]).to_numpy()
    pairs.X[combinations] += 10.0
    np.testing.assert_array_equal(encode(pairs, **columns, n_components=2, n_cells=32)["values"], stored["values"])
    pairs.obs.loc[pairs.obs["genes"] == "B", "genes"] = "A+B"
    with pytest.warns(UserWarning, match=r"No vector for 'B'.*got them alone"):
        encode(pairs, **columns)


def test_doses_of_zero_are_controls(screen):
    expected = encode(screen, **TRAINED)["distances"]
    line = screen[screen.obs["perturbation"] == "control"][:200].copy()
    line.obs["perturbation"] = "drug_1"
    more = anndata.concat([screen, line], index_unique="-")
    np.testing.assert_array_equal(encode(more, **TRAINED)["distances"], expected)


def test_any_representation_is_used(screen):
    expected = encode(screen, **TRAINED)["distances"]
    screen.layers["state"], screen.obsm["X_state"] = screen.X.copy(), screen.X.copy()
    screen.X[:] = 0.0
    np.testing.assert_array_equal(encode(screen, layer="state", **TRAINED)["distances"], expected)
    np.testing.assert_array_equal(encode(screen, use_rep="X_state", **TRAINED)["distances"], expected)
    mdata = MuData({"protein": screen})
    scgap.pp.encode_effects(mdata, mod="protein", layer="state", key_added="there", **TRAINED)
    np.testing.assert_array_equal(mdata["protein"].uns["there"]["distances"], expected)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_files(screen, settings, tmp_path, suffix, same):
    encode(screen, **TRAINED)
    path = tmp_path / f"screen.{suffix}"
    getattr(screen, f"write_{suffix}")(path)
    again = getattr(anndata, f"read_{suffix}")(path)
    for name in ("values", "distances", "self_costs"):
        np.testing.assert_array_equal(again.uns["effect"][name], screen.uns["effect"][name])
    for adata in (screen, again):
        scgap.tl.fit_transport(adata, encoding="effect", **{**settings, "n_iters": 0})
    assert same(again.uns["scgap"]["weights"], screen.uns["scgap"]["weights"])


def test_a_copy_leaves_the_input_alone(screen, same):
    before = screen.copy()
    assert "effect" in scgap.pp.encode_effects(screen, copy=True, **TRAINED).uns
    assert same(screen, before)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_components": 0}, ValueError, ("n_components=0", "from 1")),
        ({"n_cells": 4}, ValueError, ("n_cells=4", "from 5")),
        ({"seed": -1}, ValueError, ("seed=-1",)),
        ({"key_added": "a/b"}, ValueError, ("'a/b' cannot be a key",)),
        ({"mod": "rna"}, ValueError, ("mod='rna'",)),
        ({"target_col": "drug"}, KeyError, ("'drug' is not in adata.obs",)),
        ({"reference_key": "contrl", "dose_col": None}, ValueError, ("'contrl'", "Did you mean 'control'?")),
        ({"split_col": "cell_line"}, ValueError, ("'cell_line' holds 'line_1', 'line_2'", "scgap.pp.split")),
        ({"layer": "counts"}, KeyError, ("'counts' is not in adata.layers",)),
        ({"use_rep": "X_pca"}, KeyError, ("'X_pca' is not in adata.obsm", "Compute it first")),
    ],
)
def test_what_cannot_be_encoded_is_refused(screen, refused, options, error, words):
    with refused(screen, error, *words):
        scgap.pp.encode_effects(screen, **{**TRAINED, **options})


def test_one_perturbation_is_refused(screen, refused):
    screen.obs.loc[screen.obs["perturbation"] != "drug_1", "split"] = "test"
    screen.obs["split"] = screen.obs["split"].astype(str)
    with refused(screen, ValueError, "Only 'drug_1' has 10 training cells", "'drug_2', 'drug_3' have fewer"):
        scgap.pp.encode_effects(screen, **TRAINED)


def test_perturbations_without_a_common_group_are_refused(screen, refused):
    line, drug = screen.obs["cell_line"], screen.obs["perturbation"]
    screen = screen[~((line == "line_1") & (drug == "drug_1")) & ~((line == "line_2") & (drug == "drug_2"))].copy()
    with refused(screen, ValueError, "no distance between 'drug_1 and drug_2'", "no common group", "Leave group_col"):
        scgap.pp.encode_effects(screen, **TRAINED)


def test_cells_that_are_all_the_same_are_refused(screen, refused):
    screen.X[:] = 1.0
    with refused(screen, ValueError, "are the same", "Pass the layer"):
        scgap.pp.encode_effects(screen, **TRAINED)


def test_a_view_is_refused(screen, refused):
    view = screen[:1_400]
    with refused(view, ValueError, "view", "copy=True"):
        scgap.pp.encode_effects(view, **TRAINED)
    assert not scgap.pp.encode_effects(view, **TRAINED, copy=True).is_view
