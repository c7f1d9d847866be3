import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgap import _conditions
from scgap._conditions import Condition, make_design, parse_condition, read_conditions

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


def encode(labels, *, table=None, design=SINGLE):
    """Conditions that are read from labels, and their encoding."""
    conditions, of_cell, _ = _conditions.read_conditions(design, pd.DataFrame({"perturbation": labels}))
    return conditions, of_cell, _conditions.make_encoding(design, conditions, table)


# Labels


@given(distinct_names, st.sampled_from([str, object, "category"]))
def test_any_label_survives_reading_and_encoding(labels, dtype):
    cells = pd.Series([*labels, "control", *reversed(labels)]).astype(dtype)
    conditions, of_cell, encoding = encode(cells)
    assert [conditions[i].members for i in of_cell] == [() if name == "control" else ((name, None),) for name in cells]
    arrays = _conditions.encode_conditions(encoding, conditions)
    for condition, row, mask in zip(conditions, arrays.members, arrays.mask, strict=True):
        assert mask.sum() == len(condition.members)
        assert [encoding.perturbations[i] for i in row[mask > 0]] == [name for name, _ in condition.members]


@given(distinct_names, names)
def test_reference_key_can_be_any_label(labels, reference):
    design = make_design("perturbation", reference)
    conditions, of_cell, _ = _conditions.read_conditions(design, pd.DataFrame({"perturbation": [*labels, reference]}))
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
    conditions = [Condition(tuple((name, members[name]) for name in some)) for some in (order, sorted(members))]
    encoding = _conditions.make_encoding(DOSED, [expected], None)
    one, other = (_conditions.encode_conditions(encoding, [condition]) for condition in conditions)
    assert {*zip(one.members[0], one.doses[0], strict=True)} == {*zip(other.members[0], other.doses[0], strict=True)}


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
    conditions, of_cell, _ = _conditions.read_conditions(design, obs)
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
    conditions, of_cell, rows = _conditions.read_conditions(DOSED, obs)
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
        _conditions.read_conditions(design, pd.DataFrame({"perturbation": ["vehicle", "A"]}))
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


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        ({"A": [1.0]}, TypeError, ["encoding is a dict", "DataFrame", "one row a perturbation"]),
        (pd.DataFrame({"x": [1.0]}, ["A"]), ValueError, ["no row for 'B'", "holds 'A'", "Add their descriptors, or"]),
        (pd.DataFrame({"x": [1, 2, 3]}, ["A", "B", "B"]), ValueError, ["names 'B' twice", "Keep one row"]),
        (pd.DataFrame({"x": [1, np.nan], "y": 1}, ["A", "B"]), ValueError, ["finite numbers", "'x'", "Fill or drop"]),
        (pd.DataFrame({"x": [1, np.inf], "y": 1}, ["A", "B"]), ValueError, ["finite numbers", "'x'", "Fill or drop"]),
        (pd.DataFrame({"x": ["CCO", "C"]}, ["A", "B"]), ValueError, ["finite numbers", "'x'", "Fill or drop"]),
        (pd.DataFrame(index=["A", "B"]), ValueError, ["at least one column"]),
    ],
)
def test_encoding_that_cannot_be_used(table, error, words):
    with pytest.raises(error) as caught:
        encode(["A", "B", "control"], table=table)
    assert not [word for word in words if word not in str(caught.value)]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, ["No vector for 'vorinostt'", "perturbations that the map was fitted on", "Did you mean 'vorinostat'?"]),
        (pd.DataFrame({"x": [1, 2]}, ["A", "vorinostat"]), ["'vorinostt'", "rows of the encoding", "'vorinostat'?"]),
    ],
    ids=["learned", "encoding"],
)
def test_unseen_perturbation_says_what_to_supply(table, words):
    _, _, encoding = encode(["A", "vorinostat", "control"], table=table)
    with pytest.raises(KeyError) as caught:
        _conditions.encode_conditions(encoding, [Condition((("vorinostt", None),))])
    words = [*words, "needs descriptors: fit with encoding=, a table that holds a row for it"]
    assert not [word for word in words if word not in caught.value.args[0]]


# Numbers


def test_unseen_perturbation_with_a_row_has_a_vector():
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0]}, ["A", "unseen", "B"])
    _, _, encoding = encode(["A", "B", "control"], table=table)
    arrays = _conditions.encode_conditions(encoding, [Condition((("unseen", None),))])
    assert encoding.perturbations[arrays.members[0, 0]] == "unseen"


@pytest.mark.parametrize(("n", "padded"), [(0, 4), (1, 4), (4, 4), (5, 8)])
def test_sets_are_padded(n, padded):
    condition = Condition(tuple((f"p{i}", None) for i in range(n)))
    encoding = _conditions.make_encoding(SINGLE, [condition], None)
    arrays = _conditions.encode_conditions(encoding, [condition, Condition(())])
    assert arrays.members.shape == arrays.doses.shape == arrays.mask.shape == (2, padded)
    np.testing.assert_array_equal(arrays.mask.sum(1), [n, 0])


def test_doses_and_times_are_standardised_by_the_training_conditions():
    design = make_design("perturbation", "control", "dose", time_col="hours")
    train = [parse(design, "A", dose, hours) for dose, hours in ((10, 6), (1_000, 48), (1_000, 6))]
    unseen = parse(design, "A", 100_000, 6)
    encoding = _conditions.make_encoding(design, train, None)
    arrays = _conditions.encode_conditions(encoding, train)
    for values in (arrays.doses[:, 0], arrays.context[:, 0]):
        np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-6)
    # Steps of the same factor are steps of the same length.
    steps = np.diff([*arrays.doses[:2, 0], _conditions.encode_conditions(encoding, [unseen]).doses[0, 0]])
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-5)


def test_groups_are_one_hot():
    design = make_design("perturbation", "control", group_col=["line", "donor"])
    conditions = [parse(design, "A", *group) for group in (("K562", 1), ("A549", 2), ("A549", 1))]
    encoding = _conditions.make_encoding(design, conditions, None)
    assert encoding.groups == {"line": ["A549", "K562"], "donor": ["1", "2"]}
    context = _conditions.encode_conditions(encoding, conditions).context
    np.testing.assert_array_equal(context[:, :4], [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]])
    np.testing.assert_array_equal(context[:, 4:], 0)


def test_a_group_that_was_not_trained_on_is_encoded_as_zeros():
    design = make_design("perturbation", "control", group_col=["line", "donor"])
    trained, other = parse(design, "A", "K562", 1), parse(design, "A", "A549", 1)
    encoding = _conditions.make_encoding(design, [trained], None)
    assert encoding.groups == {"line": ["K562"], "donor": ["1"]}
    context = _conditions.encode_conditions(encoding, [trained, other]).context
    np.testing.assert_array_equal(context[:, :2], [[1, 1], [0, 1]])


def test_descriptors_are_standardised():
    table = pd.DataFrame({"x": [1.0, 2.0, 6.0], "constant": 7.0}, ["A", "B", "C"])
    _, _, encoding = encode(["A", "B", "control"], table=table)
    vectors = _conditions.initial_vectors(encoding, seed=0)
    np.testing.assert_allclose(vectors[:, 0], (table["x"] - 3) / table["x"].std(ddof=0), rtol=1e-6)
    np.testing.assert_array_equal(vectors[:, 1], 0.0)


def test_learned_vectors_follow_the_seed():
    _, _, encoding = encode(["A", "B", "control"])
    one, again, other = (_conditions.initial_vectors(encoding, seed) for seed in (0, 0, 1))
    assert one.shape == (2, _conditions.N_LEARNED)
    np.testing.assert_array_equal(one, again)
    assert np.all(one != other)


@given(distinct_names, distinct_names, st.booleans())
def test_encoding_survives_its_dict(perturbations, groups, with_table):
    design = make_design("perturbation", "control", "dose", group_col=["line"], time_col="hours")
    conditions = [
        Condition(((name, 1.0 + i),), (group,), float(i)) for i, name in enumerate(perturbations) for group in groups
    ]
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(len(perturbations), 2)), perturbations, groups[:1] * 2)
    encoding = _conditions.make_encoding(design, conditions, table if with_table else None)
    restored = _conditions.encoding_from_dict(_conditions.encoding_to_dict(encoding))
    assert restored.values.dtype == np.float32
    np.testing.assert_array_equal(restored.values, encoding.values)
    assert restored._replace(values=None) == encoding._replace(values=None)
    expected = _conditions.encode_conditions(encoding, conditions)
    for array, original in zip(_conditions.encode_conditions(restored, conditions), expected, strict=True):
        np.testing.assert_array_equal(array, original)


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
