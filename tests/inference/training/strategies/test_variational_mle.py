"""Training with a guide: bounds and gradients against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import linen as nn
from numpyro.contrib.module import flax_module
from numpyro.distributions import constraints
from numpyro.infer import Predictive

from kaem_ppl.inference import VariationalMLE, fit
from kaem_ppl.inference.model.training_model import read_training_model


def guide(x):
    slope = numpyro.param("slope", jnp.array([[0.4, 0.0], [-0.1, 0.4], [0.2, -0.1]]))
    scale = numpyro.param("scale", jnp.array([0.8, 0.8]), constraint=constraints.positive)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x @ slope, scale).to_event(1))


GUIDE_PARAMS = {"slope": jnp.array([[0.4, 0.0], [-0.1, 0.4], [0.2, -0.1]]), "scale": jnp.array([0.8, 0.8])}


def losses(linear_gaussian, strategy, num_keys):
    x, params = linear_gaussian.x, linear_gaussian.params | GUIDE_PARAMS
    plate_model = read_training_model(jax.random.key(0), linear_gaussian.model, x, "data", linear_gaussian.params)
    state = strategy.init(jax.random.key(0), plate_model, params, x)

    @jax.jit
    @jax.vmap
    def loss(key):
        return jax.value_and_grad(lambda params: strategy.loss(key, plate_model, params, state, x)[0])(params)

    return loss(jax.random.split(jax.random.key(1), num_keys))


@pytest.mark.slow
def test_many_draws_give_the_gradient_of_the_log_evidence(linear_gaussian):
    # Oracle: the closed form, differentiated; 64 estimates from 1,000 draws each, 14 partial derivatives within 5 of their
    # standard errors, a false alarm in 7e-5 of seeds.
    values, gradients = losses(linear_gaussian, VariationalMLE(guide, 1000), 64)
    exact, slopes = jax.value_and_grad(lambda p: -linear_gaussian.log_evidence(p, linear_gaussian.x).mean())(
        linear_gaussian.params
    )
    for name, expected in slopes.items():
        std_error = gradients[name].std(0, ddof=1) / np.sqrt(64)
        assert (jnp.abs(gradients[name].mean(0) - expected) < 5 * std_error).all(), name
    assert abs(values.mean() - exact) < 5 * values.std(ddof=1) / np.sqrt(64) + 1e-3


def test_one_draw_gives_the_evidence_lower_bound(linear_gaussian):
    # Oracle: log-evidence minus the divergence of the guide from the normal posterior, in closed form; five standard
    # errors over 20,000 keys.
    x, p = linear_gaussian.x, linear_gaussian.params
    values, _ = losses(linear_gaussian, VariationalMLE(guide), 20_000)
    precision = jnp.diag(p["prior_scale"] ** -2) + p["weight"].T @ p["weight"] / p["noise"] ** 2
    mean = jnp.linalg.solve(
        precision, (p["prior_loc"] / p["prior_scale"] ** 2 + (x - p["offset"]) @ p["weight"] / p["noise"] ** 2).T
    ).T
    posterior = dist.MultivariateNormal(mean, precision_matrix=precision)
    proposal = dist.MultivariateNormal(x @ GUIDE_PARAMS["slope"], jnp.diag(GUIDE_PARAMS["scale"] ** 2))
    bound = linear_gaussian.log_evidence(p, x) - dist.kl_divergence(proposal, posterior)
    assert abs(-values.mean() - bound.mean()) < 5 * values.std() / np.sqrt(20_000)


def test_an_encoder_is_learnt_beside_the_model(linear_gaussian):
    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(nn.tanh(nn.Dense(8)(x)))

    def encode(x):
        encoder = flax_module("encoder", Encoder(), input_shape=(1, 3))
        with numpyro.plate("data", len(x)):
            loc, log_scale = jnp.split(encoder(x), 2, axis=-1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    strategy = VariationalMLE(encode, kl_weight=optax.linear_schedule(0.0, 1.0, 10))
    result = fit(
        jax.random.key(0), linear_gaussian.model, linear_gaussian.x, strategy=strategy, optimizer=optax.adam(0.02),
        num_epochs=200, progress_bar=False,
    )  # fmt: skip
    assert set(result.params) == set(linear_gaussian.params)
    assert set(result.guide_params) == {"encoder$params"}
    history = result.history
    assert history["log_evidence"][-20:].mean() > history["log_evidence"][:20].mean() + 0.5
    # The weight is 0 at first, where the loss is the likelihood's alone, and 1 from epoch 10.
    np.testing.assert_allclose(history["loss"][0], -history["log_likelihood"][0], rtol=1e-5)
    np.testing.assert_allclose(history["loss"][10:], -history["log_evidence"][10:], rtol=1e-5)
    # The model's parameters serve NumPyro as they are.
    assert Predictive(linear_gaussian.model, params=result.params, num_samples=1)(jax.random.key(1), size=4)


def test_refuses(linear_gaussian):
    def other_site(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("y", dist.Normal(0, 1))

    def without_paths(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.BernoulliProbs(jnp.array([0.5, 0.5])).to_event(1))

    arguments = {"num_epochs": 1, "progress_bar": False}
    for program, message in ((other_site, r"sample sites \['y'\]"), (without_paths, r"draws of \['z'\]")):
        with pytest.raises(ValueError, match=message):
            fit(
                jax.random.key(0),
                linear_gaussian.model,
                linear_gaussian.x,
                strategy=VariationalMLE(program),
                **arguments,
            )
    with pytest.raises(TypeError, match="`guide` must be a NumPyro program"):
        VariationalMLE(3)
    with pytest.raises(ValueError, match="`num_draws` must be a whole number of at least 1"):
        VariationalMLE(guide, 0)
    with pytest.raises(ValueError, match="`kl_weight` must be a function"):
        VariationalMLE(guide, kl_weight=0.0)
