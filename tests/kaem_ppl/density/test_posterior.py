"""Posterior draws as a prior: batch after batch against all data at once, sites and supports, and what is refused."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

import kaem_ppl as kp
from kaem_ppl.inference import ImportanceSampling, sample_posterior

RNG = np.random.default_rng(0)
NUM_DRAWS = 20_000


def batch_after_batch(grid, likelihoods, first, support):
    """Mean and sd on a grid after all batches, each posterior's draws becoming the next prior; exact but for that.

    Draws are the quantiles of jittered equal masses on the grid.
    """
    log_prior = first
    for log_likelihood in likelihoods:
        mass = np.exp(log_prior + log_likelihood - np.max(log_prior + log_likelihood))
        mass /= mass.sum()
        u = RNG.uniform(size=NUM_DRAWS)
        draws = np.interp(u, np.cumsum(mass), grid)
        prior = kp.prior_from({"x": draws.astype(np.float32)}, ["x"], supports={"x": support})
        log_prior = np.asarray(prior.log_prob(jnp.asarray(grid, jnp.float32)[:, None]), float)
    mean = np.sum(mass * grid)
    return mean, np.sqrt(np.sum(mass * (grid - mean) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_batches", "tolerance"), [(2, 0.02), pytest.param(10, 0.05, marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize("law", ["normal", "beta-binomial"])
def test_batch_after_batch_is_all_at_once(law, num_batches, tolerance):
    if law == "normal":
        data = RNG.normal(1.0, 2.0, size=(num_batches, 20))
        grid, support = np.linspace(-4, 6, 20_001), constraints.real
        first = stats.norm(0, 3).logpdf(grid)
        likelihoods = [stats.norm(y[:, None], 2.0).logpdf(grid).sum(axis=0) for y in data]
        precision = 1 / 9 + data.size / 4
        mean, sd = data.sum() / 4 / precision, precision**-0.5
    else:
        successes = RNG.binomial(20, 0.3, size=num_batches)
        grid, support = np.linspace(0, 1, 20_003)[1:-1], constraints.unit_interval
        first = stats.beta(1, 1).logpdf(grid)
        likelihoods = [stats.binom(20, grid).logpmf(k) for k in successes]
        exact = stats.beta(1 + successes.sum(), 1 + 20 * num_batches - successes.sum())
        mean, sd = exact.mean(), exact.std()
    found_mean, found_sd = batch_after_batch(grid, likelihoods, first, support)
    # Twenty thousand draws of each posterior: standard errors of 0.7 % of an sd and less.
    assert abs(found_mean / mean - 1) < tolerance
    assert abs(found_sd / sd - 1) < tolerance


@pytest.fixture(scope="module")
def prior():
    number = 2000
    mu = RNG.normal(1.0, 0.5, size=number)
    draws = {"mu": mu, "tau": np.exp(0.3 * RNG.normal(size=number) + mu), "shares": RNG.beta(2, 3, size=(number, 2))}
    supports = {"tau": constraints.positive, "shares": constraints.unit_interval}
    found = kp.prior_from(draws, ["tau", "mu", "shares"], supports=supports)
    return draws, found


@pytest.mark.exhaustive
def test_sites_are_flattened_in_the_order_of_their_names(prior):
    draws, found = prior
    numbers = found.pack({name: x.astype(np.float32) for name, x in draws.items()})
    assert found.event_shape == (4,)
    np.testing.assert_array_equal(numbers[:, 0], draws["tau"].astype(np.float32))
    for name, x in found.unpack(numbers).items():
        np.testing.assert_array_equal(x, draws[name].astype(np.float32))
    # 20,000 draws against 2,000: three standard errors of the means are 7 % of an sd.
    new = found.sample(jax.random.key(0), (20_000,))
    np.testing.assert_allclose((new.mean(axis=0) - numbers.mean(axis=0)) / numbers.std(axis=0), 0, atol=0.07)
    known = stats.spearmanr(np.asarray(numbers)[:, :2]).statistic
    assert stats.spearmanr(np.asarray(new)[:, :2]).statistic == pytest.approx(known, abs=0.04)
    assert np.all(found.support(new))
    assert np.isneginf(found.log_prob(jnp.array([-1.0, 0.0, 0.5, 0.5])))


@pytest.mark.exhaustive
def test_the_joint_density_is_a_site_of_a_model(prior):
    _, found = prior

    def model():
        sites = found.unpack(numpyro.sample("theta", found))
        numpyro.sample("y", dist.Normal(sites["mu"], 0.1), obs=1.2)

    mcmc = numpyro.infer.MCMC(numpyro.infer.NUTS(model), num_warmup=300, num_samples=600, progress_bar=False)
    mcmc.run(jax.random.key(0))
    theta = mcmc.get_samples()["theta"]
    # The likelihood is five times as sharp as the prior.
    assert theta[:, 1].mean() == pytest.approx(1.19, abs=0.03)
    assert theta[:, 1].std() == pytest.approx(0.098, abs=0.02)


@pytest.mark.slow
def test_draws_of_chains_have_two_leading_axes(prior):
    draws, _ = prior
    chains = SimpleNamespace(samples={"mu": draws["mu"].reshape(4, 500), "shares": draws["shares"].reshape(4, 500, 2)})
    supports = {"shares": constraints.unit_interval}
    joint = kp.prior_from(chains, ["mu", "shares"], supports=supports)
    assert dict(joint.sites) == {"mu": (), "shares": (2,)}


@pytest.mark.slow
def test_numbers_that_seem_positive_are_asked_for():
    tau = RNG.gamma(2.0, size=200)
    with pytest.warns(UserWarning, match=r"All draws of 'tau' are above 0.*supports=\{'tau': constraints.positive\}"):
        kp.prior_from({"tau": tau}, ["tau"])


@pytest.mark.exhaustive
def test_draws_of_a_sampler_know_their_supports():
    def model():
        numpyro.sample("mu", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("tau", dist.HalfNormal(1))
        numpyro.sample("u", dist.Uniform(jnp.zeros((2, 2)), jnp.array([[1.0, 2.0], [3.0, 4.0]])).to_event(2))
        numpyro.sample("y", dist.Normal(0, 1), obs=0.0)

    draws = sample_posterior(
        0, model, sampler=ImportanceSampling(400), num_chains=1, num_samples=200, progress_bar=False
    )
    prior = kp.prior_from(draws)
    numbers = prior.pack({name: x[0] for name, x in draws.samples.items()})
    assert np.all(prior.support(numbers))
    assert not np.any(prior.support(-numbers))
    assert np.all(prior.support(prior.sample(jax.random.key(1), (500,))))
    assert dict(prior.sites) == {"mu": (2,), "tau": (), "u": (2, 2)}
    outside = prior.pack({"mu": jnp.zeros(2), "tau": jnp.array(1.0), "u": jnp.array([[0.5, 0.5], [0.5, 4.5]])})
    assert np.isneginf(prior.log_prob(outside))


GOOD = {"x": RNG.normal(size=50), "y": RNG.normal(size=50)}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"draws": 3}, "draws"),
        ({"names": "x"}, "names"),
        ({"draws": {"x": np.zeros((4, 50))}}, "draws"),
        ({"names": ["z"]}, "names"),
        ({"names": []}, "names"),
        ({"names": ["x"], "supports": {"y": constraints.positive}}, "supports"),
        ({"supports": {"x": constraints.positive}}, "draws"),
        ({"supports": {"x": constraints.simplex}}, "supports"),
        pytest.param({"draws": GOOD | {"y": GOOD["x"]}}, "dependence", marks=pytest.mark.slow),
        ({"draws": GOOD | {"y": np.ones(40)}}, "draws"),
        ({"draws": GOOD | {"y": np.full(50, np.nan)}}, "draws"),
    ],
)
def test_wrong_arguments_are_refused(arguments, name, assert_refused):
    assert_refused(lambda: kp.prior_from(**{"draws": GOOD} | arguments), name)
