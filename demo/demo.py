"""The main job on one file: split, fit, judge on held-out cells, predict, plot.

Without options it runs on a simulated drug screen; with --data on your own .h5ad file.
"""

import argparse
import sys
import time
from pathlib import Path

import anndata
import matplotlib
import pandas as pd

import scgap

PICTURE = Path(__file__).parent / "moments.png"
METRICS = ["energy_distance", "mean_error", "std_error", "skewness_error"]
BASELINES = ["identity", "mean_shift", "gaussian"]


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .h5ad file; default: a simulated drug screen")
    parser.add_argument("--target-col", default="perturbation", help="its obs column (default: %(default)s)")
    parser.add_argument("--reference-key", default="control", help="its label of control cells (default: %(default)s)")
    parser.add_argument("--dose-col", help="obs column of doses")
    parser.add_argument("--group-col", help="obs column of the cell line, donor or cell type")
    parser.add_argument("--sep", help="separator of combinations in one label, such as +")
    parser.add_argument("--layer", help="layer to fit (default: X)")
    parser.add_argument("--use-rep", help="obsm key to fit in, such as X_pca")
    parser.add_argument("--n-iters", type=int, default=2_000, help="updates (default: %(default)s)")
    return parser.parse_args()


def read_cells(path: Path) -> anndata.AnnData:
    try:
        return anndata.read_h5ad(path)
    except (OSError, KeyError, TypeError) as error:
        # h5py names neither the file nor what it should have been; other HDF5 files end in a TypeError.
        found = "is not an .h5ad file" if path.is_file() else "does not exist"
        raise ValueError(f"{path} {found}. Pass a file written by adata.write_h5ad as DATA or --data.") from error


def main() -> None:
    options = read_options()
    if options.data is None:
        adata = scgap.datasets.simulate_screen(20_000, n_drugs=4, n_groups=2)
        options.dose_col, options.group_col = "dose_value", "cell_line"
    else:
        adata = read_cells(options.data)
    print(f"{adata.n_obs} cells x {adata.n_vars} features")
    columns = {name: getattr(options, name) for name in ("target_col", "reference_key", "dose_col", "group_col", "sep")}

    start = time.perf_counter()
    scgap.pp.split(adata, **columns)
    scgap.tl.fit_transport(
        adata, **columns, split_col="split", layer=options.layer, use_rep=options.use_rep, n_iters=options.n_iters
    )
    print(f"fitted in {time.perf_counter() - start:.0f} s")

    scores = scgap.tl.evaluate(adata, metrics=METRICS, baselines=BASELINES)
    table = scores.groupby(["method", "metric"], sort=False)["value"].mean().unstack()[METRICS]
    n_conditions = scores["condition"].nunique()
    print(f"\nHeld-out cells, mean over {n_conditions} conditions (lower is better; ceiling: half against half)")
    print(table.rename({"scgap": "scgap (this map)"}).to_string(float_format="{:.3f}".format), "\n")

    condition = strongest_condition(adata, scores)
    scgap.tl.predict(adata, condition)
    figure = scgap.pl.moments(adata, return_fig=True)
    figure.savefig(PICTURE, dpi=150)
    print(f"Predicted against observed moments of {condition.name}: {PICTURE}")


def strongest_condition(adata: anndata.AnnData, scores: pd.DataFrame) -> pd.Series:
    """The row of the condition that control cells are furthest from."""
    distance = scores.query("method == 'identity' and metric == 'energy_distance'").set_index("condition")["value"]
    conditions = adata.uns["scgap"]["conditions"].set_index("condition_label")
    return conditions.loc[distance.idxmax()]


if __name__ == "__main__":
    matplotlib.use("agg")
    try:
        main()
    except (OSError, KeyError, ValueError) as error:
        # What a user can mend is told by the message; str() of a KeyError would be its repr.
        sys.exit(str(error.args[0] if isinstance(error, KeyError) else error))
