"""Files that are complete or absent, however a process ends, and folders that one process at a time writes to."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO


class FolderInUseError(RuntimeError):
    """Another process holds the lock of a folder.

    Attributes:
        owner: number of that process; empty where it is not known.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        who = f"process {owner}" if owner else "another process"
        super().__init__(f"{folder} is being written by {who}: wait for it, or stop it first.")
        self.owner = owner


def write_atomically(path: str | PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under another name, force it to the disk, and rename it.

    Args:
        path: of the file, which is replaced.
        write: writes the content into an open file.

    Raises:
        OSError: it can't be written; a file that was there before is unchanged.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    force_to_disk(path.parent)


def force_to_disk(folder: Path) -> None:
    """Make renames in a folder survive a loss of power, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders.
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system releases it when this process ends, however it ends.

    Raises:
        FolderInUseError: another process holds it.
        OSError: the folder can't be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks.
        yield
        return
    # The file stays; what counts is whether a process holds it.
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(folder, os.read(descriptor, 32).decode(errors="replace").strip()) from None
        except OSError:  # A file system without locks.
            pass
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
