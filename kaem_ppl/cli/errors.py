"""The errors of commands: each is reported in one line, with an exit status."""


class CommandError(Exception):
    """A command can't be carried out; the message is one line that says what is wrong and what would be right.

    Attributes:
        status: exit status: 2 for wrong arguments or files, 1 for a failure on the way.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


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
