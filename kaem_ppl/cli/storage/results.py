"""Folders of results: named by command, method and time, written aside, and put in place complete."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..errors import CommandError
from .run_folder import RunFolder


@contextmanager
def results_folder(run: RunFolder, name: str, out: Path | None, force: bool) -> Iterator[tuple[Path, Path]]:
    """A folder to write results into, which stands complete in its place afterwards, or not at all.

    Args:
        run: whose results.
        name: of the command, and of the method where it has several.
        out: the place; None takes `RUN/results/NAME-TIME`.
        force: whether results that are there already are replaced.

    Yields:
        The folder to write into, and the place where it will stand.

    Raises:
        CommandError: there are results already, or the folder can't be written; before any work.
    """
    if force and out is None:
        raise CommandError("--force belongs to --out: without it results are never replaced.")
    place = run.path / "results" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}" if out is None else out
    if out is not None and out.exists():
        if not out.is_dir():
            raise CommandError(f"--out {out} is a file: give a folder.")
        if any(out.iterdir()) and not force:
            raise CommandError(f"--out {out} is not empty: give another folder, or --force to replace what is in it.")
        if (out / "config.toml").exists():
            raise CommandError(f"--out {out} is the folder of a run: give another folder.")
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
    except OSError as error:
        advice = "Give a folder by --out." if out is None else "Give another one."
        raise CommandError(f"{place.parent} can't be written: {error.strerror}. {advice}") from error
    try:
        yield part, place
        if out is None:
            _put_beside(part, place)
        else:
            _replace(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        # A folder that was made for nothing.
        if out is None and not any(place.parent.iterdir()):
            place.parent.rmdir()


def _put_beside(part: Path, place: Path) -> None:
    """Rename a folder to a name that is free: another process may have finished in the same second."""
    candidate, number = place, 1
    while True:
        try:
            candidate.mkdir()
            break
        except FileExistsError:
            number += 1
            candidate = place.with_name(f"{place.name}-{number}")
    # An empty folder is replaced.
    part.rename(candidate)


def _replace(part: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    if place.exists():
        place.rename(old)
    part.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def unfinished_folder(run: RunFolder, name: str, out: Path | None, params: Any, settings: Mapping[str, Any]) -> Path:
    """Where long work keeps its state until it is done: a folder of its own for each model and each settings."""
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    root = run.path / "unfinished" if out is None else out.with_name(f".{out.name}.unfinished")
    return root / f"{name}-{digest.hexdigest()[:12]}"


def discard_unfinished(folder: Path) -> None:
    """Remove the state of work that is done, and the folder around it where nothing else is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.exists() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
