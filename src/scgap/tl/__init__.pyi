from ._evaluate import evaluate
from ._evaluate_predictions import evaluate_predictions
from ._fit_transport import fit_transport
from ._join_predictions import join_predictions
from ._predict import predict
from ._resolve import resolve
from ._screen import screen
from ._summarize_scores import summarize_scores

__all__ = [
    "evaluate",
    "evaluate_predictions",
    "fit_transport",
    "join_predictions",
    "predict",
    "resolve",
    "screen",
    "summarize_scores",
]
