"""Ctrl-C in callbacks, which can't raise: Python reports what they raise to `sys.unraisablehook` and goes on."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_TO_RETRY = 0.05


@contextmanager
def sent_again(kind: type[BaseException], number: Callable[[], int | None]) -> Iterator[None]:
    """Send a signal once more whose exception came where it could not be raised.

    That is in callbacks of the garbage collector (JAX has one), of weak references, and in `__del__`.

    Args:
        kind: of the exceptions that stand for signals; others are reported as before.
        number: called then, of the signal to send; None sends none.
    """
    report = sys.unraisablehook

    def send(unraisable: "sys.UnraisableHookArgs") -> None:
        found = number() if isinstance(unraisable.exc_value, kind) else None
        if found is None:
            report(unraisable)
        else:
            threading.Timer(SECONDS_TO_RETRY, os.kill, (os.getpid(), found)).start()

    sys.unraisablehook = send
    try:
        yield
    finally:
        # Whatever else was put in its place meanwhile stays.
        if sys.unraisablehook is send:
            sys.unraisablehook = report


def keyboard_interrupt() -> int | None:
    """The signal of Ctrl-C, where it has Python's own handler."""
    is_pythons = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return int(signal.SIGINT) if is_pythons else None
