"""Globals and locals moved in blocks, against quadrature over the globals with the locals integrated in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st
from arviz_stats.base import array_stats

from kaem_ppl.inference import (
    HMC,
    MALA,
    NUTS,
    Blocks,
    EllipticalSlice,
    ImportanceSampling,
    TemperedSMC,
    diagnose,
    log_evidence,
    sample_posterior,
)
from kaem_ppl.inference.model.hierarchy.posterior import HierarchicalPosterior, read_posterior
from kaem_ppl.inference.model.hierarchy.standardize import Standardized

_Y = jnp.array([-1.2, 0.3, 0.8, 1.1, 2.4, 2.9, 4.5, 0.1])
_SIGMA = jnp.array([1.0, 0.3, 0.5, 2.0, 0.4, 1.0, 0.7, 1.5])


def groups(y, sigma):
    mu = numpyro.sample("mu", dist.Normal(0, 2))
    tau = numpyro.sample("tau", dist.LogNormal(0, 0.5))
    with numpyro.plate("data", len(y)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.deterministic("shift", theta - mu)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def groups_by_quadrature(number=8):
    """Means and variances of mu, tau and theta, and the evidence, from y ~ Normal(mu, sqrt(tau^2 + sigma^2))."""
    y, sigma = np.asarray(_Y, float)[:number], np.asarray(_SIGMA, float)[:number]
    mu, log_tau = np.meshgrid(np.linspace(-7, 9, 401), np.linspace(-2.5, 2.5, 401), indexing="ij")
    tau = np.exp(log_tau)[..., None]
    log_joint = st.norm.logpdf(mu, 0, 2) + st.norm.logpdf(log_tau, 0, 0.5)
    log_joint += st.norm.logpdf(y, mu[..., None], np.sqrt(tau**2 + sigma**2)).sum(-1)
    weights = np.exp(log_joint - log_joint.max())
    log_z = np.log(weights.sum()) + log_joint.max() + np.log(16 / 400 * 5 / 400)
    weights /= weights.sum()
    precision = 1 / tau**2 + 1 / sigma**2
    theta = (mu[..., None] / tau**2 + y / sigma**2) / precision

    def moments(x, variance=0.0):
        mean = np.tensordot(weights, x, 2)
        return mean, np.tensordot(weights, x**2 + variance, 2) - mean**2

    return {"mu": moments(mu), "tau": moments(tau[..., 0]), "theta": moments(theta, 1 / precision)}, log_z


def check_moments(samples, expected):
    # 4.5 standard errors of each mean, and of the mean square distance from it: once in 7,000 runs for all twenty numbers.
    for name, (mean, variance) in expected.items():
        x = np.asarray(samples[name], float).reshape(*samples[name].shape[:2], -1)
        for values, wanted in ((x, mean), ((x - mean) ** 2, variance)):
            size = np.asarray(array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean"))
            error = values.std((0, 1)) / np.sqrt(size)
            assert (abs(values.mean((0, 1)) - wanted) < 4.5 * error).all(), name
            assert (size > 100).all(), name


def test_two_hundred_groups_have_their_conjugate_posterior():
    y = np.random.default_rng(0).normal(1.0, np.hypot(0.7, 1.0), 200)

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 2))
        with numpyro.plate("data", len(y)):
            theta = numpyro.sample("theta", dist.Normal(mu, 0.7))
            numpyro.sample("y", dist.Normal(theta, 1), obs=y)

    variance = 1 / (1 / 4 + 200 / (0.7**2 + 1))
    mean = variance * y.sum() / (0.7**2 + 1)
    # Given mu, the mean of theta is that of y and mu by their precisions.
    share = 0.7**2 / (0.7**2 + 1)
    theta = share * y + (1 - share) * mean, np.full(200, share + (1 - share) ** 2 * variance)
    draws = sample_posterior(
        jax.random.key(0), model, jnp.asarray(y, jnp.float32), plate="data", num_samples=300, num_warmup=300,
        progress_bar=False,
    )  # fmt: skip
    check_moments(draws.samples, {"mu": (mean, variance), "theta": theta})


@pytest.fixture(scope="module")
def draws():
    return sample_posterior(
        jax.random.key(0), groups, _Y, _SIGMA, plate="data", num_samples=800, num_warmup=400, progress_bar=False
    )


@pytest.mark.slow
def test_the_default_follows_the_joint_posterior(draws):
    assert isinstance(draws.sampler, Blocks)
    check_moments(draws.samples, groups_by_quadrature()[0])


@pytest.mark.slow
def test_shapes_are_numpyros_and_the_plate_is_a_dimension(draws):
    assert draws.samples["mu"].shape == (4, 800)
    assert draws.samples["theta"].shape == (4, 800, 8)
    assert draws.summary["locals_step_size"].shape == (4, 8)
    assert draws.predict(jax.random.key(1))["y"].shape == (4, 800, 8)
    np.testing.assert_allclose(
        draws.deterministics["shift"], draws.samples["theta"] - draws.samples["mu"][..., None], atol=1e-5
    )
    tree = draws.to_arviz()
    assert tree["posterior"]["theta"].dims == ("chain", "draw", "data")
    assert tree["log_likelihood"]["y"].shape == (4, 800, 8)
    assert tree["run_summary"]["locals_step_size"].dims == ("chain", "data")
    diagnosis = diagnose(draws)
    assert set(diagnosis.table.index) == {"mu", "tau", "theta"}
    assert diagnosis.checks["R-hat"]


@pytest.mark.slow
def test_log_density_of_draws_is_that_of_the_joint(draws):
    # Oracle: NumPyro's own log density of the values.
    values = {name: x[0, 0] for name, x in draws.samples.items()}
    exact, _ = numpyro.infer.util.log_density(groups, (_Y, _SIGMA), {}, values)
    scale = 3 * jnp.log(1.0) + 8 * jnp.log(values["tau"])
    # The Jacobian: theta = mu + tau e, mu = 2 e, tau = exp(e / 2).
    jacobian = scale + jnp.log(2.0) + jnp.log(0.5 * values["tau"])
    np.testing.assert_allclose(draws.sample_stats["lp"][0, 0], exact + jacobian, rtol=1e-4)


@pytest.mark.slow
def test_whitened_kernels_move_in_blocks():
    draws = sample_posterior(
        jax.random.key(2),
        groups,
        _Y,
        _SIGMA,
        plate="data",
        sampler=EllipticalSlice(),
        num_samples=4000,
        num_warmup=100,
        progress_bar=False,
    )
    assert draws.sampler == Blocks(EllipticalSlice(), EllipticalSlice())
    check_moments(draws.samples, groups_by_quadrature()[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        MALA(),
        TemperedSMC(2000),
        *(pytest.param(x, marks=pytest.mark.exhaustive) for x in (NUTS(), Blocks(NUTS(), MALA()))),
    ],
    ids=repr,
)
def test_other_samplers_follow_the_joint_posterior(sampler):
    draws = sample_posterior(
        jax.random.key(3), groups, _Y, _SIGMA, plate="data", sampler=sampler, num_samples=4000, progress_bar=False
    )
    check_moments(draws.samples, groups_by_quadrature()[0])


@pytest.mark.parametrize(
    "method", [ImportanceSampling(20_000), pytest.param(TemperedSMC(500), marks=pytest.mark.exhaustive)]
)
def test_evidence_integrates_globals_and_locals(method):
    # Three groups, for prior draws to reach.
    evidence = log_evidence(
        jax.random.key(4), groups, _Y[:3], _SIGMA[:3], plate="data", method=method, num_chains=2, progress_bar=False
    )
    assert evidence.value.shape == ()
    assert evidence.plate is None
    # Once in 10,000 runs.
    assert abs(evidence.value - groups_by_quadrature(3)[1]) < 4 * evidence.std_error
    assert evidence.std_error < 0.2


def chained(x, weight):
    """Globals of a tree, two locals of which one depends on the other, a second plate, and an event of three."""
    scale = numpyro.sample("scale", dist.Gamma(2, 2))
    loc = numpyro.sample("loc", dist.StudentT(4, jnp.zeros(3), scale).to_event(1))
    numpyro.sample("pilot", dist.Normal(loc, 1).to_event(1), obs=jnp.array([0.3, -0.1, 0.5]))
    x = x.T
    with numpyro.plate("data", x.shape[1]):
        spread = numpyro.sample("spread", dist.LogNormal(jnp.log(scale), 0.4))
        rate = numpyro.sample("rate", dist.Gamma(3, scale))
        z = numpyro.sample("z", dist.MultivariateNormal(loc, spread[..., None, None] * jnp.eye(3)))
        with numpyro.plate("repeats", x.shape[0]):
            a = numpyro.sample("a", dist.Laplace(rate, spread))
            numpyro.sample("x", dist.Normal(z @ weight + a, 1), obs=x)


@pytest.mark.exhaustive
def test_other_families_agree_with_numpyros_nuts():
    # Oracle: joint NUTS of NumPyro, by means in units of their combined errors; 4.5 of them once in 5,000 runs.
    x = jax.random.normal(jax.random.key(0), (5, 2)) + 1
    weight = jnp.array([0.5, -0.2, 0.3])
    settings = {"num_samples": 2000, "num_warmup": 500, "progress_bar": False}
    ours = sample_posterior(jax.random.key(1), chained, x, weight, plate="data", **settings)
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(chained, target_accept_prob=0.95), num_chains=4, chain_method="vectorized", **settings
    )
    mcmc.run(jax.random.key(2), x, weight)
    theirs = mcmc.get_samples(group_by_chain=True)
    assert set(ours.samples) == set(theirs)
    for name in theirs:
        assert ours.samples[name].shape == theirs[name].shape
        to_line = np.log if name in ("scale", "spread", "rate") else np.asarray
        (mean_a, error_a), (mean_b, error_b) = (mean_and_error(to_line(x[name])) for x in (ours.samples, theirs))
        assert (abs(mean_a - mean_b) < 4.5 * np.hypot(error_a, error_b)).all(), name


def mean_and_error(x):
    x = np.asarray(x, float).reshape(*x.shape[:2], -1)
    size = np.asarray(array_stats.ess(x, chain_axis=0, draw_axis=1, method="mean"))
    return x.mean((0, 1)), x.std((0, 1)) / np.sqrt(size)


def outside_depends(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Normal(mu, 1))
        numpyro.sample("y", dist.Normal(z, 1), obs=y)
    numpyro.factor("total", -jnp.square(z.sum()))


def regression(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (
            regression,
            {"plate": "data"},
            "has no latent site: all its rows share 'mu', and are one problem. Leave `plate`",
        ),
        (outside_depends, {"plate": "data"}, "'total' stands outside plate 'data' and depends on 'z'"),
        (outside_depends, {"sampler": Blocks()}, "by `plate=`"),
    ],
)
def test_refuses_what_has_no_blocks(model, settings, message):
    with pytest.raises(ValueError, match=message):
        sample_posterior(jax.random.key(0), model, _Y, progress_bar=False, **settings)


def test_refuses_kernels_that_do_not_fit():
    with pytest.raises(ValueError, match="different coordinates"):
        Blocks(HMC(), EllipticalSlice())
    with pytest.raises(TypeError, match="`locals_` must be a Markov kernel"):
        Blocks(HMC(), "HMC")
    with pytest.raises(ValueError, match="HMC adapts its step size in warm-up"):
        sample_posterior(jax.random.key(0), groups, _Y, _SIGMA, plate="data", num_warmup=0, progress_bar=False)


def test_a_global_may_bound_another():
    # Oracle: NumPyro's own log density. The support of `mu` is computed by the model.
    def moving_support(y):
        width = numpyro.sample("width", dist.LogNormal(0, 1))
        mu = numpyro.sample("mu", dist.Uniform(0, width))
        with numpyro.plate("data", len(y)):
            z = numpyro.sample("z", dist.Normal(mu, 1))
            numpyro.sample("y", dist.Normal(z, 1), obs=y)

    posterior = read_posterior(moving_support, (_Y,), {}, plate="data")
    assert isinstance(posterior, HierarchicalPosterior)
    target = posterior.written_in(Standardized()).target(())
    position = target.draw(jax.random.key(0))
    globals_, locals_ = posterior.blocks.split(position)
    of_locals = target.posterior.of_locals(globals_, locals_)
    per_datum = jax.vmap(lambda datum, position: of_locals.target(datum).log_likelihood(position))(
        of_locals.rows, posterior.blocks.data_first(locals_)
    )
    np.testing.assert_allclose(per_datum.sum(), target.log_likelihood(position), rtol=1e-5)
    given = target.posterior.of_globals(locals_)
    joint = target.log_prior(position) + target.log_likelihood(position)
    np.testing.assert_allclose(given.log_prior(globals_) + given.log_likelihood(globals_), joint, rtol=1e-5)
    # The same density in the other coordinates, but for the Jacobian, here 1: the locals' scale is 1.
    values = target.posterior.unstandardize(globals_, locals_)
    given = target.posterior.of_globals_given_values(values)
    np.testing.assert_allclose(given.log_prior(globals_) + given.log_likelihood(globals_), joint, rtol=1e-5)
    np.testing.assert_allclose(target.posterior.standardize(globals_, values)["z"], locals_["z"], atol=1e-5)
