"""`prune`: planted energies, the evidence that is lost by quadrature, mixtures, and what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy import integrate, stats

import kaem_ppl as kp

# Few terms of a Chebyshev energy, and none of the last latent.
PLANTED = np.zeros((3, 8))
PLANTED[0, 3], PLANTED[1, [2, 5]] = 1.5, [-1.0, 0.7]


def planted(reference, coef):
    energy = kp.UnivariateKAN.init(0, coef.shape[:-1], basis=kp.Chebyshev(7), domain=(-3, 3))
    energy = replace(energy, coef=jnp.asarray(coef), base_weight=jnp.zeros(coef.shape[:-1]))
    return kp.KANTilted(energy, reference)


def posterior_of(prior, x, sigma, key, shape):
    """Exact draws of z given x ~ Normal(z, sigma), by the inverse of F on a fine grid; shape + (N, Q)."""
    grid = jnp.linspace(-6, 6, 20_001)[:, None]
    log_density = prior.log_prob(grid)[:, None] + stats.norm.logpdf(x, grid[:, None], sigma)
    cdf = np.cumsum(np.exp(log_density - log_density.max(0)), axis=0)
    u = np.random.default_rng(key).uniform(size=(*shape, *x.shape))
    columns = [np.interp(u[..., n, q], cdf[:, n, q] / cdf[-1, n, q], grid[:, 0]) for n, q in np.ndindex(x.shape)]
    return np.moveaxis(np.stack(columns), 0, -1).reshape(*shape, *x.shape)


def evidence(prior, x, sigma):
    """log p(x) by Simpson's rule, (N,)."""
    z = np.linspace(-9, 9, 20_001)
    log_joint = np.asarray(prior.log_prob(z[:, None]), float)[:, None] + stats.norm.logpdf(x, z[:, None, None], sigma)
    return np.log(integrate.simpson(np.exp(log_joint), z, axis=0)).sum(1)


@pytest.fixture(scope="module")
def pruned():
    noise = 0.02 * np.random.default_rng(0).standard_normal(PLANTED.shape)
    prior = planted(dist.Normal(0, 1), PLANTED + noise)
    x = np.asarray(prior.sample(jax.random.key(0), (4,))) + 0.3
    samples = posterior_of(prior, x, 0.5, 1, (4, 500))
    return prior, x, kp.prune(prior, samples, max_evidence_loss=0.02)


def test_planted_terms_are_kept_and_no_more(pruned):
    _, _, found = pruned
    # T_0 is a constant, which no density notices.
    kept = np.asarray(found.kept["coef"])
    assert (kept[PLANTED != 0]).all()
    assert kept.sum() <= 5
    assert found.is_reference.tolist() == [False, False, True]
    assert found.num_parameters[0] == 3 * 10


def test_the_loss_is_that_of_quadrature(pruned):
    # Oracle: Simpson's rule for both evidences. 4 errors of 4 chains, and what differs at most to the second order.
    prior, x, found = pruned
    lost = (evidence(prior, x, 0.5) - evidence(found.prior, x, 0.5)).mean()
    assert abs(found.evidence_loss - lost) < 6 * found.std_error + 1e-4
    assert found.evidence_loss <= 0.02


def test_the_divergence_is_within_what_it_says(pruned):
    # Oracle: Simpson's rule for p log(p / p').
    prior, _, found = pruned
    z = np.linspace(-9, 9, 20_001)
    before, after = (np.asarray(x.log_prob(z[:, None]), float) for x in (prior, found.prior))
    kl = integrate.simpson(np.exp(before) * (before - after), z, axis=0)
    assert (kl <= 1.05 * found.max_kl + 1e-5).all()


def test_parameters_go_back_into_the_model(pruned):
    _, _, found = pruned
    with handlers.substitute(data={"prior$params": found.params}):
        prior = kp.kan_prior("prior", (3,), basis=kp.Chebyshev(7), domain=(-3, 3), reference=dist.Normal(0, 1))
    np.testing.assert_allclose(prior.log_prob(jnp.zeros(3)), found.prior.log_prob(jnp.zeros(3)), rtol=1e-6)


@pytest.mark.exhaustive
def test_components_without_weight_go():
    energy = kp.UnivariateKAN.init(0, (2, 4), basis=kp.RBF(6), domain=(-3, 3))
    # The first component leans to the left, the others to the right.
    lean = jnp.linspace(-2, 2, 6) * jnp.array([-1.0, 1, 1, 1])[:, None]
    energy = replace(energy, coef=jnp.broadcast_to(lean, energy.coef.shape))
    logits = jnp.array([[0.0, 0.0, -20.0, -30.0], [0.0, -25.0, -20.0, 1.0]])
    # A reference of each latent, which the components share.
    reference = dist.TruncatedNormal(jnp.array([0.0, 1.0]), 1.0, low=-3.0, high=5.0)
    prior = kp.KANTiltedMixture(logits, energy, reference)
    # Data that leave no doubt of their latents.
    found = kp.prune(prior, prior.sample(jax.random.key(0), (1, 1, 300)), max_evidence_loss=0.01)
    assert found.kept["logits"].tolist() == [[True, True, False, False], [True, False, False, True]]
    assert found.params["coef"].shape == energy.coef.shape
    assert "of 72 parameters" in repr(found)


@pytest.mark.slow
def test_nothing_goes_where_nothing_may_be_lost():
    prior = planted(dist.Normal(0, 1), PLANTED)
    # At the peaks of the planted energies, where anything dropped loses.
    samples = jnp.broadcast_to(jnp.array([-0.5, 0.4, 0.0]), (2, 5, 2, 3))
    found = kp.prune(prior, samples, max_evidence_loss=0)
    np.testing.assert_allclose(found.prior.log_prob(jnp.ones(3)), prior.log_prob(jnp.ones(3)), atol=1e-3)


@pytest.mark.parametrize(
    ("prior", "samples", "settings", "message"),
    [
        (dist.Normal(0, 1), np.zeros((1, 2, 3)), {}, "`prior` must be a `KANTilted`"),
        (None, np.zeros((5, 3)), {}, r"`samples` must have shape \(chains, draws, data\) \+ \(3,\)"),
        (None, np.full((1, 2, 2, 3), np.nan), {}, "`samples` must be finite"),
        (None, np.zeros((1, 2, 2, 3)), {"max_evidence_loss": -1}, "`max_evidence_loss` must be"),
    ],
)
def test_refuses(pruned, prior, samples, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        kp.prune(pruned[0] if prior is None else prior, samples, **settings)
