import json

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import scgap
from scgap._autoencoder import decode, encode

SMALL = {"n_latent": 4, "hidden": (16,), "n_epochs": 3, "learning_rate": 1e-3, "progress": False}
SPLIT = {**SMALL, "split_col": "split"}


def compress(data, **options):
    assert scgap.pp.autoencoder(data, **{**SMALL, **options}) is None
    adata = data[options["mod"]] if "mod" in options else data
    return adata.uns[options.get("key_added", "ae")]


def test_sets_the_fields_that_are_documented(screen, same):
    before = screen.copy()
    stored = compress(screen, split_col="split")
    assert set(stored) == {
        "encoder", "decoder", "history", "unexplained", "layer", "var_names", "params",
    }  # fmt: skip
    assert screen.obsm["X_ae"].shape == (screen.n_obs, 4)
    assert screen.obsm["X_ae"].dtype == np.float32
    shapes = {part: [layer["kernel"].shape for layer in stored[part].values()] for part in ("encoder", "decoder")}
    assert shapes == {"encoder": [(20, 16), (16, 4)], "decoder": [(4, 16), (16, 20)]}
    assert {a.dtype for part in ("encoder", "decoder") for layer in stored[part].values() for a in layer.values()} == {
        np.dtype(np.float32)
    }
    assert stored["history"].columns.tolist() == ["epoch", "loss", "valid"]
    assert stored["history"]["epoch"].tolist() == [0, 1, 2, 3]
    assert stored["layer"] == ""
    assert stored["var_names"].tolist() == screen.var_names.tolist()
    assert json.loads(stored["params"]) == {
        "n_latent": 4, "hidden": [16], "split_col": "split", "mod": None, "ghost_batch_norm": False, "batch_size": 512,
        "n_epochs": 3, "learning_rate": 1e-3, "seed": 0,
    }  # fmt: skip
    for part, share in stored["unexplained"].items():
        cells = screen.X[(screen.obs["split"] == part).to_numpy()]
        left = cells - decode(stored, encode(stored, cells))
        assert share == pytest.approx(np.square(left).sum() / np.square(cells - cells.mean(0)).sum(), rel=1e-3)
    assert set(stored["unexplained"]) == {"train", "valid", "test"}
    del screen.uns["ae"], screen.obsm["X_ae"]
    assert same(screen, before)


def test_test_cells_decide_nothing(screen, same):
    changed = screen.copy()
    test = (screen.obs["split"] == "test").to_numpy()
    changed.X[test] = np.random.default_rng(0).permutation(changed.X[test]) * 3.0 + 50.0
    one, other = compress(screen, split_col="split"), compress(changed, split_col="split")
    for name in ("encoder", "decoder", "history"):
        assert same(one[name], other[name])
    assert {name: one["unexplained"][name] for name in ("train", "valid")} == {
        name: other["unexplained"][name] for name in ("train", "valid")
    }
    assert one["unexplained"]["test"] != other["unexplained"]["test"]
    # Nor does it matter whether they are there.
    assert same(compress(screen[~test].copy(), split_col="split")["encoder"], one["encoder"])


@pytest.mark.parametrize("part", ["train", "valid"])
def test_the_other_cells_do(screen, same, part):
    changed = screen.copy()
    changed.X[(screen.obs["split"] == part).to_numpy()] *= 2.0
    one, other = compress(screen, split_col="split"), compress(changed, split_col="split")
    assert (one["history"] != other["history"]).any(axis=None)


def test_a_tenth_validates_where_no_cells_do(screen, same):
    stored = compress(screen)
    assert set(stored["unexplained"]) == {"train", "valid"}
    screen.obs["all"] = "train"
    assert same(compress(screen, split_col="all")["encoder"], stored["encoder"])
    other = compress(screen, seed=1)
    assert (other["encoder"]["0"]["kernel"] != stored["encoder"]["0"]["kernel"]).any()


def test_cells_without_a_label_are_encoded_and_nothing_else(screen, same):
    expected = compress(screen, split_col="split")
    more = anndata.concat([screen, screen[:30].copy()], index_unique="-")
    more.obs["split"] = pd.Categorical([*screen.obs["split"], *[None] * 30])
    stored = compress(more, split_col="split")
    assert same(stored["encoder"], expected["encoder"])
    assert np.isfinite(more.obsm["X_ae"]).all()
    np.testing.assert_allclose(more.obsm["X_ae"][-30:], more.obsm["X_ae"][:30], atol=1e-4)


@pytest.mark.parametrize("ghost_batch_norm", [False, True])
def test_the_seed_decides(screen, same, ghost_batch_norm):
    options = {**SPLIT, "ghost_batch_norm": ghost_batch_norm, "copy": True}
    one, again, other = (scgap.pp.autoencoder(screen, **options, seed=seed) for seed in (1, 1, 2))
    assert same(one, again)
    assert (one.obsm["X_ae"] != other.obsm["X_ae"]).any()


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_files(screen, tmp_path, suffix, same):
    stored = compress(screen, hidden=(16, 16), split_col="split", ghost_batch_norm=True)
    path = tmp_path / f"screen.{suffix}"
    getattr(screen, f"write_{suffix}")(path)
    again = getattr(anndata, f"read_{suffix}")(path)
    back = again.uns["ae"]
    np.testing.assert_array_equal(again.obsm["X_ae"], screen.obsm["X_ae"])
    np.testing.assert_array_equal(encode(back, again.X), screen.obsm["X_ae"])
    np.testing.assert_array_equal(decode(back, again.obsm["X_ae"]), decode(stored, screen.obsm["X_ae"]))
    assert {name: float(share) for name, share in back["unexplained"].items()} == stored["unexplained"]
    assert [str(name) for name in back["var_names"]] == screen.var_names.tolist()
    assert (str(back["layer"]), str(back["params"])) == ("", stored["params"])
    pd.testing.assert_frame_equal(back["history"], stored["history"], check_index_type=False)


def test_survives_h5mu(screen, tmp_path):
    mdata = MuData({"protein": screen})
    compress(mdata, mod="protein", split_col="split")
    mdata.write_h5mu(tmp_path / "screen.h5mu")
    again = mudata.read_h5mu(tmp_path / "screen.h5mu")["protein"]
    np.testing.assert_array_equal(encode(again.uns["ae"], again.X), mdata["protein"].obsm["X_ae"])


def test_layers_modalities_and_sparse_cells(screen, same):
    expected = compress(screen, split_col="split")
    other = screen.copy()
    other.layers["measured"] = sparse.csr_matrix(other.X)
    other.X = None
    stored = compress(other, layer="measured", split_col="split", key_added="there")
    assert stored["layer"] == "measured"
    assert same(stored["encoder"], expected["encoder"])
    assert "X_ae" in screen.obsm
    assert "X_there" in other.obsm
    mdata = MuData({"protein": AnnData(screen.X.copy(), pd.DataFrame(index=screen.obs_names))})
    mdata.obs = screen.obs[["split"]]
    assert same(compress(mdata, mod="protein", split_col="split")["encoder"], expected["encoder"])


def test_a_copy_leaves_the_input_alone(screen, same):
    before = screen.copy()
    assert "X_ae" in scgap.pp.autoencoder(screen, **SMALL, copy=True).obsm
    assert same(screen, before)


def test_by_default_a_small_screen_has_a_thousand_updates(screen):
    params = json.loads(compress(screen, n_epochs=None, batch_size=200, hidden=(8,))["params"])
    assert params["n_epochs"] == 143  # of 7 updates
    assert json.loads(compress(screen, n_epochs=None, batch_size=20, hidden=(8,))["params"])["n_epochs"] == 50


def test_progress_is_shown_and_not_shown(screen, capsys):
    compress(screen)
    assert capsys.readouterr().err == ""
    compress(screen, progress=True)
    assert "autoencoder" in capsys.readouterr().err


def test_counts_are_warned_of(screen):
    screen.X = np.random.default_rng(0).poisson(40.0, screen.shape).astype(np.float32)
    with pytest.warns(UserWarning, match="looks like raw counts"):
        compress(screen)


def test_nan_is_refused(screen, refused):
    screen.X[3, 2] = np.nan
    with refused(screen, ValueError, "adata.X holds NaN", "1 of"):
        scgap.pp.autoencoder(screen, **SMALL)


def test_constant_features_are_fine_and_constant_cells_are_not(screen, refused):
    screen.X[:, 3:8] = 1.5
    stored = compress(screen)
    assert np.isfinite(screen.obsm["X_ae"]).all()
    np.testing.assert_allclose(decode(stored, screen.obsm["X_ae"])[:, 3:8], 1.5, atol=0.2)
    screen.X[:] = 1.0
    with refused(screen, ValueError, "are the same", "as layer="):
        scgap.pp.autoencoder(screen, **SMALL)


def test_a_view_is_refused(screen, refused):
    view = screen[:1_400]
    with refused(view, ValueError, "view", "copy=True"):
        scgap.pp.autoencoder(view, **SMALL)
    assert not scgap.pp.autoencoder(view, **SMALL, copy=True).is_view


def test_few_training_cells_are_refused(screen, refused):
    screen.obs["split"] = ["train"] * 9 + ["valid"] * (screen.n_obs - 9)
    with refused(screen, ValueError, "9 training and 1491 validation cells", "split_col"):
        scgap.pp.autoencoder(screen, **SPLIT)
    few = screen[:10].copy()
    with refused(few, ValueError, "10 training and 0 validation cells"):
        scgap.pp.autoencoder(few, **SMALL)
    few = screen[:11].copy()
    assert set(compress(few)["unexplained"]) == {"train", "valid"}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_latent": 20}, ValueError, ("n_latent=20", "20 features", "nothing would be compressed")),
        ({"n_latent": 0}, ValueError, ("n_latent=0", "from 1 on")),
        ({"hidden": 64}, ValueError, ("hidden=64", "(128, 128)")),
        ({"hidden": ()}, ValueError, ("at least one hidden layer",)),
        ({"hidden": (16, 7)}, ValueError, ("a layer of 7 units", "at least 8", "smaller n_latent")),
        ({"batch_size": 0}, ValueError, ("batch_size=0",)),
        ({"n_epochs": -1}, ValueError, ("n_epochs=-1",)),
        ({"learning_rate": 0}, ValueError, ("learning_rate=0", "positive")),
        ({"learning_rate": "high"}, ValueError, ("learning_rate='high'",)),
        ({"seed": -1}, ValueError, ("seed=-1",)),
        ({"key_added": "a/b"}, ValueError, ("'a/b' cannot be a key",)),
        ({"split_col": "fold"}, KeyError, ("'fold' is not in adata.obs", "scgap.pp.split makes")),
        ({"split_col": "cell_line"}, ValueError, ("'line_1'", "'train', 'valid' and 'test'")),
        ({"layer": "raw"}, KeyError, ("'raw' is not in adata.layers",)),
        ({"mod": "rna"}, ValueError, ("mod='rna'",)),
    ],
)
def test_bad_input_is_refused(screen, refused, options, error, words):
    with refused(screen, error, *words):
        scgap.pp.autoencoder(screen, **{**SMALL, **options})


def test_data_that_are_no_object_are_refused():
    with pytest.raises(TypeError, match="an ndarray"):
        scgap.pp.autoencoder(np.zeros((20, 5)), **SMALL)


def test_other_entries_of_uns_are_not_written_over(screen, refused):
    screen.uns["mine"] = {"a": 1}
    with refused(screen, ValueError, "adata.uns['mine'] exists and is no autoencoder"):
        compress(screen, key_added="mine")
    compress(screen)
    compress(screen)  # over its own
