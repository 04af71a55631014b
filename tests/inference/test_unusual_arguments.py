"""Calls that are unusual but clear are taken, and errors of a user's model come through as they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers

from kaem_ppl.inference import (
    ULA,
    GivenLadder,
    ImportanceMLE,
    ImportanceSampling,
    fit,
    log_evidence,
    sample_posterior,
)

KEY = jax.random.key(0)
X = jnp.array([0.5, -1.0, 2.0])


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


def learnt(x):
    a = numpyro.param("a", jnp.zeros(()))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(a, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


_FEW = {"num_chains": 1, "num_samples": 4, "num_warmup": 4, "progress_bar": False}


def sample(*args, **kwargs):
    return sample_posterior(*args, **{**_FEW, "sampler": ImportanceSampling(20), **kwargs})


def weigh(*args, **kwargs):
    return log_evidence(*args, **{**_FEW, "method": ImportanceSampling(20), **kwargs})


def learn(*args, **kwargs):
    return fit(*args, **{"num_epochs": 1, "progress_bar": False, "strategy": ImportanceMLE(10), **kwargs})


class _OurError(Exception):
    """An error of the user's own."""


@pytest.mark.parametrize(
    "error", [_OurError("mine"), KeyError("mine"), AssertionError("mine"), ValueError("A. B.")], ids=repr
)
def test_errors_of_the_model_come_through(error):
    def broken(x):
        raise error

    for call in (sample, weigh, learn):
        with pytest.raises(type(error)) as caught:
            call(KEY, broken, X)
        assert caught.value is error
        assert caught.traceback[-1].name == "broken"


@pytest.mark.parametrize(
    "key",
    [
        np.int64(3), np.uint32(3), jnp.int32(3), jax.random.PRNGKey(3), np.asarray(jax.random.PRNGKey(3)),
        jax.random.key(3),
    ],
    ids=lambda key: type(key).__name__,
)  # fmt: skip
def test_keys_of_every_kind_are_one_key(key):
    # Oracle: the integer itself.
    expected = sample(3, model, X).samples["z"]
    np.testing.assert_array_equal(sample(key, model, X).samples["z"], expected)


def test_unusual_counts_and_numbers():
    draws = sample(0, model, X, num_samples=np.int64(5), num_chains=jnp.array(2), num_warmup=np.int32(0))
    assert draws.samples["z"].shape == (2, 5, 3)
    assert ImportanceSampling(np.int64(20)) == ImportanceSampling(20)
    assert hash(ULA(jnp.array(0.5))) == hash(ULA(0.5))
    assert GivenLadder(np.linspace(0, 1, 3)) == GivenLadder([0, 0.5, 1])


def test_a_result_of_fit_stands_for_its_parameters():
    result = learn(0, learnt, [0.5, -1.0, 2.0], batch_size=np.int64(2), num_epochs=np.int64(1))
    assert sample(0, learnt, X, params=result).samples["z"].shape == (1, 4, 3)
    assert np.isfinite(weigh(0, learnt, X, params=result).value)
    again = learn(0, learnt, X, params=result, num_epochs=1)
    assert again.params["a"].shape == ()


def test_optimizers_of_numpyro_learn_as_those_of_optax():
    # Oracle: Optax's own Adam.
    one, other = (
        learn(0, learnt, X, num_epochs=5, optimizer=optimizer).params["a"]
        for optimizer in (numpyro.optim.Adam(0.1), {"a": optax.adam(0.1)})
    )
    np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample(0, functools.partial(model, X)),
        lambda: sample(0, model, x=np.asarray(X, np.float64)),
        lambda: sample(0, handlers.scope(model, prefix="outer"), X),
        lambda: sample(0, learnt, X, params={"a": 1}),
    ],
)
def test_unusual_calls_are_taken(call):
    assert call() is not None
