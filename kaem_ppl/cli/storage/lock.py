"""A lock on the folder of a run, so that two processes do not train it at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...saving import files
from ...saving.files import FolderInUseError
from ..errors import CommandError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; see `kaem_ppl.saving.files.locked`.

    Raises:
        CommandError: another process holds it, or the folder can't be written.
    """
    lock = files.locked(folder)
    try:
        lock.__enter__()
    except FolderInUseError as error:
        who = f"process {error.owner}" if error.owner else "another process"
        raise CommandError(f"{folder} is being trained by {who}: wait for it, or stop it first.") from None
    except OSError as error:
        raise CommandError(f"{folder} can't be written: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
