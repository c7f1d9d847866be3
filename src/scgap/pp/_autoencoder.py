"""Compress cells by an autoencoder."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from scgap._adata import Data, Matrix, check_key, check_writable, get_modality, get_obs, random_order, to_dense
from scgap._autoencoder import Report, encode, fit_autoencoder, unexplained
from scgap._checks import positive, whole_number, widths
from scgap._representation import is_autoencoder, read_points, warn_of_counts
from scgap._splits import MIN_CELLS, SPLITS, assign_split

N_EPOCHS = 50  # the paper's, and
LEARNING_RATE = 3e-4  # of 1e-4, 3e-4 and 1e-3 the best on validation cells of Norman et al. and Kang et al.
N_UPDATES = 1_000  # updates at least: a small screen has few in an epoch


def autoencoder(
    data: Data,
    *,
    n_latent: int = 50,
    hidden: Sequence[int] = (512, 512),
    layer: str | None = None,
    mod: str | None = None,
    split_col: str | None = None,
    ghost_batch_norm: bool = False,
    batch_size: int = 512,
    n_epochs: int | None = None,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    progress: bool = True,
    key_added: str = "ae",
    copy: bool = False,
) -> Data | None:
    r"""Compress cells to a few numbers, and learn to bring them back, as in Driessen et al. (2026).

    Encoder :math:`e` and decoder :math:`d` are dense layers with GELU between them. They are trained to bring back
    the features :math:`x` of training cells:

    .. math::
        \min_{e, d} \; \mathbb{E} \lVert d(e(x)) - x \rVert^2

    The network starts at the principal components, which pairs of hidden units carry exactly, and learns what is not
    linear; the weights that are best on validation cells are kept. So it explains no less of these than as many
    components do, which the first row of ``history`` tells. Points start as coordinates on the components, so distances
    between them are about those between cells.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``. Features are normalised and logged expression, or intensities of
        proteins; training cells are held in memory densely.
    n_latent
        Numbers that describe a cell; fewer than there are features.
    hidden
        Widths of the encoder's hidden layers, and backwards of the decoder's; each at least twice ``n_latent``.
    layer
        Layer that holds the features. Default: ``X``.
    mod
        Modality of a MuData.
    split_col
        Column of ``obs`` with the values ``train``, ``valid``, ``test``. Test cells decide nothing. If no cells
        validate, or without the column, a random tenth of the cells that would train does.
    ghost_batch_norm
        Whether to normalise hidden units in small parts of each batch (Hoffer et al. 2017), which takes more epochs
        and, in large batches above all, can explain more. After training the norm goes into the layers.
    batch_size
        Cells in an update, at most. An epoch sees every training cell once.
    n_epochs
        Passes over the training cells, at most; 0 keeps the principal components. Training stops when validation has
        not become better for 10 epochs and 200 updates. Default: 50, or as many as make 1,000 updates.
    learning_rate
        Of AdamW for batches of 512 cells, at its highest; it grows with the root of the size, and falls by a cosine to
        a hundredth.
    seed
        Decides the cells that validate, the first weights and the order of the cells. Same seed: same weights.
    progress
        Whether to show a progress bar.
    key_added
        Key of ``uns`` to write to.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields:

    obsm[f"X_{key_added}"] : float32 array (n_obs, n_latent)
        All cells, encoded.
    uns[key_added]["encoder"], ["decoder"] : dicts of float32 arrays
        ``"0"``, ``"1"``, … -> ``kernel`` (n_in, n_out) and ``bias`` (n_out,), of features and points in their own
        units, with GELU (in its tanh form) between the layers.
    uns[key_added]["history"] : DataFrame
        ``epoch``, ``loss`` and ``valid``: mean squared errors in units of the variance of the training cells.
    uns[key_added]["unexplained"] : dict of floats
        For each of ``train``, ``valid`` and ``test`` that has cells, the share of their variance that the decoder does
        not bring back.
    uns[key_added]["layer"], ["var_names"], ["params"] : str, array of str, str
        Layer, or empty for ``X``; names of the features; settings as JSON.

    Raises
    ------
    KeyError
        A column, layer or modality is absent.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        Values are NaN or infinite, all training cells are the same or fewer than 10, no cell is left to validate,
        ``n_latent`` is not below the number of features, a hidden layer is too narrow, or a setting is out of range.
    FloatingPointError
        The loss is no longer finite.

    Warns
    -----
    UserWarning
        The features are raw counts.

    See Also
    --------
    scanpy.pp.pca, scgap.tl.fit_transport

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1, n_features=20)
    >>> scgap.pp.autoencoder(adata, n_latent=4, hidden=(16,), n_epochs=2, progress=False)
    >>> adata.obsm["X_ae"].shape
    (600, 4)
    >>> adata.uns["ae"]["history"]["epoch"].tolist()
    [0, 1, 2]
    """
    n_latent = whole_number("n_latent", n_latent, 1)
    batch_size = whole_number("batch_size", batch_size, 1)
    n_epochs = None if n_epochs is None else whole_number("n_epochs", n_epochs, 0)
    seed = whole_number("seed", seed, 0)
    learning_rate = positive("learning_rate", learning_rate)
    check_key(key_added)
    adata = get_modality(data, mod)
    check_writable(adata, copy=copy)
    if key_added in adata.uns and not is_autoencoder(adata.uns[key_added]):
        raise ValueError(
            f"adata.uns[{key_added!r}] exists and is no autoencoder, which alone are written over. Pass another name "
            "as key_added, or delete it."
        )
    if n_latent >= adata.n_vars:
        raise ValueError(
            f"n_latent={n_latent}, and there are {adata.n_vars} features: nothing would be compressed. Pass a smaller "
            "n_latent, or do without: scgap.tl.fit_transport fits features as they are."
        )
    layers = _check_widths(hidden, n_latent)
    split = _split(data, mod, split_col, seed)
    matrix = read_points(adata, layer, None)
    warn_of_counts(matrix, layer, stacklevel=3)
    train, valid = (to_dense(matrix[split == part]) for part in ("train", "valid"))
    _check_cells(train, valid)
    if n_epochs is None:
        n_epochs = max(N_EPOCHS, -(-N_UPDATES // -(-len(train) // batch_size)))
    with tqdm(total=n_epochs, desc="autoencoder", unit="epoch", disable=not progress, mininterval=1.0) as bar:
        network, history = fit_autoencoder(
            train,
            valid,
            n_latent=n_latent,
            hidden=layers,
            ghost_batch_norm=bool(ghost_batch_norm),
            batch_size=batch_size,
            n_epochs=n_epochs,
            learning_rate=learning_rate,
            seed=seed,
            on_report=lambda report: _on_report(bar, report),
        )
    stored = network._asdict()
    settings = {
        "n_latent": n_latent,
        "hidden": list(layers),
        "split_col": split_col,
        "mod": mod,
        "ghost_batch_norm": bool(ghost_batch_norm),
        "batch_size": batch_size,
        "n_epochs": n_epochs,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    stored |= {
        "history": _table(history),
        "unexplained": _unexplained(stored, matrix, split),
        "layer": layer or "",
        "var_names": np.asarray(adata.var_names, dtype=object),
        "params": json.dumps(settings),
    }
    points = encode(stored, matrix)
    result = data.copy() if copy else data
    adata = get_modality(result, mod)
    adata.obsm[f"X_{key_added}"] = points
    adata.uns[key_added] = stored
    return result if copy else None


def _check_widths(hidden: Any, n_latent: int) -> tuple[int, ...]:
    """Widths of hidden layers, in which the principal components have a place."""
    checked = widths(hidden)
    if min(checked) < 2 * n_latent:
        raise ValueError(
            f"hidden={checked} has a layer of {min(checked)} units. Training starts at the principal components, which "
            f"take two units each: pass widths of at least {2 * n_latent}, or a smaller n_latent."
        )
    return checked


def _split(data: Data, mod: str | None, split_col: str | None, seed: int) -> np.ndarray:
    """``train``, ``valid``, ``test``, or ``""`` where a cell has no label, for every cell (n_obs,)."""
    labels = get_obs(data, mod, [split_col], hint=" scgap.pp.split makes such a column.")
    order = random_order(labels.index)
    if split_col is None:
        return assign_split(None, np.zeros(len(labels), int), order, seed)
    return assign_split(labels[split_col], np.where(labels[split_col].isna(), -1, 0), order, seed)


def _check_cells(train: np.ndarray, valid: np.ndarray) -> None:
    if len(train) < MIN_CELLS or not len(valid):
        raise ValueError(
            f"{len(train)} training and {len(valid)} validation cells. An autoencoder takes {MIN_CELLS} and 1 at the "
            "very least: check split_col."
        )
    if (train == train[0]).all():
        raise ValueError("All training cells are the same. Pass the layer that was measured as layer=.")


def _unexplained(stored: dict[str, Any], matrix: Matrix, split: np.ndarray) -> dict[str, float]:
    return {part: unexplained(stored, matrix[split == part]) for part in SPLITS if (split == part).any()}


def _table(history: Sequence[Report]) -> pd.DataFrame:
    """One row an epoch, under an index of strings, the one kind that every AnnData writer keeps."""
    table = pd.DataFrame(history, [str(i) for i in range(len(history))], Report._fields)
    return table.astype(Report.__annotations__)


def _on_report(bar: "tqdm[Any]", report: Report) -> None:
    bar.set_postfix({"loss": f"{report.loss:.3g}", "valid": f"{report.valid:.3g}"}, refresh=False)
    bar.update()
