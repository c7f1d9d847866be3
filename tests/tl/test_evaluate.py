import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from mudata import MuData
from threadpoolctl import threadpool_info, threadpool_limits

import scgap
from scgap import _scoring
from scgap._baselines import BASELINES
from scgap._comparison import METRICS, Metric
from scgap._conditions import Condition
from scgap._moving import Moved
from scgap._reference import make_references
from scgap.tl import _evaluate

CONTROL = Condition(())
KEYS = ["condition", "method", "metric"]
METHODS = {"scgap", *BASELINES, "permuted_conditions", "ceiling"}
FEW = ["energy_distance", "mean_error", "std_error", "r2", "pearson_delta"]


def energy(table):
    """Mean energy distance of each method over conditions."""
    return table[table["metric"] == "energy_distance"].groupby("method")["value"].mean()


def of_condition(adata, perturbation, dose, line):
    """Test cells of one condition."""
    obs = adata.obs
    is_asked = (obs["perturbation"] == perturbation) & (obs["dose_value"] == dose) & (obs["cell_line"] == line)
    return np.flatnonzero(is_asked & (obs["split"] == "test"))


def test_the_table_is_tidy(fitted):
    table = scgap.tl.evaluate(fitted)
    assert list(table) == [
        *("condition", "split", "support", "method", "metric", "value", "n_cells", "baseline", "reconstruction"),
        *("ceiling", "score", "reason", "expected_error"),
    ]
    assert (table["expected_error"].notna() == (table["method"] == "scgap")).all()
    assert not table.duplicated(KEYS).any()
    assert len(table) == 12 * len(METHODS) * len(METRICS)
    assert set(table["method"]) == METHODS
    assert set(table["metric"]) == set(METRICS)
    assert set(table["condition"]) == set(fitted.uns["scgap"]["conditions"]["condition_label"])
    assert set(table["split"]) == {"test"}
    assert set(table["support"]) == {"seen"}
    assert ((table["reason"] == "") == np.isfinite(table["value"])).all()
    missing = table[(table["method"] == "scgap") & table["value"].isna()]
    assert set(missing["metric"]) <= {"zero_fraction_error", "classifier_auc", "classifier_p_value"}
    assert set(missing["reason"].str.replace(r"\d+ cells on", "n cells on", regex=True)) == {
        "the features have no zeros of expression",
        "n cells on each side; the metric needs 20",
    }
    stored = fitted.uns["scgap"]["scores"]
    pd.testing.assert_frame_equal(stored.reset_index(drop=True), table)


def test_scores_run_from_the_best_baseline_to_the_ceiling(fitted):
    table = scgap.tl.evaluate(fitted, metrics=FEW)
    for (_, metric), rows in table.groupby(["condition", "metric"]):
        loss = METRICS[metric].loss
        losses = {method: loss(value) for method, value in zip(rows["method"], rows["value"], strict=True)}
        best = min(losses[name] for name in BASELINES if np.isfinite(losses[name]))
        assert {loss(value) for value in rows["baseline"]} == {best}
        assert {loss(value) for value in rows["ceiling"]} == {losses["ceiling"]}
        score = rows.set_index("method")["score"]
        if best <= losses["ceiling"]:
            assert score.isna().all()
            continue
        assert score["ceiling"] == 1.0
        assert score[[name for name in BASELINES if np.isfinite(losses[name])]].max() == 0.0
        assert (score["scgap"] > 0) == (losses["scgap"] < best)


def test_scores_of_known_values():
    observed = np.arange(4.0)[:, None]  # the halves are 2 apart
    shifted = {"scgap": np.full((4, 1), 3.5), "identity": np.full((4, 1), 8.5), "mean_shift": np.full((4, 1), 9.5)}
    table = _scoring.score_methods(shifted, observed, observed, None, ["mean_error"], set()).set_index("method")
    # Errors against the halves' means 0.5 and 2.5: 2, 7 and 8.
    assert table["value"].to_dict() == {"scgap": 2.0, "identity": 7.0, "mean_shift": 8.0, "ceiling": 2.0}
    assert table["score"].to_dict() == {"scgap": 1.0, "identity": 0.0, "mean_shift": -0.2, "ceiling": 1.0}
    nothing = _scoring.score_methods(dict.fromkeys(shifted, observed), observed, observed, None, ["mean_error"], set())
    assert nothing["score"].isna().all()


def test_scores_of_metrics_that_are_better_when_higher(monkeypatch):
    monkeypatch.setitem(
        _scoring.METRICS, "share", Metric(lambda c: float(c.mapped.mean()), frozenset(), lambda value: 1.0 - value)
    )
    cells = {"scgap": 0.6, "identity": 0.2, "mean_shift": 0.4}
    predicted = {name: np.full((4, 1), value) for name, value in cells.items()}
    table = _scoring.score_methods(predicted, np.full((4, 1), 0.8), np.zeros((4, 1)), None, ["share"], set())
    table = table.set_index("method")
    assert set(table["baseline"]) == {0.4}
    assert table["score"].to_dict() == pytest.approx(
        {"scgap": 0.5, "identity": -0.5, "mean_shift": 0.0, "ceiling": 1.0}
    )


@pytest.mark.parametrize("step", ["learn", "make_references", "measure"])
def test_no_step_lets_threads_wait_for_each_other(fitted, monkeypatch, step):
    run, threads = getattr(_scoring, step), set()

    def watched(*args, **kwargs):
        threads.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return run(*args, **kwargs)

    monkeypatch.setattr(_scoring, step, watched)
    with threadpool_limits(2, "blas"):
        scgap.tl.evaluate(fitted, metrics="mean_error")
    assert threads == {1}


def test_a_collapse_is_infinitely_far_off_in_its_variance():
    generator = np.random.default_rng(0)
    reference = make_references({}, {CONTROL: np.zeros(3)}, [], nonnegative=False, generator=generator).of(CONTROL)
    observed, source = generator.normal(size=(2, 40, 3))
    predicted = {"scgap": np.ones((40, 3)), "identity": 3.0 * source}
    table = _scoring.score_methods(predicted, observed, source, reference, ["variance_ratio"], set())
    score = table.set_index("method")["score"]
    assert (score["scgap"], score["identity"], score["ceiling"]) == (-np.inf, 0.0, 1.0)


def test_a_baseline_without_prediction_says_why(fitted):
    table = scgap.tl.evaluate(fitted, metrics="mean_error")
    additive = table[table["method"] == "additive"]
    assert additive["value"].isna().all()
    assert set(additive["reason"]) == {"not a combination"}


def test_observed_cells_without_spread_have_no_correlations_to_compare_with(fitted):
    test = (fitted.obs["split"] == "test") & (fitted.obs["perturbation"] == "drug_1")
    fitted.X[test.to_numpy(), 1:] = 1.0  # all features but one
    table = scgap.tl.evaluate(fitted, metrics=["correlation_error", "mean_error"])
    alone = table["condition"].str.startswith("drug_1") & (table["metric"] == "correlation_error")
    predicted = table["method"].isin(["scgap", "identity", "ceiling"])
    assert table.loc[alone, ["value", "baseline", "ceiling", "score"]].isna().all(axis=None)
    assert set(table.loc[alone & predicted, "reason"]) == {"undefined: no effect, or no spread, to compare with"}
    assert table.loc[~alone & predicted, "value"].notna().all()


def test_another_condition_is_predicted_worse(fitted):
    scores = energy(scgap.tl.evaluate(fitted, metrics="energy_distance"))
    assert scores["scgap"] < scores["permuted_conditions"]


def test_the_other_condition_is_never_the_same(fitted, monkeypatch):
    asked = []

    def stay(mover, points, obs, query):
        asked.append((set(obs["cell_line"]), query))
        return Moved(points, np.zeros(len(points)))

    monkeypatch.setattr(_evaluate, "move_cells", stay)
    for seed in range(5):
        scgap.tl.evaluate(fitted, metrics="mean_error", seed=seed)
    own, other = asked[::2], asked[1::2]
    assert len(own) == len(other) == 5 * 12
    for (group, query), (other_group, other_query) in zip(own, other, strict=True):
        assert group == other_group
        assert query != other_query
    assert len({str(query) for _, query in other}) == 6


def test_as_many_cells_on_both_sides(fitted):
    sizes = (
        fitted.obs[fitted.obs["split"] == "test"]
        .groupby(["perturbation", "dose_value", "cell_line"], observed=True)
        .size()
    )
    table = scgap.tl.evaluate(fitted, metrics="mean_error")
    for (perturbation, dose, line), size in sizes.drop("control").items():
        n_cells = table["n_cells"][table["condition"] == f"{perturbation} {dose:g}, {line}"]
        assert set(n_cells) == {min(size, sizes["control"].loc[0.0, line]) // 2}


def test_a_fitted_map_is_ahead_of_the_identity(fitted):
    scores = energy(scgap.tl.evaluate(fitted, metrics="energy_distance"))
    assert scores["ceiling"] < scores["scgap"] < 0.8 * scores["identity"]


def test_a_map_that_moves_nothing_is_the_identity(screen, settings):
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    table = scgap.tl.evaluate(screen, metrics=FEW).set_index(["method", "condition", "metric"])["value"]
    pd.testing.assert_series_equal(table["scgap"], table["identity"])


def test_the_mean_shift_is_exact_where_the_truth_is_one(screen, settings):
    controls = screen.X[(screen.obs["perturbation"] == "control").to_numpy()]
    cells = controls[np.random.default_rng(0).integers(len(controls), size=screen.n_obs)]
    treated = (screen.obs["perturbation"] != "control").to_numpy()
    screen.X = cells + 2.0 * treated[:, None]
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    scores = energy(scgap.tl.evaluate(screen, metrics="energy_distance"))
    assert abs(scores["mean_shift"]) < 0.2 * scores["identity"]


def test_the_mean_shift_knows_the_training_cells_alone(fitted):
    # Were it made of the test cells too, a shift of these would be followed.
    test = ((fitted.obs["split"] == "test") & (fitted.obs["perturbation"] != "control")).to_numpy()
    fitted.X[test] += 5.0
    table = scgap.tl.evaluate(fitted, metrics=["mean_error"]).groupby("method")["value"].mean()
    assert table["mean_shift"] > 4.0
    fitted.X[((fitted.obs["split"] == "train") & (fitted.obs["perturbation"] != "control")).to_numpy()] += 5.0
    table = scgap.tl.evaluate(fitted, metrics=["mean_error"]).groupby("method")["value"].mean()
    assert table["mean_shift"] < 1.0


def test_values_do_not_depend_on_what_else_is_asked(fitted):
    full = scgap.tl.evaluate(fitted).set_index(KEYS)
    for metric in METRICS:
        part = scgap.tl.evaluate(fitted, metrics=[metric], baselines=["identity"])
        assert set(part["method"]) == {"scgap", "identity", "ceiling"}
        part = part.set_index(KEYS)
        pd.testing.assert_frame_equal(part, full.loc[part.index])
    full = full["value"].drop("centroid_accuracy", level="metric")  # the one that is of several conditions
    # Cells of one condition change its rows and no other's.
    changed = ((fitted.obs["perturbation"] == "drug_1") & (fitted.obs["split"] == "test")).to_numpy()
    fitted.X[changed] += 1.0
    other = scgap.tl.evaluate(fitted).set_index(KEYS)["value"].drop("centroid_accuracy", level="metric")
    of_drug = full.index.get_level_values("condition").str.startswith("drug_1 ")
    pd.testing.assert_series_equal(other[~of_drug], full[~of_drug])
    assert (other[of_drug] != full[of_drug])[full[of_drug].notna()].mean() > 0.5


def test_scores_are_measured_against_baselines_that_are_not_shown(fitted):
    full = scgap.tl.evaluate(fitted, metrics=["mean_error"]).set_index(KEYS)
    table = scgap.tl.evaluate(fitted, metrics=["mean_error"], baselines=[])
    assert set(table["method"]) == {"scgap", "ceiling"}
    assert table["score"].notna().any()
    pd.testing.assert_frame_equal(table.set_index(KEYS), full.loc[table.set_index(KEYS).index])


def test_the_seed_decides_which_cells_are_compared(fitted):
    one, again, other = (scgap.tl.evaluate(fitted, seed=seed, metrics=["mean_error"]) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    for method in ("scgap", "identity", "ceiling"):  # of which none draws cells of its own
        rows = one["method"] == method
        assert (one["value"][rows] != other["value"][rows]).all()


def test_other_splits(fitted):
    table = scgap.tl.evaluate(fitted, split="train", metrics=["energy_distance"])
    assert set(table["split"]) == {"train"}
    assert (table["n_cells"] > 20).all()


def test_unseen_conditions_are_marked(encoded):
    table = scgap.tl.evaluate(encoded, metrics=["energy_distance", "mean_error"])
    unseen = table["condition"].str.startswith("drug_2 ")
    assert unseen.any()
    assert (table["support"] == np.where(unseen, "unseen perturbation", "seen")).all()
    # Its mean shift is the average of the others': no cell of drug_2 was looked at.
    assert np.isfinite(table["value"][table["method"] == "mean_shift"]).all()
    before = table[unseen & (table["method"] == "mean_shift")]["value"]
    encoded.X[((encoded.obs["perturbation"] == "drug_3") & (encoded.obs["split"] == "train")).to_numpy()] += 3.0
    after = scgap.tl.evaluate(encoded, metrics=["energy_distance", "mean_error"])
    assert (after[unseen & (table["method"] == "mean_shift")]["value"] != before).all()


def test_what_cannot_be_predicted_has_rows_without_values(screen, settings, refused):
    scgap.pp.split(screen, holdout={"perturbation": ["drug_2"]}, dose_col="dose_value", group_col="cell_line")
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    with pytest.warns(UserWarning, match=r"have no scores of 'scgap' \(no vector for a perturbation: 'drug_2") as log:
        table = scgap.tl.evaluate(screen, metrics="mean_error")
    assert len(log) == 1
    mine = table[table["method"] == "scgap"]
    unseen = mine["condition"].str.startswith("drug_2 ")
    assert (mine["value"].isna() == unseen).all()
    assert set(mine["reason"][unseen]) == {"no vector for a perturbation"}
    assert table["value"][table["method"] == "identity"].notna().all()
    rest = screen[screen.obs["perturbation"].isin(["control", "drug_2"]) | (screen.obs["split"] == "train")].copy()
    with refused(rest, KeyError, "no vector", "'drug_2 100, line_1'", "fit with encoding="):
        scgap.tl.evaluate(rest)


def test_objects_without_training_cells(fitted):
    full = scgap.tl.evaluate(fitted, metrics=["mean_error"])
    test = fitted[fitted.obs["split"] == "test"].copy()
    with pytest.warns(UserWarning, match="no training cells, so most baselines"):
        table = scgap.tl.evaluate(test, metrics=["mean_error"])
    assert set(table["method"][table["value"].notna()]) == {"scgap", "identity", "permuted_conditions", "ceiling"}
    assert set(table["support"]) == {"seen"}  # by the map, whose table of conditions says so
    columns = ["condition", "n_cells"]
    assert set(table[columns].itertuples(index=False)) == set(full[columns].itertuples(index=False))


def test_few_cells_have_no_scores(fitted):
    rows = of_condition(fitted, "drug_1", 100, "line_1")
    few = fitted[np.setdiff1d(np.arange(fitted.n_obs), rows[3:])].copy()
    words = r"1 of 12 conditions have no scores of 'scgap' \(fewer than 4 observed cells: 'drug_1 100, line_1'\)"
    with pytest.warns(UserWarning, match=words):
        table = scgap.tl.evaluate(few, metrics=["mean_error"])
    lost = table["condition"] == "drug_1 100, line_1"
    assert set(table["method"][lost]) == METHODS
    assert set(table["reason"][lost]) == {"fewer than 4 observed cells"}
    assert table["value"][lost].isna().all()
    assert table["value"][~lost & (table["method"] != "additive") & (table["method"] != "nearest")].notna().all()
    few = few[np.setdiff1d(np.arange(few.n_obs), of_condition(few, "control", 0, "line_1")[2:])].copy()
    with pytest.warns(UserWarning, match=r"; fewer than 4 observed and control cells: 'drug_1 100, line_1'\)"):
        scgap.tl.evaluate(few, metrics=["mean_error"])


def test_a_group_without_training_controls_has_the_average_shift(fitted):
    rows = (fitted.obs["cell_line"] == "line_2") & (fitted.obs["perturbation"] == "control")
    fitted = fitted[~(rows & (fitted.obs["split"] == "train"))].copy()
    table = scgap.tl.evaluate(fitted, metrics=FEW)
    assert np.isfinite(table["value"][table["method"] == "mean_shift"]).all()


def test_a_group_without_controls_has_no_scores(fitted):
    rows = (fitted.obs["cell_line"] == "line_2") & (fitted.obs["perturbation"] == "control")
    with pytest.warns(UserWarning, match="no control cells of the group"):
        table = scgap.tl.evaluate(fitted[~rows].copy(), metrics=["mean_error"])
    assert (table["condition"][table["value"].notna()].str.endswith("line_1")).all()
    assert (table["condition"].str.endswith("line_2")).any()


def test_baselines_are_clipped_as_predictions_are(screen, settings, monkeypatch):
    screen.X = np.maximum(screen.X - screen.X.mean(), 0.0)
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    seen = []
    metric = METRICS["mean_error"]
    monkeypatch.setitem(METRICS, "mean_error", metric._replace(compute=lambda c: seen.append(c.mapped.min()) or 0.0))
    scgap.tl.evaluate(screen, metrics=["mean_error"])
    assert min(seen) == 0.0


def test_zeros_of_expression_are_compared(screen, settings):
    screen.X = np.maximum(screen.X - screen.X.mean(), 0.0)
    scgap.tl.fit_transport(screen, **{**settings, "n_iters": 0})
    table = scgap.tl.evaluate(screen, metrics=["zero_fraction_error"]).groupby("method")["value"].mean()
    assert table["ceiling"] < table["mean_shift"]  # a shift leaves no zeros


def test_the_number_of_cells_can_be_limited(fitted):
    table = scgap.tl.evaluate(fitted, metrics=["mean_error"], n_cells=12)
    assert set(table["n_cells"]) == {6}


def test_scores_stay_with_one_of_two_objects_that_share_a_map(fitted):
    other = fitted.copy()
    other.uns["scgap"] = fitted.uns["scgap"]
    scgap.tl.evaluate(fitted, metrics=["mean_error"])
    assert "scores" not in other.uns["scgap"]


def test_embeddings_without_decoder_are_judged_in_their_space(screen, settings):
    screen.obsm["X_other"] = screen.X[:, ::-1].copy()
    screen.X = np.zeros_like(screen.X)
    scgap.tl.fit_transport(screen, use_rep="X_other", **settings)
    scores = energy(scgap.tl.evaluate(screen, metrics="energy_distance"))
    assert scores["ceiling"] < scores["scgap"] < scores["identity"]


def test_modalities_of_a_mudata(fitted):
    expected = scgap.tl.evaluate(fitted)
    protein = AnnData(fitted.X, obs=pd.DataFrame(index=fitted.obs_names), var=fitted.var, uns=fitted.uns)
    mdata = MuData({"protein": protein})
    mdata.obs = fitted.obs
    pd.testing.assert_frame_equal(scgap.tl.evaluate(mdata, mod="protein"), expected)
    assert len(mdata["protein"].uns["scgap"]["scores"]) == len(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"key": "other"}, KeyError, ("'other' is not in adata.uns", "Fit a map first")),
        ({"metrics": ["energy"]}, KeyError, ("'energy' is not in the metrics", "'energy_distance'")),
        ({"metrics": "std_eror"}, KeyError, ("'std_eror'", "Did you mean 'std_error'?")),
        ({"metrics": []}, ValueError, ("metrics is empty", "'energy_distance'")),
        ({"n_cells": 2.5}, ValueError, ("n_cells=2.5",)),
        ({"n_cells": 3}, ValueError, ("n_cells=3", "from 4 on")),
        ({"seed": -1}, ValueError, ("seed=-1", "from 0 on")),
        ({"baselines": ["mean"]}, KeyError, ("'mean' is not in the baselines", "'mean_shift'")),
        ({"split": "vaild"}, ValueError, ("'vaild' is not in the splits", "Did you mean 'valid'?")),
        ({"mod": "rna"}, ValueError, ("mod='rna' was given with an AnnData",)),
    ],
)
def test_wrong_arguments_are_refused(fitted, refused, arguments, error, words):
    with refused(fitted, error, *words):
        scgap.tl.evaluate(fitted, **arguments)


@pytest.mark.parametrize("key", ["identity", "permuted_conditions", "ceiling"])
def test_a_map_called_like_a_baseline_is_refused(fitted, refused, key):
    fitted.uns[key] = fitted.uns["scgap"]
    with refused(fitted, ValueError, f"key='{key}' is the name of a baseline", "another key_added"):
        scgap.tl.evaluate(fitted, key=key)


def test_wrong_objects_are_refused(fitted, screen, settings, refused):
    view = fitted[:700]
    with refused(view, ValueError, "view", "adata.copy()"):
        scgap.tl.evaluate(view)
    assert "scores" not in fitted.uns["scgap"]
    few = fitted[(fitted.obs["split"] != "test").to_numpy()].copy()
    with refused(few, ValueError, "split 'test'", "scgap.pp.split"):
        scgap.tl.evaluate(few)
    scgap.tl.fit_transport(screen, **{**settings, "split_col": None, "n_iters": 0})
    with refused(screen, ValueError, "fitted without split_col", "scgap.pp.split"):
        scgap.tl.evaluate(screen)
    del fitted.obs["split"]
    with refused(fitted, KeyError, "'split' is not in adata.obs"):
        scgap.tl.evaluate(fitted)


def test_what_the_representation_loses_stands_beside_the_scores(screen, settings):
    metrics = ["energy_distance", "std_error"]
    as_they_are = scgap.tl.evaluate(fit(screen, settings), metrics=metrics)
    pd.testing.assert_series_equal(as_they_are["reconstruction"], as_they_are["ceiling"], check_names=False)
    lost = {}
    for n_comps in (3, 18):
        sc.pp.pca(screen, n_comps=n_comps)
        table = scgap.tl.evaluate(fit(screen, settings, use_rep="X_pca"), metrics=metrics)
        lost[n_comps] = (table["reconstruction"] - table["ceiling"]).groupby(table["metric"]).mean()
    assert lost[3]["energy_distance"] > 0.3
    assert lost[3]["std_error"] > 0.02
    assert lost[18]["energy_distance"] < 0.2 * lost[3]["energy_distance"]
    scgap.pp.autoencoder(screen, n_latent=3, hidden=(16,), n_epochs=2, split_col="split", progress=False)
    table = scgap.tl.evaluate(fit(screen, settings, use_rep="X_ae"), metrics=metrics)
    assert ((table["reconstruction"] - table["ceiling"]).groupby(table["metric"]).mean() > 0.02).all()
    screen.obsm["X_foreign"] = screen.obsm["X_ae"]
    table = scgap.tl.evaluate(fit(screen, settings, use_rep="X_foreign"), metrics=metrics)
    assert table["reconstruction"].isna().all()


def fit(screen, settings, **options):
    return scgap.tl.fit_transport(screen, **settings, **options, copy=True)
