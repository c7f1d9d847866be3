"""Every public function says what goes in, what comes out, and how it is called."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import scgap

DOCS = Path(__file__).parents[1] / "docs"
PARTS = (scgap, scgap.pp, scgap.tl, scgap.pl, scgap.datasets)
PUBLIC = {
    f"{part.__name__}.{name}": found
    for part in PARTS
    for name in part.__all__
    if not isinstance(found := getattr(part, name), ModuleType)
}


def sections(docstring):
    """Title -> text of the sections of a numpydoc docstring; the summary is called ""."""
    pieces = re.split(r"^(\w[\w ]*)\n-{3,}\n", docstring, flags=re.MULTILINE)
    return {"": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}


def documented(text):
    """Names of a section of parameters, ``a, b`` being two."""
    lines = re.findall(r"^(\S.*)$", text, flags=re.MULTILINE)
    return [name.strip(" *") for line in lines for name in line.split(",")]


def missing(function):
    """What the docstring of a function lacks."""
    found = sections(inspect.getdoc(function) or "")
    parameters = list(inspect.signature(function).parameters)
    lacks = [] if re.match(r"\S.*\.\n|\S.*\.$", found[""]) else ["a first line that is a sentence"]
    named = documented(found.get("Parameters", ""))
    if sorted(named) != sorted(parameters):  # those that go together may stand together
        lacks.append(f"Parameters {parameters}, not {named}")
    if not found.get("Returns", "").strip():
        lacks.append("Returns")
    if ">>> " not in found.get("Examples", ""):
        lacks.append("an example")
    return lacks


def test_all_functions_are_looked_at():
    assert {"scgap.read_transport", "scgap.tl.fit_transport", "scgap.pl.transport"} <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_function_is_documented(name):
    assert missing(PUBLIC[name]) == []


def test_the_documentation_has_every_function_and_every_plot():
    listed = re.findall(r"^   (scgap\.\S+)$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(PUBLIC)
    shown = re.findall(r"\{py:func\}`(scgap\.pl\.\w+)`", (DOCS / "gallery.md").read_text())
    assert set(shown) == {name for name in PUBLIC if name.startswith("scgap.pl.")}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_section_that_is_taken_away_is_missed(name, monkeypatch):
    function, docstring = PUBLIC[name], inspect.getdoc(PUBLIC[name])
    for title, text in sections(docstring).items():
        if title in ("", "Parameters", "Returns", "Examples"):
            monkeypatch.setattr(function, "__doc__", docstring.replace(text, "\n"))
            assert missing(function), title


def test_what_is_missing_is_found():
    def right(a, *, b=1):
        """Do something.

        Parameters
        ----------
        a, b
            Numbers.

        Returns
        -------
        A number.

        Examples
        --------
        >>> right(1)
        """

    def wrong(a, *, b=1):
        """
        Parameters
        ----------
        a
            A number.
        """

    assert missing(right) == []
    assert missing(wrong) == [
        "a first line that is a sentence",
        "Parameters ['a', 'b'], not ['a']",
        "Returns",
        "an example",
    ]
