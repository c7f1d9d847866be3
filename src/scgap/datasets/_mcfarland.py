"""Many cell lines under drugs."""

from anndata import AnnData

from scgap.datasets._harmonise import get_column, harmonised, set_columns
from scgap.datasets._pertpy import read_pertpy

FILE = "mcfarland_2020.h5ad"


def mcfarland() -> AnnData:
    """Load MIX-Seq, pools of 24 to 99 cancer cell lines under drugs (McFarland et al., Nat. Commun. 2020).

    Through ``pertpy.data.mcfarland_2020``, which downloads the file once to ``scanpy.settings.datasetdir`` as
    ``mcfarland_2020.h5ad``.

    Returns
    -------
    Raw counts in ``X``, with pertpy's columns and these, which replace what the file has under the same name
    (kept as ``<name>_original``):

    obs["perturbation"] : categorical
        ``control``, a drug, or a CRISPR guide.
    obs["dose_value"], obs["dose_unit"] : float, categorical
        Doses in the file's unit (µM); 0 for controls, NaN for guides.
    obs["cell_line"] : categorical
        The cell line, for ``group_col``.

    Raises
    ------
    ConnectionError
        The file is not there, and there is no network.
    KeyError
        A column is absent: the file is another data set's.

    Warns
    -----
    UserWarning
        Counts the cells without label, which are left out, and names perturbations without a dose.

    Notes
    -----
    ``obs["time"]`` has the hours of treatment, ``obs["perturbation_type"]`` tells drugs from guides.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.mcfarland()  # doctest: +SKIP
    >>> adata = adata[adata.obs["dose_value"].notna()].copy()  # doctest: +SKIP
    >>> scgap.pp.split(adata, holdout="unseen_group", dose_col="dose_value", group_col="cell_line")  # doctest: +SKIP
    """
    adata = read_pertpy("mcfarland_2020", FILE)
    columns = harmonised(
        get_column(adata.obs, "perturbation", FILE),
        dose=get_column(adata.obs, "dose_value", FILE),
        unit=get_column(adata.obs, "dose_unit", FILE),
        context={"cell_line": get_column(adata.obs, "cell_line", FILE)},
    )
    return set_columns(adata, columns)
