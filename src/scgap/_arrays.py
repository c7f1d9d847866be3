"""Conditions and padding as arrays, for the core and for those who fill them: without JAX, which plots do not load."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import jax

type Array = np.ndarray | jax.Array


class ConditionArrays(NamedTuple):
    """Conditions as sets of perturbations in a context; leading axis n_conditions, or none for a single condition."""

    members: Array
    """(..., n_members) int32, rows of the encoding table."""
    doses: Array
    """(..., n_members) float32, standardised log doses; 0 where there are no doses."""
    presence: Array
    """(..., n_members) float32: 0 for padding, 1 for a member without a dose, between them with one."""
    context: Array
    """(..., n_context) float32, one-hot groups and standardised log time."""


def padded_size(n: int) -> int:
    """The next size with at most three significant bits: few shapes, few compilations, at most 25 % of padding."""
    step = 1 << max(int(n).bit_length() - 3, 0)
    return -(-n // step) * step


def pad_rows(array: Array) -> np.ndarray:
    """Zero rows appended up to the padded size."""
    return np.pad(array, [(0, padded_size(len(array)) - len(array))] + [(0, 0)] * (array.ndim - 1))
