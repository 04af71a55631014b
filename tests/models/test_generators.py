"""Generators register parameters under their name and are the networks they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.models import KANGenerator, MLPGenerator


def parameters(generator, name="g"):
    with handlers.trace() as trace, handlers.seed(rng_seed=0):
        generator(name)
    return trace[f"{name}$params"]["value"]


def test_an_mlp_is_its_layers_one_after_another():
    generator = MLPGenerator((3, 5, 4, 2), activation=jnp.tanh, output=jax.nn.sigmoid)
    params = parameters(generator)
    z = jax.random.normal(jax.random.key(1), (6, 3))
    w, b = ([params[f"layer_{i}"][name] for i in range(3)] for name in ("weight", "bias"))
    expected = jax.nn.sigmoid(jnp.tanh(jnp.tanh(z @ w[0] + b[0]) @ w[1] + b[1]) @ w[2] + b[2])
    with handlers.substitute(data={"g$params": params}):
        np.testing.assert_allclose(generator("g")(z), expected, rtol=1e-6)


def test_an_mlp_starts_with_outputs_of_order_one():
    with handlers.seed(rng_seed=0):
        outputs = MLPGenerator((8, 256, 256, 64), activation=jax.nn.relu)("g")(
            jax.random.normal(jax.random.key(1), (500, 8))
        )
    assert 0.7 < outputs.std() < 2


def test_a_kan_is_the_primitive():
    generator = KANGenerator((3, 5, 2), basis=kp.Fourier(4), domain=(-2.0, 2.0), output=jnp.tanh)
    params = parameters(generator)
    z = jax.random.normal(jax.random.key(1), (6, 3))
    with handlers.substitute(data={"g$params": params}):
        primitive = kp.kan_generator("g", (3, 5, 2), basis=kp.Fourier(4), domain=(-2, 2), output=jnp.tanh)
        np.testing.assert_array_equal(generator("g")(z), primitive(z))


@pytest.mark.parametrize("generator", [MLPGenerator((3, 5, 2)), KANGenerator((3, 5, 2))])
def test_parameters_of_another_generator_are_refused(generator):
    with (
        handlers.substitute(data={"g$params": parameters(type(generator)((3, 4, 2)))}),
        pytest.raises(ValueError, match=r"'g\$params' has shape"),
    ):
        generator("g")


@pytest.mark.parametrize("make", [MLPGenerator, KANGenerator])
def test_sizes_are_checked(make):
    with handlers.seed(rng_seed=0), pytest.raises(ValueError, match="sizes="):
        make((3,))("g")
