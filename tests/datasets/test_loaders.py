"""Small files with the columns of the real ones, under the names that pertpy reads."""

import anndata
import numpy as np
import pandas as pd
import pytest
from mudata import MuData

import scgap

# pytest.warns gives back what it was not asked for under the test's name, and so past the filter of mudata's warning.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in")

FIT = {"n_iters": 5, "batch_size": 16, "hidden": (8,), "progress": False}
DOSES = {"dose_col": "dose_value", "dose_unit": "dose_unit", "group_col": "cell_line"}
SLOW = pytest.mark.slow  # every shape is compiled anew
N = 30  # cells of a condition
NAMES = ["sciplex3", "sciplex2", "combosciplex", "norman", "kang", "mcfarland", "papalexi", "frangieh"]

# A small file's obs, from where its columns and labels are known; fields of a tuple are repeated N times.
OBS = {
    # Columns of scPerturb's files; labels of the vendor: chemCPA's notebooks and code that reads the file.
    "srivatsan_2020_sciplex3": {
        "perturbation": ("control", "(+)-JQ1", "ENMD-2076 L-(+)-Tartaric acid", "Glesatinib?(MGCD265)", np.nan),
        "dose_value": (np.nan, 10.0, 10_000.0, 100.0, 10.0),
        "dose_unit": (np.nan, "nM", "nM", "nM", "nM"),
        "cell_line": ("A549", "A549", "A549", "A549", "A549"),
        "time": (24.0, 24.0, 24.0, 24.0, 24.0),
        "target": ("Vehicle", "BET", "Aurora", "MET", "x"),
        "pathway": ("Vehicle", "Epigenetics", "Cell cycle", "RTK", "x"),
    },
    "srivatsan_2020_sciplex2": {  # the same schema; the example of pertpy's dose_response
        "perturbation": ("control", "Dexamethasone", "Nutlin-3a"),
        "dose_value": ("0", "0.5", "50.0"),
        "dose_unit": ("µM", "µM", "µM"),
        "cell_line": ("A549", "A549", "A549"),
    },
    "combosciplex": {  # CellFlow's preprocessing: Drug1, Drug2, condition, "control+control", layers["counts"]
        "Drug1": ("control", "control", "Panobinostat", "Panobinostat"),
        "Drug2": ("control", "Dacinostat", "Dacinostat", "Crizotinib"),
        "condition": (
            "control+control",
            "control+Dacinostat",
            "Panobinostat+Dacinostat",
            "Panobinostat+Crizotinib",
        ),
    },
    "norman_2019": {  # pertpy's examples: target_col="perturbation_name", reference_key="control"
        "perturbation_name": ("control", "KLF1", "MAP2K6", "KLF1+MAP2K6"),
        "guide_ids": ("", "KLF1", "MAP2K6", "KLF1,MAP2K6"),
    },
    "kang_2018": {  # pertpy's examples of Scgen and Augur: label, ctrl and stim; cell_type
        "label": ("ctrl", "stim", "ctrl", "stim"),
        "cell_type": ("B cells", "B cells", "NK cells", "NK cells"),
        "replicate": ("patient_101",) * 4,
    },
    "mcfarland_2020": {  # columns and µM as in Lamin's guide to perturbation data; time "6", "24"
        "perturbation": ("control", "trametinib", "sgGPX4-1", "trametinib"),
        "perturbation_type": ("drug", "drug", "CRISPR", "drug"),
        "dose_value": (np.nan, 0.1, np.nan, 0.1),
        "dose_unit": (np.nan, "µM", np.nan, "µM"),
        "cell_line": ("LUDLU-1", "LUDLU-1", "LUDLU-1", "nan"),
        "time": ("24", "24", "24", "24"),
    },
    "papalexi_2021": {  # pertpy's examples of Mixscape: gene_target, NT; `perturbation` is Seurat's NT/Perturbed
        "gene_target": ("NT", "IFNGR1", "STAT1"),
        "perturbation": ("NT", "Perturbed", "Perturbed"),
        "replicate": ("rep1", "rep1", "rep1"),
    },
    "frangieh_2021_rna": {  # code that reads scPerturb's file: perturbation, perturbation_2, nperts
        "perturbation": ("control", "JAK1", "control", "JAK1"),
        "perturbation_2": ("Control", "Control", "IFN\u03b3", "IFN\u03b3"),
        "nperts": (1, 1, 1, 1),
    },
}
OBS["frangieh_2021_protein"] = OBS["frangieh_2021_rna"]


@pytest.fixture
def files(datasetdir, make_counts):
    """All of these files in the folder of data sets."""
    for name, columns in OBS.items():
        adata = make_counts({column: np.repeat(np.array(values, object), N) for column, values in columns.items()})
        for column in adata.obs:  # the files hold numbers as numbers, text as categories
            numbers = all(isinstance(value, float | int) for value in columns[column])
            adata.obs[column] = adata.obs[column].astype(float if numbers else "category")
        if name == "papalexi_2021":
            mods = {mod: adata[:, :3].copy() for mod in ("adt", "hto", "gdo")}
            for mod in mods.values():
                mod.obs = pd.DataFrame(index=adata.obs_names)
                mod.X = mod.X.toarray()
            for mod, other in mods.items():
                other.var_names = [f"{mod}_{i}" for i in range(3)]
            MuData({"rna": adata, **mods}).write_h5mu(datasetdir / "papalexi_2021.h5mu")
        else:
            if "protein" in name:
                adata.var_names = "protein_" + adata.var_names
            adata.write_h5ad(datasetdir / f"{name}.h5ad")
    return datasetdir


def load(name):
    if name == "sciplex3":
        with pytest.warns(UserWarning, match="30 of 150 cells are left out: they have no label in 'perturbation'"):
            return scgap.datasets.sciplex3()
    if name == "mcfarland":
        with (
            pytest.warns(UserWarning, match="30 of 120 cells are left out: they have no label in 'cell_line'"),
            pytest.warns(UserWarning, match="'sgGPX4-1' have cells without a dose"),
        ):
            return scgap.datasets.mcfarland()
    return getattr(scgap.datasets, name)()


def conditions(adata, *columns):
    return sorted(set(adata.obs[["perturbation", *columns]].astype(object).itertuples(index=False, name=None)))


EXPECTED = {
    "sciplex3": (
        ("dose_value", "dose_unit", "cell_line"),
        [
            ("(+)-JQ1", 10.0, "nM", "A549"),
            ("ENMD-2076 L-(+)-Tartaric acid", 10_000.0, "nM", "A549"),
            ("Glesatinib?(MGCD265)", 100.0, "nM", "A549"),
            ("control", 0.0, "nM", "A549"),
        ],
    ),
    "sciplex2": (
        ("dose_value", "dose_unit", "cell_line"),
        [("Dexamethasone", 0.5, "µM", "A549"), ("Nutlin-3a", 50.0, "µM", "A549"), ("control", 0.0, "µM", "A549")],
    ),
    "combosciplex": (
        ("cell_line",),
        [(name, "A549") for name in ("Dacinostat", "Panobinostat+Crizotinib", "Panobinostat+Dacinostat", "control")],
    ),
    "norman": (("cell_line",), [(name, "K562") for name in ("KLF1", "KLF1+MAP2K6", "MAP2K6", "control")]),
    "kang": (
        ("cell_type",),
        [("control", "B cells"), ("control", "NK cells"), ("stim", "B cells"), ("stim", "NK cells")],
    ),
    "papalexi": (("cell_line",), [("IFNGR1", "THP-1"), ("STAT1", "THP-1"), ("control", "THP-1")]),
    "frangieh": (
        ("perturbation_2",),
        [("JAK1", "Control"), ("JAK1", "IFN\u03b3"), ("control", "Control"), ("control", "IFN\u03b3")],
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_columns_are_the_same_in_all(files, name):
    data = load(name)
    columns, expected = EXPECTED[name]
    adata = data["rna"] if isinstance(data, MuData) else data
    assert conditions(adata, *columns) == expected
    assert adata.obs["perturbation"].cat.categories[0] == "control"
    if "dose_value" in columns:
        assert adata.obs["dose_value"].dtype == float


def test_guides_among_drugs_have_no_dose(files):
    adata = load("mcfarland")
    dose = adata.obs.groupby("perturbation", observed=True)["dose_value"].agg(["min", "count"])
    assert dose.loc["control"].tolist() == [0.0, N]
    assert dose.loc["trametinib"].tolist() == [0.1, N]
    assert dose.loc["sgGPX4-1", "count"] == 0
    assert set(adata.obs["dose_unit"]) == {"µM"}
    assert set(adata.obs["cell_line"]) == {"LUDLU-1"}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_file_held_is_still_there(files, name):
    file = next(path for path in files.iterdir() if name in path.name and "protein" not in path.name)
    columns = OBS[file.stem]
    data = load(name)
    adata = data["rna"] if isinstance(data, MuData) else data
    before = anndata.read_h5ad(file) if file.suffix == ".h5ad" else None
    for column in columns:
        kept = f"{column}_original" if f"{column}_original" in adata.obs else column
        assert set(adata.obs[kept].astype(object).dropna()) <= set(columns[column])
        if before is not None and column != "dose_value":
            # What is kept under its own name says what the file says, but for a unit of doses that controls lack.
            one, other = (frame[kept_].astype(object) for frame, kept_ in ((adata.obs, kept), (before.obs, column)))
            other = other.loc[one.index]
            assert one[other.notna()].equals(other[other.notna()])
    if before is not None:
        assert (adata.X != before[adata.obs_names].X).nnz == 0


def test_a_column_of_that_name_is_kept_if_it_says_something_else(files):
    rna = load("papalexi")["rna"]
    pairs = rna.obs[["perturbation", "perturbation_original", "gene_target"]].astype(str).drop_duplicates()
    assert pairs.to_numpy().tolist() == [
        ["control", "NT", "NT"],
        ["IFNGR1", "Perturbed", "IFNGR1"],
        ["STAT1", "Perturbed", "STAT1"],
    ]
    doses = load("sciplex3").obs
    assert doses["dose_value_original"].isna().sum() == N
    assert "cell_line_original" not in doses
    assert "perturbation_original" not in doses


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        pytest.param("sciplex3", DOSES, marks=SLOW),
        pytest.param("sciplex2", DOSES, marks=SLOW),
        pytest.param("combosciplex", {"sep": "+", "group_col": "cell_line"}, marks=SLOW),
        pytest.param("norman", {"sep": "+"}, marks=SLOW),
        pytest.param("kang", {"group_col": "cell_type"}, marks=SLOW),
        pytest.param("mcfarland", DOSES, marks=SLOW),
        ("papalexi", {"mod": "rna"}),
        pytest.param("papalexi", {"mod": "adt"}, marks=SLOW),
        pytest.param("frangieh", {"mod": "protein", "group_col": "perturbation_2"}, marks=SLOW),
    ],
)
def test_all_are_ready_to_fit(files, tmp_path, name, columns):
    data = load(name)
    if name == "mcfarland":
        data = data[data.obs["dose_value"].notna()].copy()
    mod = columns.get("mod")
    scgap.pp.split(data, **{key: value for key, value in columns.items() if key != "dose_unit"})
    scgap.pp.recipe_log1p(data, n_top_genes=3, split_col="split", mod=mod)
    scgap.tl.fit_transport(data, split_col="split", **columns, **FIT)
    adata = data[mod] if mod else data
    assert adata.n_vars < 12 or mod == "adt"
    assert len(adata.uns["scgap"]["conditions"]) >= 1
    if mod:
        data.write_h5mu(tmp_path / "data.h5mu")
    else:
        data.write_h5ad(tmp_path / "data.h5ad")


def test_modalities_share_their_cells(files):
    mdata = load("papalexi")
    assert set(mdata.mod) == {"rna", "adt", "hto", "gdo"}
    for adata in mdata.mod.values():
        assert adata.obs["perturbation"].astype(str).tolist() == mdata["rna"].obs["perturbation"].astype(str).tolist()
    assert load("frangieh")["rna"].obs_names.tolist() == load("frangieh")["protein"].obs_names.tolist()


def test_cells_of_one_file_alone_are_left_out(files):
    path = files / "frangieh_2021_protein.h5ad"
    protein = anndata.read_h5ad(path)
    protein[5:][::-1].copy().write_h5ad(path)
    with pytest.warns(UserWarning, match="5 cells are left out: only one of the two files has them"):
        mdata = scgap.datasets.frangieh()
    assert mdata.n_obs == 4 * N - 5
    assert mdata["rna"].obs_names.tolist() == mdata["protein"].obs_names.tolist() == protein.obs_names[5:].tolist()
    protein.obs_names = "other_" + protein.obs_names
    protein.write_h5ad(path)
    with pytest.raises(ValueError, match="no cell in common"):
        scgap.datasets.frangieh()


def test_cells_without_label_are_left_out_of_all_modalities(files, datasetdir):
    import mudata

    mdata = mudata.read_h5mu(datasetdir / "papalexi_2021.h5mu")
    mdata["rna"].obs["gene_target"] = mdata["rna"].obs["gene_target"].cat.remove_categories("STAT1")
    mdata.write_h5mu(datasetdir / "papalexi_2021.h5mu")
    with pytest.warns(UserWarning, match="30 of 90 cells are left out"):
        mdata = scgap.datasets.papalexi()
    assert {adata.n_obs for adata in mdata.mod.values()} == {60}


@pytest.mark.parametrize("name", NAMES)
def test_no_network_is_said_at_once(datasetdir, no_network, name):
    with pytest.raises(ConnectionError) as caught:
        getattr(scgap.datasets, name)()
    message = str(caught.value)
    assert message.startswith("There is no network")
    file = next(stem for stem in OBS if name in stem)
    assert str(datasetdir / file) in message
    assert len(no_network) == 1  # pertpy would wait, and ask again
    assert not list(datasetdir.iterdir())


def test_a_network_that_breaks_off_is_said_too(datasetdir, monkeypatch):
    import pertpy
    import requests

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)

    def broken():
        raise requests.exceptions.ConnectionError("reset by peer")

    monkeypatch.setattr(pertpy.data, "kang_2018", broken)
    with pytest.raises(ConnectionError, match=r"There is no network .* no file '.*kang_2018\.h5ad'"):
        scgap.datasets.kang()


def test_a_file_without_the_column_is_refused(datasetdir, make_counts):
    make_counts({"Label": ["ctrl"] * 3, "cell_type": ["B"] * 3}).write_h5ad(datasetdir / "kang_2018.h5ad")
    with pytest.raises(KeyError, match=r"'label' is not in the obs columns of 'kang_2018\.h5ad'.*Did you mean 'Label'"):
        scgap.datasets.kang()


JQ1, TARTRATE, GLESATINIB = "CC(C)=O", "CCO", "c1ccccc1"


def test_smiles_go_to_the_encoding(files, tmp_path):
    pytest.importorskip("rdkit")
    path = tmp_path / "smiles.csv"
    path.write_text(  # names as in chemCPA's table, which has a third column and no header
        f"JQ1,{JQ1},Epigenetics\nENMD-2076,{TARTRATE},Cell\nGlesatinib?(MGCD265),{GLESATINIB},RTK\ncontrol,CS(C)=O,Vehicle\n"
    )
    with pytest.warns(UserWarning, match="30 of 150"):
        adata = scgap.datasets.sciplex3(smiles=path)
    pairs = adata.obs[["perturbation", "smiles"]].astype(object).drop_duplicates().set_index("perturbation")["smiles"]
    assert pairs.drop("control").to_dict() == {
        "(+)-JQ1": JQ1,
        "ENMD-2076 L-(+)-Tartaric acid": TARTRATE,
        "Glesatinib?(MGCD265)": GLESATINIB,
    }
    assert pd.isna(pairs["control"])
    scgap.pp.encode_drugs(adata, smiles="smiles")
    assert len(adata.uns["drug"]["perturbations"]) == 3


def test_drugs_without_smiles_are_named(files):
    with pytest.warns(UserWarning, match="1 of 2 drugs have no SMILES in smiles: 'Nutlin-3a'"):
        adata = scgap.datasets.sciplex2(smiles={"dexamethasone": "CCO"})
    assert adata.obs["smiles"].notna().sum() == N
