"""From observations to coefficients: the smoothing parameter as given, or where the leave-one-out likelihood is largest."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution

from ...arguments import describe
from ...basis import Basis
from .newton import Optimum, solve_at, solve_path
from .observations import Observations
from .problem import by_rows, make_problem

# Penalties that are tried: from nearly the reference times the exponential of a parabola to oscillations that a thousand
# observations would not show.
_CANDIDATES = 10.0 ** np.arange(-2.0, -10.6, -0.5)
# By what the first-order optimism is multiplied, so that the choice seldom follows noise (Kim and Gu 2004).
_CAUTION = 1.2
# Densities that are solved side by side.
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Solution:
    """What fitting Q densities found, in double precision.

    Attributes:
        coef: shape (Q, F).
        mean: of the features under the densities, shape (Q, F).
        covariance: of the coefficients about their posterior mode, shape (Q, F, F).
        smoothing: penalty of each, shape (Q,).
        scores: leave-one-out log-likelihood of one observation, at each candidate, shape (Q, S).
        candidates: the penalties that were compared, shape (S,).
        freedom: effective number of parameters, shape (Q,).
        log_likelihood: of one observation, shape (Q,).
    """

    coef: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    smoothing: np.ndarray
    scores: np.ndarray
    candidates: np.ndarray
    freedom: np.ndarray
    log_likelihood: np.ndarray


def solve(observations: Observations, basis: Basis, reference: Distribution, domain: Array, smoothing: Any) -> Solution:
    """Coefficients of largest penalised likelihood.

    Args:
        observations: of Q densities.
        basis: of the energies.
        reference: of a batch shape that broadcasts to theirs.
        domain: shape (2,) or their batch_shape + (2,).
        smoothing: "cross-validation", or positive numbers of a shape that broadcasts to the batch shape.

    Raises:
        ValueError: `smoothing` is something else, or Newton steps do not converge.
    """
    given = _read_smoothing(smoothing, observations.batch_shape)
    rows = len(observations.values)
    with jax.enable_x64(True):
        if rows <= _ROWS_AT_ONCE:
            return _solve(observations, basis, reference, domain, given)
        reference = reference.expand(observations.batch_shape) if reference.batch_shape else reference
        pieces = []
        for start in range(0, rows, _ROWS_AT_ONCE):
            # The last piece is filled up: one program does for all.
            index = np.minimum(np.arange(start, start + _ROWS_AT_ONCE), rows - 1)
            own = domain if domain.ndim == 1 else domain.reshape(-1, 2)[index]
            part = reference if not reference.batch_shape else _members(reference, index)
            piece = None if given is None else given[index]
            found = _solve(observations.members(index), basis, part, own, piece)
            pieces.append([x[: rows - start] if name != "candidates" else x for name, x in vars(found).items()])
    joined = [x[0] if i == 5 else np.concatenate(x) for i, x in enumerate(zip(*pieces, strict=True))]
    return Solution(*joined)


def _members(reference: Distribution, index: np.ndarray) -> Distribution:
    shape = reference.batch_shape
    flat = jax.tree.map(lambda x: jnp.broadcast_to(x, shape).reshape(-1)[index], reference)
    flat._batch_shape = index.shape
    return flat


def _solve(
    observations: Observations, basis: Basis, reference: Distribution, domain: Array, given: np.ndarray | None
) -> Solution:
    rows = len(observations.values)
    problem = make_problem(observations, basis, reference, domain)
    candidates = _CANDIDATES if given is None else np.zeros(0)
    start = jnp.zeros((rows, basis.num_features))
    # Of an exact observation its own density is part of the likelihood: that of the reference is common to all penalties.
    log_reference = by_rows(reference.log_prob, jnp.asarray(observations.finite), observations.batch_shape)
    weights = np.where(observations.is_exact, observations.weights, 0.0)
    common = np.sum(np.where(weights > 0, weights * np.asarray(log_reference), 0.0), axis=1)
    if given is None:
        path = solve_path(problem, jnp.broadcast_to(candidates[:, None], (len(candidates), rows)))
        scores = np.asarray(path.log_likelihood - _CAUTION * path.optimism).T
        best = np.argmax(np.where(np.isfinite(scores), scores, -np.inf), axis=1)
        start, given = path.coef[best, np.arange(rows)], candidates[best]
    else:
        scores = np.zeros((rows, 0))
    optimum: Optimum = solve_at(problem, start, jnp.asarray(given))
    if not np.all(np.isfinite(optimum.coef)) or np.any(np.asarray(optimum.decrement) > 1e-8):
        raise ValueError(
            "`samples` led to no optimum: pass a larger `smoothing`, a basis with fewer functions, or a `domain` that "
            "holds the samples."
        )
    covariance = np.asarray(optimum.covariance) / observations.effective_number[:, None, None]
    return Solution(
        np.asarray(optimum.coef),
        np.asarray(optimum.mean),
        covariance,
        np.asarray(given),
        scores + common[:, None],
        candidates,
        np.asarray(optimum.freedom),
        np.asarray(optimum.log_likelihood) + common,
    )


def _read_smoothing(smoothing: Any, batch_shape: tuple[int, ...]) -> np.ndarray | None:
    if isinstance(smoothing, str) and smoothing == "cross-validation":
        return None
    try:
        numbers = np.broadcast_to(np.asarray(smoothing, np.float64), batch_shape).reshape(-1)
        is_fine = np.all(np.isfinite(numbers) & (numbers > 0))
    except (TypeError, ValueError):
        is_fine = False
    if not is_fine:
        raise ValueError(
            "`smoothing` must be 'cross-validation' or positive numbers that broadcast to the batch shape "
            f"{batch_shape}, got {describe(smoothing)}."
        )
    return numbers
