"""Both functions that take predictions read them in one way and refuse them in the same words."""

import anndata
import numpy as np
import pandas as pd
import pytest

import scgap

DESIGN = {"dose_col": "dose_value", "group_col": "cell_line", "split_col": "split"}


@pytest.fixture
def predicted(screen):
    """Other cells of the same conditions, as if some tool had predicted them."""
    return screen[(screen.obs["split"] == "train") & (screen.obs["perturbation"] != "control")].copy()


@pytest.fixture(params=["evaluate_predictions", "evaluate_predictions of several", "join_predictions"])
def call(request):
    """One of the functions, and what its messages call the predictions."""
    if request.param == "join_predictions":
        return lambda *objects: scgap.tl.join_predictions(*objects, **DESIGN), "predicted"

    def evaluate(observed, predicted):
        part = {"mine": predicted} if "several" in request.param else predicted
        return scgap.tl.evaluate_predictions(observed, part, **DESIGN, metrics="mean_error", baselines=[])

    return evaluate, "predicted['mine']" if "several" in request.param else "predicted"


def renamed(predicted):
    predicted.var_names = ["gene", *predicted.var_names[1:]]
    return predicted


def repeated(adata):
    adata.var_names = [adata.var_names[1], *adata.var_names[1:]]
    return adata


def with_nan(predicted):
    predicted.X[[3, 7], 2] = np.nan
    return predicted


def without(predicted):
    del predicted.obs["dose_value"]
    return predicted


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda p: p.X, TypeError, "{} is an ndarray. Pass an AnnData"),
        (lambda p: p.obs, TypeError, "{} is a DataFrame. Pass an AnnData"),
        (lambda p: p[:, 5:].copy(), ValueError, "{} lacks 5 of the 20 observed features ('feature_0', "),
        (renamed, ValueError, "{} lacks 1 of the 20 observed features ('feature_0') and has 1 others ('gene')"),
        (repeated, ValueError, "{}.var_names are not unique: 'feature_1'. Features are matched by name"),
        (with_nan, ValueError, "{}.X holds NaN or infinite values in 2 of 864 cells"),
        (without, KeyError, "'dose_value' is not in adata.obs"),
        (without, KeyError, "It has to be in {}.obs, too."),
    ],
)
def test_wrong_predictions_are_refused(screen, predicted, call, refused, change, error, words):
    function, name = call
    wrong = change(predicted)
    with refused(wrong, error, words.format(name)):
        function(screen, wrong)


def test_wrong_observations_are_refused(screen, predicted, call, refused):
    function, _ = call
    test = (screen.obs["split"] == "test").to_numpy().argmax()
    screen.X[test, 0] = np.inf
    with refused(screen, ValueError, "observed.X holds NaN or infinite values in 1 of"):
        function(screen, predicted)
    screen.X[test, 0] = 0.0
    twice = repeated(screen)
    with refused(twice, ValueError, "observed.var_names are not unique: 'feature_1'"):
        function(twice, predicted)


@pytest.mark.parametrize("layer", ["controls", "blank"])
def test_values_of_cells_that_are_not_compared_may_be_anything(screen, predicted, call, layer):
    function, _ = call
    others = screen[screen.obs["perturbation"] == "control"].copy()
    others.X[:] = np.nan
    others.obs_names = "other_" + others.obs_names
    if layer == "blank":
        others.obs["perturbation"] = pd.array([None] * others.n_obs, dtype=predicted.obs["perturbation"].dtype)
    one, other = function(screen, predicted), function(screen, anndata.concat([predicted, others]))
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    else:
        np.testing.assert_array_equal(one.X, other.X)
