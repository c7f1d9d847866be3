"""Blood cells under interferon."""

from anndata import AnnData

from scgap.datasets._harmonise import get_column, harmonised, set_columns
from scgap.datasets._pertpy import read_pertpy

FILE = "kang_2018.h5ad"


def kang() -> AnnData:
    """Load blood cells of patients with lupus, with and without interferon beta (Kang et al., Nat. Biotechnol. 2018).

    Through ``pertpy.data.kang_2018``, which downloads the file once to ``scanpy.settings.datasetdir`` as
    ``kang_2018.h5ad``.

    Returns
    -------
    The file's matrix in ``X``, with pertpy's columns and these, which replace what the file has under the same name
    (kept as ``<name>_original``):

    obs["perturbation"] : categorical
        ``control`` or ``stim``, from ``label``, which has ``ctrl`` and ``stim``.
    obs["cell_type"] : categorical
        The cell type, for ``group_col``.

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
    >>> adata = scgap.datasets.kang()  # doctest: +SKIP
    >>> scgap.pp.split(adata, holdout={"cell_type": ["B cells"]}, group_col="cell_type")  # doctest: +SKIP
    """
    adata = read_pertpy("kang_2018", FILE)
    columns = harmonised(
        get_column(adata.obs, "label", FILE),
        controls=("ctrl",),
        context={"cell_type": get_column(adata.obs, "cell_type", FILE)},
    )
    return set_columns(adata, columns)
