"""Handle Ctrl-C and SIGTERM: stop at once, but never while a checkpoint is written, and when the parent process ends."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import Stopped

# The process that a command started by another one ends with.
PARENT_VARIABLE = "KAEM_PARENT_PROCESS"
_PR_SET_PDEATHSIG = 1
_SECONDS_TO_RETRY = 0.05


class StopSignals:
    """Turns SIGINT and SIGTERM into `Stopped` while it is entered."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._is_deferred = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Install the handlers, and restore the former ones at the end."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
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

    def check(self) -> None:
        """Stop now if a signal came whose exception was deferred, or swallowed by a callback of the garbage collector.

        Raises:
            Stopped: a signal came.
        """
        if self._received is not None:
            raise Stopped(self._received)

    def acknowledge(self) -> None:
        """Forget the signal that came: the command is stopping."""
        self._received = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if self._is_deferred:
            return
        if _swallows_exceptions(frame):
            # Once more, in a moment.
            threading.Timer(_SECONDS_TO_RETRY, os.kill, (os.getpid(), number)).start()
            return
        raise Stopped(number)


def _swallows_exceptions(frame: FrameType | None) -> bool:
    """Whether a frame is inside JAX's callback of the garbage collector, where exceptions are printed and ignored."""
    while frame is not None:
        if frame.f_code.co_name == "_xla_gc_callback":
            return True
        frame = frame.f_back
    return False


def end_with_parent() -> None:
    """Receive SIGTERM when the parent process ends, where it asked for that and the system (Linux) can do it."""
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have ended already.
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)
