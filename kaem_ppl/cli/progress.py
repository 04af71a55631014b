"""Progress in a log: where standard error is no terminal, a line soon after the start and then every few seconds."""

import sys
import threading
import time
from typing import Self

# The first line comes within 3 seconds of the start, imports included; the others at most 15 seconds apart.
FIRST_LINE_SECONDS = 1.0
SECONDS_BETWEEN_LINES = 10.0


class ProgressLog:
    """Prints what a command is doing, from a thread, so that compilation does not silence it.

    Args:
        activity: what the command does first, such as "compiling".
        is_shown: whether to print anything; false on a terminal, where progress bars are shown.
    """

    def __init__(self, activity: str, is_shown: bool) -> None:
        self._activity, self._is_shown = activity, is_shown
        self._started = time.monotonic()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, daemon=True)

    def __enter__(self) -> Self:
        if self._is_shown:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        if self._is_shown:
            self._thread.join()

    def update(self, activity: str) -> None:
        """Say what the command does now; the next line has it."""
        self._activity = activity

    def _print_lines(self) -> None:
        wait = FIRST_LINE_SECONDS
        while not self._is_over.wait(wait):
            seconds = time.monotonic() - self._started
            print(f"kaem: {self._activity}; {seconds:.0f} s so far", file=sys.stderr, flush=True)
            wait = SECONDS_BETWEEN_LINES
