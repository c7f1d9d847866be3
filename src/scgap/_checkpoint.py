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
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a checkpoint, or it is damaged ({error}). Delete it to start again."
        ) from error
    if metadata.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{path} is a checkpoint of other data or settings. Pass another file as checkpoint=, or delete it to "
            "start again."
        )
    structure = jax.tree.structure((fresh.state, fresh.best))
    state, best = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in arrays.values()])
    return Progress(state, best, [Report(*row) for row in json.loads(metadata["history"])])
