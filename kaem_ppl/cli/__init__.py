"""The command line: `kaem`, or `python -m kaem_ppl.cli`."""

from .command_line import main

__all__ = ["main"]
