"""A training run in one safetensors file, written so that a crash leaves the last one whole."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError

from scgap._files import read_arrays, write_arrays
from scgap._messages import reason
from scgap._train import Progress, Report


def fingerprint_of(params: dict[str, Any], arrays: Any) -> str:
    """A digest of version, settings and data: runs that share it take the same course."""
    digest = hashlib.sha256(json.dumps([version("scgap"), params], sort_keys=True).encode())
    for array in jax.tree.leaves(arrays):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_checkpoint(path: Path, progress: Progress, fingerprint: str) -> None:
    """Put this state of the run in the place of the last one."""
    leaves = jax.tree.leaves((progress.state, progress.best))
    arrays = {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    write_arrays(path, arrays, {"fingerprint": fingerprint, "history": json.dumps(progress.history)})


def read_checkpoint(path: Path, fresh: Progress, fingerprint: str) -> Progress:
    """The saved run, in the shape of a fresh one."""
    try:
        arrays, metadata = read_arrays(path)
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:
        raise _no_checkpoint(path, error) from error
    leaves = list(arrays.values())
    if metadata.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{path} is a checkpoint of other data or settings. Pass another file as checkpoint=, or delete it to "
            "start again."
        )
    like, structure = jax.tree.flatten((fresh.state, fresh.best))
    try:
        _check_leaves(leaves, like)
        history = [_report(*row) for row in json.loads(metadata["history"])]
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise _no_checkpoint(path, error) from error
    state, best = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in leaves])
    return Progress(state, best, history)


def _check_leaves(leaves: list[np.ndarray], like: list[Any]) -> None:
    """Refuse what has not the shapes and types of a fresh run, or is not finite."""
    found = [(leaf.shape, leaf.dtype) for leaf in leaves]
    if found != [(np.shape(leaf), np.asarray(leaf).dtype) for leaf in like]:
        raise ValueError("its arrays are not those of this run")
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise ValueError("it holds NaN or infinite values")


def _report(iteration: Any, *losses: Any) -> Report:
    if type(iteration) is not int or not all(isinstance(loss, float) for loss in losses):
        raise ValueError("its history holds no numbers")
    return Report(iteration, *losses)


def _no_checkpoint(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is not a checkpoint, or it is damaged ({reason(error)}). Delete it to start again.")
