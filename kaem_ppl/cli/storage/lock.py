"""A lock on the folder of a run, so that two processes do not train it at the same time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CommandError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system releases it when this process ends, however it ends.

    Raises:
        CommandError: another process holds it, or the folder can't be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks.
        yield
        return
    try:
        # The file stays; what counts is whether a process holds it.
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CommandError(f"{folder} can't be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            who = f"process {owner}" if owner else "another process"
            raise CommandError(f"{folder} is being trained by {who}: wait for it, or stop it first.") from None
        except OSError:  # A file system without locks.
            pass
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
