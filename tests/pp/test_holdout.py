import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

import scgap
from scgap._conditions import Condition, make_design, read_conditions
from scgap._encoding import make_encoding
from scgap._support import support_tiers
from scgap.pp._holdout import STRATEGIES, unseen_conditions

COLUMNS = {"target_col": "drug", "dose_col": "dose", "group_col": "line", "sep": "+"}
GROUPS = ("x", "y", "z")
SINGLES = [(drug, dose) for drug in "ABCDE" for dose in ("1", "10", "100", "1000")]
PAIRS = [("A+B", "10+10"), ("A+C", "10+10"), ("B+C", "10+100"), ("A+D", "10+10"), ("B+D", "1+1"), ("A+B+C", "10+10+10")]


def cells_of(labels, groups=GROUPS, n=12):
    """An object with n cells of each label, (drugs, doses), and of controls in each group."""
    rows = [(*label, group) for label in [("control", "0"), *labels] for group in groups for _ in range(n)]
    obs = pd.DataFrame(rows, columns=["drug", "dose", "line"], index=[f"cell_{i}" for i in range(len(rows))])
    return AnnData(np.zeros((len(rows), 1), np.float32), obs=obs)


def outcome(adata, **arguments):
    """Trained conditions, and the tier of each condition without training cells."""
    scgap.pp.split(adata, **{**COLUMNS, **arguments})
    design = make_design("drug", "control", "dose", "line", sep="+")
    conditions, of_cell, _ = read_conditions(design, adata.obs)
    part = adata.obs["split"].to_numpy()
    parts = {condition: set(part[of_cell == i]) for i, condition in enumerate(conditions) if not condition.is_control}
    trained = [condition for condition, found in parts.items() if "train" in found]
    tested = [condition for condition, found in parts.items() if found == {"test"}]
    assert len(trained) + len(tested) == len(parts)
    names = sorted({name for condition in parts for name, _ in condition.members})
    encoding = make_encoding(design, trained, pd.DataFrame({"x": np.arange(len(names))}, index=names))
    return trained, dict(zip(tested, support_tiers(trained, encoding.perturbations, tested), strict=True))


def names(condition):
    return frozenset(name for name, _ in condition.members)


@pytest.mark.parametrize(
    ("strategy", "fraction", "n_held_out", "tier"),
    [
        ("unseen_perturbation", 0.2, 1 * 4 * 3, "unseen perturbation"),
        ("unseen_perturbation", 0.4, 2 * 4 * 3, "unseen perturbation"),
        ("unseen_perturbation", 0.01, 1 * 4 * 3, "unseen perturbation"),  # at least one
        ("unseen_perturbation", 0.99, 4 * 4 * 3, "unseen perturbation"),  # never all
        ("unseen_dose", 0.2, 2 * 3, "interpolated dose"),
        ("unseen_dose", 0.99, 10 * 3, "interpolated dose"),
        ("unseen_dose_highest", 0.2, 1 * 3, "extrapolated dose"),
        ("unseen_dose_lowest", 0.6, 3 * 3, "extrapolated dose"),
        ("unseen_group", 0.2, 1 * 20, "unseen group"),
        ("unseen_group", 0.9, 2 * 20, "unseen group"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_strategy_holds_out(strategy, fraction, n_held_out, tier, seed):
    _, tiers = outcome(cells_of(SINGLES), holdout=strategy, fraction=fraction, seed=seed)
    assert len(tiers) == n_held_out
    assert set(tiers.values()) == {tier}


@pytest.mark.parametrize(
    ("strategy", "chosen"), [("unseen_dose_highest", 1000.0), ("unseen_dose_lowest", 1.0), ("unseen_dose", None)]
)
def test_which_doses_are_held_out(strategy, chosen):
    _, tiers = outcome(cells_of(SINGLES), holdout=strategy, fraction=0.5)
    doses = {dose for condition in tiers for _, dose in condition.members}
    assert doses == ({10.0, 100.0} if chosen is None else {chosen})


@pytest.mark.parametrize(
    "strategy", ["unseen_perturbation", "unseen_dose", "unseen_dose_highest", "unseen_dose_lowest"]
)
@pytest.mark.parametrize("seed", range(3))
def test_combinations_leave_with_their_parts(strategy, seed):
    trained, tiers = outcome(cells_of([*SINGLES, *PAIRS]), holdout=strategy, fraction=0.4, seed=seed)
    singles = {condition for condition in tiers if len(condition.members) == 1}
    held_out = {member for condition in singles for member in condition.members}
    assert held_out
    assert held_out.isdisjoint(member for condition in trained for member in condition.members)


@pytest.mark.parametrize("parts_seen", [None, 2, 1, 0])
@pytest.mark.parametrize("seed", range(5))
def test_parts_of_combinations_are_seen_as_asked(parts_seen, seed):
    arguments = {"holdout": "unseen_combination", "parts_seen": parts_seen, "fraction": 0.3, "seed": seed}
    trained, tiers = outcome(cells_of([*SINGLES, *PAIRS]), **arguments)
    seen = frozenset().union(*map(names, trained))
    sets = {names(condition) for condition in tiers if len(condition.members) > 1}
    assert len(sets) >= 2  # of 6
    n_seen = [len(combination & seen) for combination in sets]
    if parts_seen is None:
        assert n_seen == [len(combination) for combination in sets]
        assert sets.isdisjoint(map(names, trained))
        assert set(tiers.values()) == {"unseen combination"}
    else:
        assert parts_seen in n_seen
    # What training no longer sees are parts of combinations, and nothing else leaves.
    gone = {name for condition in tiers if len(condition.members) == 1 for name in names(condition)}
    assert gone.isdisjoint(seen)
    assert gone <= frozenset().union(*sets)


def test_a_part_seen_in_one_combination_alone_stays_there():
    # A+B is the only place where B is seen: held out, it would not be of seen parts.
    trained, tiers = outcome(
        cells_of([("A", "1"), ("C", "1"), ("A+B", "1"), ("A+C", "1")]), holdout="unseen_combination", fraction=0.99
    )
    assert {names(condition) for condition in tiers} == {frozenset("AC")}
    assert frozenset("AB") in set(map(names, trained))


def test_controls_of_an_unseen_group_do_not_train():
    adata = cells_of(SINGLES)
    _, tiers = outcome(adata, holdout="unseen_group")
    (group,) = {condition.group[0] for condition in tiers}
    in_group = adata.obs["line"] == group
    assert set(adata.obs["split"][in_group]) == {"test"}
    control = adata.obs["drug"] == "control"
    assert {"train", "test"} <= set(adata.obs["split"][control & ~in_group])
    scgap.pp.split(adata, holdout={"line": group}, key_added="named", **COLUMNS)
    assert adata.obs["named"].equals(adata.obs["split"])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("fraction", [0.2, 0.6])
def test_cells_of_seen_conditions_are_split_as_without_it(strategy, fraction):
    adata = cells_of([*SINGLES, *PAIRS])
    scgap.pp.split(adata, key_added="plain", **COLUMNS)
    scgap.pp.split(adata, holdout=strategy, fraction=fraction, **COLUMNS)
    condition = adata.obs.groupby(["drug", "dose", "line"]).ngroup()
    trains = (adata.obs["split"] == "train").groupby(condition).transform("any")
    assert trains.any()
    assert not trains.all()
    assert adata.obs["split"][trains].equals(adata.obs["plain"][trains])
    assert (adata.obs["split"][~trains] == "test").all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_seed_chooses(strategy):
    one, again, *others = (
        scgap.pp.split(cells_of([*SINGLES, *PAIRS]), holdout=strategy, seed=seed, copy=True, **COLUMNS).obs["split"]
        for seed in (1, 1, 2, 3, 4)
    )
    assert one.equals(again)
    assert not all(one.equals(other) for other in others)


members = st.dictionaries(st.sampled_from("ABCDE"), st.sampled_from([1.0, 10.0, 100.0]), min_size=1, max_size=3)
conditions = st.builds(
    lambda drugs, group: Condition(tuple(sorted(drugs.items())), (group,)), members, st.sampled_from("xy")
)


@given(
    st.lists(conditions, min_size=1, max_size=12, unique=True),
    st.sampled_from(STRATEGIES),
    st.floats(0.01, 0.99),
    st.sampled_from([None, 0, 1, 2]),
)
def test_any_screen_loses_something_or_is_told_why(found, strategy, fraction, parts_seen):
    screen = [Condition((), ("x",)), Condition((), ("y",)), *found]
    try:
        held_out = unseen_conditions(strategy, screen, fraction, parts_seen, 0)
    except ValueError as error:
        assert strategy.removesuffix("_lowest") in str(error)  # noqa: PT017 (either outcome is right)
        return
    assert held_out
    assert not {0, 1} & set(held_out)
    if strategy == "unseen_combination":
        assert len(held_out) < len(found)


@pytest.mark.parametrize(
    ("labels", "groups", "arguments", "words"),
    [
        (SINGLES, "xy", {"holdout": "unseen"}, ("'unseen' is not in the strategies", "Did you mean 'unseen_dose'?")),
        (SINGLES, "xy", {"holdout": "dose"}, ("found 'unseen_perturbation', 'unseen_dose'", "Pass one of these")),
        (SINGLES, "xy", {"holdout": "unseen_dose", "fraction": 0}, ("fraction=0", "nothing to hold out", "above 0")),
        (SINGLES[:4], "xy", {"holdout": "unseen_perturbation"}, ("fewer than two: 'A'", "Check target_col")),
        (SINGLES, "x", {"holdout": "unseen_group"}, ("fewer than two", "'x'", "as group_col")),
        (SINGLES, "xy", {"holdout": "unseen_group", "group_col": None}, ("fewer than two", "nothing", "as group_col")),
        (SINGLES, "xy", {"holdout": "unseen_dose", "dose_col": None}, ("no perturbation has any", "as dose_col")),
        (
            [("A", "1"), ("A", "10"), ("B", "1")],
            "x",
            {"holdout": "unseen_dose"},
            ("at least 3 doses", "more than 'A': 1, 10", "pass 'unseen_dose_highest'"),
        ),
        (
            [("A", "1"), ("B", "10")],
            "x",
            {"holdout": "unseen_dose_lowest"},
            ("at least 2 doses", "more than 'A': 1.", "hold out something else"),
        ),
        (SINGLES, "x", {"holdout": "unseen_combination"}, ("there are none", "several columns as target_col", "sep")),
        (PAIRS, "x", {"holdout": "unseen_combination", "sep": None, "dose_col": None}, ("there are none", "as sep")),
        (
            [("A+B", "1"), ("A+C", "1")],
            "x",
            {"holdout": "unseen_combination"},
            ("'A+B', 'A+C'", "sees all of its parts", "another parts_seen"),
        ),
        (
            [("A+B", "1"), ("A", "1")],
            "x",
            {"holdout": "unseen_combination", "parts_seen": 3},
            ("parts_seen=3", "'A+B'", "just 3 of its parts"),
        ),
        (SINGLES, "x", {"parts_seen": 1}, ("parts_seen=1", "holdout=None", "Leave it out")),
        (SINGLES, "x", {"holdout": "unseen_dose", "parts_seen": 1}, ("'unseen_dose'", "'unseen_combination'")),
        (PAIRS, "x", {"holdout": "unseen_combination", "parts_seen": -1}, ("parts_seen=-1", "0, 1, 2", "None for all")),
        (PAIRS, "x", {"holdout": "unseen_combination", "parts_seen": True}, ("parts_seen=True",)),
        (PAIRS, "x", {"holdout": "unseen_combination", "parts_seen": 1.5}, ("parts_seen=1.5",)),
        (
            [("A+B", "1"), ("A", "1")],
            "x",
            {"holdout": "unseen_perturbation", "seed": 1},
            ("Nothing is left to train on", "'unseen_perturbation'", "a smaller fraction"),
        ),
    ],
)
def test_what_cannot_be_held_out_is_refused(refused, labels, groups, arguments, words):
    adata = cells_of(labels, groups)
    with refused(adata, ValueError, *words):
        scgap.pp.split(adata, **{**COLUMNS, **arguments})


def test_rows_of_a_table_are_held_out():
    adata = cells_of(SINGLES)
    table = pd.DataFrame({"drug": ["A", "B"], "dose": [10.0, 100.0], "line": ["x", None]})
    _, tiers = outcome(adata, holdout=table)
    expected = {Condition((("A", 10.0),), ("x",)), *(Condition((("B", 100.0),), (group,)) for group in GROUPS)}
    assert set(tiers) == expected


def test_the_table_of_a_fit_is_a_table_to_hold_out(fitted):
    design = {"dose_col": "dose_value", "group_col": "cell_line"}
    columns = ["perturbation", "dose_value", "cell_line"]
    table = fitted.uns["scgap"]["conditions"].iloc[[0, 5]][columns]
    scgap.pp.split(fitted, holdout=table, **design)
    gone = ~fitted.obs.groupby(columns, observed=True)["split"].transform(lambda part: (part == "train").any())
    assert len(fitted.obs[gone].drop_duplicates(columns)) == 2


@pytest.mark.parametrize("empty", [{}, pd.DataFrame(), pd.DataFrame({"drug": [None]})])
def test_an_empty_table_or_mapping_is_refused(refused, empty):
    adata = cells_of(SINGLES)
    with refused(adata, ValueError, "names no perturbed cells", "occur together"):
        scgap.pp.split(adata, holdout=empty, **COLUMNS)


def test_a_misspelt_name_beside_missing_ones_is_told():
    adata = cells_of(SINGLES[:4])
    adata.obs.loc["cell_0", "line"] = np.nan
    with pytest.raises(KeyError, match=r"'xx' is not in .*found 'x', 'y', 'z'"):
        scgap.pp.split(adata, holdout={"line": ["xx"]}, **COLUMNS)


def test_labels_are_compared_as_text():
    adata = cells_of([("1", "10"), ("01", "10"), ("1e0", "10")])
    scgap.pp.split(adata, holdout={"drug": ["1"]}, **COLUMNS)
    assert set(adata.obs.loc[adata.obs["drug"] == "1", "split"]) == {"test"}
    assert (adata.obs.loc[adata.obs["drug"] == "01", "split"] == "train").any()
    adata.obs["drug"] = adata.obs["drug"].replace({"01": "2", "1e0": "3"}).replace({"control": "0"}).astype(float)
    scgap.pp.split(adata, holdout={"drug": [1]}, reference_key="0", **COLUMNS)
    assert set(adata.obs.loc[adata.obs["drug"] == 1.0, "split"]) == {"test"}


def test_doses_of_single_precision_are_held_out_by_value():
    adata = cells_of([(drug, dose) for drug in "AB" for dose in ("0.1", "0.3")])
    adata.obs["dose"] = adata.obs["dose"].astype(np.float32)
    is_low = adata.obs["dose"] == np.float32(0.1)
    for holdout in ({"dose": [0.1]}, adata.obs.loc[is_low, ["dose"]].drop_duplicates()):
        scgap.pp.split(adata, holdout=holdout, **COLUMNS)
        assert set(adata.obs.loc[is_low, "split"]) == {"test"}
        assert "train" in set(adata.obs.loc[adata.obs["dose"] == np.float32(0.3), "split"])


def test_cells_of_a_table_may_be_lists():
    adata = cells_of(SINGLES)
    scgap.pp.split(adata, holdout=pd.DataFrame({"drug": [["A", "B"]], "line": [None]}), **COLUMNS)
    assert set(adata.obs.loc[adata.obs["drug"].isin(["A", "B"]), "split"]) == {"test"}
    assert "train" in set(adata.obs.loc[adata.obs["drug"] == "C", "split"])
    adata.obs["drug"] = adata.obs["drug"].replace({"C": "C "})
    scgap.pp.split(adata, holdout={"drug": ["C"]}, **COLUMNS)
    assert set(adata.obs.loc[adata.obs["drug"] == "C ", "split"]) == {"test"}


def test_pairs_are_held_out_in_whatever_order_they_are_written():
    adata = cells_of([*SINGLES, *PAIRS])
    scgap.pp.split(adata, holdout={"drug": ["B+A", "C + B"]}, **COLUMNS)
    assert set(adata.obs.loc[adata.obs["drug"].isin(["A+B", "B+C"]), "split"]) == {"test"}
    assert "train" in set(adata.obs.loc[adata.obs["drug"] == "A+C", "split"])
    with pytest.raises(KeyError, match=r"'A\+E' is not in"):
        scgap.pp.split(adata, holdout={"drug": ["E+A"]}, **COLUMNS)
