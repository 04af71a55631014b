"""The log-evidence from log-likelihoods at the temperatures of a ladder: thermodynamic integration and steppingstone.

All functions take draws of C chains, S of each, for N data at R temperatures, an array (C, S, N, R), and temperatures
(N, R) from 0 to 1. They work on the host in double precision: evidence is a small difference of large sums.
"""

from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size

from kaem_ppl.arguments import as_array

from ..diagnostics.limits import LARGEST_BIAS_IN_STD_ERRORS, LARGEST_PARETO_K
from ..sampling.importance.psis import pareto_k
from .log_bias import LogBias, bias_of_log_mean


class Estimate(NamedTuple):
    """A log-evidence in nats.

    Attributes:
        value: shape (N,).
        std_error: its standard error, shape (N,).
        is_trustworthy: whether the estimator's own diagnostics believe it, shape (N,).
        bias: how far `value` lies from log p(x) on average, as the logarithm of a mean does; shape (N,), or 0. It is far
            below `std_error`, but adds up over data.
        common_error: what is not known of that, and of errors of discretisation; data have it in common, so it adds up
            over them too; shape (N,), or 0.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.inference import steppingstone
        >>> t = np.linspace(0, 1, 9)  # z ~ N(0, 1), y = 2 ~ N(z, 1): each power posterior is normal
        >>> z = 2 * t / (1 + t) + np.random.default_rng(0).normal(size=(4, 500, 1, 9)) / np.sqrt(1 + t)
        >>> log_likelihood = -0.5 * (2 - z) ** 2 - 0.5 * np.log(2 * np.pi)
        >>> estimate = steppingstone(log_likelihood, t[None])
        >>> estimate.value.round(1), estimate.is_trustworthy  # exactly: -2.27
        (array([-2.3]), array([ True]))
    """

    value: np.ndarray
    std_error: np.ndarray
    is_trustworthy: np.ndarray
    bias: np.ndarray = np.zeros(())
    common_error: np.ndarray = np.zeros(())


class Curve(NamedTuple):
    """Mean log-likelihood against temperature; its integral over [0, 1] is the log-evidence.

    Attributes:
        temperatures: shape (N, R).
        mean: E_t[log-likelihood] in nats, shape (N, R).
        std_error: of `mean`, autocorrelation accounted for, shape (N, R).
        lower: left Riemann sum, which lies below the integral because the curve increases; shape (N,).
        upper: right Riemann sum, which lies above it; shape (N,).

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.inference import thermodynamic_curve
        >>> t = np.linspace(0, 1, 9)  # z ~ N(0, 1), y = 2 ~ N(z, 1): each power posterior is normal
        >>> z = 2 * t / (1 + t) + np.random.default_rng(0).normal(size=(4, 500, 1, 9)) / np.sqrt(1 + t)
        >>> log_likelihood = -0.5 * (2 - z) ** 2 - 0.5 * np.log(2 * np.pi)
        >>> curve = thermodynamic_curve(log_likelihood, t[None])
        >>> curve.mean.shape, bool((np.diff(curve.mean) > 0).all())  # one row for each datum, and it increases
        ((1, 9), True)
    """

    temperatures: np.ndarray
    mean: np.ndarray
    std_error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def thermodynamic_curve(log_likelihood: np.ndarray, temperatures: np.ndarray) -> Curve:
    """Measure the curve, and bracket its integral: d/dt E_t[l] = Var_t[l] is not negative, so the curve increases.

    The bracket holds for the exact curve; the one that is measured adds the errors of its points.

    Args:
        log_likelihood: shape (C, S, N, R).
        temperatures: shape (N, R).

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.inference import thermodynamic_curve
        >>> t = np.linspace(0, 1, 9)  # z ~ N(0, 1), y = 2 ~ N(z, 1): each power posterior is normal
        >>> z = 2 * t / (1 + t) + np.random.default_rng(0).normal(size=(4, 500, 1, 9)) / np.sqrt(1 + t)
        >>> log_likelihood = -0.5 * (2 - z) ** 2 - 0.5 * np.log(2 * np.pi)
        >>> curve = thermodynamic_curve(log_likelihood, t[None])
        >>> bool(curve.lower[0] < -2.2655 < curve.upper[0])
        True
    """
    l, temperatures = _check_draws(log_likelihood, temperatures)
    with np.errstate(invalid="ignore"):
        mean, std_error = l.mean((0, 1)), std_error_of_mean(l)
    steps = np.diff(temperatures)
    return Curve(temperatures, mean, std_error, (steps * mean[:, :-1]).sum(-1), (steps * mean[:, 1:]).sum(-1))


def linear_rule(log_likelihood: np.ndarray, weights: np.ndarray) -> Estimate:
    """The integral by any rule that is a sum over the temperatures.

    Args:
        log_likelihood: shape (C, S, N, R).
        weights: of the rule, shape (N, R) or (R,).
    """
    l = np.asarray(log_likelihood, float)
    # Where a rule leaves a temperature out, an infinity there does no harm.
    terms = np.where(weights == 0, 0.0, l) * weights
    is_finite = np.isfinite(terms).all((0, 1, 3))
    total = np.where(is_finite, terms.sum(-1), np.nan)
    return Estimate(total.mean((0, 1)), std_error_of_mean(total), is_finite)


def thermodynamic_integration(log_likelihood: np.ndarray, temperatures: np.ndarray) -> Estimate:
    """The trapezoidal rule (Friel and Pettitt 2008, eq. 12), corrected by the variances (Friel, Hurn and Wyse 2014, eq. 4).

        log Z = sum_k h_k (E_k + E_{k+1}) / 2 - h_k^2 (V_{k+1} - V_k) / 12,    h_k = t_{k+1} - t_k

    The variances V are the slopes of the curve, so this is Hermite's cubic rule. What it leaves over is measured by the
    next rule, of fifth degree, which reads the curve's second derivative, the third central moment M of l, too:

        log Z = sum_k h_k (E_k + E_{k+1}) / 2 - h_k^2 (V_{k+1} - V_k) / 10 + h_k^3 (M_k + M_{k+1}) / 120

    The difference enters the standard error as a root of the sum of squares. The estimate is not to be trusted where it
    is more than a quarter of the error from the draws.

    Under the prior the log-likelihood may have no variance, nor even a mean, as where a prior has heavy tails or the
    likelihood is 0 at some of its draws. So the first interval, from temperature 0, is that of `steppingstone`.

    Args:
        log_likelihood: shape (C, S, N, R).
        temperatures: shape (N, R).

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.inference import thermodynamic_integration
        >>> t = np.linspace(0, 1, 9)  # z ~ N(0, 1), y = 2 ~ N(z, 1): each power posterior is normal
        >>> z = 2 * t / (1 + t) + np.random.default_rng(0).normal(size=(4, 500, 1, 9)) / np.sqrt(1 + t)
        >>> log_likelihood = -0.5 * (2 - z) ** 2 - 0.5 * np.log(2 * np.pi)
        >>> estimate = thermodynamic_integration(log_likelihood, t[None])
        >>> abs(estimate.value[0] + 2.2655) < 3 * estimate.std_error[0]
        np.True_
    """
    l, temperatures = _check_draws(log_likelihood, temperatures)
    h = np.diff(temperatures)
    first, share, is_short, of_first = _step(l[..., 0], h[:, 0])
    l, h = l[..., 1:], h[:, 1:]
    with np.errstate(invalid="ignore"):
        centred = l - l.mean((0, 1))
        # Draw by draw, so that the error accounts for what moments and temperatures have in common.
        squares = np.square(centred)
        straight = (h * 0.5 * (l[..., :-1] + l[..., 1:])).sum(-1)
        bent = (np.square(h) * np.diff(squares)).sum(-1)
        cubic = straight - bent / 12
        third = (squares * centred).mean((0, 1))
        value = cubic.mean((0, 1))
        quintic = (straight - bent / 10).mean((0, 1)) + (h**3 * (third[:, :-1] + third[:, 1:])).sum(-1) / 120
        is_finite = np.isfinite(value) & np.isfinite(quintic)
        from_draws, left_over = std_error_of_mean(cubic + share), quintic - value
        # A variance about the draws' own mean is too small by that mean's.
        bias = of_first.bias + (np.square(h) * np.diff(np.square(std_error_of_mean(l)))).sum(-1) / 12
        # All draws share the discretisation error: it must stay small beside what they average to.
        trust = is_finite & is_short & (np.abs(left_over) <= LARGEST_BIAS_IN_STD_ERRORS * from_draws)
    value = np.where(is_finite, first + value, np.nan)
    return Estimate(value, np.hypot(from_draws, left_over), trust, bias, of_first.common_error + left_over)


def steppingstone(log_likelihood: np.ndarray, temperatures: np.ndarray) -> Estimate:
    """A product of ratios between neighbours, each by importance sampling (Xie et al. 2011, eq. 12).

        log Z = sum_k log mean exp((t_{k+1} - t_k) l_k),    l_k drawn at t_k

    There is no discretisation. It is not to be trusted where the weights of a step have a Pareto k-hat above 0.7
    (Vehtari et al. 2024): then the step is too long for the draws.

    Args:
        log_likelihood: shape (C, S, N, R).
        temperatures: shape (N, R).

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.inference import steppingstone
        >>> t = np.linspace(0, 1, 9)  # z ~ N(0, 1), y = 2 ~ N(z, 1): each power posterior is normal
        >>> z = 2 * t / (1 + t) + np.random.default_rng(0).normal(size=(4, 500, 1, 9)) / np.sqrt(1 + t)
        >>> log_likelihood = -0.5 * (2 - z) ** 2 - 0.5 * np.log(2 * np.pi)
        >>> estimate = steppingstone(log_likelihood, t[None])
        >>> abs(estimate.value[0] + 2.2655) < 3 * estimate.std_error[0]
        np.True_
    """
    l, temperatures = _check_draws(log_likelihood, temperatures)
    value, shares, is_short, of_steps = _step(l[..., :-1], np.diff(temperatures))
    bias, common_error = of_steps.bias.sum(-1), of_steps.common_error.sum(-1)
    # Summed over the steps before the error is taken, for neighbouring temperatures share what they swap.
    return Estimate(value.sum(-1), std_error_of_mean(shares.sum(-1)), is_short.all(-1), bias, common_error)


def _check_draws(log_likelihood: np.ndarray, temperatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of floats.

    Raises:
        ValueError: their shapes do not fit, or the temperatures decrease.
    """
    l, t = (
        np.asarray(as_array(x, name), float)
        for name, x in (("log_likelihood", log_likelihood), ("temperatures", temperatures))
    )
    if l.ndim != 4:
        raise ValueError(f"`log_likelihood` must have the shape (C, S, N, R), got {l.shape}.")
    if t.shape != l.shape[2:]:
        raise ValueError(f"`temperatures` must have the shape (N, R), {l.shape[2:]} here, got {t.shape}.")
    if not (np.diff(t) >= 0).all():
        raise ValueError("`temperatures` must increase from 0 to 1, got some that decrease.")
    return l, t


def _step(l: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, LogBias]:
    """Steps log mean exp(length l), by importance sampling.

    Args:
        l: log-likelihoods at the lower temperatures, (C, S, N) or (C, S, N, K) for K steps.
        length: of the steps in temperature, (N,) or (N, K).

    Returns:
        The logarithms; by the delta method, d log mean = d mean / mean, the share of each draw in them; whether the
        steps are short enough for the draws; and the bias of each logarithm.
    """
    with np.errstate(invalid="ignore"):
        log_weights = length * l
        largest = log_weights.max((0, 1))
        weights = np.exp(log_weights - largest)
        mean = weights.mean((0, 1))
        shares = weights / mean
        # Batches are halves of chains: longer than what their draws remember.
        half = shares.shape[1] // 2
        halves = np.concatenate([shares[:, :half], shares[:, -half:]])
        log_shares = np.log(halves.mean(1) / len(halves)).reshape(len(halves), -1)
        std_error = std_error_of_mean(shares)
        found = bias_of_log_mean(log_shares, np.ones(len(halves)), std_error.ravel(), are_shared=False)
        of_steps = found._replace(
            bias=found.bias.reshape(mean.shape), common_error=found.common_error.reshape(mean.shape)
        )
        return np.log(mean) + largest, shares, pareto_k(log_weights) <= LARGEST_PARETO_K, of_steps


def std_error_of_mean(x: np.ndarray) -> np.ndarray:
    """Standard error of means over chains and draws by the effective sample size of NumPyro, (C, S, ...) to (...).

    Chains are halved, so that the effective size counts autocorrelation, drift, and disagreement between chains.
    """
    half = x.shape[1] // 2
    halves = np.concatenate([x[:, :half], x[:, -half:]]).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = x.std((0, 1), ddof=1)
        number, size = x.shape[0] * x.shape[1], effective_sample_size(halves)
        # Antithetic draws can be worth more than independent ones, but the estimate of how much is not stable.
        size = np.where(size > 0, np.minimum(size, number), number)
        # What does not vary has no error, and no effective size; what is not finite has neither.
        return np.where(spread > 0, spread / np.sqrt(size), np.where(spread == 0, 0.0, np.nan))
