from ._evaluate import evaluate
from ._fit_transport import fit_transport
from ._predict import predict

__all__ = ["evaluate", "fit_transport", "predict"]
