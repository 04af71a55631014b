"""Locks, signals and progress: one process for each run, stops that finish a checkpoint, and lines in a log."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

from kaem_ppl.cli import main
from kaem_ppl.cli.errors import CommandError, Stopped
from kaem_ppl.cli.settings.config import resolve
from kaem_ppl.cli.stopping import StopSignals
from kaem_ppl.cli.storage.lock import locked
from kaem_ppl.saving import files
from kaem_ppl.saving.files import FolderInUseError

JOB = "DIGITS importance --num-train 32 --num-latents 2 --num-components 1 --num-basis 5 --hidden 8 --batch-size 8"


def test_a_folder_has_one_owner(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(CommandError, match=f"being trained by process {os.getpid()}"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        assert int((tmp_path / ".lock").read_text()) == os.getpid()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_at_once_but_not_what_is_deferred(number):
    signals, before = StopSignals(), signal.getsignal(number)
    with signals.handled():
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), number)
        assert stopped.value.signal == number
        # As if a callback of the garbage collector had swallowed it.
        with pytest.raises(Stopped):
            signals.check()
        # While the first one is dealt with, and from when it is, others do no harm.
        os.kill(os.getpid(), signal.SIGTERM)
        signals.acknowledge()
        signals.check()
        os.kill(os.getpid(), signal.SIGINT)
        signals.check()
    assert signal.getsignal(number) is before
    signals, done = StopSignals(), []

    def save():
        with signals.deferred():
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            done.append(True)

    with signals.handled(), pytest.raises(Stopped):
        save()
    assert done == [True]


def test_a_signal_that_a_library_reports_as_another_error_stops():
    # As JAX's C++ code, which calls `__eq__` of the keys of its caches, makes a ValueError of any exception in it.
    signals = StopSignals()

    def compare():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except BaseException as error:
            raise ValueError("Cache keys should be comparable.") from error

    with signals.handled(), pytest.raises(Stopped) as stopped, signals.restored():
        compare()
    assert stopped.value.signal == signal.SIGTERM
    with signals.handled(), pytest.raises(ValueError, match="of our own"), StopSignals().restored():
        raise ValueError("of our own")


@pytest.mark.parametrize("where", ["garbage collector", "weak reference", "__del__"])
def test_a_signal_where_nothing_can_be_raised_is_delivered_afterwards(capfd, where):
    signals, calls = StopSignals(), []

    def send(*_):
        if not calls:
            calls.append(where)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    class Dies:
        def __del__(self):
            if where == "__del__":
                send()

    def let_go_and_wait():
        dies = Dies()
        reference = weakref.ref(dies, send if where == "weak reference" else None)
        if where == "garbage collector":
            gc.callbacks.append(send)
            gc.collect()
        del dies
        time.sleep(5)
        return reference

    try:
        with signals.handled(), pytest.raises(Stopped):
            let_go_and_wait()
    finally:
        if send in gc.callbacks:
            gc.callbacks.remove(send)
    assert calls == [where]
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads which signals are handled in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_while_jax_is_imported(number):
    process = subprocess.Popen([sys.executable, "-m", "kaem_start", "--version"], stderr=subprocess.PIPE, text=True)
    handled = 0
    # From when signals are handled the import takes far longer than to send one.
    while not handled >> (signal.SIGTERM - 1) & 1:
        assert process.poll() is None
        status = Path(f"/proc/{process.pid}/status").read_text()
        handled = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == "kaem: stopped.\n"
    assert process.returncode == 128 + number


def test_a_run_is_locked_before_its_checkpoint_is_read(tmp_path, monkeypatch):
    # Read before, it may be an old one, of a process that ends meanwhile.
    (tmp_path / "config.toml").write_text(resolve("DIGITS", "importance", None, {}).to_toml())
    found = []

    def load_last(*_):
        with pytest.raises(FolderInUseError), files.locked(tmp_path):
            pass
        found.append(True)
        raise CommandError("enough")

    monkeypatch.setattr("kaem_ppl.cli.storage.checkpoints.Checkpoints.load_last", load_last)
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert found == [True]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_child_ends_with_its_parent(tmp_path, number, status):
    pytest.importorskip("orbax.checkpoint")
    (tmp_path / "jobs.txt").write_text(f"{JOB} --num-epochs 1000000\n")
    command = [sys.executable, "-m", "kaem_ppl.cli", "train-sequential", "jobs.txt"]
    parent = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "runs" / "digits-importance"
    deadline = time.monotonic() + 200
    while not (folder / ".lock").exists() or not (folder / ".lock").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child = int((folder / ".lock").read_text())
    time.sleep(2)
    parent.send_signal(number)
    assert parent.wait(60) == status
    while Path(f"/proc/{child}").exists() and "zombie" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if number == signal.SIGTERM:
        error = parent.stderr.read()
        assert "Continue by `kaem train-sequential jobs.txt`" in error
        assert "Traceback" not in error
    parent.stderr.close()
