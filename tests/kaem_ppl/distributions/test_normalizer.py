"""log Z and its error estimate against SciPy's adaptive quadrature."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ..members import BASES, FAST_PAIRS, ONE_PER_BASIS, SLOW_PAIRS, density, tilted

SIZES = (1, 10, 100)
FAR = (100, 1e4, -1e4)
BARS = {"float32": 1e-6, "float64": 1e-10}


def _pairs():
    fast = FAST_PAIRS[:3]
    slow = [pytest.param(*pair, marks=pytest.mark.slow) for pair in ONE_PER_BASIS if pair not in fast]
    rest = [pytest.param(*pair, marks=pytest.mark.exhaustive) for pair in SLOW_PAIRS if pair not in ONE_PER_BASIS]
    return pytest.mark.parametrize(("basis", "reference"), [*fast, *slow, *rest])


def _check(basis, reference, precision, sizes, domain):
    # Oracle: quad on the pieces of the domain, SciPy's tails outside; its own error must be a small part of the bar.
    d = tilted(basis, reference, sizes, domain)
    log_z, estimate = np.asarray(d.log_normalizer, float), np.asarray(d.log_normalizer_error, float)
    assert d.log_normalizer.dtype == jnp.dtype(precision)
    for i, size in enumerate(sizes):
        expected = density(basis, reference, i, sizes, domain)
        assert expected.error < 0.25 * BARS["float64"]
        bar = BARS[precision] * (max(1, abs(size)) if precision == "float32" else 1)
        error = abs(log_z[i] - expected.log_z)
        assert abs(np.expm1(log_z[i] - expected.log_z)) <= bar, f"max|f| = {size}: {error / bar:.2g} of the bar"
        if precision == "float64":
            # The estimate is a bound, up to what the oracle itself does not know, and not a vacuous one.
            assert error <= estimate[i] + expected.error
            assert estimate[i] <= 1e-8


# Half a minute of float64 together.
LONGEST = (("Fourier", "TruncatedNormal"), ("Morlet", "Uniform"))


@_pairs()
def test_log_normalizer(basis, reference, precision):
    if precision == "float64" and (basis, reference) in LONGEST:
        pytest.skip("float64 of these two runs with the exhaustive tests")
    _check(basis, reference, precision, SIZES, (-3.0, 3.0))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("basis", "reference"), LONGEST)
def test_log_normalizer_of_the_longest(basis, reference, x64):
    _check(basis, reference, "float64", SIZES, (-3.0, 3.0))


@pytest.mark.parametrize(
    "basis", ["RBF", *(pytest.param(b, marks=pytest.mark.exhaustive) for b in BASES if b != "RBF")]
)
def test_reference_far_from_the_domain_and_huge_energies(basis, precision):
    # Normal(0, 1) under a domain (3, 6): nearly all of the reference's mass lies outside.
    if precision == "float64" and basis not in ("RBF", "BSpline3", "BSpline1"):
        pytest.skip("float64 of this basis runs with the exhaustive tests")
    _check(basis, "Normal", precision, FAR, (3.0, 6.0))


@pytest.mark.exhaustive
@pytest.mark.parametrize("basis", ["Fourier", "Chebyshev", "RSWAF", "Morlet"])
def test_reference_far_from_the_domain_in_float64(basis, x64):
    _check(basis, "Normal", "float64", FAR, (3.0, 6.0))


@partial(jax.jit, static_argnums=2)
def _value_and_gradients(d, z, what):
    def objective(d, z):
        return jnp.sum(d.log_normalizer) if what == "log_normalizer" else jnp.sum(d.log_prob(z))

    return jax.value_and_grad(objective, (0, 1))(d, z)


@pytest.mark.slow
@pytest.mark.parametrize(
    "basis",
    ["RBF", *(pytest.param(b, marks=pytest.mark.exhaustive) for b in BASES if b != "RBF")],
)
@pytest.mark.parametrize("what", ["log_normalizer", "log_prob"])
def test_huge_energies_have_finite_gradients(basis, what):
    # Law: every value and gradient is finite, with energies of +-1e4, inside and outside the domain.
    d = tilted(basis, "Normal", FAR, (3.0, 6.0))
    z = jnp.linspace(-8, 8, 65)[:, None] * jnp.ones(3)
    value, gradients = _value_and_gradients(d, z, what)
    for leaf in jax.tree.leaves((value, gradients)):
        assert np.all(np.isfinite(leaf))
    # The gradient of a log-normaliser in spline weights is an expectation of the spline: within its range of 1e4.
    if what == "log_normalizer":
        assert np.all(np.abs(gradients[0].energy.spline_weight) < 1.1e4)
        assert np.any(gradients[0].energy.coef != 0)
