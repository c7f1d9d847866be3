"""The README does what it says: its example is a doctest, and its other code runs after it."""

import doctest
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """The figures that are shown, in a folder of its own for what is written."""
    figures = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: figures.append(plt.gcf()))
    yield figures
    plt.close("all")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_code_of_the_readme_runs(shown):
    (example,) = blocks("pycon")
    assert len(re.findall("^>>> ", example, flags=re.MULTILINE)) == 10
    test = doctest.DocTestParser().get_doctest(example, {}, "README.md", "README.md", 0)
    names = test.globs
    said = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=said.append, clear_globs=False)
    assert results == (0, 10), "".join(said)
    assert Path("screen.h5ad").exists()
    for code in blocks("python"):
        exec(code, names)
    assert set(names["curve"].obs["support"]) == {"interpolated dose"}
    assert {"expected_error"} <= set(names["curve"].obs)
    assert len(shown) == 3


def test_links_within_the_repository_lead_somewhere():
    for file in ("README.md", "CONTRIBUTING.md", "tutorials/README.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / file).read_text())
        assert [link for link in links if not (ROOT / file).parent.joinpath(link).exists()] == []


def test_the_readme_is_short():
    assert len(README.splitlines()) < 160
