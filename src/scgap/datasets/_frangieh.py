"""Genes of melanoma cells knocked out, RNA and surface proteins measured."""

import warnings

from mudata import MuData

from scgap.datasets._harmonise import get_column, harmonised, set_columns
from scgap.datasets._pertpy import read_pertpy

RNA, PROTEIN = "frangieh_2021_rna.h5ad", "frangieh_2021_protein.h5ad"


def frangieh() -> MuData:
    """Load Perturb-CITE-seq of melanoma cells in which genes are knocked out (Frangieh et al., Nat. Genet. 2021).

    Through ``pertpy.data.frangieh_2021_rna`` and ``pertpy.data.frangieh_2021_protein``, which download the files once
    to ``scanpy.settings.datasetdir`` as ``frangieh_2021_rna.h5ad`` and ``frangieh_2021_protein.h5ad``, joined by the
    names of the cells: 218,331 with 24 proteins.

    Returns
    -------
    The modalities ``rna`` and ``protein``, raw counts of the same cells in the same order. The ``obs`` of each has
    its columns and these, which replace what it has under the same name (kept as ``<name>_original``):

    obs["perturbation"] : categorical
        ``control`` or the gene.

    The context is in the file's ``obs["perturbation_2"]``: cells alone, with interferon gamma, or with T cells.

    Raises
    ------
    ConnectionError
        The file is not there, and there is no network.
    KeyError
        A column is absent: the file is another data set's.
    ValueError
        The files have no cell in common.

    Warns
    -----
    UserWarning
        Counts the cells without label and those that one file lacks, which are left out.

    Examples
    --------
    >>> import scgap
    >>> mdata = scgap.datasets.frangieh()  # doctest: +SKIP
    >>> scgap.pp.split(mdata, mod="protein", group_col="perturbation_2")  # doctest: +SKIP
    """
    rna, protein = read_pertpy("frangieh_2021_rna", RNA), read_pertpy("frangieh_2021_protein", PROTEIN)
    shared = rna.obs_names.intersection(protein.obs_names)
    if not len(shared):
        raise ValueError(
            f"{RNA!r} and {PROTEIN!r} have no cell in common. Their names must be those of the same cells: download "
            "both again."
        )
    if n_alone := len(rna.obs_names.union(protein.obs_names)) - len(shared):
        warnings.warn(f"{n_alone} cells are left out: only one of the two files has them.", stacklevel=2)
    mdata = MuData({"rna": rna[shared].copy(), "protein": protein[shared].copy()})
    return set_columns(mdata, harmonised(get_column(mdata["rna"].obs, "perturbation", RNA)))
