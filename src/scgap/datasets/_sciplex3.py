"""Three cell lines under 188 drugs."""

from anndata import AnnData

from scgap.datasets._harmonise import get_column, harmonised, set_columns
from scgap.datasets._pertpy import read_pertpy
from scgap.datasets._smiles import Smiles, attach_smiles

FILE = "srivatsan_2020_sciplex3.h5ad"


def sciplex3(*, smiles: Smiles | None = None) -> AnnData:
    """Load sci-Plex 3, three cancer cell lines under 188 drugs at four doses (Srivatsan et al., Science 2020).

    Through ``pertpy.data.srivatsan_2020_sciplex3``, which downloads the file once (several GB) to
    ``scanpy.settings.datasetdir`` as ``srivatsan_2020_sciplex3.h5ad``. It has 799,317 cells, some without label, which
    are left out.

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
        ``control``, or the drug as its vendor writes it, ``"Dacinostat (LAQ824)"``.
    obs["dose_value"], obs["dose_unit"] : float, categorical
        10, 100, 1,000 or 10,000 nM; 0 for controls.
    obs["cell_line"] : categorical
        ``A549``, ``K562``, ``MCF7``.
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

    Notes
    -----
    Most cells were measured after 24 hours, some of A549 after 72: ``obs["time"]`` says which. ``+`` occurs in names of
    drugs, so pass no ``sep``.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.sciplex3(smiles="sciplex_smiles.csv")  # doctest: +SKIP
    >>> adata = adata[adata.obs["time"].astype(str).astype(float) == 24].copy()  # doctest: +SKIP
    >>> scgap.pp.split(adata, dose_col="dose_value", group_col="cell_line")  # doctest: +SKIP
    >>> scgap.pp.recipe_log1p(adata, split_col="split")  # doctest: +SKIP
    >>> scgap.pp.encode_drugs(adata, smiles="smiles")  # doctest: +SKIP
    """
    adata = read_pertpy("srivatsan_2020_sciplex3", FILE)
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
