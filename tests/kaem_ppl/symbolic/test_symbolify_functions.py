"""Formulae of learnt functions: planted ones are found, and errors are those of adaptive quadrature."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import kaem_ppl as kp
from kaem_ppl.models import KANGenerator
from kaem_ppl.network import KANetwork

from .. import oracle
from ..members import BASES

# Functions on [-3, 3]; the name of the form, and text that stands for them to two digits.
PLANTED = {
    "z + z^2": (lambda z: 0.7 * z**2 - 0.4 * z + 0.2, "-0.4*z + 0.7*z^2 + 0.2"),
    "sin": (lambda z: 1.5 * np.sin(2 * z + 0.5) - 1, "1.5*sin(2*z + 0.5) - 1"),
    "abs": (lambda z: 1 - 2 * np.abs(z - 0.5), "-2*|z - 0.5| + 1"),
    "logistic": (lambda z: 3 / (1 + np.exp(-(4 * z - 1))), "3/(1 + exp(-(4*z - 1)))"),
    "exp": (lambda z: 0.5 * np.exp(0.8 * z) - 2, "0.5*exp(0.8*z) - 2"),
    "gaussian": (lambda z: np.exp(-((1.5 * z - 1) ** 2)) + 0.3, "1*exp(-(1.5*z - 1)^2) + 0.3"),
    "silu": (lambda z: -1.2 * z / (1 + np.exp(-z)), "-1.2*z/(1 + exp(-z))"),
    "z + sin": (lambda z: np.sin(3 * z) + 0.5 * z, "0.5*z + 1*sin(3*z)"),
}


def learnt(functions, basis, domain=(-3, 3)):
    """A bank whose coefficients are the least-squares fit of functions on a grid."""
    bank = kp.UnivariateKAN.init(0, (len(functions),), basis=basis, domain=domain)
    z = np.linspace(*domain, 1001)
    features = np.asarray(basis(jnp.asarray(z), bank.grid, bank.width), float)
    coef = np.linalg.lstsq(features, np.stack([f(z) for f in functions], 1), rcond=1e-6)[0].T
    return dataclasses.replace(bank, coef=jnp.asarray(coef, float), base_weight=jnp.zeros(len(functions)))


@pytest.fixture(scope="module")
def planted():
    # Splines whose knots are 0.1 apart, one of them where the absolute value has its kink.
    bank = learnt([function for function, _ in PLANTED.values()], kp.BSpline(num_grid=61))
    return bank, kp.symbolify_functions(bank)


def test_planted_functions_are_found_with_their_constants(planted):
    _, found = planted
    assert found.num_found == len(found) == len(PLANTED)
    for (name, (function, text)), own in zip(PLANTED.items(), found, strict=True):
        assert own.best.name == name
        assert own.best.to_text(2) == text
        z = np.linspace(-3, 3, 101)
        np.testing.assert_allclose(own.best(z), function(z), atol=0.01)
        assert own.std == pytest.approx(np.std(function(np.linspace(-3, 3, 100_001))), rel=1e-3)
    assert "8 of 8 functions within 0.001" in repr(found)
    assert "1.5*sin(2*z + 0.5) - 1" in repr(found)


def test_fronts_fall_and_end_at_the_best(planted):
    for own in planted[1]:
        complexities, errors = zip(*[(x.complexity, x.error) for x in own.front], strict=True)
        assert sorted(set(complexities)) == list(complexities)
        assert sorted(set(errors), reverse=True) == list(errors)
        assert own.front[-1] is own.best is own.nearest
        assert errors[-1] <= own.max_error < errors[-2]
        assert f"error {own.best.error:8.2g}" in repr(own)


@pytest.mark.parametrize(
    "name", ["BSpline1", *(pytest.param(x, marks=pytest.mark.slow) for x in BASES if x != "BSpline1")]
)
def test_errors_are_those_of_adaptive_quadrature(name):
    functions = BASES[name](jax.random.key(3), (1,))
    low, high = np.asarray(functions.domain, float)
    (found,) = kp.symbolify_functions(functions, library=["polynomial", "abs", "sin"], max_terms=1, max_error=1e-5)
    function = oracle.energy(functions, 0)
    knots = np.asarray(functions.grid, float) if name == "BSpline1" else np.linspace(low, high, 9)

    def mean_of(integrand, kinks=()):
        points = np.union1d(knots, [low, high, *kinks])
        return oracle.quad(integrand, points)[0].sum() / (high - low)

    mean, square = mean_of(function), mean_of(lambda z: function(z) ** 2)
    variance = square - mean**2
    assert found.std == pytest.approx(np.sqrt(variance), rel=1e-6)
    assert len(found.front) > 1
    for formula in found.front:
        kinks = [-t.shift for t in formula.terms if t.function == "abs" and low < -t.shift < high]
        total = mean_of(lambda z, g=formula: (function(z) - g(z)) ** 2, kinks)
        assert formula.error == pytest.approx(total / variance, abs=1e-6), formula
    assert found.best is None
    assert "nothing within 1e-05" in repr(found)
    assert found.nearest is found.front[-1]


def test_of_draws_errors_are_their_means_and_constants_their_least_squares():
    bank = kp.UnivariateKAN.init(jax.random.key(4), (2,), basis=kp.RBF(6), domain=(-2, 2))
    # Some beyond the domain, where the functions are constant.
    draws = np.asarray(jax.random.normal(jax.random.key(5), (400, 2)))
    found = kp.symbolify_functions(bank, draws, library="polynomial", max_terms=1)
    for index in range(2):
        values = oracle.energy(bank, index)(draws[:, index])
        z = np.clip(draws[:, index].astype(float), -2, 2)
        for formula in found[index].front[1:]:
            power = z ** {"z": 1, "z^2": 2, "z^3": 3, "z^4": 4}[formula.name]
            slope, intercept = np.polyfit(power, values, 1)
            assert formula.coefficients[0] == pytest.approx(slope, abs=1e-6)
            assert formula.intercept == pytest.approx(intercept, abs=0.1 * values.std())
            error = np.mean((formula(z) - values) ** 2) / np.var(values)
            assert formula.error == pytest.approx(error, abs=1e-6)
    # The same draws for both, and draws of each.
    shared = kp.symbolify_functions(bank, draws[:, 0], library="polynomial", max_terms=1)
    assert shared[0].front == found[0].front
    assert shared[1].front != found[1].front


@pytest.mark.parametrize("domain", [(10.0, 11.0), (-300.0, -100.0)])
def test_a_domain_far_from_zero(domain):
    low, length = domain[0], domain[1] - domain[0]
    waves = [lambda z: np.sin(9 * (z - low) / length), lambda z: np.tanh(6 * (z - low) / length - 2)]
    found = kp.symbolify_functions(learnt(waves, kp.RBF(30), domain), library=["sin", "logistic"], max_terms=1)
    assert [x.best.name for x in found] == ["sin", "logistic"]
    assert found[0].best.terms[0].scale == pytest.approx(9 / length, rel=0.01)
    assert found[1].best.terms[0].scale == pytest.approx(12 / length, rel=0.02)


def test_flat_functions_are_constants():
    bank = kp.UnivariateKAN.init(0, (3,), basis=kp.BSpline(), domain=(-1, 2))
    # Splines sum to one.
    coef = jnp.array([0.0, 3.0, -2.0])[:, None] * jnp.ones(bank.basis.num_features)
    found = kp.symbolify_functions(dataclasses.replace(bank, coef=coef, base_weight=jnp.zeros(3)))
    for own, value in zip(found, (0, 3, -2), strict=True):
        assert own.best.name == "constant"
        assert own.best.error == 0
        assert own.best.intercept == pytest.approx(value, rel=1e-6)
        assert own.front == (own.best,)
    # So is a function whose inputs are all the same.
    assert kp.symbolify_functions(bank, np.ones(5))[0].best.name == "constant"


def test_images_of_a_generator_are_within_the_stated_error():
    generator = KANGenerator((2, 3, 5), basis=kp.RBF(6), output=jax.nn.sigmoid)
    with numpyro.handlers.seed(rng_seed=1):
        params = numpyro.handlers.trace(generator).get_trace("decoder")["decoder$params"]["value"]
    with numpyro.handlers.substitute(data={"decoder$params": params}):
        decode = generator("decoder")
    draws = 1.5 * jax.random.normal(jax.random.key(2), (400, 2))
    found = kp.symbolify_functions(decode, draws, library=["polynomial", "silu"], max_error=0.02)
    assert [layer.functions.shape for layer in found.layers] == [(2, 3), (3, 5)]
    assert all(own.best.error <= 0.02 for layer in found.layers for own in layer)

    # Another way to the images: a loop over the functions, in double precision.
    x = np.asarray(draws, float)
    for layer in found.layers:
        sums = np.zeros((len(x), layer.functions.shape[1]))
        for i, j in np.ndindex(layer.functions.shape):
            sums[:, j] += layer[i, j].best(np.clip(x[:, i], -3, 3))
        x = sums
    images, expected = 1 / (1 + np.exp(-x)), np.asarray(decode(draws), float)
    np.testing.assert_allclose(found(draws), images, atol=1e-5)
    error = np.mean((images - expected) ** 2, 0).sum() / np.var(expected, axis=0).sum()
    assert found.output_error == pytest.approx(error, rel=1e-3)
    # Errors of a layer's functions add up, and the next layer's gain is of order one: a few times that of a function.
    assert 0 < found.output_error < 0.06
    assert "layer 1, (3, 5): 15 of 15 functions within 0.02" in repr(found)
    assert f"error of the outputs {found.output_error:.2g}" in repr(found)
    # Batches of latents of any shape, also inside a compiled function.
    np.testing.assert_allclose(jax.jit(found)(draws.reshape(4, 100, 2)), images.reshape(4, 100, 5), atol=1e-5)


def test_later_layers_are_read_at_the_sums_of_earlier_ones():
    network = KANetwork.init(jax.random.key(0), (2, 3, 5), basis=kp.RBF(6), domain=(-3, 3))
    draws = jax.random.normal(jax.random.key(1), (400, 2))
    settings = {"library": "polynomial", "max_terms": 1}
    found = kp.symbolify_functions(network, draws, **settings)
    sums = KANetwork(network.layers[:1])(draws)
    second = kp.symbolify_functions(network.layers[1], sums[..., None], **settings)
    assert [x.front for x in found.layers[1]] == [x.front for x in second]
    uniform = kp.symbolify_functions(network, **settings)
    assert uniform.output_error is None
    assert [x.front for x in uniform.layers[0]] == [
        x.front for x in kp.symbolify_functions(network.layers[0], **settings)
    ]


@pytest.mark.exhaustive
def test_three_terms_and_random_functions_of_every_basis():
    waves = [lambda z: 0.1 * z**3 - z + np.sin(4 * z), lambda z: 1 - z + 0.3 * z**2 + 0.1 * z**3]
    found = kp.symbolify_functions(learnt(waves, kp.RBF(40)), max_terms=3)
    assert [x.best.name for x in found] == ["z + z^3 + sin", "z + z^2 + z^3"]
    np.testing.assert_allclose(found[1].best.coefficients, (-1, 0.3, 0.1), atol=0.01)
    for basis in (kp.RBF(10), kp.BSpline(), kp.Fourier(3), kp.Chebyshev(5), kp.RSWAF(8), kp.Morlet(5)):
        network = KANetwork.init(jax.random.key(0), (2, 4, 6), basis=basis, domain=(-3, 3))
        draws = jax.random.normal(jax.random.key(1), (500, 2))
        formulae = kp.symbolify_functions(network, draws, max_error=0.01)
        number = sum(map(len, formulae.layers))
        assert sum(layer.num_found for layer in formulae.layers) >= 0.8 * number, basis
        assert formulae.output_error < 0.1


BANK = kp.UnivariateKAN.init(0, (2, 3), basis=kp.RBF(5), domain=(-1, 1))
NETWORK = KANetwork((BANK,))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"functions": KANGenerator((2, 3))}, "functions"),
        ({"functions": jnp.sin}, "functions"),
        ({"functions": dataclasses.replace(BANK, coef=jnp.nan * BANK.coef)}, "functions.coef"),
        ({"functions": KANetwork((dataclasses.replace(BANK, domain=jnp.array([1.0, -1.0])),))}, "functions.domain"),
        ({"inputs": "many"}, "inputs"),
        ({"inputs": np.zeros((5, 3, 2))}, "inputs"),
        ({"inputs": np.zeros((5, 3))}, "inputs"),
        ({"inputs": np.zeros(1)}, "inputs"),
        ({"inputs": np.zeros((0, 2, 3))}, "inputs"),
        ({"inputs": np.array([0.0, np.nan])}, "inputs"),
        ({"functions": NETWORK, "inputs": np.zeros(5)}, "inputs"),
        ({"functions": NETWORK, "inputs": np.zeros((5, 3))}, "inputs"),
        ({"max_error": 0}, "max_error"),
        ({"max_error": 1.0}, "max_error"),
        ({"library": ["tan"]}, "library"),
        ({"library": []}, "library"),
        ({"library": 3}, "library"),
        ({"max_terms": 0}, "max_terms"),
        ({"max_terms": 4}, "max_terms"),
        ({"max_terms": 1.5}, "max_terms"),
    ],
)
def test_wrong_arguments_are_refused(arguments, name, assert_refused):
    assert_refused(lambda: kp.symbolify_functions(**{"functions": BANK} | arguments), name)
