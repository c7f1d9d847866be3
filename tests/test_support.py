from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgap._conditions import Condition, make_design
from scgap._encoding import make_encoding
from scgap._support import TIERS, nearest_conditions, support_tiers

NAMES = ["A", "B", "C", "D", "E"]
TABLE = pd.DataFrame({"x": np.arange(5.0)}, index=NAMES)
DESIGN = make_design("drug", "control", "dose", "line", "time", sep="+")


def condition(members, group="x", time=6.0):
    """``"A 10 + B 5"`` in a group at a time."""
    pairs = [part.split() for part in members.split("+")] if members else []
    return Condition(tuple(sorted((name, float(dose)) for name, dose in pairs)), (group,), time if members else None)


TRAINED = [
    condition("A 1"),
    condition("A 10"),
    condition("A 1000"),
    condition("B 10"),
    condition("A 10 + B 10"),
    condition("C 10 + B 100"),
    condition("D 10", "y"),
    condition("A 10", "x", 24.0),
]


def tiers(*queries, trained=TRAINED, table=TABLE):
    return support_tiers(trained, make_encoding(DESIGN, trained, table).perturbations, queries)


def tier(*query):
    return tiers(condition(*query))[0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (("",), "control"),
        (("", "z"), "control"),
        (("A 10",), "seen"),
        (("A 10", "x", 24.0), "seen"),
        (("C 10 + B 100",), "seen"),
        # All parts were seen, but not together.
        (("A 1 + B 10",), "unseen combination"),
        (("A 1 + B 100",), "unseen combination"),  # B 100 as a member of another combination
        (("C 10",), "unseen combination"),  # never alone
        (("D 10",), "unseen combination"),  # in another group
        (("A 1000", "x", 24.0), "unseen combination"),  # at another time
        (("A 100",), "interpolated dose"),
        (("B 50",), "interpolated dose"),  # between single and combination
        (("A 100 + B 10",), "interpolated dose"),
        (("A 10", "x", 12.0), "interpolated time"),
        (("A 100", "x", 12.0), "interpolated time"),
        (("A 0.1",), "extrapolated dose"),
        (("A 1e4",), "extrapolated dose"),
        (("D 11", "y"), "extrapolated dose"),  # one dose has nothing beside it
        (("A 100 + B 1000",), "extrapolated dose"),
        (("A 1000", "y"), "unseen combination"),
        (("A 1e4", "x", 12.0), "extrapolated dose"),  # the harder of the two
        (("A 10", "x", 48.0), "extrapolated time"),
        (("B 10", "x", 12.0), "extrapolated time"),  # B was measured at 6 alone
        (("A 1e4", "x", 48.0), "extrapolated time"),
        (("E 10",), "unseen perturbation"),
        (("A 1e4 + E 10", "x", 48.0), "unseen perturbation"),
        (("A 10", "z"), "unseen group"),
        (("A 1e4 + E 10", "z"), "unseen group"),
        (("F 10",), "unresolvable"),
        (("F 10", "z"), "unresolvable"),
    ],
)
def test_tiers(query, expected):
    assert tier(*query) == expected


@pytest.mark.parametrize(
    "query",
    [
        Condition((("A", None),), ("x",), 6.0),
        Condition((("A", 10.0),), (), 6.0),
        Condition((("A", 10.0),), ("x",), None),
        Condition((("A", None), ("B", 10.0)), ("z",), 6.0),
    ],
)
def test_what_is_left_open_cannot_be_resolved(query):
    assert tiers(query) == ["unresolvable"]


def test_without_doses_times_and_groups():
    trained = [Condition((("A", None),)), Condition((("B", None),)), Condition((("C", None), ("D", None)))]
    encoding = make_encoding(make_design("gene", "control", sep="+"), trained, TABLE)
    queries = [Condition(tuple((name, None) for name in names)) for names in ("A", "BA", "C", "E", "F")]
    expected = ["seen", "unseen combination", "unseen combination", "unseen perturbation", "unresolvable"]
    assert support_tiers(trained, encoding.perturbations, queries) == expected
    assert support_tiers(trained, encoding.perturbations, [Condition((("A", 10.0),))]) == ["unresolvable"]


def test_learned_vectors_reach_no_unseen_perturbation():
    assert tiers(condition("E 10"), condition("A 100"), table=None) == ["unresolvable", "interpolated dose"]


def test_a_group_is_seen_as_a_whole():
    design = make_design("drug", "control", group_col=["line", "donor"])
    trained = [Condition((("A", None),), group) for group in (("x", "1"), ("y", "2"))]
    encoding = make_encoding(design, trained, TABLE)
    assert support_tiers(trained, encoding.perturbations, [Condition((("A", None),), ("x", "2"))]) == ["unseen group"]


def test_tiers_sort_a_table():
    found = pd.Categorical(tiers(*TRAINED, condition("A 100"), condition("E 1", "z")), TIERS, ordered=True)
    assert found.max() == "unseen group"
    assert (found <= "interpolated dose").sum() == len(TRAINED) + 1


members = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([1.0, 10.0, 100.0]), min_size=1, max_size=4)
conditions = st.builds(
    lambda drugs, group, time: Condition(tuple(drugs.items()), (group,), time),
    members,
    st.sampled_from("xyz"),
    st.sampled_from([1.0, 6.0, 24.0]),
)
some_trained = st.lists(conditions, min_size=1, max_size=6)


@given(st.data(), some_trained, conditions)
def test_the_order_of_members_and_of_conditions_changes_nothing(data, trained, query):
    mixed = [query._replace(members=tuple(data.draw(st.permutations(query.members)))) for _ in range(2)]
    first, second = tiers(*mixed, trained=trained)
    assert first == second == tiers(query, trained=data.draw(st.permutations(trained)))[0]
    assert nearest_conditions(trained, mixed[0], 3) == nearest_conditions(trained, mixed[1], 3)


@given(some_trained, st.booleans())
def test_a_trained_condition_is_seen(trained, learned):
    assert set(tiers(*trained, trained=trained, table=None if learned else TABLE)) == {"seen"}
    for query in trained:
        (nearest,) = nearest_conditions(trained, query, 1)
        assert dict(nearest.members) == dict(query.members)
        assert nearest[1:] == query[1:]


@given(some_trained, conditions, conditions)
def test_more_training_makes_nothing_harder(trained, query, more):
    before, after = (tiers(query, trained=known)[0] for known in (trained, [*trained, more]))
    assert TIERS.index(after) <= TIERS.index(before)


def test_nearest_by_perturbations_then_dose_then_time_then_group():
    query = condition("A 10 + B 10", "x", 6.0)
    in_order = [
        condition("A 10 + B 10", "x", 6.0),
        condition("A 10 + B 10", "y", 6.0),
        condition("A 10 + B 10", "x", 12.0),
        condition("A 10 + B 20", "z", 24.0),
        condition("A 1 + B 10", "x", 6.0),
        condition("A 1 + B 100", "x", 6.0),
        condition("A 10", "x", 6.0),
        condition("A 10 + B 10 + C 1", "y", 6.0),
        condition("A 100 + C 10", "x", 6.0),
        condition("D 10", "x", 6.0),
    ]
    shuffled = [in_order[i] for i in np.random.default_rng(0).permutation(len(in_order))]
    assert nearest_conditions([condition(""), *shuffled], query, 20) == in_order
    assert nearest_conditions(shuffled, query, 2) == in_order[:2]
    for near, far in pairwise(in_order):
        assert nearest_conditions([far, near], query, 1) == [near]


def test_equally_near_ones_keep_their_order():
    both = [condition("A 1"), condition("A 100")]
    assert nearest_conditions(both, condition("A 10"), 2) == both
    assert nearest_conditions(both[::-1], condition("A 10"), 2) == both[::-1]
