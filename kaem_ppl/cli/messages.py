"""What commands say: results to standard output, warnings to standard error, once for all processes."""

import sys

import jax


def say(text: str) -> None:
    """Print a result."""
    if jax.process_index() == 0:
        print(text, flush=True)


def warn(text: str) -> None:
    """Print a warning."""
    if jax.process_index() == 0:
        print(f"kaem: {text}", file=sys.stderr, flush=True)
