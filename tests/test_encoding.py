import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgap import _encoding
from scgap._conditions import Condition, make_design, parse_condition, read_conditions
from scgap._descriptors import join_encodings

SINGLE = make_design("perturbation", "control")
DOSED = make_design("perturbation", "control", "dose", sep="+")

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
    conditions, of_cell, _ = read_conditions(design, pd.DataFrame({"perturbation": labels}))
    return conditions, of_cell, _encoding.make_encoding(design, conditions, join_encodings(table, {}))


@given(distinct_names, st.sampled_from([str, object, "category"]))
def test_any_label_survives_encoding(labels, dtype):
    cells = pd.Series([*labels, "control", *reversed(labels)]).astype(dtype)
    conditions, of_cell, encoding = encode(cells)
    assert [conditions[i].members for i in of_cell] == [() if name == "control" else ((name, None),) for name in cells]
    arrays = _encoding.encode_conditions(encoding, conditions)
    for condition, row, presence in zip(conditions, arrays.members, arrays.presence, strict=True):
        assert presence.sum() == len(condition.members)
        assert [encoding.perturbations[i] for i in row[presence > 0]] == [name for name, _ in condition.members]


@given(st.data(), members_with_doses)
def test_order_of_members_changes_nothing(data, members):
    order = data.draw(st.permutations(sorted(members)))
    expected = Condition(tuple(sorted(members.items())))
    conditions = [Condition(tuple((name, members[name]) for name in some)) for some in (order, sorted(members))]
    encoding = _encoding.make_encoding(DOSED, [expected], None)
    one, other = (_encoding.encode_conditions(encoding, [condition]) for condition in conditions)
    assert {*zip(one.members[0], one.doses[0], strict=True)} == {*zip(other.members[0], other.doses[0], strict=True)}


@pytest.mark.parametrize("n", [1, 12])
def test_with_one_dose_or_time_alone_others_are_encoded_like_it(n):
    """Sums of equal logarithms round, and in units of that rounding a dose twice as large would be astronomic."""
    design = make_design("perturbation", "control", "dose", time_col="hours")
    trained = [Condition(((f"drug_{i}", 10.0),), (), 6.0) for i in range(n)]
    encoding = _encoding.make_encoding(design, trained, None)
    asked = [Condition((("drug_0", dose),), (), time) for dose, time in ((10.0, 6.0), (20.0, 48.0))]
    arrays = _encoding.encode_conditions(encoding, asked)
    assert (arrays.doses == 0).all()
    assert (arrays.context == 0).all()
    assert (np.diff(arrays.presence[:, 0]) > 0).all()  # the effect still fades towards dose 0


def test_descriptors_are_standardised_in_whatever_unit():
    table = pd.DataFrame({"x": [1.0, 3.0, 2.0], "y": [5.0, 5.0, 5.0]}, ["A", "B", "C"])
    expected = _encoding.initial_vectors(encode(["A", "B", "control"], table=table)[2], 0)
    np.testing.assert_allclose(expected, [[-1.2247, 0], [1.2247, 0], [0, 0]], atol=1e-4)
    tiny = _encoding.initial_vectors(encode(["A", "B", "control"], table=1e-26 * table)[2], 0)
    np.testing.assert_allclose(tiny, expected, atol=1e-6)


def test_a_trained_perturbation_needs_a_row():
    with pytest.raises(ValueError, match=r"no row for 'B'; its index holds 'A'\. Add their descriptors, or"):
        encode(["A", "B", "control"], table=pd.DataFrame({"x": [1.0]}, ["A"]))


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
        _encoding.encode_conditions(encoding, [Condition((("vorinostt", None),))])
    words = [*words, "needs descriptors: fit with encoding=, a table that holds a row for it"]
    assert not [word for word in words if word not in caught.value.args[0]]


def test_unseen_perturbation_with_a_row_has_a_vector():
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0]}, ["A", "unseen", "B"])
    _, _, encoding = encode(["A", "B", "control"], table=table)
    arrays = _encoding.encode_conditions(encoding, [Condition((("unseen", None),))])
    assert encoding.perturbations[arrays.members[0, 0]] == "unseen"


@pytest.mark.parametrize(("n", "padded"), [(0, 4), (1, 4), (4, 4), (5, 8)])
def test_sets_are_padded(n, padded):
    condition = Condition(tuple((f"p{i}", None) for i in range(n)))
    encoding = _encoding.make_encoding(SINGLE, [condition], None)
    arrays = _encoding.encode_conditions(encoding, [condition, Condition(())])
    assert arrays.members.shape == arrays.doses.shape == arrays.presence.shape == (2, padded)
    np.testing.assert_array_equal(arrays.presence.sum(1), [n, 0])


def test_a_perturbation_fades_with_its_dose():
    design = make_design("perturbation", "control", "dose")
    encoding = _encoding.make_encoding(design, [parse(design, "A", dose) for dose in (10, 1_000)], None)
    doses = [1e-9, 1.0, 10.0, 1_000.0]
    presence = _encoding.encode_conditions(encoding, [parse(design, "A", dose) for dose in doses]).presence[:, 0]
    # Half of it is left at a tenth of the lowest dose that is trained on.
    np.testing.assert_allclose(presence, [0.0, 0.5, 10 / 11, 1_000 / 1_001], atol=1e-8)


def test_doses_and_times_are_standardised_by_the_training_conditions():
    design = make_design("perturbation", "control", "dose", time_col="hours")
    train = [parse(design, "A", dose, hours) for dose, hours in ((10, 6), (1_000, 48), (1_000, 6))]
    unseen = parse(design, "A", 100_000, 6)
    encoding = _encoding.make_encoding(design, train, None)
    arrays = _encoding.encode_conditions(encoding, train)
    for values in (arrays.doses[:, 0], arrays.context[:, 0]):
        np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-6)
    # Steps of the same factor are steps of the same length.
    steps = np.diff([*arrays.doses[:2, 0], _encoding.encode_conditions(encoding, [unseen]).doses[0, 0]])
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-5)


def test_groups_are_one_hot():
    design = make_design("perturbation", "control", group_col=["line", "donor"])
    conditions = [parse(design, "A", *group) for group in (("K562", 1), ("A549", 2), ("A549", 1))]
    encoding = _encoding.make_encoding(design, conditions, None)
    assert encoding.groups == {"line": ["A549", "K562"], "donor": ["1", "2"]}
    context = _encoding.encode_conditions(encoding, conditions).context
    np.testing.assert_array_equal(context[:, :4], [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]])
    np.testing.assert_array_equal(context[:, 4:], 0)


def test_a_group_that_was_not_trained_on_is_encoded_as_zeros():
    design = make_design("perturbation", "control", group_col=["line", "donor"])
    trained, other = parse(design, "A", "K562", 1), parse(design, "A", "A549", 1)
    encoding = _encoding.make_encoding(design, [trained], None)
    assert encoding.groups == {"line": ["K562"], "donor": ["1"]}
    context = _encoding.encode_conditions(encoding, [trained, other]).context
    np.testing.assert_array_equal(context[:, :2], [[1, 1], [0, 1]])


def test_descriptors_are_standardised():
    table = pd.DataFrame({"x": [1.0, 2.0, 6.0], "constant": 7.0}, ["A", "B", "C"])
    _, _, encoding = encode(["A", "B", "control"], table=table)
    vectors = _encoding.initial_vectors(encoding, seed=0)
    np.testing.assert_allclose(vectors[:, 0], (table["x"] - 3) / table["x"].std(ddof=0), rtol=1e-6)
    np.testing.assert_array_equal(vectors[:, 1], 0.0)


def test_learned_vectors_follow_the_seed():
    _, _, encoding = encode(["A", "B", "control"])
    one, again, other = (_encoding.initial_vectors(encoding, seed) for seed in (0, 0, 1))
    assert one.shape == (2, _encoding.N_LEARNED)
    np.testing.assert_array_equal(one, again)
    assert np.all(one != other)


@given(distinct_names, distinct_names, st.booleans())
def test_encoding_survives_its_dict(perturbations, groups, with_table):
    design = make_design("perturbation", "control", "dose", group_col=["line"], time_col="hours")
    conditions = [
        Condition(((name, 1.0 + i),), (group,), float(i)) for i, name in enumerate(perturbations) for group in groups
    ]
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(len(perturbations), 2)), perturbations, groups[:1] * 2)
    encoding = _encoding.make_encoding(design, conditions, join_encodings(table if with_table else None, {}))
    restored = _encoding.encoding_from_dict(_encoding.encoding_to_dict(encoding))
    assert restored.values.dtype == np.float32
    np.testing.assert_array_equal(restored.values, encoding.values)
    assert restored._replace(values=None) == encoding._replace(values=None)
    expected = _encoding.encode_conditions(encoding, conditions)
    for array, original in zip(_encoding.encode_conditions(restored, conditions), expected, strict=True):
        np.testing.assert_array_equal(array, original)


def test_descriptors_are_those_given():
    table = pd.DataFrame([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]], index=["A", "B", "C"])
    *_, encoding = encode(["A", "B", "control"], table=table)
    found = _encoding.descriptors_of(encoding)
    assert list(found) == ["A", "B", "C"]
    np.testing.assert_array_equal([found[name] for name in table.index], table)
    *_, learned = encode(["A", "B", "control"])
    assert _encoding.descriptors_of(learned) == {}
