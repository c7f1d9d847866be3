"""The reference implementation's conditional trainer, on cells and conditions that `rivals.write` wrote."""

import functools
import json
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from anndata import AnnData
from cmonge.datasets.conditional_loader import ConditionalDataModule
from cmonge.trainers.conditional_monge_trainer import ConditionalMongeTrainer
from dotmap import DotMap
from serve import serve

trainer = datamodule = None


class MatchedControls(ConditionalDataModule):
    """Its loaders pool all controls; here each condition gets those of its group."""

    def setup_single_loader(self, condition):
        self.data_config.control_condition = self.condition_config.control_of[condition]
        super().setup_single_loader(condition)
        if self.condition_config.keep:
            # It slices its AnnData anew at every step, which takes longer than the step: the same draws without.
            loader = self.loaders[condition]
            loader.get_loaders_by_type = functools.cache(loader.get_loaders_by_type)


class Labels:
    """Conditions as it writes them: "p1-10", a drug at a dose, or "p1_p2", a set; p1 is a row of its table."""

    def __init__(self, folder):
        design = json.loads((Path(folder) / "design.json").read_text())
        self.conditions, self.queries = design["conditions"], design["queries"]
        # It has one dose a condition, and none beside a set: there the dose becomes part of each member's vector.
        self.are_sets = max(len(condition["members"]) for condition in self.conditions) > 1
        self.has_doses = design["has_doses"]
        self.design, self.rows = design, {}
        self.of_condition = [self.label(condition) for condition in self.conditions]

    def label(self, condition):
        if not condition["members"]:
            return self.control(condition)
        group, time = condition["group"], condition["time"]
        names = [self.name(name, group, dose if self.are_sets else None) for name, dose in condition["members"]]
        if self.are_sets:
            return "_".join(names)
        dose = time or condition["members"][0][1] or 1
        return f"{names[0]}-{round(dose)}"

    def control(self, condition):
        return f"control{sorted({c['group'] for c in self.conditions}).index(condition['group'])}"

    def name(self, *key):
        """The row of the table for a drug, its group and its dose."""
        drug, group, dose = key
        vector = [*self.design["vectors"][drug], *self.design["groups"].get(group, [])]
        vector += [np.log(dose)] if dose else []
        return self.rows.setdefault(key, (f"p{len(self.rows)}", vector))[0]

    def table(self):
        names, vectors = zip(*self.rows.values(), strict=True)
        table = pd.DataFrame(vectors)
        return table.set_axis([f"latent_{i}" for i in range(table.shape[1])], axis=1).assign(drug=names)


def read(folder, name, labels):
    """Cells of one file, and the labels of their conditions."""
    with np.load(Path(folder) / f"{name}.npz") as arrays:
        names = np.array(labels.of_condition)[arrays["condition"]]
        obs = pd.DataFrame({"condition": names}, index=[str(i) for i in range(len(names))])
        return AnnData(arrays["cells"], obs)


def load(folder, batch_size, hidden, n_iters, epsilon, gap_epsilon, learning_rate, seed=0, keep=False):
    """Make its data module and trainer; `keep` what it would make anew at every step, as it would make it."""
    global trainer, datamodule
    labels = Labels(folder)
    adata = read(folder, "train", labels)
    trained = {labels.of_condition[i]: labels.control(labels.conditions[i]) for i in labels.design["trained"]}
    table, scratch = labels.table(), Path(tempfile.mkdtemp())
    markers = {label.split("-")[0]: np.array(adata.var_names[:1]) for label in trained}  # it asks for some
    adata.uns["rank_genes_groups"] = {"names": markers}
    adata.write_h5ad(scratch / "cells.h5ad")
    table.to_csv(scratch / "rdkit")
    data_config = DotMap(
        name="sciplex",
        file_path=str(scratch / "cells.h5ad"),
        batch_size=batch_size,
        split=[0.9, 0.1, 0],
        drug_col="condition",
        control_condition="control",
        drug_condition=None,
        seed=seed,
        reduction=None,
        ae=False,
    )
    condition_config = DotMap(
        mode="homogeneous", conditions=list(trained), split=[0.9, 0.1, 0], control_of=trained, keep=keep
    )
    datamodule = MatchedControls(data_config, condition_config)
    width = table.shape[1] - 1
    context = (
        {"dim_cond": 2 * width, "dim_cond_map": (50,), "embed_cond_equal": True}
        | {"context_entity_bonds": ((0, width), (width, 2 * width))}
        if labels.are_sets
        else {"dim_cond": width + 1, "dim_cond_map": (50, 1), "context_entity_bonds": ((0, width), (0, width + 1))}
    )
    config = DotMap(
        seed=seed,
        num_train_iters=n_iters,
        fitting_loss=DotMap(name="sinkhorn", kwargs=DotMap(epsilon_fitting=epsilon)),
        regularizer=DotMap(name="monge", kwargs=DotMap(epsilon_regularizer=gap_epsilon, cost="euclidean")),
        optim=DotMap(name="adamw", lr=learning_rate, kwargs=DotMap(weight_decay=1e-5)),
        mlp=DotMap(dim_hidden=hidden, dim_data=datamodule.adata.n_vars, **context),
        # Its only embedding that takes any table; with a checkpoint, RDKit is not asked.
        embedding=DotMap(
            name="rdkit",
            checkpoint=True,
            smile_path="",
            drug_to_smile_path="",
            model_dir=str(scratch),
            dose_split=not labels.are_sets,
        ),
    )
    trainer = ConditionalMongeTrainer(seed, scratch / "log", config, datamodule)
    if keep:
        trainer.embedding_module = functools.cache(trainer.embedding_module)
    return {"jax": jax.__version__, "n_conditions": len(trained)}


def step(n_steps):
    """Its compiled step alone: batches are made before the clock starts."""
    batches = [trainer.generate_batch(datamodule, "train")[0] for _ in range(n_steps)]
    jax.block_until_ready(batches)
    state, grads = trainer.state_neural_net, jax.tree_util.tree_map(np.zeros_like, trainer.state_neural_net.params)
    start = time.perf_counter()
    for batch in batches:
        state, grads, _ = trainer.step_fn(
            state,
            grads=grads,
            train_batch=batch,
            dropout_key=trainer.key,
            valid_batch={"num_contexts": None},
            is_logging_step=False,
            is_gradient_acc_step=True,
            n_train_contexts=batch["num_contexts"],
            n_valid_contexts=None,
        )
    jax.block_until_ready(state.params)
    trainer.state_neural_net = state
    return {"seconds": time.perf_counter() - start}


def train(n_steps):
    """Its own loop, with its own sampling, logging and progress bar."""
    trainer.num_train_iters = n_steps
    start = time.perf_counter()
    trainer.train(datamodule)
    jax.block_until_ready(trainer.state_neural_net.params)
    return {"seconds": time.perf_counter() - start}


def predict(folder, out):
    """Move the source cells to every condition that is asked for, each from the controls of its group."""
    labels = Labels(folder)
    source = read(folder, "source", labels)
    moved = {}
    for i in labels.queries:
        cells = source.X[(source.obs["condition"] == labels.control(labels.conditions[i])).to_numpy()]
        embedding, n_contexts = trainer.embedding_module(labels.of_condition[i])
        c = np.broadcast_to(np.asarray(embedding)[0], (len(cells), embedding.shape[1]))
        moved[str(i)] = np.asarray(trainer.transport(cells, c, n_contexts))
    np.savez(out, **moved)
    return {}


serve(load, step, train, predict)
