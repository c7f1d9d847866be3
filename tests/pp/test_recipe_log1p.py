import numpy as np
import pytest
import scanpy as sc
from mudata import MuData
from scipy import sparse

import scgap


@pytest.fixture
def counts():
    adata = scgap.datasets.simulate_screen(
        1_000, n_features=60, n_drugs=2, doses=[100.0], n_groups=1, counts=True, seed=3
    )
    scgap.pp.split(adata, dose_col="dose_value")
    return adata


def by_scanpy(adata, train):
    """The same in scanpy's own steps, on all cells of which these choose the genes."""
    adata = adata.copy()
    totals = np.asarray(adata[train].X.sum(1)).ravel()
    sc.pp.normalize_total(adata, target_sum=np.median(totals))
    sc.pp.log1p(adata)
    chosen = adata[train].copy()
    sc.pp.highly_variable_genes(chosen, n_top_genes=20)
    return adata[:, chosen.var["highly_variable"].to_numpy()]


@pytest.mark.parametrize("split_col", [None, "split"])
def test_steps_are_those_of_scanpy(counts, split_col):
    before = counts.copy()
    train = (counts.obs["split"] == "train").to_numpy() if split_col else np.ones(counts.n_obs, bool)
    expected = by_scanpy(counts, train)
    scgap.pp.recipe_log1p(counts, n_top_genes=20, split_col=split_col)
    assert counts.var_names.tolist() == expected.var_names.tolist()
    assert counts.n_vars == 20
    np.testing.assert_allclose(counts.X.toarray(), expected.X.toarray(), rtol=1e-6)
    assert counts.X.dtype == np.float32
    np.testing.assert_array_equal(counts.layers["counts"].toarray(), before[:, counts.var_names].X.toarray())
    assert counts.var["highly_variable"].all()
    assert "log1p" in counts.uns


def test_as_many_genes_are_kept_as_asked_for(counts):
    # Genes alone in their bins of means are equally variable, and scanpy keeps all or none of them.
    for n in range(1, 60, 7):
        assert scgap.pp.recipe_log1p(counts, n_top_genes=n, copy=True).n_vars == n


def test_all_cells_of_the_default_scale_as_scanpy_does_by_itself(counts):
    expected = counts.copy()
    sc.pp.normalize_total(expected)
    sc.pp.log1p(expected)
    scgap.pp.recipe_log1p(counts, n_top_genes=60)
    np.testing.assert_allclose(counts.X.toarray(), expected.X.toarray(), rtol=1e-6)


def test_test_cells_have_no_say(counts):
    other = counts.copy()
    test = (counts.obs["split"] != "train").to_numpy()
    dense = other.X.toarray()
    dense[test] = dense[test][:, ::-1] * 100
    other.X = sparse.csr_matrix(dense)
    for adata in (counts, other):
        scgap.pp.recipe_log1p(adata, n_top_genes=20, split_col="split")
    assert counts.var_names.tolist() == other.var_names.tolist()
    np.testing.assert_array_equal(counts.X[~test].toarray(), other.X[~test].toarray())


def test_dense_csc_and_whole_numbers_give_the_same(counts):
    results = []
    for convert in (lambda x: x, lambda x: x.toarray(), sparse.csc_matrix, lambda x: x.astype(np.int64)):
        adata = counts.copy()
        adata.X = convert(adata.X)
        scgap.pp.recipe_log1p(adata, n_top_genes=20, split_col="split")
        results.append(adata.X.toarray() if sparse.issparse(adata.X) else adata.X)
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-6)


def test_copy_leaves_the_object_as_it_was(counts, same):
    before = counts.copy()
    result = scgap.pp.recipe_log1p(counts, n_top_genes=20, copy=True)
    assert same(counts, before)
    result.layers["counts"].data[:] = -1
    assert same(counts, before)
    assert result.n_vars == 20


def test_counts_in_a_layer(counts):
    expected = scgap.pp.recipe_log1p(counts, n_top_genes=20, copy=True)
    counts.layers["counts"] = counts.X
    counts.X = counts.X * 0.5
    scgap.pp.recipe_log1p(counts, n_top_genes=20, layer="counts")
    np.testing.assert_array_equal(counts.X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(counts.layers["counts"].toarray(), expected.layers["counts"].toarray())


def test_modality_of_mudata(counts):
    expected = scgap.pp.recipe_log1p(counts, n_top_genes=20, split_col="split", copy=True)
    protein = counts[:, :5].copy()
    protein.var_names = [f"protein_{i}" for i in range(5)]
    mdata = MuData({"rna": counts, "protein": protein})
    scgap.pp.recipe_log1p(mdata, n_top_genes=20, split_col="split", mod="rna")
    assert mdata.shape == (1_000, 25)
    assert mdata["protein"].n_vars == 5
    np.testing.assert_array_equal(mdata["rna"].X.toarray(), expected.X.toarray())


def test_bad_input_is_refused(counts, refused):
    with refused(counts, ValueError, "n_top_genes=61, and there are 60 genes"):
        scgap.pp.recipe_log1p(counts, n_top_genes=61)
    with refused(counts, ValueError, "n_top_genes=0"):
        scgap.pp.recipe_log1p(counts, n_top_genes=0)
    with refused(counts, KeyError, "'splitt' is not in adata.obs", "Did you mean 'split'"):
        scgap.pp.recipe_log1p(counts, n_top_genes=20, split_col="splitt")
    with refused(counts, ValueError, "No training cell has a count; adata.obs['perturbation'] holds 'drug_1'"):
        scgap.pp.recipe_log1p(
            counts[counts.obs["perturbation"] == "drug_1"], n_top_genes=20, split_col="perturbation", copy=True
        )
    with refused(counts, ValueError, "adata.layers['state'] does not hold counts", "'untreated'"):
        scgap.pp.recipe_log1p(counts, n_top_genes=20, layer="state")
    counts.layers["counts"] = counts.X
    with refused(counts, ValueError, "adata.layers['counts'] exists", "layer='counts'"):
        scgap.pp.recipe_log1p(counts, n_top_genes=20)
    view = counts[:500]
    with refused(view, ValueError, "adata is a view"):
        scgap.pp.recipe_log1p(view, n_top_genes=20, layer="counts")
    counts.X = counts.layers.pop("state")
    with refused(counts, ValueError, "adata.X does not hold counts", "layer= (there are 'untreated', 'counts')"):
        scgap.pp.recipe_log1p(counts, n_top_genes=20)


def test_cells_without_a_split_are_no_training_cells(counts):
    expected = counts.copy()
    expected.obs["split"] = expected.obs["split"].astype(object).where(np.arange(counts.n_obs) != 0, "none")
    counts.obs["split"] = counts.obs["split"].astype("string").where(np.arange(counts.n_obs) != 0)
    for adata in (counts, expected):
        scgap.pp.recipe_log1p(adata, n_top_genes=20, split_col="split")
    np.testing.assert_array_equal(counts.X.toarray(), expected.X.toarray())
