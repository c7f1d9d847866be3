# Settings of Sphinx; `make docs` runs it with every warning an error.

import os
from importlib.metadata import version as version_of

project = "scgap"
author = "scgap developers"
copyright = "2026, scgap developers"
release = version = version_of("scgap")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "myst_nb",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

default_role = "code"
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
    (r"py:.*", r"(anndata|collections|matplotlib|mudata|numpy|os|pandas|pathlib)\..+"),
    (r"py:.*", r"AnnData|MuData|DataFrame|Axes|Figure"),
]

html_theme = "sphinx_book_theme"
html_title = "scgap"
html_theme_options = {"repository_url": "https://github.com/scgap/scgap", "use_repository_button": True}
