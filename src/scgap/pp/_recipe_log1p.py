"""From counts to what a map is fitted on."""

from typing import Any

import numpy as np
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from scgap._adata import Data, OnDisk, Rows, check_writable, get_layers, get_matrix, get_modality, get_obs
from scgap._checks import whole_number
from scgap._messages import listed

COUNTS = "counts"


def recipe_log1p(
    data: Data,
    *,
    n_top_genes: int = 1_000,
    split_col: str | None = None,
    layer: str | None = None,
    mod: str | None = None,
    copy: bool = False,
) -> Data | None:
    """Normalise counts, take logarithms and keep the highly variable genes of training cells.

    As in Driessen et al. (2026), by scanpy: ``scanpy.pp.normalize_total``, ``scanpy.pp.log1p``,
    ``scanpy.pp.highly_variable_genes``. What is learned from cells, which are the genes and the median count that all
    cells are scaled to, is learned from training cells alone.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``.
    n_top_genes
        Genes to keep.
    split_col
        Column of ``obs`` whose ``train`` cells choose the genes, see `scgap.pp.split`. Default: all cells do.
    layer
        Layer that holds the counts; default ``X``.
    mod
        Modality of a MuData.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Genes that were not chosen are taken out, and the following fields set:

    X : float32 array or CSR matrix (n_cells, n_top_genes)
        ``log1p`` of the scaled counts.
    layers["counts"]
        The counts, as they were.
    var["highly_variable"], ["means"], ["dispersions"], ["dispersions_norm"], uns["log1p"]
        As scanpy sets them.

    Raises
    ------
    KeyError
        The layer or column is absent.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        The matrix does not hold counts, ``layers["counts"]`` exists and is not the ``layer`` given, there are fewer
        genes than ``n_top_genes`` or no training cells, or ``data`` is a view and ``copy`` is false.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1, counts=True)
    >>> scgap.pp.split(adata, dose_col="dose_value")
    >>> scgap.pp.recipe_log1p(adata, n_top_genes=20, split_col="split")
    >>> adata.shape
    (600, 20)
    """
    n_top_genes = whole_number("n_top_genes", n_top_genes, 1)
    adata = get_modality(data, mod)
    check_writable(adata, copy=copy)
    counts = get_matrix(adata, layer)
    if isinstance(counts, OnDisk):
        raise ValueError("The counts are in a file, and the recipe changes them in place. Pass adata.to_memory().")
    _check_counts(counts, layer, [name for name in get_layers(adata) if name != layer])
    if layer != COUNTS and COUNTS in adata.layers:
        raise ValueError(
            f"adata.layers[{COUNTS!r}] exists, and would be written over. Pass layer={COUNTS!r} to start from it, or "
            "delete it."
        )
    if n_top_genes > adata.n_vars:
        raise ValueError(f"n_top_genes={n_top_genes}, and there are {adata.n_vars} genes. Pass a number up to that.")
    labels = get_obs(data, mod, [split_col], hint=" scgap.pp.split makes such a column.")
    train = np.ones(adata.n_obs, bool) if split_col is None else (labels[split_col].astype(str) == "train").to_numpy()
    totals = np.asarray(counts[train].sum(axis=1)).ravel()
    if not (totals > 0).any():
        found = list(labels[split_col].unique()) if split_col else []
        raise ValueError(f"No training cell has a count; adata.obs[{split_col!r}] holds {listed(found)}.")

    result = data.copy() if copy else data
    adata = get_modality(result, mod)
    counts = counts.copy() if copy else counts
    adata.layers[COUNTS] = counts
    adata.X = counts.astype(np.float32)
    sc.pp.normalize_total(adata, target_sum=float(np.median(totals[totals > 0])))
    sc.pp.log1p(adata)
    genes = sc.pp.highly_variable_genes(adata[train], n_top_genes=n_top_genes, inplace=False)
    for name in genes:
        adata.var[name] = genes[name].to_numpy()
    # scanpy takes all genes as variable as the last one; the first of them are enough.
    first = np.argsort(-genes["dispersions_norm"].to_numpy(), kind="stable")[:n_top_genes]
    adata._inplace_subset_var(np.sort(first))
    if not isinstance(result, AnnData):
        result.update()
    return result if copy else None


def _check_counts(matrix: Rows, layer: str | None, others: list[str]) -> None:
    """Refuse what is not whole and from 0 on."""
    values: Any = matrix.data if sparse.issparse(matrix) else matrix
    if values.size and values.min() >= 0 and np.isfinite(values.max()) and (np.floor(values) == values).all():
        return
    place = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    raise ValueError(
        f"{place} does not hold counts, which are whole numbers from 0 on. Pass the layer that does as layer= "
        f"(there are {listed(others)}), or leave the recipe out if this is normalised already."
    )
