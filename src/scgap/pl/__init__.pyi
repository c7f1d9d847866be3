from ._history import history
from ._moments import moments

__all__ = ["history", "moments"]
