"""Rivals, each in a virtual environment of its own, driven line by line from the benchmark's process."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgap._conditions import make_design, read_conditions

HERE = Path(__file__).parent
ENVIRONMENTS = Path(os.environ.get("SCGAP_RIVALS", HERE / "environments"))
# Package to install, and the interpreters it can live with, the first one found being taken.
RIVALS = {
    "cmonge": (["cmonge==0.1.3"], ["3.11", "3.10"]),
    "cellflow": (["cellflow-tools==0.0.9", "requests"], ["3.12", "3.11"]),
}


def environment(name: str) -> Path:
    """The interpreter of a rival's environment, which is made if it is not there."""
    packages, versions = RIVALS[name]
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"making an environment for {name} ...", flush=True)
        subprocess.run([interpreter(versions), "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "installed").touch()
    return python


def interpreter(versions: list[str]) -> str:
    """The first interpreter of one of these versions that runs: a shim may exist and fail."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in versions:
        candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
        for candidate in filter(None, candidates):
            if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
                return str(candidate)
    raise SystemExit(f"No Python {' or '.join(versions)} was found. Install one, or leave this rival out.")


def write(folder: Path, adata: AnnData, columns: Mapping[str, Any], encoding: pd.DataFrame | None = None) -> None:
    """Cells and conditions for a worker: `train.npz`, `source.npz` (controls that test) and `design.json`.

    All cells of ``adata`` but those whose ``obs["split"]`` is test train. Asked for are the conditions with test cells.
    Drugs are the rows of ``encoding``, standardised, else one-hot vectors; so are groups. A group that was not trained
    has a vector of zeros, and where all that are asked for are such, none has any: nothing can be learned of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = {"target_col": "perturbation", "reference_key": "control"} | dict(columns)
    conditions, of_cell, _ = read_conditions(make_design(**named), adata.obs)
    tests = (adata.obs["split"] == "test").to_numpy()
    is_control = np.array([condition.is_control for condition in conditions])
    cells = np.asarray(adata.X, np.float32)
    for name, rows in (("train", ~tests), ("source", tests & is_control[of_cell])):
        np.savez(folder / f"{name}.npz", cells=cells[rows], condition=of_cell[rows])
    trained, queries = ([i for i in np.unique(of_cell[rows]) if not is_control[i]] for rows in (~tests, tests))
    groups = sorted({conditions[i].group for i in trained})
    no_context = len(groups) < 2 or not any(conditions[i].group in groups for i in queries)
    drugs = sorted({name for condition in conditions for name, _ in condition.members})
    unit = np.eye(len(groups))
    of_group = dict(zip(groups, unit, strict=True))
    every_group = {"/".join(c.group): list(of_group.get(c.group, np.zeros(len(groups)))) for c in conditions}
    table = (
        pd.DataFrame(np.eye(len(drugs)), drugs) if encoding is None else (encoding - encoding.mean()) / encoding.std()
    )
    design = {
        "conditions": [{"members": c.members, "group": "/".join(c.group), "time": c.time} for c in conditions],
        "trained": [int(i) for i in trained],
        "queries": [int(i) for i in queries],
        "vectors": {name: list(table.loc[name]) for name in drugs},
        "groups": {} if no_context else every_group,
        "has_doses": bool(named.get("dose_col")),
        "has_times": bool(named.get("time_col")),
    }
    (folder / "design.json").write_text(json.dumps(design))


class Worker:
    """A process of a rival: `worker.call("train", n_steps=10)` runs that function of its script."""

    def __init__(self, name: str) -> None:
        script = HERE / "workers" / f"{name}_worker.py"
        log = (HERE / f"{name}.log").open("a")
        self.process = subprocess.Popen(
            [environment(name), script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )

    def call(self, function: str, **arguments: object) -> dict:
        self.process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("reply "):
                return json.loads(line.removeprefix("reply "))
        raise RuntimeError(f"{self.process.args[1]} ended; see its log beside this script")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
