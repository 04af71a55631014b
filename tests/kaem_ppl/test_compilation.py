"""The level at which outermost programs are compiled."""

from runpy import run_path

import jax.numpy as jnp
import pytest

from kaem_ppl import compilation


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (None, 2),
        ("--xla_force_host_platform_device_count=4", 2),
        ("--xla_backend_optimization_level=0", 0),
        ("--xla_backend_optimization_level=3 --xla_backend_optimization_level=1", 1),
    ],
)
def test_a_level_that_xla_flags_names_is_kept(monkeypatch, flags, level):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if flags is not None:
        monkeypatch.setenv("XLA_FLAGS", flags)
    jit = run_path(compilation.__file__)["jit_outermost"]

    assert jit.keywords == {"compiler_options": {"xla_backend_optimization_level": level}}
    assert jit(jnp.negative)(1.0) == -1.0
