"""Run the command `kaem`: dispatch to its commands, and report errors in one line with an exit status."""

import argparse
import linecache
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax

from ..models import fetch_dataset
from .errors import CommandError, Stopped
from .parser import given_flags, parse_arguments
from .progress import ProgressLog
from .settings.config import resolve
from .stopping import StopSignals, end_with_parent
from .storage.run_folder import RunFolder, new_run_folder

if TYPE_CHECKING:
    from .storage.saved_run import SavedRun


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: words after `kaem`; None takes those of this process.

    Returns:
        The exit status, as `kaem --help` lists them.
    """
    try:
        end_with_parent()
        options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        return _COMMANDS[options.command](options) or 0
    except CommandError as error:
        return _report(error, error.status)
    except Stopped as stopped:
        return _report(f"stopped. {stopped.advice}", 128 + stopped.signal)
    except KeyboardInterrupt:
        return _report("stopped.", 130)
    except (ValueError, ImportError, OSError) as error:
        if not _is_user_error(error):
            raise
        return _report(error, 2)


def _is_user_error(error: Exception) -> bool:
    """Whether the message says what to do: an unusable file, a package to install, or a value refused by this package.

    Any other error of these kinds is a bug, whose traceback is worth more than one line.
    """
    if isinstance(error, OSError):
        return True
    if isinstance(error, ModuleNotFoundError):
        return not (error.name or "").startswith("kaem_ppl")
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    statement = linecache.getline(frame.f_code.co_filename, line).strip()
    return frame.f_globals["__name__"].startswith("kaem_ppl.") and statement.startswith("raise ")


def _report(error: Exception | str, status: int) -> int:
    print(f"kaem: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status


def _train(options: argparse.Namespace) -> None:
    given = given_flags(options)
    if options.resume is not None:
        _check_resume(options)
        folder = RunFolder(options.resume)
        folder.read_config()
        config = resolve(options.dataset, options.mode, options.resume / "config.toml", given, options.seed)
    else:
        config = resolve(options.dataset, options.mode, options.config, given, options.seed)
        folder = new_run_folder(config) if options.run_dir is None else RunFolder(options.run_dir)
    if options.distributed:
        if options.resume is None and options.run_dir is None:
            raise CommandError("--distributed needs --run-dir: the same folder for all processes.")
        from .building.devices import start_processes

        start_processes()
    # Only now: inference makes arrays when it is imported, and processes have to join before the first one.
    from .commands.train import resume, train

    signals, is_terminal = StopSignals(), sys.stderr.isatty()
    with signals.handled(), ProgressLog(f"reading {config.dataset}", not is_terminal) as log:
        run = train if options.resume is None else resume
        run(folder=folder, config=config, progress_bar=is_terminal, log=log, signals=signals)


def _check_resume(options: argparse.Namespace) -> None:
    for name in ("config", "run_dir"):
        if getattr(options, name) is not None:
            raise CommandError(f"--{name.replace('_', '-')} and --resume exclude each other: a run keeps its own.")


def _train_sequential(options: argparse.Namespace) -> int:
    from .commands.sequential import train_sequential

    signals = StopSignals()
    with signals.handled():
        return 1 if train_sequential(options.jobs) else 0


def _data(options: argparse.Namespace) -> None:
    is_terminal = sys.stderr.isatty()
    with ProgressLog(f"downloading {options.dataset}", not is_terminal):
        folder = fetch_dataset(options.dataset, progress_bar=is_terminal)
    print(f"{options.dataset} is in {folder}")


def _on_run(activity: str, command: Callable[["SavedRun", jax.Array, argparse.Namespace], None]) -> Callable:
    """A command on a trained run: open it, and run the command with a log of its activity."""

    def run(options: argparse.Namespace) -> None:
        folder = RunFolder(options.folder)
        folder.read_config()
        folder.check_writable()
        with ProgressLog(f"reading {folder.path}", not sys.stderr.isatty()) as log:
            from .storage.saved_run import open_run

            saved = open_run(folder, options.checkpoint, sys.stderr.isatty())
            log.update(activity)
            command(saved, jax.random.key(options.seed), options)

    return run


def _sample(run: "SavedRun", key: jax.Array, options: argparse.Namespace) -> None:
    from .commands.sample import sample

    sample(run, key, options.num_samples)


def _evaluate(run: "SavedRun", key: jax.Array, options: argparse.Namespace) -> None:
    from .commands.evaluate import evaluate

    evaluate(run, key, options.num_data, options.num_draws)


def _diagnose(run: "SavedRun", key: jax.Array, options: argparse.Namespace) -> None:
    from .commands.diagnose import diagnose

    diagnose(
        run, key, options.sampler, options.num_data, options.num_chains, options.num_samples, options.num_temperatures,
        sys.stderr.isatty(),
    )  # fmt: skip


def _evidence(run: "SavedRun", key: jax.Array, options: argparse.Namespace) -> None:
    from .commands.evidence import evidence

    evidence(
        run, key, options.method, options.num_data, options.num_chains, options.num_samples, options.num_temperatures,
        sys.stderr.isatty(),
    )  # fmt: skip


def _plot(run: "SavedRun", key: jax.Array, options: argparse.Namespace) -> None:
    from .commands.plot import plot

    plot(run)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "train": _train,
    "train-sequential": _train_sequential,
    "data": _data,
    "sample": _on_run("compiling and drawing samples", _sample),
    "evaluate": _on_run("compiling and evaluating held-out data", _evaluate),
    "diagnose": _on_run("compiling and drawing from posteriors", _diagnose),
    "evidence": _on_run("compiling and estimating the log-evidence", _evidence),
    "plot": _on_run("plotting", _plot),
}
