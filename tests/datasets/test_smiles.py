import pandas as pd
import pytest

from scgap.datasets._smiles import match_smiles


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Abexinostat", "Abexinostat"),
        ("Dacinostat (LAQ824)", "dacinostat"),
        ("Dacinostat", "Dacinostat (LAQ824)"),
        ("(+)-JQ1", "JQ1"),
        ("ENMD-2076 L-(+)-Tartaric acid", "enmd_2076_l__tartaric_acid"),  # the paper's own name
        ("ENMD-2076 L-(+)-Tartaric acid", "ENMD-2076"),
        ("Glesatinib?(MGCD265)", "Glesatinib"),
        ("Glesatinib?(MGCD265)", "Glesatinib?(MGCD265)"),
        ("Valproic acid sodium salt (Sodium valproate)", "Valproic"),
        ("GSK-LSD1 2HCl", "GSK-LSD1"),
        ("Tie2 kinase inhibitor", "tie2_kinase_inhibitor"),
        ("AZ 960", "AZ"),
    ],
)
def test_names_of_one_drug_match(label, name):
    assert match_smiles([label], {name: "C", "Other": "CC"}) == ({label: "C"}, [])


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Valproic acid", "acid"),  # no word but the first
        ("JQ1", "JQ11"),
        ("S-Ruxolitinib (INCB018424)", "Ruxolitinib"),
        ("AZD1480", "AZ"),
        ("A-366", "A-36"),
        ("(LAQ824)", "(MGCD265)"),  # nothing is left of either
    ],
)
def test_names_of_two_drugs_do_not(label, name):
    assert match_smiles([label], {name: "C"}) == ({label: None}, [])


def test_a_name_that_may_be_either_of_two_is_not_guessed():
    found, ambiguous = match_smiles(["(+)-JQ1", "(-)-JQ1"], {"JQ1": "C"})
    assert found == {"(+)-JQ1": None, "(-)-JQ1": None}
    assert ambiguous == ["(+)-JQ1", "(-)-JQ1"]
    # As they are written they are two.
    both = {"(+)-JQ1": "C", "(-)-JQ1": "CC"}
    assert match_smiles(both, both) == (both, [])
    assert match_smiles(["Drug"], pd.Series(["C", "CC"], ["drug", "DRUG"])) == ({"Drug": None}, ["Drug"])
    assert match_smiles(["Drug"], pd.Series(["C", "C"], ["drug", "DRUG"])) == ({"Drug": "C"}, [])


def test_bad_libraries_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no file\. Pass a CSV file without header"):
        match_smiles(["a"], tmp_path / "nothing.csv")
    (tmp_path / "one.csv").write_text("a\nb\n")
    with pytest.raises(ValueError, match="has one column"):
        match_smiles(["a"], tmp_path / "one.csv")
    with pytest.raises(TypeError, match="smiles is a list"):
        match_smiles(["a"], ["C"])


def test_a_name_that_another_label_has_in_full_is_not_given_to_a_longer_one():
    found, ambiguous = match_smiles(["Foo", "Foo sulfate"], {"Foo": "C"})
    assert found == {"Foo": "C", "Foo sulfate": None}
    assert ambiguous == ["Foo sulfate"]
