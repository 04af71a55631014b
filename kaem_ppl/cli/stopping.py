"""Handle Ctrl-C and SIGTERM: stop at once, but never while a checkpoint is written, and when the parent process ends."""

import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import Stopped

# The process that a command started by another one ends with.
PARENT_VARIABLE = "KAEM_PARENT_PROCESS"
_PR_SET_PDEATHSIG = 1
_SECONDS_TO_RETRY = 0.05
# A second signal so soon after the first would interrupt what the first one does: of a job that ends, or of Ctrl-C in a
# terminal, whose processes may send another one to their children.
_SECONDS_TO_UNWIND = 1.0


class StopSignals:
    """Turns SIGINT and SIGTERM into `Stopped` while it is entered."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._is_deferred = False
        self._raised_at = -math.inf
        self._report_unraisable = sys.unraisablehook

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Install the handlers, and restore the former ones at the end.

        Callbacks of the garbage collector, of weak references and `__del__` can't raise: Python reports what they raise to
        `sys.unraisablehook` and goes on. A signal that came in one is sent once more.
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        report, sys.unraisablehook = sys.unraisablehook, self._send_again
        self._report_unraisable = report
        try:
            yield
        finally:
            sys.unraisablehook = report
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

    def _send_again(self, unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(unraisable.exc_value, Stopped) and self._received is not None:
            self._raised_at = -math.inf
            threading.Timer(_SECONDS_TO_RETRY, os.kill, (os.getpid(), self._received)).start()
        else:
            self._report_unraisable(unraisable)


def end_with_parent() -> None:
    """Receive SIGTERM when the parent process ends, where it asked for that and the system (Linux) can do it."""
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have ended already.
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)
