"""Precision as a fixture: the switch is thread-local, so both precisions run in one process."""

import jax
import pytest


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# Single precision is what most users have, and where rounding shows; programs of double precision are compiled by slow
# tests.
@pytest.fixture(params=["float32", pytest.param("float64", marks=pytest.mark.slow)])
def precision(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param
