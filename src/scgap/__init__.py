"""Conditional optimal transport maps for perturbed single cells: AnnData and MuData in, predicted cells out."""

from importlib.metadata import version

import lazy_loader

# Nothing heavy is imported until a function is used; the names live in the .pyi files, for type checkers too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = version("scgap")
