"""Output of commands: results to standard output, warnings to standard error, from the first process only."""

import logging
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax


def print_result(text: str) -> None:
    """Print a result to standard output."""
    if jax.process_index() == 0:
        print(text, flush=True)


def as_command(*words: str | Path) -> str:
    """A call of `kaem`, as it is typed, in backquotes."""
    return f"`{shlex.join(['kaem', *map(str, words)])}`"


def print_warning(text: str) -> None:
    """Print a warning to standard error."""
    if jax.process_index() == 0:
        print(f"kaem: {text}", file=sys.stderr, flush=True)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_warning(record.getMessage())


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Print what the library warns of as commands do: in one line, without the place in the code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print_warning(" ".join(str(message).split()))

    logger, handler = logging.getLogger("kaem_ppl"), _Handler()
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
