"""Folders of results: named by command, method and time, written aside, and put in place complete."""

import errno
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
from ..messages import print_result
from .run_folder import RunFolder


@contextmanager
def results_folder(run: RunFolder, name: str, out: Path | None, force: bool) -> Iterator[Path]:
    """A folder to write results into, which stands complete in its place afterwards, or not at all; the place is printed.

    Args:
        run: whose results.
        name: of the command, and of the method where it has several.
        out: the place; None takes `RUN/results/NAME-TIME`.
        force: whether results that are there already are replaced.

    Yields:
        The folder to write into.

    Raises:
        CommandError: there are results already, or the folder can't be written, before any work; or the disk is full.
    """
    if force and out is None:
        raise CommandError("--force belongs to --out: without it results are never replaced.")
    place = run.path / "results" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if out is not None:
        place = _check_out(out, force)
    # A folder that is mounted can't be renamed, and what is beside it is another disk.
    part = (place if place.is_mount() else place.parent) / f".{place.name}.{os.getpid()}.part"
    try:
        part.mkdir(parents=True)
    except OSError as error:
        advice = "Give a folder by --out." if out is None else "Give another one."
        raise CommandError(f"{part.parent} can't be written: {error.strerror}. {advice}") from error
    try:
        yield part
        if out is None:
            print_result(f"results in {_put_beside(part, place)}")
        else:
            _replace(part, place)
            print_result(f"results in {out}")
    except OSError as error:
        # Another message says itself what to do.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.strerror != os.strerror(error.errno):
            raise
        raise CommandError(
            f"{part.parent} can't be written: {error.strerror}. Free space, or give a folder elsewhere by --out.",
            status=1,
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        # A folder that was made for nothing.
        if out is None and not any(place.parent.iterdir()):
            place.parent.rmdir()


def _check_out(out: Path, force: bool) -> Path:
    """The folder that `--out` stands for, links followed, if results may be put there."""
    place = _follow_links(out)
    if place.is_symlink():
        raise CommandError(f"--out {out} is a link that leads nowhere: give a folder.")
    if not place.exists():
        return place
    if not place.is_dir():
        raise CommandError(f"--out {out} is a file: give a folder.")
    content = [path for path in place.iterdir() if path.name != _unfinished(place)]
    if content and not force:
        raise CommandError(f"--out {out} is not empty: give another folder, or --force to replace what is in it.")
    if (place / "config.toml").exists():
        raise CommandError(f"--out {out} is the folder of a run: give another folder.")
    # What follows is no folder of results, which --force may replace.
    if _follow_links(Path.cwd()).is_relative_to(place):
        raise CommandError(f"--out {out} is the folder that you are in, or around it: give another folder.")
    if content and (place.parent / "config.toml").exists():
        raise CommandError(f"--out {out} belongs to the run around it: give another folder.")
    folders = [path.name for path in content if path.is_dir()]
    if folders:
        raise CommandError(
            f"--out {out} holds folders, such as {folders[0]}, which no results do: give another folder."
        )
    return place


def _follow_links(path: Path) -> Path:
    # Not `Path.resolve`, which raises where links go in a circle.
    return Path(os.path.realpath(path))


def _put_beside(part: Path, place: Path) -> Path:
    """Rename a folder to a name that is free, and return it: another process may have finished in the same second."""
    candidate, number = place, 1
    while True:
        try:
            candidate.mkdir()
            break
        except FileExistsError:
            number += 1
            candidate = place.with_name(f"{place.name}-{number}")
    # An empty folder is replaced.
    return part.rename(candidate)


def _replace(part: Path, place: Path) -> None:
    if part.parent == place:
        for path in [path for path in place.iterdir() if path.is_file()]:
            path.unlink()
        for path in part.iterdir():
            path.rename(place / path.name)
        return
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
    return unfinished_root(run, out) / f"{name}-{digest.hexdigest()[:12]}"


def unfinished_root(run: RunFolder, out: Path | None) -> Path:
    """The folder around those of `unfinished_folder`."""
    if out is None:
        return run.path / "unfinished"
    place = _follow_links(out)
    return (place if place.is_mount() else place.parent) / _unfinished(place)


def _unfinished(place: Path) -> str:
    return f".{place.name}.unfinished"


def discard_unfinished(folder: Path) -> None:
    """Remove the state of work that is done, and the folder around it where nothing else is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.exists() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
