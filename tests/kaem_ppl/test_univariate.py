"""Banks of univariate functions: values, the three ways to evaluate them, refitting, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_ppl as kp

from . import oracle
from .members import BASES, bank

GRIDDED = ["RBF", "BSpline3", "BSpline1", "RSWAF", "Morlet"]
# The fast tests take a smooth basis on a grid, and one without.
EACH = [name if name in ("RBF", "Fourier") else pytest.param(name, marks=pytest.mark.slow) for name in BASES]


@pytest.mark.parametrize("name", BASES)
def test_values_follow_the_formula(name, precision):
    # Oracle: the NumPy formula in float64, outside the domain too, where f is constant.
    bar = {"float32": 1e-6, "float64": 1e-12}[precision]
    functions = bank(name, (1, 10, 100))
    z = jnp.linspace(-4, 4, 401)
    values = functions(z[:, None])
    assert values.dtype == jnp.result_type(float)
    for i, size in enumerate((1, 10, 100)):
        np.testing.assert_allclose(values[:, i], oracle.energy(functions, i)(z), rtol=0, atol=3 * bar * size)
    np.testing.assert_array_equal(functions(jnp.full(3, 7.0)), functions(jnp.full(3, 3.0)))
    np.testing.assert_array_equal(functions(jnp.full(3, -7.0)), functions(jnp.full(3, -3.0)))


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("shared", [True, False])
def test_three_ways_to_evaluate_agree(name, shared):
    # Oracle: `__call__`, one point for one function at a time.
    functions = BASES[name](jax.random.key(3), (2, 4))
    if not shared:
        functions = functions.refit(jax.random.normal(jax.random.key(4), (200, 2, 4)), domain=(-2, 2.5))
    z = jnp.linspace(-3.5, 3.5, 11)
    expected = functions(z[:, None, None])
    assert expected.shape == (11, 2, 4)
    np.testing.assert_allclose(functions.outer(z), jnp.moveaxis(expected, 0, -1), rtol=0, atol=3e-6)
    own = jnp.broadcast_to(z, (2, 4, 11))
    np.testing.assert_allclose(functions.outer(own), jnp.moveaxis(expected, 0, -1), rtol=0, atol=3e-6)
    points = jnp.linspace(-2, 2, 6).reshape(3, 2)
    np.testing.assert_allclose(functions.components(points), functions(points[..., None]), rtol=0, atol=3e-6)
    assert functions.components(points).shape == (3, 2, 4)


@pytest.mark.parametrize("shared", [True, False])
def test_a_member_is_one_function_of_the_bank(shared):
    functions = BASES["RBF"](jax.random.key(3), (2, 4))
    if not shared:
        functions = functions.refit(jax.random.normal(jax.random.key(4), (200, 2, 4)), domain=(-2, 2.5))
    for index, place in ((6, (1, 2)), ((0, 3), (0, 3))):
        own = functions.member(index)
        assert own.batch_shape == ()
        assert own.is_shared
        z = jnp.linspace(-3, 3, 5)
        np.testing.assert_allclose(own(z), functions.outer(z)[place], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_shapes(shape):
    functions = kp.UnivariateKAN.init(jax.random.key(0), shape, basis=kp.RBF(7), domain=(0, 2))
    assert functions.batch_shape == shape
    assert functions.coef.shape == (*shape, 7)
    assert functions.base_weight.shape == functions.spline_weight.shape == shape
    assert functions(jnp.ones((5, *shape))).shape == (5, *shape)
    assert functions.outer(jnp.ones(4)).shape == (*shape, 4)


def test_weights_enter_as_in_the_formula(x64):
    # Oracle: f is linear in the two weights: w_base act + w_spline spline.
    functions = BASES["RBF"](jax.random.key(0), (3,))
    z = jnp.linspace(-2, 2, 9)[:, None]
    base = dataclasses.replace(functions, spline_weight=jnp.zeros(3))(z)
    spline = dataclasses.replace(functions, base_weight=jnp.zeros(3))(z)
    doubled = dataclasses.replace(functions, base_weight=2 * functions.base_weight, spline_weight=jnp.full(3, 3.0))(z)
    np.testing.assert_allclose(doubled, 2 * base + 3 * spline, rtol=0, atol=1e-14)
    tanh = kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=kp.RBF(20), domain=(-3, 3), activation=jnp.tanh)
    np.testing.assert_allclose(tanh(z) - spline, tanh.base_weight * jnp.tanh(z), rtol=0, atol=1e-14)


def test_pytree_round_trip_and_transformations():
    functions = BASES["Morlet"](jax.random.key(0), (3,))
    leaves, structure = jax.tree.flatten(functions)
    again = jax.tree.unflatten(structure, leaves)
    assert len(leaves) == 6
    assert again.basis == functions.basis
    z = jnp.linspace(-1, 1, 3)
    np.testing.assert_array_equal(again(z), functions(z))
    np.testing.assert_allclose(jax.jit(lambda f, z: f(z))(functions, z), functions(z), rtol=1e-5, atol=1e-6)
    one = jax.tree.map(lambda x: x, BASES["Morlet"](jax.random.key(1)))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), one, one)
    np.testing.assert_allclose(jax.vmap(lambda f: f(0.3))(stacked), one(0.3), rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda f: jnp.sum(f(z)))(functions)
    # Oracle: f is linear in the base weight, with slope act(z).
    np.testing.assert_allclose(gradient.base_weight, jax.nn.silu(z), rtol=1e-6)


@pytest.mark.parametrize("name", GRIDDED)
@pytest.mark.parametrize("spread", ["normal", *(pytest.param(x, marks=pytest.mark.slow) for x in ("narrow", "skewed"))])
def test_refit_keeps_a_smooth_function(name, spread):
    # Oracle: the function before, on the samples' range; bar 1e-3 of its range there (20-point grids). Keys 0 and 1.
    key = jax.random.key(1)
    draws = {
        "normal": lambda: jax.random.normal(key, (2000, 4)),
        "narrow": lambda: 1 + 0.3 * jax.random.normal(key, (2000, 4)),
        "skewed": lambda: -2.5 + jax.random.exponential(key, (2000, 4)),
    }[spread]()
    draws = jnp.clip(draws, -3, 3)
    smooth = jnp.stack([jnp.sin(jnp.linspace(-3, 3, 20) * k / 2) for k in (1, 2, 3, 4)])
    functions = BASES[name](jax.random.key(0), (4,))
    functions = dataclasses.replace(functions, coef=jnp.pad(smooth, ((0, 0), (0, functions.basis.num_features - 20))))
    if name == "BSpline3":
        points = jnp.linspace(-3, 3, 101)
        features = functions.basis(points, functions.grid, functions.width)
        coef = [jnp.linalg.lstsq(features, jnp.sin(points * k / 2))[0] for k in (1, 2, 3, 4)]
        functions = dataclasses.replace(functions, coef=jnp.stack(coef))
    refitted = functions.refit(draws)
    assert refitted.grid.shape == (4, 20)
    assert np.all(np.diff(refitted.grid, axis=-1) > 0)
    np.testing.assert_allclose(refitted.grid[:, 0], -3, atol=1e-6)
    np.testing.assert_allclose(refitted.grid[:, -1], 3, atol=1e-6)
    points = jnp.linspace(jnp.min(draws, 0), jnp.max(draws, 0), 1001)
    before, after = functions(points), refitted(points)
    assert np.all(np.max(np.abs(before - after), 0) <= 1e-3 * np.ptp(before, 0))


def test_refit_moves_a_grid_towards_the_data():
    # Oracle: a narrow cloud of data must hold more of a cubic spline's grid points than a uniform grid puts there.
    functions = BASES["BSpline3"](jax.random.key(0))
    points = jnp.linspace(-3, 3, 101)
    features = functions.basis(points, functions.grid, functions.width)
    functions = dataclasses.replace(functions, coef=jnp.linalg.lstsq(features, jnp.sin(points))[0])
    draws = jnp.clip(1 + 0.2 * jax.random.normal(jax.random.key(0), (2000,)), -3, 3)
    inside = lambda f: int(jnp.sum((f.grid > 0.6) & (f.grid < 1.4)))  # noqa: E731
    assert inside(functions.refit(draws, tolerance=0.05)) > inside(functions)


def test_refit_reproduces_a_cubic_exactly():
    # Oracle: cubic splines on any grid contain the cubics; bar 1e-5 of the range. SciPy's lstsq gives the first spline.
    points = np.linspace(-3, 3, 201)
    cubic = lambda z: 0.3 * z**3 - z**2 + 0.5 * z - 1  # noqa: E731
    functions = BASES["BSpline3"](jax.random.key(0))
    features = oracle.features(functions.basis, points, functions.grid, functions.width)
    coef = np.linalg.lstsq(features, cubic(points))[0]
    functions = dataclasses.replace(functions, coef=jnp.asarray(coef), base_weight=jnp.zeros(()))
    draws = jnp.clip(0.7 * jax.random.normal(jax.random.key(0), (1000,)), -3, 3)
    refitted = functions.refit(draws)
    assert np.max(np.abs(np.asarray(refitted.grid) - np.asarray(functions.grid))) > 0.05
    np.testing.assert_allclose(refitted(points), cubic(points), rtol=0, atol=1e-5 * np.ptp(cubic(points)))


@pytest.mark.parametrize("name", EACH)
def test_refit_on_another_domain(name):
    # Oracle: the function before, over the data, on a domain that is wider; outside the old one it was constant.
    functions = BASES[name](jax.random.key(0), (2,))
    draws = jnp.clip(jax.random.normal(jax.random.key(1), (500, 2)), -2, 2)
    refitted = functions.refit(draws, domain=(-2.5, 2.5))
    np.testing.assert_array_equal(refitted.domain, [-2.5, 2.5])
    points = jnp.linspace(-2, 2, 401)[:, None]
    before, after = functions(points), refitted(points)
    assert np.max(np.abs(before - after)) <= 0.1 * np.max(np.ptp(before, 0))


@pytest.mark.parametrize("name", ["Fourier", "Chebyshev"])
def test_refit_without_a_grid_changes_nothing(name):
    functions = BASES[name](jax.random.key(0), (2,))
    refitted = functions.refit(jnp.ones((10, 2)))
    np.testing.assert_array_equal(refitted.coef, functions.coef)


def test_refit_is_traceable():
    functions = BASES["RBF"](jax.random.key(0), (2,))
    draws = jax.random.normal(jax.random.key(1), (300, 2))
    eager, traced = functions.refit(draws), jax.jit(lambda f, x: f.refit(x))(functions, draws)
    z = jnp.linspace(-2, 2, 21)[:, None]
    np.testing.assert_allclose(eager(z), traced(z), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "error", "name"),
    [
        (lambda f: kp.UnivariateKAN.init(basis=kp.RBF(20), domain=(-3, 3)), TypeError, "key"),
        (lambda f: kp.UnivariateKAN.init(jax.random.key(0), basis="RBF", domain=(-3, 3)), TypeError, "basis"),
        (lambda f: kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF, domain=(-3, 3)), TypeError, "basis"),
        (lambda f: kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(20), domain=(3, -3)), ValueError, "domain"),
        (lambda f: kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(20), domain=(3, 3)), ValueError, "domain"),
        (lambda f: kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(20), domain=3), ValueError, "domain"),
        (lambda f: kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(20), domain=(0, 1, 2)), ValueError, "domain"),
        (
            lambda f: kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(20), domain=(0, float("nan"))),
            ValueError,
            "domain",
        ),
        (
            lambda f: kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(20), domain=(0, float("inf"))),
            ValueError,
            "domain",
        ),
        (lambda f: f.refit(jnp.ones((10, 4))), ValueError, "samples"),
        (lambda f: f.refit(jnp.ones(3)), ValueError, "samples"),
        (lambda f: f.refit(jnp.ones((10, 3)), tolerance=-1), ValueError, "tolerance"),
        (lambda f: f.refit(jnp.ones((10, 3)), domain=(1, 0)), ValueError, "domain"),
    ],
)
def test_refused_arguments_are_named(make, error, name):
    functions = BASES["RBF"](jax.random.key(0), (3,))
    with pytest.raises(error, match=name):
        make(functions)
