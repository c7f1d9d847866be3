import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgap._units import UNITS, in_unit, measures_time, unit_of, unit_text


@pytest.mark.parametrize(
    ("value", "unit", "number"),
    [
        ("1 uM", "nM", 1_000.0),
        ("1 µM", "nM", 1_000.0),  # the micro sign
        ("1 μM", "nM", 1_000.0),  # the Greek letter
        ("0.1uM", "nM", 100.0),
        ("3e-4 mM", "nM", 300.0),
        ("1 mM", "uM", 1_000.0),
        ("250 pM", "nM", 0.25),
        ("1 um", "nM", 1_000.0),
        ("2 ug/mL", "ng/ml", 2_000.0),
        ("1 d", "h", 24.0),
        ("90 min", "h", 1.5),
        ("2 days", "h", 48.0),
        ("6 hrs", "h", 6.0),
        ("7", "nM", 7.0),
        ("7", None, 7.0),
        (" .5 ", "nM", 0.5),
        ("3 MOI", "MOI", 3.0),
        ("0 uM", "nM", 0.0),
    ],
)
def test_quantities_come_in_the_unit_of_the_fit(value, unit, number):
    assert in_unit(value, unit, "dose") == number


@pytest.mark.parametrize("value", [5, 5.0, None, "high", "nM", "1 2 nM", ["1 nM"], ""])
def test_what_is_no_quantity_stays_as_it_is(value):
    assert in_unit(value, "nM", "dose") == value


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        ("5 mg/ml", "nM", ("'5 mg/ml' cannot be converted to 'nM', the unit of 'dose'", "Give it in 'M', 'mM'")),
        ("5 h", "nM", ("'5 h' cannot be converted",)),
        ("5 nM", "h", ("cannot be converted to 'h'", "'min'")),
        ("5 m", "nM", ("'5 m' cannot be converted",)),  # metres, minutes, molar
        ("5 furlongs", "MOI", ("cannot be converted", "Give it in 'MOI'")),
        ("5 nM", None, ("has a unit, and the fit does not know that of 'dose'", "the number alone", "dose_unit")),
    ],
)
def test_units_that_do_not_fit_are_refused(value, unit, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        in_unit(value, unit, "dose")
    assert all(word in str(caught.value) for word in words)


@given(st.floats(1e-6, 1e6), st.sampled_from(sorted(UNITS)), st.sampled_from(sorted(UNITS)))
def test_there_and_back_again(number, one, other):
    if UNITS[one][0] != UNITS[other][0]:
        return
    there = in_unit(f"{number!r} {one}", other, "dose")
    np.testing.assert_allclose(in_unit(f"{there!r} {other}", one, "dose"), number, rtol=1e-10)


def test_units_are_told_apart():
    assert [unit_of(text) for text in ("1 uM", "1", "1 hour", "uM", "1 MOI", "drug_1")] == ["uM", "", "h", *[None] * 3]
    assert unit_of("1 MOI", "MOI", None) == "MOI"
    assert [measures_time(unit) for unit in ("h", "nM", "", "MOI")] == [True, False, False, False]
    assert [unit_text(unit) for unit in ("µM", "NM", " H ", "M", "m", "kg")] == ["uM", "nM", "h", "M", "m", "kg"]
