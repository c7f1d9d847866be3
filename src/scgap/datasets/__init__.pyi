from ._simulate_screen import simulate_screen
from ._true_transport import true_transport

__all__ = ["simulate_screen", "true_transport"]
