"""The errors of commands: each is reported in one line, with an exit status."""

import jax


class CommandError(Exception):
    """A command can't be carried out; the message is one line that says what is wrong and what would be right.

    Attributes:
        status: exit status: 2 for wrong arguments or files, 1 for a failure on the way.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def is_out_of_memory(error: BaseException) -> bool:
    """Whether NumPy or JAX could not get as much memory as they asked for."""
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    )


class Stopped(KeyboardInterrupt):
    """A signal stopped the command.

    Attributes:
        signal: its number; the exit status is 128 more.
        advice: how to continue, a sentence; empty where there is nothing to continue.
    """

    def __init__(self, signal: int, advice: str = "") -> None:
        super().__init__()
        self.signal = signal
        self.advice = advice
