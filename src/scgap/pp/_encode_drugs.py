"""Describe drugs by their structure."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from scgap._adata import Data, check_key, check_writable, get_modality, get_obs, keep_map
from scgap._checks import choice, texts
from scgap._conditions import Condition, Design, label_text, make_design, read_conditions
from scgap._descriptors import Descriptors, descriptors_to_uns
from scgap._messages import kind_of, listed
from scgap.pp._molecules import canonical_smiles, morgan, parse_molecules, rdkit2d, require_rdkit, standardised


def encode_drugs(
    data: Data,
    *,
    smiles: Mapping[str, str] | pd.Series | str,
    target_col: str | Sequence[str] = "perturbation",
    reference_key: str = "control",
    sep: str | None = None,
    mod: str | None = None,
    method: Literal["rdkit2d", "morgan"] = "rdkit2d",
    reference: Iterable[str] | None = None,
    key_added: str = "drug",
    copy: bool = False,
) -> Data | None:
    """Describe drugs by RDKit's 2-D descriptors or Morgan fingerprints, computed from SMILES (``scgap[rdkit]``).

    2-D descriptors are those of Driessen et al. (2026): columns that hardly vary over a reference library (standard
    deviation up to 0.01) are left out, the others are standardised by its mean and standard deviation. Of every SMILES
    the largest fragment is described, neutralised: a drug and its salt get the same numbers. So do stereoisomers, which
    neither method tells apart.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``.
    smiles
        From labels of perturbations to SMILES, a mapping or a Series; or the column of ``obs`` that holds the SMILES of
        each cell, read where one drug was given alone. Drugs of a mapping that were not measured are encoded, too:
        they are those that can be predicted. ``reference_key`` is left out.
    target_col, reference_key, sep
        As in `scgap.tl.fit_transport`.
    mod
        Modality of a MuData.
    method
        ``"rdkit2d"``: 2-D descriptors. ``"morgan"``: the bits of Morgan fingerprints (radius 2, 1,024 bits) in which
        the drugs differ.
    reference
        SMILES of the library that standardises the 2-D descriptors. Default: the drugs themselves.
    key_added
        Key of ``uns`` to write to, and the name by which `scgap.tl.fit_transport` takes it as ``encoding``.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields:

    uns[key_added]["perturbations"], ["features"] : arrays of str
        Labels of drugs, names of descriptors.
    uns[key_added]["values"] : float32 array (n_perturbations, n_features)
        Standardised descriptors, or bits.
    uns[key_added]["smiles"] : array of str (n_perturbations,)
        What was described, as canonical SMILES.
    uns[key_added]["mean"], ["std"] : float64 arrays (n_features,)
        Of the reference library; not for fingerprints.
    uns[key_added]["method"], ["params"] : str
        The method, and settings as JSON.

    Raises
    ------
    ImportError
        RDKit is not installed.
    KeyError
        A column is absent.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        A measured drug has no SMILES, a drug has several, RDKit cannot read one, or nothing varies over the reference.

    Warns
    -----
    UserWarning
        Names salts and mixtures, of which the largest fragment was kept; and descriptors that are not defined for some
        drug, which are left out.

    See Also
    --------
    scgap.pp.encode_table, scgap.pp.encode_effects

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> smiles = {
    ...     "drug_1": "CC(=O)Oc1ccccc1C(=O)O",
    ...     "drug_2": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    ...     "new": "CC(=O)Nc1ccc(O)cc1",
    ... }
    >>> scgap.pp.encode_drugs(adata, smiles=smiles)
    >>> adata.uns["drug"]["perturbations"].tolist()
    ['drug_1', 'drug_2', 'new']
    """
    reference = _check_method(method, reference)
    check_key(key_added)
    check_writable(get_modality(data, mod), copy=copy)
    keep_map(get_modality(data, mod), key_added)
    params: dict[str, Any] = {"rdkit": require_rdkit()}
    design = make_design(target_col, reference_key, sep=sep)
    molecules, stripped = parse_molecules(_collect_smiles(data, mod, design, smiles))
    if stripped:
        warnings.warn(
            f"{len(stripped)} of {len(molecules)} drugs are salts or mixtures: {listed(stripped)}. Their largest "
            "fragment is described, without charge.",
            stacklevel=2,
        )
    arrays = {"smiles": canonical_smiles(molecules)}
    if method == "morgan":
        bits = morgan(molecules)
        table = bits.loc[:, bits.std(ddof=0) > 0]
    else:
        table, statistics = standardised(rdkit2d(molecules), reference)
        arrays |= statistics
        params["reference"] = "drugs" if reference is None else "library"
    if not table.size:
        raise ValueError(
            f"There is no descriptor in which the drugs, {listed(molecules)}, or the reference library differ. "
            "Encode more than one drug, or pass more SMILES as reference=."
        )
    result = data.copy() if copy else data
    get_modality(result, mod).uns[key_added] = descriptors_to_uns(Descriptors(method, table, params, arrays))
    return result if copy else None


def _check_method(method: str, reference: Iterable[str] | None) -> list[str] | None:
    """The SMILES of the library, if it is given."""
    choice("method", method, ("rdkit2d", "morgan"))
    if isinstance(reference, str):
        raise TypeError(f"reference={reference!r} is one string. Pass a list of SMILES.")
    if reference is None:
        return None
    if method == "morgan":
        raise ValueError(
            "reference= standardises 2-D descriptors, and fingerprints are not standardised. Leave it out, or pass "
            'method="rdkit2d".'
        )
    return texts("reference", reference)


def _collect_smiles(data: Data, mod: str | None, design: Design, smiles: Any) -> dict[str, str]:
    """One SMILES for every perturbation, those that were not measured included."""
    if not isinstance(smiles, str | Mapping | pd.Series):
        raise TypeError(
            f"smiles is {kind_of(smiles)}. Pass a mapping or a Series from perturbations to SMILES, or the obs column "
            "that holds them."
        )
    column = smiles if isinstance(smiles, str) else None
    obs = get_obs(data, mod, [*design.columns, column])
    conditions, of_cell, _ = read_conditions(design, obs, need_controls=False)
    measured = {name for condition in conditions for name, _ in condition.members}
    pairs = _pairs_of_cells(conditions, of_cell, obs[smiles]) if isinstance(smiles, str) else smiles.items()
    found: dict[str, set[str]] = {}
    for label, text in pairs:
        if isinstance(text, str) and text.strip() and label_text(label) != design.reference_key:
            found.setdefault(label_text(label), set()).add(text.strip())
    if several := [f"{name}: {', '.join(sorted(texts))}" for name, texts in found.items() if len(texts) > 1]:
        raise ValueError(f"There is more than one SMILES for {listed(several)}. Keep one for each perturbation.")
    if missing := sorted(measured - set(found)):
        raise ValueError(
            f"There is no SMILES for {listed(missing)}; there is one for {listed(found)}. Add theirs, spelt as in "
            f"{listed(design.target_cols)}, or drop their cells."
        )
    return {name: texts.pop() for name, texts in found.items()}


def _pairs_of_cells(
    conditions: Sequence[Condition], of_cell: np.ndarray, column: pd.Series
) -> Iterable[tuple[str, str]]:
    """Perturbation and SMILES of the cells to which it was given alone."""
    names = [condition.members[0][0] if len(condition.members) == 1 else None for condition in conditions]
    labels = pd.Series([None if i < 0 else names[i] for i in of_cell], column.index, dtype=object)
    alone = labels.notna()
    table = (
        pd.DataFrame({"label": labels[alone], "smiles": column[alone].astype(object)})
        .drop_duplicates()
        .sort_values("label")
    )
    return zip(table["label"], table["smiles"], strict=True)
