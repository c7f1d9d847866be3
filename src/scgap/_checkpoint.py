"""A training run in one safetensors file, written so that a crash leaves the last one whole."""

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from scgap._train import Progress, Report


def fingerprint_of(params: dict[str, Any], arrays: Any) -> str:
    """A digest of version, settings and data: runs that share it take the same course."""
    digest = hashlib.sha256(json.dumps([version("scgap"), params], sort_keys=True).encode())
    for array in jax.tree.leaves(arrays):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_checkpoint(path: Path, progress: Progress, fingerprint: str) -> None:
    """Write beside the file, then put the new one in its place: at no moment is there half a file."""
    leaves = jax.tree.leaves((progress.state, progress.best))
    arrays = {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    content = save(arrays, metadata={"fingerprint": fingerprint, "history": json.dumps(progress.history)})
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_checkpoint(path: Path, fresh: Progress, fingerprint: str) -> Progress:
    """The saved run, in the shape of a fresh one."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            leaves = [jnp.asarray(file.get_tensor(name)) for name in sorted(file.keys())]
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
    state, best = jax.tree.unflatten(structure, leaves)
    return Progress(state, best, [Report(*row) for row in json.loads(metadata["history"])])
