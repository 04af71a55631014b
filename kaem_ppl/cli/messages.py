"""Output of commands: results to standard output, warnings to standard error, from the first process only."""

import sys

import jax


def print_result(text: str) -> None:
    """Print a result to standard output."""
    if jax.process_index() == 0:
        print(text, flush=True)


def print_warning(text: str) -> None:
    """Print a warning to standard error."""
    if jax.process_index() == 0:
        print(f"kaem: {text}", file=sys.stderr, flush=True)
