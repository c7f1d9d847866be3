"""Every public function works, or raises an error of its own and leaves the object as it was."""

import inspect
from contextlib import chdir
from tempfile import TemporaryDirectory

import pytest
from contract import check
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mudata import MuData
from wild import DESIGN, ENCODING, FIT, SCALARS, VALUES, fitted, objects

import scgap

N_EXAMPLES = settings().max_examples // 12  # a function: 8, and 166 in the nightly profile
# Valid arguments of each public function, beside the object.
CASES = {
    "pp.split": {**DESIGN},
    "pp.encode_drugs": {"smiles": {"A": "CCO", "B": "CCN"}, "method": "morgan"},
    "pp.encode_table": {"table": ENCODING, "key_added": "again"},
    "pp.encode_effects": {**DESIGN, "split_col": "split", "n_components": 1, "key_added": "again"},
    "pp.place_effect": {"perturbation": "C", "cells": [f"cell_{i}" for i in range(24, 40)]},
    "pp.recipe_log1p": {"layer": "counts_like", "n_top_genes": 4},
    "pp.responders": {**DESIGN},
    "pp.streaming_pca": {"n_comps": 2, "progress": False},
    "pp.autoencoder": {"n_latent": 2, "hidden": (8,), "n_epochs": 0, "progress": False},
    "tl.fit_transport": {**FIT, "key_added": "again"},
    "tl.predict": {"condition": {"perturbation": "A", "dose_value": 2.0}},
    "tl.resolve": {"query": "A"},
    "tl.screen": {"conditions": [{"perturbation": "A"}], "n_cells": 3, "progress": False},
    "tl.evaluate": {"metrics": ["mean_error", "energy_distance"], "n_cells": 10},
    "tl.evaluate_predictions": {**DESIGN, "metrics": "mean_error", "n_cells": 10, "predicted": "screened"},
    "tl.join_predictions": {**DESIGN, "predicted": "screened"},
    "tl.summarize_scores": {"scores": "scores", "n_bootstrap": 3},
    "pl.history": {"show": False},
    "pl.moments": {"show": False, "moments": ["mean"]},
    "pl.scores": {"show": False},
    "pl.transport": {"show": False},
    "pl.conditions": {"show": False},
    "pl.dose_response": {"show": False, "features": "f0", "predicted": "screened"},
    "datasets.simulate_screen": {"n_cells": 40, "n_features": 4, "n_drugs": 2, "doses": [1.0], "n_groups": 1},
    "datasets.simulate_imaging": {"n_cells": 60, "n_features": 6, "n_drugs": 2, "n_combinations": 1, "doses": [1.0]},
    "datasets.true_transport": {"condition": {"perturbation": "drug_1", "dose_value": 1.0}},
    "write_transport": {"path": "map.safetensors"},
    "read_transport": {},
}
FLAGS = {"show", "labels"}  # whatever is true or false, as the arguments that are so by default
LOADERS = {"sciplex2", "sciplex3", "combosciplex", "mcfarland", "norman", "papalexi", "frangieh", "kang"}
LOADERS |= {"four_i", "four_i_palbociclib"}  # read public files alone, and have tests of their own


def public():
    """All public functions by name."""
    places = {"": scgap, "pp.": scgap.pp, "tl.": scgap.tl, "pl.": scgap.pl, "datasets.": scgap.datasets}
    names = {place + name for place, module in places.items() for name in module.__all__}
    return {name for name in names if not inspect.ismodule(get(name))}


def get(name):
    place = scgap
    for part in name.split("."):
        place = getattr(place, part)
    return place


def test_every_public_function_has_a_case():
    assert public() - {f"datasets.{name}" for name in LOADERS} == set(CASES)


@pytest.fixture(scope="module")
def others():
    """Objects beside the one that is asked about."""
    adata = fitted().copy()
    screened = scgap.tl.screen(adata, n_cells=12, progress=False)
    simulated = scgap.datasets.simulate_screen(40, n_features=4, n_drugs=2, doses=[1.0], n_groups=1)
    return {"screened": screened, "scores": adata.uns["scgap"]["scores"], "simulated": simulated}


@pytest.mark.filterwarnings("ignore")  # of anndata and pandas, about the objects that are made here
@pytest.mark.parametrize("name", CASES)
@settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize=N_EXAMPLES < 10,  # the quick suite asks the same of every change
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.explain},  # which would take minutes
)
@given(data=st.data())
def test_bad_input_is_refused_in_words(name, others, data):
    function, given_arguments = get(name), dict(CASES[name])
    named = set(inspect.signature(function).parameters)
    arguments = {
        key: others.get(value, value) if isinstance(value, str) else value for key, value in given_arguments.items()
    }
    changed = data.draw(
        st.lists(st.sampled_from(sorted(named - {"data", "observed"})), max_size=2, unique=True), "changed"
    )
    for argument in changed:
        is_flag = argument in FLAGS or isinstance(inspect.signature(function).parameters[argument].default, bool)
        arguments[argument] = data.draw(SCALARS if is_flag else VALUES, argument)
    if "predicted" in named and "predicted" not in changed and data.draw(st.booleans(), "wild prediction"):
        arguments["predicted"] = data.draw(objects(most=1), "predicted")
    first = next(iter(named & {"data", "observed"}), None)
    if name == "read_transport":
        arguments["path"] = data.draw(VALUES, "path")
    elif name == "datasets.true_transport":
        arguments["data"] = data.draw(st.sampled_from([others["simulated"], others["simulated"][:5, :2], None]))
    elif first:
        arguments[first] = data.draw(VALUES if data.draw(st.integers(0, 9)) == 9 else objects(), "object")
        if isinstance(arguments[first], MuData) and "mod" not in changed:
            arguments["mod"] = "rna"
    with TemporaryDirectory() as folder, chdir(folder):  # for "nope" is the path of a file that can be written
        if isinstance(arguments.get("path"), str) and "path" not in changed:
            arguments["path"] = f"{folder}/{arguments['path']}"
        check(function, **arguments)


@pytest.mark.parametrize("name", CASES)
def test_the_case_itself_works(name, others, tmp_path):
    if name == "read_transport":
        scgap.write_transport(fitted(), tmp_path / "map.safetensors")
        assert check(scgap.read_transport, tmp_path / "map.safetensors")
        return
    arguments = {
        key: others.get(value, value) if isinstance(value, str) else value for key, value in CASES[name].items()
    }
    if name == "datasets.true_transport":
        arguments["data"] = others["simulated"]
    elif first := next(iter(inspect.signature(get(name)).parameters.keys() & {"data", "observed"}), None):
        arguments[first] = fitted().copy()
    if "path" in arguments:
        arguments["path"] = tmp_path / arguments["path"]
    assert check(get(name), **arguments)
