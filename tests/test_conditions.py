import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgap import _conditions
from scgap._conditions import Condition, make_design, parse_condition, read_conditions, write_members

SINGLE = make_design("perturbation", "control")
DOSED = make_design("perturbation", "control", "dose", sep="+")
TWO_COLUMNS = make_design(["drug1", "drug2"], "control", ["dose1", "dose2"])

# Whatever a name of a drug or a gene may hold, separators of other people's labels included.
names = st.text("abXYZ019+-_/|,;:.()[]{}'\"\\ éαµ°抗", min_size=1, max_size=12).map(str.strip)
names = names.filter(lambda name: name not in ("", "control"))
distinct_names = st.lists(names, min_size=1, max_size=6, unique=True)
doses = st.floats(1e-6, 1e6)
members_with_doses = st.dictionaries(names.filter(lambda name: "+" not in name), doses, min_size=1, max_size=6)


def parse(design, *values):
    return parse_condition(design, dict(zip(design.columns, values, strict=True)))


@given(distinct_names, st.sampled_from([str, object, "category"]))
def test_any_label_survives_reading(labels, dtype):
    cells = pd.Series([*labels, "control", *reversed(labels)]).astype(dtype)
    conditions, of_cell, _ = read_conditions(SINGLE, pd.DataFrame({"perturbation": cells}))
    assert [conditions[i].members for i in of_cell] == [() if name == "control" else ((name, None),) for name in cells]


@given(distinct_names, names)
def test_reference_key_can_be_any_label(labels, reference):
    design = make_design("perturbation", reference)
    conditions, of_cell, _ = read_conditions(design, pd.DataFrame({"perturbation": [*labels, reference]}))
    assert conditions[of_cell[-1]] == Condition(())
    assert sum(condition.is_control for condition in conditions) == 1


@given(st.data(), members_with_doses)
def test_order_of_members_changes_nothing(data, members):
    order = data.draw(st.permutations(sorted(members)))
    expected = Condition(tuple(sorted(members.items())))
    # One label split by a separator, with or without space around it, or lists.
    in_order = [members[name] for name in order]
    joined = "+".join(map(repr, in_order))
    assert parse(DOSED, "+".join(order), joined) == parse(DOSED, " + ".join(order), joined) == expected
    assert parse(DOSED, order, in_order) == expected


def test_order_of_target_columns_changes_nothing():
    assert parse(TWO_COLUMNS, "A", "B", 1, 2) == parse(TWO_COLUMNS, "B", "A", 2, 1) == Condition((("A", 1), ("B", 2)))


@pytest.mark.parametrize(
    ("design", "values", "members"),
    [
        (SINGLE, ("A+B",), [("A+B", None)]),  # there is no default separator
        (SINGLE, (" A ",), [("A", None)]),
        (SINGLE, (5,), [("5", None)]),
        (SINGLE, ("control",), []),
        (make_design("perturbation", "control", sep="+"), ("B+A",), [("A", None), ("B", None)]),
        (make_design("perturbation", "control", sep="+"), ("A+A",), [("A", None)]),
        (make_design("perturbation", "control", sep="+"), ("A+control",), [("A", None)]),
        (make_design("perturbation", "control", sep="+"), ("control+control",), []),
        (make_design("perturbation", "control", sep="+"), ("A+",), [("A", None)]),
        (DOSED, ("A+A", "10+5"), [("A", 15)]),
        (DOSED, ("A+A", 10), [("A", 20)]),
        (DOSED, ("A+control", "10+3"), [("A", 10)]),
        (DOSED, ("A+control", 10), [("A", 10)]),
        (DOSED, ("A", "10"), [("A", 10)]),
        (DOSED, ("A", " 1e-3 "), [("A", 0.001)]),
        (make_design("perturbation", "control", "dose"), ("A", "1e+3"), [("A", 1_000)]),
        (DOSED, ("A+B", "10+100"), [("A", 10), ("B", 100)]),
        (DOSED, ("B+A", "10+100"), [("A", 100), ("B", 10)]),
        (DOSED, ("A+B", 10), [("A", 10), ("B", 10)]),
        (DOSED, ("A+B", "10+0"), [("A", 10)]),
        (DOSED, ("A", 0), []),
        (DOSED, ("A", "0.0"), []),
        (DOSED, ("control", np.nan), []),  # a control needs no dose
        (DOSED, ("control", "vehicle"), []),
        (TWO_COLUMNS, ("A", "control", 10, np.nan), [("A", 10)]),
        (TWO_COLUMNS, ("A", "A", 10, 5), [("A", 15)]),
        (make_design(["drug1", "drug2"], "control", "dose"), ("A", "B", 3), [("A", 3), ("B", 3)]),
        (make_design("perturbation", "control", "dose"), (("A", "B"), (1, 2)), [("A", 1), ("B", 2)]),
    ],
)
def test_what_labels_and_doses_mean(design, values, members):
    assert parse(design, *values) == Condition(tuple(members))


def test_group_and_time_belong_to_the_condition():
    design = make_design("perturbation", "control", group_col=["line", "donor"], time_col="hours")
    assert parse(design, "A", "K562", 3, "24") == Condition((("A", None),), ("K562", "3"), 24.0)
    # Controls are matched by group, not by time.
    assert parse(design, "control", "K562", 3, np.nan) == Condition((), ("K562", "3"))


def test_cells_without_label_or_group_have_no_condition():
    design = make_design("perturbation", "control", group_col="line")
    obs = pd.DataFrame({"perturbation": ["A", None, "control", "A"], "line": ["x", "x", "x", np.nan]})
    conditions, of_cell, _ = read_conditions(design, obs)
    assert conditions == [Condition((), ("x",)), Condition((("A", None),), ("x",))]
    np.testing.assert_array_equal(of_cell, [1, -1, 0, -1])


@pytest.mark.parametrize(
    ("design", "blank"),
    [(SINGLE, ""), (SINGLE, "  "), (make_design("perturbation", "control", sep="+"), " + "), (DOSED, "+")],
)
def test_a_blank_label_is_a_missing_label(design, blank):
    obs = pd.DataFrame({"perturbation": ["A", blank, "control"], "dose": [1.0, 2.0, 0.0]})
    conditions, of_cell, _ = read_conditions(design, obs)
    assert of_cell.tolist() == [1, -1, 0]
    assert [condition.is_control for condition in conditions] == [True, False]


def test_blank_labels_of_several_columns():
    design = make_design(["first", "second"], "control")
    obs = pd.DataFrame({"first": ["A", "control", "", " "], "second": ["", "", "A", ""]})
    conditions, of_cell, _ = read_conditions(design, obs)
    assert [[name for name, _ in conditions[i].members] for i in of_cell[:3]] == [["A"], [], ["A"]]
    assert of_cell[3] == -1


@pytest.mark.parametrize("blank", ["", " "])
def test_controls_may_be_blank(blank):
    conditions, of_cell, _ = read_conditions(make_design("drug", blank), pd.DataFrame({"drug": ["A", "", "  ", None]}))
    assert of_cell.tolist() == [1, 0, 0, -1]
    assert conditions[0].is_control


def test_space_around_reference_key_is_no_part_of_it():
    conditions, of_cell, _ = read_conditions(make_design("drug", " DMSO "), pd.DataFrame({"drug": ["DMSO", "A"]}))
    assert conditions[of_cell[0]].is_control


@pytest.mark.parametrize("reference", [0, "0", 0.0])
def test_labels_that_a_missing_one_made_floats(reference):
    obs = pd.DataFrame({"guide": [0.0, 1.0, np.nan, 2.5]})
    conditions, of_cell, _ = read_conditions(make_design("guide", reference), obs)
    assert of_cell.tolist() == [0, 1, -1, 2]
    assert [condition.members for condition in conditions] == [(), (("1", None),), (("2.5", None),)]


def test_doses_in_single_precision_are_what_was_written():
    obs = pd.DataFrame({"perturbation": ["A", "control"], "dose": np.array([0.1, 0.0], np.float32)})
    conditions, _, _ = read_conditions(DOSED, obs)
    assert conditions[1].members == (("A", 0.1),)


def test_spellings_of_one_condition_are_one_condition():
    obs = pd.DataFrame({"perturbation": ["A+B", "B + A", "control", "A"], "dose": ["1+2", "2.0+1", "0", "0"]})
    conditions, of_cell, rows = read_conditions(DOSED, obs)
    np.testing.assert_array_equal(of_cell, [1, 1, 0, 0])
    assert list(rows["perturbation"]) == ["control", "A+B"]
    assert [parse_condition(DOSED, row) for row in _conditions.records(rows)] == conditions


def test_condition_label_can_be_read():
    assert _conditions.condition_label(Condition((("A", 10.0), ("B", 0.5)), ("K562",), 24.0)) == (
        "A 10 + B 0.5, K562, time 24"
    )
    assert _conditions.condition_label(Condition((), ("K562",))) == "control, K562"
    assert _conditions.condition_label(Condition((("A+B", None),))) == "A+B"


@pytest.mark.parametrize("dose", [100.0, 1_234_567.0, 1_234_568.0, 0.1, 1e-6, 1 / 3])
def test_condition_label_tells_doses_apart(dose):
    shown = _conditions.condition_label(Condition((("A", dose),))).removeprefix("A ")
    assert float(shown) == dose
    assert not shown.endswith(".0")


# Errors say what was found, what is allowed and what to do


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("A", "10 uM"), ["'dose' holds '10 uM'", "not a number", "convert the column"]),
        (("A+B", "10+low"), ["'dose' holds 'low'", "not a number", "convert the column"]),
        (("A", None), ["'dose' holds None", "not a number", "convert the column"]),
        (("A", -1.0), ["'dose' holds -1.0", "not negative", "drop these cells"]),
        (("A", np.nan), ["'dose' holds nan", "finite", "drop these cells"]),
        (("A", np.inf), ["'dose' holds inf", "finite", "drop these cells"]),
        (("A+B", "1+2+3"), ["3 doses, '1+2+3'", "for 2 perturbations, 'A', 'B'", "Give one dose for all, or one for"]),
        (("A", "1+2"), ["2 doses, '1+2'", "for 1 perturbations, 'A'", "Give one dose for all, or one for each"]),
        (("A", True), ["holds True, which is not a number"]),
        (("A", np.True_), ["holds np.True_, which is not a number"]),
        ((["A", "B"], [1.0]), ["1 doses, [1.0]", "for 2 perturbations, 'A', 'B'", "Give one dose for all"]),
    ],
)
def test_doses_that_cannot_be_read(values, words):
    with pytest.raises(ValueError, match="dose") as caught:
        parse(DOSED, *values)
    assert not [word for word in words if word not in str(caught.value)]


def test_time_that_cannot_be_read():
    design = make_design("perturbation", "control", time_col="hours")
    with pytest.raises(ValueError, match=r"'hours' holds 'late', which is not a number.*convert the column"):
        parse(design, "A", "late")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("vehcile", ["'vehcile' is not in adata.obs['perturbation']", "'A', 'vehicle'", "Did you mean 'vehicle'?"]),
        ("Vehicle", ["'Vehicle' is not in", "'A', 'vehicle'", "Did you mean 'vehicle'?"]),
        ("DMSO", ["'DMSO' is not in adata.obs['perturbation']", "found 'A', 'vehicle'", "Pass one of these."]),
    ],
)
def test_unknown_reference_key_suggests_the_nearest(reference, words):
    design = make_design("perturbation", reference)
    with pytest.raises(ValueError, match="names no control cells") as caught:
        read_conditions(design, pd.DataFrame({"perturbation": ["vehicle", "A"]}))
    assert not [word for word in words if word not in str(caught.value)]


@pytest.mark.parametrize("n_columns", [2, 3])
def test_numbers_of_target_and_dose_columns_that_do_not_match(n_columns):
    columns = [f"dose{i}" for i in range(n_columns)]
    targets = ["a"] if n_columns == 2 else ["a", "b"]
    with pytest.raises(
        ValueError, match=rf"names {n_columns} columns and target_col {len(targets)}.*Pass one dose col"
    ):
        make_design(targets, "control", columns)


def test_no_target_column():
    with pytest.raises(ValueError, match=r"target_col is empty\. Pass the obs column"):
        make_design([], "control")


@pytest.mark.parametrize("argument", ["target_col", "group_col"])
def test_a_column_that_is_named_twice(argument):
    columns = {"target_col": "drug", argument: ["a", "b", "a"]}
    with pytest.raises(ValueError, match=f"{argument} names a column twice: 'a', 'b', 'a'. Pass each column once"):
        make_design(reference_key="control", **columns)


@pytest.mark.parametrize(("reference", "words"), [(None, "a NoneType"), (["control"], "a list"), (("a",), "a tuple")])
def test_a_reference_that_is_no_label(reference, words):
    with pytest.raises(TypeError, match=f"reference_key is {words}. Pass the one label"):
        make_design("drug", reference)


@pytest.mark.parametrize("sep", ["", 1])
def test_a_separator_that_is_none(sep):
    with pytest.raises(ValueError, match=f"sep={sep!r}. Pass the text between .*or None for labels as a whole"):
        make_design("drug", "control", sep=sep)


def test_a_second_column_without_label_holds_no_perturbation():
    design = make_design(["first", "second"], "control")
    obs = pd.DataFrame({"first": ["A", "A", "control", np.nan], "second": ["B", np.nan, np.nan, np.nan]}, dtype=object)
    conditions, of_cell, _ = read_conditions(design, obs)
    assert [[name for name, _ in conditions[i].members] for i in of_cell[:3]] == [["A", "B"], ["A"], []]
    assert of_cell[3] == -1


def test_dose_zero_does_not_hide_a_misspelt_reference():
    obs = pd.DataFrame({"drug": ["control", "A"], "dose": [0.0, 1.0]})
    with pytest.raises(ValueError, match="Did you mean 'control'"):
        read_conditions(make_design("drug", "contrl", "dose"), obs)
    one_drug = pd.DataFrame({"drug": ["palbociclib"] * 2, "dose": [0.0, 1.0]})
    conditions, _, _ = read_conditions(make_design("drug", "control", "dose"), one_drug)
    assert [condition.is_control for condition in conditions] == [True, False]


MEMBERS = st.dictionaries(st.sampled_from([*"ABCDE"]), st.floats(1e-3, 1e3), min_size=1, max_size=5)
DESIGNS = [
    make_design("drug", "control", "dose"),
    make_design("drug", "control", "dose", sep="+"),
    make_design(["one", "two"], "control", "dose"),
    make_design(["one", "two", "three"], "control", ["dose_1", "dose_2", "dose_3"], sep="+"),
    make_design(["one", "two"], "control"),
]


@given(MEMBERS, st.sampled_from(DESIGNS), st.booleans())
def test_what_is_written_is_read_back(members, design, dosed):
    dosed = dosed and bool(design.dose_cols)
    members = tuple((name, dose if dosed else None) for name, dose in sorted(members.items()))
    row = write_members(design, members)
    assert set(row) == {*design.target_cols, *(design.dose_cols if dosed else ())}
    assert parse_condition(design if dosed else design._replace(dose_cols=()), row).members == members


def test_controls_in_combinations_that_are_not_the_reference_are_named():
    obs = pd.DataFrame({"genes": ["control", "A+ctrl", "ctrl+B", "A+B"]})
    with pytest.warns(UserWarning, match="'ctrl' in combinations is taken for a perturbation.*reference_key='control'"):
        read_conditions(make_design("genes", "control", sep="+"), obs)
    read_conditions(make_design("genes", "ctrl", sep="+"), obs.replace("control", "ctrl"))  # which warns of nothing
    read_conditions(make_design("genes", "control"), obs)  # for there are no combinations


def test_whole_numbers_of_groups_are_the_same_however_they_are_stored():
    """Donors 1 and 2 become 1.0 and 2.0 once one is missing."""
    columns = [[1, 2, 1], [1.0, 2.0, 1.0], np.float32([1, 2, 1]), ["1", "2", "1"], pd.Categorical([1, 2, 1])]
    design = make_design("perturbation", "control", group_col="donor")
    for donors in columns:
        obs = pd.DataFrame({"perturbation": ["control", "control", "A"], "donor": donors})
        assert [condition.group for condition in read_conditions(design, obs)[0]] == [("1",), ("1",), ("2",)]
    table = _conditions.group_texts(pd.DataFrame({"donor": [1.0, np.nan, 1.5]}))
    assert table["donor"].tolist()[::2] == ["1", "1.5"]
    assert table["donor"].isna().tolist() == [False, True, False]


NARROW = [["float32"], ["float16"], ["float32", "category"], ["Float32"]]


@pytest.mark.parametrize("dtypes", NARROW, ids=" ".join)
def test_narrow_numbers_are_the_ones_they_were_written_as(dtypes):
    numbers = pd.Series([0.1, 0.3, 0.0])
    for dtype in dtypes:
        numbers = numbers.astype(dtype)
    conditions, _, _ = read_conditions(DOSED, pd.DataFrame({"perturbation": ["A", "A", "control"], "dose": numbers}))
    assert [condition.members for condition in conditions] == [(), (("A", 0.1),), (("A", 0.3),)]
    design = make_design("perturbation", "control", group_col="group")
    groups = read_conditions(design, pd.DataFrame({"perturbation": "control", "group": numbers}))[0]
    assert [condition.group for condition in groups] == [("0",), ("0.1",), ("0.3",)]
    assert _conditions.group_texts(pd.DataFrame({"group": numbers}))["group"].tolist() == ["0.1", "0.3", "0"]
    assert [row["group"] for row in _conditions.exact_records(pd.DataFrame({"group": numbers}))] == [0.1, 0.3, 0.0]


def test_the_reference_may_hold_the_separator():
    design = make_design("perturbation", "non-targeting", sep="-")
    labels = ["non-targeting", "A-B", "A", "A-non-targeting", "non-targeting-A", "non-targeting-non-targeting"]
    labels += ["A - non-targeting"]
    conditions, of_cell, _ = read_conditions(design, pd.DataFrame({"perturbation": labels}))
    one, two = (("A", None),), (("A", None), ("B", None))
    assert [conditions[i].members for i in of_cell] == [(), two, one, one, one, (), one]
    dosed = make_design("perturbation", "non-targeting", "dose", sep="-")
    assert parse(dosed, "A-non-targeting", "10-0").members == (("A", 10.0),)


def test_a_column_says_one_thing():
    with pytest.raises(ValueError, match=r"'hours' is passed as two of .* copy the column as text"):
        make_design("perturbation", "control", group_col=["line", "hours"], time_col="hours")
    with pytest.raises(ValueError, match="'dose' is passed as two of"):
        make_design("perturbation", "control", dose_col="dose", group_col="dose")


def test_a_reference_that_never_stands_alone_is_named_with_what_is_beside_it():
    obs = pd.DataFrame({"drug1": ["control", "A"], "drug2": ["None", "None"], "dose1": [0, 1], "dose2": [1, 1]})
    with pytest.raises(ValueError, match="stands beside others everywhere, 'A', 'None'"):
        read_conditions(TWO_COLUMNS, obs)
