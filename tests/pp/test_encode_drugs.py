import sys
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

import scgap

ASPIRIN, IBUPROFEN, PARACETAMOL = "CC(=O)Oc1ccccc1C(=O)O", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "CC(=O)Nc1ccc(O)cc1"
SMILES = {"drug_1": ASPIRIN, "drug_2": IBUPROFEN, "drug_3": PARACETAMOL}


def test_without_rdkit_it_says_what_to_install(screen, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with refused(screen, ImportError, "needs RDKit", "pip install 'scgap[rdkit]'"):
        scgap.pp.encode_drugs(screen, smiles=SMILES)


rdkit = pytest.importorskip("rdkit")
from rdkit import Chem  # noqa: E402
from rdkit.Chem import AllChem, Descriptors  # noqa: E402


def encode(adata, smiles=SMILES, **options):
    assert scgap.pp.encode_drugs(adata, smiles=smiles, **options) is None
    stored = adata.uns[options.get("key_added", "drug")]
    return pd.DataFrame(stored["values"], stored["perturbations"], stored["features"]), stored


def test_sets_the_fields_that_are_documented(screen, same):
    before = screen.copy()
    table, stored = encode(screen)
    assert set(stored) == {"method", "perturbations", "features", "values", "params", "smiles", "mean", "std"}
    assert stored["method"] == "rdkit2d"
    assert stored["values"].dtype == np.float32
    assert rdkit.__version__ in stored["params"]
    assert stored["smiles"].tolist() == [Chem.CanonSmiles(smiles) for smiles in SMILES.values()]
    assert table.index.tolist() == list(SMILES)
    del screen.uns["drug"]
    assert same(screen, before)


def test_descriptors_are_rdkits_standardised_over_the_drugs(screen):
    table, stored = encode(screen)
    for i, feature in enumerate(stored["features"]):
        function = dict(Descriptors.descList)[feature]
        values = np.array([function(Chem.MolFromSmiles(smiles)) for smiles in SMILES.values()])
        assert values.std() > 0.01
        np.testing.assert_allclose(stored["mean"][i], values.mean())
        np.testing.assert_allclose(table[feature], (values - values.mean()) / values.std(), rtol=1e-4, atol=1e-5)
    assert "MolWt" in table
    assert "NumRadicalElectrons" not in table  # 0 for all


def test_a_library_standardises(screen):
    library = [ASPIRIN, IBUPROFEN, PARACETAMOL, "CCO", "c1ccccc1", "CN1CCC[C@H]1c1cccnc1"]
    table, stored = encode(screen, reference=iter(library))
    weights = np.array([Descriptors.MolWt(Chem.MolFromSmiles(smiles)) for smiles in library])
    np.testing.assert_allclose(table["MolWt"], ((weights - weights.mean()) / weights.std())[:3], rtol=1e-5)
    # One drug among many has the vector that it has among few.
    one, _ = encode(screen, {**SMILES, "new": "CCN"}, reference=library, key_added="other")
    pd.testing.assert_frame_equal(one.loc[list(SMILES)], table)
    assert '"reference": "library"' in stored["params"]


def test_fingerprints_are_rdkits(screen):
    table, stored = encode(screen, method="morgan")
    assert stored["method"] == "morgan"
    assert "mean" not in stored
    with warnings.catch_warnings(action="ignore"):
        old = [
            np.array(AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(smiles), 2, nBits=1024))
            for smiles in SMILES.values()
        ]
    expected = pd.DataFrame(old, list(SMILES), [f"bit_{i}" for i in range(1024)])
    pd.testing.assert_frame_equal(table, expected.loc[:, expected.nunique() > 1].astype(np.float32), check_names=False)


def test_drugs_that_were_not_measured_are_kept_and_control_is_not(screen):
    table, _ = encode(screen, {**SMILES, "new": "CCO", "control": "CS(C)=O"})
    assert table.index.tolist() == [*SMILES, "new"]


@pytest.mark.parametrize("method", ["rdkit2d", "morgan"])
def test_a_salt_is_its_drug(screen, method):
    salts = {**SMILES, "drug_1": ASPIRIN.removesuffix("O") + "[O-].[Na+]", "drug_3": PARACETAMOL + ".Cl"}
    with pytest.warns(UserWarning, match="2 of 3 drugs are salts or mixtures: 'drug_1', 'drug_3'. Their largest frag"):
        of_salts, stored = encode(screen, salts, method=method)
    assert stored["smiles"].tolist() == [Chem.CanonSmiles(smiles) for smiles in SMILES.values()]
    plain, _ = encode(screen, method=method, key_added="plain")
    pd.testing.assert_frame_equal(of_salts, plain)


def test_metal_bound_to_a_drug_is_taken_off(screen):
    with pytest.warns(UserWarning, match="1 of 3 drugs are salts or mixtures: 'drug_1'"):
        _, stored = encode(screen, {**SMILES, "drug_1": "O=C(CCCc1ccccc1)O[Na]"})
    assert stored["smiles"][0] == "O=C(O)CCCc1ccccc1"


def test_descriptors_that_are_not_defined_are_named(screen):
    plain, _ = encode(screen, key_added="plain")
    with pytest.warns(UserWarning, match="left out: they are not defined for 'new'") as log:
        table, _ = encode(screen, {**SMILES, "new": "[Xe]"})
    assert "'BCUT2D_MWHI'" in str(log[0].message)
    assert np.isfinite(table).all(axis=None)
    assert "BCUT2D_MWHI" in plain
    assert "BCUT2D_MWHI" not in table
    # In a library they cost a molecule and no descriptor.
    table, _ = encode(screen, reference=[*SMILES.values(), "[Xe]"])
    assert set(plain) <= set(table)


def test_smiles_from_a_column(screen):
    expected, _ = encode(screen)
    screen.obs["smiles"] = screen.obs["perturbation"].map(SMILES).astype("category")
    table, _ = encode(screen, "smiles", key_added="column")
    pd.testing.assert_frame_equal(table, expected)


def test_smiles_from_a_series(screen):
    expected, _ = encode(screen)
    table, _ = encode(screen, pd.Series(SMILES), key_added="series")
    pd.testing.assert_frame_equal(table, expected)


def test_combinations_are_taken_apart(pairs):
    smiles = dict(zip("ABC", SMILES.values(), strict=True))
    table, _ = encode(pairs, smiles, target_col="genes", reference_key="none", sep="+")
    assert table.index.tolist() == ["A", "B", "C"]
    # Of a combination's cells a column would hold the SMILES of both.
    pairs.obs["smiles"] = pairs.obs["genes"].astype(str).map(smiles).fillna("CC.CC")
    again, _ = encode(pairs, "smiles", target_col="genes", reference_key="none", sep="+", key_added="column")
    pd.testing.assert_frame_equal(again.loc[["A", "B", "C"]], table)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_files(screen, tmp_path, settings, suffix):
    encode(screen, {**SMILES, "new/1": "CCO"})
    path = tmp_path / f"screen.{suffix}"
    getattr(screen, f"write_{suffix}")(path)
    again = getattr(anndata, f"read_{suffix}")(path)
    for name in ("values", "mean", "std"):
        np.testing.assert_array_equal(again.uns["drug"][name], screen.uns["drug"][name])
    scgap.tl.fit_transport(again, encoding="drug", **{**settings, "n_iters": 0})
    scgap.tl.predict(again, {"perturbation": "new/1", "dose_value": 100.0})


def test_a_copy_leaves_the_input_alone(screen, same):
    before = screen.copy()
    assert "drug" in scgap.pp.encode_drugs(screen, smiles=SMILES, copy=True).uns
    assert same(screen, before)


@pytest.mark.parametrize(
    ("smiles", "options", "error", "words"),
    [
        ({"drug_1": ASPIRIN}, {}, ValueError, ("no SMILES for 'drug_2', 'drug_3'; there is one for 'drug_1'", "drop")),
        ({**SMILES, "drug_2": None}, {}, ValueError, ("no SMILES for 'drug_2'",)),
        ({**SMILES, "drug_2": np.nan}, {}, ValueError, ("no SMILES for 'drug_2'",)),
        ({**SMILES, "drug_2": " "}, {}, ValueError, ("no SMILES for 'drug_2'",)),
        ({**SMILES, "drug_2": "C1CC"}, {}, ValueError, ("cannot read the SMILES of 'drug_2: C1CC'", "Correct them")),
        ({**SMILES, "drug_2": "aspirin"}, {}, ValueError, ("'drug_2: aspirin'",)),
        (
            pd.Series([*SMILES.values(), "CCO"], [*SMILES, "drug_3"]),
            {},
            ValueError,
            ("more than one", "drug_3: CC"),
        ),
        (dict.fromkeys(SMILES, ASPIRIN), {}, ValueError, ("no descriptor in which the drugs", "more than one drug")),
        (dict.fromkeys(SMILES, ASPIRIN), {"method": "morgan"}, ValueError, ("no descriptor in which the drugs",)),
        ("smile", {}, KeyError, ("'smile' is not in adata.obs",)),
        (SMILES, {"reference": ["C1CC"]}, ValueError, ("cannot read the SMILES of 'C1CC: C1CC'",)),
        (SMILES, {"reference": "CCO"}, TypeError, ("reference='CCO' is one string", "Pass a list")),
        (list(SMILES.values()), {}, TypeError, ("smiles is a list", "Pass a mapping")),
        (None, {}, TypeError, ("smiles is a NoneType", "the obs column")),
        (SMILES, {"method": "ecfp"}, ValueError, ("method='ecfp'", '"rdkit2d" or "morgan"')),
        (SMILES, {"method": "morgan", "reference": ["CCO"]}, ValueError, ("reference=", "Leave it out")),
        (SMILES, {"target_col": "drug"}, KeyError, ("'drug' is not in adata.obs",)),
        (SMILES, {"key_added": "a/b"}, ValueError, ("'a/b' cannot be a key",)),
        (SMILES, {"mod": "rna"}, ValueError, ("mod='rna'",)),
    ],
)
def test_what_cannot_be_encoded_is_refused(screen, refused, smiles, options, error, words):
    with refused(screen, error, *words):
        scgap.pp.encode_drugs(screen, smiles=smiles, **options)


def test_two_smiles_in_a_column_are_refused(screen, refused):
    screen.obs["smiles"] = screen.obs["perturbation"].astype(str).map(SMILES)
    screen.obs.loc[screen.obs_names[screen.obs["perturbation"] == "drug_1"][:3], "smiles"] = "CCO"
    with refused(screen, ValueError, "more than one SMILES for 'drug_1: CC(=O)Oc1ccccc1C(=O)O, CCO'", "Keep one"):
        scgap.pp.encode_drugs(screen, smiles="smiles")


def test_a_view_is_refused(screen, refused):
    view = screen[:1_400]
    with refused(view, ValueError, "view", "copy=True"):
        scgap.pp.encode_drugs(view, smiles=SMILES)
    assert not scgap.pp.encode_drugs(view, smiles=SMILES, copy=True).is_view
