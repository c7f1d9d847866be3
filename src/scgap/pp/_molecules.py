"""Molecules as numbers, by RDKit, which is an extra and is imported when it is used."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from scgap._messages import listed

RADIUS, N_BITS = 2, 1024  # of Morgan fingerprints: ECFP4, folded
CONSTANT = 0.01  # standard deviation up to which a descriptor is left out, as in the paper's code


def require_rdkit() -> str:
    """RDKit's version, or what to install."""
    try:
        import rdkit
    except ImportError as error:
        raise ImportError(
            "encode_drugs needs RDKit, which is not installed. Run: pip install 'scgap[rdkit]' (or pip install rdkit)."
        ) from error
    return str(rdkit.__version__)


def parse_molecules(smiles: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The main molecule of every SMILES, without counter-ions and charge, and the names of those that lost something.

    All are treated alike, so that a drug and its salt get the same numbers.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem.MolStandardize import rdMolStandardize

    with rdBase.BlockLogs():  # RDKit writes to stderr what the error below says
        whole = {name: Chem.MolFromSmiles(text) for name, text in smiles.items()}
        if invalid := [f"{name}: {smiles[name]}" for name, molecule in whole.items() if molecule is None]:
            raise ValueError(
                f"RDKit cannot read the SMILES of {listed(invalid)}. Correct them, or drop these perturbations."
            )
        main = {name: rdMolStandardize.ChargeParent(molecule) for name, molecule in whole.items()}
    return main, [name for name in main if main[name].GetNumAtoms() < whole[name].GetNumAtoms()]


def canonical_smiles(molecules: Mapping[str, Any]) -> np.ndarray:
    """What was described, as SMILES (n_molecules,)."""
    from rdkit import Chem

    return np.array([Chem.MolToSmiles(molecule) for molecule in molecules.values()], dtype=object)


def rdkit2d(molecules: Mapping[str, Any]) -> pd.DataFrame:
    """All of RDKit's 2-D descriptors, one row a molecule; NaN or infinite where one is not defined."""
    from rdkit import rdBase
    from rdkit.Chem import Descriptors

    with rdBase.BlockLogs():
        rows = [[function(molecule) for _, function in Descriptors.descList] for molecule in molecules.values()]
    return pd.DataFrame(rows, list(molecules), [name for name, _ in Descriptors.descList], dtype=float)


def standardised(table: pd.DataFrame, reference: Iterable[str] | None) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Descriptors that vary over the reference, less its mean and in its standard deviations; and both of these.

    A descriptor that is not defined for some drug is left out; molecules of the reference are left out of its
    statistics.
    """
    undefined = ~np.isfinite(table.to_numpy())
    if undefined.any():
        drugs = table.index[undefined.any(axis=1)]
        warnings.warn(
            f"{listed(table.columns[undefined.any(axis=0)])} are left out: they are not defined for {listed(drugs)}.",
            stacklevel=3,
        )
    library = table if reference is None else rdkit2d(parse_molecules({text: text for text in reference})[0])
    library = library.loc[:, ~undefined.any(axis=0)].replace([np.inf, -np.inf], np.nan)
    mean, std = library.mean(), library.std(ddof=0)
    kept = std.index[std > CONSTANT]
    statistics = {"mean": mean[kept].to_numpy(), "std": std[kept].to_numpy()}
    return (table[kept] - mean[kept]) / std[kept], statistics


def morgan(molecules: Mapping[str, Any]) -> pd.DataFrame:
    """Morgan fingerprints, one row of bits a molecule (Rogers & Hahn 2010)."""
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)
    rows = [generator.GetFingerprintAsNumPy(molecule) for molecule in molecules.values()]
    return pd.DataFrame(np.array(rows, float), list(molecules), [f"bit_{i}" for i in range(N_BITS)])
