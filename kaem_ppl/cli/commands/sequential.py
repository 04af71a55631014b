"""`kaem train-sequential`: one run after another; a failed one does not stop the rest, and complete ones are skipped."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ...models import DATASETS
from ..errors import CommandError, Stopped
from ..messages import as_command, print_result
from ..parser import given_flags, parse_arguments
from ..settings.config import Config, differences, resolve
from ..settings.tables import MODE_ALIASES, STRATEGIES
from ..stopping import PARENT_VARIABLE, StopSignals
from ..storage.run_folder import MAY_CHANGE, RunFolder, run_folders


class Job(NamedTuple):
    """A line of the file.

    Attributes:
        words: of the line.
        arguments: of `kaem train`.
        config: its settings.
        folder: given by `--run-dir`; None for one named by the settings.
    """

    words: str
    arguments: tuple[str, ...]
    config: Config
    folder: Path | None


def read_jobs(file: Path) -> list[Job]:
    """Read lines of DATASET MODE, perhaps followed by flags of `kaem train`; # starts a comment.

    Raises:
        CommandError: the file is missing or has no job, or a line is something else or has wrong settings.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} can't be read: expected a text file of lines DATASET MODE. {error}") from None
    jobs = []
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise CommandError(f"{file}, line {number}: {error}.") from None
        if not words:
            continue
        if len(words) < 2 or words[0] not in DATASETS or words[1] not in (*STRATEGIES, *MODE_ALIASES):
            raise CommandError(
                f"{file}, line {number} is {line.strip()!r}: expected DATASET MODE, one of {', '.join(DATASETS)} and one "
                f"of {', '.join(STRATEGIES)}."
            )
        try:
            jobs.append(_parse_job(words))
        except CommandError as error:
            raise CommandError(f"{file}, line {number}: {error}") from None
    if not jobs:
        raise CommandError(f"{file} has no job: expected lines DATASET MODE.")
    return jobs


def _parse_job(words: list[str]) -> Job:
    dataset, mode, *flags = words
    arguments = ("train", mode, "--dataset", dataset, *flags)
    options = parse_arguments(arguments)
    if options.resume is not None or options.distributed:
        raise CommandError("--resume and --distributed have no meaning here: a stopped job is resumed by itself.")
    given = given_flags(options)
    config = resolve(options.dataset, options.mode, options.config, given, options.seed, options.preset)
    return Job(shlex.join(words), arguments, config, options.run_dir)


def train_sequential(file: Path, signals: StopSignals) -> int:
    """Run all jobs of a file, each in a process of its own, and print their results.

    A job whose run exists, with the same settings, is resumed, or skipped where it is complete.

    Args:
        file: with the jobs.
        signals: that stop them.

    Returns:
        How many failed.

    Raises:
        CommandError: as `read_jobs`.
        Stopped: a signal came; the job of the moment was stopped by it too.
    """
    summary = []
    jobs = read_jobs(file)
    taken: set[Path] = set()
    for number, job in enumerate(jobs, 1):
        print_result(f"[{number} of {len(jobs)}] {job.words}")
        started = time.perf_counter()
        folder = _choose_folder(job, taken)
        taken.add(folder.path)
        is_old = (folder.path / "config.toml").is_file()
        status = _run(
            ("train", "--resume", str(folder.path), *_epochs(job)) if is_old else _with_folder(job, folder),
            file,
            signals,
        )
        summary.append((job.words, status, time.perf_counter() - started))
    width = max(len(words) for words, _, _ in summary)
    for words, status, seconds in summary:
        print_result(f"{words:{width}}  {'done' if status == 0 else f'failed, status {status}'}  {seconds:.0f} s")
    return sum(status != 0 for _, status, _ in summary)


def _choose_folder(job: Job, taken: set[Path]) -> RunFolder:
    """The folder of a job: the run of the same settings, or a new one."""
    if job.folder is not None:
        return RunFolder(job.folder)
    for folder in run_folders(job.config):
        if folder.path in taken:
            continue
        if not folder.path.exists():
            return folder
        if (folder.path / "config.toml").is_file() and not differences(folder.read_config(), job.config, MAY_CHANGE):
            return folder
    raise AssertionError("there is always a new folder")


def _epochs(job: Job) -> tuple[str, ...]:
    return ("--num-epochs", str(job.config.training.num_epochs))


def _with_folder(job: Job, folder: RunFolder) -> tuple[str, ...]:
    return job.arguments if job.folder is not None else (*job.arguments, "--run-dir", str(folder.path))


def _run(arguments: tuple[str, ...], file: Path, signals: StopSignals) -> int:
    """Run `kaem` in a process that ends with this one."""
    command = [sys.executable, "-m", "kaem_start", *arguments]
    process = subprocess.Popen(command, env=os.environ | {PARENT_VARIABLE: str(os.getpid())})
    try:
        return process.wait()
    except Stopped as stopped:
        # The child must be waited for, whatever else comes. Ctrl-C reaches it by itself; a second signal does not hurt.
        signals.acknowledge()
        process.terminate()
        process.wait()
        raise Stopped(stopped.signal, f"Continue by {as_command('train-sequential', file)}.") from None
    finally:
        if process.poll() is None:
            process.terminate()
