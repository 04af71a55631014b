"""What evidence methods return and check about themselves: types, and the checks that several of them share."""

from typing import Any, NamedTuple

import jax
import numpy as np

from ..diagnostics.limits import SMALLEST_DISAGREEMENT_P, disagreement_p
from ..kernels.kernel import Kernel
from ..model.power_posterior import PowerPosterior
from ..sampling.draws import Draws
from ..sampling.run import Run
from ..sampling.sampler import Sampler
from .importance_evidence import weigh_prior_draws
from .thermodynamic import Curve, Estimate

# Fewer draws or particles than these give no standard error that is worth its name.
_FEWEST_DRAWS = 20


class Check(NamedTuple):
    """One check of a method.

    Attributes:
        name: of what is checked.
        failed: by which data, shape (N,).
        warning: what to say of those, and what to do.
    """

    name: str
    failed: np.ndarray
    warning: str


class MethodResult(NamedTuple):
    """What a method found for N data.

    Attributes:
        estimates: by name, the first one being the method's own.
        curve: None where it is not measured.
        summary: by name, arrays (N,).
        checks: of the first estimate.
        std_error_of_sum: of the sum over data by chance; None where it follows from the independent errors.
    """

    estimates: dict[str, Estimate]
    curve: Curve | None
    summary: dict[str, np.ndarray]
    checks: tuple[Check, ...]
    std_error_of_sum: float | None = None


def check_prior_draws(
    key: jax.Array, posterior: PowerPosterior, number: int, value: np.ndarray, std_error: np.ndarray
) -> Check:
    """A mode that chains have missed may be where draws of the prior are."""
    found = weigh_prior_draws(jax.random.fold_in(key, 2), posterior, number, Run())
    more = found.value - value
    # Weights with a heavy tail are too small on average, and where they are too large one of them dominates: then their
    # standard error is near 1.
    with np.errstate(invalid="ignore"):
        is_seen = more > 4 * np.hypot(found.std_error, std_error) + 1e-3
    # Whatever the law of the weights, their mean is 1e4 times too large once in 1e4 (Markov's inequality).
    return Check(
        "prior draws find no more",
        is_seen | (more > -np.log(SMALLEST_DISAGREEMENT_P)),
        "draws of the prior find more evidence than the posterior draws account for: these have missed a mode, or a part "
        "of one. Use `TemperedSMC` or `ParallelTempering`.",
    )


def check_sampler(sampler: Sampler | Kernel, posterior: PowerPosterior) -> Check:
    """Whether draws come from a sampler without a bias of its own."""
    return Check(
        "sampler without bias",
        np.full(posterior.num_data, not sampler.is_exact),
        f"the draws come from {type(sampler).__name__}, which no Metropolis step corrects: they have a bias of the order "
        "of its step that no standard error shows. Draw by `MALA()` or `NUTS()`.",
    )


def check_kernel(kernel: Kernel, posterior: PowerPosterior) -> Check:
    """Whether the kernel leaves the power posterior invariant without a bias."""
    return Check(
        "kernel without bias",
        np.full(posterior.num_data, not kernel.is_exact),
        f"the kernel is {type(kernel).__name__}, which no Metropolis step corrects: its draws have a bias of the order of "
        "its step that no standard error shows. Use `MALA` or `HMC`.",
    )


def check_agreement(values: np.ndarray, std_errors: np.ndarray, what: str, advice: str) -> Check:
    """Whether independent estimates, (C, N), agree within their errors."""
    return Check(
        f"agreement of {what}",
        ~(disagreement_p(values, std_errors) >= SMALLEST_DISAGREEMENT_P),
        f"{what} disagree by more than their standard errors. {advice}",
    )


def check_number(number: int, posterior: PowerPosterior) -> Check:
    """Whether there are draws enough for a standard error."""
    return Check(
        "number of draws",
        np.full(posterior.num_data, number < _FEWEST_DRAWS),
        f"{number} draws or particles are too few for a standard error. Take at least {_FEWEST_DRAWS}.",
    )


def r_hat_of_coordinates(draws: Draws) -> np.ndarray:
    """Largest over the coordinates of each datum, (N,)."""
    num_data = draws.posterior.num_data
    flat = [
        np.asarray(x, float).reshape(draws.num_chains, draws.num_samples, num_data, -1)
        for x in draws.positions.values()
    ]
    # `r_hat_of_mean` leaves out the first of what it takes for temperatures.
    return r_hat_of_mean(np.concatenate([np.zeros_like(flat[0][..., :1]), *flat], axis=-1))


def r_hat_of_mean(l: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat, largest over the temperatures above 0, (C, S, N, R) to (N,); where nothing moves, 1."""
    from arviz_stats.base.array import array_stats

    # ArviZ annotates a tuple of arrays where it returns one.
    stats: Any = array_stats
    values = np.where(np.isfinite(l), l, np.finfo(np.float32).min)[..., 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        r_hat = np.asarray(stats.rhat(values, chain_axis=0, draw_axis=1))
    return np.where(np.isfinite(r_hat), r_hat, 1.0).max(-1)
