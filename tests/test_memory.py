"""How much memory calls take beside what they are given and return, and that many calls take no more than one."""

import subprocess
import sys

import pytest

CONSTANT = 400  # MB: programs that XLA compiles, chunks, tables
BUDGET = {"fit": 4, "predict": 3, "screen": 3, "evaluate": 4}  # times X in float32, of 76 MB, what it returns included
DRIFT = 0.05  # of the memory in use after the first fits

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SET_UP = """
import gc, sys
import numpy as np
import scgap

DESIGN = {"dose_col": "dose_value", "group_col": "cell_line"}
FIT = DESIGN | {"split_col": "split", "hidden": (16,), "batch_size": 32, "n_iters": 10, "progress": False}
CONDITION = {"perturbation": "drug_1", "dose_value": 100.0, "cell_line": "line_1"}

def megabytes(name):
    (line,) = (line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) / 1024

def screen(n_cells, n_features):
    adata = scgap.datasets.simulate_screen(n_cells, n_drugs=2, doses=[100.0], n_groups=2, n_features=n_features)
    adata.layers.clear()
    scgap.pp.split(adata, **DESIGN)
    return adata

CALLS = {
    "fit": lambda adata: scgap.tl.fit_transport(adata, **FIT),
    "predict": lambda adata: scgap.tl.predict(adata, CONDITION),
    "screen": lambda adata: scgap.tl.screen(adata, [CONDITION], progress=False),
    "evaluate": lambda adata: scgap.tl.evaluate(adata, metrics=["mean_error"], baselines=["mean_shift"]),
}
"""

PEAKS = """
small, adata = screen(1_200, 20), screen(20_000, 1_000)
for name, call in CALLS.items():
    call(small)  # imports what it needs
    gc.collect()
    before = megabytes("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    call(adata)
    print(name, megabytes("VmHWM") - before, adata.n_obs * adata.n_vars * 4 / 2**20)
"""

SHAPES = """
from scgap import _train
_train.MOST_PROGRAMS = 4  # for each takes seconds to compile
adata = screen(600, 10)
in_use = []
for i in range(12):
    scgap.tl.fit_transport(adata, **FIT | {"n_iters": 2, "hidden": (8 + i,)})
    gc.collect()
    in_use.append(megabytes("VmRSS"))
    assert _train._advance._cache_size() <= 4, i
print(in_use[3], max(in_use[4:]))
"""

MANY = """
adata = screen(600, 10)
in_use = []
for i in range(120):
    scgap.tl.fit_transport(adata, **FIT, seed=i, n_maps=1 + i % 2, condition_folds=2 if i % 10 == 0 else 0)
    gc.collect()
    in_use.append(megabytes("VmRSS"))
print(in_use[19], max(in_use[20:]))
"""


def run(script):
    """What a process of its own prints."""
    command = [sys.executable, "-W", "ignore", "-c", SET_UP + script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@linux
@pytest.mark.slow
def test_memory_is_bounded_by_the_data():
    for line in run(PEAKS).splitlines():
        name, peak, size = line.split()
        assert float(peak) < CONSTANT + BUDGET[name] * float(size), line


@linux
@pytest.mark.slow
def test_a_hundred_fits_take_no_more_memory_than_twenty():
    early, most = map(float, run(MANY).split())
    assert most < early * (1 + DRIFT), (early, most)


@linux
@pytest.mark.slow
def test_fits_of_many_shapes_take_no_more_memory_than_the_programs_that_are_kept():
    early, most = map(float, run(SHAPES).split())
    assert most < early * (1 + DRIFT), (early, most)
