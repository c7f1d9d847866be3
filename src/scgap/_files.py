"""Files that are written whole or not at all, and read only if no bit of them has changed."""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

DIGEST = "digest"  # an array, for the order of several metadata differs from one file to the next


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file beside ``path``, then put it in its place: at no moment is there half a file.

    Raises
    ------
    OSError
        The file cannot be written. An earlier one is then as it was.
    """
    content = save({**arrays, DIGEST: digest_of(arrays, metadata)}, metadata=dict(metadata))
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{str(path)!r} could not be written ({error.strerror or error}); an earlier file of that name is as it "
            "was. Make room there, or pass a path in a folder that can be written to",
        ) from error
    finally:
        with suppress(OSError):  # a disk that refuses to write may refuse to delete, too
            beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a file.

    Raises
    ------
    SafetensorError
        It is no such file, or not what was written: safetensors itself finds what does not fit together, no more.
    """
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    digest = arrays.pop(DIGEST, None)  # earlier files have none
    if digest is not None and not np.array_equal(digest, digest_of(arrays, metadata)):
        raise SafetensorError("its content is not what was written")
    return arrays, metadata


def digest_of(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> np.ndarray:
    """SHA-256 (32,) of all names, types, shapes, numbers and texts in a file."""
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut; where folders cannot be synced, the system sees to it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
