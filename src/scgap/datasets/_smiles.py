"""SMILES of drugs whose names are written in several ways."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import pandas as pd
from anndata import AnnData

from scgap._messages import kind_of, listed
from scgap._names import spelling
from scgap.datasets._harmonise import CONTROL

# Not a `type` statement, which the rendered signatures would show by name alone.
Smiles: TypeAlias = Mapping[str, str] | pd.Series | str | PathLike[str]  # noqa: UP040


def attach_smiles(adata: AnnData, smiles: Smiles) -> None:
    """Write ``obs["smiles"]``, NaN for controls and for drugs that are not found, which a warning names."""
    found, ambiguous = match_smiles(adata.obs["perturbation"].cat.categories.drop(CONTROL, errors="ignore"), smiles)
    for names, reason in (
        ([name for name, text in found.items() if text is None and name not in ambiguous], "have no SMILES"),
        (ambiguous, "may be several of the names"),
    ):
        if names:
            warnings.warn(
                f"{len(names)} of {len(found)} drugs {reason} in smiles: {listed(names)}. They have none in "
                "obs['smiles']: add them under these names, or leave these drugs out.",
                stacklevel=3,
            )
    texts = adata.obs["perturbation"].astype(object).map(found)
    adata.obs["smiles"] = pd.Series(pd.Categorical(texts), adata.obs_names)


def match_smiles(labels: Iterable[str], smiles: Smiles) -> tuple[dict[str, str | None], list[str]]:
    """The SMILES of every label, None if there is none, and the labels for which there are several.

    Labels match as they are; else but for case, spaces, punctuation and what is in brackets (the rule of Driessen et
    al.); else by the first word, of which chemCPA's table of the sci-Plex drugs consists.
    """
    library = _read(smiles)
    found: dict[str, str | None] = dict.fromkeys(labels)
    ambiguous: list[str] = []
    for key in (str, _bare, _first_word):
        open_labels = [label for label, text in found.items() if text is None and label not in ambiguous]
        taken = Counter(key(label) for label in found)
        texts = _by_key(library, str if key is str else _bare)
        for label in open_labels:
            candidates = texts.get(key(label), set())
            if len(candidates) == 1 and taken[key(label)] == 1:
                found[label] = next(iter(candidates))
            elif candidates:
                ambiguous.append(label)
    return found, ambiguous


def _bare(name: str) -> str:
    """``(+)-JQ1`` as ``jq1``; the question mark is what an unprintable character became in "Glesatinib?(MGCD265)"."""
    return spelling(" ".join(_words(name)))


def _first_word(name: str) -> str:
    return spelling(next(iter(_words(name)), ""))


def _words(name: str) -> list[str]:
    """Words outside of brackets, less the hyphens that stood before or behind one of these."""
    words = re.sub(r"\([^)]*\)|\?", " ", name).split()
    return [word.strip("-") for word in words if word.strip("-")]


def _by_key(library: pd.Series, key: Callable[[str], str]) -> dict[str, set[str]]:
    texts: dict[str, set[str]] = {}
    for name, text in library.items():
        texts.setdefault(key(str(name)), set()).add(text)
    texts.pop("", None)
    return texts


def _read(smiles: Smiles) -> pd.Series:
    """SMILES by name; of a file, its first two columns, which have no header."""
    if isinstance(smiles, str | PathLike):
        if not Path(smiles).is_file():
            raise FileNotFoundError(
                f"smiles={str(smiles)!r} is no file. Pass a CSV file without header whose first two columns are names "
                "and SMILES, or a mapping from names to SMILES."
            )
        table = pd.read_csv(smiles, header=None, dtype=str)
        if table.shape[1] < 2:
            raise ValueError(f"{str(smiles)!r} has one column. Its first two must be names and SMILES.")
        smiles = table.set_index(0)[1]
    if not isinstance(smiles, Mapping | pd.Series):
        raise TypeError(f"smiles is {kind_of(smiles)}. Pass a mapping from names to SMILES, or a CSV file of both.")
    library = pd.Series([*smiles.values()] if isinstance(smiles, Mapping) else smiles.to_numpy(), [*smiles.keys()])
    return library.dropna().astype(str).str.strip()
