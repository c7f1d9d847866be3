"""Every tutorial runs: `make docs`, for its environment, then `make test PYTEST_ARGS='-m docs'`."""

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {"combinations": "norman_k562_subset.h5ad"}  # which a notebook reads from the folder that SCGAP_DATA names
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))

pytestmark = pytest.mark.docs
nbclient = pytest.importorskip("nbclient", reason="needs scgap[docs]")
nbformat = pytest.importorskip("nbformat")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("run_tutorials", ROOT / "tools" / "run_tutorials.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorial_runs(tool, path):
    if path.stem in tool.NOT_EXECUTED:
        pytest.skip("is not run anywhere")
    if path.stem in FILES and not (Path(os.environ.get("SCGAP_DATA", "")) / FILES[path.stem]).is_file():
        pytest.skip(f"no {FILES[path.stem]} in the folder that SCGAP_DATA names")
    try:
        tool.executed(path)
    except nbclient.exceptions.CellExecutionError as error:
        if error.ename == "ConnectionError":
            pytest.skip("no network")
        raise


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_output_is_there_and_names_no_path(tool, path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert bool(outputs) == (path.stem not in tool.NOT_EXECUTED)
    assert not [output for output in outputs if output.output_type == "error"]
    assert tool.paths_in(notebook) == []


def test_a_path_in_the_output_is_found(tool):
    output = nbformat.v4.new_output("stream", text="https://a.org/home/x\n/home/me/x.py:3: Warning: y")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])])
    assert tool.paths_in(notebook) == ["/home/me/x.py:3: Warning: y"]


def test_every_tutorial_is_in_the_documentation():
    listed = (ROOT / "docs" / "tutorials.md").read_text()
    shown = (ROOT / "tutorials" / "README.md").read_text()
    for path in NOTEBOOKS:
        assert f"\ntutorials/{path.stem}\n" in listed
        assert f"({path.name})" in shown
