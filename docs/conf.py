# Settings of Sphinx; `make docs` runs it with every warning an error.

import os
import re
from importlib.metadata import version as version_of

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.ext.napoleon import NumpyDocstring

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

default_role = "py:obj"  # a name in single backticks is a link
smartquotes_action = "D"  # dashes alone: code such as uns[key]["params"] must keep its quotes
html_math_renderer = "mathml"  # see below
napoleon_google_docstring = False
autodoc_typehints = "description"  # docstrings carry no types: they are taken from the signature
autodoc_typehints_description_target = "documented"

myst_enable_extensions = ["dollarmath"]
nb_execution_raise_on_error = True  # a tutorial that no longer runs fails the build

# Links into other projects need the network: only the published build has them, elsewhere their names are plain text.
intersphinx_mapping = (
    {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
    }
    if "GITHUB_ACTIONS" in os.environ
    else {}
)
nitpick_ignore_regex = [
    (r"py:.*", r"(anndata|collections|matplotlib|mudata|numpy|os|ott|pandas|pathlib)\..+"),
    (r"py:.*", r"AnnData|MuData|DataFrame|Axes|Figure"),
]

html_theme = "sphinx_book_theme"
html_title = "scgap"
html_theme_options = {
    "repository_url": "https://github.com/scgap/scgap",
    "use_repository_button": True,
    "navbar_persistent": [],  # the search box is in the side bar
    "secondary_sidebar_items": [],  # signatures and code need the room more than short pages a table of contents
}
html_static_path = ["_static"]
html_css_files = ["scgap.css"]


def _returns(docstring: NumpyDocstring, section: str) -> list[str]:
    """A Returns section as it is written: the type stands in the signature, and fields are a list of definitions."""
    lines = docstring._dedent(docstring._consume_to_next_section())
    return [*docstring._format_block(":returns: ", [re.sub(r"^(\S.*?) : ", r"``\1`` : ", line) for line in lines]), ""]


# By itself napoleon reads the first line as a type, and every colon as the end of a name.
NumpyDocstring._parse_returns_section = _returns


def _inline_math(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def _block_math(translator, node):
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise SkipNode


def setup(app):
    """Formulas as MathML, which browsers draw themselves: MathJax would be fetched from the network."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
