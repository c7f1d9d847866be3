import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgap._names import matching_names, spelling

KNOWN = ["drug_1", "drug_11", "Trametinib (GSK1120212)", "CD4+", "CD4-", "(+)-JQ1", "(-)-JQ1", "β-estradiol", "1,2-X"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("drug_1", ["drug_1"]),
        ("Drug 1", ["drug_1"]),
        ("DRUG-1 ", ["drug_1"]),
        ("drug1", ["drug_1"]),
        ("drug 11", ["drug_11"]),
        ("drug_1 1", []),  # which may be drug_1 at dose 1
        ("trametinib gsk1120212", ["Trametinib (GSK1120212)"]),
        ("Trametinib", []),
        ("cd4+", ["CD4+"]),
        ("cd4 -", ["CD4-"]),
        ("cd4", []),  # signs have a meaning
        ("(+) jq1", ["(+)-JQ1"]),
        ("(-) jq1", ["(-)-JQ1"]),
        ("JQ1", []),
        ("\N{GREEK CAPITAL LETTER BETA} estradiol", ["β-estradiol"]),
        ("1 2 x", ["1,2-X"]),
        ("12-x", []),
        ("drgu_1", []),
        ("", []),
        ("-", []),
        ("()", []),
    ],
)
def test_spelling_may_differ_and_letters_may_not(name, meant):
    assert matching_names(name, KNOWN, {}) == meant


def test_names_that_differ_in_spelling_alone_all_match():
    assert matching_names("DRUG 1", ["drug_1", "drug-1", "drug_2"], {}) == ["drug_1", "drug-1"]
    assert matching_names("drug-1", ["drug_1", "drug-1"], {}) == ["drug-1"]


def test_aliases_stand_for_names():
    aliases = {"GSK-1120212": "trametinib gsk1120212", "line": "somewhere else", "drug_1": "drug_11"}
    assert matching_names("gsk1120212", KNOWN, aliases) == ["Trametinib (GSK1120212)"]
    assert matching_names("line", KNOWN, aliases) == []  # of another column
    assert matching_names("drug_1", KNOWN, aliases) == ["drug_1"]  # a name is no alias


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.data())
def test_a_known_name_stands_for_itself_alone(known, data):
    name = data.draw(st.sampled_from(known))
    assert matching_names(name, known, {}) == [name]


@given(st.text())
def test_spelling_knows_no_case_and_no_space_around(name):
    assert spelling(spelling(name)) == spelling(name)
    assert spelling(f" {name}\t") == spelling(name)
