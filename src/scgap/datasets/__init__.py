"""Data sets: public ones with the same columns in each, and simulated ones whose true maps are known."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
