import json

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import scgap

N = 400


@pytest.fixture
def cells():
    """Controls, a drug that half of the cells escape, one that none escapes, and one without effect."""
    generator = np.random.default_rng(0)
    labels = np.repeat(["control", "half", "full", "none"], N)
    values = generator.gamma(2.0, size=(4 * N, 12)).astype(np.float32)
    answers = (labels == "full") | ((labels == "half") & (np.arange(4 * N) % 2 == 0))
    values[answers, :6] += 4.0
    obs = pd.DataFrame({"perturbation": labels, "answers": answers}, index=[f"cell_{i}" for i in range(4 * N)])
    return AnnData(values, obs)


def test_responders_and_escapers_are_told_apart(cells):
    scgap.pp.responders(cells)
    calls, perturbation = cells.obs["responder"], cells.obs["perturbation"]
    assert calls.cat.categories.tolist() == ["control", "responder", "escaper"]
    assert ((calls == "control") == (perturbation == "control")).all()
    for name, least in (("half", 0.95), ("full", 0.9)):
        mine = (perturbation == name).to_numpy()
        right = (calls[mine] == "responder") == cells.obs["answers"][mine]
        assert right.mean() > least, name
    assert (calls[perturbation == "none"] == "escaper").all()
    table = cells.uns["responder"]["table"].set_index("condition")
    assert table.loc["half", "fraction"] == pytest.approx(0.5, abs=0.05)
    assert table.loc["none", "fraction"] == 0.0
    assert table.loc["none", "p_value"] > 0.05
    assert table.loc["full", "auc"] > table.loc["half", "auc"] > 0.6
    assert (table[["n_cells", "n_controls"]] == N).all(axis=None)
    probability = cells.obs["responder_probability"]
    assert probability.between(0, 1).all()
    assert probability[cells.obs["answers"]].quantile(0.1) > probability[perturbation == "control"].quantile(0.9)


def screen(escaped, shift=4.0, n_controls=800, n_cells=600, seed=0):
    """Controls and one drug for each share of escaped cells; ``obs["answers"]`` says which did not escape."""
    generator = np.random.default_rng(seed)
    answers = [np.arange(n_cells) >= round(share * n_cells) for share in escaped]
    answers = np.concatenate([np.zeros(n_controls, bool), *answers])
    labels = np.repeat(["control", *(f"drug {share}" for share in escaped)], [n_controls, *[n_cells] * len(escaped)])
    values = generator.gamma(2.0, size=(len(labels), 12)).astype(np.float32)
    values[answers, :6] += shift
    index = [f"cell_{i}" for i in range(len(labels))]
    return AnnData(values, pd.DataFrame({"perturbation": labels, "answers": answers}, index))


@pytest.mark.parametrize("tau", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.85])
def test_any_share_may_escape(share, tau):
    adata = screen([share])
    scgap.pp.responders(adata, tau=tau)
    drug = adata.obs[adata.obs["perturbation"] != "control"]
    called, answers = drug["responder"] == "responder", drug["answers"]
    assert called[answers].mean() > 0.8
    assert called.mean() == pytest.approx(1.0 - share, abs=0.1)
    assert drug["responder_probability"][answers].mean() > 0.8
    if share:
        assert called[~answers].mean() < 0.12  # 5 % in the mean, as of the controls
        assert drug["responder_probability"][~answers].mean() < 0.5


def test_probabilities_are_of_being_perturbed():
    shares = [0.0, 0.3, 0.6, 1.0]
    adata = screen(shares, n_controls=2_000, n_cells=1_000)
    scgap.pp.responders(adata, tau=1.0)
    obs = adata.obs
    for share in shares[1:]:
        escaped = (obs["perturbation"] == f"drug {share}") & ~obs["answers"]
        # Of as many controls as perturbed cells, so many of those that look like controls are perturbed.
        assert obs["responder_probability"][escaped].mean() == pytest.approx(share / (1 + share), abs=0.05)
    assert obs["responder_probability"][obs["perturbation"] == "drug 0.0"].mean() > 0.9


def test_a_weak_effect_leaves_cells_that_look_like_controls():
    adata = screen([0.0], shift=1.0)
    scgap.pp.responders(adata)
    row = adata.uns["responder"]["table"].iloc[0]
    assert row["p_value"] < 1e-10
    assert 0.3 < row["fraction"] < 0.8  # though all answered


def test_without_effect_there_are_seldom_responders():
    adata = screen([1.0 + i for i in range(30)], n_controls=200, n_cells=100)
    scgap.pp.responders(adata)
    fraction = adata.uns["responder"]["table"]["fraction"]
    assert (fraction > 0.0).sum() <= 5  # at level .05, 1.5 in the mean
    assert fraction.max() < 0.2
    drugs = adata.obs["responder_probability"][adata.obs["perturbation"] != "control"]
    assert drugs.mean() == pytest.approx(0.5, abs=0.05)


def test_a_call_does_not_depend_on_other_conditions(cells):
    scgap.pp.responders(cells)
    some = cells[cells.obs["perturbation"] != "full"].copy()
    scgap.pp.responders(some)
    mine = some.obs["perturbation"] != "control"
    pd.testing.assert_series_equal(some.obs["responder"][mine], cells.obs["responder"][mine.index[mine]])


def test_cells_are_compared_with_controls_of_their_group(cells):
    cells.obs["line"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    cells.X[(cells.obs["line"] == "a").to_numpy()] += 30.0  # far more than any effect
    scgap.pp.responders(cells, group_col="line")
    table = cells.uns["responder"]["table"].set_index("condition")
    assert len(table) == 6
    assert (table["n_controls"] == N / 2).all()
    assert table.loc[["none, a", "none, b"], "fraction"].tolist() == [0.0, 0.0]
    assert (table.loc[["full, a", "full, b"], "fraction"] > 0.85).all()


def test_same_seed_same_calls_and_nothing_else_is_touched(cells, same):
    before = cells.copy()
    one, again = (scgap.pp.responders(cells, copy=True) for _ in range(2))
    assert same(one, again)
    assert same(cells, before)
    other = scgap.pp.responders(cells, seed=1, copy=True)
    assert (other.obs["responder_probability"] != one.obs["responder_probability"]).any()
    assert json.loads(one.uns["responder"]["params"])["seed"] == 0
    scgap.pp.responders(cells, key_added="answer")
    assert {"answer", "answer_probability"} <= set(cells.obs)


def test_files_keep_the_calls(cells, tmp_path):
    scgap.pp.responders(cells)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    back = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(
        back.obs[["responder", "responder_probability"]], cells.obs[["responder", "responder_probability"]]
    )
    pd.testing.assert_frame_equal(back.uns["responder"]["table"], cells.uns["responder"]["table"], check_dtype=False)


def test_layers_embeddings_modalities_and_sparse_cells(cells):
    scgap.pp.responders(cells)
    expected = cells.obs["responder"].copy()
    cells.layers["measured"], cells.obsm["X_own"] = sparse.csr_matrix(cells.X), cells.X.copy()
    cells.X = np.zeros_like(cells.X)
    for options in ({"layer": "measured"}, {"use_rep": "X_own"}):
        scgap.pp.responders(cells, **options)
        assert (cells.obs["responder"] == expected).all()
    mdata = MuData({"protein": AnnData(cells.obsm["X_own"], pd.DataFrame(index=cells.obs_names))})
    mdata.obs = cells.obs[["perturbation"]]
    scgap.pp.responders(mdata, mod="protein")
    assert (mdata["protein"].obs["responder"] == expected).all()


def test_few_cells_have_no_call_and_a_reason(cells):
    kept = (cells.obs["perturbation"] != "half").to_numpy() | (np.arange(cells.n_obs) < N + 7)
    some = cells[kept].copy()
    with pytest.warns(UserWarning, match="No call for 'half': fewer than 10 cells"):
        scgap.pp.responders(some)
    assert some.obs["responder"][some.obs["perturbation"] == "half"].isna().all()
    table = some.uns["responder"]["table"].set_index("condition")
    assert table.loc["half", "reason"] == "7 cells, fewer than 10"
    assert np.isnan(table.loc["half", "auc"])
    assert (table["reason"].drop("half") == "").all()


def test_cells_without_a_label_have_no_call(cells):
    cells.obs["perturbation"] = cells.obs["perturbation"].where(np.arange(cells.n_obs) != N)
    scgap.pp.responders(cells)
    assert cells.obs["responder"].isna().sum() == 1
    assert np.isnan(cells.obs["responder_probability"].iloc[N])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tau": 0.5}, ValueError, ("tau=0.5", "from 1 (cross-entropy) to 2")),
        ({"tau": "a"}, ValueError, ("tau='a'",)),
        ({"seed": -1}, ValueError, ("seed=-1",)),
        ({"key_added": "a/b"}, ValueError, ("'a/b' cannot be a key",)),
        ({"target_col": "drug"}, KeyError, ("'drug' is not in adata.obs",)),
        ({"reference_key": "DMSO"}, ValueError, ("'DMSO'",)),
        ({"use_rep": "X_pca"}, KeyError, ("'X_pca' is not in adata.obsm",)),
        ({"layer": "raw"}, KeyError, ("'raw' is not in adata.layers",)),
        ({"mod": "rna"}, ValueError, ("mod='rna'",)),
    ],
)
def test_bad_input_is_refused(cells, refused, options, error, words):
    with refused(cells, error, *words):
        scgap.pp.responders(cells, **options)


def test_nothing_to_call_is_refused(cells, refused):
    controls = cells[cells.obs["perturbation"] == "control"].copy()
    with refused(controls, ValueError, "no perturbed cells"):
        scgap.pp.responders(controls)
    few = cells[np.r_[0:N, N : N + 5]].copy()
    with refused(few, ValueError, "No call for 'half'", "pool doses or groups"):
        scgap.pp.responders(few)
