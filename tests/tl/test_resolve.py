import numpy as np
import pandas as pd
import pytest

import scgap
from scgap._conditions import Condition
from scgap._meanings import measured_cells
from scgap._model import get_model
from scgap._support import nearest_conditions
from scgap.tl import _resolve

# A fit of no steps knows all names, doses and groups.
FIT = {"n_iters": 0, "hidden": (4,), "progress": False, "split_col": "split"}
DRUGS = {"dose_col": "dose_value", "group_col": "cell_line"}
PAIRS = {**DRUGS, "sep": "+"}
ALIASES = {"trametinib": "drug_1", "MCF-7": "line_2", "nobody": "drug_99"}
LINES = ("line_1", "line_2")


@pytest.fixture(scope="module")
def drugs():
    """3 drugs at 3 doses in 2 lines; drug_2 is not trained on at 100 nM, nor drug_3 at 1000 nM in line_1."""
    adata = scgap.datasets.simulate_screen(1_500, n_drugs=3, doses=[10.0, 100.0, 1_000.0], n_groups=2, n_features=6)
    scgap.pp.split(adata, holdout={"perturbation": ["drug_2"], "dose_value": [100]}, **DRUGS)
    is_third = (adata.obs["perturbation"] == "drug_3") & (adata.obs["dose_value"] == 1_000)
    adata.obs.loc[is_third & (adata.obs["cell_line"] == "line_1"), "split"] = "test"
    scgap.tl.fit_transport(adata, dose_unit="dose_unit", **DRUGS, **FIT)
    return adata


@pytest.fixture(scope="module")
def pairs():
    """2 drugs, and both together, at 2 doses and 2 times in 2 lines; both together are not trained on at 100 nM."""
    adata = scgap.datasets.simulate_screen(
        1_500, n_drugs=2, doses=[10.0, 100.0], n_groups=2, n_features=6, n_combinations=1
    )
    adata.obs["hours"] = np.random.default_rng(0).choice([24.0, 48.0], adata.n_obs)
    scgap.pp.split(adata, holdout={"perturbation": ["drug_1+drug_2"], "dose_value": [100]}, **PAIRS)
    scgap.tl.fit_transport(adata, dose_unit="nM", time_col="hours", time_unit="hours", **PAIRS, **FIT)
    return adata


@pytest.fixture(scope="module")
def columns(pairs):
    """The same with one column for each drug and its dose, of which the second is given at a tenth; without times."""
    adata = pairs.copy()
    labels = adata.obs["perturbation"].astype(str)
    for i, factor in ((1, 1.0), (2, 0.1)):
        has = labels.str.contains(f"drug_{i}", regex=False)
        adata.obs[f"drug{i}"] = np.where(has, f"drug_{i}", "control")
        adata.obs[f"dose{i}"] = np.where(has, factor * adata.obs["dose_value"], np.nan)
    design = {"target_col": ["drug1", "drug2"], "dose_col": ["dose1", "dose2"], "group_col": "cell_line"}
    scgap.tl.fit_transport(adata, dose_unit="nM", **design, **FIT)
    return adata


def labels(drugs, doses, lines=LINES):
    return {f"{drug} {dose}, {line}" for drug in drugs for dose in doses for line in lines}


D1, D2, D3 = "drug_1", "drug_2", "drug_3"
DOSES = (10, 100, 1000)
LINE, DOSE, DRUG = "cell_line", "dose_value", "perturbation"

# query, the full conditions that it means, the columns that it leaves open
OF_DRUGS = [
    ({DRUG: D1, DOSE: 10, LINE: "line_1"}, labels([D1], [10], ["line_1"]), ""),
    ({DRUG: D1, DOSE: "10", LINE: "LINE 1"}, labels([D1], [10], ["line_1"]), ""),
    ({DRUG: "Drug-1", DOSE: "0.01 uM", LINE: "line1"}, labels([D1], [10], ["line_1"]), ""),
    ({DRUG: D1, DOSE: "0.1 µM"}, labels([D1], [100]), LINE),
    ({DRUG: D1, DOSE: "1e-3 mM"}, labels([D1], [1000]), LINE),
    ({DRUG: D1, DOSE: np.float32(100)}, labels([D1], [100]), LINE),
    ({DRUG: D1, LINE: "line_2"}, labels([D1], DOSES, ["line_2"]), DOSE),
    ({DRUG: D1}, labels([D1], DOSES), f"{DOSE}, {LINE}"),
    ({DRUG: D1, DOSE: None, LINE: np.nan}, labels([D1], DOSES), f"{DOSE}, {LINE}"),
    ({DOSE: 100}, labels([D1, D2, D3], [100]), f"{DRUG}, {LINE}"),
    ({LINE: "line_2"}, labels([D1, D2, D3], DOSES, ["line_2"]), f"{DRUG}, {DOSE}"),
    ({DOSE: "1 uM", LINE: "line_2"}, labels([D1, D2, D3], [1000], ["line_2"]), DRUG),
    ({}, labels([D1, D2, D3], DOSES), f"{DRUG}, {DOSE}, {LINE}"),
    ({DRUG: "trametinib", DOSE: 10}, labels([D1], [10]), LINE),
    ({DRUG: "control"}, {f"control, {line}" for line in LINES}, LINE),
    ({DRUG: D1, DOSE: 0, LINE: "line_1"}, {"control, line_1"}, ""),
    ({DRUG: D1, DOSE: 50}, labels([D1], [50]), LINE),
    ({DRUG: [D2, D1], DOSE: 10, LINE: "line_1"}, {"drug_1 10 + drug_2 10, line_1"}, ""),
    (
        {DRUG: [D1, D2], LINE: "line_1"},
        {f"drug_1 {a} + drug_2 {b}, line_1" for a in DOSES for b in DOSES},
        DOSE,
    ),
    ("drug_2", labels([D2], DOSES), f"{DOSE}, {LINE}"),
    ("DRUG 2", labels([D2], DOSES), f"{DOSE}, {LINE}"),
    ("drug_2 10", labels([D2], [10]), LINE),
    ("drug_2 100, line_2", labels([D2], [100], ["line_2"]), ""),
    ("Line 2; Drug 2 @ 0.1uM", labels([D2], [100], ["line_2"]), ""),
    ("100 nM, line_1", labels([D1, D2, D3], [100], ["line_1"]), DRUG),
    ("drug_1, 0.01 uM, MCF 7", labels([D1], [10], ["line_2"]), ""),
    ("drug_2 10 + Drug_1 1 uM, line_1", {"drug_1 1000 + drug_2 10, line_1"}, ""),
    ("line_1", labels([D1, D2, D3], DOSES, ["line_1"]), f"{DRUG}, {DOSE}"),
    ("control, line_1", {"control, line_1"}, ""),
]


def timed(drugs, doses, times, lines=LINES):
    return {f"{one}, {line}, time {time}" for one in _at(drugs, doses) for line in lines for time in times}


def _at(sets, doses):
    return [" + ".join(f"{drug} {dose}" for drug in one.split("+")) for one in sets for dose in doses]


BOTH = "drug_1+drug_2"
OF_PAIRS = [
    ({DRUG: BOTH, DOSE: 10, LINE: "line_1", "hours": 24}, timed([BOTH], [10], [24], ["line_1"]), ""),
    ({DRUG: "drug_2 + Drug 1", DOSE: 10, "hours": "1 d"}, timed([BOTH], [10], [24]), LINE),
    ({DRUG: [D2, D1], DOSE: ["0.01 uM", 10], "hours": 48}, timed([BOTH], [10], [48]), LINE),
    ({DRUG: BOTH, DOSE: "10+10", LINE: "line_2"}, timed([BOTH], [10], [24, 48], ["line_2"]), "hours"),
    ({DRUG: D1, DOSE: 10}, timed([D1], [10], [24, 48]), f"hours, {LINE}"),
    ({"hours": 48, DOSE: 100}, timed([D1, D2, BOTH], [100], [48]), f"{DRUG}, {LINE}"),
    (BOTH, timed([BOTH], [10, 100], [24, 48]), f"{DOSE}, hours, {LINE}"),
    ("drug_1+drug_2, 48 h, 10 nM", timed([BOTH], [10], [48]), LINE),
    ("drug_1 10 nM + drug_2 100 nM, 2 d, line_1", {"drug_1 10 + drug_2 100, line_1, time 48"}, ""),
    ("drug_1 10, line_1, time 24", timed([D1], [10], [24], ["line_1"]), ""),
]


def columned(*members, lines=LINES):
    return {f"{member}, {line}" for member in members for line in lines}


OF_COLUMNS = [
    ({"drug1": D1, "drug2": D2, "dose1": 10, "dose2": 1}, columned("drug_1 10 + drug_2 1"), LINE),
    ({"drug1": D2, "drug2": D1, "dose1": 1, "dose2": 10}, columned("drug_1 10 + drug_2 1"), LINE),
    ({"drug1": D1, "drug2": D2, "dose1": 10}, columned("drug_1 10 + drug_2 1"), f"dose2, {LINE}"),
    ({"drug1": D2, "drug2": D1, "dose2": 100}, columned("drug_1 100 + drug_2 10"), f"dose1, {LINE}"),
    ({"drug1": D1}, columned("drug_1 10", "drug_1 100"), f"dose1, {LINE}"),
    ({"drug2": D2, "dose2": "10 nM"}, columned("drug_2 10"), LINE),
    ({"dose1": 100}, columned("drug_1 100", "drug_1 100 + drug_2 10"), f"drug1, drug2, dose2, {LINE}"),
    # Never measured: what is given stays, and the rest is filled.
    (
        {"drug1": D1, "drug2": D2, "dose1": 55},
        columned("drug_1 55 + drug_2 1", "drug_1 55 + drug_2 10"),
        f"dose2, {LINE}",
    ),
    ("drug_1 10 + drug_2 7, line_1", columned("drug_1 10 + drug_2 7", lines=["line_1"]), ""),
    ("drug_2 10, line_1", columned("drug_2 10", lines=["line_1"]), ""),
]


def check(adata, query, expected, missing, n_cells_of):
    table = scgap.tl.resolve(adata, query, aliases=ALIASES)
    assert sorted(table["condition_label"]) == sorted(expected)
    assert set(table["missing"]) == {missing}
    for label, n_cells in zip(table["condition_label"], table["n_cells"], strict=True):
        assert n_cells == n_cells_of(label), label


@pytest.mark.parametrize(("query", "expected", "missing"), OF_DRUGS)
def test_a_query_means_just_these_conditions(drugs, query, expected, missing):
    obs = drugs.obs
    written = obs["perturbation"].astype(str) + " " + obs["dose_value"].map("{:g}".format)
    written = written.where(obs["perturbation"] != "control", "control") + ", " + obs["cell_line"].astype(str)
    check(drugs, query, expected, missing, lambda label: (written == label).sum())


@pytest.mark.parametrize(("query", "expected", "missing"), OF_PAIRS)
def test_combinations_and_times(pairs, query, expected, missing):
    obs = pairs.obs
    members = [" + ".join(f"{d} {dose:g}" for d in p.split("+")) for p, dose in zip(obs[DRUG], obs[DOSE], strict=True)]
    written = pd.Series(members, obs.index) + ", " + obs[LINE].astype(str) + ", time " + obs["hours"].map("{:g}".format)
    check(pairs, query, expected, missing, lambda label: (written == label).sum())


@pytest.mark.parametrize(("query", "expected", "missing"), OF_COLUMNS)
def test_a_column_for_each_drug(columns, query, expected, missing):
    obs = columns.obs
    parts = [
        (obs[f"drug{i}"] + " " + obs[f"dose{i}"].map("{:g}".format)).where(obs[f"dose{i}"].notna()) for i in (1, 2)
    ]
    written = parts[0].str.cat(parts[1], sep=" + ").fillna(parts[0]).fillna(parts[1]) + ", " + obs[LINE].astype(str)
    check(columns, query, expected, missing, lambda label: (written == label).sum())


@pytest.mark.parametrize(
    ("query", "error", "words"),
    [
        ("drgu_1", KeyError, ("No vector for 'drgu_1'", "Did you mean 'drug_1'?", "encoding=")),
        ({DRUG: "drug_4"}, KeyError, ("No vector for 'drug_4'", "found 'drug_1'")),
        ({DRUG: "nobody"}, KeyError, ("No vector for 'drug_99'",)),
        ("drug_1 10 + drug_4 10", KeyError, ("No vector for 'drug_4'",)),
        ("drug_1 5 bottles", KeyError, ("No vector for 'drug_1 5 bottles'", "found 'drug_1'")),
        (
            "drug_1, line_3",
            KeyError,
            ("No vector for 'line_3'", "Groups of the fit are 'line_1', 'line_2'"),
        ),
        ({LINE: "line_3"}, KeyError, ("'line_3' is not in adata.obs['cell_line']", "Did you mean 'line_")),
        ({"drug": D1}, KeyError, ("'drug' is not in the columns of the fit",)),
        ("drug_1 5 h", ValueError, ("'5 h' cannot be converted to 'nM'", "Give it in 'M'")),
        ({DRUG: D1, DOSE: "5 mg/ml"}, ValueError, ("'5 mg/ml' cannot be converted",)),
        ({DRUG: D1, DOSE: "much"}, ValueError, ("'dose_value' holds 'much', which is not a number",)),
        ({DOSE: "much"}, ValueError, ("which is not a number",)),
        ({DRUG: D1, DOSE: -1}, ValueError, ("not negative",)),
        ({DRUG: D1, DOSE: [1, 2]}, ValueError, ("2 doses", "1 perturbations")),
        ("drug_1, drug_2", ValueError, ("contradicts itself", "'perturbation' is 'drug_1' and 'drug_2'")),
        ("drug_1, line_1, line_2", ValueError, ("contradicts itself", "'cell_line'")),
        ("drug_1 10, 1 uM", ValueError, ("contradicts itself", "'dose_value' is 10.0 and 1000.0")),
        ("drug_1 10 + drug_2", ValueError, ("a dose for some perturbations only", "Give one for each, or none")),
        ("drug_1 1,000 nM", ValueError, ("contradicts itself",)),
        ("", ValueError, ("names no condition",)),
        (" , ", ValueError, ("names no condition",)),
        ({DOSE: 50}, ValueError, ("No measured condition has dose_value=50.0", "Name a perturbation")),
        (7, TypeError, ("condition is an int", "'cell_line'")),
        ([D1], TypeError, ("condition is a list",)),
    ],
)
def test_what_is_not_understood_is_refused(drugs, refused, query, error, words):
    with refused(drugs, error, *words):
        scgap.tl.resolve(drugs, query, aliases=ALIASES)


def test_a_number_may_be_a_dose_or_a_time(pairs, refused):
    with refused(pairs, ValueError, "'24' may be any of 'hours=24.0', 'dose_value=24.0'", "Pass a mapping"):
        scgap.tl.resolve(pairs, "drug_1, 24")


def test_rows_of_tables_are_queries(drugs):
    table = scgap.tl.resolve(drugs, {})
    for rows in (drugs.uns["scgap"]["conditions"], table):
        for _, row in rows.iterrows():
            assert scgap.tl.resolve(drugs, row)["condition_label"].tolist() == [row["condition_label"]]
            assert scgap.tl.resolve(drugs, row["condition_label"])["condition_label"].tolist() == [
                row["condition_label"]
            ]


def test_the_tier_says_what_training_never_saw(drugs, pairs):
    table = scgap.tl.resolve(drugs, {}).set_index("condition_label")["support"].astype(str)
    unseen = {"drug_2 100, line_1", "drug_2 100, line_2"}
    assert set(table[table == "interpolated dose"].index) == unseen
    assert set(table[table == "unseen combination"].index) == {"drug_3 1000, line_1"}
    assert set(table[~table.index.isin([*unseen, "drug_3 1000, line_1"])]) == {"seen"}

    def tiers(adata, query):
        return set(scgap.tl.resolve(adata, query)["support"])

    assert tiers(drugs, "drug_1 50") == {"interpolated dose"}
    assert tiers(drugs, "drug_1 2000") == {"extrapolated dose"}
    assert tiers(drugs, "drug_1 10 + drug_2 10") == {"unseen combination"}
    assert tiers(drugs, "control") == {"control"}
    assert tiers(pairs, "drug_1+drug_2, 10 nM, 24 h") == {"seen"}
    assert tiers(pairs, "drug_1+drug_2, 100 nM, 24 h") == {"unseen combination"}
    assert tiers(pairs, "drug_1 10, 30 h") == {"interpolated time"}
    assert tiers(pairs, "drug_1 10, 3 d") == {"extrapolated time"}


def test_a_drug_held_out_is_resolved_by_its_descriptors(drugs):
    adata = drugs.copy()
    scgap.pp.split(adata, holdout={"perturbation": ["drug_2"]}, **DRUGS)
    scgap.tl.fit_transport(adata, encoding=adata.uns["drug_descriptors"], **DRUGS, **FIT)
    assert set(scgap.tl.resolve(adata, "drug_2")["support"]) == {"unseen perturbation"}
    scgap.tl.fit_transport(adata, **DRUGS, **FIT)
    table = scgap.tl.resolve(adata, {"cell_line": "line_1"})
    assert set(table.loc[table["perturbation"] == "drug_2", "support"]) == {"unresolvable"}
    with pytest.raises(KeyError, match="An unseen perturbation needs descriptors"):
        scgap.tl.resolve(adata, "drug_2")


def test_the_nearest_are_those_among_all(drugs, pairs):
    for adata in (drugs, pairs):
        model = get_model(adata, None, "scgap")
        measured = list(measured_cells(model))
        asked = [
            *measured,
            Condition((), ("line_1",)),
            Condition((("drug_1", 5.0), ("drug_2", 7.0)), ("line_2",), 30.0),
        ]
        expected = [nearest_conditions(measured, condition, 3) for condition in asked]
        assert list(_resolve._nearest(measured, asked)) == expected


def test_the_nearest_measured_conditions(drugs):
    (row,) = scgap.tl.resolve(drugs, "drug_1 50, line_2")["nearest"]
    assert row == "drug_1 100, line_2; drug_1 100, line_1; drug_1 10, line_2"


def test_groups_of_the_data_that_the_fit_never_met(drugs):
    adata = drugs.copy()
    adata.obs["cell_line"] = adata.obs["cell_line"].cat.rename_categories({"line_2": "line_9"})
    table = scgap.tl.resolve(adata, {"perturbation": "drug_1", "cell_line": "line_9"})
    assert set(table["support"]) == {"unseen group"}
    assert sorted(table["dose_value"]) == list(DOSES)
    assert (table["n_cells"] == 0).all()


def test_nothing_is_written(drugs, same):
    before = drugs.copy()
    scgap.tl.resolve(drugs, {})
    assert same(drugs, before)


def test_groups_may_be_called_as_quantities():
    adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[10.0, 100.0], n_groups=2, n_features=6)
    adata.obs["cell_line"] = adata.obs["cell_line"].map({"line_1": "24h", "line_2": "2"}).astype(str)
    scgap.tl.fit_transport(adata, **DRUGS, n_iters=0, hidden=(4,), progress=False)
    assert resolved_groups(adata, "drug_1 50, 24h") == ["24h"]
    without = {"group_col": "cell_line", "n_iters": 0, "hidden": (4,), "progress": False}
    scgap.tl.fit_transport(adata, **without)
    assert resolved_groups(adata, "2, drug_1") == ["2"]
    with pytest.raises(
        ValueError, match=r"fitted without dose_col.* If '2' is a group, write a comma before it: 'drug_1, 2'"
    ):
        scgap.tl.resolve(adata, "drug_1 2")


def resolved_groups(adata, query):
    return scgap.tl.resolve(adata, query)["cell_line"].tolist()


def test_blank_doses_of_perturbations_that_are_not_there_stay_open():
    adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[10.0], n_groups=1, n_features=6, n_combinations=1)
    both = adata.obs["perturbation"].astype(str).str.split("+", expand=True)
    adata.obs["drug_a"], adata.obs["drug_b"] = both[0], both[1].fillna("control")
    adata.obs["dose_a"] = np.where(both[0] == "control", "", "10")
    adata.obs["dose_b"] = np.where(both[1].isna(), "", "10")
    columns = {"target_col": ["drug_a", "drug_b"], "dose_col": ["dose_a", "dose_b"]}
    scgap.tl.fit_transport(adata, **columns, n_iters=0, hidden=(4,), progress=False)
    table = adata.uns["scgap"]["conditions"]
    assert table["dose_b"].isna().tolist() == (table["drug_b"] == "control").tolist()
    assert scgap.tl.resolve(adata, "drug_1 10")["condition_label"].tolist() == ["drug_1 10"]
    screened = scgap.tl.screen(adata, table, n_cells=2, progress=False)
    assert set(screened.obs["condition_label"]) == set(table["condition_label"])


def test_whole_numbers_of_groups_are_found_in_objects_that_hold_them_otherwise(drugs):
    adata = drugs.copy()
    adata.obs["donor"] = adata.obs["cell_line"].map({"line_1": 1, "line_2": 2}).astype(int)
    scgap.tl.fit_transport(adata, dose_col="dose_value", group_col="donor", **FIT)
    other = adata.copy()
    other.obs["donor"] = other.obs["donor"].astype(float)
    for donor in (1, 1.0, "1"):
        scgap.tl.predict(other, {"perturbation": "drug_1", "dose_value": 100, "donor": donor})
        assert set(other.obs.loc[other.obs["scgap_transported"], "donor"]) == {1.0}
    one, two = (scgap.tl.screen(some, n_cells=3, progress=False) for some in (adata, other))
    np.testing.assert_array_equal(one.X, two.X)
    assert list(one.obs["support"].unique()) == list(two.obs["support"].unique())
