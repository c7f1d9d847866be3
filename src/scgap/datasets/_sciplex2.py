"""One cell line under four drugs at seven doses."""

from anndata import AnnData

from scgap.datasets._harmonise import get_column, harmonised, set_columns
from scgap.datasets._pertpy import read_pertpy
from scgap.datasets._smiles import Smiles, attach_smiles

FILE = "srivatsan_2020_sciplex2.h5ad"


def sciplex2(*, smiles: Smiles | None = None) -> AnnData:
    """Load sci-Plex 2, A549 cells under four drugs at seven doses (Srivatsan et al., Science 2020).

    Through ``pertpy.data.srivatsan_2020_sciplex2``, which downloads the file once to ``scanpy.settings.datasetdir`` as
    ``srivatsan_2020_sciplex2.h5ad``. It has 24,262 cells.

    Parameters
    ----------
    smiles
        SMILES of the drugs, to be written to ``obs["smiles"]``: a mapping or Series from names to SMILES, or a CSV file
        without header whose first two columns are these, such as chemCPA's table of the sci-Plex drugs. Names match but
        for case, spaces, punctuation and what is in brackets, or by their first word.

    Returns
    -------
    Raw counts in ``X``, with pertpy's columns and these, which replace what the file has under the same name
    (kept as ``<name>_original``):

    obs["perturbation"] : categorical
        ``control`` or the drug.
    obs["dose_value"], obs["dose_unit"] : float, categorical
        Doses in the file's unit; 0 for controls.
    obs["cell_line"] : categorical
        ``A549``.
    obs["smiles"] : categorical
        With ``smiles``: for `scgap.pp.encode_drugs`; missing for controls.

    Raises
    ------
    ConnectionError
        The file is not there, and there is no network.
    KeyError
        A column is absent: the file is another data set's.

    Warns
    -----
    UserWarning
        Counts the cells without label, which are left out; names drugs without a SMILES.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.sciplex2()  # doctest: +SKIP
    >>> scgap.pp.split(adata, holdout="unseen_dose_highest", dose_col="dose_value")  # doctest: +SKIP
    """
    adata = read_pertpy("srivatsan_2020_sciplex2", FILE)
    columns = harmonised(
        get_column(adata.obs, "perturbation", FILE),
        dose=get_column(adata.obs, "dose_value", FILE),
        unit=get_column(adata.obs, "dose_unit", FILE),
        context={"cell_line": get_column(adata.obs, "cell_line", FILE)},
    )
    adata = set_columns(adata, columns)
    if smiles is not None:
        attach_smiles(adata, smiles)
    return adata
