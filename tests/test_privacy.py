"""Data stay where they are: nothing is sent, and nothing is written but where the user said."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import scgap

ROOT = Path(scgap.__file__).parent
NETWORK = {"http", "urllib", "requests", "httpx", "aiohttp", "socket", "ssl", "ftplib", "smtplib", "pooch", "pertpy"}
# Of other libraries, in the folders that they document: matplotlib keeps a list of fonts, numba what it compiled.
CACHES = {"mpl/fontlist", "numba/"}

CHAIN = """
import sys

events = []

def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "urllib.")):
        events.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int) and arguments[2] & 3:
        events.append(f"write {arguments[0]}")

import socket

class Refused(socket.socket):
    def __init__(self, *arguments, **options):
        raise AssertionError("a socket was opened")

socket.socket = Refused
sys.addaudithook(watch)

import matplotlib.pyplot as plt
import scgap

design = {"dose_col": "dose_value", "group_col": "cell_line"}
adata = scgap.datasets.simulate_screen(400, n_features=12, n_drugs=2, doses=[10.0, 1_000.0], n_groups=1)
scgap.pp.split(adata, **design)
scgap.pp.streaming_pca(adata, n_comps=3, progress=False)
scgap.pp.encode_table(adata, adata.uns["drug_descriptors"], key_added="drug")
scgap.pp.responders(adata, **design)
fit = {**design, "split_col": "split", "encoding": "drug", "n_iters": 5, "batch_size": 32, "hidden": (8,)}
scgap.tl.fit_transport(adata, **fit, checkpoint="run.safetensors", progress=False)
scgap.tl.predict(adata, {"perturbation": "drug_1", "dose_value": 10.0})
curve = scgap.tl.screen(adata, n_cells=10, progress=False)
table = scgap.tl.evaluate(adata, metrics=["energy_distance", "classifier_auc"])
scgap.tl.summarize_scores(table)
scgap.tl.join_predictions(adata, curve, **design)
scgap.tl.resolve(adata, "drug_1")
for axes in (
    scgap.pl.history(adata, show=False),
    scgap.pl.moments(adata, show=False),
    scgap.pl.scores(adata, show=False),
    scgap.pl.conditions(adata, show=False),
    scgap.pl.transport(adata, show=False),
    scgap.pl.dose_response(adata, curve, features="feature_0", show=False),
):
    plt.close("all")
scgap.write_transport(adata, "map.safetensors")
scgap.read_transport("map.safetensors")
import json
print(json.dumps(events))
"""
ASKED_FOR = {"cwd/map.safetensors", "cwd/run.safetensors"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the whole chain did, and the files that it left, in a process whose every folder is new."""
    root = tmp_path_factory.mktemp("private")
    places = {"HOME": "home", "TMPDIR": "tmp", "MPLCONFIGDIR": "mpl", "NUMBA_CACHE_DIR": "numba"}
    places |= {f"XDG_{name}_HOME": f"xdg_{name.lower()}" for name in ("CACHE", "CONFIG", "DATA", "STATE")}
    for folder in (*places.values(), "cwd"):
        (root / folder).mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "JAX_", "TMP"))}
    environment |= {name: str(root / folder) for name, folder in places.items()}
    # Byte code goes beside the installed sources, wherever these are.
    environment |= {"MPLBACKEND": "agg", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT.parent)}
    command = [sys.executable, "-W", "ignore", "-c", CHAIN]
    result = subprocess.run(command, cwd=root / "cwd", env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2_000:]
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return json.loads(result.stdout.splitlines()[-1]), left, root


def test_nothing_is_sent(run):
    events, _, _ = run
    # What libraries ask the machine: matplotlib for its fonts, where it keeps no list of them, `platform` for its kind.
    # The last is what older libraries look for shared ones with. Python 3.13 tells of it twice.
    asked = [f"('{name}'" for name in ("fc-list", "uname", "/sbin/ldconfig")]
    local = ("write ", *(f"subprocess.Popen {name}" for name in asked), f"os.posix_spawn {asked[-1]}")
    assert [event for event in events if not event.startswith(local)] == []


def test_nothing_is_written_but_what_was_asked_for(run):
    events, left, root = run
    assert left >= ASKED_FOR
    assert {path for path in left - ASKED_FOR if not path.startswith(tuple(CACHES))} == set()
    # The hook sees what Python opens, anywhere; folders of the process are looked at above, with what C and Rust write.
    written = {Path(event.removeprefix("write ")) for event in events if event.startswith("write ")}
    outside = {path for path in written if path.is_absolute() and not path.is_relative_to(root)}
    assert outside - {Path(os.devnull)} == set()


def part_of(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def test_loaders_alone_know_the_network():
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {part_of(path) for name in names if name.split(".")[0] in NETWORK}
    assert found == {"datasets"}
