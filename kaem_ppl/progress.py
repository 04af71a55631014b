"""The progress of long work: a bar on a terminal or in a notebook, elsewhere a line soon after the start and then every
few seconds.
"""

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, Self

from .interrupts import keyboard_interrupt, sent_again

# The first line comes within 3 seconds of the start, imports included; the others at most 15 seconds apart.
FIRST_LINE_SECONDS = 1.0
SECONDS_BETWEEN_LINES = 10.0
# A bar's clock moves while a program is compiled.
_SECONDS_BETWEEN_REFRESHES = 1.0


class Progress:
    """Says what is being done, how far it is, how fast it goes, how long it will take, and a figure that matters.

    A thread of its own prints, so that compilation does not silence it. Where one is entered inside another, as when a
    command calls a function that shows its own, the inner one prints alone until it is left. Shown or not, Ctrl-C is heard
    while one is entered, in callbacks too.

    Args:
        activity: what is done first, such as "reading the model".
        is_shown: whether to print anything.
        name: what its lines begin with.

    Example:
        >>> from kaem_ppl.progress import Progress
        >>> with Progress("compiling", is_shown=False) as progress:
        ...     progress.begin("warm-up", total=100, unit="step")
        ...     progress.update(50, acceptance=0.8)
    """

    _active: ClassVar[list["Progress"]] = []

    def __init__(self, activity: str, is_shown: bool, name: str = "kaem-ppl") -> None:
        self._activity, self.is_shown, self._name = activity, is_shown, name
        self._started = time.monotonic()
        self._is_over = threading.Event()
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._print_regularly, daemon=True)
        self._total: float | None = None
        self._unit, self._done, self._figures = "step", 0.0, {}
        # Where speed is measured from: compilation is over when something has been done.
        self._first: tuple[float, float] | None = None
        self._bar: Any = None
        self._interrupts = contextlib.ExitStack()

    @staticmethod
    def innermost() -> "Progress":
        """What was entered last and is shown; without one, one that shows nothing."""
        return Progress._active[-1] if Progress._active else Progress("", is_shown=False)

    def __enter__(self) -> Self:
        self._interrupts.enter_context(sent_again(KeyboardInterrupt, keyboard_interrupt))
        if self.is_shown:
            if Progress._active:
                self._name = Progress._active[0]._name
            Progress._active.append(self)
            self._thread.start()
            if _has_bars():
                self._open_bar()
        return self

    def __exit__(self, *_: object) -> None:
        self._interrupts.close()
        if not self.is_shown:
            return
        self._is_over.set()
        self._thread.join()
        self._close_bar()
        Progress._active.remove(self)

    def begin(self, activity: str, total: float | None = None, unit: str = "step", done: float = 0.0) -> None:
        """Begin a part of the work.

        Args:
            activity: its name.
            total: steps of it; None where that is not known.
            unit: what a step is called.
            done: steps that were done before.
        """
        with self._lock:
            self._activity, self._total, self._unit = activity, total, unit
            self._done, self._figures, self._first = done, {}, None
            if self.is_shown and _has_bars():
                self._close_bar()
                self._open_bar()

    def update(self, done: float, activity: str | None = None, **figures: float | str) -> None:
        """Say how far the part is: `done` of its steps, and figures by name."""
        if not self.is_shown:
            return
        with self._lock:
            if activity is not None:
                self._activity = activity
            now = time.monotonic()
            if self._first is None:
                self._first = now, done
            self._done, self._figures = done, figures
            if self._bar is not None:
                self._bar.set_description_str(self._activity, refresh=False)
                self._bar.set_postfix_str(", ".join(f"{k} {_say(x)}" for k, x in figures.items()), refresh=False)
                self._bar.update(_round(done) - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line that stays, such as where interrupted work goes on."""
        if not self.is_shown:
            return
        line = f"{self._name}: {text}"
        with self._lock:
            if self._bar is None:
                print(line, file=sys.stderr, flush=True)
            else:
                self._bar.write(line, file=sys.stderr)

    def describe(self) -> str:
        """One line that says all of it."""
        with self._lock:
            text, done, total = self._activity, self._done, self._total
            if self._first is None and done == 0:
                return f"{text}; {_say_seconds(time.monotonic() - self._started)} so far"
            of = "" if total is None else f" of {_say_number(total)}"
            text += f", {self._unit} {_say_number(done)}{of}"
            text += "".join(f", {name} {_say(x)}" for name, x in self._figures.items())
            if self._first is not None and done > self._first[1]:
                speed = (done - self._first[1]) / max(time.monotonic() - self._first[0], 1e-6)
                text += f", {speed:.3g} {self._unit}s/s"
                if total is not None:
                    text += f", {_say_seconds((total - done) / speed)} left"
            return text

    def _print_regularly(self) -> None:
        wait = FIRST_LINE_SECONDS
        while not self._is_over.wait(wait):
            wait = SECONDS_BETWEEN_LINES
            if Progress._active[-1:] != [self]:
                continue
            if self._bar is not None:
                wait = _SECONDS_BETWEEN_REFRESHES
                with self._lock:
                    if self._bar is not None:
                        self._bar.refresh()
            else:
                print(f"{self._name}: {self.describe()}", file=sys.stderr, flush=True)

    def _open_bar(self) -> None:
        from tqdm import tqdm

        # A bar inside another one's work replaces it.
        for outer in Progress._active[:-1]:
            outer._close_bar()
        layout = None if self._total is not None else "{desc}: {n:.4g} {unit}s [{elapsed}, {rate_fmt}{postfix}]"
        if self._total is None and self._done == 0:
            layout = "{desc} [{elapsed}]"
        total = None if self._total is None else _round(self._total)
        self._bar = tqdm(
            total=total, initial=_round(self._done), unit=self._unit, desc=self._activity, bar_format=layout, leave=False,
            file=sys.stderr, mininterval=0.2, **_size(),
        )  # fmt: skip

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def shows_progress[**P, T](activity: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Show a function's progress from its first moment, where its argument `progress_bar` says so, as it does by default.

    Inside, `Progress.innermost()` is what shows it.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def shown(*args: P.args, **kwargs: P.kwargs) -> T:
            with Progress(activity, bool(kwargs.get("progress_bar", True))):
                return function(*args, **kwargs)

        return shown

    return decorate


def _has_bars() -> bool:
    """Whether standard error can move back on its line: a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _size() -> dict[str, Any]:
    """What to tell tqdm where a terminal says that it has no columns: it would print nothing there."""
    try:
        return {} if os.get_terminal_size(sys.stderr.fileno()).columns else {"ncols": 100, "nrows": 24}
    except (OSError, ValueError, AttributeError):
        return {}


def _round(x: float) -> float:
    """A number as it is to be read: steps are whole, temperatures are not."""
    return int(x) if float(x).is_integer() else float(f"{x:.3g}")


def _say(x: float | str) -> str:
    return x if isinstance(x, str) else f"{x:.4g}"


def _say_number(x: float) -> str:
    return f"{x:,.0f}" if float(x).is_integer() else f"{x:.3g}"


def _say_seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
