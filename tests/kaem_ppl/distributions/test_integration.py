"""How much work which function needs: counts of panels, not seconds, and what each stage gives against the others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import kaem_ppl as kp
from kaem_ppl.distributions import integration, stages

from .. import oracle
from ..members import bank, oracle_of

SETTINGS = {
    "RBF": (kp.RBF(20), (-3.0, 3.0), (dist.Normal, 0.0, 1.0)),
    "RBF, wide log-normal": (kp.RBF(30), (0.0, 8.0), (dist.LogNormal, 0.0, 1.0)),
    "BSpline": (kp.BSpline(3), (-3.0, 3.0), (dist.Normal, 0.0, 1.0)),
    "Chebyshev": (kp.Chebyshev(20), (-3.0, 3.0), (dist.Normal, 0.0, 1.0)),
    "RSWAF": (kp.RSWAF(20), (-3.0, 3.0), (dist.Normal, 0.0, 1.0)),
    "Morlet": (kp.Morlet(20), (-3.0, 3.0), (dist.Normal, 0.0, 1.0)),
    "colour preset": (kp.Fourier(50), (-1.5, 1.5), (dist.Uniform, -1.5, 1.5)),
    "Laplace": (kp.RBF(20), (-3.0, 3.0), (dist.Laplace, 0.3, 0.8)),
    "Gamma": (kp.RBF(20), (0.0, 8.0), (dist.Gamma, 0.5, 1.0)),
    "Beta": (kp.RBF(20), (0.0, 1.0), (dist.Beta, 0.5, 0.7)),
}
FAST = ("RBF", "colour preset")


def _mixture(setting, size, batch_shape=(20, 10)):
    basis, domain, (kind, *args) = SETTINGS[setting]
    energy = kp.UnivariateKAN.init(jax.random.key(0), batch_shape, basis=basis, domain=domain)
    energy = dataclasses.replace(energy, coef=size * energy.coef)
    return kp.KANTiltedMixture(jnp.zeros(batch_shape), energy, kind(*args))


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [pytest.param(x, marks=[] if x in (*FAST, "Gamma", "Beta") else [pytest.mark.exhaustive]) for x in SETTINGS],
)
def test_few_functions_need_more_than_the_shared_panels(setting):
    # Law: as drawn no panel is divided, in float32, and at thirty times that no function needs panels of its own.
    integrate = jax.jit(lambda bank: stages.fine_integrals(bank, stages.evaluate_seeds(bank)))
    assert not np.any(integrate(_mixture(setting, 1.0)._bank()).marked)
    assert not np.any(integrate(_mixture(setting, 30.0)._bank()).own)


@pytest.mark.parametrize("size", [100.0, pytest.param(1e4, marks=pytest.mark.slow)])
def test_a_hard_function_changes_nothing_for_the_others(size):
    # Law: the normalisers of easy functions beside a hard one are those without it, and the hard one's are SciPy's.
    easy, hard = bank("RBF", (1.0, 2.0, 3.0)), bank("RBF", (size,))
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]) if x.ndim and len(x) == 3 else x, easy, hard)
    reference = dist.Normal(0.0, 1.0)
    known, alone = kp.KANTilted(both, reference), kp.KANTilted(easy, reference)
    traced = jax.jit(lambda energy: kp.KANTilted(energy, reference).log_normalizer)(both)
    exact = oracle_of("RBF", stats.norm(0, 1), (-3.0, 3.0), size).log_z
    for log_normalizer in (known.log_normalizer, traced):
        np.testing.assert_allclose(log_normalizer[:3], alone.log_normalizer, atol=2e-6)
        assert abs(float(log_normalizer[3]) - exact) < max(2e-5, float(known.log_normalizer_error[3]))
    assert float(known.log_normalizer_error[3]) < 1e-4 * size


@pytest.mark.exhaustive
def test_rows_some_at_a_time(monkeypatch):
    # Law: a bank integrated a few rows at a time gives what it gives at once.
    prior = _mixture("RBF", 10.0)
    whole = integration.integrate(prior._bank())
    monkeypatch.setattr(integration, "_POINTS_AT_ONCE", 4_000)
    for some, at_once in zip(
        jax.tree.leaves(integration.integrate(prior._bank())), jax.tree.leaves(whole), strict=True
    ):
        np.testing.assert_allclose(some, at_once, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_grid", [2, 3])
@pytest.mark.parametrize("degree", [1, 3])
def test_splines_of_few_points_on_a_wide_domain(num_grid, degree):
    # Oracle: SciPy's quadrature. Two panels, one for each interval, were all there was once.
    basis, domain = kp.BSpline(degree, num_grid=num_grid), (-20.0, 20.0)
    energy = kp.UnivariateKAN.init(jax.random.key(1), (1,), basis=basis, domain=domain)
    prior = kp.KANTilted(energy, dist.Normal(0.0, 1.0))
    exact = oracle.Density.of(jax.tree.map(np.asarray, energy), 0, stats.norm(0, 1))
    assert abs(float(prior.log_normalizer[0]) - exact.log_z) < 2e-6
    z = np.linspace(-4, 4, 41)
    np.testing.assert_allclose(prior.cdf(z[:, None])[:, 0], exact.tails(z)[0], atol=2e-6)


@pytest.mark.parametrize("basis", ["RBF", pytest.param("Fourier", marks=pytest.mark.slow)])
def test_inversion_under_every_transformation(basis):
    # Law: cdf(icdf(u)) is u to 1e-6, also where each point is a call of its own, whatever XLA's level of optimisation.
    prior = kp.KANTilted(bank(basis, (5.0,)), dist.Normal(0.0, 1.0))
    u = jax.random.uniform(jax.random.key(0), (20_000, 1), minval=1e-6, maxval=1 - 1e-6)
    for icdf in (prior.icdf, jax.jit(prior.icdf), jax.vmap(prior.icdf), jax.jit(jax.vmap(prior.icdf))):
        np.testing.assert_allclose(prior.cdf(icdf(u)), u, atol=1e-6)
