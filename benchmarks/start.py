"""What is waited for: imports, the first step, the paper's whole fit, and predicting a million cells."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import anndata
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from report import interleaved, markdown, seconds

import scgap

IMPORTS = "import time; start = time.perf_counter(); import {0}; print(time.perf_counter() - start)"
FIRST_STEP = """
import time, numpy as np, anndata, scgap
adata = scgap.datasets.simulate_screen(10_000, n_features=50)
fit = scgap.tl.fit_transport  # imports jax, flax and ott
start = time.perf_counter()
fit(adata, dose_col="dose_value", group_col="cell_line", n_iters=1, progress=False)
print(time.perf_counter() - start)
"""


def tables(*, quick: bool, rivals: bool) -> list[str]:
    del rivals
    return [
        markdown("Before anything is trained, seconds", waits(rounds=1 if quick else 5)),
        markdown("A whole fit of the paper's sciplex configuration", [fit(n_iters=200 if quick else 10_000)], FIT_NOTE),
        markdown("Predicting", [in_process("predict", 50_000 if quick else 1_000_000)], PREDICT_NOTE),
    ]


def in_process(name: str, *arguments: int) -> dict:
    """What a function of this file returns in a process that keeps its memory.

    Else most of the time would go into the system's taking gigabytes back and handing them over anew, page by page.
    """
    code = f"import json, start; print(json.dumps(start.{name}{arguments}))"
    keeping = {**os.environ, "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(10**12)}
    here = Path(__file__).parent
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here, env=keeping
    )
    return json.loads(output.stdout.splitlines()[-1])


def waits(rounds: int) -> list[dict]:
    """Medians of fresh processes, taken in turns."""
    codes = {
        "import scanpy": IMPORTS.format("scanpy"),
        "import scgap": IMPORTS.format("scgap"),
        "what a fit imports: scgap.tl, jax, flax, ott": IMPORTS.format("scgap; scgap.tl.fit_transport"),
        "`fit_transport(n_iters=1)`: reading, all compilation, one update, one report": FIRST_STEP,
    }
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            times[name].append(float(output.stdout.split()[-1]))
    return [{"what": name, "seconds": statistics.median(values)} for name, values in times.items()]


def fit(n_iters: int) -> dict:
    """36,668 perturbed and 17,565 control cells, 9 drugs in 4 doses, 50 features."""
    adata = scgap.datasets.simulate_screen(54_233, n_drugs=9, n_groups=1, n_features=50, control_fraction=0.324)
    scgap.pp.split(adata, dose_col="dose_value")
    start = time.perf_counter()
    scgap.tl.fit_transport(
        adata,
        dose_col="dose_value",
        split_col="split",
        hidden=(64, 64, 64, 64),
        n_iters=n_iters,
        progress=False,
    )
    history = adata.uns["scgap"]["history"]
    ran = int(history["iteration"].iloc[-1])
    passed = time.perf_counter() - start
    return {"cells": adata.n_obs, "conditions": 36, "updates run": ran, "of": n_iters, "seconds": passed}


def predict(n_cells: int, n_genes: int = 2_000, n_components: int = 50) -> dict:
    """All cells moved from 50 components and decoded to genes, against the bare matrix products of the same sizes."""
    rng = np.random.default_rng(0)
    genes = scipy.sparse.random(n_cells, n_genes, density=0.02, format="csr", dtype=np.float32, rng=rng)
    adata = anndata.AnnData(genes)
    adata.obs["perturbation"] = np.where(rng.random(n_cells) < 0.5, "control", "drug")
    components = np.linalg.qr(rng.normal(size=(n_genes, n_components)))[0].astype(np.float32)
    adata.varm["PCs"], adata.obsm["X_pca"] = components, genes @ components
    few = adata[:20_000].copy()
    scgap.tl.fit_transport(few, use_rep="X_pca", n_iters=20, hidden=(128, 128, 128), progress=False)
    adata.uns["scgap"] = few.uns["scgap"]
    everyone = np.ones(n_cells, bool)
    network = few.uns["scgap"]["weights"]["network"]

    def own() -> float:
        passed = seconds(lambda: scgap.tl.predict(adata, "drug", source=everyone))
        del adata.layers["scgap"]
        return passed

    # The first round compiles, and has the memory handed over by the system.
    clocks = {"predict, s": own, "bare products, s": lambda: bare_products(adata.obsm["X_pca"], components, network)}
    interleaved(clocks, 1)
    measured = interleaved(clocks, 3)
    size = {"cells": n_cells, "components": n_components, "genes": n_genes}
    rate = measured["bare products, s"] / measured["predict, s"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {**size, **measured, "rate of the products": rate, "peak memory, GB": peak}


def bare_products(points: np.ndarray, components: np.ndarray, network: dict) -> float:
    """Seconds of the map's products on the device and the decoder's on the host, into a new array of genes."""
    kernels = [network[f"hidden_{i}"]["kernel"] for i in range(3)] + [network["displacement"]["kernel"]]

    @jax.jit
    def through(h: jax.Array) -> jax.Array:
        for kernel in kernels:
            h = h @ kernel
        return h

    def run() -> np.ndarray:
        result = np.empty((len(points), len(components)), np.float32)
        for start in range(0, len(points), 65_536):
            rows = slice(start, start + 65_536)
            np.matmul(np.asarray(through(jnp.asarray(points[rows]))), components.T, out=result[rows])
        return result

    jax.block_until_ready(through(jnp.asarray(points[:65_536])))
    return seconds(run)


FIT_NOTE = (
    "Training stops by itself when the validation score has not improved for long; the reference runs 10,000 steps."
)
PREDICT_NOTE = """\
`tl.predict` of all cells, from a sparse matrix to a dense layer: reading and checking it, projecting, moving,
decoding, and adding what the components do not see. The bare products are those of the map and the decoder alone.
Medians of three rounds after a first one, in a process that keeps its memory; where the layer has to be handed over
by the system, as in a first call, that is added to both."""
