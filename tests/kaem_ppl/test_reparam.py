"""The inverse-transform reparameterisation: the same model, written in standard normal draws."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density
from scipy import stats

import kaem_ppl as kp


def bank(shape, seed=0):
    # Energies of several nats, so that the densities are far from the reference.
    basis = kp.RBF(8, coef_scale=2.0)
    return kp.UnivariateKAN.init(jax.random.key(seed), shape, basis=basis, domain=(-3, 3))


# The first to ask may be a model that JAX traces, and the next ones not.
@cache
@jax.ensure_compile_time_eval()
def tilted(shape):
    return kp.KANTilted(bank(shape), dist.Normal(0, 1))


@cache
@jax.ensure_compile_time_eval()
def mixture(shape):
    return kp.KANTiltedMixture(jnp.zeros((*shape, 3)), bank((*shape, 3)), dist.Normal(0, 1))


PRIORS = {
    "tilted": lambda: tilted(()),
    "expanded": lambda: tilted(()).expand((2, 3)).to_event(2),
    "bank": lambda: tilted((2, 3)).to_event(2),
    "mixture": lambda: mixture((3,)).to_event(1),
    "normal": lambda: dist.Normal(1.0, 2.0),
    "lognormal": lambda: dist.LogNormal(0.0, 0.5).expand((3,)).to_event(1),
    "uniform": lambda: dist.Uniform(-1.0, jnp.array([1.0, 2.0])).to_event(1),
}
# The fast tests take one learnt prior and one of NumPyro's.
EACH = [
    pytest.param(make, id=name, marks=() if name in ("bank", "lognormal") else pytest.mark.slow)
    for name, make in PRIORS.items()
]


def whiten(model):
    return handlers.reparam(model, config={"z": kp.InverseTransformReparam()})


@pytest.mark.parametrize("make", EACH)
def test_the_base_is_exactly_standard_normal_in_every_shape(make):
    def model(size):
        with numpyro.plate("data", size):
            numpyro.sample("z", make())

    shape = (4, *make().event_shape)
    trace = handlers.trace(handlers.seed(whiten(model), jax.random.key(0))).get_trace(4)
    assert trace["z"]["type"] == "deterministic"
    assert trace["z_base"]["value"].shape == trace["z"]["value"].shape == shape
    e = 2 * jax.random.normal(jax.random.key(1), shape)
    density, _ = log_density(whiten(model), (4,), {}, {"z_base": e})
    np.testing.assert_allclose(density, stats.norm.logpdf(np.asarray(e, float)).sum(), rtol=1e-6)


@pytest.mark.parametrize("name", ["tilted", "mixture", "normal", "lognormal"])
def test_draws_are_those_of_the_prior(name):
    make = PRIORS[name]

    def model():
        numpyro.sample("z", make())

    draws = numpyro.infer.Predictive(whiten(model), num_samples=4000)(jax.random.key(0))["z"]
    univariate = make()
    while isinstance(univariate, dist.Independent | dist.ExpandedDistribution):
        univariate = univariate.base_dist
    # Through the distribution function each latent's draws are uniform. A false alarm in a thousand seeds each.
    uniform = np.asarray(univariate.cdf(draws)).reshape(4000, -1)
    for column in uniform.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("make", EACH)
def test_values_and_gradients_are_finite_far_out_in_float32(make):
    def values(e):
        with handlers.substitute(data={"z_base": e}), numpyro.plate("points", 5):
            return whiten(lambda: numpyro.sample("z", make()))()

    points = jnp.array([-6.0, -3.0, 0.0, 3.0, 6.0], jnp.float32)
    points = jnp.broadcast_to(points.reshape(5, *(1,) * len(make().event_shape)), (5, *make().event_shape))
    z, pull = jax.vjp(values, points)
    (slopes,) = pull(jnp.ones_like(z))
    assert jnp.all(jnp.isfinite(z))
    assert jnp.all(jnp.diff(z, axis=0) > 0)
    assert jnp.all(jnp.isfinite(slopes))
    assert jnp.all(slopes[1:4] > 0)


@pytest.mark.parametrize("e", [-6.0, 6.0])
def test_the_upper_tail_keeps_its_digits(e):
    # Beyond the domain the prior's tail is the reference's, scaled: both tail masses must be Phi(-6).
    prior = tilted(())
    with handlers.substitute(data={"z_base": jnp.float32(e)}):
        z = whiten(lambda: numpyro.sample("z", prior))()
    np.testing.assert_allclose(prior.tails(z)[int(e > 0)], stats.norm.sf(6.0), rtol=1e-4)


@pytest.mark.slow
def test_nuts_finds_the_same_posterior():
    def model(x):
        z = numpyro.sample("z", tilted(()))
        numpyro.sample("x", dist.Normal(z, 0.8), obs=x)

    mcmc = MCMC(NUTS(whiten(model)), num_warmup=300, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(0), jnp.array(0.7))
    draws = np.asarray(mcmc.get_samples()["z"])

    z = np.linspace(-6, 6, 20001)
    density = np.exp(np.asarray(tilted(()).log_prob(z) + dist.Normal(z, 0.8).log_prob(0.7), float))
    density /= density.sum()
    mean = density @ z
    deviation = np.sqrt(density @ (z - mean) ** 2)
    # Four standard errors of some 800 effective draws: a false alarm in 10,000 seeds.
    assert abs(draws.mean() - mean) < 4 * deviation / np.sqrt(800)
    assert abs(draws.std() - deviation) < 4 * deviation / np.sqrt(2 * 800)


def test_an_observed_site_is_refused():
    model = whiten(lambda: numpyro.sample("z", tilted(()), obs=0.3))
    with pytest.raises(ValueError, match="'z' is observed"):
        handlers.seed(model, jax.random.key(0))()


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), "univariate continuous"),
        (dist.Poisson(3.0), "univariate continuous"),
        (dist.ImproperUniform(dist.constraints.real, (), ()), "no density"),
    ],
)
def test_distributions_that_cannot_be_inverted_are_refused(fn, message):
    model = whiten(lambda: numpyro.sample("z", fn))
    with pytest.raises(ValueError, match=f"'z' has the distribution.*{message}"):
        handlers.seed(model, jax.random.key(0))()
