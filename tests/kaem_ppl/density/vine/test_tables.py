"""Tabulated copulas of a pair: density, conditional distributions and inverses against quadrature and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from kaem_ppl.density.vine.grid import BELOW, NODES, locate
from kaem_ppl.density.vine.table import condition, make_cells, second_given_first, with_uniform_margins

ZERO = jnp.asarray(0)
INSIDE = np.linspace(-4.3, 4.3, 24)


def clayton(theta, x, y):
    """Log-density of the copula at normal scores."""
    log_u, log_v = stats.norm.logcdf(x), stats.norm.logcdf(y)
    total = np.exp(-theta * log_u) + np.exp(-theta * log_v) - 1
    return np.log1p(theta) - (theta + 1) * (log_u + log_v) - (2 + 1 / theta) * np.log(total)


# A lower tail that is joint, and none above; and a pair that is neither monotone nor symmetric.
LOGS = {
    "clayton": clayton(2.0, NODES[:, None], NODES),
    "banana": -2 * (NODES[:, None] ** 2 / 2 - 0.8 - NODES) ** 2 + 0.2 * NODES,
}


@pytest.fixture(scope="module", params=list(LOGS))
def cells(request):
    return jnp.asarray(make_cells(with_uniform_margins(LOGS[request.param]))[None], float)


def density(cells, x, y):
    x, y = jnp.broadcast_arrays(jnp.asarray(x, float), jnp.asarray(y, float))
    return np.exp(np.asarray(condition(cells, ZERO, x, y).log_density, float))


def integral(function, ends):
    """Of a function of masses, by Gauss's rule between each two ends; as SciPy has it."""
    return sum(integrate.fixed_quad(function, a, b, n=3)[0] for a, b in zip(ends[:-1], ends[1:], strict=True))


def test_margins_are_uniform_and_the_density_integrates_to_one(cells):
    # At the nodes and between them: from each, in either direction, the integral over the other variable.
    x = stats.norm.ppf(np.concatenate([[1e-6], stats.norm.cdf(INSIDE), BELOW[1:-1], [1 - 1e-6]]))[:, None]
    np.testing.assert_allclose(integral(lambda v: density(cells, x, stats.norm.ppf(v)), BELOW), 1, atol=1e-5)
    np.testing.assert_allclose(integral(lambda u: density(cells, stats.norm.ppf(u), x), BELOW), 1, atol=1e-5)
    points = integrate.fixed_quad(lambda u: integral_over_second(cells, u), 0, 1, n=40)[0]
    assert points == pytest.approx(1, abs=1e-5)


def integral_over_second(cells, u):
    return integral(lambda v: density(cells, stats.norm.ppf(u)[:, None], stats.norm.ppf(v)), BELOW)


@pytest.mark.parametrize("x", [-2.2, 0.3, 3.1, 5.0])
def test_conditional_distribution_functions_are_integrals_of_the_density(cells, x):
    for y in (-2.5, -0.4, 0.0, 1.1, 2.9):
        v = stats.norm.cdf(y)
        ends = np.append(BELOW[v > BELOW], v)
        found = condition(cells, ZERO, jnp.asarray(x), jnp.asarray(y))
        below = integral(lambda v: density(cells, x, stats.norm.ppf(v)), ends)
        assert stats.norm.cdf(float(found.second)) == pytest.approx(below, abs=2e-6)
        found = condition(cells, ZERO, jnp.asarray(y), jnp.asarray(x))
        below = integral(lambda u: density(cells, stats.norm.ppf(u), x), ends)
        assert stats.norm.cdf(float(found.first)) == pytest.approx(below, abs=2e-6)


def test_the_inverse_is_one_far_into_the_tails(cells):
    x, wanted = np.meshgrid(np.append(INSIDE, [-9.0, 9.0, -30.0]), np.append(INSIDE, [-9.0, 9.0, -30.0]))
    x, wanted = jnp.asarray(x, float), jnp.asarray(wanted, float)
    y = second_given_first(cells, ZERO, x, wanted)
    assert np.all(np.isfinite(y))
    back = np.asarray(condition(cells, ZERO, x, y).second)
    # Where the conditional density is flat at the floor, a mass hardly says where it lies; the mass itself is right.
    error = np.minimum(np.abs(back - wanted), np.abs(stats.norm.cdf(back) - stats.norm.cdf(wanted)) * 1e3)
    assert np.max(error) < 1e-3
    typical = np.abs(np.asarray(x)) < 3.1
    np.testing.assert_allclose(back[typical], np.asarray(wanted)[typical], rtol=2e-3, atol=2e-4)


def test_density_and_conditional_scores_are_one_another_s_derivatives(cells):
    x, y = (jnp.asarray(a, float) for a in np.random.default_rng(0).normal(size=(2, 200)))

    def log_normal(e):
        return -0.5 * jnp.square(e)

    def given(x, y):
        return condition(cells, ZERO, x, y).second

    # c(x, y) N(y) dy = N(w) dw, of the score w of y given x; and the other way, of y as a function of w.
    found = condition(cells, ZERO, x, y)
    slope = jax.vmap(jax.grad(given, argnums=1))(x, y)
    expected = log_normal(found.second) - log_normal(y) + jnp.log(slope)
    np.testing.assert_allclose(found.log_density, expected, atol=2e-3)
    inverse = jax.vmap(jax.grad(lambda x, w: second_given_first(cells, ZERO, x, w), argnums=1))(x, found.second)
    np.testing.assert_allclose(inverse * slope, 1, rtol=5e-3)
    # dy/dx at a fixed w, by the implicit function theorem.
    moved = jax.vmap(jax.grad(lambda x, w: second_given_first(cells, ZERO, x, w)))(x, found.second)
    across = jax.vmap(jax.grad(given))(x, y)
    np.testing.assert_allclose(moved, -across / slope, rtol=2e-2, atol=2e-2)


def test_places_of_scores_keep_the_digits_of_small_masses():
    for score in (-12.0, -3.97, -0.01, 0.01, 3.97, 12.0):
        place = locate(jnp.asarray(score))
        cell = int(place.cell)
        low, high = (-np.inf if cell == 0 else NODES[cell - 1]), (np.inf if cell == 65 else NODES[cell])
        assert low <= score <= high
        side = np.sign(score) or 1.0
        masses = stats.norm.sf(side * np.array([score, low, high]))
        share = abs(masses[0] - masses[1]) / abs(masses[2] - masses[1])
        assert float(place.below) == pytest.approx(share, abs=2e-5)
