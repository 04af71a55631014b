"""Latents outside the plate learnt by their mode, against the mode of a conjugate model."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from kaem_ppl.inference import (
    ImportanceMLE,
    ImportanceSampling,
    fit,
    log_evidence,
    sample_posterior,
)

_X = jax.random.normal(jax.random.key(3), (20,)) + 2.5


def shared_mean(x):
    mu = numpyro.sample("mu", dist.Normal(0.0, 0.3))
    offset = numpyro.param("offset", jnp.array(0.5))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 0.1))
        numpyro.sample("x", dist.Normal(mu + z, 1.0), obs=x)
    numpyro.sample("offset_seen", dist.Normal(offset, 1.0), obs=jnp.array(-1.0))


@pytest.fixture(scope="module")
def result():
    # Two particles are enough: the likelihood hardly depends on z.
    return fit(
        jax.random.key(0), shared_mean, _X, strategy=ImportanceMLE(200, ess_threshold=0.0), num_epochs=300,
        batch_size=5, optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 1200)), progress_bar=False,
    )  # fmt: skip


def test_learns_the_mode_of_a_shared_latent(result):
    # Oracle: conjugate normals; x ~ Normal(mu, sqrt(1 + 0.1^2)), mu ~ Normal(0, 0.3). A prior counted for each batch would
    # give 0.30 of the way to the mean rather than 0.64. The tolerance is ten times the noise that the last steps leave.
    precision = 20 / (1 + 0.1**2)
    mode = precision * np.mean(_X) / (precision + 1 / 0.3**2)
    np.testing.assert_allclose(result.params["mu"], mode, atol=0.02)
    np.testing.assert_allclose(result.params["offset"], -1.0, atol=0.02)


def test_its_values_hold_the_latent_elsewhere(result):
    params = result.params
    exact = dist.Normal(params["mu"], np.sqrt(1.01)).log_prob(_X)
    settings = {"params": params, "plate": "data"}
    evidence = log_evidence(
        jax.random.key(1),
        shared_mean,
        _X,
        method=ImportanceSampling(2000),
        num_chains=1,
        progress_bar=False,
        **settings,
    )
    np.testing.assert_allclose(evidence.value, exact, atol=0.05)
    draws = sample_posterior(
        jax.random.key(3),
        shared_mean,
        _X,
        sampler=ImportanceSampling(100),
        num_samples=10,
        progress_bar=False,
        **settings,
    )
    assert set(draws.samples) == {"z"}
    assert draws.samples["z"].shape == (4, 10, 20)


def depends_on_inside(x):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(mu, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)
    numpyro.factor("total", -jnp.square(z.sum()))


def moving_support(x):
    width = numpyro.sample("width", dist.LogNormal(0, 1))
    mu = numpyro.sample("mu", dist.Uniform(0, width))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(mu, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


@pytest.mark.parametrize(
    ("model", "message"),
    [(depends_on_inside, "outside plate 'data' depends on 'z'"), (moving_support, "support of latent site 'mu'")],
)
def test_refuses(model, message):
    with pytest.raises(ValueError, match=message):
        fit(jax.random.key(0), model, _X, num_epochs=1, progress_bar=False)
