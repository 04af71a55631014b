"""`kaem train-sequential`: one run after another; one that fails does not stop the rest."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from ..models import DATASETS
from .config import STRATEGIES
from .errors import CommandError
from .messages import say


def read_jobs(file: Path) -> list[list[str]]:
    """Read lines of DATASET MODE and perhaps flags of `kaem train`; what follows a # is a comment.

    Returns:
        Words of each line.

    Raises:
        CommandError: the file is missing, has no job, or a line is something else.
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
        if len(words) < 2 or words[0] not in DATASETS or words[1] not in STRATEGIES:
            raise CommandError(
                f"{file}, line {number} is {line.strip()!r}: expected DATASET MODE, one of {', '.join(DATASETS)} and one "
                f"of {', '.join(STRATEGIES)}."
            )
        jobs.append(words)
    if not jobs:
        raise CommandError(f"{file} has no job: expected lines DATASET MODE.")
    return jobs


def train_sequential(file: Path) -> int:
    """Run all jobs of a file, each in a process of its own, and print what became of them.

    Returns:
        How many failed.

    Raises:
        CommandError: as `read_jobs`.
    """
    summary = []
    jobs = read_jobs(file)
    for number, (dataset, mode, *flags) in enumerate(jobs, 1):
        words = shlex.join([dataset, mode, *flags])
        say(f"[{number} of {len(jobs)}] {words}")
        started = time.perf_counter()
        command = [sys.executable, "-m", "kaem_ppl.cli", "train", mode, "--dataset", dataset, *flags]
        status = subprocess.run(command, check=False).returncode
        summary.append((words, status, time.perf_counter() - started))
    width = max(len(words) for words, _, _ in summary)
    for words, status, seconds in summary:
        say(f"{words:{width}}  {'done' if status == 0 else f'failed, status {status}'}  {seconds:.0f} s")
    return sum(status != 0 for _, status, _ in summary)
