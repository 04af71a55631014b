"""Keeps a long run within the number of memory maps that Linux grants a process; and what a refusal looks like."""

import gc
import itertools
import re
import traceback
from pathlib import Path

import jax
import pytest

import kaem_ppl
import kaem_ppl.inference
import kaem_ppl.models

_OURS = tuple(Path(module.__file__).resolve().parent for module in (kaem_ppl, kaem_ppl.models, kaem_ppl.inference))

_MAPS = Path("/proc/self/maps")
# Linux grants 65,530; every compiled program holds several, and the compiler aborts the process when they run out.
_MANY = 30_000
# Counting them takes 10 ms.
_NUMBER_OF_TEST = itertools.count()
# Tracing makes many objects that live on: Python's default looks through the young ones at every 700th.
gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _forget_programs_before_maps_run_out():
    yield
    if next(_NUMBER_OF_TEST) % 8 == 0 and _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY:
        jax.clear_caches()


@pytest.fixture
def assert_refused():
    """A function that asserts that a call is refused by us, in one sentence that names the argument."""

    def check(call, name):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        error, message = caught.value, str(caught.value)
        file = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
        assert any(file.is_relative_to(folder) for folder in _OURS), f"raised in {file}: {message}"
        assert type(error) in (TypeError, ValueError)
        assert name in message
        assert not re.search(r"[.!?]\s+[A-Z`]", message), f"more than one sentence: {message}"
        assert "\n" not in message

    return check
