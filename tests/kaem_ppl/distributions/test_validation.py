"""What KANTilted refuses, and that each message names the argument."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import kaem_ppl as kp

from ..members import BASES, bank


class _WithoutDensity(dist.Distribution):
    """A distribution that states its CDF and nothing else."""

    support = constraints.real
    arg_constraints: ClassVar = {}

    def cdf(self, value):
        return jax.nn.sigmoid(value)


def _energy():
    return BASES["RBF"](jax.random.key(0), (3,))


def _with(**changes):
    return lambda: kp.KANTilted(dataclasses.replace(_energy(), **changes), dist.Normal(0.0, 1.0))


def _over(make_reference):
    return lambda: kp.KANTilted(_energy(), make_reference())


@pytest.mark.parametrize(
    ("make", "error", "name"),
    [
        (lambda: kp.KANTilted(jnp.sin, dist.Normal(0.0, 1.0)), TypeError, "energy"),
        (lambda: kp.KANTilted(kp.RBF(20), dist.Normal(0.0, 1.0)), TypeError, "energy"),
        (lambda: kp.KANTilted(None, dist.Normal(0.0, 1.0)), TypeError, "energy"),
        (_with(coef=np.zeros((3, 19))), ValueError, "coef"),
        (_with(base_weight=np.zeros(2)), ValueError, "base_weight"),
        (_with(spline_weight=np.zeros(())), ValueError, "spline_weight"),
        (_with(grid=np.zeros((2, 20))), ValueError, "grid"),
        (_with(width=np.ones(2)), ValueError, "width"),
        (_with(domain=np.zeros(3)), ValueError, "domain"),
        (_with(domain=np.array([3.0, -3.0])), ValueError, "domain"),
        (_with(grid=np.linspace(3.0, -3.0, 20)), ValueError, "grid"),
        (_with(grid=np.zeros(20)), ValueError, "grid"),
        (_with(width=np.array(-1.0)), ValueError, "width"),
        (_with(coef=np.full((3, 20), np.nan)), ValueError, "coef"),
        (_with(base_weight=np.array([0.0, np.inf, 0.0])), ValueError, "base_weight"),
        (_over(lambda: "Normal"), TypeError, "reference"),
        (_over(lambda: jax.scipy.stats.norm), TypeError, "reference"),
        (_over(lambda: dist.Delta(0.0)), ValueError, "reference"),
        (_over(_WithoutDensity), ValueError, "log_prob"),
        (_over(lambda: dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3))), ValueError, "reference"),
        (_over(lambda: dist.Normal(jnp.zeros(3), 1.0).to_event(1)), ValueError, "reference"),
        (_over(lambda: dist.Poisson(2.0)), ValueError, "reference"),
        (_over(lambda: dist.Normal(jnp.zeros(4), 1.0)), ValueError, "reference"),
        (_over(lambda: dist.Uniform(5.0, 6.0)), ValueError, "domain"),
        (_over(lambda: dist.Uniform(3.0, 6.0)), ValueError, "domain"),
        (_over(lambda: dist.Uniform(-6.0, jnp.array([0.0, 1.0, -4.0]))), ValueError, "domain"),
    ],
)
def test_refused_arguments_are_named(make, error, name):
    with pytest.raises(error, match=name):
        make()


def test_the_numbers_are_not_looked_at_where_validation_is_off():
    # NumPyro's switch: shapes are always checked, values only where asked for.
    energy = dataclasses.replace(_energy(), coef=jnp.full((3, 20), jnp.nan))
    d = kp.KANTilted(energy, dist.Normal(0.0, 1.0), validate_args=False)
    assert np.all(np.isnan(d.energy.coef))
    with pytest.raises(ValueError, match="coef"):
        kp.KANTilted(energy, dist.Normal(0.0, 1.0), validate_args=True)


def test_traced_values_are_not_looked_at():
    # Inside jit the numbers are unknown: construction must go through, shapes are still checked.
    @jax.jit
    def build(coef):
        return kp.KANTilted(dataclasses.replace(_energy(), coef=coef), dist.Normal(0.0, 1.0)).energy.coef

    assert build(jnp.ones((3, 20))).shape == (3, 20)
    with pytest.raises(ValueError, match="coef"):
        build(jnp.ones((3, 19)))


def test_log_prob_warns_outside_the_support_under_validation():
    d = kp.KANTilted(bank("BSpline1"), dist.Uniform(-3.0, 3.0), validate_args=True)
    with pytest.warns(UserWarning, match="Out-of-support"):
        d.log_prob(jnp.full(3, 4.0))
