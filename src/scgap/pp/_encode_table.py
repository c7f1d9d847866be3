"""Describe perturbations by any table of numbers."""

import pandas as pd

from scgap._adata import Data, check_key, check_writable, get_modality, keep_map
from scgap._descriptors import Descriptors, check_table, descriptors_to_uns


def encode_table(
    data: Data, table: pd.DataFrame, *, key_added: str, mod: str | None = None, copy: bool = False
) -> Data | None:
    """Keep a table of descriptors with the object: genes, targets, pathways, vectors of a language model.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``.
    table
        Finite numbers, one row a perturbation, its label as index. Rows of perturbations that were not measured are
        kept: they are those that can be predicted. `scgap.tl.fit_transport` standardises the columns.
    key_added
        Key of ``uns`` to write to, and the name by which `scgap.tl.fit_transport` takes it as ``encoding``.
    mod
        Modality of a MuData.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields:

    uns[key_added]["perturbations"], ["features"] : arrays of str
        Labels of rows and columns.
    uns[key_added]["values"] : float32 array (n_perturbations, n_features)
        The numbers.
    uns[key_added]["method"], ["params"] : str
        ``table``, and settings as JSON.

    Raises
    ------
    TypeError
        ``table`` is no DataFrame.
    ValueError
        A label stands twice in the index, or values are missing, infinite or no numbers.

    See Also
    --------
    scgap.pp.encode_drugs, scgap.pp.encode_effects

    Examples
    --------
    >>> import pandas as pd, scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> targets = pd.DataFrame({"EGFR": [1, 0, 1], "MEK1": [0, 1, 1]}, index=["drug_1", "drug_2", "drug_new"])
    >>> scgap.pp.encode_table(adata, targets, key_added="target")
    >>> adata.uns["target"]["perturbations"].tolist()
    ['drug_1', 'drug_2', 'drug_new']
    """
    check_key(key_added)
    check_writable(get_modality(data, mod), copy=copy)
    keep_map(get_modality(data, mod), key_added)
    descriptors = Descriptors("table", check_table(table, "table"), {}, {})
    result = data.copy() if copy else data
    get_modality(result, mod).uns[key_added] = descriptors_to_uns(descriptors)
    return result if copy else None
