from ._simulate_screen import simulate_screen, true_transport

__all__ = ["simulate_screen", "true_transport"]
