from ._combosciplex import combosciplex
from ._four_i import four_i
from ._four_i_palbociclib import four_i_palbociclib
from ._frangieh import frangieh
from ._kang import kang
from ._mcfarland import mcfarland
from ._norman import norman
from ._papalexi import papalexi
from ._sciplex2 import sciplex2
from ._sciplex3 import sciplex3
from ._simulate_imaging import simulate_imaging
from ._simulate_screen import simulate_screen
from ._true_transport import true_transport

__all__ = [
    "combosciplex",
    "four_i",
    "four_i_palbociclib",
    "frangieh",
    "kang",
    "mcfarland",
    "norman",
    "papalexi",
    "sciplex2",
    "sciplex3",
    "simulate_imaging",
    "simulate_screen",
    "true_transport",
]
