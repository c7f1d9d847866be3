"""Rivals, each in a virtual environment of its own, driven line by line from the benchmark's process."""

import json
import os
import shutil
import subprocess
from pathlib import Path

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


class Worker:
    """A process of a rival: `worker.call("train", n_steps=10)` runs that function of its script."""

    def __init__(self, name: str) -> None:
        script = HERE / "workers" / f"{name}_worker.py"
        log = (HERE / f"{name}.log").open("w")
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
