"""What is held out decides nothing in a fit: weights are the same bit for bit, whatever the held-out cells are."""

import numpy as np
import pytest
import scanpy as sc

import scgap

DESIGN = {"dose_col": "dose_value", "group_col": "cell_line"}
slow = pytest.mark.slow
ONE_CONTEXT = {"perturbation": ["drug_2"], "cell_line": ["line_1"]}


def fit_of(adata, settings, **arguments):
    """All that a fit writes, but for the table of conditions, which lists what was held out."""
    scgap.tl.fit_transport(adata, **{**settings, "n_iters": 5, **arguments})
    stored = adata.uns.pop("scgap")
    del stored["conditions"]
    return stored


def other_values(cells):
    """Finite, negative, far away, and on another scale in every feature."""
    noise = np.random.default_rng(0).normal(size=cells.shape)
    return (-1e3 + 50.0 * np.arange(cells.shape[1]) * noise).astype(np.float32)


@pytest.mark.parametrize(
    ("holdout", "learned"),
    [
        (None, True),
        ("unseen_perturbation", False),
        ("unseen_group", True),
        pytest.param("unseen_perturbation", True, marks=slow),
        pytest.param("unseen_dose_highest", True, marks=slow),
        pytest.param(ONE_CONTEXT, False, marks=slow),
    ],
)
def test_values_of_held_out_cells_change_nothing(screen, settings, same, holdout, learned):
    scgap.pp.split(screen, holdout=holdout, **DESIGN)
    encoding = None if learned else screen.uns["drug_descriptors"]
    before = fit_of(screen, settings, encoding=encoding)
    test = (screen.obs["split"] == "test").to_numpy()
    screen.X[test] = other_values(screen.X[test])
    assert same(before, fit_of(screen, settings, encoding=encoding))


def test_values_of_held_out_cells_change_nothing_in_components(screen, settings, same):
    scgap.pp.split(screen, holdout="unseen_perturbation", **DESIGN)
    test = (screen.obs["split"] == "test").to_numpy()
    seen = screen[~test].copy()
    sc.pp.pca(seen, n_comps=5)
    screen.varm["PCs"] = components = seen.varm["PCs"]

    def project():
        screen.obsm["X_pca"] = ((screen.X - seen.X.mean(0)) @ components).astype(np.float32)

    project()
    before = fit_of(screen, settings, use_rep="X_pca")
    screen.X[test] = other_values(screen.X[test]) / 100
    project()
    assert same(before, fit_of(screen, settings, use_rep="X_pca"))


@pytest.mark.parametrize(
    "holdout",
    [
        "unseen_dose_highest",
        "unseen_group",
        pytest.param("unseen_perturbation", marks=slow),
        pytest.param(ONE_CONTEXT, marks=slow),
    ],
)
def test_labels_and_doses_of_held_out_conditions_change_nothing(screen, settings, same, holdout):
    scgap.pp.split(screen, holdout=holdout, **DESIGN)
    before = fit_of(screen, settings)
    del before["embedding"]  # of held-out conditions, too
    columns = ["perturbation", "dose_value", "cell_line"]
    trains = (screen.obs["split"] == "train").groupby([screen.obs[c] for c in columns], observed=True).transform("any")
    screen.obs["dose_value"] = screen.obs["dose_value"].where(trains, screen.obs["dose_value"] * 77)
    names = screen.obs["perturbation"].astype(str)
    renamed = names.where(trains | (names == "control"), "a_" + names)
    screen.obs["perturbation"] = renamed
    lines = screen.obs["cell_line"].astype(str)
    screen.obs["cell_line"] = lines.where(trains, "a_" + lines) if holdout == "unseen_group" else lines
    assert (screen.obs["perturbation"] != names).any()
    after = fit_of(screen, settings)
    del after["embedding"]
    assert same(before, after)


def test_values_of_training_cells_do_change_the_fit(screen, settings):
    scgap.pp.split(screen, **DESIGN)
    before = fit_of(screen, settings)
    train = (screen.obs["split"] == "train").to_numpy()
    screen.X[train] += 0.1
    after = fit_of(screen, settings)
    assert not np.array_equal(before["weights"]["centre"], after["weights"]["centre"])
