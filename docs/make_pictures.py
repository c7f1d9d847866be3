"""Draw the pictures that are kept in `_static`: `python docs/make_pictures.py`, or with names of pictures those alone.

`readme` and `method` need nothing. `imaging` reads two files of $SCGAP_DATA: `four_i_palbociclib.h5ad`, which
`scgap.datasets.four_i_palbociclib` loads and would download, and `cycif_mcf10a_46feat.h5ad`, the CycIF table of MCF10A
cells under ligands from the repository cycif_analysis_suite. So the docs build needs neither.
"""

import os
import sys
import warnings
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mudata import MuData
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import scgap
from scgap.pl._style import BASELINE, MODEL, OBSERVED, ink, shade

STATIC = Path(__file__).parent / "_static"
DATA = Path(os.environ.get("SCGAP_DATA", Path(__file__).parents[2] / "shared" / "data"))
FIT = {"mod": "protein", "split_col": "split", "standardise": True}
DARK = {f"{part}.facecolor": "#121212" for part in ("figure", "axes", "savefig")}  # as the pages of the dark theme


def readme() -> None:
    """Cells under a dose that was held out of a simulated screen: where they go, and means over the dose."""
    adata = scgap.datasets.simulate_screen(16_000, n_drugs=8, n_groups=1, n_features=30)
    scgap.pp.split(adata, holdout={"dose_value": [1_000.0]}, dose_col="dose_value", fraction=0.3)
    fit = {"n_iters": 2_000, "condition_folds": 0}
    scgap.tl.fit_transport(adata, dose_col="dose_value", dose_unit="nM", split_col="split", **fit)
    scores = scgap.tl.evaluate(adata, metrics=["energy_distance", "std_error"])
    unseen = scores[scores["support"] == "interpolated dose"]
    print(unseen.groupby(["metric", "method"])["value"].mean().unstack().round(3).to_string())

    drug, features = strongest(adata, 1_000.0)
    scgap.tl.predict(adata, {"perturbation": drug, "dose_value": 1_000.0})
    doses = [{"perturbation": drug, "dose_value": dose} for dose in np.geomspace(10, 10_000, 13)]
    curve = scgap.tl.screen(adata, doses, n_cells=300, progress=False)
    for name, style in (("readme", {}), ("readme_dark", ["dark_background", DARK])):
        with plt.style.context(style), plt.rc_context({"font.size": 11}):
            figure = plt.figure(figsize=(11.5, 3.4), layout="constrained")
            axes = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
            scgap.pl.transport(adata, ax=axes[0])
            axes[0].set_title(f"{drug} at 1,000 nM, which was held out", fontsize="medium")
            scgap.pl.dose_response(adata, curve, features=features, ax=axes[1:])
            for axis in axes[1:]:
                axis.axvspan(700, 1_400, color=ink(axis), alpha=0.08, lw=0, label="held out")
            axes[-1].legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
            save(figure, name)


def strongest(adata: anndata.AnnData, dose: float) -> tuple[str, list[str]]:
    """The drug that moves the mean cell furthest at this dose, and the two features that it moves most."""
    means = {}
    for drug in adata.obs["perturbation"].unique():
        chosen = (adata.obs["perturbation"] == drug) & (adata.obs["dose_value"] == (0 if drug == "control" else dose))
        means[drug] = adata.X[chosen.to_numpy()].mean(axis=0)
    change = {drug: mean - means["control"] for drug, mean in means.items()}
    drug = max(change, key=lambda name: float(np.linalg.norm(change[name])))
    return drug, adata.var_names[np.argsort(-np.abs(change[drug]))[:2]].tolist()


def method() -> None:
    """Why a map that fits need not be the right one, and what the Monge gap sees."""
    rng = np.random.default_rng(0)
    spread = np.array([[0.5, 0.35], [0.35, 0.5]])
    source = rng.multivariate_normal([0, 0], spread, 30)
    observed = rng.multivariate_normal([4, 1], spread, 30)
    shift = np.array([4, 1])
    straight, turned = source + shift, shift - source
    for name, style in (("method_light", {}), ("method_dark", ["dark_background", DARK])):
        with plt.style.context(style):
            figure, axes = plt.subplots(1, 3, figsize=(10.5, 2.6), layout="constrained", sharex=True, sharey=True)
            draw_points(axes[0], {"source": source, "observed": observed})
            axes[0].set_title("what is measured:\nno cell twice", fontsize="medium")
            for axis, mapped, title in (
                (axes[1], turned, "a map that fits"),
                (axes[2], straight, "the map of least effort"),
            ):
                draw_points(axis, {"source": source, "predicted": mapped})
                look = {
                    "angles": "xy",
                    "scale_units": "xy",
                    "scale": 1,
                    "width": 0.004,
                    "color": ink(axis),
                    "alpha": 0.6,
                }
                axis.quiver(*source.T, *(mapped - source).T, **look)
                axis.set_title(f"{title}:\nMonge gap {gap(source, mapped):z.2f}", fontsize="medium")
            save(figure, name)
    print(f"Monge gaps: {gap(source, turned):.2f} and {gap(source, straight):z.2f}")


def draw_points(axis: Axes, points: dict[str, np.ndarray]) -> None:
    colours = {"source": BASELINE, "observed": OBSERVED, "predicted": MODEL}
    for name, some in points.items():
        axis.scatter(*some.T, color=shade(axis, colours[name]), s=16, lw=0, label=name, zorder=3)
    axis.legend(fontsize="small", frameon=False, loc="upper left")
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(False)


def gap(source: np.ndarray, mapped: np.ndarray) -> float:
    """What the map costs above the cheapest way of pairing the same cells, both as mean distances."""
    cost = cdist(source, mapped)
    return float(np.trace(cost) / len(cost) - cost[linear_sum_assignment(cost)].mean())


def imaging() -> None:
    mdata = scgap.datasets.four_i_palbociclib()
    scgap.pp.split(mdata, mod="protein", dose_col="dose_value")
    scgap.tl.fit_transport(mdata, dose_col="dose_value", dose_unit="nM", n_iters=3_000, **FIT)
    scgap.tl.predict(mdata, {"perturbation": "palbociclib", "dose_value": "100 nM"}, mod="protein")
    save(scgap.pl.moments(mdata, mod="protein", return_fig=True, show=False), "imaging_four_i")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old version of anndata wrote the file
        adata = anndata.read_h5ad(DATA / "cycif_mcf10a_46feat.h5ad")
    adata.obs["perturbation"] = adata.obs["ligand"].astype(str).replace({"ctrl": "control"})
    mdata = MuData({"protein": adata})
    scgap.pp.split(mdata, mod="protein", fraction=0.3)
    scgap.tl.fit_transport(mdata, time_col="time", time_unit="h", n_iters=3_000, **FIT)
    scgap.tl.predict(mdata, {"perturbation": "EGF", "time": "24 h"}, mod="protein")
    save(scgap.pl.moments(mdata, mod="protein", return_fig=True, show=False), "imaging_cycif")


def save(figure: Figure, name: str) -> None:
    figure.savefig(STATIC / f"{name}.png", dpi=110)
    print(STATIC / f"{name}.png")


if __name__ == "__main__":
    for draw in (readme, method, imaging):
        if draw.__name__ in (sys.argv[1:] or [draw.__name__]):
            draw()
