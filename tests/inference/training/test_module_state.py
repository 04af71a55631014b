"""Modules with state: trained in training mode, evaluated in evaluation mode, their state kept with the parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import linen as nn
from flax import nnx
from numpyro.contrib.module import flax_module, nnx_module
from numpyro.infer import SVI, Trace_ELBO

import kaem_ppl as kp
from kaem_ppl.cli.storage.checkpoints import Checkpoint, Checkpoints, Place
from kaem_ppl.inference import (
    ImportanceMLE,
    ImportanceSampling,
    LangevinMLE,
    ThermodynamicMLE,
    VariationalMLE,
    fit,
    log_evidence,
    sample_posterior,
)

_NUM_DATA, _NUM_STEPS = 32, 8
C = jax.random.normal(jax.random.key(0), (_NUM_DATA, 2))
Y = jnp.sin(2 * C[:, 0]) + 0.1 * jax.random.normal(jax.random.key(1), (_NUM_DATA,))
_FEW = {"num_chains": 1, "num_samples": 5, "num_warmup": 5, "progress_bar": False}


class Network(nnx.Module):
    """A hidden layer with batch normalisation, and dropout where `rate` is positive."""

    def __init__(self, rate=0.0):
        rngs = nnx.Rngs(2)
        self.layers = nnx.List([nnx.Linear(2, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)])
        self.normalise = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.drop(nnx.relu(self.normalise(self.layers[0](x)))))[..., 0]


class LinenNetwork(nn.Module):
    @nn.compact
    def __call__(self, x, is_training):
        x = nn.BatchNorm(momentum=0.9, use_running_average=not is_training)(nn.Dense(4)(x))
        return nn.Dense(1)(nn.relu(x))[..., 0]


def regression(network, c, y):
    """A latent that has nothing to do with the network, whose maximum likelihood is then least squares."""
    predict = nnx_module("network", network)
    with numpyro.plate("data", len(c)):
        numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(predict(c), 1), obs=y)


def linen_regression(c, y, is_training=False, has_latent=True):
    predict = flax_module("network", LinenNetwork(), c[:1], is_training=False, mutable=["batch_stats"])
    with numpyro.plate("data", len(c)):
        if has_latent:
            numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(predict(c, is_training=is_training), 1), obs=y)


def decoder(network, x):
    decode = nnx_module("network", network)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(decode(z), 0.5), obs=x)


def guide(*_data, **_more):
    scale = numpyro.param("scale", jnp.ones(()))
    with numpyro.plate("data", _NUM_DATA):
        numpyro.sample("z", dist.Normal(0, scale))


def learn(model, data=(C, Y), strategy=ImportanceMLE(3, ess_threshold=0), **kwargs):  # noqa: B008 - a frozen value
    kwargs = {"num_epochs": _NUM_STEPS, "optimizer": optax.sgd(0.1), **kwargs}
    return fit(jax.random.key(3), model, data, strategy=strategy, progress_bar=False, **kwargs)


def assert_close(found, expected, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        ImportanceMLE(3, ess_threshold=0),
        LangevinMLE(num_steps=1),
        VariationalMLE(guide, num_draws=2),
        pytest.param(ThermodynamicMLE(num_steps=2, objective="thermodynamic"), marks=pytest.mark.exhaustive),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_trains_as_a_loop_of_optax(strategy):
    # Oracle: the same network in a loop of Flax and Optax, whose steps see all data.
    network = Network()
    optimizer = nnx.Optimizer(network, optax.sgd(0.1), wrt=nnx.Param)
    result = learn(functools.partial(regression, Network()), strategy=strategy)
    for _ in range(_NUM_STEPS):
        gradient = nnx.grad(lambda network: 0.5 * jnp.square(network(C) - Y).mean())(network)
        optimizer.update(network, gradient)
    expected = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    assert_close(result.params["network$params"], expected)
    assert_close(result.params["network$state"]["state"]["normalise"]["mean"], network.normalise.mean[...])
    assert_close(result.params["network$state"]["state"]["normalise"]["var"], network.normalise.var[...])


@pytest.mark.slow
def test_trains_as_svi():
    # Oracle: NumPyro's SVI with a guide without latents, in steps of the same size; its first run of the model updates
    # the running means once, so it gets them as they were.
    result = learn(linen_regression, training_kwargs={"is_training": True})
    svi = SVI(linen_regression, lambda *_, **__: None, optax.sgd(0.1 / _NUM_DATA), Trace_ELBO())
    arguments = {"c": C, "y": Y, "is_training": True, "has_latent": False}
    # The same first values.
    first = learn(linen_regression, optimizer=optax.sgd(0.0), num_epochs=1)
    params = {"network$params": first.params["network$params"]}
    state = svi.init(jax.random.key(0), **arguments)
    state = state._replace(
        optim_state=svi.optim.init(params), mutable_state={"network$state": first.params["network$state"]}
    )
    for _ in range(_NUM_STEPS):
        state, _ = svi.update(state, **arguments)
    assert_close(result.params["network$params"], svi.get_params(state)["network$params"])
    assert_close(result.params["network$state"], state.mutable_state["network$state"])


@pytest.fixture(scope="module")
def learnt():
    """A decoder with batch normalisation and dropout, trained in two parts, and in one."""
    model = functools.partial(decoder, Network(0.5))
    settings = {"data": Y, "strategy": ImportanceMLE(20), "batch_size": 8}
    states = []
    whole = learn(model, num_epochs=3, callback=lambda state, _: states.append(state), **settings)
    return model, settings, whole, states


def test_resumes_bit_for_bit(learnt, tmp_path):
    model, settings, whole, states = learnt
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Checkpoint(Place(1), states[0], [{"epoch": 1, "loss": 0.0}], ""))
    resumed = learn(model, num_epochs=3, state=checkpoints.load(Place(1)).state, **settings)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert whole.params["network$state"]["state"]["drop"]["rngs"]["count"] == 12, "steps"


def test_evaluates_with_running_means_and_without_dropout(learnt, tmp_path):
    # Oracle: Flax's own module in evaluation mode.
    model, _, whole, _ = learnt
    kp.save_params(tmp_path / "params", whole.params)
    params = kp.load_params(tmp_path / "params")
    network = Network(0.5)
    nnx.update(network, nnx.State(params["network$params"]), nnx.State(params["network$state"]["state"]))
    network.eval()
    draws = sample_posterior(
        jax.random.key(4), model, Y, params=params, plate="data", sampler=ImportanceSampling(20), **_FEW
    )
    z = draws.samples["z"]
    expected = dist.Normal(network(z), 0.5).log_prob(Y)
    assert_close(draws.log_likelihood["x"], expected)
    first, second = (
        log_evidence(jax.random.key(5), model, Y, params=params, plate="data", method=ImportanceSampling(20), **_FEW)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.value, second.value)


@pytest.mark.parametrize("kind", ["nnx", pytest.param("linen", marks=pytest.mark.exhaustive)])
@pytest.mark.slow
def test_dropout_is_drawn_anew_in_each_step(kind):
    # Oracle: dropout of inputs with rate 1/2 makes least squares ridge regression with the penalty sum_j w_j^2 |x_j|^2
    # (Srivastava et al. 2014, sec. 9.1). The last steps are small, so what is left of their noise is under 0.02.
    x = C @ jnp.array([[1.0, 0.7], [0.0, 0.5]])
    y = x @ jnp.array([1.0, -1.0])
    drop, linear = nnx.Dropout(0.5, rngs=nnx.Rngs(0)), nnx.Linear(2, 1, use_bias=False, rngs=nnx.Rngs(1))

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x, is_training):
            return nn.Dense(1, use_bias=False)(nn.Dropout(0.5, deterministic=not is_training)(x))

    def model(x, y, is_training=False):
        if kind == "nnx":
            predict = nnx_module("network", nnx.Sequential(drop, linear))
        else:
            apply = flax_module("network", Linen(), x[:1], is_training=False, apply_rng=["dropout"])
            predict = functools.partial(apply, is_training=is_training, rngs={"dropout": numpyro.prng_key()})
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("y", dist.Normal(predict(x)[..., 0], 1), obs=y)

    result = learn(
        model,
        (x, y),
        num_epochs=4000,
        optimizer=optax.sgd(optax.cosine_decay_schedule(0.1, 4000)),
        training_kwargs={"is_training": True},
        strategy=LangevinMLE(num_steps=1),
    )
    gram = x.T @ x
    ridge = jnp.linalg.solve(gram + jnp.diag(jnp.diag(gram)), x.T @ y)
    assert jnp.abs(ridge - jnp.array([1.0, -1.0])).max() > 0.3, "far from least squares"
    (weight,) = jax.tree.leaves(result.params["network$params"])
    np.testing.assert_allclose(weight[:, 0], ridge, atol=0.02)
