"""The reference implementation's conditional trainer, on cells and conditions that the benchmark wrote."""

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
    """Its loaders pool all controls; here each condition, "perturbation@context-dose", gets those of its context."""

    def setup_single_loader(self, condition):
        context = condition.split("-")[0].partition("@")[2]
        self.data_config.control_condition = f"control@{context}" if context else "control"
        super().setup_single_loader(condition)


def read(path):
    """Cells ("cells") and their conditions ("condition") of an .npz file."""
    with np.load(path) as arrays:
        obs = pd.DataFrame({"condition": arrays["condition"]}, index=[str(i) for i in range(len(arrays["cells"]))])
        return AnnData(arrays["cells"], obs)


def load(path, batch_size, hidden, n_iters, epsilon, gap_epsilon, learning_rate):
    """Make its data module and trainer; conditions are "perturbation-dose"."""
    global trainer, datamodule
    adata = read(path)
    conditions = [label for label in adata.obs["condition"].unique() if not label.startswith("control")]
    drugs = sorted({condition.split("-")[0] for condition in conditions})
    folder = Path(tempfile.mkdtemp())
    table = pd.DataFrame(np.eye(len(drugs)), columns=[f"latent_{i}" for i in range(len(drugs))])
    adata.uns["rank_genes_groups"] = {"names": {drug: np.array(adata.var_names[:1]) for drug in drugs}}
    adata.write_h5ad(folder / "cells.h5ad")
    table.assign(drug=drugs).to_csv(folder / "rdkit")
    data_config = DotMap(
        name="sciplex",
        file_path=str(folder / "cells.h5ad"),
        batch_size=batch_size,
        split=[0.9, 0.1, 0],
        drug_col="condition",
        control_condition="control",
        drug_condition=None,
        seed=0,
        reduction=None,
        ae=False,
    )
    condition_config = DotMap(mode="homogeneous", conditions=conditions, split=[0.9, 0.1, 0])
    datamodule = MatchedControls(data_config, condition_config)
    n_drugs = len(drugs)
    config = DotMap(
        seed=0,
        num_train_iters=n_iters,
        fitting_loss=DotMap(name="sinkhorn", kwargs=DotMap(epsilon_fitting=epsilon)),
        regularizer=DotMap(name="monge", kwargs=DotMap(epsilon_regularizer=gap_epsilon, cost="euclidean")),
        optim=DotMap(name="adamw", lr=learning_rate, kwargs=DotMap(weight_decay=1e-5)),
        mlp=DotMap(
            dim_hidden=hidden,
            dim_data=datamodule.adata.n_vars,
            dim_cond=n_drugs + 1,
            dim_cond_map=(50, 1),
            context_entity_bonds=((0, n_drugs), (0, n_drugs + 1)),
        ),
        # Its only embedding that takes any table; with a checkpoint, RDKit is not asked.
        embedding=DotMap(name="rdkit", checkpoint=True, smile_path="", drug_to_smile_path="", model_dir=str(folder)),
    )
    trainer = ConditionalMongeTrainer(0, folder / "log", config, datamodule)
    return {"jax": jax.__version__, "n_conditions": len(conditions)}


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


def predict(path, out):
    """Move the control cells of a file to every condition."""
    adata = read(path)
    moved = {}
    for condition in datamodule.conditions:
        context = condition.split("-")[0].partition("@")[2]
        cells = adata.X[(adata.obs["condition"] == (f"control@{context}" if context else "control")).to_numpy()]
        embedding, n_contexts = trainer.embedding_module(condition)
        c = np.broadcast_to(np.asarray(embedding)[0], (len(cells), embedding.shape[1]))
        moved[condition] = np.asarray(trainer.transport(cells, c, n_contexts))
    np.savez(out, **moved)
    return {}


serve(load, step, train, predict)
