"""Draws far out: none that is not finite, the right law, and the right number beyond far quantiles on both sides."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import kaem_ppl as kp

from ..members import BASES, DOMAIN, bank, oracle_of

REFERENCES = {
    "Normal": (lambda: dist.Normal(0.0, 1.0), stats.norm(0, 1), DOMAIN),
    "Laplace": (lambda: dist.Laplace(0.0, 1.0), stats.laplace(0, 1), DOMAIN),
    "LogNormal": (lambda: dist.LogNormal(0.0, 1.0), stats.lognorm(s=1), (0.1, 6.0)),
    "StudentT": (lambda: dist.StudentT(4.0, 0.0, 1.0), stats.t(4, 0, 1), DOMAIN),
    "Gumbel": (lambda: dist.Gumbel(0.0, 1.0), stats.gumbel_r(0, 1), DOMAIN),
    "Exponential": (lambda: dist.Exponential(1.0), stats.expon(), (0.1, 6.0)),
}
# False alarms: each case makes eight tests, at a level of 1e-4 for all 48 together.
LEVEL = 1e-4 / (8 * len(REFERENCES))
# The slow tests take two of them: one on the line, one with two unlike tails.
FIRST = {"Normal", "Gumbel"}


@pytest.mark.parametrize(
    "number", [2_000_000, pytest.param(10_000_000, marks=pytest.mark.exhaustive)], ids=["2e6", "1e7"]
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FIRST else [pytest.mark.exhaustive]) for name in REFERENCES]
)
@pytest.mark.slow
def test_draws_and_their_tails(name, number):
    # Oracle: SciPy's quadrature; Kolmogorov-Smirnov, Anderson-Darling, and binomial counts beyond three far quantiles.
    make, exact, domain = REFERENCES[name]
    prior = kp.KANTilted(bank("RBF", (1.0,), domain), make())
    density = oracle_of("RBF", exact, domain)
    draw = jax.jit(lambda key: prior.sample(key, (1_000_000,))[:, 0])
    keys = jax.random.split(jax.random.key(1), number // 1_000_000)
    draws = np.concatenate([np.asarray(draw(key), np.float64) for key in keys])
    assert np.all(np.isfinite(draws))
    u = np.sort(np.clip(density.smooth_cdf()(draws), 1e-17, 1 - 1e-16))
    assert stats.kstest(u, "uniform").pvalue > LEVEL
    # The statistic's tail is that of its first term: P(A^2 > z) is about sqrt(3) P(chi^2_1 > 2 z).
    assert _anderson_darling(u) < stats.chi2(1).isf(LEVEL / np.sqrt(3)) / 2

    # Far quantiles of the density are the reference's, scaled.
    left, right = density.outside
    total = density._total[0]
    for probability in (1e-5, 1e-6, 1e-7):
        low = exact.ppf(probability * total / np.exp(density.f(domain[0]) - density.peak))
        high = exact.isf(probability * total / np.exp(density.f(domain[1]) - density.peak))
        assert low < domain[0] or probability > left / total
        assert high > domain[1] or probability > right / total
        for count, applies in ((np.sum(draws < low), low < domain[0]), (np.sum(draws > high), high > domain[1])):
            if applies:
                assert stats.binomtest(int(count), number, probability).pvalue > LEVEL


def _anderson_darling(u):
    """The statistic of increasing uniform numbers (Anderson and Darling 1954)."""
    i = np.arange(1, len(u) + 1)
    return -len(u) - np.mean((2 * i - 1) * (np.log(u) + np.log1p(-u[::-1])))


@pytest.mark.exhaustive
@pytest.mark.parametrize("basis", BASES)
def test_a_billion_draws_are_finite(basis):
    # Law: no draw is infinite or NaN, 1e9 over the references for all bases together.
    number = 1_000_000_000 // (len(BASES) * len(REFERENCES))
    for make, _, domain in REFERENCES.values():
        prior = kp.KANTilted(bank(basis, (1.0, 10.0, 20.0, 5.0), domain), make())
        table = prior.table

        @jax.jit
        def finite(key, prior=prior, table=table):
            return jnp.all(jnp.isfinite(prior.given(table=table).sample(key, (250_000,))))

        for key in jax.random.split(jax.random.key(0), -(-number // 1_000_000)):
            assert bool(finite(key))
