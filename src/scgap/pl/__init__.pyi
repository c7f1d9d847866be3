from ._conditions import conditions
from ._dose_response import dose_response
from ._history import history
from ._moments import moments
from ._scores import scores
from ._transport import transport

__all__ = ["conditions", "dose_response", "history", "moments", "scores", "transport"]
