# Executes tutorials and writes them back with their output: `make tutorials`, or with names of notebooks those alone.
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
NOT_EXECUTED = {"sciplex3"}  # a download of several GB, and a GPU
TIMEOUT = 600  # seconds a cell
PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|opt|Users)/.*")
# Without ipywidgets tqdm warns of progress bars, which the tutorials do not draw.
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"


def executed(path):
    """The notebook as it comes out of a fresh kernel, in a folder of its own; raises where a cell does."""
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=TIMEOUT, resources=resources, record_timing=False).execute()
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def paths_in(notebook):
    """Paths of this machine in the output, which nobody else has."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [text for output in outputs for text in (output.get("text", ""), *output.get("data", {}).values())]
    return [found for text in texts for found in PATH.findall(str(text))]


def main(names):
    for path in sorted(FOLDER.glob("*.ipynb")):
        if path.stem in (set(names) or {path.stem} - NOT_EXECUTED):
            notebook = executed(path)
            if found := paths_in(notebook):
                sys.exit(f"{path.name}: paths in the output, {found}. Do away with what prints them, a warning mostly.")
            nbformat.write(notebook, path)
            print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
