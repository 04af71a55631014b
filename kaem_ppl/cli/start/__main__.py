"""`python -m kaem_start`."""

from . import run

run()
