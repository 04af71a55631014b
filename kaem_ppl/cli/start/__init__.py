"""The first moments of `kaem`, as the package `kaem_start`: importing JAX takes a second, and Ctrl-C in it is heard.

Nothing is imported from the package before the signals are handled: a callback of JAX would swallow them.
"""

import os
import signal
import sys
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run() -> NoReturn:
    """Run the command of this process's words, and end with its exit status."""
    for number in _SIGNALS:
        signal.signal(number, _stop)
    from kaem_ppl.cli import main

    status = main()
    # The last line is printed: a signal that comes now has nothing to stop.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def _stop(number: int, frame: object) -> NoReturn:
    # Not by an exception: nothing has been begun, and nobody may catch it.
    os.write(2, b"kaem: stopped.\n")
    os._exit(128 + number)
