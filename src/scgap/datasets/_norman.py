"""Genes turned on, one or two at a time."""

from anndata import AnnData

from scgap.datasets._harmonise import get_column, harmonised, set_columns
from scgap.datasets._pertpy import read_pertpy

FILE = "norman_2019.h5ad"


def norman() -> AnnData:
    """Load K562 cells in which one or two genes are turned on by CRISPRa (Norman et al., Science 2019).

    Through ``pertpy.data.norman_2019``, which downloads the file once to ``scanpy.settings.datasetdir`` as
    ``norman_2019.h5ad``.

    Returns
    -------
    The file's matrix in ``X``, with pertpy's columns and these, which replace what the file has under the same name
    (kept as ``<name>_original``):

    obs["perturbation"] : categorical
        ``control``, a gene, or a pair such as ``"KLF1+MAP2K6"``, from ``perturbation_name``; pass ``sep="+"``.
    obs["cell_line"] : categorical
        ``K562``, if the file has no such column.

    Raises
    ------
    ConnectionError
        The file is not there, and there is no network.
    KeyError
        A column is absent: the file is another data set's.

    Warns
    -----
    UserWarning
        Counts the cells without label, which are left out.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.norman()  # doctest: +SKIP
    >>> scgap.pp.split(adata, holdout="unseen_combination", sep="+")  # doctest: +SKIP
    """
    adata = read_pertpy("norman_2019", FILE)
    columns = harmonised(
        get_column(adata.obs, "perturbation_name", FILE),
        context={"cell_line": adata.obs.get("cell_line", "K562")},
    )
    return set_columns(adata, columns)
