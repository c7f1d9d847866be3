import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from ott.geometry import costs
from scipy import sparse
from scipy.spatial.distance import cdist

import scgap
from scgap.tl import _fit_transport

QUERY = {"perturbation": "drug_3", "dose_value": 1_000.0}


@pytest.fixture
def fit(settings):
    """Fit in place with the settings that all tests share, and return what was written."""

    def call(adata, **changed):
        assert scgap.tl.fit_transport(adata, **{**settings, **changed}) is None
        return adata.uns[changed.get("key_added", "scgap")]

    return call


def test_sets_the_fields_that_are_documented(screen, fitted, settings, same):
    stored = fitted.uns.pop("scgap")
    assert same(fitted, screen)  # and no others
    assert set(stored) == {
        "format_version",
        "params",
        "weights",
        "conditions",
        "embedding",
        "encoding",
        "representation",
        "history",
        "var_names",
        "control_means",
    }
    assert stored["embedding"].shape[0] == len(stored["conditions"])
    params = json.loads(stored["params"])
    assert params["n_iters"] == settings["n_iters"]
    assert params["epsilon"] is None
    assert params["resolved"]["epsilon"] > params["resolved"]["gap_epsilon"] > 0
    assert params["design"]["group_cols"] == ["cell_line"]
    assert stored["var_names"].tolist() == screen.var_names.tolist()
    assert list(stored["history"]) == ["iteration", "fitting_loss", "monge_gap", "valid"]
    assert stored["history"]["iteration"].is_monotonic_increasing
    assert np.isfinite(stored["history"].to_numpy()).all()


def test_weights_are_plain_float32_arrays(fitted):
    def leaves(value):
        return [leaf for child in value.values() for leaf in leaves(child)] if isinstance(value, dict) else [value]

    found = leaves(fitted.uns["scgap"]["weights"])
    assert len(found) > 10
    assert all(isinstance(leaf, np.ndarray) and leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in found)
    assert all(leaf.flags.writeable for leaf in found)


def test_the_table_of_conditions_counts_cells(fitted):
    table = fitted.uns["scgap"]["conditions"]
    assert list(table) == ["condition_label", "perturbation", "dose_value", "cell_line", "split", "n_cells"]
    assert "drug_2 100, line_1" in set(table["condition_label"])
    expected = fitted.obs.groupby(["perturbation", "dose_value", "cell_line"], observed=True).size().drop("control")
    found = table.set_index(["perturbation", "dose_value", "cell_line"])["n_cells"]
    assert found.sort_index().to_dict() == expected.to_dict()
    assert set(table["split"]) == {"train"}


def test_doses_are_standardised_on_their_logarithm(fitted):
    mean, std = fitted.uns["scgap"]["encoding"]["dose_scale"]
    assert mean == pytest.approx(np.log(np.sqrt(100 * 1_000)))
    assert std == pytest.approx(np.log(1_000 / 100) / 2)


def test_a_copy_leaves_the_input_alone(screen, fitted, settings, same):
    before = screen.copy()
    result = scgap.tl.fit_transport(screen, copy=True, **settings)
    assert same(screen, before)
    assert same(result, fitted)


def test_a_view_can_be_fitted_as_a_copy(screen, settings, same):
    before = screen.copy()
    view = screen[:, ::-1]
    result = scgap.tl.fit_transport(view, copy=True, **{**settings, "n_iters": 0})
    assert not result.is_view
    assert "scgap" in result.uns
    assert view.is_view
    assert same(screen, before)


def test_the_seed_decides(screen, fitted, fit, same):
    assert same(fit(screen), fitted.uns["scgap"])
    other = fit(screen, seed=1, key_added="other")
    for name in ("network", "encoding"):
        with pytest.raises(AssertionError):
            same(other["weights"][name], fitted.uns["scgap"]["weights"][name])
    assert set(screen.uns) >= {"scgap", "other"}


def test_test_cells_are_not_touched(screen, fitted, fit, same):
    test = (screen.obs["split"] == "test").to_numpy()
    screen.X[test] = np.random.default_rng(0).normal(50.0, 10.0, screen.X[test].shape)
    changed = fit(screen)
    for name in ("weights", "history", "params", "encoding", "representation"):
        assert same(changed[name], fitted.uns["scgap"][name])


@pytest.mark.parametrize(("part", "name"), [("train", "weights"), ("valid", "history")])
def test_other_cells_are(screen, fitted, fit, same, part, name):
    # Without this, the test above could pass for a fit that looks at nothing.
    cells = (screen.obs["split"] == part).to_numpy()
    screen.X[cells] += 1.0
    with pytest.raises(AssertionError):
        same(fit(screen)[name], fitted.uns["scgap"][name])


@pytest.mark.parametrize(
    "convert",
    [
        sparse.csr_matrix,
        sparse.csc_matrix,
        sparse.csr_array,
        lambda X: X.astype(np.float64),
        lambda X: X.astype(np.int64),
        lambda X: sparse.csr_matrix(X.astype(np.uint16)),
    ],
)
def test_the_kind_of_matrix_does_not_matter(screen, fit, same, convert):
    counts = np.round(np.maximum(screen.X, 0.0))
    screen.X = counts
    expected = fit(screen, n_iters=20)
    screen.X = convert(counts)
    assert same(fit(screen, n_iters=20), expected)


def test_a_layer_is_fitted(screen, fitted, fit, same):
    screen.layers["raw"] = screen.X.copy()
    screen.X = np.full_like(screen.X, np.nan)  # never looked at
    stored = fit(screen, layer="raw")
    assert same(stored["weights"], fitted.uns["scgap"]["weights"])
    assert stored["representation"]["layer"] == "raw"


@pytest.mark.parametrize("dtype", ["str", "category", object, "Int64", np.float32])
def test_doses_may_be_strings_or_numbers(screen, fitted, fit, same, dtype):
    text = screen.obs["dose_value"].map("{:g}".format)
    screen.obs["dose_value"] = (
        text.astype(float).astype(dtype) if dtype in ("Int64", np.float32) else text.astype(dtype)
    )
    stored = fit(screen)
    assert same(stored["weights"], fitted.uns["scgap"]["weights"])
    assert same(stored["conditions"], fitted.uns["scgap"]["conditions"])


@pytest.mark.parametrize("reference", [0, "0"])
@pytest.mark.parametrize("dtype", [int, float])
def test_labels_may_be_numbers(screen, fit, reference, dtype):
    screen.obs["perturbation"] = screen.obs["perturbation"].cat.codes.to_numpy().astype(dtype)
    stored = fit(screen, reference_key=reference, dose_col=None, n_iters=0)
    assert set(stored["conditions"]["perturbation"]) == {"1", "2", "3"}
    scgap.tl.predict(screen, "1")


@pytest.mark.parametrize("reference", ["none", ""])
def test_several_columns_are_a_set(pairs, pairs_settings, same, reference):
    # "A+B" in one column, ("A", "B") and ("B", "A") in two are the same condition, and the fits are the same.
    expected = pairs.uns["scgap"]["weights"]
    genes = pairs.obs["genes"].str.split("+", expand=True)
    first, second = genes[0], genes[1].fillna(reference).astype(str)
    swapped = np.arange(pairs.n_obs) % 2 == 0
    pairs.obs["one"] = np.where(swapped, second, first)
    pairs.obs["two"] = np.where(swapped, first, second)
    changed = {**pairs_settings, "target_col": ["one", "two"], "sep": None, "key_added": "columns"}
    scgap.tl.fit_transport(pairs, **changed)
    assert same(pairs.uns["columns"]["weights"], expected)
    assert set(pairs.uns["columns"]["conditions"]["condition_label"]) == set(
        pairs.uns["scgap"]["conditions"]["condition_label"]
    )


def test_each_column_has_its_dose(screen, fit, same):
    control = screen.obs["perturbation"] == "control"
    screen.obs["one"], screen.obs["dose_one"] = screen.obs["perturbation"], screen.obs["dose_value"]
    screen.obs["two"] = np.where(control, "control", "drug_9")
    screen.obs["dose_two"] = np.where(control, 0.0, 5.0)
    design = {"target_col": ["one", "two"], "dose_col": ["dose_one", "dose_two"]}
    stored = fit(screen, n_iters=0, **design)
    assert "drug_2 100 + drug_9 5, line_1" in set(stored["conditions"]["condition_label"])
    with pytest.raises(ValueError, match="2 columns and target_col 1"):
        fit(screen, dose_col=["dose_one", "dose_two"])


def test_combinations_have_sorted_members(pairs):
    table = pairs.uns["scgap"]["conditions"]
    assert set(table["condition_label"]) == {
        f"{genes}, {line}" for genes in ("A", "B", "C", "A + B", "A + C", "B + C") for line in ("line_1", "line_2")
    }
    assert pairs.uns["scgap"]["encoding"]["perturbations"].tolist() == ["A", "B", "C"]


def test_without_iterations_the_map_is_the_identity(screen, fit):
    stored = fit(screen, n_iters=0)
    assert len(stored["history"]) == 0
    assert [str(dtype) for dtype in stored["history"].dtypes] == ["int64", "float64", "float64", "float64"]
    scgap.tl.predict(screen, QUERY)
    np.testing.assert_array_equal(screen.layers["scgap"], screen.X)


def test_several_group_columns(screen, fit):
    screen.obs["donor"] = np.where(np.arange(screen.n_obs) % 2, "d1", "d2")
    stored = fit(screen, group_col=["cell_line", "donor"], n_iters=0)
    assert json.loads(stored["encoding"]["groups"]) == {"cell_line": ["line_1", "line_2"], "donor": ["d1", "d2"]}
    assert "drug_2 100, line_1, d2" in set(stored["conditions"]["condition_label"])


def test_time_is_a_feature_of_the_condition(screen, fit):
    # Late cells went further: what the map has to learn from time alone.
    treated = (screen.obs["perturbation"] != "control").to_numpy()
    late = np.random.default_rng(0).random(screen.n_obs) < 0.5
    screen.obs["hours"] = np.where(treated & late, 48.0, 2.0)
    screen.X[treated & late] += 3.0
    stored = fit(screen, time_col="hours", dose_col=None)
    assert "drug_1, line_1, time 48" in set(stored["conditions"]["condition_label"])
    means = []
    for hours in (2, 10, 48):
        scgap.tl.predict(screen, {"perturbation": "drug_1", "hours": hours})
        means.append(screen.layers["scgap"][screen.obs["scgap_transported"]].mean())
    assert means[0] + 0.1 < means[1] < means[2] - 0.1
    with pytest.raises(ValueError, match="leaves 'hours' open"):
        scgap.tl.predict(screen, "drug_1")


def test_an_encoding_is_not_trained(screen, encoded, same):
    table = screen.uns["drug_descriptors"].to_numpy(np.float32)
    stored = encoded.uns["scgap"]
    assert stored["encoding"]["perturbations"].tolist() == ["drug_1", "drug_2", "drug_3"]
    assert stored["encoding"]["features"].tolist() == [f"descriptor_{i}" for i in range(8)]
    np.testing.assert_array_equal(stored["encoding"]["values"], table)
    standardised = (table - table.mean(0)) / table.std(0)
    np.testing.assert_allclose(stored["weights"]["encoding"], standardised, atol=1e-6)
    # The fit took place, and wrote nothing to the table it was given.
    assert stored["history"]["valid"].min() < stored["history"]["valid"].iloc[0]
    assert same(encoded.uns["drug_descriptors"], screen.uns["drug_descriptors"])


def test_an_encoding_is_named_by_its_key(screen, encoded, fit, same):
    table = screen.uns["drug_descriptors"]
    scgap.pp.split(screen, holdout={"perturbation": ["drug_2"]}, dose_col="dose_value", group_col="cell_line")
    scgap.pp.encode_table(screen, table, key_added="stored")
    for encoding in ("stored", ["stored"], "drug_descriptors", [table]):
        assert same(fit(screen, encoding=encoding), encoded.uns["scgap"])


def test_encodings_are_joined(screen, fit):
    table = screen.uns["drug_descriptors"]
    extra = pd.DataFrame({"descriptor_0": [3.0, 1.0, 2.0, 5.0], "y": 1.0}, ["new", "drug_3", "drug_1", "drug_2"])
    more = pd.concat([table, table.set_axis(["a", "b", "new"])])
    scgap.pp.encode_table(screen, extra, key_added="extra")
    stored = fit(screen, encoding=[more, "extra"], n_iters=20)["encoding"]
    assert stored["perturbations"].tolist() == ["drug_1", "drug_2", "drug_3", "new"]
    names = ["table_1: descriptor_0", *(f"descriptor_{i}" for i in range(1, 8)), "extra: descriptor_0", "y"]
    assert stored["features"].tolist() == names
    np.testing.assert_array_equal(stored["values"][:, 8], [2.0, 5.0, 1.0, 3.0])
    # The map holds what it needs to predict a perturbation that was never measured.
    del screen.uns["extra"]
    scgap.tl.predict(screen, {"perturbation": "new", "dose_value": 10.0})
    moved = screen.layers["scgap"]
    scgap.tl.predict(screen, {"perturbation": "drug_1", "dose_value": 10.0})
    assert np.isfinite(moved).all()
    assert (moved != screen.layers["scgap"]).any()


def test_learned_vectors_are_of_trained_perturbations(screen, fit):
    scgap.pp.split(screen, holdout={"perturbation": ["drug_2"]}, dose_col="dose_value", group_col="cell_line")
    stored = fit(screen, n_iters=0)
    assert stored["encoding"]["perturbations"].tolist() == ["drug_1", "drug_3"]
    table = stored["conditions"]
    assert table.groupby("perturbation")["split"].unique().map(list).to_dict() == {
        "drug_1": ["train"],
        "drug_2": ["test"],
        "drug_3": ["train"],
    }


def test_regularisation_is_resolved_from_the_training_cells(screen, fit):
    costs_found = []
    for perturbation, dose, line in screen.obs.groupby(
        ["perturbation", "dose_value", "cell_line"], observed=True
    ).groups:
        obs = screen.obs
        rows = (obs["perturbation"] == perturbation) & (obs["dose_value"] == dose) & (obs["cell_line"] == line)
        cells = screen.X[(rows & (obs["split"] == "train")).to_numpy()]
        costs_found += [] if perturbation == "control" else [cdist(cells, cells).mean()]
    resolved = json.loads(fit(screen, n_iters=0)["params"])["resolved"]
    assert resolved["epsilon"] == pytest.approx(0.05 * np.mean(costs_found), rel=1e-3)
    assert resolved["gap_epsilon"] == pytest.approx(0.02 * np.mean(costs_found), rel=1e-3)
    params = json.loads(fit(screen, n_iters=0, epsilon=0.3, gap_epsilon=0.1, gap_weight=0.0)["params"])
    given = {"epsilon": 0.3, "gap_epsilon": 0.1, "gap_weight": 0.0}
    assert params["resolved"] == given | {"detail_of_sums": 1.0}


@pytest.mark.parametrize("cost", ["sqeuclidean", costs.PNormP(1.5)])
def test_other_costs(screen, fit, cost):
    default = json.loads(fit(screen, n_iters=0)["params"])["resolved"]["epsilon"]
    params = json.loads(fit(screen, n_iters=0, cost=cost)["params"])
    assert params["resolved"]["epsilon"] != pytest.approx(default, rel=0.1)
    assert ("sqeuclidean" if isinstance(cost, str) else "PNormP") in params["cost"]


def test_numbers_of_numpy_are_numbers(screen, fit):
    stored = fit(
        screen,
        n_iters=np.int64(0),
        seed=np.int32(3),
        epsilon=np.float32(0.5),
        batch_size=np.uint8(64),
        hidden=np.array([16]),
        learning_rate=np.float32(1e-3),
    )
    params = json.loads(stored["params"])
    assert params["seed"] == 3
    assert params["hidden"] == [16]
    assert params["resolved"]["epsilon"] == 0.5


@pytest.mark.parametrize(("more", "hidden"), [(0, [128, 128, 128]), (1, [64, 64])])
def test_the_network_grows_with_the_training_cells(screen, fit, monkeypatch, more, hidden):
    n_train = int((screen.obs["split"] == "train").sum())
    monkeypatch.setattr(_fit_transport, "MANY", n_train + more)
    stored = fit(screen, n_iters=0, hidden=None)
    assert json.loads(stored["params"])["hidden"] == hidden
    assert stored["weights"]["network"]["hidden_1"]["kernel"].shape == (hidden[0], hidden[1])


def test_without_a_split_all_cells_are_used(screen, fit):
    stored = fit(screen, split_col=None, n_iters=0)
    assert stored["conditions"]["n_cells"].sum() == (screen.obs["perturbation"] != "control").sum()
    assert set(stored["conditions"]["split"]) == {"train"}
    assert json.loads(stored["params"])["split_col"] is None


def test_cells_without_a_label_are_left_out(screen, fitted, fit, same):
    unlabelled = (screen.obs["split"] == "test").to_numpy()
    screen.obs["perturbation"] = screen.obs["perturbation"].astype(object).where(~unlabelled)
    with pytest.warns(UserWarning, match=f"{unlabelled.sum()} cells without a perturbation or group label"):
        stored = fit(screen)
    assert same(stored["weights"], fitted.uns["scgap"]["weights"])
    assert stored["conditions"]["n_cells"].sum() < fitted.uns["scgap"]["conditions"]["n_cells"].sum()


def test_a_second_column_without_label_holds_no_perturbation(screen, fit, same):
    label = screen.obs["perturbation"].astype(object)
    screen.obs["one"] = label.where(label != "drug_1", "control")
    screen.obs["other"] = label.where(label == "drug_1")
    expected = fit(screen, n_iters=20)
    stored = fit(screen, target_col=["one", "other"], n_iters=20)
    assert same(stored["weights"], expected["weights"])
    assert set(stored["conditions"]["other"]) == {"drug_1", "control"}


def test_one_valid_cell_of_a_condition_does_not_stop_the_fit(screen, fit):
    rows = (screen.obs["perturbation"] == "drug_1") & (screen.obs["split"] == "valid")
    for line in ("line_1", "line_2"):
        of_line = rows & (screen.obs["cell_line"] == line)
        screen.obs.loc[of_line & (of_line.cumsum() > 1), "split"] = "test"
    assert np.isfinite(fit(screen, n_iters=20)["history"].to_numpy()).all()


def test_a_separator_that_is_in_no_label_is_told(pairs, pairs_settings):
    with pytest.warns(UserWarning, match=r"sep='\|' is in no label of 'genes': each is taken whole") as log:
        scgap.tl.fit_transport(pairs, **{**pairs_settings, "sep": "|", "n_iters": 0, "split_col": None})
    assert log[0].filename == __file__
    assert "A+B" in pairs.uns["scgap"]["encoding"]["perturbations"]


def test_blank_labels_are_missing_labels(screen, fit):
    label = screen.obs["perturbation"].astype(str)
    screen.obs["perturbation"] = label.where(label != "drug_1", " ")
    with pytest.warns(UserWarning, match=f"{(label == 'drug_1').sum()} cells without a perturbation or group label"):
        stored = fit(screen, n_iters=0)
    assert set(stored["conditions"]["perturbation"]) == {"drug_2", "drug_3"}


def test_labels_of_a_mudata(screen, fitted, fit, settings, same):
    protein = AnnData(screen.X, obs=pd.DataFrame(index=screen.obs_names), var=screen.var)
    mdata = MuData({"protein": protein})
    mdata.obs = screen.obs
    assert scgap.tl.fit_transport(mdata, mod="protein", **settings) is None
    assert same(mdata["protein"].uns["scgap"]["weights"], fitted.uns["scgap"]["weights"])
    assert list(mdata["protein"].obs) == []
    copied = scgap.tl.fit_transport(mdata, mod="protein", copy=True, key_added="other", **{**settings, "n_iters": 0})
    assert "other" in copied["protein"].uns
    assert "other" not in mdata["protein"].uns


def test_the_bar_is_shown_when_asked_for(screen, fit, capsys):
    fit(screen)
    assert capsys.readouterr().err == ""
    fit(screen, progress=True)
    shown = capsys.readouterr().err
    assert "fit_transport" in shown
    assert "fitting loss" in shown


class PowerCutError(Exception):
    pass


def test_a_broken_run_goes_on_to_the_same_weights(screen, fitted, fit, refused, same, tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    report = _fit_transport._on_report

    def cut(bar, checkpoint, fingerprint, progress):
        report(bar, checkpoint, fingerprint, progress)
        if len(progress.history) == 7:
            raise PowerCutError("now")

    monkeypatch.setattr(_fit_transport, "_on_report", cut)
    with refused(screen, PowerCutError, "now"):
        fit(screen, checkpoint=path)
    monkeypatch.setattr(_fit_transport, "_on_report", report)
    iterations = []
    monkeypatch.setattr(
        _fit_transport, "_on_report", lambda *args: (iterations.append(args[3].history[-1].iteration), report(*args))
    )
    stored = fit(screen, checkpoint=path)
    assert min(iterations) > stored["history"]["iteration"].iloc[6]
    assert same(stored, fitted.uns["scgap"])
    with refused(screen, ValueError, "run.safetensors is a checkpoint of other data or settings", "delete it"):
        fit(screen, checkpoint=path, gap_weight=0.5)
    screen.X[0, 0] += 1.0
    assert screen.obs["split"].iloc[0] != "test"
    with refused(screen, ValueError, "a checkpoint of other data or settings"):
        fit(screen, checkpoint=str(path))
    path.write_bytes(path.read_bytes()[:100])
    with refused(screen, ValueError, "is not a checkpoint, or it is damaged", "Delete it"):
        fit(screen, checkpoint=path)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            {"target_col": "pertubation"},
            KeyError,
            ("'pertubation' is not in adata.obs", "Did you mean 'perturbation'?"),
        ),
        ({"target_col": ["perturbation", "drug2"]}, KeyError, ("'drug2' is not in adata.obs", "'perturbation'")),
        ({"target_col": []}, ValueError, ("target_col is empty",)),
        ({"dose_col": "dose"}, KeyError, ("'dose' is not in adata.obs", "found 'perturbation', 'dose_value'")),
        ({"group_col": "cell_lines"}, KeyError, ("'cell_lines'", "Did you mean 'cell_line'?")),
        ({"time_col": "time"}, KeyError, ("'time' is not in adata.obs",)),
        ({"split_col": "splt"}, KeyError, ("'splt'", "Did you mean 'split'?", "scgap.pp.split makes such a column")),
        (
            {"reference_key": "contol", "dose_col": None},
            ValueError,
            ("reference_key='contol' names no control cells", "found 'control', 'drug_1'", "Did you mean 'control'?"),
        ),
        ({"reference_key": "DMSO", "dose_col": None}, ValueError, ("'DMSO'", "'drug_3'", "Pass one of these.")),
        ({"layer": "untreatd"}, KeyError, ("'untreatd' is not in adata.layers", "Did you mean 'untreated'?")),
        (
            {"use_rep": "X_pca"},
            KeyError,
            ("'X_pca' is not in adata.obsm; found nothing. Compute it first",),
        ),
        ({"mod": "rna"}, ValueError, ("mod='rna' was given with an AnnData",)),
        ({"cost": "euclidian"}, ValueError, ("'euclidian'", "Did you mean 'euclidean'?", "ott.geometry.costs")),
        ({"n_iters": -1}, ValueError, ("n_iters=-1", "whole number")),
        ({"n_iters": 1e4}, ValueError, ("n_iters=10000.0", "whole number")),
        ({"batch_size": 0}, ValueError, ("batch_size=0", "whole number from 1")),
        ({"conditions_per_step": 0}, ValueError, ("conditions_per_step=0",)),
        ({"seed": -1}, ValueError, ("seed=-1", "from 0")),
        ({"seed": None}, ValueError, ("seed=None",)),
        ({"seed": 2**63}, ValueError, ("seed=9223372036854775808", "below 2**62")),
        ({"group_col": "split"}, ValueError, ("'split' as a column of the design", "tables have columns of that name")),
        ({"epsilon": 0.0}, ValueError, ("epsilon=0.0", "positive number")),
        ({"epsilon": "auto"}, ValueError, ("epsilon='auto'", "positive number")),
        ({"gap_epsilon": np.inf}, ValueError, ("gap_epsilon=inf",)),
        ({"gap_weight": -1.0}, ValueError, ("gap_weight=-1.0", "0 to leave it out")),
        ({"gap_weight": np.nan}, ValueError, ("gap_weight=nan",)),
        ({"learning_rate": 0.0}, ValueError, ("learning_rate=0.0",)),
        ({"hidden": ()}, ValueError, ("hidden=()", "at least one hidden layer")),
        ({"hidden": 16}, ValueError, ("hidden=16", "at least one hidden layer")),
        ({"hidden": np.array(16)}, ValueError, ("hidden=array(16)", "at least one hidden layer")),
        ({"hidden": (16, 0)}, ValueError, ("hidden=0", "from 1")),
        ({"key_added": "a/b"}, ValueError, ("'a/b' cannot be a key",)),
        ({"key_added": "simulation"}, ValueError, ("adata.uns['simulation'] exists and is not a map", "another name")),
        ({"key_added": "drug_descriptors"}, ValueError, ("exists and is not a map of scgap", "or delete it")),
        (
            {"checkpoint": "nowhere/run.safetensors"},
            ValueError,
            ("'nowhere/run.safetensors' is in a folder, 'nowhere', that does not exist", "Make it first"),
        ),
        ({"encoding": "drug_descriptor"}, KeyError, ("'drug_descriptor'", "Did you mean 'drug_descriptors'?")),
        ({"encoding": "simulation"}, ValueError, ("adata.uns['simulation'] is not an encoding",)),
        ({"encoding": []}, ValueError, ("encoding is an empty list",)),
        ({"encoding": {"drug_1": [1.0]}}, TypeError, ("encoding is a dict", "Pass a DataFrame")),
        (
            {"encoding": pd.DataFrame({"d": [1.0, 2.0]}, index=["drug_1", "drug_3"])},
            ValueError,
            ("encoding has no row for 'drug_2'", "'drug_1', 'drug_3'", "Add their descriptors"),
        ),
        (
            {"encoding": pd.DataFrame({"d": [1.0] * 4}, index=["drug_1", "drug_2", "drug_3", "drug_3"])},
            ValueError,
            ("'drug_3' twice",),
        ),
        (
            {"encoding": pd.DataFrame({"d": [1.0, 2.0, np.nan]}, index=["drug_1", "drug_2", "drug_3"])},
            ValueError,
            ("finite numbers", "'d'"),
        ),
    ],
)
def test_wrong_arguments_are_refused(screen, settings, refused, arguments, error, words):
    with refused(screen, error, *words):
        scgap.tl.fit_transport(screen, **{**settings, **arguments})


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_numbers_that_are_none_are_refused(screen, settings, refused, value, kind, copy):
    matrix = screen.X.copy()
    matrix[7, 3] = value
    screen.X = kind(matrix)
    with refused(screen, ValueError, "adata.X holds NaN or infinite values in 1 of 1500 cells"):
        scgap.tl.fit_transport(screen, copy=copy, **settings)


@pytest.mark.parametrize("value", [0.0, 1.25])
def test_cells_that_are_all_the_same_are_refused(screen, settings, refused, value):
    screen.X[:] = value
    with refused(screen, ValueError, "mean cost between perturbed cells of one condition is 0", "layer= or use_rep="):
        scgap.tl.fit_transport(screen, **settings)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-1.0, ("-1.0", "not negative")),
        ("-1", ("'-1'", "not negative")),
        (np.nan, ("nan", "every perturbed cell has one")),
        (np.inf, ("inf", "finite")),
        ("10 nM", ("'10 nM'", "not a number", "units left out")),
    ],
)
def test_doses_that_are_none_are_refused(screen, settings, refused, value, words):
    screen.obs["dose_value"] = screen.obs["dose_value"].astype(object)
    screen.obs.loc[screen.obs["perturbation"] == "drug_1", "dose_value"] = value
    with refused(screen, ValueError, "'dose_value' holds", *words):
        scgap.tl.fit_transport(screen, **settings)


def test_a_group_without_controls_is_refused(screen, settings, refused):
    obs = screen.obs
    adata = screen[~((obs["perturbation"] == "control") & (obs["cell_line"] == "line_2"))].copy()
    with refused(adata, ValueError, "No control cells to train on in 'line_2'", "Drop the group", "group_col"):
        scgap.tl.fit_transport(adata, **settings)


@pytest.mark.parametrize("part", ["test", "valid"])
def test_controls_that_do_not_train_are_none(screen, settings, refused, part):
    rows = (screen.obs["perturbation"] == "control") & (screen.obs["cell_line"] == "line_2")
    screen.obs.loc[rows, "split"] = part
    with refused(screen, ValueError, "No control cells to train on in 'line_2'"):
        scgap.tl.fit_transport(screen, **settings)


def test_conditions_with_too_few_cells_are_named(screen, settings, refused):
    obs = screen.obs
    rows = (obs["perturbation"] == "drug_2") & (obs["dose_value"] == 100) & (obs["cell_line"] == "line_1")
    adata = screen[~rows | (rows.cumsum() <= 4)].copy()
    with refused(adata, ValueError, "Fewer than 10 training cells in 'drug_2 100, line_1 (", "hold the condition out"):
        scgap.tl.fit_transport(adata, **settings)
    adata.obs.loc[rows.reindex(adata.obs_names), "split"] = "test"
    scgap.tl.fit_transport(adata, **{**settings, "n_iters": 0})


def test_groups_with_too_few_controls_are_named(screen, settings, refused):
    rows = (screen.obs["perturbation"] == "control") & (screen.obs["cell_line"] == "line_1")
    adata = screen[~rows | (rows.cumsum() <= 6)].copy()
    adata.obs["split"] = "train"
    with refused(adata, ValueError, "Fewer than 10 training cells in 'control, line_1 (6)'"):
        scgap.tl.fit_transport(adata, **settings)


def test_unknown_splits_are_refused(screen, settings, refused):
    screen.obs["split"] = screen.obs["split"].astype(str).replace("valid", "validation")
    with refused(screen, ValueError, "'split' holds 'validation'", "'train', 'valid' and 'test'", "scgap.pp.split"):
        scgap.tl.fit_transport(screen, **settings)


def test_nothing_to_train_on_is_refused(screen, settings, refused):
    screen.obs.loc[screen.obs["perturbation"] != "control", "split"] = "test"
    with refused(screen, ValueError, "No perturbed cells to train on", "split_col"):
        scgap.tl.fit_transport(screen, **settings)


def test_a_view_is_refused(screen, settings, refused):
    view = screen[:700]
    with refused(view, ValueError, "view", "adata.copy()", "copy=True"):
        scgap.tl.fit_transport(view, **settings)


@pytest.mark.parametrize("copy", [False, True])
def test_repeated_features_are_refused(screen, settings, refused, copy):
    screen.var_names = [*screen.var_names[:-1], "feature_0"]
    with refused(screen, ValueError, "not unique: 'feature_0'", "var_names_make_unique"):
        scgap.tl.fit_transport(screen, copy=copy, **settings)


def test_a_wrong_modality_is_refused(screen, settings, refused):
    mdata = MuData({"protein": screen})
    with refused(mdata, ValueError, "mod is None", "'protein'"):
        scgap.tl.fit_transport(mdata, **settings)
    with refused(mdata, KeyError, "'proteins' is not in mdata.mod", "Did you mean 'protein'?"):
        scgap.tl.fit_transport(mdata, mod="proteins", **settings)
    with refused(screen.X, TypeError, "data is an ndarray"):
        scgap.tl.fit_transport(screen.X, **settings)


@pytest.mark.parametrize("name", ["identity", "ceiling", "permuted_conditions"])
def test_names_of_baselines_are_no_names_of_maps(screen, settings, refused, name):
    with refused(screen, ValueError, f"key_added={name!r} is the name of a baseline", "Pass another name"):
        scgap.tl.fit_transport(screen, **{**settings, "key_added": name})


def test_flags_of_numpy_are_flags(screen, fit):
    assert json.loads(fit(screen, n_iters=0, standardise=np.True_)["params"])["standardise"] is True


@pytest.mark.parametrize("cost", ["euclidean", "sqeuclidean"])
def test_features_in_small_units_are_learned_as_well(screen, fit, cost):
    """Fractions, say: gradients have the unit of the cost."""
    found = [numbers(fit(screen, cost=cost, n_iters=0))]
    for unit in (2.0**-10, 2.0**-20):
        small = screen.copy()
        small.X = np.float32(unit) * screen.X
        found.append(numbers(fit(small, cost=cost)))
    np.testing.assert_allclose(found[2], found[1], atol=0.01)
    assert np.abs(found[1] - found[0]).max() > 0.05


def numbers(stored):
    """All weights of the network, in a row."""
    layers = stored["weights"]["network"]
    flat = pd.json_normalize(layers, sep=".").iloc[0]
    return np.concatenate([np.ravel(flat[name]) for name in sorted(flat.index)])
