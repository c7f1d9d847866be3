import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

import scgap

DESIGN = {"dose_col": "dose_value", "group_col": "cell_line"}


def shares(adata, part, by=("perturbation", "dose_value", "cell_line")):
    obs = adata.obs.assign(found=adata.obs["split"] == part)
    return obs.groupby(list(by), observed=True)["found"].mean()


def test_every_condition_is_split(screen):
    del screen.obs["split"]
    assert scgap.pp.split(screen, fraction=0.3, **DESIGN) is None
    assert screen.obs["split"].cat.categories.tolist() == ["train", "valid", "test"]
    assert screen.obs["split"].notna().all()
    test, valid = shares(screen, "test"), shares(screen, "valid")
    assert len(test) == 2 * (1 + 3 * 2)  # the controls of each line, and its conditions
    np.testing.assert_allclose(test, 0.3, atol=0.01)
    np.testing.assert_allclose(valid, 0.07, atol=0.01)


@pytest.mark.parametrize(("n_cells", "n_test", "n_valid"), [(12, 2, 0), (15, 3, 2), (40, 8, 5)])
def test_small_conditions_keep_enough_cells_to_train_on(n_cells, n_test, n_valid):
    adata = AnnData(np.zeros((2 * n_cells, 1), np.float32))
    adata.obs["perturbation"] = ["control", "A"] * n_cells
    scgap.pp.split(adata)
    for part, n in (("test", n_test), ("valid", n_valid), ("train", n_cells - n_test - n_valid)):
        assert (adata.obs["split"] == part).sum() == 2 * n


def test_without_test_cells(screen):
    scgap.pp.split(screen, fraction=0.0, **DESIGN)
    assert set(screen.obs["split"]) == {"train", "valid"}


def test_the_seed_decides(screen):
    one, again, other = (scgap.pp.split(screen, seed=seed, copy=True, **DESIGN).obs["split"] for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)


def test_a_copy_leaves_the_input_alone(screen, same):
    before = screen.copy()
    result = scgap.pp.split(screen, key_added="part", copy=True, **DESIGN)
    assert "part" in result.obs
    assert same(screen, before)
    view = scgap.pp.split(screen[:700], key_added="part", copy=True, **DESIGN)
    assert view.n_obs == 700
    assert "part" in view.obs
    assert same(screen, before)


@pytest.mark.parametrize(
    ("holdout", "expected"),
    [
        ({"perturbation": ["drug_2"]}, lambda obs: obs["perturbation"] == "drug_2"),
        ({"perturbation": "drug_2"}, lambda obs: obs["perturbation"] == "drug_2"),
        ({"dose_value": [1000]}, lambda obs: obs["dose_value"] == 1000),
        ({"dose_value": 1000.0}, lambda obs: obs["dose_value"] == 1000),
        (
            {"perturbation": ["drug_1", "drug_3"], "cell_line": ["line_2"]},
            lambda obs: obs["perturbation"].isin(["drug_1", "drug_3"]) & (obs["cell_line"] == "line_2"),
        ),
        # A column that is no part of the design.
        ({"subpopulation": ["state_1"]}, lambda obs: obs["subpopulation"] == "state_1"),
    ],
)
def test_conditions_are_held_out_whole(screen, holdout, expected):
    scgap.pp.split(screen, holdout=holdout, **DESIGN)
    control = screen.obs["perturbation"] == "control"
    held_out = expected(screen.obs) & ~control
    assert held_out.any()
    assert (screen.obs["split"][held_out] == "test").all()
    assert (screen.obs["split"][~held_out] == "test").mean() == pytest.approx(0.2, abs=0.01)
    # Controls are needed to predict from, on both sides.
    np.testing.assert_allclose(shares(screen[control], "test"), 0.2, atol=0.01)


def test_holding_out_changes_no_other_cell(screen):
    plain = scgap.pp.split(screen, copy=True, **DESIGN).obs["split"]
    held = scgap.pp.split(screen, holdout={"perturbation": ["drug_2"]}, copy=True, **DESIGN).obs["split"]
    others = screen.obs["perturbation"] != "drug_2"
    assert held[others].equals(plain[others])


def test_doses_written_as_strings_are_numbers(screen):
    screen.obs["dose_value"] = screen.obs["dose_value"].map("{:g}".format).astype("category")
    scgap.pp.split(screen, holdout={"dose_value": [1000.0]}, **DESIGN)
    assert (screen.obs["split"][screen.obs["dose_value"] == "1000"] == "test").all()
    assert (screen.obs["split"][screen.obs["dose_value"] == "100"] == "train").any()


@pytest.mark.parametrize("dose", ["1000", "1e3", "1000.0", 1_000, np.float32(1_000)])
def test_doses_may_be_named_by_strings(screen, dose):
    scgap.pp.split(screen, holdout={"dose_value": [dose]}, **DESIGN)
    assert (screen.obs["split"][screen.obs["dose_value"] == 1_000] == "test").all()


@pytest.mark.parametrize(
    ("columns", "holdout"),
    [
        ({"target_col": ["d1", "d2"]}, {"d1": ["A"], "d2": ["B"]}),
        ({"target_col": "both", "sep": "+"}, {"both": ["A+B"]}),
    ],
)
def test_a_condition_is_held_out_in_every_spelling(screen, columns, holdout):
    spellings = {"control": ("none", "none"), "drug_1": ("A", "B"), "drug_2": ("B", "A"), "drug_3": ("A", "none")}
    pairs = [spellings[name] for name in screen.obs["perturbation"]]
    screen.obs["d1"], screen.obs["d2"] = zip(*pairs, strict=True)
    screen.obs["both"] = [f"{one}+{other}" for one, other in pairs]
    scgap.pp.split(screen, holdout=holdout, reference_key="none", **columns)
    both = screen.obs["perturbation"].isin(["drug_1", "drug_2"])
    assert (screen.obs["split"][both] == "test").all()
    # A alone is another condition, and goes on training.
    assert (screen.obs["split"][screen.obs["perturbation"] == "drug_3"] == "train").mean() > 0.5


def test_cells_without_a_label_are_left_out(screen):
    screen.obs["perturbation"] = screen.obs["perturbation"].astype(object)
    screen.obs.iloc[:50, screen.obs.columns.get_loc("perturbation")] = np.nan
    scgap.pp.split(screen, **DESIGN)
    assert screen.obs["split"].isna().tolist() == [True] * 50 + [False] * 1_450


def test_combinations_written_as_labels(screen):
    labels = {"control": "none", "drug_1": "A+B", "drug_2": "A", "drug_3": "B+A"}
    screen.obs["perturbation"] = screen.obs["perturbation"].map(labels)
    scgap.pp.split(screen, reference_key="none", sep="+")
    # A+B and B+A are one condition.
    test = shares(screen, "test", by=("perturbation",))
    both = screen.obs["perturbation"].isin(["A+B", "B+A"])
    assert (screen.obs["split"][both] == "test").sum() == round(0.2 * both.sum())
    assert test["A"] == pytest.approx(0.2, abs=0.01)


def test_labels_of_a_mudata(screen):
    expected = scgap.pp.split(screen, key_added="part", copy=True, **DESIGN).obs["part"]
    protein = AnnData(screen.X, obs=pd.DataFrame(index=screen.obs_names), var=screen.var)
    mdata = MuData({"protein": protein})
    mdata.obs = screen.obs
    assert scgap.pp.split(mdata, mod="protein", key_added="part", **DESIGN) is None
    assert mdata["protein"].obs["part"].equals(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"fraction": 1.0}, ValueError, ("fraction=1.0", "from 0 to below 1")),
        ({"fraction": -0.1}, ValueError, ("fraction=-0.1",)),
        ({"fraction": np.nan}, ValueError, ("fraction=nan",)),
        ({"fraction": False}, ValueError, ("fraction=False",)),
        ({"target_col": "pertubation"}, KeyError, ("'pertubation'", "Did you mean 'perturbation'?")),
        ({"group_col": "line"}, KeyError, ("'line' is not in adata.obs", "found 'perturbation'")),
        ({"dose_col": None, "reference_key": "contrl"}, ValueError, ("'contrl'", "Did you mean 'control'?")),
        ({"holdout": {"drug": ["drug_1"]}}, KeyError, ("'drug' is not in adata.obs",)),
        ({"holdout": {"perturbation": ["drug_9"]}}, KeyError, ("'drug_9'", "Did you mean 'drug_")),
        ({"holdout": {"dose_value": [101]}}, KeyError, ("'101'", "'100'")),
        ({"holdout": {"perturbation": []}}, ValueError, ("names no perturbed cells",)),
        ({"holdout": {"perturbation": ["control"]}}, ValueError, ("names no perturbed cells", "controls never are")),
        (
            {"holdout": {"perturbation": ["drug_1", "drug_2", "drug_3"]}},
            ValueError,
            ("Nothing is left to train on", "Name fewer"),
        ),
        ({"holdout": ["drug_1"]}, TypeError, ("holdout=['drug_1']", "Pass a mapping", "the name of a strategy")),
        ({"holdout": {"perturbation": None}}, KeyError, ("'None' is not in adata.obs['perturbation']",)),
        ({"key_added": "a/b"}, ValueError, ("'a/b' cannot be a key",)),
        ({"key_added": "perturbation"}, ValueError, ("'perturbation' is a column that the split is made from",)),
        (
            {"holdout": {"subpopulation": ["state_1"]}, "key_added": "subpopulation"},
            ValueError,
            ("would be lost", "another name"),
        ),
        ({"mod": "rna"}, ValueError, ("mod='rna'", "Leave mod out")),
    ],
)
def test_what_cannot_be_split_is_refused(screen, refused, arguments, error, words):
    with refused(screen, error, *words):
        scgap.pp.split(screen, **{**DESIGN, **arguments})


def test_values_that_do_not_occur_together_are_refused(screen, refused):
    screen = screen[~((screen.obs["perturbation"] == "drug_1") & (screen.obs["dose_value"] == 1000))].copy()
    with refused(screen, ValueError, "names no perturbed cells", "occur together"):
        scgap.pp.split(screen, holdout={"perturbation": ["drug_1"], "dose_value": [1000]}, **DESIGN)


def test_a_view_is_refused(screen, refused):
    view = screen[:700]
    with refused(view, ValueError, "view", "adata.copy()"):
        scgap.pp.split(view, **DESIGN)


@pytest.mark.parametrize(("value", "words"), [(-1.0, "-1.0. Doses"), (np.nan, "nan"), ("high", "'high'")])
def test_doses_that_are_none_are_refused(screen, refused, value, words):
    screen.obs["dose_value"] = screen.obs["dose_value"].astype(object)
    screen.obs.loc[screen.obs["perturbation"] == "drug_1", "dose_value"] = value
    with refused(screen, ValueError, "'dose_value' holds", words):
        scgap.pp.split(screen, **DESIGN)


@pytest.mark.parametrize("fraction", ["0.2", None, 1j, [0.2]])
def test_a_fraction_is_a_number(screen, refused, fraction):
    with refused(screen, ValueError, "fraction=", "from 0 to below 1"):
        scgap.pp.split(screen, fraction=fraction)
