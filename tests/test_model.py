import json

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from mudata import MuData
from safetensors import safe_open
from safetensors.numpy import save_file

import scgap
from scgap._model import FORMAT_VERSION, get_model, model_to_uns

QUERY = {"perturbation": "drug_3", "dose_value": 1_000.0}
NAMES = {
    "drug_1": "(+)-JQ1/β [10 µM]",
    "drug_2": "ENMD-2076 L-(+)-Tartaric acid",
    "drug_3": """5'-azacytidine, "5-Aza" {x}""",
}


def predicted(adata, condition=QUERY, key="scgap"):
    return scgap.tl.predict(adata, condition, key=key, copy=True).layers[key]


def through_file(adata, kind, folder):
    """The object, written and read again."""
    path = folder / f"file.{kind}"
    if kind == "h5mu":
        MuData({"protein": adata}).write_h5mu(path)
        return mudata.read_h5mu(path)["protein"]
    getattr(adata, f"write_{kind}")(path)
    return getattr(anndata, f"read_{kind}")(path)


def through_transport(adata, folder, key="scgap"):
    """The map alone, written and put into an object that shares nothing but features with the one it is from."""
    scgap.write_transport(adata, folder / "map.safetensors", key=key)
    obs = adata.obs.drop(columns=[name for name in adata.obs if name.endswith("transported")])
    other = AnnData(adata.X, obs=obs, var=pd.DataFrame(index=adata.var_names), obsm=dict(adata.obsm))
    other.uns[key] = scgap.read_transport(folder / "map.safetensors")
    return other


@pytest.mark.parametrize("kind", ["h5ad", "zarr", "h5mu"])
def test_written_objects_predict_the_same(fitted, tmp_path, kind):
    expected = predicted(fitted)
    scgap.tl.predict(fitted, {**QUERY, "dose_value": 100}, key_added="low")
    table = scgap.tl.evaluate(fitted, metrics=["energy_distance", "classifier_auc"])
    back = through_file(fitted, kind, tmp_path)
    np.testing.assert_array_equal(predicted(back), expected)
    np.testing.assert_array_equal(back.layers["low"], fitted.layers["low"])
    # Judged again it scores the same, and what was stored is read back.
    pd.testing.assert_frame_equal(scgap.tl.evaluate(back, metrics=["energy_distance", "classifier_auc"]), table)
    for name in ("conditions", "history", "scores"):
        found, written = back.uns["scgap"][name], fitted.uns["scgap"][name]
        assert list(found) == list(written)
        for column in written:
            np.testing.assert_array_equal(found[column].tolist(), written[column].tolist())  # NaN is a score, too


@pytest.mark.parametrize("kind", [None, "h5ad", "zarr"])
def test_a_written_map_predicts_the_same(fitted, tmp_path, same, kind):
    other = through_transport(fitted, tmp_path)
    assert same(other.uns["scgap"], fitted.uns["scgap"])
    if kind:  # and it can be written with the other object
        other = through_file(other, kind, tmp_path)
    np.testing.assert_array_equal(predicted(other), predicted(fitted))


def test_a_map_moves_between_all_files(fitted, tmp_path):
    back = through_transport(through_file(fitted, "zarr", tmp_path), tmp_path)
    back = through_transport(through_file(back, "h5ad", tmp_path), tmp_path)
    back = through_file(through_file(back, "h5mu", tmp_path), "h5ad", tmp_path)
    np.testing.assert_array_equal(predicted(back), predicted(fitted))


def test_combinations_survive(pairs, tmp_path):
    expected = predicted(pairs, "A+B")
    for back in (through_file(pairs, "h5ad", tmp_path), through_transport(pairs, tmp_path)):
        np.testing.assert_array_equal(predicted(back, "B+A"), expected)


def test_descriptors_survive(encoded, tmp_path):
    unseen = {**QUERY, "perturbation": "drug_2"}
    expected = predicted(encoded, unseen)
    np.testing.assert_array_equal(predicted(through_file(encoded, "h5ad", tmp_path), unseen), expected)
    np.testing.assert_array_equal(predicted(through_transport(encoded, tmp_path), unseen), expected)


def test_a_pca_and_its_decoder_survive(screen, settings, tmp_path):
    sc.pp.pca(screen, n_comps=4)
    scgap.tl.fit_transport(screen, use_rep="X_pca", **{**settings, "n_iters": 0})
    rng = np.random.default_rng(0)  # weights that move cells, without the time to train them
    last = screen.uns["scgap"]["weights"]["network"]["displacement"]
    last["kernel"] = rng.normal(size=last["kernel"].shape).astype(np.float32)
    expected = predicted(screen)
    assert (expected != screen.X).any()
    np.testing.assert_array_equal(predicted(through_file(screen, "h5ad", tmp_path)), expected)
    np.testing.assert_array_equal(predicted(through_transport(screen, tmp_path)), expected)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_names_of_any_sign_survive(screen, settings, tmp_path, kind):
    screen.obs["perturbation"] = screen.obs["perturbation"].cat.rename_categories(NAMES)
    screen.obs["cell_line"] = screen.obs["cell_line"].cat.rename_categories({"line_1": "HeLa/S3 ü", "line_2": "A+B"})
    screen.var_names = [f"LC3A/B ({i})" for i in range(20)]
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 20})
    back = through_file(screen, kind, tmp_path)
    moved = through_transport(screen, tmp_path)
    for name in NAMES.values():
        condition = {"perturbation": name, "dose_value": 100.0}
        expected = predicted(screen, condition)
        np.testing.assert_array_equal(predicted(back, condition), expected)
        np.testing.assert_array_equal(predicted(moved, condition), expected)
    scgap.tl.predict(back, {**condition, "cell_line": "HeLa/S3 ü"})
    assert json.loads(back.uns["scgap"]["predictions"]["scgap"])["perturbation"] == name


def test_modalities_of_a_mudata(fitted, tmp_path):
    mdata = MuData({"protein": fitted})
    scgap.write_transport(mdata, str(tmp_path / "map.safetensors"), mod="protein")
    fitted.uns["other"] = scgap.read_transport(str(tmp_path / "map.safetensors"))
    np.testing.assert_array_equal(predicted(fitted, key="other"), predicted(fitted))


def test_predictions_and_scores_stay_with_the_cells(fitted, tmp_path):
    scgap.tl.predict(fitted, QUERY)
    scgap.tl.evaluate(fitted, metrics=["mean_error"])
    scgap.write_transport(fitted, tmp_path / "map.safetensors")
    stored = scgap.read_transport(tmp_path / "map.safetensors")
    assert set(fitted.uns["scgap"]) - set(stored) == {"predictions", "scores"}


def test_a_file_holds_arrays_and_json_alone(fitted, tmp_path):
    scgap.write_transport(fitted, tmp_path / "map.safetensors")
    with safe_open(tmp_path / "map.safetensors", framework="numpy") as file:
        plain = json.loads(file.metadata()["scgap"])
        names = set(file.keys())
    assert plain["format_version"] == FORMAT_VERSION
    assert "/weights/network/displacement/kernel" in names
    assert "/history/valid" in names


def test_the_model_is_its_stored_form(fitted, same):
    model = get_model(fitted, None, "scgap")
    assert same(model_to_uns(model), fitted.uns["scgap"])
    assert model.design.target_cols == ("perturbation",)
    assert model.design.group_cols == ("cell_line",)
    assert model.network.hidden == (16,)


def test_writing_leaves_the_object_alone(fitted, tmp_path, same):
    before = fitted.copy()
    scgap.write_transport(fitted, tmp_path / "map.safetensors")
    assert same(fitted, before)


def test_a_missing_map_is_refused(fitted, screen, refused, tmp_path):
    with refused(fitted, KeyError, "'scgp' is not in adata.uns", "Did you mean 'scgap'?", "Fit a map first"):
        scgap.write_transport(fitted, tmp_path / "map.safetensors", key="scgp")
    with refused(screen, KeyError, "'scgap' is not in adata.uns", "scgap.tl.fit_transport"):
        scgap.write_transport(screen, tmp_path / "map.safetensors")
    with refused(screen, ValueError, "mod='rna'"):
        scgap.write_transport(screen, tmp_path / "map.safetensors", mod="rna")
    assert not (tmp_path / "map.safetensors").exists()


def test_a_missing_folder_is_named(fitted, refused, tmp_path):
    with refused(fitted, ValueError, f"is in a folder, '{tmp_path}/maps', that does not exist. Make it first"):
        scgap.write_transport(fitted, tmp_path / "maps" / "map.safetensors")


@pytest.mark.parametrize(
    ("version", "words"), [(FORMAT_VERSION + 1, "Upgrade scgap"), (0, "Fit it again"), (None, "format version unknown")]
)
def test_other_format_versions_are_refused(fitted, refused, tmp_path, version, words):
    scgap.write_transport(fitted, tmp_path / "map.safetensors")
    with safe_open(tmp_path / "map.safetensors", framework="numpy") as file:
        plain = json.loads(file.metadata()["scgap"])
        arrays = {name: file.get_tensor(name) for name in file.keys() if name != "digest"}  # noqa: SIM118 (not a dict)
    for stored in (plain, fitted.uns["scgap"]):
        if version is None:
            del stored["format_version"]
        else:
            stored["format_version"] = version
    with refused(fitted, ValueError, words, f"reads {FORMAT_VERSION}"):
        scgap.tl.predict(fitted, QUERY)
    save_file(arrays, tmp_path / "map.safetensors", metadata={"scgap": json.dumps(plain)})
    with pytest.raises(ValueError, match=words):
        scgap.read_transport(tmp_path / "map.safetensors")


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2], "map", 3.0])
def test_other_content_of_uns_is_refused(fitted, refused, content):
    fitted.uns["other"] = content
    with refused(fitted, ValueError, "format version unknown", "scgap.tl.fit_transport"):
        scgap.tl.predict(fitted, QUERY, key="other")


def test_files_that_are_no_map_are_refused(fitted, tmp_path):
    (tmp_path / "text.safetensors").write_text("a map")
    save_file({"a": np.zeros(2)}, tmp_path / "plain.safetensors")
    save_file({"a": np.zeros(2)}, tmp_path / "json.safetensors", metadata={"scgap": "{"})
    save_file({"a": np.zeros(2)}, tmp_path / "arrays.safetensors", metadata={"scgap": '{"weights": {"array": "b"}}'})
    version = json.dumps({"format_version": FORMAT_VERSION})
    save_file({"a": np.zeros(2)}, tmp_path / "fields.safetensors", metadata={"scgap": version})
    scgap.write_transport(fitted, tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "plain", "json", "arrays", "fields", "cut"):
        with pytest.raises(ValueError, match=rf"{name}.safetensors is not a map written by scgap.write_transport"):
            scgap.read_transport(tmp_path / f"{name}.safetensors")
    with pytest.raises(FileNotFoundError):
        scgap.read_transport(tmp_path / "absent.safetensors")
