"""Keeps a long run within the number of memory maps that Linux grants a process."""

from pathlib import Path

import jax
import pytest

_MAPS = Path("/proc/self/maps")
# Linux grants 65,530; every compiled program holds several, and the compiler aborts the process when they run out.
_MANY = 20_000


@pytest.fixture(autouse=True)
def _forget_programs_before_maps_run_out():
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY:
        jax.clear_caches()
