"""Draw the pictures of imaging.md: `python docs/make_pictures.py`, with the data named below in $SCGAP_DATA.

`four_i_palbociclib.h5ad` is what `scgap.datasets.four_i_palbociclib` loads, and would be downloaded.
`cycif_mcf10a_46feat.h5ad` is the CycIF table of MCF10A cells under ligands from the repository cycif_analysis_suite.
The pictures are kept in `_static`, so that the docs build needs neither.
"""

import os
import warnings
from pathlib import Path

import anndata
from matplotlib.figure import Figure
from mudata import MuData

import scgap

STATIC = Path(__file__).parent / "_static"
DATA = Path(os.environ.get("SCGAP_DATA", Path(__file__).parents[2] / "shared" / "data"))
FIT = {"mod": "protein", "split_col": "split", "standardise": True}


def four_i() -> Figure:
    mdata = scgap.datasets.four_i_palbociclib()
    scgap.pp.split(mdata, mod="protein", dose_col="dose_value")
    scgap.tl.fit_transport(mdata, dose_col="dose_value", dose_unit="nM", n_iters=3_000, batch_size=256, **FIT)
    scgap.tl.predict(mdata, {"perturbation": "palbociclib", "dose_value": "100 nM"}, mod="protein")
    return scgap.pl.moments(mdata, mod="protein", return_fig=True, show=False)


def cycif() -> Figure:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old version of anndata wrote the file
        adata = anndata.read_h5ad(DATA / "cycif_mcf10a_46feat.h5ad")
    adata.obs["perturbation"] = adata.obs["ligand"].astype(str).replace({"ctrl": "control"})
    mdata = MuData({"protein": adata})
    scgap.pp.split(mdata, mod="protein", fraction=0.3)
    scgap.tl.fit_transport(mdata, time_col="time", time_unit="h", n_iters=3_000, batch_size=256, **FIT)
    scgap.tl.predict(mdata, {"perturbation": "EGF", "time": "24 h"}, mod="protein")
    return scgap.pl.moments(mdata, mod="protein", return_fig=True, show=False)


if __name__ == "__main__":
    for draw in (four_i, cycif):
        draw().savefig(STATIC / f"imaging_{draw.__name__}.png", dpi=110)
