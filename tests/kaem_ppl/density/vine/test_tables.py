"""Tabulated copulas of a pair: density, conditional distributions and inverses against quadrature and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

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


ask = jax.jit(condition)


def density(cells, x, y):
    x, y = jnp.broadcast_arrays(jnp.asarray(x, float), jnp.asarray(y, float))
    return np.exp(np.asarray(ask(cells, ZERO, x, y).log_density, float))


def quadrature(ends):
    """Normal scores and weights of an integral over masses, by SciPy's Gauss rule between each two ends."""
    roots, weights = special.roots_legendre(3)
    half = 0.5 * np.diff(ends)[:, None]
    return stats.norm.ppf((ends[:-1, None] + half * (1 + roots)).ravel()), (half * weights).ravel()


def test_margins_are_uniform_and_the_density_integrates_to_one(cells):
    # At the nodes and between them: from each, in either direction, the integral over the other variable.
    (y, weights), between = quadrature(BELOW), quadrature(np.linspace(0, 1, 31))
    x = np.concatenate([between[0], NODES, [-4.7, 4.7]])[:, None]
    margins = density(cells, x, y) @ weights
    np.testing.assert_allclose(margins, 1, atol=1e-5)
    np.testing.assert_allclose(density(cells, y, x) @ weights, 1, atol=1e-5)
    assert between[1] @ margins[: len(between[1])] == pytest.approx(1, abs=1e-5)


def test_conditional_distribution_functions_are_integrals_of_the_density(cells):
    x = np.array([-2.2, 0.3, 3.1, 5.0])
    for y in (-2.5, 0.05, 1.15, 2.9):
        v = stats.norm.cdf(y)
        points, weights = quadrature(np.minimum(BELOW, v))
        below = density(cells, x[:, None], points) @ weights
        found = ask(cells, ZERO, *jnp.broadcast_arrays(jnp.asarray(x, float), jnp.asarray(y, float)))
        np.testing.assert_allclose(stats.norm.cdf(found.second), below, atol=2e-6)
        below = density(cells, points, x[:, None]) @ weights
        found = ask(cells, ZERO, *jnp.broadcast_arrays(jnp.asarray(y, float), jnp.asarray(x, float)))
        np.testing.assert_allclose(stats.norm.cdf(found.first), below, atol=2e-6)


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


@pytest.mark.slow
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
