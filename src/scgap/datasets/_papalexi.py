"""Genes of immune checkpoints knocked out."""

from mudata import MuData

from scgap.datasets._harmonise import get_column, harmonised, set_columns
from scgap.datasets._pertpy import read_pertpy

FILE = "papalexi_2021.h5mu"


def papalexi() -> MuData:
    """Load ECCITE-seq of THP-1 cells in which genes are knocked out (Papalexi et al., Nat. Genet. 2021).

    Through ``pertpy.data.papalexi_2021``, which downloads the file once to ``scanpy.settings.datasetdir`` as
    ``papalexi_2021.h5mu``.

    Returns
    -------
    The modalities ``rna``, ``adt`` (surface proteins), ``hto`` and ``gdo``, as in the file. The ``obs`` of each has
    its columns and these, which replace what it has under the same name (kept as ``<name>_original``):

    obs["perturbation"] : categorical
        ``control`` or the gene, from ``gene_target`` of ``rna``, where controls are ``NT``.
    obs["cell_line"] : categorical
        ``THP-1``.

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
    >>> mdata = scgap.datasets.papalexi()  # doctest: +SKIP
    >>> scgap.pp.split(mdata, mod="rna")  # doctest: +SKIP
    >>> scgap.pp.recipe_log1p(mdata, mod="rna", split_col="split")  # doctest: +SKIP
    >>> scgap.tl.fit_transport(mdata, mod="rna", split_col="split")  # doctest: +SKIP
    """
    mdata = read_pertpy("papalexi_2021", FILE)
    columns = harmonised(
        get_column(mdata["rna"].obs, "gene_target", FILE), controls=("NT",), context={"cell_line": "THP-1"}
    )
    return set_columns(mdata, columns.reindex(mdata.obs_names))
