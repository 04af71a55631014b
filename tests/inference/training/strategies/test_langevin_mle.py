"""Training by Markov chains: gradients against closed forms, and persistent chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaem_ppl.inference import HMC, MALA, LangevinMLE
from kaem_ppl.inference.model.training_model import read_training_model


def training_model_of(linear_gaussian, data):
    return read_training_model(jax.random.key(0), linear_gaussian.model, data, "data", linear_gaussian.params)


@pytest.mark.parametrize(
    "strategy",
    [
        LangevinMLE(MALA(0.3), 60),
        pytest.param(LangevinMLE(HMC(0.5, num_integration_steps=3), 20), marks=pytest.mark.slow),
    ],
    ids=["MALA", "HMC"],
)
def test_gradient_is_the_gradient_of_the_log_evidence(linear_gaussian, strategy):
    # Oracle: the closed form, differentiated. 2,000 chains for each of 6 data, in 20 batches; the mean of 14 partial
    # derivatives within 5 of their standard errors: a false alarm in 1e-3 of seeds (Student's t, 19 degrees of freedom).
    num_copies = 100
    x = jnp.repeat(linear_gaussian.x, num_copies, axis=0)
    plate_model, params = training_model_of(linear_gaussian, x), linear_gaussian.params

    @jax.jit
    def estimate(key):
        init_key, loss_key = jax.random.split(key)
        memory = strategy.init(init_key, plate_model, params, x)
        return jax.grad(lambda params: strategy.loss(loss_key, plate_model, params, memory, x)[0])(params)

    estimates = jax.tree.map(lambda *x: jnp.stack(x), *map(estimate, jax.random.split(jax.random.key(1), 20)))
    exact = jax.grad(lambda params: -linear_gaussian.log_evidence(params, linear_gaussian.x).mean())(params)
    for name, values in estimates.items():
        std_error = values.std(0, ddof=1) / np.sqrt(len(values))
        assert (jnp.abs(values.mean(0) - exact[name]) < 5 * std_error).all(), name


def test_chains_go_on_and_find_their_own_step(linear_gaussian):
    # Oracle: the target acceptance itself, after 300 updates; and the closed-form posterior mean of each datum.
    strategy, x = LangevinMLE(MALA(), 10, initial_step_size=1e-3), linear_gaussian.x
    plate_model, params = training_model_of(linear_gaussian, x), linear_gaussian.params

    @jax.jit
    def update(memory, key):
        _, (metrics, memory) = strategy.loss(key, plate_model, params, memory, x)
        return memory, (metrics["acceptance_rate"], memory.position["z"])

    memory = strategy.init(jax.random.key(0), plate_model, params, x)
    np.testing.assert_allclose(jnp.exp(memory.log_step_size), 1e-3, rtol=1e-5)
    start = memory.position["z"]
    memory, (acceptance_rate, z) = jax.lax.scan(update, memory, jax.random.split(jax.random.key(1), 600))
    np.testing.assert_array_equal(memory.num_updates, 600)
    assert abs(acceptance_rate[300:].mean() - 0.574) < 0.03
    assert len(np.unique(memory.log_step_size)) == len(x)
    assert not np.array_equal(start, z[0])
    scaled = params["weight"] * params["prior_scale"]
    precision = jnp.eye(2) + scaled.T @ scaled / params["noise"] ** 2
    residual = x - params["weight"] @ params["prior_loc"] - params["offset"]
    whitened = jnp.linalg.solve(precision, scaled.T @ residual.T / params["noise"] ** 2).T
    mean = params["prior_loc"] + params["prior_scale"] * whitened
    # 500 updates of an autocorrelation well under 2, a posterior deviation under 1: five standard errors of 0.065.
    np.testing.assert_allclose(z[100:, :, 0].mean(0), mean, atol=0.32)


def test_fresh_chains_remember_only_their_step(linear_gaussian):
    strategy, x = LangevinMLE(MALA(), 2, persistent=False), linear_gaussian.x
    plate_model, params = training_model_of(linear_gaussian, x), linear_gaussian.params
    memory = strategy.init(jax.random.key(0), plate_model, params, x)
    _, (_, new) = jax.jit(lambda: strategy.loss(jax.random.key(1), plate_model, params, memory, x))()
    assert memory.position == new.position == ()
    assert not np.array_equal(memory.log_step_size, new.log_step_size)


def test_refuses():
    with pytest.raises(TypeError, match="`kernel` must be a Markov kernel"):
        LangevinMLE(0.1)
    with pytest.raises(ValueError, match="`num_steps` must be a whole number of at least 1, got 0"):
        LangevinMLE(num_steps=0)
    with pytest.raises(ValueError, match="`initial_step_size` is where adaptation starts"):
        LangevinMLE(MALA(0.1), initial_step_size=0.1)
