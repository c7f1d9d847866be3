"""Protein imaging under single drugs and combinations."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import anndata
from mudata import MuData

from scgap._messages import kind_of, not_found
from scgap.datasets._harmonise import CONTROL, get_column, harmonised, set_columns


def four_i(path: str | PathLike[str], features: Sequence[str] | str | PathLike[str] | None = None) -> MuData:
    """Read the 4i file (iterative indirect immunofluorescence imaging) of CellOT and of Driessen et al. (2026).

    There is no public copy to download from here: the file, ``8h.h5ad``, and its list of features come with the papers
    (Bunne et al., Nat. Methods 2023; ETH research collection, 20.500.11850/609681).

    Parameters
    ----------
    path
        An AnnData file with the drugs in ``obs["drug"]``, controls being ``control``.
    features
        Features to keep, in this order: names, or a text file with one name a line. Default: all.

    Returns
    -------
    One modality, ``protein``, with intensities (n_cells, n_features) as in the file, and this column beside the file's:

    obs["perturbation"] : categorical
        ``control``, a drug, or a combination as the file writes it: pass its separator as ``sep``.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    KeyError
        The file has no ``obs["drug"]``, or not all ``features``.
    ValueError
        No cell is a control.

    Warns
    -----
    UserWarning
        Counts the cells without label, which are left out.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import scgap
    >>> adata = scgap.datasets.simulate_imaging(600, n_drugs=2, n_combinations=1)["protein"]
    >>> adata.obs["drug"] = adata.obs["perturbation"]
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "8h.h5ad"
    ...     adata.write_h5ad(path)
    ...     mdata = scgap.datasets.four_i(path, features=["protein_0", "protein_1"])
    >>> mdata["protein"].shape
    (600, 2)
    """
    names = None if features is None else _read_features(features)
    adata = anndata.read_h5ad(_existing(path))
    columns = harmonised(get_column(adata.obs, "drug", str(path)))
    if CONTROL not in columns["perturbation"].cat.categories:
        raise ValueError(
            not_found(CONTROL, f"obs['drug'] of {str(path)!r}", list(columns["perturbation"].cat.categories))
            + " Controls are needed to learn what a drug does."
        )
    for name in names or []:
        if name not in adata.var_names:
            raise KeyError(not_found(name, f"the features of {str(path)!r}", list(adata.var_names)))
    adata = set_columns(adata, columns)
    return MuData({"protein": adata if names is None else adata[:, names].copy()})


def _read_features(features: Sequence[str] | str | PathLike[str]) -> list[str]:
    if isinstance(features, str | PathLike):
        if not Path(features).is_file():
            raise FileNotFoundError(
                f"features={str(features)!r} is read as the path of a text file, and there is none. Pass the path of "
                "one, or a list of names."
            )
        lines = Path(features).read_text().splitlines()
        features = [line.strip() for line in lines if line.strip()]
    names = list(features)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"features holds {kind_of(names[0]) if names else 'nothing'}. Pass names, or a text file with one a line."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"features names {twice[0]!r} more than once. Name every feature once.")
    return names


def _existing(path: str | PathLike[str]) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(Path(path).absolute())!r}. Pass the path of one.")
    return Path(path)
