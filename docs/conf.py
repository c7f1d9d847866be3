# Settings of Sphinx; `make docs` runs it with every warning an error.

import os
import re
import shutil
from importlib.metadata import version as version_of
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

project = "scgap"
author = "scgap developers"
copyright = "2026, scgap developers"
release = version = version_of("scgap")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "myst_nb",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Sphinx reads no file outside its folder, and MyST follows a link out of it.
TUTORIALS = Path(__file__).parent / "tutorials"
shutil.rmtree(TUTORIALS, ignore_errors=True)
shutil.copytree(Path(__file__).parents[1] / "tutorials", TUTORIALS, ignore=shutil.ignore_patterns("README.md", ".*"))

nitpicky = True  # a name that leads nowhere is an error
default_role = "py:obj"  # a name in single backticks is a link
smartquotes_action = "D"  # dashes alone: code such as uns[key]["params"] must keep its quotes
html_math_renderer = "mathml"  # see below
napoleon_google_docstring = False
napoleon_custom_sections = ["Returns"]  # as it is written: by itself napoleon takes the first line for a type
autodoc_typehints = "description"  # docstrings carry no types: they are taken from the signature
autodoc_typehints_description_target = "documented"

myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst.header"]  # of the tables in benchmarks/README.md, whose headings start at the third level
nb_execution_raise_on_error = True  # a page whose code no longer runs fails the build
nb_execution_timeout = 300
nb_execution_excludepatterns = ["tutorials/*"]  # shown with the output they have; tests/test_tutorials.py runs them
nb_merge_streams = True

# Links into other projects need the network: only the published build has them, elsewhere their names are plain text.
intersphinx_mapping = (
    {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    }
    if "GITHUB_ACTIONS" in os.environ
    else {}
)
nitpick_ignore_regex = [
    (r"py:.*", r"(anndata|collections|matplotlib|mudata|numpy|os|ott|pandas|pathlib|scanpy)\..+"),
    (r"py:.*", r"AnnData|MuData|DataFrame|Axes|Figure"),
    (r"py:class", r"scgap\._(map\.Pooling|query\.Query)"),  # short names of types, which the signature spells out
]

html_theme = "sphinx_book_theme"
html_title = "scgap"
html_theme_options = {
    "repository_url": "https://github.com/scgap/scgap",
    "use_repository_button": True,
    "navbar_persistent": [],  # the search box is in the side bar
    "secondary_sidebar_items": [],  # signatures and code need the room more than short pages a table of contents
}
html_context = {"default_mode": "auto"}  # light or dark as the reader's system; without it the theme logs an error
html_static_path = ["_static"]
html_css_files = ["scgap.css"]


def _quote_fields(app, what, name, obj, options, lines):
    """Set the names of fields in Returns sections as code: `obs["split"] : categorical`."""
    if "Returns" in lines:
        start = lines.index("Returns") + 2
        stop = next((i for i, line in enumerate(lines) if i > start and set(line) == {"-"}), len(lines))
        lines[start:stop] = [re.sub(r"^(\S.*?) : ", r"``\1`` : ", line) for line in lines[start:stop]]


def _inline_math(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def _block_math(translator, node):
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise SkipNode


def setup(app):
    """Formulas as MathML, which browsers draw themselves: MathJax would be fetched from the network."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("autodoc-process-docstring", _quote_fields, priority=400)  # before napoleon, which has 500
