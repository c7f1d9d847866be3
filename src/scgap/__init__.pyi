from . import datasets, pl, pp, tl
from ._model import read_transport, write_transport

__all__ = ["datasets", "pl", "pp", "read_transport", "tl", "write_transport"]

__version__: str
