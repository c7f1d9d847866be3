import json

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scipy.spatial.distance import cdist

import scgap
from scgap import _metrics
from scgap._model import get_model
from scgap._moving import make_mover, move_cells
from scgap.tl import _predict

QUERY = {"perturbation": "drug_3", "dose_value": 1_000.0}


def distance(x, y):
    pairs = _metrics.Distances(*(_metrics.pairwise_distances(*pair) for pair in ((x, y), (x, x), (y, y))))
    return _metrics.energy_distance(pairs)


def predicted(adata, condition=QUERY, **options):
    """The layer that a prediction writes."""
    return scgap.tl.predict(adata, condition, copy=True, **options).layers[options.get("key_added", "scgap")]


def controls(adata):
    return (adata.obs["perturbation"] == "control").to_numpy()


def test_sets_the_fields_that_are_documented(fitted, same):
    before = fitted.copy()
    assert scgap.tl.predict(fitted, QUERY) is None
    layer, moved = fitted.layers.pop("scgap"), fitted.obs.pop("scgap_transported")
    assert layer.dtype == np.float32
    assert moved.dtype == bool
    np.testing.assert_array_equal(moved, controls(fitted))
    np.testing.assert_array_equal(layer[~moved], fitted.X[~moved])
    assert (layer[moved] != fitted.X[moved]).any(axis=1).all()
    assert json.loads(fitted.uns["scgap"].pop("predictions")["scgap"]) == QUERY
    assert same(fitted, before)


def test_predictions_are_nearer_to_the_observed_cells(fitted):
    moved = predicted(fitted)[controls(fitted)]
    observed = fitted.X[((fitted.obs["perturbation"] == "drug_3") & (fitted.obs["dose_value"] == 1000)).to_numpy()]
    assert distance(moved, observed) < 0.7 * distance(fitted.X[controls(fitted)], observed)


def test_several_predictions_stand_side_by_side(fitted):
    scgap.tl.predict(fitted, QUERY, key_added="high")
    scgap.tl.predict(fitted, {**QUERY, "dose_value": 100}, key_added="low")
    assert {"high", "low"} <= set(fitted.layers)
    assert {"high_transported", "low_transported"} <= set(fitted.obs)
    assert {name: json.loads(query)["dose_value"] for name, query in fitted.uns["scgap"]["predictions"].items()} == {
        "high": 1_000.0,
        "low": 100,
    }
    assert not np.array_equal(fitted.layers["high"], fitted.layers["low"])
    np.testing.assert_array_equal(fitted.layers["high"], predicted(fitted))


def test_a_copy_leaves_the_input_alone(fitted, same):
    before = fitted.copy()
    result = scgap.tl.predict(fitted, QUERY, copy=True)
    assert same(fitted, before)
    view = fitted[:700]
    part = scgap.tl.predict(view, QUERY, copy=True)
    assert view.is_view
    assert same(fitted, before)
    np.testing.assert_allclose(part.layers["scgap"], result.layers["scgap"][:700], rtol=1e-5, atol=1e-5)


def test_each_cell_moves_alone(fitted):
    # Which other cells are moved with it, and what all others are, changes nothing.
    everything = predicted(fitted)
    source = np.flatnonzero(controls(fitted))[::7]
    mask = np.isin(np.arange(fitted.n_obs), source)
    fitted.X[~mask] += 1.0
    some = predicted(fitted, source=mask)
    np.testing.assert_allclose(some[mask], everything[mask], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(some[~mask], fitted.X[~mask])


def test_cells_to_move_may_be_named(fitted):
    treated = ((fitted.obs["perturbation"] == "drug_1") & (fitted.obs["cell_line"] == "line_2")).to_numpy()
    by_mask = scgap.tl.predict(fitted, QUERY, source=treated, copy=True)
    np.testing.assert_array_equal(by_mask.obs["scgap_transported"], treated)
    assert (by_mask.layers["scgap"][treated] != fitted.X[treated]).any()
    for source in (list(fitted.obs_names[treated]), fitted.obs["cell_line"].eq("line_2") & treated):
        np.testing.assert_array_equal(predicted(fitted, source=source), by_mask.layers["scgap"])


def test_without_controls_the_cells_to_move_are_given(fitted, refused):
    treated = fitted[~controls(fitted)].copy()
    with refused(
        treated, ValueError, "no control cells: none has reference_key='control' in 'perturbation'", "source=."
    ):
        scgap.tl.predict(treated, {"perturbation": "drug_1", "dose_value": 100.0})
    del treated.obs["perturbation"]
    with refused(treated, KeyError, "'perturbation' is not in adata.obs", "pass the cells to move as source="):
        scgap.tl.predict(treated, {"perturbation": "drug_1", "dose_value": 100.0})
    everything = predicted(fitted, source=~controls(fitted))[~controls(fitted)]
    found = predicted(treated, source=np.ones(treated.n_obs, bool))
    np.testing.assert_allclose(found, everything, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("line", ["line_1", "line_2"])
def test_a_group_restricts_the_source(fitted, line):
    everything = predicted(fitted)
    result = scgap.tl.predict(fitted, {**QUERY, "cell_line": line}, copy=True)
    moved = controls(fitted) & (fitted.obs["cell_line"] == line).to_numpy()
    np.testing.assert_array_equal(result.obs["scgap_transported"], moved)
    np.testing.assert_allclose(result.layers["scgap"][moved], everything[moved], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result.layers["scgap"][~moved], fitted.X[~moved])


def test_each_cell_moves_in_its_own_group(fitted):
    swapped = fitted.copy()
    swapped.obs["cell_line"] = fitted.obs["cell_line"].map({"line_1": "line_2", "line_2": "line_1"})
    moved = controls(fitted)
    assert (predicted(swapped)[moved] != predicted(fitted)[moved]).any(axis=1).all()


@pytest.mark.parametrize("condition", ["control", {"perturbation": "control"}, {**QUERY, "dose_value": 0}])
def test_control_leaves_every_cell_as_it_is(fitted, condition):
    result = scgap.tl.predict(fitted, condition, copy=True)
    np.testing.assert_array_equal(result.layers["scgap"], fitted.X)
    np.testing.assert_array_equal(result.obs["scgap_transported"], controls(fitted))


def test_doses_need_not_have_been_measured(fitted):
    low, between, high, beyond = (
        predicted(fitted, {**QUERY, "dose_value": dose})[controls(fitted)] for dose in (100, "300", 1_000.0, 5_000)
    )
    assert np.isfinite(beyond).all()
    middle = np.linalg.norm(between - low, axis=1)
    assert (middle > 0).all()
    # Half way on the logarithmic scale lies between.
    assert middle.mean() < np.linalg.norm(high - low, axis=1).mean()


@pytest.mark.parametrize(
    "condition",
    [
        pd.Series(QUERY),
        {"perturbation": np.str_("drug_3"), "dose_value": np.float32(1_000)},
        {"perturbation": ["drug_3"], "dose_value": [1_000]},
        {"perturbation": "drug_3", "dose_value": "1000"},
        {"perturbation": np.array(["drug_3"]), "dose_value": np.int64(1_000)},
    ],
)
def test_conditions_may_be_written_in_many_ways(fitted, condition):
    result = scgap.tl.predict(fitted, condition, copy=True)
    np.testing.assert_array_equal(result.layers["scgap"], predicted(fitted))
    json.loads(result.uns["scgap"]["predictions"]["scgap"])


def test_a_row_of_the_table_of_conditions_is_a_condition(fitted):
    table = fitted.uns["scgap"]["conditions"]
    row = table.set_index("condition_label", drop=False).loc["drug_3 1000, line_2"]
    expected = scgap.tl.predict(fitted, {**QUERY, "cell_line": "line_2"}, copy=True)
    np.testing.assert_array_equal(predicted(fitted, row), expected.layers["scgap"])
    # What is misspelt is still refused.
    with pytest.raises(KeyError, match="'splt' is not in the columns of the fit"):
        scgap.tl.predict(fitted, row.rename({"split": "splt"}))


def test_a_group_that_was_held_out_moves_as_the_other_one(screen, settings):
    scgap.pp.split(screen, holdout={"cell_line": ["line_2"]}, dose_col="dose_value", group_col="cell_line")
    scgap.tl.fit_transport(screen, **settings)
    assert json.loads(screen.uns["scgap"]["encoding"]["groups"]) == {"cell_line": ["line_1"]}
    with pytest.warns(
        UserWarning, match=r"'cell_line' 'line_2' was not trained on: each of its cells is moved by"
    ) as log:
        moved = predicted(screen)[controls(screen)]
    assert log[0].filename == __file__
    as_line_1 = screen.copy()
    as_line_1.obs["cell_line"] = "line_1"
    np.testing.assert_array_equal(predicted(as_line_1)[controls(screen)], moved)
    assert np.isfinite(scgap.tl.evaluate(screen, metrics="mean_error", baselines="identity")["value"]).all()
    scgap.tl.predict(screen, {**QUERY, "cell_line": "line_1"})  # and no warning
    # A group that the fit never met is no other case.
    screen.obs["cell_line"] = screen.obs["cell_line"].cat.rename_categories({"line_2": "line_9"})
    with pytest.warns(UserWarning, match=r"'cell_line' 'line_9' was not trained on.*Trained were 'line_1'\."):
        np.testing.assert_array_equal(predicted(screen)[controls(screen)], moved)


def test_controls_of_a_group_without_perturbed_cells_move(screen, settings):
    obs = screen.obs
    adata = screen[(obs["cell_line"] == "line_1") | (obs["perturbation"] == "control")].copy()
    scgap.tl.fit_transport(adata, **{**settings, "n_iters": 0})
    with pytest.warns(UserWarning, match=r"'cell_line' 'line_2' was not trained on"):
        result = scgap.tl.predict(adata, QUERY, copy=True)
    np.testing.assert_array_equal(result.obs["scgap_transported"], controls(adata))


def test_combinations_are_sets(pairs):
    both = predicted(pairs, "A+B")
    for condition in ("B+A", " A + B ", {"genes": "B+A"}, {"genes": ["A", "B"]}, "none+A+B", "A+B+A"):
        np.testing.assert_array_equal(predicted(pairs, condition), both)
    with pytest.raises(KeyError, match="No vector for"):
        scgap.tl.predict(pairs, " + ")
    single = predicted(pairs, "A")
    assert (single != both)[pairs.obs["genes"] == "none"].any(axis=1).all()
    assert np.isfinite(predicted(pairs, "A+B+C")).all()  # never measured together
    np.testing.assert_array_equal(predicted(pairs, "none"), pairs.X)
    np.testing.assert_array_equal(predicted(pairs, "none+none"), pairs.X)


def test_two_columns_each_with_its_dose(screen, settings):
    control = controls(screen)
    screen.obs["one"], screen.obs["dose_one"] = screen.obs["perturbation"], screen.obs["dose_value"]
    screen.obs["two"] = np.where(control, "control", "drug_1")
    screen.obs["dose_two"] = np.where(control, 0.0, 5.0)
    design = {"target_col": ["one", "two"], "dose_col": ["dose_one", "dose_two"]}
    scgap.tl.fit_transport(screen, **{**settings, **design})
    expected = predicted(screen, {"one": "drug_2", "dose_one": 100, "two": "drug_1", "dose_two": 5})
    swapped = {"one": "drug_1", "dose_one": 5, "two": "drug_2", "dose_two": 100}
    np.testing.assert_array_equal(predicted(screen, swapped), expected)
    other_dose = {**swapped, "dose_two": 1_000}
    assert (predicted(screen, other_dose) != expected)[control].any()
    # The dose of a column that holds no perturbation is not asked for; that of one that does, is.
    alone = predicted(screen, {"one": "drug_2", "dose_one": 100})
    written = {"one": "drug_2", "dose_one": 100, "two": "control", "dose_two": np.nan}
    np.testing.assert_array_equal(predicted(screen, written), alone)
    assert (alone != expected)[control].any()
    with pytest.raises(ValueError, match="leaves 'dose_two' open"):
        scgap.tl.predict(screen, {"one": "drug_2", "dose_one": 100, "two": "drug_1"})


@pytest.mark.parametrize(
    "convert",
    [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, lambda X: X.astype(np.float64), lambda X: X.astype(int)],
)
def test_the_kind_of_matrix_does_not_matter(fitted, convert):
    fitted.X = np.round(fitted.X)
    expected = predicted(fitted)
    fitted.X = convert(fitted.X)
    np.testing.assert_array_equal(predicted(fitted), expected)


def test_the_order_of_features_does_not_matter(fitted):
    expected = predicted(fitted)
    order = np.random.default_rng(0).permutation(fitted.n_vars)
    np.testing.assert_array_equal(predicted(fitted[:, order].copy()), expected[:, order])


def test_the_order_of_cells_does_not_matter(fitted):
    expected = predicted(fitted)
    order = np.random.default_rng(0).permutation(fitted.n_obs)
    np.testing.assert_allclose(predicted(fitted[order].copy()), expected[order], rtol=1e-5, atol=1e-5)


def test_missing_and_unknown_features_are_refused(fitted, refused):
    fewer = fitted[:, 2:].copy()
    with refused(fewer, ValueError, "lacks 2 of the 20 features", "'feature_0', 'feature_1'", "order does not matter"):
        scgap.tl.predict(fewer, QUERY)
    other = AnnData(np.zeros((1_500, 1), np.float32), obs=fitted.obs, var=pd.DataFrame(index=["extra"]))
    more = AnnData(np.hstack([fitted.X, other.X]), obs=fitted.obs, var=pd.DataFrame(index=[*fitted.var_names, "extra"]))
    more.uns["scgap"] = fitted.uns["scgap"]
    with refused(more, ValueError, "1 features that the map was not fitted on: 'extra'", "uns[key]['var_names']"):
        scgap.tl.predict(more, QUERY)
    # What the message says to do.
    np.testing.assert_array_equal(predicted(more[:, more.uns["scgap"]["var_names"]].copy()), predicted(fitted))


def test_other_objects_are_predicted(fitted):
    new = fitted[controls(fitted)][:50, ::-1].copy()
    new.X = sparse.csr_matrix(new.X + 0.5)
    new.obs = new.obs[["perturbation", "dose_value", "cell_line"]]
    assert np.isfinite(predicted(new)).all()


@pytest.fixture
def expression(screen):
    """The screen made expression-like: nonnegative, 40 features, with a PCA of as many components as `screen` has."""
    mixing = np.random.default_rng(0).normal(size=(20, 40)) / 4
    X = np.maximum(screen.X @ mixing + np.random.default_rng(1).normal(0, 0.3, size=(1_500, 40)), 0.0)
    adata = AnnData(X.astype(np.float32), obs=screen.obs)
    sc.pp.pca(adata, n_comps=20)
    return adata


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix])
def test_pca_is_decoded_to_features(expression, settings, convert):
    X = expression.X.copy()
    expression.X = convert(X)
    scgap.tl.fit_transport(expression, use_rep="X_pca", **settings)
    layer, source = predicted(expression), controls(expression)
    np.testing.assert_array_equal(layer[~source], X[~source])
    model = get_model(expression, None, "scgap")
    points = expression.obsm["X_pca"][source]
    moved = move_cells(make_mover(model), points, expression.obs[source], QUERY).points
    expected = X[source] + (moved - points) @ expression.varm["PCs"].T
    assert (expected < -0.01).any()
    np.testing.assert_allclose(layer[source], np.maximum(expected, 0.0), atol=1e-4)
    assert np.abs(layer - X)[source].mean() > 0.01
    np.testing.assert_array_equal(predicted(expression, "control"), X)


def test_pca_of_other_cells_is_not_needed(expression, settings):
    scgap.tl.fit_transport(expression, use_rep="X_pca", **settings)
    expected = predicted(expression)
    new = AnnData(expression.X[:, ::-1], obs=expression.obs, var=expression.var[::-1])
    new.uns["scgap"] = expression.uns["scgap"]
    np.testing.assert_allclose(predicted(new)[:, ::-1], expected, atol=1e-5)


def test_an_embedding_without_decoder_warns(screen, settings, same):
    screen.obsm["X_other"] = screen.X[:, ::-1].copy()
    scgap.tl.fit_transport(screen, use_rep="X_other", **settings)
    before = screen.copy()
    with pytest.warns(UserWarning, match=r"'X_other' has no decoder.*adata.obsm\['X_scgap'\].*no layer was written"):
        scgap.tl.predict(screen, QUERY)
    moved, found = controls(screen), screen.obsm.pop("X_scgap")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[~moved], screen.obsm["X_other"][~moved])
    assert (found[moved] != screen.obsm["X_other"][moved]).any(axis=1).all()
    np.testing.assert_array_equal(screen.obs.pop("scgap_transported"), moved)
    del screen.uns["scgap"]["predictions"]
    assert same(screen, before)
    with pytest.warns(UserWarning, match="no decoder"):
        scgap.tl.predict(screen, "control")
    np.testing.assert_array_equal(screen.obsm["X_scgap"], screen.obsm["X_other"])


def test_an_unseen_perturbation_needs_descriptors(fitted, encoded, refused):
    unseen = {"perturbation": "drug_9", "dose_value": 100.0}
    with refused(fitted, KeyError, "No vector for 'drug_9'", "found 'drug_1'", "encoding=", "a row for it"):
        scgap.tl.predict(fitted, unseen)
    with refused(encoded, KeyError, "No vector for 'drug_9'", "rows of the encoding", "encoding="):
        scgap.tl.predict(encoded, unseen)
    # drug_2 was held out whole, and is known by its descriptors.
    assert (encoded.obs["split"][encoded.obs["perturbation"] == "drug_2"] == "test").all()
    drugs = [predicted(encoded, {**QUERY, "perturbation": f"drug_{i}"})[controls(encoded)] for i in (1, 2, 3)]
    assert np.isfinite(drugs[1]).all()
    assert min(cdist(drugs[1], drugs[i]).diagonal().mean() for i in (0, 2)) > 0.01


def test_descriptors_and_not_names_decide(encoded, settings):
    # With the descriptors of drug_1, drug_2, which no cell trains, is drug_1.
    table = encoded.uns["drug_descriptors"].copy()
    table.loc["drug_2"] = table.loc["drug_1"]
    scgap.tl.fit_transport(encoded, encoding=table, **{**settings, "n_iters": 20})
    one, twin, other = (predicted(encoded, {**QUERY, "perturbation": f"drug_{i}"}) for i in (1, 2, 3))
    np.testing.assert_array_equal(one, twin)
    assert (one != other).any()


def test_modalities_of_a_mudata(fitted):
    expected = predicted(fitted)
    protein = AnnData(fitted.X, obs=pd.DataFrame(index=fitted.obs_names), var=fitted.var, uns=fitted.uns)
    mdata = MuData({"protein": protein})
    mdata.obs = fitted.obs
    assert scgap.tl.predict(mdata, QUERY, mod="protein", key_added="moved") is None
    np.testing.assert_array_equal(mdata["protein"].layers["moved"], expected)
    assert list(mdata["protein"].obs) == ["moved_transported"]
    copied = scgap.tl.predict(mdata, QUERY, mod="protein", copy=True)
    assert isinstance(copied, MuData)
    np.testing.assert_array_equal(copied["protein"].layers["scgap"], expected)
    assert "scgap" not in mdata["protein"].layers


@pytest.mark.parametrize(
    ("condition", "arguments", "error", "words"),
    [
        (QUERY, {"key": "scgp"}, KeyError, ("'scgp' is not in adata.uns", "Did you mean 'scgap'?", "Fit a map first")),
        (QUERY, {"key_added": "a/b"}, ValueError, ("'a/b' cannot be a key",)),
        (QUERY, {"mod": "rna"}, ValueError, ("mod='rna' was given with an AnnData",)),
        (
            "drug_3",
            {},
            ValueError,
            ("leaves 'dose_value' open", ": 'drug_3 100', 'drug_3 1000'.", "measured or not", '"expand" or "marginal"'),
        ),
        ({**QUERY, "dose_value": None}, {}, ValueError, ("leaves 'dose_value' open",)),
        ({**QUERY, "dose_value": np.nan}, {}, ValueError, ("leaves 'dose_value' open",)),
        ({**QUERY, "dose_value": pd.NA}, {}, ValueError, ("leaves 'dose_value' open",)),
        (
            {"perturbation": "drug_3", "cell_line": "line_2"},
            {},
            ValueError,
            ("leaves 'dose_value' open", ": 'drug_3 100, line_2', 'drug_3 1000, line_2'."),
        ),
        ({**QUERY, "dose_value": -1}, {}, ValueError, ("'dose_value' holds -1", "not negative")),
        ({**QUERY, "dose_value": "high"}, {}, ValueError, ("'dose_value' holds 'high'", "not a number")),
        ({**QUERY, "dose_value": [1, 2]}, {}, ValueError, ("2 doses", "1 perturbations, 'drug_3'")),
        ({"dose_value": 100}, {}, ValueError, ("leaves 'perturbation' open", "'drug_1 100', 'drug_2 100'")),
        ({"dose_value": 50}, {}, ValueError, ("No measured condition has dose_value=50", "Name a perturbation")),
        ({}, {}, ValueError, ("leaves 'perturbation', 'dose_value' open",)),
        ("", {}, ValueError, ("names no condition", "'drug_1 100, line_1'")),
        (
            {"drug": "drug_3", "dose_value": 1},
            {},
            KeyError,
            ("'drug' is not in the columns of the fit", "'dose_value'"),
        ),
        (["drug_3"], {}, TypeError, ("condition is a list", "mapping from columns to values", "'cell_line'")),
        (3, {}, TypeError, ("condition is an int",)),
        (
            {**QUERY, "perturbation": "drg_3"},
            {},
            KeyError,
            ("'drg_3' is not in the perturbations", "Did you mean 'drug_3'?"),
        ),
        ({**QUERY, "cell_line": "line_9"}, {}, ValueError, ("no control cells in the group 'line_9'", "'line_2'")),
        (QUERY, {"source": []}, ValueError, ("source selects no cells",)),
        (QUERY, {"source": np.zeros(1_500, bool)}, ValueError, ("source selects no cells",)),
        (QUERY, {"source": np.ones(10, bool)}, ValueError, ("shape (10,)", "each of 1500 cells")),
        (QUERY, {"source": ["nobody"]}, KeyError, ("'nobody'", "not in adata.obs_names")),
        (QUERY, {"source": "cell_0"}, TypeError, ("source is a str",)),
        (
            {**QUERY, "cell_line": "line_1"},
            {"source": np.ones(1_500, bool)},
            ValueError,
            ("names the group 'line_1'", "are not of it", "leave it out of condition"),
        ),
    ],
)
@pytest.mark.parametrize("copy", [False, True])
def test_wrong_questions_are_refused(fitted, refused, condition, arguments, error, words, copy):
    with refused(fitted, error, *words):
        scgap.tl.predict(fitted, condition, copy=copy, **arguments)


def test_cells_without_a_group_are_not_moved(fitted, refused):
    fitted.obs["cell_line"] = fitted.obs["cell_line"].astype(object)
    source = controls(fitted)
    fitted.obs.loc[fitted.obs_names[source][:2], "cell_line"] = np.nan
    query = {name: value for name, value in QUERY.items() if name != "cell_line"}
    with refused(fitted, ValueError, "source selects 2 cells without a label in 'cell_line'", "fill it in"):
        scgap.tl.predict(fitted, query, source=source)
    with refused(fitted, ValueError, "source selects 2 cells without a label in 'cell_line'"):
        scgap.tl.screen(fitted, [query], source=source)
    scgap.tl.predict(fitted, query)  # all controls of a group: those without are none
    moved = (fitted.layers["scgap"] != fitted.X).any(axis=1)
    np.testing.assert_array_equal(moved, source & fitted.obs["cell_line"].notna().to_numpy())


def test_wrong_objects_are_refused(fitted, refused):
    view = fitted[:700]
    with refused(view, ValueError, "view", "adata.copy()", "copy=True"):
        scgap.tl.predict(view, QUERY)
    mdata = MuData({"protein": fitted})
    with refused(mdata, ValueError, "mod is None", "'protein'"):
        scgap.tl.predict(mdata, QUERY)
    with refused(mdata, KeyError, "'rna' is not in mdata.mod"):
        scgap.tl.predict(mdata, QUERY, mod="rna")
    with refused(fitted.X, TypeError, "data is an ndarray"):
        scgap.tl.predict(fitted.X, QUERY)


def test_wrong_cells_are_refused(fitted, refused):
    lacking = fitted.copy()
    del lacking.obs["cell_line"]
    with refused(lacking, KeyError, "'cell_line' is not in adata.obs"):
        scgap.tl.predict(lacking, QUERY)
    missing = fitted.copy()
    missing.X[5, 5] = np.nan
    with refused(missing, ValueError, "adata.X holds NaN or infinite values in 1 of 1500 cells"):
        scgap.tl.predict(missing, QUERY)
    repeated = fitted.copy()
    repeated.var_names = ["feature_1", *repeated.var_names[1:]]
    with refused(repeated, ValueError, "not unique: 'feature_1'"):
        scgap.tl.predict(repeated, QUERY)


def test_a_layer_that_is_gone_is_missed(screen, settings, refused):
    screen.layers["raw"] = screen.X.copy()
    scgap.tl.fit_transport(screen, layer="raw", **{**settings, "n_iters": 0})
    del screen.layers["raw"]
    with refused(screen, KeyError, "'raw' is not in adata.layers", "'untreated'"):
        scgap.tl.predict(screen, QUERY)


def test_the_fitted_layer_is_not_overwritten(screen, settings, refused):
    screen.layers["measured"] = screen.X.copy()
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0}, layer="measured")
    with refused(screen, ValueError, "adata.layers['measured'], that the map was fitted on", "another name"):
        scgap.tl.predict(screen, QUERY, key_added="measured")


def test_the_fitted_embedding_is_not_overwritten(screen, settings, refused):
    screen.obsm["X_scgap"] = screen.X.copy()
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0}, use_rep="X_scgap")
    with refused(screen, ValueError, "adata.obsm['X_scgap'], that the map was fitted on", "another name"):
        scgap.tl.predict(screen, QUERY)


def test_what_is_no_prediction_is_not_overwritten(fitted, settings, refused):
    with refused(fitted, ValueError, "adata.layers['untreated'] exists and is not a prediction", "key_added"):
        scgap.tl.predict(fitted, QUERY, key_added="untreated")
    scgap.tl.predict(fitted, QUERY)
    scgap.tl.predict(fitted, {**QUERY, "dose_value": 100.0})  # a prediction may be
    scgap.tl.fit_transport(fitted, **{**settings, "n_iters": 0})
    scgap.tl.predict(fitted, QUERY)  # also one of the map before
    fitted.obsm["X_moved"] = fitted.X[:, :3].copy()
    scgap.tl.fit_transport(fitted, **{**settings, "n_iters": 0}, use_rep="X_moved", key_added="other")
    fitted.obsm["X_new"] = fitted.obsm["X_moved"]
    with refused(fitted, ValueError, "adata.obsm['X_new'] exists and is not a prediction"):
        scgap.tl.predict(fitted, QUERY, key="other", key_added="new")


def test_predictions_stay_with_one_of_two_objects_that_share_a_map(fitted):
    other = fitted.copy()
    other.uns["scgap"] = fitted.uns["scgap"]
    scgap.tl.predict(fitted, QUERY)
    assert "predictions" not in other.uns["scgap"]
    scgap.tl.predict(other, QUERY, key_added="moved")
    assert list(fitted.uns["scgap"]["predictions"]) == ["scgap"]


@pytest.mark.parametrize("use_rep", [None, "X_pca"])
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix])
def test_chunks_change_nothing(expression, settings, monkeypatch, use_rep, convert):
    expression.X = convert(expression.X)
    scgap.tl.fit_transport(expression, use_rep=use_rep, **{**settings, "n_iters": 20})
    reversed_features = expression[:, ::-1].copy()
    expected, of_reversed = predicted(expression), predicted(reversed_features)
    np.testing.assert_allclose(of_reversed[:, ::-1], expected, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(_predict, "CHUNK", 70)
    np.testing.assert_allclose(predicted(expression), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(predicted(reversed_features), of_reversed, rtol=1e-5, atol=1e-5)
