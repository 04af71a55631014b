"""Gauss-Kronrod panels against polynomials and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import legendre
from scipy import special, stats

from kaem_ppl import quadrature
from kaem_ppl.quadrature import division


def test_kronrod_and_gauss_are_exact_for_polynomials():
    # Oracle: the integral of x^n over [-1, 1]. Kronrod's 15 nodes are exact to degree 22, Gauss's 7 to degree 13.
    for degree in range(23):
        exact = 0.0 if degree % 2 else 2 / (degree + 1)
        assert abs(quadrature.KRONROD @ quadrature.NODES**degree - exact) < 1e-15
        if degree <= 13:
            assert abs(quadrature.GAUSS @ quadrature.NODES**degree - exact) < 1e-15
    # and no further: the next even degrees are missed.
    assert abs(quadrature.KRONROD @ quadrature.NODES**24 - 2 / 25) > 1e-12
    assert abs(quadrature.GAUSS @ quadrature.NODES**14 - 2 / 15) > 1e-6
    np.testing.assert_allclose(quadrature.NODES[1::2], legendre.leggauss(7)[0], atol=1e-15)


def _panels(log_density, edges):
    return quadrature.evaluate(log_density, edges)[0]


def _error(panels):
    total = quadrature.log_total(panels, jnp.array(-jnp.inf))
    return float(jnp.sum(quadrature.truncation(panels, total)) + quadrature.rounding(panels, total, 0.0))


def _is_resolved(panels):
    total = quadrature.log_total(panels, jnp.array(-jnp.inf))
    return bool(jnp.all(quadrature.assess(panels, total, 0.0).excess(total) <= 0))


def _refine(log_density, seeds, num_panels):
    none = jnp.full((1, 1), -jnp.inf)
    edges = seeds[:, None, None]
    evaluate = lambda edges: quadrature.evaluate(log_density, edges)[:2]  # noqa: E731
    return quadrature.refine(evaluate, edges, none, jnp.zeros((1, 1)), num_panels)[0].edges[:, 0, 0]


def _normal(loc, scale):
    return lambda z: -0.5 * ((z - loc) / scale) ** 2


def test_composite_rule_integrates_a_gaussian(precision):
    # Oracle: the normal CDF. The density has no overflow at log-densities of +-1e4.
    bar = {"float32": 2e-6, "float64": 1e-13}[precision]
    edges = jnp.linspace(-2.0, 3.0, 21)
    exact = np.log(np.sqrt(2 * np.pi) * (stats.norm.cdf(3) - stats.norm.cdf(-2)))
    for shift in (0.0, 1e4, -1e4):
        panels = _panels(lambda z, shift=shift: _normal(0.0, 1.0)(z) + shift, edges)
        total = quadrature.log_total(panels, jnp.array(-jnp.inf))
        assert abs(float(total) - shift - exact) < bar * (1 + abs(shift)) * (1 if precision == "float32" else 100)


def test_error_estimate_bounds_the_error(x64):
    # Oracle: the normal CDF; densities from well to badly resolved by four panels.
    for scale in (2.0, 1.0, 0.5, 0.3, 0.2, 0.1):
        panels = _panels(_normal(0.3, scale), jnp.linspace(-2.0, 3.0, 5))
        tails = jnp.array(-jnp.inf)
        cdf = stats.norm(0.3, scale).cdf
        exact = np.log(scale * np.sqrt(2 * np.pi) * (cdf(3) - cdf(-2)))
        error = abs(float(quadrature.log_total(panels, tails)) - exact)
        estimate = _error(panels)
        assert error <= estimate
        assert estimate <= 1.5
    # A resolved density must not be given a large error either, or the bound would say nothing.
    panels = _panels(_normal(0.3, 2.0), jnp.linspace(-2.0, 3.0, 21))
    assert _error(panels) < 1e-13


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-6])
def test_refined_panels_resolve_a_spike(scale, x64):
    # Oracle: sqrt(2 pi) scale. Energies of 1e4 make such spikes; 20 equal panels on (-3, 3) miss them entirely.
    log_density, tails = _normal(0.7123, scale), jnp.array(-jnp.inf)
    seeds = jnp.linspace(-3.0, 3.0, 21)
    exact = np.log(np.sqrt(2 * np.pi) * scale)
    coarse = _panels(log_density, seeds)
    assert not _is_resolved(coarse)
    assert abs(float(quadrature.log_total(coarse, tails)) - exact) > 1e-3
    edges = _refine(log_density, seeds, 40)
    assert edges.shape == (41,)
    assert np.all(np.diff(edges) >= 0)
    assert float(edges[0]) == -3.0
    assert float(edges[-1]) == 3.0
    fine = _panels(log_density, edges)
    assert _error(fine) < 1e-9
    assert abs(float(quadrature.log_total(fine, tails)) - exact) < 1e-9


@pytest.mark.slow
def test_refined_panels_find_two_peaks_of_unlike_width(x64):
    # Oracle: the sum of two Gaussian integrals; the narrow one holds as much mass as the wide one.
    wide, narrow = 0.3, 0.01

    def log_density(z):
        return jnp.logaddexp(_normal(-1.0, wide)(z), _normal(1.2345, narrow)(z) + np.log(wide / narrow))

    tails = jnp.array(-jnp.inf)
    edges = _refine(log_density, jnp.linspace(-3.0, 3.0, 41), 80)
    total = quadrature.log_total(_panels(log_density, edges), tails)
    assert abs(float(total) - np.log(2 * np.sqrt(2 * np.pi) * wide)) < 1e-9


def test_parts_of_a_panel_resolve_what_the_panel_does_not():
    # Oracle: the normal CDF. Four parts of a panel hold a peak of which the panel's own polynomial makes nothing.
    log_density, edges = _normal(0.3, 0.3), jnp.array([-1.0, 1.0])
    assert not _is_resolved(_panels(log_density, edges))
    energy = log_density(quadrature.panel_nodes(edges))
    on_parts = division.values_on_parts(energy)
    np.testing.assert_allclose(on_parts, log_density(division.part_nodes(edges)), atol=2e-5)
    parts = division.summarize_parts(on_parts, energy, jnp.ones(1), jnp.full(1, 1e-6))
    edges = np.linspace(-1, 1, 5)
    exact = 0.3 * np.sqrt(2 * np.pi) * np.diff(stats.norm(0.3, 0.3).cdf(edges))
    np.testing.assert_allclose(np.exp(parts.log_mass[:, 0]), exact, rtol=2e-5)
    assert np.all(np.abs(np.exp(parts.log_mass[:, 0]) / exact - 1) <= parts.error[:, 0] + 2e-5)


def test_marked_panels_are_found_in_order():
    # Oracle: NumPy's nonzero.
    marked = np.random.default_rng(0).random((7, 5)) < 0.4
    found = division.Marked.of(jnp.asarray(marked), 4)
    expected = np.flatnonzero(marked)
    assert found.number == len(expected)
    np.testing.assert_array_equal(found.places.reshape(-1)[: len(expected)], expected)
    assert np.all(found.places.reshape(-1)[len(expected) :] == marked.size)


def test_empty_panels_hold_nothing():
    # Oracle: the same panels without the empty ones; gradients stay finite.
    edges = jnp.array([-1.0, -1.0, 0.0, 0.0, 2.0, 2.0])

    def total(scale, edges):
        return quadrature.log_total(_panels(_normal(0.0, scale), edges), jnp.array(-jnp.inf))

    value, slope = jax.value_and_grad(total)(1.0, edges)
    np.testing.assert_allclose(value, total(1.0, jnp.array([-1.0, 0.0, 2.0])), rtol=1e-6)
    assert np.isfinite(slope)
    assert np.all(np.isfinite(jax.grad(total, 1)(1.0, edges)))


def test_log_total_with_tails():
    # Oracle: the whole of a normal density: panels in the middle, SciPy's tails outside.
    panels = _panels(_normal(0.0, 1.0), jnp.linspace(-1.0, 2.0, 21))
    outside = np.log((special.ndtr(-1) + special.ndtr(-2)) * np.sqrt(2 * np.pi))
    total = quadrature.log_total(panels, jnp.asarray(outside))
    assert abs(float(total) - 0.5 * np.log(2 * np.pi)) < 1e-6


def test_safe_log():
    np.testing.assert_array_equal(quadrature.safe_log(jnp.array([0.0, 1.0])), [-np.inf, 0.0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(quadrature.safe_log))(jnp.array([0.0, 2.0])), [0.0, 0.5])
