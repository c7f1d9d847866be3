import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgap._conditions import Condition
from scgap._stand_ins import stand_ins


def condition(members, group="x", time=6.0):
    """``"A 10 + B 5"`` in a group at a time."""
    pairs = [part.split() for part in members.split("+")]
    return Condition(tuple(sorted((name, float(dose)) for name, dose in pairs)), (group,), time)


def shares(query, *trained, vectors=None):
    return stand_ins([condition(*other) for other in trained], vectors or {}, condition(*query))


def expected(**named):
    return {condition(*asked): pytest.approx(share) for asked, share in named["shares"].items()}


VECTORS = {name: np.array([value, 0.0]) for name, value in zip("ABCDE", (0.0, 1.0, 2.0, 4.0, 8.0), strict=True)}


@pytest.mark.parametrize(
    ("query", "trained", "wanted"),
    [
        # The same elsewhere, whatever else there is.
        (("A 10",), [("A 10", "y"), ("A 10", "z"), ("A 1",), ("A 100",)], {("A 10", "y"): 0.5, ("A 10", "z"): 0.5}),
        # Between two doses in logarithms: 10 is half-way from 1 to 100, and 100 a third of the way down from 10,000.
        (("A 10",), [("A 1",), ("A 100",), ("A 1000",)], {("A 1",): 0.5, ("A 100",): 0.5}),
        (("A 100",), [("A 1",), ("A 10",), ("A 10000",)], {("A 10",): 2 / 3, ("A 10000",): 1 / 3}),
        # Beyond them the outermost.
        (("A 1000",), [("A 1",), ("A 10",), ("B 1000",)], {("A 10",): 1.0}),
        (("A 0.1",), [("A 1",), ("A 10",)], {("A 1",): 1.0}),
        # Between two times, as log(1 + time): 1 is half-way from 0 to 3.
        (
            ("A 10", "x", 1.0),
            [("A 10", "x", 0.0), ("A 10", "x", 3.0)],
            dict.fromkeys([("A 10", "x", 0.0), ("A 10", "x", 3.0)], 0.5),
        ),
        (("A 10", "x", 48.0), [("A 10", "x", 6.0), ("A 10", "x", 24.0)], {("A 10", "x", 24.0): 1.0}),
        # Doses at its time come first, but times on both sides before a dose beyond.
        (
            ("A 10", "x", 12.0),
            [("A 1", "x", 12.0), ("A 100", "x", 12.0), ("A 10", "x", 6.0), ("A 10", "x", 24.0)],
            dict.fromkeys([("A 1", "x", 12.0), ("A 100", "x", 12.0)], 0.5),
        ),
        (
            ("A 10", "x", 1.0),
            [("A 1", "x", 1.0), ("A 10", "x", 0.0), ("A 10", "x", 3.0)],
            dict.fromkeys([("A 10", "x", 0.0), ("A 10", "x", 3.0)], 0.5),
        ),
        # The own group before others, the others together if it has none.
        (("A 10",), [("A 1",), ("A 100", "y")], {("A 1",): 1.0}),
        (
            ("A 10",),
            [("A 1", "y"), ("A 100", "y"), ("A 1", "z"), ("B 10",)],
            {("A 1", "y"): 0.25, ("A 1", "z"): 0.25, ("A 100", "y"): 0.5},
        ),
        (("A 10",), [("A 1", "y"), ("A 1", "z"), ("A 0.1", "z")], {("A 1", "y"): 0.5, ("A 1", "z"): 0.5}),
        # Of a combination every dose has to be on the one side.
        (
            ("A 10 + B 10",),
            [("A 1 + B 1",), ("A 100 + B 100",), ("A 1 + B 1000",)],
            {("A 1 + B 1",): 0.5, ("A 100 + B 100",): 0.5},
        ),
        (
            ("A 10 + B 10",),
            [("A 1 + B 10",), ("A 10 + B 1",), ("A 10 + B 100",)],
            {("A 1 + B 10",): 0.25, ("A 10 + B 1",): 0.25, ("A 10 + B 100",): 0.5},
        ),
        # Without vectors those that share a perturbation.
        (("A 10 + B 10",), [("C 10",), ("A 10",), ("B 10",), ("A 10", "y")], {("A 10",): 0.5, ("B 10",): 0.5}),
        (
            ("A 10 + B 10",),
            [("A 10 + C 1",), ("A 10",), ("B 10",), ("A 1",)],
            dict.fromkeys([("A 10",), ("B 10",), ("A 1",)], 1 / 3),
        ),
        (("A 10",), [("C 10",), ("D 10",)], {}),
        (("A 10",), [], {}),
    ],
)
def test_rules_without_vectors(query, trained, wanted):
    assert shares(query, *trained) == expected(shares=wanted)


@pytest.mark.parametrize(
    ("query", "trained", "wanted"),
    [
        # The three nearest, at distances 1, 1 and 3, each at the nearest dose, then time.
        (
            ("B 10",),
            [("A 10",), ("C 10",), ("D 10",), ("E 10",)],
            {("A 10",): 3 / 7, ("C 10",): 3 / 7, ("D 10",): 1 / 7},
        ),
        (("B 10",), [("A 1",), ("A 20",), ("A 10", "x", 24.0)], {("A 10", "x", 24.0): 1.0}),
        (("B 10",), [("A 1",), ("A 20",), ("A 1", "y")], {("A 20",): 1.0}),
        # The own group alone, if it has any condition.
        (("B 10",), [("A 10", "y"), ("E 1",)], {("E 1",): 1.0}),
        (("B 10",), [("A 10", "y"), ("A 10", "z")], {("A 10", "y"): 0.5, ("A 10", "z"): 0.5}),
        # Vectors of a combination are summed: B + C is at 3, as far from C as from D.
        (("B 10 + C 10",), [("C 10",), ("D 10",)], {("C 10",): 0.5, ("D 10",): 0.5}),
        # No distance, no share for others.
        (("A 10 + D 10",), [("D 10",), ("E 10",)], {("D 10",): 1.0}),
        # Those without a vector cannot be compared.
        (("B 10",), [("F 10",), ("A 1",)], {("A 1",): 1.0}),
        (("B 10",), [("F 10",)], {}),
        (("F 10",), [("A 10",)], {}),
        (("F 10 + A 1",), [("A 10",), ("B 1",)], {("A 10",): 1.0}),
    ],
)
def test_rules_with_vectors(query, trained, wanted):
    assert shares(query, *trained, vectors=VECTORS) == expected(shares=wanted)


def test_without_doses_times_and_groups():
    a, b, pair = (Condition(tuple((name, None) for name in names)) for names in ("A", "B", "AB"))
    assert stand_ins([a, b], {}, pair) == {a: 0.5, b: 0.5}
    assert stand_ins([a], VECTORS, b) == {a: 1.0}


doses = st.sampled_from([1.0, 10.0, 100.0])
members = st.dictionaries(st.sampled_from("ABCDEF"), doses, min_size=1, max_size=3)
conditions = st.builds(
    lambda drugs, group, time: Condition(tuple(sorted(drugs.items())), (group,), time),
    members,
    st.sampled_from("xy"),
    st.sampled_from([1.0, 6.0, 24.0]),
)


@given(st.lists(conditions, max_size=8, unique=True), conditions, st.booleans())
def test_shares_are_positive_and_add_up(trained, query, with_vectors):
    found = stand_ins([other for other in trained if other != query], VECTORS if with_vectors else {}, query)
    assert set(found) <= set(trained) - {query}
    assert all(share > 0 for share in found.values())
    assert not found or sum(found.values()) == pytest.approx(1.0)
