"""Kills, full disks, read-only folders and damaged files: nothing is lost, and the message says what to do."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save

import scgap
from scgap import _files, _further_maps, _train
from scgap.tl import _fit_transport

CHILD = Path(__file__).parent / "killed_fit.py"


@pytest.fixture
def fit(settings):
    """A short fit; what it put in uns."""

    def run(adata, **other):
        scgap.tl.fit_transport(adata, **{**settings, "n_iters": 40, **other})
        return adata.uns["scgap"]

    return run


@pytest.fixture
def failing(monkeypatch):
    """Make a call of the system fail as a full disk does."""

    def fail(where, name, code=errno.ENOSPC):
        def refuse(*args, **options):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(where, name, refuse)

    return fail


# --- kills ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Start the tiny fit in a process of its own, which compiles what no earlier one has."""
    cache = tmp_path_factory.mktemp("compiled")
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0"}

    def start(checkpoint, written):
        command = [sys.executable, "-W", "ignore", str(CHILD), str(checkpoint), str(written)]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        with child.stdout:
            assert child.stdout.readline() == "ready\n"
        return child

    return start


@pytest.fixture(scope="module")
def unbroken(run, tmp_path_factory):
    """The file of the map that no kill came in between of, and the seconds it takes once all is compiled."""
    folder = tmp_path_factory.mktemp("unbroken")
    for name in ("compiling", "compiled"):
        child, start = run(folder / f"{name}-run.safetensors", folder / name), time.perf_counter()
        assert child.wait() == 0
        seconds = time.perf_counter() - start
    assert (folder / "compiling").read_bytes() == (folder / "compiled").read_bytes()
    return (folder / "compiled").read_bytes(), seconds


@pytest.mark.parametrize("n_kills", [pytest.param(2, id="2"), pytest.param(20, id="20", marks=pytest.mark.slow)])
def test_a_killed_fit_goes_on_to_the_same_map(n_kills, run, unbroken, tmp_path):
    content, seconds = unbroken
    checkpoint, written = tmp_path / "run.safetensors", tmp_path / "map.safetensors"
    rng = np.random.default_rng(n_kills)
    kills = resumed = 0
    while kills < n_kills:
        resumed += checkpoint.exists()
        child = run(checkpoint, written)
        time.sleep(rng.uniform(0.0, seconds))
        child.kill()
        if child.wait() == -signal.SIGKILL:
            kills += 1
        if written.exists():  # it was done before: the next one starts anew
            assert written.read_bytes() == content
            written.unlink()
            checkpoint.unlink()
    assert run(checkpoint, written).wait() == 0
    assert written.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.safetensors", "run.safetensors"]
    assert resumed or n_kills < 20


@pytest.mark.parametrize("stage", ["fit", "others"])
def test_ctrl_c_keeps_what_was_learned_and_says_so(screen, fit, monkeypatch, stage):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    if stage == "fit":
        monkeypatch.setattr(_fit_transport, "_on_report", interrupt)
    else:
        monkeypatch.setattr(_further_maps, "fit_others", interrupt)
    with pytest.warns(UserWarning, match="Interrupted .*kept"):
        stored = fit(screen, n_maps=1 if stage == "fit" else 2)
    assert len(stored["history"]) == (1 if stage == "fit" else 40)


def test_after_ctrl_c_a_checkpoint_leads_to_the_map_of_an_unbroken_fit(screen, fit, same, monkeypatch, tmp_path):
    path, report, seen = tmp_path / "run.safetensors", _fit_transport._on_report, []

    def interrupt_at_the_third(*args):
        report(*args)
        seen.append(args)
        if len(seen) == 3:
            raise KeyboardInterrupt

    unbroken = fit(screen.copy(), n_maps=2)
    with monkeypatch.context() as patch:
        patch.setattr(_fit_transport, "_on_report", interrupt_at_the_third)
        with pytest.warns(UserWarning, match="Interrupted .*kept"):
            assert len(fit(screen, n_maps=2, checkpoint=path)["history"]) == 3
    assert same(fit(screen, n_maps=2, checkpoint=path), unbroken)


# --- disks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(screen, fit, failing, refused, same, tmp_path, code):
    path = tmp_path / "run.safetensors"
    report, seen = _fit_transport._on_report, []

    def full_after_five(*args):
        seen.append(path.read_bytes() if path.exists() else b"")
        if len(seen) == 6:
            failing(os, "fsync", code)
        report(*args)

    with pytest.MonkeyPatch.context() as patch, refused(screen, OSError):
        patch.setattr(_fit_transport, "_on_report", full_after_five)
        fit(screen, checkpoint=path)
    assert path.read_bytes() == seen[5] != seen[4]
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_the_message_of_a_full_disk_says_what_to_do(fitted, failing, tmp_path):
    path = tmp_path / "map.safetensors"
    scgap.write_transport(fitted, path)
    content = path.read_bytes()
    fitted.uns["scgap"]["weights"]["centre"] += 1.0
    failing(os, "fsync")
    with pytest.raises(OSError, match=r"map\.safetensors' could not be written \(No space left") as caught:
        scgap.write_transport(fitted, path)
    assert caught.value.errno == errno.ENOSPC
    assert "an earlier file of that name is as it was. Make room there, or pass" in str(caught.value)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["map.safetensors"]


@pytest.mark.parametrize("name", ["open", "replace"])
def test_each_step_of_writing_may_fail(fitted, tmp_path, name):
    path = tmp_path / "map.safetensors"
    scgap.write_transport(fitted, path)
    content = path.read_bytes()
    fitted.uns["scgap"]["weights"]["centre"] += 1.0

    def refuse(*args):
        raise OSError(errno.ENOSPC, "No space left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, name, refuse)
        with pytest.raises(OSError, match="could not be written"):
            scgap.write_transport(fitted, path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["map.safetensors"]


def test_a_file_is_synced_before_it_takes_its_name_and_its_folder_after(fitted, tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, Path.replace

    def note(file):
        calls.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        sync(file)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    scgap.write_transport(fitted, tmp_path / "map.safetensors")
    assert calls == ["file", "replace", "folder"]


def test_interrupts_while_writing_leave_no_half_file(fitted, tmp_path, monkeypatch):
    def interrupt(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        scgap.write_transport(fitted, tmp_path / "map.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 kB, where the machine lets us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("making a file system takes the rights of an administrator")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(fitted, full_disk):
    path = full_disk / "map.safetensors"
    path.write_bytes(b"earlier")
    (full_disk / "other").write_bytes(bytes(40_000))
    with pytest.raises(OSError, match="No space left"):
        scgap.write_transport(fitted, path)
    assert path.read_bytes() == b"earlier"
    assert sorted(file.name for file in full_disk.iterdir()) == ["map.safetensors", "other"]


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may write into any folder")
def test_a_folder_that_is_read_only(screen, fit, refused, tmp_path):
    tmp_path.chmod(0o500)
    with refused(screen, OSError):
        fit(screen, checkpoint=tmp_path / "run.safetensors")
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_read_only(screen, fit, refused, full_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(full_disk)], check=True)
    with refused(screen, OSError):
        fit(screen, checkpoint=full_disk / "run.safetensors")
    assert list(full_disk.iterdir()) == []


def test_a_folder_is_no_file(screen, fitted, fit, refused, tmp_path):
    words = (str(tmp_path), "is a folder", "Pass the path of a file")
    with refused(screen, ValueError, *words):
        fit(screen, checkpoint=tmp_path)
    with refused(fitted, ValueError, *words):
        scgap.write_transport(fitted, tmp_path)


# --- damage ---------------------------------------------------------------------------------------------------------


def damaged(content, n=40):
    """The file cut at, and with one bit changed at, places drawn at random."""
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), n):
        yield content[:place]
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


def test_a_damaged_map_is_refused(fitted, tmp_path, same):
    path = tmp_path / "map.safetensors"
    scgap.write_transport(fitted, path)
    content = path.read_bytes()
    for bad in damaged(content):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"map\.safetensors is not a map .* damaged"):
            scgap.read_transport(path)
        assert path.read_bytes() == bad
    path.write_bytes(content)
    assert same(scgap.read_transport(path), fitted.uns["scgap"])


def test_a_damaged_checkpoint_is_refused(screen, fit, refused, tmp_path):
    path = tmp_path / "run.safetensors"
    fit(screen, checkpoint=path)
    for bad in damaged(path.read_bytes(), n=4):
        path.write_bytes(bad)
        with refused(screen, ValueError, "run.safetensors is not a checkpoint, or it is damaged", "Delete it"):
            fit(screen, checkpoint=path)
        assert path.read_bytes() == bad


def test_maps_of_before_the_digest_are_read(fitted, tmp_path, monkeypatch, same):
    def save_without_digest(arrays, metadata):
        return save({name: array for name, array in arrays.items() if name != "digest"}, metadata)

    monkeypatch.setattr(_files, "save", save_without_digest)
    scgap.write_transport(fitted, tmp_path / "map.safetensors")
    assert same(scgap.read_transport(tmp_path / "map.safetensors"), fitted.uns["scgap"])


# --- losses that are not finite -------------------------------------------------------------------------------------


@contextmanager
def diverging(n):
    """From the n-th report on, all weights and losses are NaN."""
    advance, calls = _train._advance, []

    def diverge(*args, **options):
        calls.append(args)
        done = advance(*args, **options)
        return jax.tree.map(lambda x: x * np.nan if x.dtype == np.float32 else x, done) if len(calls) >= n else done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_train, "_advance", diverge)
        yield


def test_a_run_that_diverges_keeps_its_best_weights_and_says_so(screen, fit, tmp_path, same):
    seen, report = [], _fit_transport._on_report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fit_transport, "_on_report", lambda *args: (seen.append(args[-1]), report(*args)))
        unbroken = fit(screen.copy())
    path = tmp_path / "run.safetensors"
    with (
        diverging(4),
        pytest.raises(
            FloatingPointError,
            match=r"At iteration 4 .*last finite loss.*epsilon=.*Lower learning_rate, raise epsilon.*"
            r"uns\['scgap'\] holds the best weights of the 3 iterations before",
        ),
    ):
        fit(screen, checkpoint=path)
    kept = screen.uns["scgap"]
    assert kept["history"]["valid"].tolist() == [report.valid for report in seen[2].history]
    np.testing.assert_array_equal(kept["weights"]["encoding"], seen[2].best["encoding"])
    scgap.tl.predict(screen, {"perturbation": "drug_1", "dose_value": 100.0})
    again = fit(screen, checkpoint=path)  # goes on from the last finite report
    assert len(again["history"]) == 40
    assert same(again["weights"], unbroken["weights"])


def test_a_run_that_diverges_at_once_or_on_a_copy_leaves_the_object(screen, fit, refused):
    with diverging(1), refused(screen, FloatingPointError, "At iteration 1 ", "last finite loss: none", "epsilon="):
        fit(screen)
    with diverging(4), refused(screen, FloatingPointError, "At iteration 4 ", "Lower learning_rate, raise epsilon"):
        fit(screen, copy=True)


def test_a_fold_that_diverges_does_not_cost_the_map(screen, fit, monkeypatch):
    def diverge(*args, **options):
        raise FloatingPointError("at iteration 3")

    monkeypatch.setattr(_further_maps, "fit_without", diverge)
    with pytest.warns(UserWarning, match=r"diverged \(at iteration 3\): what was trained before is kept"):
        stored = fit(screen, n_maps=2, condition_folds=2)
    assert "validation" not in stored
    assert "others" in stored
