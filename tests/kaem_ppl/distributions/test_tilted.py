"""KANTilted: distribution function and its inverse, tails, moments, density, and how it behaves as a pytree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp

from .. import members
from ..members import BASES, ONE_PER_BASIS, REFERENCES, SLOW_PAIRS, density, tilted

# As drawn, and max|f| = 10: what the CDF is held to; 100 goes through panels of each function's own.
SIZES = (None, 10, 100)
BARS = {"float32": 1e-6, "float64": 1e-10}
U = np.concatenate([np.geomspace(1e-6, 0.01, 60), np.linspace(0.011, 0.989, 280), 1 - np.geomspace(0.01, 1e-6, 60)])


def _one_ulp(d, z):
    """How far F can move over one unit in the last place of z: in float32 no inverse can come nearer to u than that."""
    return np.exp(np.asarray(d.log_prob(z), float)) * np.spacing(np.abs(np.asarray(z)))


def _check_round_trip(d, precision):
    # Oracle: u itself. Bar, for the densities as drawn and at max|f| = 10; in float32 at least p(z) ulp(z).
    u = jnp.asarray(U)[:, None] * jnp.ones(3)
    z = d.icdf(u)
    assert z.shape == u.shape
    assert np.all(np.isfinite(z))
    assert np.all(np.diff(z[:, :2], axis=0) >= 0)
    error = np.abs(np.asarray(d.cdf(z), float) - np.asarray(u, float))
    bar = np.full(error.shape, BARS[precision])
    if precision == "float32":
        bar = np.maximum(bar, _one_ulp(d, z))
    assert np.all(error[:, :2] <= bar[:, :2]), f"{(error / bar)[:, :2].max():.2g} of the bar"
    # Sharp peaks (100) move F by whole ulps; an error of more than a few of them would be wrong. Where such a density
    # has next to no mass a quantile may fall, by as much of z as F does not resolve.
    bar = np.maximum(10 * bar[:, 2], 10 * _one_ulp(d, z)[:, 2])
    assert np.all(error[:, 2] <= bar)
    mass = np.diff(np.asarray(d.cdf(z)[:, 2], float))
    assert np.all((np.diff(z[:, 2]) >= 0) | (np.abs(mass) <= bar[1:]))


def _check_tails(d, basis, reference, precision, sizes=SIZES):
    # Oracle: quad and SciPy's own tails, each summed from its own end. The smaller tail is held to a relative bar: at
    # every point for max|f| up to 10, outside the domain for 100, where inner panels without mass are merged.
    bar = BARS[precision]
    low, high = REFERENCES[reference][1].support()
    z = np.array([-5.5, -4.1, -3.0, -2.2, -1.1, -0.3, 0.02, 0.4, 1.3, 2.2, 2.9, 3.0, 3.7, 5.2, 9.0])
    z = np.asarray(jnp.asarray(z[(z > low) & (z < high)]), float)
    below, above = (np.asarray(x, float) for x in d.tails(jnp.asarray(z)[:, None] * jnp.ones(3)))
    cdf = np.asarray(d.cdf(jnp.asarray(z)[:, None]), float)
    for i, size in enumerate(sizes):
        oracle = density(basis, reference, i, sizes)
        lower, upper = oracle.tails(z)
        scale = bar * (max(1, size or 1) if precision == "float32" else 1)
        np.testing.assert_allclose(cdf[:, i], lower, rtol=0, atol=scale)
        # Masses that float32 can hold. Far out the reference's own log-tail of size L has lost L ulps.
        rounding = 8 * np.finfo(precision).eps * (1 + np.abs(np.log(np.maximum(np.minimum(lower, upper), 1e-300))))
        if reference == "TruncatedNormal":
            # Its upper tail is one minus NumPyro's CDF, good to a unit in the last place of 1.
            rounding = rounding + 2 * np.finfo(precision).eps / np.maximum(REFERENCES[reference][1].sf(z), 1e-30)
        held = (np.abs(z) >= 3) | (i < 2)
        for ours, exact, other in ((below[:, i], lower, upper), (above[:, i], upper, lower)):
            smaller = held & (exact <= other) & (exact > 1e-30)
            error = np.abs(ours - exact) / np.where(smaller, exact, 1)
            assert np.all(error[smaller] <= (scale + rounding)[smaller]), (
                f"max|f| = {size} at {z[smaller][error[smaller].argmax()]}: {error[smaller].max():.2g}"
            )


@pytest.mark.parametrize(
    ("basis", "reference"),
    [
        ONE_PER_BASIS[0],
        pytest.param(*ONE_PER_BASIS[1], marks=pytest.mark.slow),
        *(pytest.param(*p, marks=pytest.mark.exhaustive) for p in ONE_PER_BASIS[2:]),
    ],
)
def test_cdf_and_icdf(basis, reference):
    d = tilted(basis, reference, SIZES)
    _check_round_trip(d, "float32")
    _check_tails(d, basis, reference, "float32")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("basis", "reference"), SLOW_PAIRS)
def test_cdf_and_icdf_of_the_other_pairs(basis, reference):
    d = tilted(basis, reference, SIZES)
    _check_round_trip(d, "float32")
    _check_tails(d, basis, reference, "float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("basis", "reference"),
    [ONE_PER_BASIS[0], *(pytest.param(*p, marks=pytest.mark.exhaustive) for p in ONE_PER_BASIS[1:])],
)
def test_cdf_and_icdf_in_float64(basis, reference, x64):
    d = tilted(basis, reference, SIZES)
    _check_round_trip(d, "float64")
    _check_tails(d, basis, reference, "float64")


def test_quantile_keeps_a_small_upper_mass():
    # Oracle: SciPy's own normal quantiles, for a tilted density with f = 0, which is the reference.
    bank = members.bank("RBF", SIZES)
    zero = dataclasses.replace(bank, coef=0 * bank.coef, base_weight=0 * bank.base_weight)
    d = kp.KANTilted(zero, dist.Normal(0.0, 1.0))
    mass = np.geomspace(1e-30, 0.4, 50)
    exact = REFERENCES["Normal"][1].isf(mass)
    above = np.asarray(d.quantile(jnp.asarray(1 - mass)[:, None], jnp.asarray(mass)[:, None]))
    below = np.asarray(d.quantile(jnp.asarray(mass)[:, None], jnp.asarray(1 - mass)[:, None]))
    np.testing.assert_allclose(above, exact[:, None] * np.ones(3), rtol=2e-5)
    np.testing.assert_allclose(below, -exact[:, None] * np.ones(3), rtol=2e-5)


@pytest.mark.parametrize("reference", ["Normal", "Uniform"])
def test_icdf_at_and_beyond_the_ends(reference):
    pair = {"Normal": ("RBF", "Normal"), "Uniform": ("BSpline1", "Uniform")}[reference]
    d = tilted(*pair, SIZES)
    low, high = REFERENCES[reference][1].support()
    ends = d.icdf(jnp.array([0.0, 1.0, -0.1, 1.1, jnp.nan])[:, None])
    np.testing.assert_array_equal(ends[0], np.full(3, low))
    np.testing.assert_array_equal(ends[1], np.full(3, high))
    assert np.all(np.isnan(ends[2:]))
    np.testing.assert_array_equal(d.cdf(jnp.array([-50.0, 50.0])[:, None]), [[0.0] * 3, [1.0] * 3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("basis", "reference"),
    [ONE_PER_BASIS[0], *(pytest.param(*p, marks=pytest.mark.exhaustive) for p in ONE_PER_BASIS[1:])],
)
def test_moments_and_entropy(basis, reference, x64):
    # Oracle: quad of z, (z - mean)^2 and -log p against the density. Bar 1e-8 relative; the tails are Kronrod sums.
    # The tail sums stop at e^-32 of a tail's mass, which a log-normal's second moment feels most.
    d = tilted(basis, reference, SIZES)
    mean, variance, entropy = (np.asarray(x) for x in (d.mean, d.variance, d.entropy()))
    for i in range(3):
        oracle = density(basis, reference, i, SIZES)
        exact_mean = oracle.expectation(lambda z: z)
        exact_variance = oracle.expectation(lambda z, m=exact_mean: (z - m) ** 2)

        def surprise(z, oracle=oracle):
            return -oracle.log_prob(z) if oracle.log_prob(z) > -700 else 0.0

        np.testing.assert_allclose(mean[i], exact_mean, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(variance[i], exact_variance, rtol=1e-7 if reference == "LogNormal" else 1e-8)
        np.testing.assert_allclose(entropy[i], oracle.expectation(surprise), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_moments_that_do_not_exist():
    # A Cauchy tail has no mean, unless the domain covers it all: it cannot.
    d = kp.KANTilted(BASES["RBF"](jax.random.key(0)), dist.Cauchy(0.0, 1.0))
    assert np.isnan(d.mean)
    assert np.isnan(d.variance)
    assert np.isfinite(d.cdf(0.3))


@pytest.mark.parametrize(
    ("basis", "reference"),
    [
        ONE_PER_BASIS[0],
        *(
            pytest.param(*p, marks=pytest.mark.exhaustive if p[0] == "Fourier" else pytest.mark.slow)
            for p in ONE_PER_BASIS[1:]
        ),
    ],
)
def test_log_prob(basis, reference):
    # Oracle: f + log pi_0 - log Z by NumPy and SciPy; -inf outside the support, and no NaN gradient there.
    d = tilted(basis, reference)
    z = np.array([-4.5, -3.5, -2.5, -1.0, 0.01, 0.6, 1.7, 2.8, 3.5, 4.5])
    low, high = REFERENCES[reference][1].support()
    inside = (z > low) & (z < high)
    ours = np.asarray(d.log_prob(jnp.asarray(z)[:, None] * jnp.ones(3)))
    assert np.all(np.isneginf(ours[~inside]))
    for i, size in enumerate((1, 10, 100)):
        expected = density(basis, reference, i).log_prob(z[inside])
        np.testing.assert_allclose(ours[inside, i], expected, rtol=2e-6, atol=3e-6 * size)
    gradient = jax.grad(lambda z: jnp.sum(jnp.where(jnp.isfinite(d.log_prob(z)), d.log_prob(z), 0.0)))
    assert np.all(np.isfinite(gradient(jnp.asarray(z)[:, None] * jnp.ones(3))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("basis", "reference"),
    [
        ("RBF", "Normal"),
        pytest.param("BSpline3", "LogNormal", marks=pytest.mark.exhaustive),
        ("Fourier", "Normal"),
    ],
)
def test_derivatives_of_log_prob_in_z(basis, reference, x64):
    # Oracle: central differences of the NumPy oracle's log-density, bar 1e-6 (gradient) and 1e-4 (Hessian).
    d = tilted(basis, reference)
    one = kp.KANTilted(jax.tree.map(lambda x: x[1] if x.shape[:1] == (3,) else x, d.energy), d.reference)
    oracle = density(basis, reference, 1)
    z = np.array([0.111, 0.757, 1.313, 2.222]) + (0 if reference == "LogNormal" else -1)
    g, h = 1e-5, 1e-4
    gradient = jax.jit(jax.vmap(jax.grad(one.log_prob)))(jnp.asarray(z))
    hessian = jax.jit(jax.vmap(jax.hessian(one.log_prob)))(jnp.asarray(z))
    first = (oracle.log_prob(z + g) - oracle.log_prob(z - g)) / (2 * g)
    second = (oracle.log_prob(z + h) - 2 * oracle.log_prob(z) + oracle.log_prob(z - h)) / h**2
    np.testing.assert_allclose(gradient, first, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(hessian, second, rtol=1e-4, atol=1e-4 * np.abs(second).max())
    # Outside the domain f is constant and the score is the reference's, whichever way one looks.
    np.testing.assert_allclose(jax.grad(one.log_prob)(5.0), jax.grad(d.reference.log_prob)(5.0), rtol=1e-12)


def test_pytree_round_trip():
    # Oracle: the distribution itself; the copy must agree to the last digit.
    d = tilted("RBF", "Normal", SIZES)
    z = jnp.linspace(-4, 4, 9)[:, None] * jnp.ones(3)
    before = d.log_prob(z)
    leaves, structure = jax.tree.flatten(d)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is kp.KANTilted
    assert again.batch_shape == (3,)
    np.testing.assert_array_equal(again.log_prob(z), before)
    np.testing.assert_allclose(jax.jit(lambda d, z: d.log_prob(z))(d, z), before, rtol=1e-5, atol=1e-5)
    # A copy with other numbers must not answer from the first one's memory.
    doubled = jax.tree.unflatten(structure, [2 * x if x is d.energy.coef else x for x in leaves])
    assert np.max(np.abs(doubled.log_normalizer - d.log_normalizer)) > 1e-2
    fresh = kp.KANTilted(doubled.energy, doubled.reference)
    np.testing.assert_array_equal(doubled.log_normalizer, fresh.log_normalizer)


@pytest.mark.slow
def test_vmap_over_distributions():
    # Oracle: a bank; vmap over its members one at a time gives the same.
    d = tilted("RBF", "Normal", SIZES)
    z = jnp.array([-3.3, 0.2, 1.4])

    def one(coef, base, spline, z):
        energy = dataclasses.replace(d.energy, coef=coef, base_weight=base, spline_weight=spline)
        return kp.KANTilted(energy, d.reference).log_prob(z)

    apart = jax.vmap(one)(d.energy.coef, d.energy.base_weight, d.energy.spline_weight, z)
    np.testing.assert_allclose(apart, d.log_prob(z), rtol=1e-5, atol=1e-4)


def test_expand_to_event_mask():
    d = tilted("RBF", "Normal", SIZES)
    z = jax.random.normal(jax.random.key(0), (5, 3))
    single = d.log_prob(z)
    event = d.to_event(1)
    assert event.event_shape == (3,)
    np.testing.assert_allclose(event.log_prob(z), jnp.sum(single, -1), rtol=1e-6)
    assert event.sample(jax.random.key(1), (7,)).shape == (7, 3)
    wide = d.expand((5, 3))
    assert wide.batch_shape == (5, 3)
    assert wide.sample(jax.random.key(1)).shape == (5, 3)
    np.testing.assert_allclose(wide.log_prob(z), single, rtol=1e-6)
    masked = d.mask(jnp.array([True, False, True]))
    np.testing.assert_allclose(masked.log_prob(z), single * jnp.array([1.0, 0.0, 1.0]), rtol=1e-6)
    assert d.has_rsample
    assert d.support is d.reference.support


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bank_shape", "reference", "shape"),
    [
        pytest.param((), lambda: dist.Normal(jnp.linspace(-1, 1, 8), 1.0), (8,), marks=pytest.mark.exhaustive),
        pytest.param(
            (3, 2),
            lambda: dist.Normal(jnp.array([0.0, 0.5]), jnp.array([1.0, 2.0])),
            (3, 2),
            marks=pytest.mark.exhaustive,
        ),
        ((), lambda: dist.Normal(0.0, 1.0), ()),
        pytest.param(
            (3, 2),
            lambda: dist.Normal(0.0, jnp.array([[1.0], [0.5], [2.0]])),
            (3, 2),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            (2,),
            lambda: dist.Uniform(jnp.array([[-1.0], [-2.0], [-4.0]]), 2.0),
            (3, 2),
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_batch_shapes(bank_shape, reference, shape):
    # Oracle: each density of the batch made alone, without a batch.
    energy = BASES["RBF"](jax.random.key(0), bank_shape)
    d = kp.KANTilted(energy, reference())
    assert d.batch_shape == shape
    assert d.log_normalizer.shape == d.mean.shape == d.variance.shape == d.entropy().shape == shape
    assert d.sample(jax.random.key(0), (4,)).shape == (4, *shape)
    z = jnp.broadcast_to(jnp.array(0.3), (5, *shape))
    u = jnp.broadcast_to(jnp.array(0.7), (5, *shape))
    assert d.log_prob(z).shape == d.cdf(z).shape == d.icdf(u).shape == (5, *shape)
    if not shape:
        return
    last = tuple(n - 1 for n in shape)
    tiled = jax.tree.map(lambda x: jnp.broadcast_to(x, shape + x.shape[len(bank_shape) :]), (energy.coef,))[0][last]
    base = jnp.broadcast_to(energy.base_weight, shape)[last]
    one = dataclasses.replace(energy, coef=tiled, base_weight=base, spline_weight=jnp.ones(()))
    settings = {k: jnp.broadcast_to(getattr(d.reference, k), shape)[last] for k in d.reference.arg_constraints}
    alone = kp.KANTilted(one, type(d.reference)(**settings))
    for ours, expected in (
        (d.log_normalizer[last], alone.log_normalizer),
        (d.log_prob(z)[(0, *last)], alone.log_prob(0.3)),
        (d.cdf(z)[(0, *last)], alone.cdf(0.3)),
        (d.icdf(u)[(0, *last)], alone.icdf(0.7)),
        (d.mean[last], alone.mean),
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("basis", ["RBF", "BSpline3"])
def test_grids_of_each_function_after_a_refit(basis):
    # Oracle: quad on the refitted bank, through the NumPy formulas on each function's own grid.
    draws = jax.random.normal(jax.random.key(1), (500, 2)) * jnp.array([0.5, 1.0])
    energy = BASES[basis](jax.random.key(0), (2,)).refit(jnp.clip(draws, -3, 3))
    d = kp.KANTilted(energy, dist.Normal(0.0, 1.0))
    z = np.array([-3.5, -0.4, 1.1, 3.2])
    cdf = np.asarray(d.cdf(jnp.asarray(z)[:, None]), float)
    for i in range(2):
        oracle = members.oracle.Density.of(energy, i, REFERENCES["Normal"][1])
        assert abs(float(d.log_normalizer[i]) - oracle.log_z) < 1e-6
        np.testing.assert_allclose(cdf[:, i], oracle.tails(z)[0], rtol=0, atol=1e-6)
    u = jnp.asarray(U)[:, None]
    np.testing.assert_allclose(d.cdf(d.icdf(u)), u * jnp.ones(2), rtol=0, atol=1e-6)
