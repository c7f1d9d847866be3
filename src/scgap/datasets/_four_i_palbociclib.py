"""Protein imaging of a breast tumour under palbociclib."""

import os
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from mudata import MuData

from scgap.datasets._harmonise import CONTROL, get_column, harmonised, set_columns
from scgap.datasets._pertpy import dataset_path, no_download

FILE = "four_i_palbociclib.h5ad"
URL = (
    "https://raw.githubusercontent.com/purvislab/fractional_resistance/"
    "4f74bc42646cc525729cd5b0544eb26e36598c3f/data/tumor_preprocessed.h5ad"
)
SHA256 = "7512b18f3bbe685649a0fb2cbd31bd250df8c392bd4eb3408caf1bc9c0a7d834"


def four_i_palbociclib() -> MuData:
    """Load 4i (iterative immunofluorescence imaging) of breast tumour cells under palbociclib, a CDK4/6 inhibitor.

    From the Purvis lab's repository fractional_resistance (MIT licence), at a fixed commit. The file (1 MB) is
    downloaded once to ``scanpy.settings.datasetdir`` as ``four_i_palbociclib.h5ad``; one of this name in the folder
    that the environment variable ``SCGAP_DATA`` names is taken instead. Its SHA-256 is checked either way.

    Returns
    -------
    One modality, ``protein``, with z-scored intensities (9,011 cells, 14 features, ``RB``, ``pRB``, ``CDK2``, ...) and
    these columns beside the file's ``well``, ``prb_ratio``, ``RB_status`` (``cycling`` or ``arrested``) and ``phase``:

    obs["perturbation"] : categorical
        ``control`` or ``palbociclib``.
    obs["dose_value"], obs["dose_unit"] : float, categorical
        0 (3,748 cells), 10 (2,457) or 100 (2,806) nM, from ``well``.

    Raises
    ------
    ConnectionError
        The file is not there, and there is no network.
    ValueError
        The file has another checksum; if it was downloaded, it is removed.

    Examples
    --------
    >>> import scgap
    >>> mdata = scgap.datasets.four_i_palbociclib()  # doctest: +SKIP
    >>> scgap.tl.fit_transport(mdata, mod="protein", dose_col="dose_value", dose_unit="nM")  # doctest: +SKIP
    """
    path = _path()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", anndata.OldFormatWarning)  # an old version wrote the file
        adata = anndata.read_h5ad(path)
    dose = pd.to_numeric(get_column(adata.obs, "well", path.name).astype(str))  # strings in a categorical
    perturbation = pd.Series(np.where(dose > 0, "palbociclib", CONTROL), adata.obs_names)
    unit = pd.Series("nM", adata.obs_names)
    return MuData({"protein": set_columns(adata, harmonised(perturbation, dose=dose, unit=unit))})


def _path() -> Path:
    """The file that was downloaded earlier or is now."""
    import pooch

    own = os.environ.get("SCGAP_DATA")
    if own and (path := Path(own) / FILE).is_file():
        if pooch.file_hash(str(path)) != SHA256:
            raise ValueError(f"{str(path)!r} {_differs(pooch.file_hash(str(path)))} Replace it, or unset SCGAP_DATA.")
        return path
    path = dataset_path(FILE)
    if path.is_file() and pooch.file_hash(str(path)) == SHA256:
        return path
    try:
        pooch.retrieve(URL, known_hash=None, fname=f"{FILE}.download", path=path.parent)
    except OSError as error:
        raise no_download(path) from error
    part = path.with_name(f"{FILE}.download")
    if (found := pooch.file_hash(str(part))) != SHA256:
        part.unlink()
        raise ValueError(f"What was downloaded from {URL} {_differs(found)} It was removed: try again.")
    return part.replace(path)


def _differs(found: str) -> str:
    return f"has the SHA-256 {found}, and that of the data set is {SHA256}."
