import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

import scgap

TRAINED = {"split_col": "split", "group_col": "line", "n_components": 2, "n_cells": 64}


@pytest.fixture
def held_out():
    """Perturbations on a circle in two lines; ``new``, between A and B, has test cells alone."""
    rng = np.random.default_rng(0)
    labels = np.repeat([*"ABCDEF", "new", "control"], 160)
    angle = np.repeat([0.0, 1, 2, 3, 4, 5, 0.5, 0], 160) * np.pi / 3
    adata = AnnData(rng.normal(size=(len(labels), 3)).astype(np.float32) * 0.1)
    adata.X[:, :2] += 3 * np.c_[np.cos(angle), np.sin(angle)] * (labels != "control")[:, None]
    adata.obs = pd.DataFrame(
        {
            "perturbation": labels,
            "line": np.tile(["one", "two"], len(labels) // 2),
            "split": np.where(labels == "new", "test", "train"),
        },
        adata.obs_names,
    )
    adata.X[adata.obs["line"] == "two"] += 7.0
    with warnings.catch_warnings(action="ignore"):
        scgap.pp.encode_effects(adata, **TRAINED)
    return adata


def cells_of(adata, label="new", n=40):
    return adata.obs_names[adata.obs["perturbation"] == label][:n]


def vectors(adata):
    return pd.DataFrame(adata.uns["effect"]["values"], adata.uns["effect"]["perturbations"])


def test_it_is_placed_where_its_cells_are(held_out):
    before = held_out.uns["effect"]
    assert scgap.pp.place_effect(held_out, "new", cells_of(held_out)) is None
    after = vectors(held_out)
    assert after.index.tolist() == [*"ABCDEF", "new"]
    np.testing.assert_array_equal(after.iloc[:-1], before["values"])
    for name in ("params", "distances", "self_costs", "features"):
        assert np.array_equal(held_out.uns["effect"][name], before[name])
    distances = np.linalg.norm(after.loc[[*"ABCDEF"]] - after.loc["new"], axis=1)
    chord = 6 * np.sin(np.abs(np.array([0.5, -0.5, -1.5, -2.5, -3.5, -4.5])) * np.pi / 6)
    np.testing.assert_allclose(distances, chord, atol=0.25)


def test_cells_of_a_known_perturbation_come_back_to_it(held_out):
    scgap.pp.place_effect(held_out, "again", held_out.obs["perturbation"] == "C")
    after = vectors(held_out)
    assert np.linalg.norm(after.loc["again"] - after.loc["C"]) < 0.25  # of a circle of radius 3


def test_one_group_is_enough(held_out):
    of_line = held_out.obs_names[(held_out.obs["perturbation"] == "new") & (held_out.obs["line"] == "one")]
    scgap.pp.place_effect(held_out, "new", of_line[:20])
    after = vectors(held_out)
    assert np.linalg.norm(after.loc[["A", "B"]] - after.loc["new"], axis=1).max() < 2.0


def test_what_was_placed_is_replaced(held_out):
    scgap.pp.place_effect(held_out, "other", cells_of(held_out, "B"))
    scgap.pp.place_effect(held_out, "new", cells_of(held_out, "E"))
    scgap.pp.place_effect(held_out, "new", cells_of(held_out))
    assert vectors(held_out).index.tolist() == [*"ABCDEF", "other", "new"]
    replaced = vectors(held_out).loc["new"]
    assert np.linalg.norm(replaced - vectors(held_out).loc["E"]) > 4.0


def test_a_fit_predicts_what_was_placed(held_out):
    scgap.pp.place_effect(held_out, "new", cells_of(held_out))
    fit = {"encoding": "effect", "split_col": "split", "group_col": "line"}
    scgap.tl.fit_transport(held_out, **fit, n_iters=0, batch_size=64, hidden=(16,), progress=False)
    scgap.tl.predict(held_out, "new")
    assert np.isfinite(held_out.layers["scgap"]).all()


def test_cells_that_came_later(held_out):
    scgap.pp.place_effect(held_out, "new", cells_of(held_out))
    expected = vectors(held_out)
    is_new = (held_out.obs["perturbation"] == "new").to_numpy()
    later = anndata.concat([held_out[~is_new], held_out[is_new]])
    later.uns["effect"] = held_out.uns["effect"]
    scgap.pp.place_effect(later, "new", cells_of(later))
    np.testing.assert_allclose(vectors(later), expected, atol=1e-5)


def test_a_file_and_a_modality_between(held_out, tmp_path):
    mdata = MuData({"protein": held_out.copy()})
    scgap.pp.place_effect(held_out, "new", cells_of(held_out))
    mdata["protein"].write_h5ad(tmp_path / "x.h5ad")
    again = anndata.read_h5ad(tmp_path / "x.h5ad")
    scgap.pp.place_effect(again, "new", cells_of(held_out))
    scgap.pp.place_effect(mdata, "new", cells_of(held_out), mod="protein")
    for adata in (again, mdata["protein"]):
        pd.testing.assert_frame_equal(vectors(adata), vectors(held_out))


def test_a_copy_leaves_the_input_alone(held_out, same):
    before = held_out.copy()
    assert len(vectors(scgap.pp.place_effect(held_out, "new", cells_of(held_out), copy=True))) == 7
    assert same(held_out, before)


def test_what_cannot_be_placed_is_refused(held_out, refused):
    cells = cells_of(held_out)
    scgap.pp.encode_table(held_out, pd.DataFrame({"x": [1.0]}, ["A"]), key_added="table")
    for arguments, options, error, words in [
        (("new", cells), {"key": "efect"}, KeyError, ("'efect' is not in adata.uns", "Did you mean 'effect'?")),
        (("new", cells), {"key": "table"}, ValueError, ("method 'table'", "scgap.pp.encode_effects")),
        (("A", cells), {}, ValueError, ("'A' has a vector already", "hold the perturbation out")),
        (("control", cells), {}, ValueError, ("'control' is not the label of one perturbation",)),
        (("", cells), {}, ValueError, ("'' is not the label of one",)),
        (("new", cells[:12]), {}, ValueError, ("cells selects 12 cells", "10 of them in one group of 'one', 'two'")),
        (("new", []), {}, ValueError, ("cells selects no cells", "at least one cell.")),
        (("new", ["x"]), {}, KeyError, ("cells names 1 cells", "'x'")),
        (("new", [1, 2]), {}, TypeError, ("cells holds numbers",)),
    ]:
        with refused(held_out, error, *words):
            scgap.pp.place_effect(held_out, *arguments, **options)


@pytest.mark.parametrize("change", ["features", "cells", "split"])
def test_other_cells_than_those_it_was_made_of_are_refused(held_out, refused, change):
    if change == "features":
        held_out.X[(held_out.obs["perturbation"] == "A").to_numpy()] *= 1.5
    elif change == "cells":
        held_out = held_out[held_out.obs["perturbation"] != "A"].copy()
    else:
        held_out.obs["split"] = np.where(np.arange(held_out.n_obs) % 3 == 0, "test", "train")
    with refused(held_out, ValueError, "no longer those that adata.uns['effect'] was made of", "Call scgap.pp.enc"):
        scgap.pp.place_effect(held_out, "new", cells_of(held_out))


def test_a_view_is_refused(held_out, refused):
    view = held_out[:, :]
    with refused(view, ValueError, "view", "copy=True"):
        scgap.pp.place_effect(view, "new", cells_of(held_out))


def test_a_combination_has_no_place(held_out, refused):
    with pytest.warns(UserWarning, match="No vector for 'new'"):
        scgap.pp.encode_effects(held_out, sep="+", **TRAINED)
    with refused(held_out, ValueError, "'A+new' is not the label of one perturbation", "a combination"):
        scgap.pp.place_effect(held_out, "A+new", cells_of(held_out))
