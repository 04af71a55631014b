"""Handle Ctrl-C and SIGTERM: stop at once, but never while a checkpoint is written, and when the parent process ends."""

import ctypes
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..interrupts import sent_again
from .errors import Stopped

# The process that a command started by another one ends with.
PARENT_VARIABLE = "KAEM_PARENT_PROCESS"
_PR_SET_PDEATHSIG = 1
# A second signal so soon after the first would interrupt what the first one does: of a job that ends, or of Ctrl-C in a
# terminal, whose processes may send another one to their children.
_SECONDS_TO_UNWIND = 1.0


class StopSignals:
    """Turns SIGINT and SIGTERM into `Stopped` while it is entered."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._is_deferred = False
        self._raised_at = -math.inf

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Install the handlers, and restore the former ones at the end.

        A signal that came in a callback, which can't raise, is sent once more.
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            with sent_again(Stopped, self._forget):
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let what is inside finish; a signal that came meanwhile stops the command afterwards."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self.check()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Raise `Stopped` where a library made another error of it, as JAX does where C++ code compares keys of a cache.

        Raises:
            Stopped: what is inside failed after a signal came.
        """
        try:
            yield
        except Exception as error:
            if self._received is None:
                raise
            raise Stopped(self._received) from error

    def check(self) -> None:
        """Stop now if a signal came whose exception was deferred.

        Raises:
            Stopped: a signal came.
        """
        if self._received is not None:
            self._raised_at = time.monotonic()
            raise Stopped(self._received)

    def acknowledge(self) -> None:
        """Forget the signal that came, and ignore all others from now on: the command is stopping."""
        self._received, self._raised_at = None, math.inf

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._raised_at < _SECONDS_TO_UNWIND:
            return
        self._received = number
        if self._is_deferred:
            return
        self._raised_at = now
        raise Stopped(number)

    def _forget(self) -> int | None:
        # It was raised in vain: it is to be raised again when it comes again, unless the command is stopping.
        if self._received is not None:
            self._raised_at = -math.inf
        return self._received


def end_with_parent() -> None:
    """Receive SIGTERM when the parent process ends, where it asked for that and the system (Linux) can do it."""
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have ended already.
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)
