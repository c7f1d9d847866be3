"""A fitted map, and its two stored forms: ``uns`` of an AnnData and one safetensors file."""

import json
from collections.abc import Mapping, MutableMapping
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from scgap._adata import Data, Modality, check_mods, get_modality, is_map
from scgap._checks import check_folder, check_path, need, text
from scgap._conditions import Design, design_from_dict
from scgap._encoding import Encoding, encoding_from_dict, encoding_to_dict
from scgap._files import read_arrays, write_arrays
from scgap._messages import not_found, reason
from scgap._representation import Representation, representation_from_dict, representation_to_dict
from scgap._stored import (
    check_control_means,
    check_encoding,
    check_params,
    check_representation,
    check_tables,
    check_validation,
    check_weights,
    network_shapes,
)

if TYPE_CHECKING:
    from scgap._map import ConditionalMap, Weights


MIN_LEFT_OUT = 3  # conditions of a tier, whose mean error tells what to expect
FORMAT_VERSION = 1
DAMAGED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)  # by strange content
TABLE = ("condition_label", "split", "n_cells")  # columns of the table of conditions beside those of the design
RESOLVED = (*TABLE, "missing", "support", "nearest")  # the same of `scgap.tl.resolve`
WRITTEN = (*RESOLVED, "expected_error", "spread", "source_cell")  # and of all tables


class TransportModel(NamedTuple):
    """All that `predict` needs, and what one wants to know of a fit."""

    params: dict[str, Any]
    """Settings, as given and as resolved."""
    weights: "Weights"
    conditions: pd.DataFrame
    """One row a condition: the design's columns and those of TABLE."""
    embedding: np.ndarray
    """(n_conditions, n_embedding) float32, what the map makes of each row; NaN without a vector."""
    encoding: Encoding
    history: pd.DataFrame
    representation: Representation
    var_names: np.ndarray
    others: "list[Weights]"
    """Maps of the same conditions from other random numbers: their mean with that of ``weights`` is the prediction."""
    validation: pd.DataFrame | None
    """One row a left-out condition: ``condition_label``, ``support`` without it, ``identity`` and ``error``."""
    control_means: np.ndarray | None
    """(n_groups, n_points) of the training controls of each trained group, by name; None without groups."""

    @property
    def design(self) -> Design:
        """Which obs columns say what was done to a cell."""
        return design_from_dict(self.params["design"])

    @property
    def detail_of_sums(self) -> float:
        """As `transport_parts` takes it."""
        return float(self.params["resolved"].get("detail_of_sums", 1.0))

    def expected_error(self, tier: str) -> float:
        """Energy distance, in the fitted space, to expect for a condition of this tier; NaN where too little tells."""
        if tier == "seen":
            return float(self.history["valid"].min())
        if self.validation is None:
            return np.nan
        errors = self.validation.loc[self.validation["support"].astype(str) == tier, "error"]
        return float(errors.mean()) if len(errors) >= MIN_LEFT_OUT else np.nan

    @property
    def network(self) -> "ConditionalMap":
        """The network that the weights belong to."""
        from scgap._map import ConditionalMap  # here, so that plots do not load JAX

        return ConditionalMap(tuple(self.params["hidden"]), self.embedding.shape[1], self.params["pooling"])


def indexed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an index of strings, the one kind that every AnnData writer keeps."""
    return table.set_axis([str(i) for i in range(len(table))])


def model_to_uns(model: TransportModel) -> dict[str, Any]:
    """Plain values that every AnnData writer takes."""
    stored = {
        "format_version": FORMAT_VERSION,
        "params": json.dumps(model.params),
        "weights": _to_numpy(model.weights),
        "conditions": indexed(model.conditions),
        "embedding": model.embedding,
        "encoding": encoding_to_dict(model.encoding),
        "history": indexed(model.history),
        "representation": representation_to_dict(model.representation),
        "var_names": np.asarray(model.var_names, dtype=object),
    }
    if model.others:
        stored["others"] = {f"{i:02d}": _to_numpy(weights) for i, weights in enumerate(model.others)}
    if model.validation is not None:
        stored["validation"] = indexed(model.validation)
    if model.control_means is not None:
        stored["control_means"] = model.control_means
    return stored


def check_free(uns: Mapping[str, Any], key: str) -> None:
    """Refuse to write over anything but maps."""
    if key in uns and not is_map(uns[key]):
        raise ValueError(
            f"adata.uns[{key!r}] exists and is not a map of scgap, which alone are written over. Pass another name as "
            "key_added, or delete it."
        )


def model_from_uns(stored: Any) -> TransportModel:
    """The inverse of `model_to_uns`, with all checked that it holds."""
    _check_version(stored)
    try:
        return _checked(_read(stored))
    except DAMAGED as error:
        raise ValueError(
            f"The stored map is damaged, or was changed by hand ({reason(error)}). Read it again from where it was "
            "written, or fit it again with scgap.tl.fit_transport."
        ) from error


def _check_version(stored: Any) -> None:
    version = stored.get("format_version") if isinstance(stored, Mapping) else None
    version = int(version) if isinstance(version, Integral) else 0
    if version != FORMAT_VERSION:
        raise ValueError(
            f"The stored map has format version {version or 'unknown'}, this scgap reads {FORMAT_VERSION}. "
            + ("Upgrade scgap." if version > FORMAT_VERSION else "Fit it again with scgap.tl.fit_transport.")
        )


def _read(stored: Mapping[str, Any]) -> TransportModel:
    """Content of the present format as it is."""
    others = stored.get("others", {})
    return TransportModel(
        json.loads(str(stored["params"])),
        _to_numpy(stored["weights"]),
        stored["conditions"],
        np.asarray(stored["embedding"], np.float32),
        encoding_from_dict(stored["encoding"]),
        stored["history"],
        representation_from_dict(stored["representation"]),
        np.array([str(name) for name in stored["var_names"]]),  # zarr returns a string type that does not cast
        [_to_numpy(others[name]) for name in sorted(others)],
        stored.get("validation"),
        None if "control_means" not in stored else np.asarray(stored["control_means"], np.float32),
    )


def _checked(model: TransportModel) -> TransportModel:
    """The model, if all its parts fit to each other."""
    design, encoding, weights = model.design, model.encoding, model.weights
    check_params(model.params, design)
    check_encoding(design, encoding)
    check_tables(design, model.conditions, model.embedding, model.history)
    n_points = check_representation(model.representation, model.var_names)
    shapes = network_shapes(
        model.params["hidden"],
        model.params["pooling"],
        n_embedding=model.embedding.shape[1],
        n_vector=np.shape(weights["encoding"])[1],
        n_context=1 + sum(map(len, encoding.groups.values())),
        n_points=len(weights["centre"]) if n_points is None else n_points,
    )
    for each in [weights, *model.others]:
        check_weights(each, shapes, np.shape(weights["encoding"]), shapes["displacement"]["bias"][0])
    need(np.shape(weights["encoding"])[0] == len(encoding.perturbations), "there is not one vector a perturbation")
    if model.validation is not None:
        check_validation(model.validation)
    if model.control_means is not None:
        check_control_means(model.control_means, design, model.conditions, len(weights["centre"]))
    units = model.params["units"]
    need(not units or all(any(f.startswith(f"{mod}:") for mod in units) for f in model.var_names), "units do not fit")
    return model


def get_uns(data: Data, mod: Modality) -> MutableMapping[str, Any]:
    """Where a map is kept: ``uns`` of the AnnData or modality, or of the MuData for a map of several modalities."""
    if isinstance(mod, str | None):
        return get_modality(data, mod).uns
    check_mods(data, mod)
    return data.uns


def get_model(data: Data, mod: Modality, key: str) -> TransportModel:
    """The map stored under ``uns[key]``."""
    uns = get_uns(data, mod)
    if text("key", key) not in uns:
        advice = "Fit a map first: scgap.tl.fit_transport(adata, ...)."
        if isinstance(mod, str) and key in data.uns:
            advice = "But mdata.uns has it, as the map of several modalities has: pass mod=[...] with all of them."
        raise KeyError(f"{not_found(key, 'adata.uns', list(uns))} {advice}")
    return model_from_uns(uns[key])


def get_predictions(uns: Mapping[str, Any], key: str) -> dict[str, str]:
    """Names of the predictions of the map under ``uns[key]``, with their conditions as JSON."""
    for name, kind in (("predictions", str), ("expanded", Integral)):
        found = uns[key].get(name, {})
        if not isinstance(found, Mapping) or not all(isinstance(value, kind) for value in found.values()):
            raise ValueError(
                f"adata.uns[{key!r}][{name!r}] is not the dictionary that scgap.tl.predict writes. Delete it, and "
                "predict again."
            )
    return dict(uns[key].get("predictions", {}))


def write_transport(data: Data, path: str | PathLike[str], *, key: str = "scgap", mod: Modality = None) -> None:
    """Write a fitted map to one ``.safetensors`` file: weights and JSON, nothing that could be executed.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``, in whose ``uns[key]`` the map is.
    path
        File to write.
    key
        Where `scgap.tl.fit_transport` put the map.
    mod
        Modality of a MuData, or several.

    Returns
    -------
    ``None``: the file is written, over an earlier one of its name.

    Raises
    ------
    KeyError
        There is no map under ``key``.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        The folder of ``path`` does not exist, ``path`` is a folder, or what is under ``key`` is damaged.
    OSError
        The file cannot be written. An earlier one is then as it was.

    See Also
    --------
    scgap.read_transport

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, n_iters=10, progress=False)
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     scgap.write_transport(adata, f"{folder}/map.safetensors")
    ...     adata.uns["again"] = scgap.read_transport(f"{folder}/map.safetensors")
    >>> scgap.tl.predict(adata, "drug_1", key="again")
    """
    path = check_folder(path)
    arrays: dict[str, np.ndarray] = {}
    plain = _pack(model_to_uns(get_model(data, mod, key)), "", arrays)
    write_arrays(path, arrays, {"scgap": json.dumps(plain)})


def read_transport(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a map written by `scgap.write_transport`: put it in any ``adata.uns[key]`` and predict.

    Parameters
    ----------
    path
        File to read.

    Returns
    -------
    What `scgap.tl.fit_transport` put in ``uns[key]``, bit for bit: the map, its settings and its history. Scores and
    records of predictions, which belong to the cells of one object, are not in the file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    TypeError
        ``path`` is no path.
    ValueError
        The file is not a map written by scgap, or damaged, be it by a single bit, or was written by a newer version.
        Nothing in it is run, whatever it holds.

    Examples
    --------
    >>> import scgap
    >>> from tempfile import TemporaryDirectory
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> with TemporaryDirectory() as folder:
    ...     scgap.write_transport(adata, f"{folder}/map.safetensors")
    ...     stored = scgap.read_transport(f"{folder}/map.safetensors")
    >>> other_cells = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1, seed=1)
    >>> other_cells.uns["scgap"] = stored
    >>> scgap.tl.predict(other_cells, {"perturbation": "drug_1", "dose_value": 100.0})
    """
    from safetensors import SafetensorError

    file_path = check_path(path)
    if not file_path.is_file():
        raise FileNotFoundError(f"There is no file {str(file_path.absolute())!r}. Pass the path of one.")
    try:
        arrays, metadata = read_arrays(file_path)
        stored = _unpack(json.loads(metadata["scgap"]), "", arrays)
    except (SafetensorError, OSError, *DAMAGED) as error:
        raise _no_map(file_path, error) from error
    _check_version(stored)
    try:
        _checked(_read(stored))
    except DAMAGED as error:
        raise _no_map(file_path, error) from error
    return stored


def _no_map(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path.name} is not a map written by scgap.write_transport, or it is damaged ({reason(error)}). Write it "
        "again from the AnnData that holds the map."
    )


def _to_numpy(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Copies, for JAX gives arrays that cannot be written to."""
    return {
        name: _to_numpy(value) if isinstance(value, Mapping) else np.array(value, np.float32)
        for name, value in weights.items()
    }


def _pack(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """A JSON image of ``uns`` content, with numeric arrays moved to ``arrays`` under their path."""
    if isinstance(value, Mapping):
        return {child: _pack(content, f"{name}/{child}", arrays) for child, content in value.items()}
    if isinstance(value, pd.DataFrame):
        return {"frame": [[column, _pack(value[column].to_numpy(), f"{name}/{column}", arrays)] for column in value]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        arrays[name] = np.asarray(value, order="C")  # ascontiguousarray would turn scalars into vectors
        return {"array": name}
    if isinstance(value, np.ndarray):
        return {"strings": [str(item) for item in value]}
    return value


def _unpack(value: Any, name: str, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(value, Mapping):
        return value
    if "array" in value:
        need(value["array"] == name, "an array stands under another name")
        return arrays[name]
    if "strings" in value:
        return np.array(value["strings"], dtype=object)
    if "frame" in value:
        columns = {column: _unpack(content, f"{name}/{column}", arrays) for column, content in value["frame"]}
        return indexed(pd.DataFrame(columns))
    return {child: _unpack(content, f"{name}/{child}", arrays) for child, content in value.items()}
