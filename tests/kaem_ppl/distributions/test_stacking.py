"""Distributions that went through vmap and scan. Oracle: one distribution at a time, and NumPyro's Normal for shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions.batch_util import promote_batch_shape, vmap_over
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

import kaem_ppl as kp

KEYS = jax.random.split(jax.random.key(1), 4)


def _bank(key, shape=(3,)):
    return kp.UnivariateKAN.init(key, shape, basis=kp.RBF(8), domain=(-3, 3))


MAKERS = {
    "tilted": lambda key: kp.KANTilted(_bank(key), dist.Uniform(-4.0, 4.0)),
    "batched reference": lambda key: kp.KANTilted(_bank(key), dist.Normal(jnp.zeros((2, 1)), 1.0)),
    "mixture": lambda key: kp.KANTiltedMixture(jnp.arange(2.0), _bank(key, (3, 2)), dist.LogNormal(0.0, 1.0)),
}


def _points(batch_shape):
    return jnp.linspace(0.1, 3.5, int(np.prod(batch_shape))).reshape(batch_shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    "maker",
    [pytest.param(name, marks=() if name == "tilted" else pytest.mark.exhaustive) for name in MAKERS],
)
def test_vmap_that_returns_and_takes_a_distribution(maker):
    make = MAKERS[maker]
    each = [make(key) for key in KEYS]
    stacked = jax.vmap(make)(KEYS)
    shape = (4, *each[0].batch_shape)
    # As NumPyro's: the shape stated is corrected by promotion.
    assert stacked.batch_shape == each[0].batch_shape
    assert promote_batch_shape(stacked).batch_shape == shape
    z = _points(shape)
    expected = jnp.stack([d.log_prob(x) for d, x in zip(each, z, strict=True)])
    for d in (stacked, promote_batch_shape(stacked)):
        np.testing.assert_allclose(d.log_prob(z), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(jax.vmap(lambda d, z: d.log_prob(z))(d, z), expected, rtol=1e-5, atol=1e-6)
    assert stacked.sample(jax.random.key(0), (2,)).shape == (2, *shape)
    np.testing.assert_allclose(stacked.mean, jnp.stack([d.mean for d in each]), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_vmap_over_one_argument():
    energy, reference = _bank(KEYS[0]), dist.Normal(0.0, 1.0)
    d = kp.KANTilted(energy, reference)
    axes = vmap_over(d, energy=0)
    two = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), energy)
    stacked = jax.vmap(lambda energy: kp.KANTilted(energy, reference), out_axes=axes)(two)
    draws = jax.vmap(lambda d: d.sample(jax.random.key(0)), in_axes=(axes,))(stacked)
    np.testing.assert_allclose(draws[0], d.sample(jax.random.key(0)), rtol=1e-5)
    assert draws.shape == (2, 3)


def test_expanded_as_normal():
    # Oracle: the same composition of a Normal.
    def shapes(make):
        d = promote_batch_shape(jax.vmap(lambda x: make(x).expand((2, 3)).to_event(1))(jnp.arange(4.0)))
        return d.batch_shape, d.log_prob(jnp.ones((4, 2, 3))).shape

    energy = _bank(KEYS[0])
    assert shapes(lambda x: kp.KANTilted(energy, dist.Normal(x, 1.0))) == shapes(
        lambda x: dist.Normal(x * jnp.ones(3), 1.0)
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_components", [pytest.param(None, marks=pytest.mark.exhaustive), 2])
def test_a_prior_inside_a_scan(num_components):
    def model(x=None):
        options = {"basis": kp.RBF(8), "domain": (-3, 3), "reference": dist.Normal(0.0, 1.0)}
        prior = kp.kan_prior("p", (2,), num_components=num_components, **options)

        def step(carry, x):
            with numpyro.plate("N", 3):
                z = numpyro.sample("z", prior.to_event(1))
            carry = 0.5 * carry + jnp.sum(z)
            numpyro.sample("x", dist.Normal(carry, 1.0), obs=x)
            return carry, z

        return scan(step, 0.0, x, length=4)

    trace = handlers.trace(handlers.seed(model, 0)).get_trace()
    assert trace["z"]["value"].shape == (4, 3, 2)
    assert trace["z"]["fn"].batch_shape == (4, 3)
    params = {"p$params": trace["p$params"]["value"]}
    with handlers.substitute(data=params):
        prior = kp.kan_prior(
            "p", (2,), num_components=num_components, basis=kp.RBF(8), domain=(-3, 3), reference=dist.Normal(0.0, 1.0)
        )
    z, x = trace["z"]["value"], jnp.zeros(4)
    carries = [0.0]
    for row in z:
        carries.append(0.5 * carries[-1] + jnp.sum(row))
    expected = jnp.sum(prior.log_prob(z)) + jnp.sum(dist.Normal(jnp.array(carries[1:]), 1.0).log_prob(x))
    joint, _ = log_density(handlers.seed(model, 0), (x,), {}, {**params, "z": z})
    np.testing.assert_allclose(joint, expected, rtol=1e-5)
    if num_components is None:
        mcmc = MCMC(NUTS(handlers.substitute(model, data=params)), num_warmup=10, num_samples=10, progress_bar=False)
        mcmc.run(jax.random.key(0), x)
        assert mcmc.get_samples()["z"].shape == (10, 4, 3, 2)
        assert np.all(np.isfinite(mcmc.get_samples()["z"]))
