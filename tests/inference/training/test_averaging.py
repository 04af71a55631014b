"""The moving average of parameters against its recursion, and a learnt scale against a closed form."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

from kaem_ppl.inference import ImportanceMLE, fit
from kaem_ppl.inference.training.averaging import average_params, learnt_params
from kaem_ppl.models import GaussianModel, LearntScale, MLPGenerator


def test_the_average_is_its_recursion_and_leaves_the_steps_as_they_are():
    optimizer = optax.sgd(0.5)
    averaged = average_params(optimizer, 0.6)
    assert averaged is average_params(optimizer, 0.6)
    params, state, plain = {"a": jnp.array([1.0, -2.0])}, None, optimizer.init(None)
    state, expected = averaged.init(params), np.array([1.0, -2.0])
    for number in range(1, 30):
        gradient = {"a": jnp.array([0.1 * number, 0.3])}
        updates, state = averaged.update(gradient, state, params)
        np.testing.assert_array_equal(updates["a"], optimizer.update(gradient, plain)[0]["a"])
        params = optax.apply_updates(params, updates)
        kept = min(0.6, number / (number + 9))
        expected = kept * expected + (1 - kept) * np.asarray(params["a"])
        np.testing.assert_allclose(state.average["a"], expected, rtol=1e-5)


def model(x):
    spread = numpyro.param("spread", 3.0, constraint=constraints.positive)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, spread), obs=x)


def test_fit_returns_and_evaluates_the_average_and_resumes_with_it():
    x = 2 * np.random.default_rng(0).normal(size=64).astype(np.float32)
    settings = {"strategy": ImportanceMLE(20), "optimizer": optax.adam(0.05), "batch_size": 16, "progress_bar": False}
    seen, states = [], []
    whole = fit(
        0, model, x, num_epochs=4, average=0.9, evaluate=lambda key, params: seen.append(params["spread"]) or 0.0,
        callback=lambda state, row: states.append(state), **settings,
    )  # fmt: skip
    plain = fit(0, model, x, num_epochs=4, **settings)
    # The steps themselves are those of training without an average.
    np.testing.assert_array_equal(whole.state.params["spread"], plain.state.params["spread"])
    assert whole.params["spread"] == seen[-1] == pytest.approx(float(jnp.exp(learnt_params(whole.state)["spread"])))
    assert whole.params["spread"] > plain.params["spread"] + 0.01
    resumed = fit(0, model, x, num_epochs=4, average=0.9, state=states[1], **settings)
    assert resumed.params["spread"] == whole.params["spread"]
    with pytest.raises(ValueError, match="`average` must be a number of at least 0 and below 1, got 1"):
        fit(0, model, x, num_epochs=1, average=1.0, **settings)


def test_a_learnt_scale_is_the_maximum_of_the_likelihood():
    # Without an effect of the latents the scale is the root mean square of each channel.
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(400, 2, 3)) * np.array([0.2, 0.5, 1.0])).astype(np.float32)

    def nothing(name):
        return lambda z: jnp.zeros((*z.shape[:-1], 2, 3))

    trained = fit(
        0, GaussianModel(1, nothing, LearntScale(0.3, (3,))), data, strategy=ImportanceMLE(2), optimizer=optax.adam(0.05),
        num_epochs=150, progress_bar=False,
    )  # fmt: skip
    np.testing.assert_allclose(trained.params["scale"], np.sqrt(np.square(data).mean((0, 1))), rtol=1e-3)
    with pytest.raises(ValueError, match="`first` must be"):
        LearntScale(0.005)
    with pytest.raises(ValueError, match="`scale` must be"):
        GaussianModel(1, MLPGenerator((1, 2)), 0.0)
