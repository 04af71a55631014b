"""What a command says when it can't go on."""


class CommandError(Exception):
    """A command can't be carried out; the message is one line that says what is wrong and what would be right.

    Attributes:
        status: exit status: 2 for what was asked for wrongly, 1 for what went wrong on the way.
    """

    def __init__(self, message: str, status: int = 2):
        super().__init__(message)
        self.status = status
