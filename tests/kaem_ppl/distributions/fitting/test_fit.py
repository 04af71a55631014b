"""Fitted densities: the optimum against SciPy's, standard errors, weights, intervals, supports, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import interpolate, optimize, stats

import kaem_ppl as kp
import kaem_ppl.reference

RNG = np.random.default_rng(0)
BASIS = kp.BSpline(3, num_grid=25)
SMOOTHING = 1e-5


class Oracle:
    """The penalised likelihood written out again by NumPy, for one density over a normal reference."""

    def __init__(self, samples, loc, scale, domain):
        a, b = domain
        grid = np.linspace(a, b, 25)
        step = grid[1] - grid[0]
        self.knots = np.concatenate([a - step * np.arange(3, 0, -1), grid, b + step * np.arange(1, 4)])
        self.domain, self.number = domain, len(samples)
        nodes, weights = np.polynomial.legendre.leggauss(12)
        edges = np.linspace(a, b, 97)
        half = 0.5 * np.diff(edges)[:, None]
        z = (edges[:-1, None] + half + half * nodes).reshape(-1)
        reference = stats.norm(loc, scale)
        self.features = self.evaluate(np.concatenate([z, domain]))
        self.mass = np.concatenate([
            (half * weights).reshape(-1) * reference.pdf(z), [reference.cdf(a), reference.sf(b)],
        ])  # fmt: skip
        self.target = self.evaluate(samples).mean(axis=0)
        curvature = 24**2 * np.diff(np.eye(27), 2, axis=0)
        curvature -= curvature.mean(axis=0)
        self.penalty = SMOOTHING * curvature.T @ curvature / 24 + 1e-9 * np.eye(27)

    def evaluate(self, z):
        z = np.clip(z, self.domain[0], self.domain[1] * (1 - 1e-15))
        return interpolate.BSpline(self.knots, np.eye(27), 3)(z)

    def probabilities(self, c):
        values = self.features @ c
        p = self.mass * np.exp(values - values.max())
        return values.max() + np.log(p.sum()), p / p.sum()

    def objective(self, c):
        log_total, p = self.probabilities(c)
        gradient = p @ self.features - self.target + self.penalty @ c
        return log_total - c @ self.target + 0.5 * c @ self.penalty @ c, gradient

    def hessian(self, c):
        _, p = self.probabilities(c)
        mean = p @ self.features
        return (self.features * p[:, None]).T @ self.features - np.outer(mean, mean) + self.penalty


def test_the_optimum_is_that_of_scipy_and_its_errors_follow_from_the_hessian(x64):
    samples = np.stack([RNG.gumbel(size=500), RNG.normal(3, 2, size=500)], axis=1)
    fitted = kp.KANTilted.fit(samples, basis=BASIS, smoothing=SMOOTHING)
    energy, reference = fitted.density.energy, fitted.density.reference
    z = np.linspace(-1, 3, 5)
    errors = np.asarray(fitted.log_density_error(z[:, None]))
    for i in range(2):
        np.testing.assert_allclose(reference.loc[i], samples[:, i].mean(), rtol=1e-12)
        np.testing.assert_allclose(reference.scale[i], samples[:, i].std(), rtol=1e-12)
        oracle = Oracle(samples[:, i], reference.loc[i], reference.scale[i], np.asarray(energy.domain[i]))
        found = optimize.minimize(
            oracle.objective, np.zeros(27), jac=True, hess=oracle.hessian, method="trust-exact", options={"gtol": 1e-12}
        )
        np.testing.assert_allclose(energy.coef[i], found.x, rtol=0, atol=1e-6)
        _, p = oracle.probabilities(found.x)
        centred = oracle.evaluate(z) - p @ oracle.features
        variance = np.sum(centred * np.linalg.solve(oracle.hessian(found.x), centred.T).T, axis=1) / 500
        np.testing.assert_allclose(errors[:, i], np.sqrt(variance), rtol=1e-5)


@pytest.fixture(scope="module")
def bank():
    samples = np.stack([RNG.gumbel(size=400), RNG.normal(size=400), RNG.standard_t(5, size=400)], axis=1)
    return samples.astype(np.float32), kp.KANTilted.fit(samples.astype(np.float32), basis=BASIS)


@pytest.mark.slow
def test_a_bank_reports_what_its_density_says(bank):
    samples, fitted = bank
    assert fitted.density.batch_shape == (3,)
    np.testing.assert_allclose(fitted.log_likelihood, fitted.density.log_prob(samples).mean(axis=0), atol=2e-5)
    low, high = fitted.band(samples[:5])
    density = jnp.exp(fitted.density.log_prob(samples[:5]))
    assert np.all((low < density) & (density < high))
    np.testing.assert_allclose(fitted.std_error(samples[:5]), (high - density) / 1.96, rtol=0.5)
    for i in range(3):
        known = stats.ks_1samp(np.asarray(fitted.density.cdf(samples))[:, i], stats.uniform.cdf)
        found = fitted.goodness_of_fit()
        np.testing.assert_allclose(found.distance[i], known.statistic, atol=1e-5)
        np.testing.assert_allclose(found.p_value[i], known.pvalue, atol=0.01)
    assert "batch_shape=(3,)" in repr(fitted)


@pytest.mark.slow
def test_each_density_is_drawn_with_its_band_over_its_samples(bank):
    pytest.importorskip("matplotlib")
    from kaem_ppl.plots import plot_fit

    _, fitted = bank
    figure = plot_fit(fitted)
    assert len(figure.axes) == 3
    z, curve = figure.axes[1].lines[0].get_data()
    expected = np.exp(fitted.density.log_prob(np.tile(z[:, None], 3)))[:, 1]
    np.testing.assert_allclose(curve, expected, rtol=1e-4)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["samples", "fitted", "95 % band"]


def test_the_smoothest_candidate_is_nearly_the_normal_density_of_the_moments(bank):
    samples, _ = bank
    fitted = kp.KANTilted.fit(samples, basis=BASIS, smoothing=1.0)
    np.testing.assert_allclose(fitted.effective_parameters, 2, atol=0.05)
    z = jnp.linspace(-1.5, 1.5, 7)
    normal = dist.Normal(samples[:, 1].mean(), samples[:, 1].std()).log_prob(z)
    np.testing.assert_allclose(fitted.density.log_prob(z[:, None])[:, 1], normal, atol=0.03)


def test_whole_weights_count_repeated_samples(x64):
    samples, weights = RNG.normal(size=50), RNG.integers(0, 4, size=50)
    by_weight = kp.KANTilted.fit(samples, weights, basis=BASIS, smoothing=SMOOTHING, domain=(-3, 3))
    repeated = kp.KANTilted.fit(np.repeat(samples, weights), basis=BASIS, smoothing=SMOOTHING, domain=(-3, 3))
    np.testing.assert_allclose(by_weight.density.energy.coef, repeated.density.energy.coef, atol=1e-8)
    expected = weights.sum() ** 2 / (weights**2).sum()
    assert by_weight.observations.effective_number[0] == pytest.approx(expected)


@pytest.mark.exhaustive
def test_intervals_are_fitted_by_their_masses(x64):
    # At the optimum the derivative of the likelihood, by the density's own distribution function, is the penalty's.
    exact = RNG.normal(size=300)
    low, high = np.floor(exact), np.floor(exact) + 1
    low[:100] = high[:100] = exact[:100]
    high[high >= 2] = np.inf
    fitted = kp.KANTilted.fit(low, upper=high, basis=BASIS, smoothing=SMOOTHING)
    density = fitted.density

    def log_likelihood(coef):
        energy = jax.tree.map(lambda x: x, density.energy)
        moved = kp.KANTilted(kp.UnivariateKAN(**{**vars(energy), "coef": coef}), density.reference, validate_args=False)
        inside = moved.cdf(jnp.where(jnp.isinf(high), 0.0, high)) * jnp.where(jnp.isinf(high), 0, 1)
        mass = jnp.where(jnp.isinf(high), 1.0, inside) - moved.cdf(low)
        known = jnp.asarray(low == high)
        return jnp.mean(jnp.where(known, moved.log_prob(low), jnp.log(jnp.where(known, 1.0, mass))))

    curvature = 24**2 * np.diff(np.eye(27), 2, axis=0)
    curvature -= curvature.mean(axis=0)
    penalty = SMOOTHING * curvature.T @ (curvature @ density.energy.coef) / 24 + 1e-9 * density.energy.coef
    np.testing.assert_allclose(jax.grad(log_likelihood)(density.energy.coef), penalty, atol=1e-6)
    np.testing.assert_allclose(fitted.log_likelihood, log_likelihood(density.energy.coef), atol=1e-8)
    np.testing.assert_allclose(density.cdf(np.array([-1.0, 0.0, 1.0])), stats.norm.cdf([-1, 0, 1]), atol=0.08)
    with pytest.raises(ValueError, match="exact observations only"):
        fitted.goodness_of_fit()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("support", "law"), [((0, 1), stats.beta(2, 3)), ((0, None), stats.expon()), ((None, 0), stats.norm(-2, 0.5))]
)
def test_supports(support, law):
    samples = law.rvs(size=2000, random_state=3).clip(*(support[0], support[1])).astype(np.float32)
    fitted = kp.KANTilted.fit(samples, support=support, basis=BASIS)
    q = law.ppf([0.1, 0.5, 0.9])
    np.testing.assert_allclose(fitted.density.cdf(q), [0.1, 0.5, 0.9], atol=0.04)
    low, high = (float(x) for x in kp.reference.support_bounds(fitted.density.reference))
    assert (low, high) == tuple(end if x is None else x for x, end in zip(support, (-np.inf, np.inf), strict=True))


GOOD = np.linspace(-1, 1, 20)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"samples": GOOD[:3]}, "samples"),
        ({"samples": 1.0}, "samples"),
        ({"samples": np.append(GOOD, np.nan)}, "samples"),
        ({"samples": np.ones(20)}, "samples"),
        ({"samples": "data"}, "samples"),
        ({"weights": np.ones(19)}, "weights"),
        ({"weights": -np.ones(20)}, "weights"),
        ({"weights": np.zeros(20)}, "weights"),
        ({"weights": np.eye(20)[0]}, "weights"),
        ({"upper": GOOD - 1}, "upper"),
        ({"upper": np.ones(3)}, "upper"),
        ({"support": (0, 1)}, "samples"),
        ({"support": (1, 0)}, "support"),
        ({"support": 3}, "support"),
        ({"support": (-2, 2), "reference": dist.Normal(0, 1)}, "support"),
        ({"reference": dist.Gamma(2.0, 1.0)}, "samples"),
        ({"reference": "normal"}, "reference"),
        ({"reference": dist.Normal(np.zeros(3), 1.0)}, "reference"),
        ({"reference": 3}, "reference"),
        ({"domain": (1, 0)}, "domain"),
        ({"domain": (-3, -2), "reference": dist.Uniform(-1, 1)}, "domain"),
        ({"smoothing": "auto"}, "smoothing"),
        ({"smoothing": 0.0}, "smoothing"),
        ({"smoothing": np.ones(4)}, "smoothing"),
        ({"basis": kp.RBF}, "basis"),
    ],
)
def test_wrong_arguments_are_refused(arguments, name, assert_refused):
    assert_refused(lambda: kp.KANTilted.fit(**{"samples": GOOD} | arguments), name)


def test_traced_samples_are_refused():
    with pytest.raises(ValueError, match="`samples` must be known numbers"):
        jax.jit(lambda x: kp.KANTilted.fit(x).density.energy.coef)(jnp.asarray(GOOD))
