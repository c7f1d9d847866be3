"""Fit one conditional transport map to all conditions of an experiment."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ott.geometry.costs import CostFn
from tqdm.auto import tqdm

from scgap._adata import Data, Modality, check_key, get_modality, get_obs, random_order
from scgap._arrays import ConditionArrays, pad_rows
from scgap._baselines import TAKEN
from scgap._checkpoint import fingerprint_of, read_checkpoint, write_checkpoint
from scgap._checks import check_folder, choice, positive, whole_number, widths
from scgap._conditions import Condition, Group, make_design, read_conditions
from scgap._descriptors import EncodingArgument, join_encodings
from scgap._encoding import Encoding, encode_conditions, initial_vectors, make_encoding
from scgap._experiment import condition_table, control_means, experiment_arrays, experiment_populations, make_experiment
from scgap._folds import condition_folds as make_folds
from scgap._further_maps import fit_further
from scgap._groups import stand_in_groups
from scgap._joint import check_parts, make_joint_representation, modalities, one_object
from scgap._map import ConditionalMap, Pooling, Weights, embed, init_weights
from scgap._messages import listed
from scgap._model import WRITTEN, TransportModel, check_free, get_uns, model_to_uns
from scgap._representation import make_representation
from scgap._splits import assign_split
from scgap._train import Diverged, Loss, Progress, Report, Setup, TrainingData, fit, is_complete, mean_cost
from scgap.tl._arguments import resolve_cost, resolve_unit

# By `benchmarks/quality.py epsilon`, values of epsilon from 0.01 to 0.1 and of the gap's up to 0.02 fit equally well.
EPSILON = 0.05  # of the mean cost between perturbed cells
GAP_EPSILON = 0.02  # the same for the Monge gap, whose plan should be sharp
N_MAPS = 3  # whose mean is the prediction, and
N_FOLDS = 5  # of the condition-level validation, in fits of
LONG = 1_000  # updates or more: fewer are a trial
SMALL, LARGE = (64, 64), (128, 128, 128)  # hidden layers, for
MANY = 10_000  # training cells or more: the small one was better below 3,000, the large one at 40,000
SEED_STEP = 1_000_003  # between the seeds of maps, so that those of neighbouring seeds do not coincide


def fit_transport(
    data: Data,
    *,
    target_col: str | Sequence[str] = "perturbation",
    reference_key: str = "control",
    dose_col: str | Sequence[str] | None = None,
    dose_unit: str | None = None,
    group_col: str | Sequence[str] | None = None,
    time_col: str | None = None,
    time_unit: str | None = None,
    sep: str | None = None,
    encoding: EncodingArgument = None,
    split_col: str | None = None,
    layer: str | None = None,
    use_rep: str | Mapping[str, str] | None = None,
    standardise: bool = False,
    mod: Modality = None,
    cost: CostFn | Literal["euclidean", "sqeuclidean"] = "euclidean",
    epsilon: float | None = None,
    gap_weight: float = 1.0,
    gap_epsilon: float | None = None,
    debias: Literal["independent", "same"] = "independent",
    n_iters: int = 10_000,
    batch_size: int = 256,
    conditions_per_step: int = 1,
    learning_rate: float = 1e-3,
    hidden: Sequence[int] | None = None,
    pooling: Pooling = "sum",
    n_maps: int | None = None,
    condition_folds: int | None = None,
    checkpoint: str | PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    key_added: str = "scgap",
    copy: bool = False,
) -> Data | None:
    r"""Learn one map that carries control cells to what they become under any condition.

    The map :math:`T(x \mid c) = x + f_\theta(x, c)` of the Conditional Monge Gap (Driessen et al. 2026), built on the
    Monge gap of Uscidda & Cuturi (2023), minimises, averaged over conditions :math:`c`,

    .. math::
        S_\varepsilon\bigl(T(\cdot \mid c)_\sharp \mu,\; \nu_c\bigr)
        + \lambda \Bigl(\mathbb{E}\, d(x, T(x \mid c))
        - W_{\varepsilon'}\bigl(\mu, T(\cdot \mid c)_\sharp \mu\bigr)\Bigr)

    with control cells :math:`\mu`, perturbed cells :math:`\nu_c`, the Sinkhorn divergence :math:`S` and a cost
    :math:`d`.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``. ``X`` may be in a file opened with ``backed="r"``: with
        ``use_rep="X_pca"``, see `scgap.pp.streaming_pca`, no more than a chunk of it is in memory.
    target_col
        Column of ``obs`` that names the perturbation, or several columns for combinations. A perturbation that is named
        twice for a cell counts once; with ``dose_col`` its doses add up, so ``"A+A"`` at dose 10 is ``"A"`` at 20.
    reference_key
        Label of control cells in ``target_col``.
    dose_col
        Column of doses, or one for each column of ``target_col``: numbers or strings of numbers; dose 0 is control, and
        towards it the effect fades. Where all were given at one dose, nothing tells what a higher one would do, and it
        is predicted like that one.
    dose_unit
        Unit of the doses, such as ``"nM"``, or the column of ``obs`` that holds it: conditions can then be asked for in
        another, ``"1 uM"``.
    group_col
        Column, or columns, of the context (cell line, donor, cell type): controls are matched within it, and it is a
        feature of the condition. Cells with a label that was not trained are moved by a mean over trained groups, in
        which those count more whose controls are nearer.
    time_col
        Column of times after treatment, a numeric feature of the condition. Controls are not matched by time: for that,
        pass a copy of the column, as text, in ``group_col``.
    time_unit
        Unit of the times, such as ``"h"``, or the column that holds it.
    sep
        Separator of a combination written as one label, such as ``"+"`` in ``"A+B"``. Doses may be joined by it, too.
        Default: every label is taken whole, as the name of one perturbation.
    encoding
        Descriptors of perturbations, needed to predict those that were not measured: the key of ``uns`` that
        `scgap.pp.encode_drugs`, `scgap.pp.encode_table` or `scgap.pp.encode_effects` wrote; a DataFrame, one row a
        perturbation, its name as index; or a list of these. Tables are joined by name: the perturbations that all of
        them have can be predicted, measured or not. Columns of one name get the table's key before it, ``"drug: x"``,
        and all columns are standardised. The fitted map keeps the joined table. By default each perturbation learns a
        vector of its own.
    split_col
        Column of ``obs`` with the values ``train``, ``valid``, ``test``, see `scgap.pp.split`. Test cells are not
        touched; without valid cells, a tenth of the training cells takes their place (at least 5 of a condition, as
        long as 10 are left to train on). Controls that train are moved to validate, too.
    layer
        Layer to fit; default ``X``. Together with ``use_rep="X_pca"`` the layer that the PCA was made of, to which
        predictions are decoded; default the one that ``scanpy.pp.pca`` noted. Other embeddings do not look at it.
    use_rep
        Key of ``obsm`` to fit in. ``"X_pca"`` is decoded to features with ``varm["PCs"]``, ``"X_ae"`` by the network of
        `scgap.pp.autoencoder`; other embeddings have no decoder, and predictions stay in their space.
    standardise
        Whether to fit features in units of their standard deviation in the training controls, so that none counts more
        for varying more, as proteins do that are measured in units of their own. Predictions are on the scale of the
        layer. Features that do not vary there stay as they are.
    mod
        Modality of a MuData; or several, for one map of all of them: of the cells that all hold, with each modality in
        a unit in which the training controls have a total variance of 1, so that none drowns the others. Features are
        then called ``"rna:CD4"``, ``use_rep`` is a dictionary such as ``{"rna": "X_pca"}``, and the map is in the
        ``uns`` of the MuData.
    cost
        Ground cost of both terms: ``"euclidean"``, ``"sqeuclidean"`` or an OTT cost function.
    epsilon
        Entropic regularisation of the divergence, in units of the cost. Default: 5 % of the mean cost between perturbed
        cells of one condition.
    gap_weight
        Weight :math:`\lambda` of the Monge gap.
    gap_epsilon
        Entropic regularisation of the Monge gap. Default: 2 % of the same mean cost.
    debias
        Batches of the divergence's self term. ``"independent"``: two batches without a cell in common. ``"same"``: one
        batch against itself, as in the papers; that is biased low, and predictions shrink towards their mean.
    n_iters
        Updates at most; training stops earlier when the validation score has not improved for long.
    batch_size
        Cells in a batch, drawn with replacement. The number of updates does not depend on it. Above 1,024, the batch is
        split into ghost batches with a transport problem each, so that time and memory grow linearly.
    conditions_per_step
        Conditions that an update averages over.
    learning_rate
        Of Adam, at its highest and for 512 cells: it is scaled by ``sqrt(batch_size / 512)``, by default to 0.0007.
        After a short warm-up it falls along a cosine.
    hidden
        Widths of the map's hidden layers. Default: (64, 64), for fewer than 10,000 training cells, of which a larger
        network learns the noise, too; else (128, 128, 128). Controls count, validation cells do not.
    pooling
        How a combination is made of its perturbations: the ``"sum"`` of their embeddings, in which each counts in full;
        their ``"mean"``, in which two count half each; or ``"attention"``, a mean that learns how much each counts. A
        combination of which no two perturbations were trained together, and each alone, is predicted by adding up what
        they do alone: to the cell itself, or to one that is nearer to the centre of the training cells by a quarter, a
        half, three quarters or all of its distance, whichever adds up best to the combinations that were trained, where
        these are three or more.
    n_maps
        Maps from different random numbers, whose mean displacement is the prediction: it is nearer to held-out cells
        and to unseen conditions than one map, and where maps disagree (``spread`` in `scgap.tl.screen` and
        `scgap.tl.evaluate`) predictions are less sure. The first runs as the other arguments say, and ``history`` is
        of it; the others run half of the updates. Default: 3, in fits of 1,000 updates or more; else 1.
    condition_folds
        Folds of the condition-level validation. Held-out cells of conditions that were trained on do not tell how a
        map transfers to others. So as many further maps, of a fifth of the updates that the first ran, leave whole
        conditions out, with ``encoding`` whole perturbations among them, if there are three;
        ``uns[key_added]["validation"]`` tells how well these were predicted, and ``expected_error`` in
        `scgap.tl.screen` and `scgap.tl.evaluate` by tier of support, where three conditions or more tell. Five folds
        take as long as the first map. Default: 5, in fits of 1,000 updates or more in which there is a condition to
        leave out; 0 for none.
    checkpoint
        File (``.safetensors``) in which the run is saved at every report. If it exists, training goes on from it, to
        the same weights as an unbroken run; it must be of the same data and settings.
    seed
        Same seed, versions and device: same weights, in whatever order the cells stand, for they are drawn by their
        names, if these are unique.
    progress
        Whether to show a progress bar.
    key_added
        Key of ``uns`` to write to.
    copy
        Whether to return a copy instead of writing to ``data``.

    Returns
    -------
    ``None``, or the copy with ``copy=True``. Sets the following fields:

    uns[key_added]["params"] : str
        Settings as given and as resolved, JSON.
    uns[key_added]["weights"] : nested dict of float32 arrays
        The network.
    uns[key_added]["conditions"] : DataFrame
        One row a condition: its labels, doses and groups, ``split``, ``n_cells``.
    uns[key_added]["embedding"] : array (n_conditions, n)
        What the map makes of each condition, as `scgap.pl.conditions` shows it; in a group that was not trained, the
        mean over those that can stand in for it.
    uns[key_added]["encoding"], ["representation"], ["var_names"] : dict, dict, array
        What turns conditions and cells into numbers, and back.
    uns[key_added]["history"] : DataFrame
        ``iteration``; ``fitting_loss``, the Sinkhorn divergence on training batches; ``monge_gap`` (floor-free) of
        controls; ``valid``, the energy distance of moved controls to the validation cells of their condition.
    uns[key_added]["control_means"] : array (n_groups, n)
        Means of the training controls of each trained group, by name: what other groups are compared with.
    uns[key_added]["others"] : dict
        Weights of the other maps.
    uns[key_added]["validation"] : DataFrame
        Of the condition-level validation, where a condition could be left out: energy distances of ``identity`` and of
        the prediction (``error``) for each left-out condition, and its ``support`` without it.

    Raises
    ------
    KeyError
        A column, layer, modality, ``obsm`` key or encoding is absent.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        No control cells (in some group), conditions with fewer than 10 training cells, NaN or negative doses, NaN or
        infinite features, no spread between cells, a trained perturbation without a row in ``encoding``, repeated
        feature names, a view without ``copy``, settings out of range, ``uns[key_added]`` that is not a map, or a
        ``checkpoint`` of another run or in no folder.
    FloatingPointError
        Training diverged. ``uns[key_added]`` then holds the map with the best weights before that, and its ``history``
        until then, unless ``copy`` is given or no loss was finite; a ``checkpoint`` holds the last state before that.
    OSError
        The ``checkpoint`` cannot be written. The one before it is then as it was, and training goes on from there.

    Warns
    -----
    UserWarning
        Cells without a label are left out; ``sep`` is in no label; a perturbation in combinations is called as controls
        usually are; the features are raw counts, or more than 2,000; ``"X_pca"`` has no decoder.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> adata.uns["scgap"]["history"].columns.tolist()
    ['iteration', 'fitting_loss', 'monge_gap', 'valid']
    """
    n_iters = whole_number("n_iters", n_iters, 0)
    batch_size = whole_number("batch_size", batch_size, 1)
    conditions_per_step = whole_number("conditions_per_step", conditions_per_step, 1)
    seed = whole_number("seed", seed, 0)
    epsilon = None if epsilon is None else positive("epsilon", epsilon)
    gap_epsilon = None if gap_epsilon is None else positive("gap_epsilon", gap_epsilon)
    gap_weight = positive("gap_weight", gap_weight, or_zero=True)
    learning_rate = positive("learning_rate", learning_rate)
    is_long = n_iters >= LONG
    n_maps = whole_number("n_maps", (N_MAPS if is_long else 1) if n_maps is None else n_maps, 1)
    condition_folds = (N_FOLDS if is_long else 0) if condition_folds is None else condition_folds
    condition_folds = whole_number("condition_folds", condition_folds, 0)
    hidden = None if hidden is None else widths(hidden)
    choice("debias", debias, ("independent", "same"))
    choice("pooling", pooling, ("sum", "mean", "attention"))
    if not isinstance(standardise, bool | np.bool_):
        raise TypeError(f"standardise={standardise!r}. Pass True, for units of each feature's spread, or False.")
    standardise = bool(standardise)  # NumPy's has no place in JSON
    settings = {
        "epsilon": epsilon,
        "gap_epsilon": gap_epsilon,
        "gap_weight": gap_weight,
        "n_iters": n_iters,
        "batch_size": batch_size,
        "conditions_per_step": conditions_per_step,
        "learning_rate": learning_rate,
        "debias": debias,
    }
    if check_key(key_added) in TAKEN:
        raise ValueError(
            f"key_added={key_added!r} is the name of a baseline, and scores of the two could not be told apart. Pass "
            "another name."
        )
    cost_name, ground_cost = resolve_cost(cost)
    whole, mods = data, mod
    data, mod = one_object(data, mod)
    adata = get_modality(data, mod)
    check_parts(whole, mods, copy=copy)
    check_free(adata.uns, key_added)
    path = None if checkpoint is None else check_folder(checkpoint, "checkpoint")

    design = make_design(target_col, reference_key, dose_col, group_col, time_col, sep)._replace(
        dose_unit=resolve_unit(data, mod, "dose_unit", dose_unit, dose_col),
        time_unit=resolve_unit(data, mod, "time_unit", time_unit, time_col),
    )
    if taken := [column for column in design.columns if column in WRITTEN]:
        raise ValueError(
            f"adata.obs has {listed(taken)} as a column of the design, and scgap's own tables have columns of that "
            "name. Give it another one: adata.obs = adata.obs.rename(columns={...})."
        )
    obs = get_obs(data, mod, design.columns)
    labels = get_obs(data, mod, [split_col], hint=" scgap.pp.split makes such a column.")
    conditions, of_cell, rows = read_conditions(design, obs)
    if n_unlabelled := int((of_cell < 0).sum()):
        warnings.warn(f"{n_unlabelled} cells without a perturbation or group label are left out.", stacklevel=2)
    if sep and not any(sep in str(label) for column in design.target_cols for label in obs[column].unique()):
        warnings.warn(
            f"sep={sep!r} is in no label of {listed(design.target_cols)}: each is taken whole, as one perturbation.",
            stacklevel=2,
        )
    order = random_order(obs.index)
    split = assign_split(labels[split_col] if split_col else None, of_cell, order, seed)
    uns = {name: value for part in modalities(whole, mods)[::-1] for name, value in part.uns.items()} | dict(adata.uns)
    experiment = make_experiment(conditions, of_cell, split, learned=encoding is None)
    table = make_encoding(design, experiment.trained, join_encodings(encoding, uns))
    var_names = np.asarray(adata.var_names, dtype=str)
    is_control = np.isin(of_cell, [i for i, condition in enumerate(conditions) if condition.is_control])
    seen, controls = split != "test", is_control & (split == "train")
    if data is not whole:
        representation, points, units = make_joint_representation(
            whole, mods, layer, use_rep, seen, controls, standardise=standardise
        )
    else:
        representation, points = make_representation(adata, layer, use_rep, seen, controls if standardise else None)
        units = {}
    train, valid = experiment_populations(experiment, points, of_cell, split, order)
    means = control_means(experiment, train) if design.group_cols else {}
    arrays = experiment_arrays(experiment, table, means, valid)

    n_train = int(train.size.sum())
    if hidden is None:
        hidden = SMALL if n_train < MANY else LARGE
    network = ConditionalMap(hidden, pooling=pooling)
    one_condition = jax.tree.map(lambda array: array[0], arrays)
    training_points = np.asarray(train.cells)[:n_train]  # in an order that rows do not decide

    def start(seed: int) -> Weights:
        return init_weights(network, seed, initial_vectors(table, seed), one_condition, training_points)

    starts = [start(seed + SEED_STEP * i) for i in range(n_maps)]
    fresh = starts[0]
    scale = mean_cost(train, len(experiment.trained), cost=ground_cost)
    if scale == 0:
        raise ValueError(
            "The mean cost between perturbed cells of one condition is 0: all of them are the same. Transport needs "
            "cells that differ: look at the data, and pass what holds it as layer= or use_rep=."
        )
    loss = Loss(
        epsilon=EPSILON * scale if epsilon is None else epsilon,
        gap_epsilon=GAP_EPSILON * scale if gap_epsilon is None else gap_epsilon,
        gap_weight=gap_weight,
    )
    params = {
        **settings,
        "resolved": {name: float(value) for name, value in loss._asdict().items()},
        "design": design._asdict(),
        "split_col": split_col,
        "standardise": standardise,
        "units": units,
        "mod": mods if isinstance(mods, str | None) else list(mods),
        "cost": cost_name,
        "hidden": list(hidden),
        "pooling": pooling,
        "seed": seed,
    }
    fingerprint = fingerprint_of(params, (train, valid, arrays, fresh["encoding"])) if path else ""
    run: dict[str, Any] = {
        "data": TrainingData(
            train, valid, jax.tree.map(jnp.asarray, arrays), len(experiment.trained), experiment.validated
        ),
        "setup": Setup(network, ground_cost, batch_size, conditions_per_step, debias, learn_encoding=encoding is None),
        "loss": loss,
        "n_iters": n_iters,
        "learning_rate": learning_rate,
        "key": jax.random.key(seed),
    }
    diverged = None
    with _progress_bar(n_iters, progress) as bar:
        try:
            weights, history = fit(
                fresh,
                **run,
                on_report=partial(_on_report, bar, path, fingerprint),
                resume=lambda fresh: read_checkpoint(path, fresh, fingerprint) if path and path.exists() else fresh,
            )
        except Diverged as error:
            if copy or not error.history:
                raise
            diverged, weights, history = error, error.best, error.history
    folds = make_folds(experiment.trained, condition_folds, has_encoding=encoding is not None, seed=seed)
    folds = [left_out for left_out in folds if not set(experiment.validated) <= set(left_out)]
    beside = {"n_maps": n_maps, "condition_folds": condition_folds}  # on these a checkpoint does not depend
    perturbed = [condition for condition in conditions if not condition.is_control]
    model = TransportModel(
        params={**params, **beside},
        weights=weights,
        conditions=condition_table(design, conditions, rows, of_cell, split),
        embedding=_embed(network, weights, table, perturbed, {condition.group for condition in experiment.trained}),
        encoding=table,
        history=pd.DataFrame(history, columns=Report._fields).astype(Report.__annotations__),
        representation=representation,
        var_names=var_names,
        others=[],
        validation=None,
        control_means=np.array(list(means.values())) if means else None,
    )
    if diverged is None and is_complete(history, n_iters):
        n_ran = history[-1].iteration if history else 0
        model = fit_further(model, experiment.trained, starts, folds, n_ran=n_ran, run=run, progress=progress)
    result = whole.copy() if copy else whole
    get_uns(result, mods)[key_added] = model_to_uns(model)
    if diverged is not None:
        raise FloatingPointError(
            f"{diverged} uns[{key_added!r}] holds the best weights of the {history[-1].iteration} iterations before."
        )
    return result if copy else None


def _embed(
    network: ConditionalMap,
    weights: Weights,
    table: Encoding,
    conditions: Sequence[Condition],
    groups: Collection[Group],
) -> np.ndarray:
    """Embeddings (n_conditions, n) of conditions; NaN where a perturbation has no vector.

    One in a group that was not trained gets the mean over the ``groups`` that stand in for it: that of their mean
    context, in which the encoder is linear.
    """
    known = [i for i, c in enumerate(conditions) if {name for name, _ in c.members} <= set(table.perturbations)]
    arrays = encode_conditions(table, [conditions[i] for i in known])
    for context, i in zip(arrays.context, known, strict=True):
        if conditions[i].group not in groups:
            stand_ins = stand_in_groups(groups, conditions[i].group)
            alike = [conditions[i]._replace(members=(), group=group) for group in stand_ins]
            context[:] = encode_conditions(table, alike).context.mean(0)
    result = np.full((len(conditions), network.n_embedding), np.nan, np.float32)
    padded = ConditionArrays(*(pad_rows(array) for array in arrays))
    result[known] = np.asarray(embed(network, weights, padded))[: len(known)]
    return result


def _progress_bar(n_iters: int, progress: bool) -> "tqdm[Any]":
    # `mininterval` bounds the lines that a log file gets; a terminal is redrawn once a report either way.
    return tqdm(total=n_iters, desc="fit_transport", unit="it", disable=not progress, mininterval=1.0)


def _on_report(bar: "tqdm[Any]", checkpoint: Path | None, fingerprint: str, progress: Progress) -> None:
    if checkpoint is not None:
        write_checkpoint(checkpoint, progress, fingerprint)
    report = progress.history[-1]
    bar.set_postfix(
        {
            "fitting loss": f"{report.fitting_loss:.3g}",
            "gap": f"{report.monge_gap:.2g}",
            "valid": f"{report.valid:.3g}",
        },
        refresh=False,
    )
    bar.update(report.iteration - bar.n)
