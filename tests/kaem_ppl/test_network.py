"""Networks against explicit loops over their univariate functions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_ppl as kp
from kaem_ppl.network import KANetwork, apply_layer

BASES = [kp.RBF(7), kp.BSpline(6), kp.Fourier(4), kp.Chebyshev(5), kp.RSWAF(6), kp.Morlet(5)]


def random_bank(key, shape, basis):
    bank = kp.UnivariateKAN.init(key, shape, basis=basis, domain=(-2, 2))
    return dataclasses.replace(bank, spline_weight=1 + 0.5 * jax.random.normal(key, shape))


def double_loop(bank, x):
    """Sum over inputs of each function on its own."""
    num_inputs, num_outputs = bank.batch_shape
    columns = []
    for j in range(num_outputs):
        total = 0.0
        for i in range(num_inputs):
            own = {name: getattr(bank, name)[i, j] for name in ("coef", "base_weight", "spline_weight")}
            if bank.grid.ndim > 1:
                own["grid"] = bank.grid[i, j]
            total = total + dataclasses.replace(bank, **own)(x[..., i])
        columns.append(total)
    return jnp.stack(columns, axis=-1)


@pytest.mark.parametrize(
    "basis",
    [BASES[0], *(pytest.param(b, marks=pytest.mark.exhaustive) for b in BASES[1:])],
    ids=lambda basis: type(basis).__name__,
)
def test_a_layer_is_the_double_loop_over_its_functions(basis):
    bank = random_bank(jax.random.key(0), (3, 2), basis)
    # Also beyond the domain, where every function is constant.
    x = 2 * jax.random.normal(jax.random.key(1), (4, 5, 3))
    np.testing.assert_allclose(apply_layer(bank, x), double_loop(bank, x), atol=2e-6)


def test_a_refitted_layer_has_grids_of_its_own():
    bank = random_bank(jax.random.key(0), (3, 2), kp.RBF(7)).refit(jax.random.normal(jax.random.key(2), (200, 3, 2)))
    assert bank.grid.shape == (3, 2, 7)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    np.testing.assert_allclose(apply_layer(bank, x), double_loop(bank, x), atol=2e-6)


def test_a_network_feeds_each_layer_to_the_next():
    network = KANetwork.init(jax.random.key(0), (3, 4, 2), basis=kp.RBF(7), domain=(-3, 3))
    x = jax.random.normal(jax.random.key(1), (5, 3))
    expected = double_loop(network.layers[1], double_loop(network.layers[0], x))
    np.testing.assert_allclose(network(x), expected, atol=2e-6)
    np.testing.assert_allclose(jax.jit(lambda network, x: network(x))(network, x), expected, atol=2e-6)


@pytest.mark.parametrize("activation", [jax.nn.silu, jnp.tanh, jax.nn.relu])
def test_activations_start_at_order_one(activation):
    network = KANetwork.init(
        jax.random.key(0), (64, 64, 64, 64), basis=kp.RBF(10), domain=(-3, 3), activation=activation
    )
    x = jax.random.normal(jax.random.key(1), (500, 64))
    for layer in network.layers:
        x = apply_layer(layer, x)
        assert 0.6 < jnp.sqrt(jnp.mean(x**2)) < 1.5


@pytest.mark.parametrize("sizes", [(3,), (3, 0), (2.5, 1)])
def test_sizes_are_checked(sizes):
    with pytest.raises(ValueError, match="`sizes`"):
        KANetwork.init(jax.random.key(0), sizes, basis=kp.RBF(7), domain=(-3, 3))


def test_inputs_are_checked():
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 3\)"):
        apply_layer(random_bank(jax.random.key(0), (3, 2), kp.RBF(7)), jnp.zeros((5, 2)))
