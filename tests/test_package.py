"""What the package says of itself agrees wherever it says it."""

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version():
    citation = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)
    assert citation == [PROJECT["version"]]
    assert metadata("scgap")["Version"] == PROJECT["version"]


def test_an_index_can_show_all_it_shows():
    needed = {"description", "readme", "license", "authors", "keywords", "classifiers", "requires-python", "urls"}
    assert needed <= set(PROJECT)
    assert {"Documentation", "Source", "Issues", "Changelog"} <= set(PROJECT["urls"])
    assert not any("<" in bound or "==" in bound for bound in PROJECT["dependencies"])  # no upper bounds
