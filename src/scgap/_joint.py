"""Several modalities of a MuData as one AnnData, and results back in each of them.

Features are named after their modality, ``rna:CD4``. Cells are those that all modalities hold.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import linalg, sparse

from scgap._adata import Data, Modality, check_mods, check_writable, get_layers, get_matrix, get_modality, to_dense
from scgap._messages import listed
from scgap._representation import Representation, make_representation


def one_object(data: Data, mod: Modality) -> tuple[Data, str | None]:
    """``data`` and ``mod`` as they are; of several modalities, an AnnData of all of them, and None."""
    if mod is None or isinstance(mod, str):
        return data, mod
    check_mods(data, mod)
    return _join(_parts(data, mod), data), None


def modalities(data: Data, mod: Modality) -> list[AnnData]:
    """The objects that results are written to: that of ``mod``, or each of several modalities."""
    return [get_modality(data, one) for one in ([mod] if mod is None or isinstance(mod, str) else mod)]


def check_parts(data: Data, mod: Modality, *, copy: bool) -> None:
    """`check_writable` of each of them; a MuData must be no view either."""
    if isinstance(data, MuData) and data.is_view and not copy:
        raise ValueError(
            "mdata is a view of another object, in which results would be lost. Pass mdata.copy(), or copy=True, where "
            "there is one."
        )
    for adata in modalities(data, mod):
        check_writable(adata, copy=copy)


def make_joint_representation(
    mdata: Data,
    mods: Modality,
    layer: str | None,
    use_rep: Mapping[str, str] | str | None,
    seen: np.ndarray,
    controls: np.ndarray,
    *,
    standardise: bool,
) -> tuple[Representation, np.ndarray, dict[str, float]]:
    """Points of all modalities side by side, each in a unit of its own, so that none drowns the others; and the units.

    ``controls`` (n_cells,) are the training controls: in the unit of a modality their total variance is 1. ``use_rep``
    names the embedding of each modality that is not fitted in its features.
    """
    mods = list(mods or ())
    named = dict(use_rep or {}) if isinstance(use_rep, Mapping | None) else {}
    if isinstance(use_rep, str) or not set(named) <= set(mods):
        raise ValueError(
            f"use_rep={use_rep!r}. With several modalities pass a dictionary from their names, {listed(mods)}, to keys "
            "of obsm; what is left out is fitted in its features."
        )
    offsets, scales, components, nonnegative, points, units = [], [], [], [], [], {}
    for mod, part in _parts(mdata, mods).items():
        of_features = controls if standardise and named.get(mod, "X") == "X" else None
        one, mine = make_representation(part, layer, named.get(mod), seen, of_features)
        if one.kind not in ("features", "pca") or one.layer != layer:
            raise ValueError(
                f"use_rep={{{mod!r}: {named[mod]!r}}} cannot be fitted together with other modalities. Pass 'X_pca', "
                f"made of layer={layer!r}, or leave {mod!r} out for its features."
            )
        n = mine.shape[1]
        unit = units[mod] = float(np.sqrt(mine[controls].var(0, dtype=np.float64).sum())) or 1.0
        offsets.append(one.offset if len(one.offset) else np.zeros(n))
        scales.append((one.scale if len(one.scale) else np.ones(n)) * unit)
        components.append(one.components if one.kind == "pca" else np.eye(n))
        nonnegative.append(np.full(part.n_vars, one.nonnegative))
        points.append(mine / np.float32(unit))
    blocks = linalg.block_diag(*components).astype(np.float32)
    offset, scale = (np.concatenate(values).astype(np.float32) for values in (offsets, scales))
    representation = Representation("pca", layer, None, blocks, offset, np.concatenate(nonnegative), scale)
    return representation, np.concatenate(points, axis=1), units


def put_back(
    mdata: Data, mods: Modality, joined: AnnData, layers: Iterable[str], columns: Iterable[str], fitted: str | None
) -> None:
    """Write layers of the joined object to each modality, where cells that it lacks stay as observed, and obs columns.

    ``fitted`` is the layer that holds what was observed, None for ``X``.
    """
    stop = 0
    for adata in modalities(mdata, mods):
        start, stop = stop, stop + adata.n_vars
        rows = adata.obs_names.get_indexer(joined.obs_names)
        for layer in layers:
            values = np.array(to_dense(get_matrix(adata, fitted)))
            values[rows] = joined.layers[layer][:, start:stop]
            adata.layers[layer] = values
        for column in columns:
            found = pd.Series(joined.obs[column].array, joined.obs_names).reindex(adata.obs_names)
            adata.obs[column] = found.eq(True) if joined.obs[column].dtype == bool else found


def _parts(mdata: Data, mods: Sequence[str]) -> dict[str, AnnData]:
    """The modalities, of the cells that all of them hold, in the order in which the MuData has them, as masks do."""
    every = {mod: get_modality(mdata, mod) for mod in mods}
    for mod, adata in every.items():
        if not adata.obs_names.is_unique:
            raise ValueError(
                f"mdata[{mod!r}].obs_names are not unique, by which its cells are found in the other modalities. Call "
                f"mdata[{mod!r}].obs_names_make_unique() and mdata.update() first."
            )
    cells = every[mods[0]].obs_names
    for adata in every.values():
        cells = cells[cells.isin(adata.obs_names)]
    if not len(cells):
        raise ValueError(f"No cell is in all of the modalities {listed(mods)}. Their obs_names have to be alike.")
    if mdata.obs_names.is_unique:  # a MuData that was not updated may not know all of them
        cells = mdata.obs_names[mdata.obs_names.isin(cells)].append(cells[~cells.isin(mdata.obs_names)])
    return {mod: adata[cells] for mod, adata in every.items()}


def _join(parts: Mapping[str, AnnData], mdata: MuData) -> AnnData:
    """``X``, layers that all have, and obs, of the first modality that has a column; ``uns`` is that of the MuData."""
    first, *others = parts.values()
    names = [f"{mod}:{name}" for mod, part in parts.items() for name in part.var_names]
    obs: dict[str, Any] = {}
    for table in (*(part.obs for part in parts.values()), mdata.obs.reindex(first.obs_names)):
        obs = {**table, **obs}
    joined = AnnData(_beside(parts.values(), None), pd.DataFrame(obs, index=first.obs_names), pd.DataFrame(index=names))
    for layer in get_layers(first):
        if all(layer in part.layers for part in others):
            joined.layers[layer] = _beside(parts.values(), layer)
    joined.uns = mdata.uns
    return joined


def _beside(parts: Iterable[AnnData], layer: str | None) -> np.ndarray | sparse.csr_matrix:
    """Matrices (n_cells, n) as one; sparse if all of them are."""
    matrices = [get_matrix(part, layer) for part in parts]
    if all(sparse.issparse(matrix) for matrix in matrices):
        return sparse.hstack(matrices, format="csr", dtype=np.float32)
    return np.concatenate([to_dense(matrix) for matrix in matrices], axis=1)
