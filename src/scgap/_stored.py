"""What a stored map has to hold, looked at before anything is done with it: files and ``uns`` are data of strangers.

Each function raises a ValueError that says what is wrong; `scgap._model.model_from_uns` makes a sentence of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scgap._checks import check_layers, need
from scgap._conditions import Design, parse_condition, records
from scgap._encoding import Encoding
from scgap._representation import Representation
from scgap._splits import SPLITS

type Shapes = dict[str, Any]
"""Nested names -> shapes of arrays."""

POOLINGS = ("sum", "mean", "attention")
CURVES = ("iteration", "fitting_loss", "monge_gap", "valid")


def network_shapes(
    hidden: Sequence[int], pooling: str, *, n_embedding: int, n_vector: int, n_context: int, n_points: int
) -> Shapes:
    """Shapes of the network's weights as they are stored, those of `scgap._map.ConditionalMap`.

    Written out, so that a file is judged without building what it describes. Another network is another format: give
    FORMAT_VERSION of `scgap._model` another number, and keep a reader of this one.
    """

    def dense(n_in: int, n_out: int, *, bias: bool = True) -> Shapes:
        return {"kernel": (n_in, n_out)} | ({"bias": (n_out,)} if bias else {})

    encoder = {
        "perturbation": dense(2 * n_vector + 1, n_embedding, bias=False),
        "context": dense(n_context, n_embedding, bias=False),
        "joint": dense(2 * n_embedding, n_embedding),
    } | ({"attention": dense(n_embedding, 1)} if pooling == "attention" else {})
    widths = [n_points + n_embedding, *hidden]
    layers = {f"hidden_{i}": dense(widths[i], width) for i, width in enumerate(hidden)}
    return {"encoder": encoder, **layers, "displacement": dense(widths[-1], n_points)}


def check_params(params: Any, design: Design) -> None:
    """Settings that are read again after the fit."""
    need(params.keys() >= {"split_col", "hidden", "pooling", "units", "mod", "resolved"}, "a setting is missing")
    resolved = params["resolved"]
    need(isinstance(resolved, dict) and type(resolved.get("gap_epsilon")) is float, "its gap_epsilon is no number")
    detail = resolved.get("detail_of_sums", 1.0)
    need(type(detail) is float and 0 <= detail <= 1, "its detail of sums is wrong")
    columns = [*design.columns, design.reference_key]
    need(all(isinstance(name, str) for name in columns) and bool(design.target_cols), "its design names no columns")
    need(all(isinstance(columns, tuple) for columns in design[:1] + design[2:4]), "its design names no columns")
    others = (design.sep, design.dose_unit, design.time_unit, design.time_col, params["split_col"])
    need(all(isinstance(name, str | None) for name in others), "a setting is no text")
    need(design.sep != "" and len(design.dose_cols) in (0, 1, len(design.target_cols)), "its design contradicts itself")
    need(params["pooling"] in POOLINGS, "its pooling is unknown")
    hidden = params["hidden"]
    need(isinstance(hidden, list) and bool(hidden) and all(type(n) is int and n > 0 for n in hidden), "hidden is wrong")
    units = params["units"]
    need(
        isinstance(units, dict) and all(type(u) is float and 0 < u < np.inf for u in units.values()), "units are wrong"
    )


def check_tables(design: Design, conditions: Any, embedding: np.ndarray, history: Any) -> None:
    """The tables of conditions and of the training's course."""
    need(isinstance(conditions, pd.DataFrame) and isinstance(history, pd.DataFrame), "a table is none")
    needed = {"condition_label", "split", "n_cells", *design.columns}
    need(needed <= set(conditions.columns), "the table of conditions lacks a column")
    need(bool(conditions["split"].isin(SPLITS).all()), "the table of conditions has an unknown split")
    need(bool(conditions["split"].eq("train").any()), "the table of conditions names none that was trained on")
    for column in ("condition_label", *design.target_cols, *design.group_cols):
        need(all(isinstance(name, str) for name in conditions[column]), "a condition has no label")
    need(
        conditions["n_cells"].dtype.kind in "iu" and bool((conditions["n_cells"] >= 0).all()), "n_cells are no numbers"
    )
    parsed = [parse_condition(design, row) for row in records(conditions)]
    need(len(set(parsed)) == len(parsed), "the table of conditions holds one twice")
    need(not any(one.is_control for one in parsed), "the table of conditions holds one without a perturbation")
    need(embedding.ndim == 2 and len(embedding) == len(conditions), "there is not one embedding a condition")
    need(set(CURVES) <= set(history.columns), "the history lacks a column")
    need(all(history[name].dtype.kind in "iuf" for name in CURVES), "the history holds no numbers")
    need(not len(history) or bool(history["valid"].notna().any()), "the history holds no numbers")


def check_encoding(design: Design, encoding: Encoding) -> None:
    """Vectors of perturbations, groups and scales."""
    names = encoding.perturbations
    need(len(set(names)) == len(names) > 0, "perturbations are not told apart")
    need(encoding.values.shape == (len(names), len(encoding.features)), "descriptors do not fit to their names")
    need(bool(np.isfinite(encoding.values).all()), "descriptors are not finite")
    groups = encoding.groups
    need(isinstance(groups, dict) and tuple(groups) == design.group_cols, "its groups are not those of the design")
    need(
        all(isinstance(some, list) and all(isinstance(one, str) for one in some) for some in groups.values()),
        "its groups have no names",
    )
    for mean, spread in (encoding.dose_scale, encoding.time_scale):
        need(bool(np.isfinite(mean)) and spread > 0, "a scale of doses or times is wrong")
    need(0 <= encoding.half_dose < np.inf, "a scale of doses or times is wrong")


def check_representation(representation: Representation, var_names: np.ndarray) -> int | None:
    """How cells become points; return the length of a point, where this is known."""
    kind, components, n_vars = representation.kind, representation.components, len(var_names)
    need(len(set(var_names)) == n_vars, "names of features are there twice")
    need(kind in ("features", "pca", "autoencoder", "obsm"), f"its representation {kind!r} is unknown")
    need(kind == "features" or kind == "pca" or representation.use_rep is not None, "its representation has no key")
    n = {"features": n_vars, "obsm": None}.get(kind)
    if kind == "pca":
        need(components.ndim == 2 and len(components) == n_vars, "components do not fit to the features")
        n = components.shape[1]
    if kind == "autoencoder":
        n = check_layers(representation.network["encoder"], n_vars)
        need(check_layers(representation.network["decoder"], n) == n_vars, "the decoder does not give features")
    for values in (representation.offset, representation.scale):
        need(values.shape == (0,) or (kind != "obsm" and values.shape == (n,)), "offset or scale do not fit")
    finite = (components, representation.offset, representation.scale)
    need(all(bool(np.isfinite(values).all()) for values in finite), "components, offset or scale are not finite")
    need(bool((representation.scale > 0).all()), "a scale is not positive")
    need(np.shape(representation.nonnegative) in ((), (n_vars,)), "nonnegative does not fit to the features")
    return n


def check_validation(validation: Any) -> None:
    """The table of left-out conditions."""
    columns = {"condition_label", "support", "identity", "error"}
    need(isinstance(validation, pd.DataFrame) and columns <= set(validation.columns), "the validation lacks a column")
    need(validation["error"].dtype.kind == "f", "the validation holds no numbers")


def check_control_means(means: np.ndarray, design: Design, conditions: pd.DataFrame, n_points: int) -> None:
    """Where the controls of each trained group are."""
    need(bool(design.group_cols), "there are means of controls and no groups")
    trained = conditions.loc[conditions["split"].astype(str) == "train", list(design.group_cols)]
    _compare(means, (len(trained.drop_duplicates()), n_points), "the means of controls")


def check_weights(weights: Mapping[str, Any], shapes: Shapes, vectors: tuple[int, ...], n_points: int) -> None:
    """Weights of the network and beside it."""
    whole = {"network": shapes, "encoding": vectors, "centre": (n_points,), "scale": ()}
    _compare(weights, whole, "weights")
    need(float(weights["scale"]) > 0, "the scale of its weights is not positive")


def _compare(found: Any, wanted: Any, where: str) -> None:
    if isinstance(wanted, dict):
        need(isinstance(found, Mapping) and set(found) == set(wanted), f"{where} are not those of its network")
        for name, part in wanted.items():
            _compare(found[name], part, f"{where}/{name}")
        return
    need(np.shape(found) == wanted, f"{where} has the shape {np.shape(found)} and not {wanted}")
    need(bool(np.isfinite(found).all()), f"{where} holds NaN or infinite values")
