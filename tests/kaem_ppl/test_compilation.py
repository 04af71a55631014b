"""The level at which outermost programs are compiled, and compiling them ahead."""

from functools import partial
from runpy import run_path

import jax
import jax.numpy as jnp
import numpy as np
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


def test_a_program_that_was_compiled_ahead_is_found():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(listen := partial(_note, compiled))
    try:
        f = compilation.jit_outermost(lambda scale, x: scale * x + 1, donate_argnums=1)
        x = jax.eval_shape(lambda: jnp.zeros(3))
        compilation.compile_ahead(f.trace(2.0, x)).result()
        assert len(compiled) == 1
        np.testing.assert_array_equal(f(2.0, jnp.arange(3.0)), [1, 3, 5])
        assert len([name for name in compiled if name == compiled[0]]) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _note(compiled, event, duration, fun_name=None, **more):
    if "backend_compile" in event:
        compiled.append(fun_name)


def test_programs_are_compiled_by_what_a_run_costs():
    def power(x):
        return x @ x

    small, large = (jax.random.normal(jax.random.key(0), (n, n)) for n in (4, 300))
    for x, is_cheap in ((small, True), (large, False)):
        program, cost = compilation.jit_by_cost(power, x)
        np.testing.assert_allclose(program(x), power(x), rtol=1e-4, atol=1e-4)
        # Twice n^3 operations.
        assert (cost < 2e7) == is_cheap
        np.testing.assert_allclose(cost, 2 * len(x) ** 3, rtol=0.1)
