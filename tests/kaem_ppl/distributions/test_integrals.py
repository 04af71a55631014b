"""The table and the normalisers, found together where parameters are traced, against each found by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp

from ..members import bank

# Resolved by the seeds' panels, by quarters of them, and by each function's own.
SIZES = (1, 100, 1e4)


def _integrals(d):
    d = d.integrated()
    return jnp.sum(d.log_normalizer), (d.log_normalizer, d.table)


_together = jax.jit(jax.value_and_grad(_integrals, has_aux=True, allow_int=True))
_by_itself = jax.jit(jax.grad(lambda d: jnp.sum(d.log_normalizer), allow_int=True))


def _distribution(kind, size):
    energy = bank("RBF", (size, size / 2))
    if kind is kp.KANTilted:
        return kp.KANTilted(energy, dist.Normal(0.0, 1.0))
    return kp.KANTiltedMixture(jnp.array([0.3, -0.2]), energy, dist.Normal(0.0, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kp.KANTilted, pytest.param(kp.KANTiltedMixture, marks=pytest.mark.exhaustive)])
def test_integrals_found_together(kind):
    # Oracle: each quantity of the same distribution with known parameters, and the gradient of the normaliser alone.
    for size in SIZES:
        d = _distribution(kind, size)
        (_, (log_normalizer, table)), gradient = _together(d)
        np.testing.assert_allclose(log_normalizer, d.log_normalizer, rtol=1e-5, atol=1e-5)
        for name in ("edges", "lower", "upper"):
            np.testing.assert_allclose(getattr(table, name), getattr(d.table, name), rtol=1e-4, atol=1e-5)
        alone = _by_itself(d)
        np.testing.assert_allclose(gradient.energy.coef, alone.energy.coef, rtol=1e-4, atol=1e-6)


@pytest.mark.exhaustive
def test_a_table_found_with_the_normaliser_is_a_constant():
    # Law: no derivative passes from it to the parameters; from a table found by itself one does.
    d = _distribution(kp.KANTilted, 1)
    lower = (lambda d: d.integrated().table.lower[0, 3], lambda d: d.table.lower[0, 3])
    together, alone = (jax.grad(f, allow_int=True)(d).energy.coef for f in lower)
    assert not np.any(together)
    assert np.any(alone)


@pytest.mark.slow
def test_a_distribution_held_fixed_draws_the_same_without_derivatives():
    # Law: the same draws to the bit, and a gradient of nought where the distribution itself has one.
    d = _distribution(kp.KANTilted, 1)
    key = jax.random.key(0)
    np.testing.assert_array_equal(d.held_fixed().sample(key, (5,)), d.sample(key, (5,)))
    draws = (lambda d: jnp.sum(d.held_fixed().sample(key, (5,))), lambda d: jnp.sum(d.sample(key, (5,))))
    held, free = (jax.grad(f, allow_int=True)(d).energy.coef for f in draws)
    assert not np.any(held)
    assert np.any(free)
