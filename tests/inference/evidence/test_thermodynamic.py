"""The estimators on exact draws of power posteriors, for which everything is known in closed form."""

import numpy as np
import pytest
from scipy.special import erfc

from kaem_ppl.inference import steppingstone, thermodynamic_curve, thermodynamic_integration
from kaem_ppl.inference.evidence.thermodynamic import linear_rule, std_error_of_mean
from kaem_ppl.inference.sampling.importance.psis import smooth

# z ~ Normal(0, 1), x ~ Normal(z, SCALE): at temperature t the posterior is normal with precision 1 + t / SCALE^2.
X, SCALE = np.array([0.3, 1.0, 2.5]), 0.5
EXACT = -0.5 * (np.log(2 * np.pi * (1 + SCALE**2)) + X**2 / (1 + SCALE**2))


def moments(temperatures):
    """Mean and variance of z at temperatures (R,), arrays (N, R) and (R,)."""
    precision = 1 + temperatures / SCALE**2
    return X[:, None] * temperatures / SCALE**2 / precision, 1 / precision


def draw(temperatures, *, num_samples=2000, seed=0):
    """Independent log-likelihoods (4, S, N, R)."""
    mean, variance = moments(temperatures)
    rng = np.random.default_rng(seed)
    z = mean + np.sqrt(variance) * rng.normal(size=(4, num_samples, *mean.shape))
    return -0.5 * np.log(2 * np.pi * SCALE**2) - 0.5 * ((X[:, None] - z) / SCALE) ** 2


def ladder(num_temperatures, power=3.0):
    temperatures = np.linspace(0, 1, num_temperatures) ** power
    return temperatures, np.tile(temperatures, (len(X), 1))


@pytest.mark.parametrize("estimator", [thermodynamic_integration, steppingstone])
def test_the_closed_form(estimator):
    # Three data within 4 standard errors: a false alarm in 2e-4 of seeds.
    temperatures, tiled = ladder(24)
    estimate = estimator(draw(temperatures), tiled)
    assert (np.abs(estimate.value - EXACT) < 4 * estimate.std_error).all()
    assert (estimate.std_error < 0.02).all()
    assert estimate.is_trustworthy.any()


def test_standard_errors_are_those_of_many_runs():
    # 100 runs measure their own spread to 7 %; the mean of the claims within 25 % of it.
    temperatures, tiled = ladder(10)
    runs = [draw(temperatures, num_samples=50, seed=seed) for seed in range(100)]
    for estimator in (thermodynamic_integration, steppingstone):
        values, errors, *_ = (np.stack(x) for x in zip(*(estimator(run, tiled) for run in runs), strict=True))
        np.testing.assert_allclose(errors.mean(0), values.std(0, ddof=1), rtol=0.25)
        assert (np.abs(values.mean(0) - EXACT) < 4 * values.std(0) / 10 + 0.002).all()


def test_standard_error_of_a_correlated_chain():
    # Oracle: the mean of an AR(1) chain with coefficient 0.9 has variance (1 + 0.9) / (1 - 0.9) / n of its stationary law.
    rng, n = np.random.default_rng(0), 5000
    noise = rng.normal(size=(4, n)) * np.sqrt(1 - 0.81)
    x = rng.normal(size=(4, n))
    for step in range(1, n):
        x[:, step] = 0.9 * x[:, step - 1] + noise[:, step]
    assert np.isclose(std_error_of_mean(x[..., None])[0], np.sqrt(19 / (4 * n)), rtol=0.15)
    assert std_error_of_mean(np.ones((2, 10, 1)))[0] == 0


def test_the_curve_brackets_its_integral():
    # Oracle: E_t[l] in closed form. The bracket is wide beside the noise of its points.
    temperatures, tiled = ladder(9, 2.0)
    curve = thermodynamic_curve(draw(temperatures), tiled)
    assert ((curve.lower < EXACT) & (curve.upper > EXACT)).all()
    mean, variance = moments(temperatures)
    exact = -0.5 * np.log(2 * np.pi * SCALE**2) - 0.5 * ((X[:, None] - mean) ** 2 + variance) / SCALE**2
    assert (np.abs(curve.mean - exact) < 5 * curve.std_error).all()


def test_the_variances_correct_a_coarse_ladder():
    # Nearly without noise: what is left is the discretisation.
    temperatures, tiled = ladder(6)
    l = draw(temperatures, num_samples=40_000)
    plain, corrected = np.trapezoid(l.mean((0, 1)), temperatures), thermodynamic_integration(l, tiled)
    assert (np.abs(corrected.value - EXACT) < 0.2 * np.abs(plain - EXACT)).all()
    # It knows that the ladder is too coarse for so many draws, and its error says how much.
    assert not corrected.is_trustworthy.all()
    assert (np.abs(corrected.value - EXACT) < 2 * corrected.std_error).all()


def test_a_step_too_long_is_not_trusted():
    rng = np.random.default_rng(0)
    # Weights exp(3 |normal|^2 / 2) have no mean at all.
    l = 1.5 * rng.normal(size=(4, 500, 1, 2)) ** 2
    assert not steppingstone(l, np.array([[0.0, 1.0]])).is_trustworthy[0]


def test_a_likelihood_of_zero_at_some_prior_draws():
    # L = 1 for half of the prior draws and 0 for the others: log Z = log 0.5, all of it between 0 and the next temperature.
    l = np.zeros((4, 500, 1, 3))
    l[:, ::2, :, 0] = -np.inf
    temperatures = np.array([[0.0, 0.5, 1.0]])
    for estimator in (thermodynamic_integration, steppingstone):
        assert np.isclose(estimator(l, temperatures).value[0], np.log(0.5))


def test_a_log_likelihood_without_a_mean_under_the_prior():
    # z is Cauchy and l = -z^2 / 2, so E_0[l] is minus infinity. Oracle: Z = E[exp(-z^2 / 2)] = e^(1/2) erfc(2^-1/2).
    # At temperature t the law of z is exp(-t z^2 / 2) / (1 + z^2), sampled by rejection from the prior.
    rng = np.random.default_rng(3)
    temperatures = np.linspace(0, 1, 16)
    l = np.empty((4, 2000, 1, len(temperatures)))
    for k, t in enumerate(temperatures):
        z = rng.standard_cauchy(400_000)
        z = z[rng.uniform(size=z.size) < np.exp(-0.5 * t * z**2)][:8000]
        l[..., 0, k] = (-0.5 * z**2).reshape(4, 2000)
    estimate = thermodynamic_integration(l, temperatures[None])
    assert estimate.is_trustworthy[0]
    assert estimate.std_error[0] < 0.02, estimate
    assert abs(estimate.value[0] - (0.5 + np.log(erfc(0.5**0.5)))) < 4 * estimate.std_error[0]


def test_a_rule_with_weight_zero_passes_over_infinities():
    l = np.zeros((2, 8, 1, 2)) + np.array([-np.inf, -3.0])
    assert linear_rule(l, np.array([0.0, 1.0])).value[0] == -3


def test_equal_weights_have_no_tail():
    # Law: a likelihood that is the same everywhere needs no smoothing, and its evidence is that likelihood.
    log_weights, k = smooth(np.full((2, 100), -3.0))
    np.testing.assert_allclose(log_weights, -np.log(100))
    assert np.isneginf(k).all()
