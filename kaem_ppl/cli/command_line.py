"""Run the command `kaem`: dispatch to its commands, and report errors in one line with an exit status."""

import argparse
import errno
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from ..models import fetch_dataset
from ..progress import Progress
from .errors import CommandError, Stopped, is_out_of_memory
from .messages import as_command, one_line_warnings
from .parser import given_flags, parse_arguments
from .settings.config import resolve
from .stopping import StopSignals, end_with_parent
from .storage.results import discard_unfinished, results_folder, unfinished_folder, unfinished_root
from .storage.run_folder import RunFolder, new_run_folder

if TYPE_CHECKING:
    from .storage.saved_run import SavedRun

# Errors of files that no other argument would have avoided.
_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: words after `kaem`; None takes those of this process.

    Returns:
        The exit status, as `kaem --help` lists them.
    """
    signals = StopSignals()
    with signals.handled():
        try:
            end_with_parent()
            options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
            with one_line_warnings(), signals.restored():
                return _COMMANDS[options.command](options, signals) or 0
        except CommandError as error:
            return _report(error, error.status)
        except Stopped as stopped:
            signals.acknowledge()
            return _report(f"stopped. {stopped.advice}", 128 + stopped.signal)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).split("RESOURCE_EXHAUSTED: ")[-1].splitlines() or ["Out of memory"]
            return _report(f"{reason[0].rstrip('.')}. Give smaller numbers, of the model, a batch, or of draws.", 1)
        except (ValueError, ImportError, OSError) as error:
            if not _is_user_error(error):
                raise
            return _report(_say(error), 1 if isinstance(error, OSError) and error.errno in _FAILURES else 2)


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


def _say(error: Exception) -> str:
    # Without the number of an error that is told in a sentence.
    return error.strerror if isinstance(error, OSError) and error.strerror and error.filename is None else str(error)


def _report(error: Exception | str, status: int) -> int:
    print(f"kaem: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status


def _train(options: argparse.Namespace, signals: StopSignals) -> None:
    given = given_flags(options)
    if options.resume is not None:
        _check_resume(options)
        folder = RunFolder(options.resume)
        folder.read_config()
        config = resolve(options.dataset, options.mode, options.resume / "config.toml", given, options.seed)
    else:
        config = resolve(options.dataset, options.mode, options.config, given, options.seed, options.preset)
        folder = None if options.run_dir is None else RunFolder(options.run_dir)
    if options.distributed:
        if options.resume is None and options.run_dir is None:
            raise CommandError("--distributed needs --run-dir: the same folder for all processes.")
        from .building.devices import start_processes

        start_processes()
    is_first = not options.distributed or jax.process_index() == 0
    with Progress(f"reading {config.dataset}", is_shown=is_first, name="kaem"):
        # Only now: inference makes arrays when it is imported, and processes have to join before the first one.
        from .commands.train import resume, train

        folder = folder or new_run_folder(config)
        try:
            with signals.restored():
                (train if options.resume is None else resume)(config, folder, signals)
        except Stopped as stopped:
            signals.acknowledge()
            is_begun = (folder.path / "config.toml").exists()
            again = (
                f"Continue by {as_command('train', '--resume', folder.path)}." if is_begun else _start_again(options)
            )
            raise Stopped(stopped.signal, stopped.advice or again) from None


def _check_resume(options: argparse.Namespace) -> None:
    for name in ("config", "run_dir"):
        if getattr(options, name) is not None:
            raise CommandError(f"--{name.replace('_', '-')} and --resume exclude each other: a run keeps its own.")


def _train_sequential(options: argparse.Namespace, signals: StopSignals) -> int:
    from .commands.sequential import train_sequential

    return 1 if train_sequential(options.jobs, signals) else 0


def _tune(options: argparse.Namespace, signals: StopSignals) -> None:
    with Progress(f"reading {options.dataset}", is_shown=True, name="kaem"):
        from .commands.tune import tune

        try:
            with signals.restored():
                tune(
                    options.dataset, options.judge_by, options.trials, given_flags(options), options.seed, options.preset,
                    RunFolder(options.run_dir), signals,
                )  # fmt: skip
        except Stopped as stopped:
            signals.acknowledge()
            raise Stopped(stopped.signal, _continue(options)) from None


def _convert(options: argparse.Namespace, signals: StopSignals) -> None:
    from .commands.convert import convert

    convert(options.file, options.dataset, options.mode, options.out, options.force)


def _data(options: argparse.Namespace, signals: StopSignals) -> None:
    is_terminal = sys.stderr.isatty()
    # On a terminal the download has a bar of its own.
    with Progress(f"downloading {options.dataset}", is_shown=not is_terminal, name="kaem"):
        folder = fetch_dataset(options.dataset, progress_bar=is_terminal)
    print(f"{options.dataset} is in {folder}")


type _Command = Callable[[argparse.Namespace, StopSignals], int | None]
type _OnRun = Callable[["SavedRun", jax.Array, argparse.Namespace, Path], None]


def _on_run(activity: str, command: _OnRun) -> _Command:
    """A command on a trained run: open it, and write the command's results into a folder of their own."""

    def run(options: argparse.Namespace, signals: StopSignals) -> None:
        folder = RunFolder(options.folder)
        folder.read_config()
        method = getattr(options, "method", None) or getattr(options, "sampler", None)
        name = options.command if method is None else f"{options.command}-{method}"
        with (
            results_folder(folder, name, options.out, options.force) as part,
            Progress(f"reading {folder.path}", is_shown=True, name="kaem") as progress,
        ):
            from .storage.saved_run import open_saved_run

            saved = open_saved_run(folder, options.checkpoint, sys.stderr.isatty())
            progress.begin(activity)
            try:
                with signals.restored():
                    command(saved, jax.random.key(options.seed), options, part)
            except Stopped as stopped:
                signals.acknowledge()
                is_begun = unfinished_root(folder, options.out).exists()
                raise Stopped(stopped.signal, _continue(options) if is_begun else _start_again(options)) from None

    return run


def _sample(run: "SavedRun", key: jax.Array, options: argparse.Namespace, folder: Path) -> None:
    from .commands.sample import sample

    sample(run, key, options.num_samples, folder)


def _evaluate(run: "SavedRun", key: jax.Array, options: argparse.Namespace, folder: Path) -> None:
    from .commands.evaluate import evaluate

    evaluate(run, key, options.num_data, options.num_draws, options.distance, folder)


def _diagnose(run: "SavedRun", key: jax.Array, options: argparse.Namespace, folder: Path) -> None:
    from .commands.diagnose import diagnose

    with _unfinished(run, options) as unfinished:
        diagnose(
            run, key, options.sampler, options.num_data, options.num_chains, options.num_samples,
            options.num_temperatures, folder, unfinished,
        )  # fmt: skip


def _evidence(run: "SavedRun", key: jax.Array, options: argparse.Namespace, folder: Path) -> None:
    from .commands.evidence import evidence

    with _unfinished(run, options) as unfinished:
        evidence(
            run, key, options.method, options.num_data, options.num_chains, options.num_samples,
            options.num_temperatures, folder, unfinished,
        )  # fmt: skip


@contextmanager
def _unfinished(run: "SavedRun", options: argparse.Namespace) -> Iterator[Path]:
    """A folder where work keeps its state, which is removed when its results are written."""
    settings = {name: x for name, x in vars(options).items() if name not in ("folder", "out", "force", "words")}
    folder = unfinished_folder(run.folder, options.command, options.out, run.params, settings)
    yield folder
    discard_unfinished(folder)


def _traverse(run: "SavedRun", key: jax.Array, options: argparse.Namespace, folder: Path) -> None:
    from .commands.latents import traverse

    traverse(run, key, options.num_latents, options.num_points, folder)


def _interpolate(run: "SavedRun", key: jax.Array, options: argparse.Namespace, folder: Path) -> None:
    from .commands.latents import interpolate

    interpolate(run, key, options.num_pairs, options.num_points, options.num_steps, folder)


def _plot(run: "SavedRun", key: jax.Array, options: argparse.Namespace, folder: Path) -> None:
    from .commands.plot import plot

    plot(run, folder)


def _report_run(run: "SavedRun", key: jax.Array, options: argparse.Namespace, folder: Path) -> None:
    from .commands.report import report

    report(run, key, folder)


def _continue(options: argparse.Namespace) -> str:
    return f"Continue by {as_command(*options.words)}."


def _start_again(options: argparse.Namespace) -> str:
    return f"Start again by {as_command(*options.words)}."


_COMMANDS: dict[str, _Command] = {
    "train": _train,
    "train-sequential": _train_sequential,
    "tune": _tune,
    "convert": _convert,
    "data": _data,
    "sample": _on_run("compiling and drawing samples", _sample),
    "evaluate": _on_run("compiling and evaluating held-out data", _evaluate),
    "diagnose": _on_run("compiling and drawing from posteriors", _diagnose),
    "evidence": _on_run("compiling and estimating the log-evidence", _evidence),
    "plot": _on_run("plotting", _plot),
    "report": _on_run("compiling and drawing samples", _report_run),
    "traverse": _on_run("compiling and moving latents", _traverse),
    "interpolate": _on_run("compiling and drawing from posteriors", _interpolate),
}
