"""Data sets that pertpy downloads once and keeps."""

from pathlib import Path
from typing import Any

import scanpy as sc

URL = "https://exampledata.scverse.org/pertpy/"  # where pertpy's loaders download from
TIMEOUT = 10  # seconds to wait for an answer


def read_pertpy(loader: str, file: str) -> Any:
    """What ``pertpy.data.<loader>()`` returns, read from ``file`` in scanpy's ``datasetdir`` if it is there."""
    path = dataset_path(file)
    if not path.exists():
        _check_network(path)
    from pertpy import data

    try:
        return getattr(data, loader)()
    except OSError as error:
        if path.exists():  # it was read, not downloaded
            raise
        raise no_download(path) from error


def dataset_path(file: str) -> Path:
    """Where a data set is kept."""
    return Path(sc.settings.datasetdir).absolute() / file


def no_download(path: Path) -> ConnectionError:
    """The error where a file is neither there nor to be had."""
    return ConnectionError(
        f"There is no network to download the data set from, and no file {str(path)!r}: connect, or put the file there."
    )


def _check_network(path: Path) -> None:
    """Refuse at once what pertpy would try three times, 5 seconds apart, with a line on each."""
    import requests  # as pertpy does, so that both use the same proxies

    try:
        requests.head(URL + path.name, timeout=TIMEOUT)
    except OSError as error:
        raise no_download(path) from error
