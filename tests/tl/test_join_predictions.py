import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression

import scgap
from scgap import _metrics

DESIGN = {"dose_col": "dose_value", "group_col": "cell_line"}


@pytest.fixture
def predicted(screen):
    """Other cells of the same conditions, as if some tool had predicted them."""
    return screen[(screen.obs["split"] == "train") & (screen.obs["perturbation"] != "control")].copy()


@pytest.fixture
def joined(screen, predicted):
    return join(screen, predicted)


def join(observed, predicted, **options):
    return scgap.tl.join_predictions(observed, predicted, **{**DESIGN, "split_col": "split", **options})


def cells(joined, population):
    return joined.X[(joined.obs["population"] == population).to_numpy()]


def test_cells_are_those_of_the_two_objects(screen, predicted, joined):
    test = screen[screen.obs["split"] == "test"]
    controls = (test.obs["perturbation"] == "control").sum()
    assert joined.obs["origin"].value_counts().to_dict() == {
        "predicted": predicted.n_obs,
        "observed": test.n_obs - controls,
        "control": controls,
    }
    is_predicted = (joined.obs["origin"] == "predicted").to_numpy()
    names = joined.obs_names.to_numpy()
    assert (names[~is_predicted] == test.obs_names).all()
    assert (names[is_predicted] == "predicted_" + predicted.obs_names).all()
    np.testing.assert_array_equal(joined.X, np.concatenate([test.X, predicted.X]))
    assert joined.X.dtype == np.float32
    pd.testing.assert_frame_equal(joined.var, screen.var)
    columns = ["perturbation", "dose_value", "cell_line"]
    expected = pd.concat([test.obs[columns], predicted.obs[columns]])
    assert (joined.obs[columns].astype(str).to_numpy() == expected.astype(str).to_numpy()).all()


def test_labels_say_what_was_done_and_where_a_cell_comes_from(joined):
    assert list(joined.obs)[-3:] == ["origin", "perturbation_label", "population"]
    drugs = [f"drug_{i} {dose}" for i in (1, 2, 3) for dose in (100, 1000)]
    assert set(joined.obs["perturbation_label"]) == {"control", *drugs}
    assert set(joined.obs["population"]) == {
        *(f"control, line_{i}" for i in (1, 2)),
        *(f"{origin} {drug}, line_{i}" for origin in ("observed", "predicted") for drug in drugs for i in (1, 2)),
    }
    for row in joined.obs.itertuples():
        label = "control" if row.perturbation == "control" else f"{row.perturbation} {row.dose_value:g}"
        assert row.perturbation_label == label
        prefix = "" if row.origin == "control" else f"{row.origin} "
        assert row.population == f"{prefix}{label}, {row.cell_line}"


def test_the_screen_of_a_map_goes_in(fitted):
    screened = scgap.tl.screen(fitted, progress=False)
    joined = scgap.tl.join_predictions(fitted, screened, **DESIGN)
    is_predicted = (joined.obs["origin"] == "predicted").to_numpy()
    np.testing.assert_array_equal(joined.X[is_predicted], screened.X)
    np.testing.assert_array_equal(joined.X[~is_predicted], fitted.X)
    expected = "predicted " + screened.obs["condition_label"].astype(str)
    assert joined.obs["population"][is_predicted].to_list() == expected.to_list()


def test_combinations_of_a_screen_go_in(pairs):
    design = {"target_col": "genes", "reference_key": "none", "group_col": "line", "sep": "+"}
    screened = scgap.tl.screen(pairs, [{"genes": "B+A"}, {"genes": "C"}], n_cells=20, progress=False)
    with pytest.warns(UserWarning, match="left out \\(not predicted: 'A, line_1'"):
        joined = scgap.tl.join_predictions(pairs, screened, **design)
    assert set(joined.obs["perturbation_label"]) == {"control", "A + B", "C"}
    assert set(joined.obs["genes"]) == {"none", "A+B", "C"}


def test_predicted_conditions_are_written_as_the_observed_ones(screen, predicted):
    screen.obs["dose_value"] = screen.obs["dose_value"].astype(np.float32) / 1_000
    predicted.obs["dose_value"] = (predicted.obs["dose_value"] / 1_000).astype(str)
    predicted.obs["perturbation"] = predicted.obs["perturbation"].astype(str)
    joined = join(screen, predicted)
    assert joined.obs["dose_value"].dtype == np.float32
    assert joined.obs["perturbation"].dtype == "category"
    assert set(joined.obs["dose_value"]) == {np.float32(0.0), np.float32(0.1), np.float32(1.0)}
    assert "predicted drug_1 0.1, line_1" in set(joined.obs["population"])


def test_controls_are_those_of_the_data(screen, predicted, joined, same):
    controls = screen[screen.obs["perturbation"] == "control"].copy()
    controls.X[:] = np.nan
    controls.obs_names = "other_" + controls.obs_names
    assert same(join(screen, anndata.concat([predicted, controls])), joined)


def test_features_may_stand_in_another_order_and_be_sparse(screen, predicted, joined, same):
    assert same(join(screen, predicted[:, ::-1].copy()), joined)
    screen.X, predicted.X = sparse.csr_matrix(screen.X), sparse.csr_array(predicted.X)
    assert same(join(screen, predicted), joined)


def test_a_layer_and_a_modality(screen, predicted, joined, same):
    screen.layers["measured"] = screen.X
    screen.X = np.zeros_like(screen.X)
    assert same(join(screen, predicted, layer="measured"), joined)
    rna = AnnData(screen.layers["measured"], obs=pd.DataFrame(index=screen.obs_names), var=screen.var)
    mdata = MuData({"rna": rna})
    mdata.obs = screen.obs
    assert same(join(mdata, predicted, mod="rna"), joined)


def test_the_result_can_be_written(joined, same, tmp_path):
    joined.write_h5ad(tmp_path / "joined.h5ad")
    read = anndata.read_h5ad(tmp_path / "joined.h5ad")
    np.testing.assert_array_equal(read.X, joined.X)
    assert (read.obs["population"] == joined.obs["population"]).all()


def test_what_is_on_one_side_alone_is_left_out_with_a_warning(screen, predicted):
    of = screen.obs["perturbation"]
    unobserved = (
        (of == "drug_1") & (screen.obs["dose_value"] == 100) & (screen.obs["cell_line"] == "line_1")
    ).to_numpy()
    uncontrolled = ((of == "control") & (screen.obs["cell_line"] == "line_2")).to_numpy()
    few = screen[~unobserved & ~uncontrolled].copy()
    predicted = predicted[predicted.obs["perturbation"] != "drug_2"].copy()
    with pytest.warns(UserWarning, match="Conditions are left out") as log:
        joined = join(few, predicted)
    assert len(log) == 1
    message = str(log[0].message)
    assert "not predicted: 'drug_2 100, line_1', 'drug_2 1000, line_1', 'drug_2 100, line_2'" in message
    assert "not observed: 'drug_1 100, line_1';" in message
    assert "no control cells of the group: 'drug_1 100, line_2', 'drug_1 1000, line_2'" in message
    assert log[0].filename == __file__
    kept = {"drug_1 1000", "drug_3 100", "drug_3 1000"}
    assert set(joined.obs["perturbation_label"]) == {"control", *kept}
    assert list(joined.obs["cell_line"].cat.categories) == ["line_1"]  # an empty one would be a group to other tools
    sides = [
        set(joined.obs["perturbation_label"][joined.obs["origin"] == origin]) for origin in ("observed", "predicted")
    ]
    assert sides == [kept, kept]


def test_distances_of_pertpy(joined):
    from pertpy.tools import Distance

    joined.layers["features"] = joined.X
    selected = "observed drug_1 1000, line_1"
    distances = Distance("edistance", layer_key="features").onesided_distances(
        joined, groupby="population", selected_group=selected, show_progressbar=False
    )
    assert set(distances.index) == set(joined.obs["population"])
    target = cells(joined, selected)
    for population in ("predicted drug_1 1000, line_1", "control, line_1"):
        mapped = cells(joined, population)
        between, within, of_target = cdist(mapped, target), cdist(mapped, mapped), cdist(target, target)
        expected = 2 * between.mean() - within.mean() - of_target.mean()
        np.testing.assert_allclose(distances[population], expected, rtol=1e-4)
        # Ours leaves out the pairs of a cell with itself: the mean over the others is larger by n / (n - 1).
        unbiased = _metrics.energy_distance(_metrics.Distances(between, within, of_target))
        bias = within.sum() / (len(mapped) ** 2 * (len(mapped) - 1)) + of_target.sum() / (
            len(target) ** 2 * (len(target) - 1)
        )
        np.testing.assert_allclose(distances[population], unbiased + bias, rtol=1e-4)
    assert distances["predicted drug_1 1000, line_1"] < 0.5 * distances["control, line_1"]


def test_pairwise_distances_of_pertpy(joined):
    from pertpy.tools import Distance

    joined.layers["features"] = joined.X
    part = joined[joined.obs["cell_line"] == "line_1"].copy()
    table = Distance("euclidean", layer_key="features").pairwise(part, groupby="population", show_progressbar=False)
    for label in set(part.obs["perturbation_label"]) - {"control"}:
        one, other = f"observed {label}, line_1", f"predicted {label}, line_1"
        expected = np.linalg.norm(cells(part, one).mean(0) - cells(part, other).mean(0))
        np.testing.assert_allclose(table.loc[one, other], expected, rtol=1e-4)


def test_comparisons_of_pertpy(joined):
    from pertpy.tools import PerturbationComparison

    control, real, simulated = (
        cells(joined, name)
        for name in ("control, line_1", "observed drug_1 1000, line_1", "predicted drug_1 1000, line_1")
    )
    comparison = PerturbationComparison()
    classifier = LogisticRegression(max_iter=5_000)
    good = comparison.compare_classification(real, simulated, control, clf=classifier)
    bad = comparison.compare_classification(real, control, control, clf=classifier)
    assert bad < 0.5 < good


def test_perturbation_spaces_of_pertpy(joined):
    from pertpy.tools import PseudobulkSpace

    space = PseudobulkSpace()
    moved = space.compute_control_diff(
        joined, target_col="perturbation_label", reference_key="control", group_col="cell_line"
    )
    bulk = space.compute(moved, target_col="population", mode="mean")
    label = "predicted drug_2 100, line_2"
    expected = cells(joined, label).mean(0) - cells(joined, "control, line_2").mean(0)
    np.testing.assert_allclose(bulk.X[bulk.obs["population"] == label][0], expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # of cell-eval and what it calls
def test_cell_eval_takes_the_pair(screen, predicted, tmp_path):
    cell_eval = pytest.importorskip("cell_eval")
    for adata in (screen, predicted):
        adata.X = np.log1p(np.exp(adata.X))  # no negative values, as expression has none
    joined = join(screen, predicted)
    part = joined[joined.obs["cell_line"] == "line_1"]
    origin = part.obs["origin"]
    pair = {"adata_real": part[origin != "predicted"].copy(), "adata_pred": part[origin != "observed"].copy()}

    results, _ = cell_eval.MetricsEvaluator(
        **pair, control_pert="control", pert_col="perturbation_label", num_threads=1, outdir=str(tmp_path)
    ).compute(profile="minimal", write_csv=False, break_on_error=True)
    table = results.to_pandas().set_index("perturbation")
    assert set(table.index) == set(part.obs["perturbation_label"]) - {"control"}
    assert (table["pearson_delta"] > 0.5).all()
    for label, row in table.iterrows():
        control, observed, other = (
            cells(joined, f"{name}, line_1").mean(0, dtype=np.float64)
            for name in ("control", f"observed {label}", f"predicted {label}")
        )
        np.testing.assert_allclose(row["mae"], np.abs(other - observed).mean(), rtol=1e-4)
        expected = np.corrcoef(other - control, observed - control)[0, 1]
        np.testing.assert_allclose(row["pearson_delta"], expected, rtol=1e-3)


def test_wrong_arguments_are_refused(screen, predicted, refused):
    for arguments, error, words in (
        ({"layer": "counts"}, KeyError, ("'counts' is not in adata.layers",)),
        ({"dose_col": "dose"}, KeyError, ("'dose' is not in adata.obs", "Did you mean")),
        ({"reference_key": "controls"}, ValueError, ("names no control cells", "Did you mean 'control'?")),
        ({"split_col": "cell_line"}, ValueError, ("The split column 'cell_line'",)),
        ({"mod": "rna"}, ValueError, ("mod='rna' was given with an AnnData",)),
    ):
        with refused(screen, error, *words):
            join(screen, predicted, **arguments)


def test_nothing_to_join_is_refused(screen, predicted, refused):
    controls = screen[screen.obs["perturbation"] == "control"].copy()
    with refused(controls, ValueError, "No condition can be joined", "not predicted: 'drug_1 100, line_1'"):
        join(screen, controls)
    with refused(predicted, ValueError, "No condition can be joined", "not observed: 'drug_1 100, line_1'"):
        join(controls, predicted)


def test_columns_of_the_result_are_not_written_over(screen, predicted, refused):
    for adata in (screen, predicted):
        adata.obs = adata.obs.rename(columns={"cell_line": "population"})
    with refused(screen, ValueError, "columns 'population' of its own", "otherwise"):
        join(screen, predicted, group_col="population")


def test_doses_in_categories_of_single_precision_stay_what_they_are(screen, predicted):
    for adata in (screen, predicted):
        adata.obs["dose_value"] = (adata.obs["dose_value"] / 1_000).astype(np.float32).astype("category")
    joined = join(screen, predicted)
    doses = joined.obs.loc[joined.obs["origin"] == "predicted", "dose_value"].astype(float)
    assert sorted(doses.unique()) == [np.float32(0.1), 1.0]
