"""Convolutions are Flax's, and so is every derivative of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from kaem_ppl.models.convolutions import downsample, upsample

PAIRS = [
    pytest.param(downsample, nnx.Conv, id="down"),
    pytest.param(upsample, nnx.ConvTranspose, id="up"),
]


def arrays(size, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0))
    return jax.random.normal(keys[0], (3, *size, 2), dtype), jax.random.normal(keys[1], (4, 4, 2, 5), dtype)


@pytest.mark.parametrize(("ours", "layer"), PAIRS)
@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 2)])
def test_the_numbers_are_those_of_flax(ours, layer, size):
    x, kernel = arrays(size)
    theirs = layer(2, 5, kernel_size=(4, 4), strides=(2, 2), use_bias=False, rngs=nnx.Rngs(0))
    theirs.kernel[...] = kernel
    expected = theirs(x)
    np.testing.assert_allclose(ours(x, kernel), expected, rtol=1e-5, atol=1e-5)
    # The same where maps, or kernels as well, are mapped over.
    over_maps = jax.vmap(lambda x: ours(x[None], kernel)[0])(x)
    np.testing.assert_allclose(over_maps, expected, rtol=1e-5, atol=1e-5)
    over_both = jax.vmap(lambda x, factor: ours(x[None], factor * kernel)[0])(x, jnp.arange(3.0))
    np.testing.assert_allclose(over_both, jnp.arange(3.0)[:, None, None, None] * expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ours", [downsample, pytest.param(upsample, marks=pytest.mark.slow)])
def test_derivatives_are_those_of_finite_differences(ours):
    # To second order, forwards and backwards, and of both arguments at once. No false alarm: nothing is random.
    with jax.enable_x64(True):
        x, kernel = arrays((3, 4), jnp.float64)
        check_grads(lambda x, kernel: jnp.sin(ours(x, kernel)), (x, kernel), 2, modes=["fwd", "rev"])


@pytest.mark.parametrize("ours", [downsample, upsample])
def test_a_hessian(ours):
    # What NumPyro's Laplace approximation asks for, which differentiates forwards over backwards.
    x, kernel = arrays((2, 2))
    hessian = jax.hessian(lambda x: 0.5 * jnp.sum(jnp.square(ours(x, kernel))))(x)
    size = x.size
    jacobian = jax.jacobian(lambda x: ours(x, kernel))(x).reshape(-1, size)
    np.testing.assert_allclose(hessian.reshape(size, size), jacobian.T @ jacobian, rtol=1e-4, atol=1e-3)
