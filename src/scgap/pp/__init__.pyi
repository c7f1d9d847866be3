from ._autoencoder import autoencoder
from ._encode_drugs import encode_drugs
from ._encode_effects import encode_effects
from ._encode_table import encode_table
from ._place_effect import place_effect
from ._recipe_log1p import recipe_log1p
from ._responders import responders
from ._split import split
from ._streaming_pca import streaming_pca

__all__ = [
    "autoencoder",
    "encode_drugs",
    "encode_effects",
    "encode_table",
    "place_effect",
    "recipe_log1p",
    "responders",
    "split",
    "streaming_pca",
]
