"""The bases against the design's formulas in NumPy, and B-splines against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_ppl as kp

from .. import oracle
from ..members import BASES

KINDS = {name: make(jax.random.key(0)).basis for name, make in BASES.items()}
FEATURES = {"RBF": 20, "BSpline3": 22, "BSpline1": 20, "Fourier": 42, "Chebyshev": 11, "RSWAF": 20, "Morlet": 20}


@pytest.mark.parametrize("name", BASES)
def test_features_follow_the_formulas(name, precision):
    # Oracle: NumPy in float64 (SciPy's BSpline, NumPy's chebvander), also on a grid that is not uniform.
    bar = {"float32": 1e-5, "float64": 1e-12}[precision]
    bank = BASES[name](jax.random.key(0))
    z = jnp.linspace(-3, 3, 501)
    grids = [bank.grid]
    if bank.grid.size:
        grids.append(bank.grid + 0.3 * jnp.sin(bank.grid) * (9 - bank.grid**2) / 9)
    for grid in grids:
        ours = bank.basis(z, grid, bank.width)
        expected = oracle.features(bank.basis, z, grid, bank.width)
        # Where a piecewise-constant derivative meets a knot, the value is still continuous.
        np.testing.assert_allclose(ours, expected, rtol=0, atol=bar * max(1, np.abs(expected).max()))
        assert ours.shape == (501, FEATURES[name]) == (501, bank.basis.num_features)


@pytest.mark.parametrize("name", BASES)
def test_features_broadcast(name):
    # Oracle: the same basis, one grid and one width at a time.
    bank = BASES[name](jax.random.key(0))
    grids = jnp.stack([bank.grid, 0.5 * bank.grid])
    widths = bank.width * jnp.array([1.0, 1.3])
    z = jnp.linspace(-1.4, 1.4, 7)
    together = bank.basis(z[:, None], grids, widths)
    for i in range(2):
        np.testing.assert_allclose(together[:, i], bank.basis(z, grids[i], widths[i]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BASES)
def test_derivatives_against_finite_differences(name, x64):
    # Oracle: central differences of the NumPy formulas. Points away from the knots, where BSpline(1) has kinks.
    bank = BASES[name](jax.random.key(0))
    z = np.linspace(-2.9, 2.9, 41) + 0.0123
    ours = jax.vmap(jax.jacfwd(lambda z: bank.basis(z, bank.grid, bank.width)))(jnp.asarray(z))
    h = 1e-5
    up, down = (oracle.features(bank.basis, x, bank.grid, bank.width) for x in (z + h, z - h))
    np.testing.assert_allclose(ours, (up - down) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["BSpline3", "BSpline1"])
def test_bsplines_are_a_partition_of_unity(name):
    # Oracle: the identity sum_g B_g = 1 on the domain, both ends included.
    basis = KINDS[name]
    z = jnp.concatenate([jnp.linspace(-3, 3, 1001), jnp.array([-3.0, 3.0])])
    np.testing.assert_allclose(jnp.sum(basis(z, jnp.linspace(-3, 3, 20), jnp.ones(())), -1), 1.0, atol=1e-5)


def test_trainable_width_and_coef_scale(x64):
    # Oracle: the standard deviation of 22,000 normal draws, within 5 standard errors (false alarm 6e-7; key 0).
    bank = kp.UnivariateKAN.init(jax.random.key(0), (1000,), basis=kp.BSpline(3, coef_scale=0.7), domain=(0, 1))
    assert abs(float(jnp.std(bank.coef)) / 0.7 - 1) < 5 / np.sqrt(2 * 22_000)
    assert kp.RBF(20, width=0.4, trainable_width=True).trainable_width
    assert float(kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(5, width=0.4), domain=(0, 1)).width) == 0.4


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: kp.RBF(1), "num_grid"),
        (lambda: kp.RSWAF(0), "num_grid"),
        (lambda: kp.Morlet(-3), "num_grid"),
        (lambda: kp.BSpline(3, num_grid=1), "num_grid"),
        (lambda: kp.BSpline(0), "degree"),
        (lambda: kp.Chebyshev(0), "degree"),
        (lambda: kp.Fourier(0), "num_frequencies"),
        (lambda: kp.RBF(20, width=0.0), "width"),
        (lambda: kp.RBF(20, width=-1.0), "width"),
        (lambda: kp.Chebyshev(5, width=1.0), "width"),
        (lambda: kp.BSpline(3, width=1.0), "width"),
        (lambda: kp.BSpline(3, trainable_width=True), "width"),
    ],
)
def test_refused_settings_name_the_argument(make, name):
    with pytest.raises(ValueError, match=name):
        make()


@pytest.mark.parametrize("name", BASES)
def test_basis_is_hashable_and_frozen(name):
    # Static under jit: equal settings must give equal hashes, and settings must not change.
    basis = KINDS[name]
    again = BASES[name](jax.random.key(1)).basis
    assert basis == again
    assert hash(basis) == hash(again)
    with pytest.raises(AttributeError):
        basis.coef_scale = 3.0
