"""Thresholds of R-hat, effective sample size, Pareto k-hat and the rest, stated once with their sources."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaincc

# Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021: rank-normalised split R-hat, and effective draws of each chain.
LARGEST_R_HAT, SMALLEST_ESS_PER_CHAIN = 1.01, 100
# Where only a mean is reported, with an error that counts how far chains disagree: there R-hat over many data and
# temperatures at some hundred effective draws scatters by hundredths.
LARGEST_R_HAT_OF_MEAN, SMALLEST_ESS_OF_MEAN = 1.05, 100
# Vehtari, Simpson, Gelman, Yao and Gabry 2024: above it, neither an average of weights nor its error can be trusted.
LARGEST_PARETO_K = 0.7
# Betancourt 2016.
SMALLEST_BFMI = 0.3
# Of a standard deviation, relative: that of a hundred normal draws. Of the few values that carry a heavy tail's more may be
# missing.
LARGEST_DEVIATION_ERROR = 0.07
# Of the posterior, by prior draws beyond the reach of the chains.
LARGEST_MISSED_MASS = 0.05
# Acceptance of steps that start among the lowest or highest hundredth of a coordinate, over that of all steps.
SMALLEST_TAIL_ACCEPTANCE = 0.75
# Of neighbours of a ladder; below it replicas hardly pass.
SMALLEST_SWAP_RATE = 0.1
# Of populations or runs that estimate one evidence: how improbable a disagreement is found only where something is wrong.
SMALLEST_DISAGREEMENT_P = 1e-4
# A population whose log-evidence is uncertain by half a nat descends from about four draws of the prior, and so does a mean
# of weights.
LARGEST_POPULATION_STD_ERROR = 0.5
# Of an evidence by bridge sampling, whose standard error is a first-order one: it holds where it is small.
LARGEST_BRIDGE_STD_ERROR = 0.2
# Of the tests of a simulation-based calibration, all of them together.
SMALLEST_CALIBRATION_P = 0.01
# Correlation of particles with themselves before the moves of a stage; above it they have hardly been moved.
LARGEST_MOVE_CORRELATION = 0.9
# A bias of a quarter of a standard error lowers the coverage of a 95 % interval to 94 %.
LARGEST_BIAS_IN_STD_ERRORS = 0.25
# Of the variance of an unadjusted sampler's draws, relative.
LARGEST_VARIANCE_BIAS = 0.05


def disagreement_p(values: np.ndarray, std_errors: np.ndarray) -> np.ndarray:
    """How probable it is that independent estimates of one number differ so much by chance (a chi-squared test).

    Args:
        values: of C estimates, shape (C, ...).
        std_errors: their own standard errors, shape (C, ...).

    Returns:
        Shape (...); 1 for a single estimate.
    """
    number = len(values)
    if number < 2:
        return np.ones(values.shape[1:])
    # A thousandth of a nat is below what single precision resolves.
    precision = 1 / (np.square(std_errors) + 1e-6)
    mean = (precision * values).sum(0) / precision.sum(0)
    chi_squared = (precision * np.square(values - mean)).sum(0)
    with np.errstate(invalid="ignore"):
        p = np.asarray(gammaincc((number - 1) / 2, jnp.asarray(chi_squared / 2, float)), float)
    return np.where(np.isfinite(p), p, 0.0)
