"""Draws: Kolmogorov-Smirnov against SciPy's CDF, NumPyro's goodness of fit, and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import gof
from scipy import stats

import kaem_ppl as kp

from .. import members
from ..members import BASES, ONE_PER_BASIS, PAIRS, REFERENCES, density, tilted

SIZES = (None, 10, 100)


def _ks(draws, cdf):
    """p-value of the one-sample statistic, by SciPy's asymptotic law (a million draws)."""
    u = np.sort(cdf(np.asarray(draws, float)))
    n = len(u)
    statistic = max(np.max(np.arange(1, n + 1) / n - u), np.max(u - np.arange(n) / n))
    return stats.kstwobign.sf(statistic * np.sqrt(n))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("basis", "reference"), PAIRS)
def test_a_million_draws(basis, reference):
    # Oracle: Gauss sums in NumPy with SciPy's reference, which quad confirms. Key 0; p above 1e-4 for each of 3 x 28
    # densities and two mixtures: family-wise false alarm at most 86e-4 = 0.9 %.
    d = tilted(basis, reference, SIZES)
    draws = np.asarray(d.sample(jax.random.key(0), (1_000_000,)))
    for i in range(3):
        oracle = density(basis, reference, i, SIZES)
        cdf = oracle.smooth_cdf()
        z = np.array([0.3, 0.9, 1.7])
        np.testing.assert_allclose(cdf(z), oracle.tails(z)[0], rtol=0, atol=1e-9)
        assert _ks(draws[:, i], cdf) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["Normal", "LogNormal"])
def test_a_million_draws_of_a_mixture(reference):
    # Oracle: the components' CDFs, weighed. Key 0; false alarm as above.
    logits = np.array([0.3, -0.5, 0.9])
    d = kp.KANTiltedMixture(jnp.asarray(logits), members.bank("RBF", SIZES), REFERENCES[reference][0]())
    draws = np.asarray(d.sample(jax.random.key(0), (1_000_000,)))
    cdfs = [density("RBF", reference, i, SIZES).smooth_cdf() for i in range(3)]
    weights = np.exp(logits) / np.exp(logits).sum()
    assert _ks(draws, lambda z: sum(w * cdf(z) for w, cdf in zip(weights, cdfs, strict=True))) > 1e-4


@pytest.mark.parametrize(
    ("basis", "reference"),
    [
        ONE_PER_BASIS[0],
        *(
            pytest.param(*p, marks=pytest.mark.exhaustive if p[0] == "Fourier" else pytest.mark.slow)
            for p in ONE_PER_BASIS[1:]
        ),
    ],
)
def test_numpyros_goodness_of_fit(basis, reference):
    # Oracle: NumPyro's gof, draws against log_prob. Key 2, 20,000 draws; each of 21 fails with probability 1e-4: 0.2 %.
    # The density that is as drawn; sharper ones have gaps between draws that float32 rounds.
    d = tilted(basis, reference, SIZES)
    draws = d.sample(jax.random.key(2), (20_000,))
    probs = np.exp(np.asarray(d.log_prob(draws), float))
    for i in range(3 if reference != "LogNormal" else 2):
        p = gof.auto_goodness_of_fit(np.asarray(draws[:, i], float), probs[:, i])
        assert p > 1e-4


def test_draws_reach_both_tails():
    # Law: u near 0 and 1 gives points outside the domain; a normal reference with f = 0 has 0.27 % beyond 3 sigma.
    # Oracle: binomial, 200,000 draws, six standard deviations (false alarm 2e-9). Key 3.
    bank = members.bank("RBF", SIZES)
    d = kp.KANTilted(jax.tree.map(lambda x: 0 * x if x.shape[:1] == (3,) else x, bank), REFERENCES["Normal"][0]())
    draws = np.asarray(d.sample(jax.random.key(3), (200_000,)))
    expected = 200_000 * 2 * stats.norm.sf(3)
    assert np.all(np.abs(np.sum(np.abs(draws) > 3, axis=0) - expected) < 6 * np.sqrt(expected))


@pytest.mark.parametrize("number", [20_000, 20_001])
def test_many_points_are_inverted_as_few_are(number):
    # Oracle: a point at a time does not depend on the others. Many are inverted some at a time on a CPU.
    d = tilted("RBF", "Normal", SIZES)
    u = np.random.default_rng(number).uniform(size=(number, 1))
    z = np.asarray(d.icdf(u))
    some = np.array([0, 1, number // 2, number - 2, number - 1])
    np.testing.assert_allclose(z[some], d.icdf(u[some]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(d.cdf(z), np.broadcast_to(u, z.shape), atol=2e-6)
    one = jax.vmap(lambda u: d.icdf(u))(u[None])[0]
    np.testing.assert_allclose(one, z, rtol=1e-5, atol=1e-5)


def test_keys():
    # Law: the same key gives the same draws, other keys others, and columns of a bank are independent.
    # Oracle: correlation of 20,000 pairs within five standard errors (false alarm 6e-7). Keys 2 and 4.
    d = tilted("RBF", "Normal", SIZES)
    draws = d.sample(jax.random.key(2), (20_000,))
    np.testing.assert_array_equal(draws, d.sample(jax.random.key(2), (20_000,)))
    assert not np.array_equal(draws, d.sample(jax.random.key(4), (20_000,)))
    assert abs(np.corrcoef(np.asarray(draws).T)[0, 1]) < 5 / np.sqrt(20_000)
    # An integer is a seed, as elsewhere.
    np.testing.assert_array_equal(d.sample(3), d.sample(jax.random.key(3)))
    with pytest.raises(TypeError, match="key"):
        d.sample("3")


@pytest.mark.parametrize("basis", ["RBF", *(pytest.param(b, marks=pytest.mark.slow) for b in BASES if b != "RBF")])
def test_shapes_and_precision(basis, precision):
    if precision == "float64" and basis != "RBF":
        pytest.skip("one basis in float64")
    reference = dict(ONE_PER_BASIS)[basis]
    draws = tilted(basis, reference, SIZES).sample(jax.random.key(0), (4, 5))
    assert draws.shape == (4, 5, 3)
    assert draws.dtype == jnp.dtype(precision)
    low, high = REFERENCES[reference][1].support()
    assert np.all((np.asarray(draws) >= low) & (np.asarray(draws) <= high))
