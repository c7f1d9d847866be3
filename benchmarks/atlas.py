"""A million cells on disk: from the file to a fitted map and its predictions, and the memory that takes.

    python benchmarks/atlas.py           # 1,000,000 cells x 2,000 genes, 1 GB in the folder for temporary files
    python benchmarks/atlas.py --quick   # 20,000 cells, nothing is stored

The file is made chunk by chunk, and each of the two jobs runs in a process of its own, whose peak memory is read.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

N_GENES = 2_000
N_TYPES, PERTURBATIONS = 8, ("control", "A", "B", "C", "D")
N_MOLECULES = 115  # of a cell, of which about a tenth fall on a gene that was hit before
CHUNK = 20_000  # cells made at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 cells, nothing is stored")
    parser.add_argument("--job", choices=["make", "use"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    n_cells = 20_000 if options.quick else 1_000_000
    if options.job:
        job = {"make": make_file, "use": use_file}[options.job]
        print(json.dumps(job(options.file, n_cells)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "atlas.h5ad"
        (made,), used = (run(job, file, quick=options.quick) for job in ("make", "use"))
        size = file.stat().st_size
    import report  # after the jobs: a process starts with the peak of the one that started it

    title = f"{n_cells:,} cells x {N_GENES:,} genes"
    dense = 4 * n_cells * N_GENES
    note = (
        f"A sparse file of {size / 1e6:,.0f} MB, in which {made['density']:.1%} of the entries are not zero; dense, "
        f"they take {dense / 1e6:,.0f} MB.\nIt was made in {made['seconds']:.0f} s. The peak is that of the process so "
        "far, libraries included."
    )
    tables = [report.markdown(title, used, note)]
    if options.quick:
        print("\n".join(tables))
    else:
        report.store(f"atlas, {report.platform()}", tables, report.versions("scgap", "anndata", "h5py", "jax"))


def run(job: str, file: Path, *, quick: bool) -> list[dict]:
    command = [sys.executable, __file__, "--job", job, "--file", str(file), *(["--quick"] if quick else [])]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def make_file(file: Path, n_cells: int) -> list[dict]:
    """Cells in random order, each of a type and under a perturbation that scales a tenth of the genes."""
    import anndata
    import h5py

    start = time.perf_counter()
    generator = np.random.default_rng(0)
    types = generator.gamma(1.0, size=(N_TYPES, N_GENES))
    effects = np.exp(
        generator.normal(size=(len(PERTURBATIONS), N_GENES)) * (generator.random((len(PERTURBATIONS), N_GENES)) < 0.1)
    )
    effects[0] = 1.0
    profiles = (types[:, None] * effects).reshape(-1, N_GENES)
    below = np.cumsum(profiles / profiles.sum(1, keepdims=True), axis=1)
    profile = generator.integers(len(profiles), size=n_cells)
    n_values = 0
    with h5py.File(file, "w") as stored:
        for first in range(0, n_cells, CHUNK):
            cells = make_cells(generator, below, profile[first : first + CHUNK])
            n_values += cells.nnz
            if first:
                anndata.io.sparse_dataset(stored["X"]).append(cells)
            else:
                anndata.io.write_elem(stored, "X", cells)
        names = np.array(PERTURBATIONS)[profile % len(PERTURBATIONS)]
        index = pd.RangeIndex(n_cells).astype(str)
        obs = pd.DataFrame({"perturbation": pd.Categorical(names), "n": np.arange(n_cells)}, index)
        var = pd.DataFrame(index=[f"gene_{i}" for i in range(N_GENES)])
        for name, table in (("obs", obs), ("var", var)):
            anndata.io.write_elem(stored, name, table)
        stored.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    return [{"seconds": time.perf_counter() - start, "density": n_values / n_cells / N_GENES}]


def make_cells(generator: np.random.Generator, below: np.ndarray, profile: np.ndarray):
    """Molecules drawn from the profiles (n_cells,) whose cumulative sums are given, as logarithms, in CSR."""
    from scipy import sparse

    genes = np.empty((len(profile), N_MOLECULES), np.int32)
    chances = generator.random(genes.shape)
    for i in np.unique(profile):
        genes[profile == i] = np.searchsorted(below[i], chances[profile == i]).clip(max=N_GENES - 1)
    rows = np.repeat(np.arange(len(profile), dtype=np.int32), N_MOLECULES)
    ones = np.ones(genes.size, np.float32)
    cells = sparse.coo_matrix((ones, (rows, genes.ravel())), shape=(len(profile), N_GENES)).tocsr()
    cells.data = np.log1p(cells.data * (1e3 / N_MOLECULES)).astype(np.float32)
    return cells


def use_file(file: Path, n_cells: int) -> list[dict]:
    """Peak memory after, and seconds of, all that is done with a file that is too large to be loaded."""
    import anndata

    import scgap

    for name in ("pp.streaming_pca", "tl.fit_transport", "tl.screen"):  # loads jax, which is no part of the work
        part, function = name.split(".")
        getattr(getattr(scgap, part), function)
    adata = anndata.read_h5ad(file, backed="r")
    steps: dict[str, Callable[[], object]] = {
        "`pp.streaming_pca`, 50 components": lambda: scgap.pp.streaming_pca(adata, progress=False),
        "`pp.split`": lambda: scgap.pp.split(adata),
        '`tl.fit_transport(use_rep="X_pca")`, 200 updates': lambda: scgap.tl.fit_transport(
            adata, use_rep="X_pca", split_col="split", n_iters=200, progress=False
        ),
        "`tl.screen` of 2,000 cells, 4 conditions": lambda: scgap.tl.screen(adata, n_cells=2_000, progress=False),
    }
    nothing = stage("imports, opening the file", lambda: None) | {"seconds": None}
    return [nothing, *(stage(name, step) for name, step in steps.items())]


def stage(name: str, step: Callable[[], object]) -> dict:
    start = time.perf_counter()
    step()
    wall = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1_024  # bytes there, kilobytes here
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return {"step": name, "seconds": wall, "peak memory so far, MB": peak}


if __name__ == "__main__":
    main()
