"""Pairs of drugs."""

import pandas as pd
from anndata import AnnData

from scgap.datasets._harmonise import CONTROL, get_column, harmonised, set_columns
from scgap.datasets._pertpy import read_pertpy

FILE = "combosciplex.h5ad"
VEHICLE = (CONTROL, "DMSO")


def combosciplex() -> AnnData:
    """Load the combinations of sci-Plex, A549 cells under single drugs and pairs (Srivatsan et al., Science 2020).

    Through ``pertpy.data.combosciplex``, which downloads the file once to ``scanpy.settings.datasetdir`` as
    ``combosciplex.h5ad``.

    Returns
    -------
    The file's matrix in ``X`` (its counts are in ``layers["counts"]``), with pertpy's columns and these, which replace
    what the file has under the same name (kept as ``<name>_original``):

    obs["perturbation"] : categorical
        ``control``, a drug, or a pair such as ``"Panobinostat+Alvespimycin"``, from ``Drug1`` and ``Drug2``; pass
        ``sep="+"``.
    obs["cell_line"] : categorical
        ``A549``, if the file has no such column.

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

    See Also
    --------
    scgap.pp.encode_drugs : takes a mapping from ``Panobinostat``, ... to SMILES, those given in pairs alone too.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.combosciplex()  # doctest: +SKIP
    >>> scgap.pp.split(adata, holdout="unseen_combination", sep="+")  # doctest: +SKIP
    """
    adata = read_pertpy("combosciplex", FILE)
    drugs = [get_column(adata.obs, name, FILE).astype(object) for name in ("Drug1", "Drug2")]
    columns = harmonised(_joined(*drugs), context={"cell_line": adata.obs.get("cell_line", "A549")})
    return set_columns(adata, columns)


def _joined(first: pd.Series, second: pd.Series) -> pd.Series:
    """One label of the drugs of both columns, missing where one of them is."""
    pairs = {
        pair: "+".join(name for name in pair if name not in VEHICLE) or CONTROL
        for pair in set(zip(first, second, strict=True))
        if not any(pd.isna(name) for name in pair)
    }
    return pd.Series([pairs.get(pair) for pair in zip(first, second, strict=True)], first.index, dtype=object)
