"""Encoding: from conditions to padded arrays of numbers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scgap._arrays import ConditionArrays
from scgap._conditions import Condition, Design
from scgap._messages import listed, not_found

MIN_MEMBERS = 4  # sets are padded to multiples of this, so that their size compiles nothing anew
HALF_DOSE = 0.1  # of the lowest dose that is trained on
SAME = 1e-6  # logarithms of doses or times that are nearer to each other are the same
N_LEARNED = 32  # length of a perturbation's learned vector where there is no encoding


class Encoding(NamedTuple):
    """How conditions become numbers."""

    perturbations: tuple[str, ...]
    """Names, one for each row of the network's table of vectors."""
    features: tuple[str, ...]
    """Names of the descriptors; empty where the vectors are learned."""
    values: np.ndarray
    """(n_perturbations, n_features) float32 descriptors as given."""
    groups: dict[str, list[str]]
    """Group column -> its values in trained conditions; any other value is encoded as zeros."""
    dose_scale: tuple[float, float]
    """Mean and standard deviation of the logarithms of the training doses; of a single dose it is infinite."""
    half_dose: float
    """Dose at which a perturbation is half present: far below those trained on, where its effect has to fade."""
    time_scale: tuple[float, float]
    """The same of log(1 + time)."""


def make_encoding(design: Design, train: Sequence[Condition], table: pd.DataFrame | None) -> Encoding:
    """Choose the numbers for conditions, from those that are trained on alone.

    ``table`` comes from `join_encodings`. A group that is not trained on has no place in the context, where its weights
    would stay as they were drawn.
    """
    names = sorted({name for condition in train for name, _ in condition.members})
    if table is not None:
        _check_rows(table, names)
    doses = [dose for condition in train for _, dose in condition.members if dose is not None]
    times = [condition.time for condition in train if condition.time is not None]
    return Encoding(
        perturbations=tuple(names if table is None else table.index),
        features=() if table is None else tuple(table.columns),
        values=np.zeros((len(names), 0), np.float32) if table is None else table.to_numpy(),
        groups={column: sorted({c.group[i] for c in train}) for i, column in enumerate(design.group_cols)},
        dose_scale=mean_and_spread(np.log(doses)),
        half_dose=HALF_DOSE * min(doses, default=0.0),
        time_scale=mean_and_spread(np.log1p(times)),
    )


def initial_vectors(encoding: Encoding, seed: int) -> np.ndarray:
    """The network's table (n_perturbations, n): standardised descriptors, or random vectors to be learned."""
    values = encoding.values.astype(float)
    if not encoding.features:
        generator = np.random.default_rng([seed, 1])  # other numbers than the network's first layers hold
        return generator.standard_normal((len(encoding.perturbations), N_LEARNED), dtype=np.float32)
    varies = np.ptp(values, axis=0) > 0
    return np.where(varies, (values - values.mean(0)) / np.where(varies, values.std(0), 1.0), 0.0)


def descriptors_of(encoding: Encoding) -> dict[str, np.ndarray]:
    """Descriptors (n_features,) of each perturbation as given; none, where the map learned its own vectors."""
    return dict(zip(encoding.perturbations, encoding.values, strict=True)) if encoding.features else {}


def encode_conditions(encoding: Encoding, conditions: Sequence[Condition]) -> ConditionArrays:
    """Conditions as padded arrays (n_conditions, ...).

    Raises
    ------
    KeyError
        A perturbation has no vector.
    """
    row = {name: i for i, name in enumerate(encoding.perturbations)}
    unknown = sorted({name for condition in conditions for name, _ in condition.members if name not in row})
    if unknown:
        raise KeyError(no_vector(encoding, unknown))
    n_members = max([len(condition.members) for condition in conditions], default=0)
    n_members = MIN_MEMBERS * max(1, -(-n_members // MIN_MEMBERS))
    members, doses, presence = (np.zeros((len(conditions), n_members), np.float32) for _ in range(3))
    for i, condition in enumerate(conditions):
        for j, (name, dose) in enumerate(condition.members):
            members[i, j], presence[i, j] = row[name], 1.0
            if dose is not None:
                doses[i, j] = _standardise(np.log(dose), encoding.dose_scale)
                presence[i, j] = dose / (dose + encoding.half_dose)
    context = np.array([_context(encoding, condition) for condition in conditions], np.float32)
    return ConditionArrays(members.astype(np.int32), doses, presence, context)


def no_vector(encoding: Encoding, unknown: Sequence[str]) -> str:
    """What to say of perturbations without a vector, and what to supply."""
    what = "rows of the encoding" if encoding.features else "perturbations that the map was fitted on"
    return (
        f"No vector for {listed(unknown)}: "
        + not_found(unknown[0], f"the {what}", encoding.perturbations)
        + " An unseen perturbation needs descriptors: fit with encoding=, a table that holds a row for it too."
    )


def encoding_to_dict(encoding: Encoding) -> dict[str, Any]:
    """Plain arrays and JSON strings, for ``uns``."""
    return {
        "perturbations": np.array(encoding.perturbations, dtype=object),
        "features": np.array(encoding.features, dtype=object),
        "values": encoding.values,
        "groups": json.dumps(encoding.groups),
        "dose_scale": np.array(encoding.dose_scale),
        "half_dose": encoding.half_dose,
        "time_scale": np.array(encoding.time_scale),
    }


def encoding_from_dict(stored: Mapping[str, Any]) -> Encoding:
    """The inverse of `encoding_to_dict`."""
    return Encoding(
        tuple(str(name) for name in stored["perturbations"]),
        tuple(str(name) for name in stored["features"]),
        np.asarray(stored["values"], np.float32),
        json.loads(str(stored["groups"])),
        tuple(np.asarray(stored["dose_scale"], float).tolist()),
        float(stored["half_dose"]),
        tuple(np.asarray(stored["time_scale"], float).tolist()),
    )


def _context(encoding: Encoding, condition: Condition) -> list[float]:
    """Groups one-hot, and the time."""
    one_hot = [
        float(value == category)
        for value, categories in zip(condition.group, encoding.groups.values(), strict=True)
        for category in categories
    ]
    return [*one_hot, 0.0 if condition.time is None else _standardise(np.log1p(condition.time), encoding.time_scale)]


def _check_rows(table: pd.DataFrame, names: list[str]) -> None:
    if missing := [name for name in names if name not in table.index]:
        raise ValueError(
            f"encoding has no row for {listed(missing)}; its index holds {listed(table.index)}. "
            "Add their descriptors, or drop their cells."
        )


def mean_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; infinite where all values are the same, so that no other one means anything."""
    if not len(values):
        return 0.0, 1.0
    return float(values.mean()), float(values.std()) if np.ptp(values) > SAME else np.inf


def _standardise(value: float, scale: tuple[float, float]) -> float:
    return (value - scale[0]) / scale[1]
