"""Files are data: whatever they hold, they are read as a map or refused, and nothing in them is run."""

import ast
import json
import struct
import subprocess
import sys
import tracemalloc
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from anndata import AnnData
from contract import check, fault
from hostile import assembled, changed_uns, files, parts
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from wild import fitted

import scgap
from scgap._checkpoint import read_checkpoint, write_checkpoint
from scgap._model import FORMAT_VERSION
from scgap._train import Progress, Report

N_EXAMPLES = settings().max_examples  # 100, and 2,000 in the nightly profile
MOST = 30  # times its size that a file may take in memory: a list in JSON is 21 times as large once it is read
SOURCES = sorted(Path(scgap.__file__).parent.rglob("*.py"))
RUNS_CODE = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "torch",
    "yaml",
    "runpy",
    "code",
}
DATA = Path(__file__).parent / "data"


def given_files(n, **strategies):
    """As many hostile inputs as a test tries, the same in every run of the quick suite."""
    options = {
        "derandomize": N_EXAMPLES <= 100,
        "suppress_health_check": list(HealthCheck),
        "phases": set(Phase) - {Phase.explain},
    }
    return lambda test: settings(max_examples=n, deadline=None, **options)(given(**strategies)(test))


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """A map's file."""
    path = tmp_path_factory.mktemp("valid") / "map.safetensors"
    scgap.write_transport(fitted(), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def reads(folder, content):
    """Whether a file is read; if it is not, that it is refused as it should be, and what it takes is bounded."""
    path = folder / "map.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        worked = check(scgap.read_transport, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20 + MOST * len(content)
    return worked


# --- no code in files -----------------------------------------------------------------------------------------------


def executing(tree):
    """What in a source file could run what it reads."""
    for node in ast.walk(tree):
        names = [alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)]
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from {name.split(".")[0] for name in names if isinstance(node, ast.Import | ast.ImportFrom)} & RUNS_CODE
        if isinstance(node, ast.Call):
            yield from {getattr(node.func, "id", "")} & {"eval", "exec", "compile", "__import__"}
            yield from {getattr(node.func, "attr", "")} & {"read_pickle", "to_pickle", "load_module", "exec_module"}
            yield from (word.arg for word in node.keywords if word.arg == "allow_pickle")


def test_no_source_file_can_run_what_it_reads():
    assert len(SOURCES) > 50
    assert {str(path): found for path in SOURCES if (found := [*executing(ast.parse(path.read_text()))])} == {}


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from joblib import load", "np.load(f, allow_pickle=True)", "import torch.nn", "eval(text)"],
)
def test_what_could_run_is_found(line):
    assert [*executing(ast.parse(line))]


# --- maps -----------------------------------------------------------------------------------------------------------


def test_an_untouched_file_is_read(valid, folder):
    assert reads(folder, valid.read_bytes())
    assert reads(folder, assembled(*parts(valid.read_bytes())))


@given_files(3 * N_EXAMPLES if N_EXAMPLES <= 100 else 5 * N_EXAMPLES, data=st.data())
def test_hostile_files_are_refused_in_words(data, valid, folder):
    if reads(folder, data.draw(files(valid, "scgap"))):
        # Changed so that it still is a map: then it has to predict, or say why not.
        adata = AnnData(fitted().X, obs=fitted().obs.iloc[:, :3], var=fitted().var)
        adata.uns["scgap"] = scgap.read_transport(folder / "map.safetensors")
        check(scgap.tl.predict, adata, "A 1")


def broken(header, tensors):
    """Files with one thing wrong each."""
    plain = json.loads(header["__metadata__"]["scgap"])
    name = "/weights/network/displacement/kernel"

    def with_tensor(**fields):
        return assembled({**header, name: {**header[name], **fields}}, tensors)

    def with_plain(text):
        return assembled({**header, "__metadata__": {"scgap": text}}, tensors)

    def with_setting(old, new):
        assert old in plain["params"]
        return with_plain(json.dumps({**plain, "params": plain["params"].replace(old, new)}))

    def without(lost):
        return assembled({key: value for key, value in header.items() if key != lost}, tensors)

    start, stop = header[name]["data_offsets"]
    nan = tensors[:start] + struct.pack("<f", np.nan) + tensors[start + 4 :]
    deep = json.dumps({**plain, "history": "DEEP"}).replace('"DEEP"', "[" * 10**5 + "]" * 10**5)
    return {
        "empty": b"",
        "zeros": bytes(100),
        "wrong magic": b"\x80\x04\x95" + assembled(header, tensors)[3:],
        "a zip": b"PK\x03\x04" + bytes(200),
        "long header": struct.pack("<Q", 2**63) + b"{}",
        "100 MB header": struct.pack("<Q", 99_000_000) + b"{}",
        "shape": with_tensor(shape=[10**12, 10**12]),
        "more than there is": with_tensor(shape=[10**6], data_offsets=[0, 4 * 10**6]),
        "negative": with_tensor(data_offsets=[-4, 0]),
        "backwards": with_tensor(data_offsets=[stop, start]),
        "type": with_tensor(dtype="PICKLE"),
        "other type": with_tensor(dtype="BF16", shape=[(stop - start) // 2]),
        "reshaped": with_tensor(shape=[1, *header[name]["shape"]]),
        "turned": with_tensor(shape=header[name]["shape"][::-1]),
        "NaN": assembled(header, nan),
        "missing tensor": without(name),
        "no metadata": without("__metadata__"),
        "no JSON": with_plain("not JSON"),
        "deep": with_plain(deep),
        "long number": with_plain('{"format_version": ' + "9" * 10_000 + "}"),
        "another version": with_plain(json.dumps({**plain, "format_version": 99})),
        "no version": with_plain(json.dumps({**plain, "format_version": "x"})),
        "paths": with_plain(json.dumps({**plain, "embedding": {"array": "../../../../etc/passwd"}})),
        "a class": with_plain(json.dumps({**plain, "params": {"__reduce__": ["os.system", "true"]}})),
        "settings": with_plain(json.dumps({**plain, "params": "{}"})),
        "wide": with_setting('"hidden": [8]', '"hidden": [10000000000]'),
        **{
            f"detail {value}": with_setting('"detail_of_sums": 1.0', f'"detail_of_sums": {value}')
            for value in ("1", "NaN", "1.5", "-0.5", '"1.0"', "null", "[1.0]")
        },
    }


def test_one_thing_wrong_is_refused(valid, folder):
    accepted = [name for name, content in broken(*parts(valid.read_bytes())).items() if reads(folder, content)]
    assert accepted == []


WATCHED = """
import resource, sys
import scgap

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

scgap.read_transport(sys.argv[1])  # loads what reading takes
before, events = megabytes(), []
sys.addaudithook(lambda event, arguments: event == "builtins.id" or events.append(event))
for path in sys.argv[2:]:
    try:
        scgap.read_transport(path)
    except ValueError:
        pass
    else:
        raise AssertionError(path)
assert not events, events  # nothing imported, run, connected, written or removed; safetensors reads past the hook
print(megabytes() - before)
"""


def test_hostile_files_take_little_memory_and_run_nothing(valid, tmp_path):
    for i, content in enumerate(broken(*parts(valid.read_bytes())).values()):
        (tmp_path / f"{i}").write_bytes(content)
    paths = [str(path) for path in (valid, *sorted(tmp_path.iterdir()))]
    result = subprocess.run([sys.executable, "-c", WATCHED, *paths], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 40  # MB, of files of 0.2 MB at most, one of which claims a header of 99 MB


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_maps_of_every_version_predict_as_they_did(version):
    stored = scgap.read_transport(DATA / f"transport_{version}.safetensors")
    content = json.loads((DATA / f"transport_{version}.json").read_text())
    adata = AnnData(np.array(content["cells"], np.float32))
    adata.var_names = [f"feature_{i}" for i in range(adata.n_vars)]
    adata.obs["cell_line"] = content["cell_line"]
    adata.uns["scgap"] = stored
    for one in content["expected"]:
        scgap.tl.predict(adata, one["query"], source=np.ones(adata.n_obs, bool))
        np.testing.assert_allclose(adata.layers["scgap"], one["predicted"], rtol=1e-4, atol=1e-4)
        assert np.abs(adata.layers["scgap"] - adata.X).max() > 0.01


# --- checkpoints ----------------------------------------------------------------------------------------------------


FRESH = Progress({"a": np.ones((2, 3), np.float32), "b": np.int32(0)}, {"a": np.zeros(4, np.float32)}, [])


@pytest.fixture(scope="module")
def checkpoint(folder):
    path = folder / "valid.safetensors"
    write_checkpoint(path, FRESH._replace(history=[Report(5, 0.1, 0.2, 0.3)]), "mine")
    return path


def test_an_untouched_checkpoint_is_read(checkpoint):
    assert read_checkpoint(checkpoint, FRESH, "mine").history == [Report(5, 0.1, 0.2, 0.3)]


@given_files(3 * N_EXAMPLES if N_EXAMPLES <= 100 else 5 * N_EXAMPLES, data=st.data())
def test_hostile_checkpoints_are_refused_in_words(data, checkpoint, folder):
    path = folder / "run.safetensors"
    path.write_bytes(data.draw(files(checkpoint, "history")))
    try:
        progress = read_checkpoint(path, FRESH, "mine")
    except ValueError as error:
        if complaint := fault(error, scgap.tl.fit_transport):
            raise AssertionError(complaint) from error
        return
    assert progress.state["a"].shape == (2, 3)
    assert all(isinstance(report, Report) for report in progress.history)


# --- uns ------------------------------------------------------------------------------------------------------------


@cache
def curve():
    """What a sound map makes of the conditions."""
    return scgap.tl.screen(fitted(), progress=False)


def write(adata):
    with TemporaryDirectory() as folder:
        return check(scgap.write_transport, adata, f"{folder}/map.safetensors")


READERS = {
    "predict": lambda adata: check(scgap.tl.predict, adata, "A 1", key_added="mine"),
    "resolve": lambda adata: check(scgap.tl.resolve, adata, "A"),
    "screen": lambda adata: check(scgap.tl.screen, adata, progress=False),
    "evaluate": lambda adata: check(scgap.tl.evaluate, adata, metrics="mean_error"),
    "moments": lambda adata: check(scgap.pl.moments, adata, moments="mean", show=False),
    "scores": lambda adata: check(scgap.pl.scores, adata, show=False),
    "conditions": lambda adata: check(scgap.pl.conditions, adata, show=False),
    "history": lambda adata: check(scgap.pl.history, adata, show=False),
    "transport": lambda adata: check(scgap.pl.transport, adata, show=False),
    "dose_response": lambda adata: check(scgap.pl.dose_response, adata, curve(), features="f0", show=False),
    "write_transport": write,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_sound_map_is_read(reader):
    assert READERS[reader](fitted().copy())


@pytest.mark.parametrize("reader", READERS)
@given_files(max(5, N_EXAMPLES // 8), data=st.data())
def test_changed_uns_is_refused_in_words(reader, data):
    adata = fitted().copy()
    adata.uns["scgap"] = data.draw(changed_uns(lambda: dict(fitted().uns["scgap"])))
    READERS[reader](adata)
