import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import scgap

ROOT = Path(scgap.__file__).parent
CORE = {"_arrays", "_populations", "_sinkhorn", "_losses", "_map", "_train", "_transfer", "_autoencoder"}
READERS = {"_adata", "_checks", "_conditions", "_descriptors", "_encoding", "_messages", "_representation", "_splits"}

# Which of our own files and folders each of them may import. The arrays know nothing of the objects they came from.
MAY_IMPORT = {
    "_messages": set(),
    "_checks": {"_messages"},
    "_arrays": set(),
    "_populations": {"_arrays"},
    "_sinkhorn": set(),
    "_metrics": set(),
    "_baselines": {"_conditions", "_gaussian", "_messages", "_mixture", "_ridge", "_stand_ins"},
    "_gaussian": set(),
    "_mixture": set(),
    "_ridge": {"_conditions", "_encoding", "_messages"},
    "_stand_ins": {"_conditions", "_support"},
    "_groups": {"_conditions"},
    "_losses": {"_sinkhorn"},
    "_map": {"_arrays"},
    "_train": {"_losses", "_map", "_populations"},
    "_transfer": {"_losses", "_map", "_populations", "_train"},
    "_folds": {"_conditions", "_support"},
    "_autoencoder": {"_arrays"},
    "_files": set(),
    "_checkpoint": {"_files", "_messages", "_train"},
    "_adata": {"_checks", "_messages"},
    "_conditions": {"_checks", "_messages", "_names"},
    "_descriptors": {"_checks", "_conditions", "_messages"},
    "_encoding": {"_arrays", "_conditions", "_messages"},
    "_representation": {"_adata", "_autoencoder", "_checks", "_messages"},
    "_joint": {"_adata", "_messages", "_representation"},
    "_splits": {"_messages"},
    "_support": {"_conditions"},
    "_classifier": set(),
    "_reference": {"_conditions", "_metrics"},
    "_comparison": {"_arrays", "_classifier", "_losses", "_metrics", "_reference"},
    "_scoring": {"_adata", "_baselines", "_comparison", "_conditions", "_reference"},
    "_summary": {"_baselines", "_checks", "_comparison", "_messages"},
    "_experiment": {"_arrays", "_conditions", "_encoding", "_groups", "_messages", "_populations", "_splits", "_train"},
    "_stored": READERS,
    "_model": READERS | {"_files", "_map", "_stored"},
    "_names": set(),
    "_units": {"_messages"},
    "_text": READERS | {"_model", "_names", "_units"},
    "_query": READERS | {"_model", "_names", "_text", "_units"},
    "_meanings": READERS | {"_model"},
    "_further_maps": {"_conditions", "_folds", "_map", "_model", "_moving", "_transfer"},
    "_moving": READERS | {"_arrays", "_groups", "_map", "_meanings", "_model", "_support"},
    "datasets": {"datasets", "_checks", "_messages", "_names"},
    "pp": READERS | {"pp", "_autoencoder", "_classifier", "_losses"},
    "pl": READERS
    | {"pl", "_baselines", "_joint", "_meanings", "_metrics", "_model", "_query", "_scoring", "_summary", "_support"},
    "tl": READERS
    | {
        "tl",
        "_arrays",
        "_baselines",
        "_checkpoint",
        "_comparison",
        "_experiment",
        "_folds",
        "_further_maps",
        "_groups",
        "_joint",
        "_losses",
        "_map",
        "_meanings",
        "_metrics",
        "_model",
        "_moving",
        "_query",
        "_scoring",
    }
    | {"_summary", "_support", "_text", "_train", "_units"},
    "__init__": {"_model", "datasets", "pl", "pp", "tl"},
}

OBJECTS = {"anndata", "mudata", "pandas", "scanpy"}
ARRAYS = {"flax", "jax", "optax", "ott"}
# Libraries that a part must not import, and those that it alone may.
MUST_NOT_IMPORT = {
    **dict.fromkeys(CORE, OBJECTS),
    "pl": ARRAYS,
    "_metrics": OBJECTS,
    **dict.fromkeys(("_baselines", "_gaussian", "_mixture", "_ridge", "_stand_ins"), OBJECTS | ARRAYS),
}
ONLY_IN = {
    "flax": {"_map"},
    "optax": {"_autoencoder", "_train"},
    "mudata": {"_adata", "_joint", "datasets"},
    "pertpy": {"datasets"},
    "pooch": {"datasets"},
    "matplotlib": {"pl"},
    "rdkit": {"pp"},
    "sklearn": {"pp"},
}
LAZY = {"pertpy", "rdkit"}  # slow to import, or an extra


def part_of(path):
    """The folder of a public function, or the name of a private file."""
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(tree, *, everywhere=True):
    """Dotted names of all that is imported, or of what is at import time of the file."""
    nodes = ast.walk(tree) if everywhere else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level or node.module is None or node.level == 1
            module = node.module or ""
            if node.level:  # stubs, in their own folder
                continue
            # `from scgap import _losses` imports a module, `from jax import lax` as well: both names are given.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(part, tree):
    found = []
    for name in imported(tree):
        library, *rest = name.split(".")
        if library == "scgap":
            if rest[0] not in MAY_IMPORT[part]:
                found.append(f"{part} imports scgap.{rest[0]}")
        elif library in MUST_NOT_IMPORT.get(part, set()) or part not in ONLY_IN.get(library, {part}):
            found.append(f"{part} imports {library}")
    at_once = {name.split(".")[0] for name in imported(tree, everywhere=False)}
    found += [f"{part} imports {library} at once" for library in sorted(at_once & LAZY)]
    return found


def sources():
    return {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def test_every_part_has_a_direction():
    parts = {part_of(path) for path in sources()}
    assert parts == set(MAY_IMPORT), "give a new part its row in MAY_IMPORT, and DESIGN section 2 its line"


def test_imports_run_one_way():
    found = {str(path.relative_to(ROOT)): violations(part_of(path), tree) for path, tree in sources().items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_part_imports_itself_in_a_circle():
    edges = {part: allowed - {part} for part, allowed in MAY_IMPORT.items()}
    tuple(TopologicalSorter(edges).static_order())  # raises CycleError


@pytest.mark.parametrize(
    ("part", "line", "words"),
    [
        ("_losses", "import pandas as pd", ["_losses imports pandas"]),
        ("_train", "from anndata import AnnData", ["_train imports anndata"]),
        ("_train", "from scgap._adata import to_dense", ["_train imports scgap._adata"]),
        ("_losses", "from scgap import _train", ["_losses imports scgap._train"]),
        ("pl", "def f():\n    import jax.numpy as jnp", ["pl imports jax"]),
        ("pl", "from scgap.tl import predict", ["pl imports scgap.tl"]),
        ("pp", "import scgap.tl._predict", ["pp imports scgap.tl"]),
        ("_model", "import flax.linen as nn", ["_model imports flax"]),
        ("datasets", "import pertpy", ["datasets imports pertpy at once"]),
        ("datasets", "def f():\n    import pertpy", []),
        ("pp", "from rdkit import Chem", ["pp imports rdkit at once"]),
        ("tl", "def f():\n    import rdkit", ["tl imports rdkit"]),
        ("tl", "from scgap._train import fit", []),
        ("pl", "import numpy as np", []),
    ],
)
def test_a_wrong_import_is_found(part, line, words):
    assert violations(part, ast.parse(line)) == words


def loaded_after(statement):
    listing = f"import sys; {statement}; print(*(name for name in sys.modules if '.' not in name))"
    result = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_import_is_light():
    loaded = loaded_after("import scgap; scgap.tl, scgap.pp, scgap.pl, scgap.datasets")
    assert "scgap" in loaded
    assert not loaded & {"anndata", "flax", "jax", "matplotlib", "ott", "pandas", "pertpy", "scanpy"}


def test_support_needs_no_arrays_on_the_device():
    assert not loaded_after("import scgap._support") & {"flax", "jax", "optax", "ott"}


@pytest.mark.parametrize(
    "name", ["pl.history", "pl.moments", "pl.scores", "pp.split", "pp.encode_drugs", "pp.encode_table"]
)
def test_what_needs_no_arrays_on_the_device_loads_no_library_for_them(name):
    loaded = loaded_after(f"import scgap; scgap.{name}")
    assert "anndata" in loaded
    assert not loaded & {"flax", "jax", "optax", "ott"}


def test_the_core_runs_without_the_objects():
    loaded = loaded_after("import scgap._train")
    assert {"jax", "ott", "flax"} <= loaded
    assert not loaded & {"anndata", "mudata", "scanpy", "pertpy"}
