"""Damped Newton steps for penalised likelihoods, all densities side by side, along a grid of penalties."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ...quadrature import contract
from .censoring import covariance_within, within
from .problem import Problem

# Of half the squared norm of the coefficients: it settles what the likelihood leaves open, such as a constant.
RIDGE = 1e-9
_MOST_STEPS = 100
_MOST_HALVINGS = 30


class Optimum(NamedTuple):
    """Where Newton steps ended, for Q densities.

    Attributes:
        coef: shape (Q, F).
        mean: of the features under the density, shape (Q, F).
        covariance: inverse Hessian of the penalised negative log-likelihood of one observation, shape (Q, F, F).
        log_likelihood: mean over the observations, relative to the reference's, shape (Q,).
        optimism: by which it exceeds the leave-one-out likelihood, to first order, shape (Q,).
        freedom: effective number of parameters, trace of the covariance times the unpenalised Hessian, shape (Q,).
        decrement: twice what one more step would gain, shape (Q,).
    """

    coef: Array
    mean: Array
    covariance: Array
    log_likelihood: Array
    optimism: Array
    freedom: Array
    decrement: Array


class _Expansion(NamedTuple):
    """The objective to second order at coefficients: its value, gradient, Hessian, and what that is made of."""

    value: Array
    gradient: Array
    hessian: Array
    bound: Array
    mean: Array
    log_likelihood: Array


@jax.jit
def solve_path(problem: Problem, smoothing: Array) -> Optimum:
    """The optimum at each penalty, each started from the one before.

    Args:
        problem: of Q densities.
        smoothing: decreasing, shape (S, Q).

    Returns:
        The optima, with a first axis S.
    """

    def next_optimum(coef: Array, smoothing: Array) -> tuple[Array, Optimum]:
        found = _optimum(problem, coef, smoothing, 1e-9)
        # What is needed of all is little; covariances of all would fill memory.
        return found.coef, found._replace(covariance=jnp.zeros((), coef.dtype), mean=jnp.zeros((), coef.dtype))

    return lax.scan(next_optimum, jnp.zeros_like(problem.target), smoothing)[1]


@jax.jit
def solve_at(problem: Problem, coef: Array, smoothing: Array) -> Optimum:
    """The optimum at one penalty for each density, shape (Q,), to working precision, from a start (Q, F)."""
    return _optimum(problem, coef, smoothing, 1e-22)


def _optimum(problem: Problem, coef: Array, smoothing: Array, tolerance: float) -> Optimum:
    # Cast out of the loop: what stays the same in it is not computed again.
    class State(NamedTuple):
        coef: Array
        decrement: Array
        rounds: Array

    def step(state: State) -> State:
        at = _expand(problem, state.coef, smoothing)
        direction = -_solve(at.hessian, at.bound, at.gradient)
        decrement = -jnp.sum(direction * at.gradient, axis=-1)
        noise = 1e-13 * (1 + jnp.abs(at.value))

        def enough(t: Array) -> Array:
            new = _value(problem, state.coef + t[:, None] * direction, smoothing)
            return new <= at.value - 1e-4 * t * decrement + noise

        def halve(search: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            t, accepted, rounds = search
            t = jnp.where(accepted, t, 0.5 * t)
            return t, enough(t), rounds + 1

        t = jnp.ones_like(decrement)
        search = (t, enough(t), jnp.zeros((), int))
        t, accepted, _ = lax.while_loop(lambda s: jnp.any(~s[1]) & (s[2] < _MOST_HALVINGS), halve, search)
        moving = (state.decrement > tolerance) & accepted
        return State(
            jnp.where(moving[:, None], state.coef + t[:, None] * direction, state.coef),
            jnp.where(state.decrement > tolerance, jnp.where(accepted, decrement, 0.0), state.decrement),
            state.rounds + 1,
        )

    start = State(coef, jnp.full(coef.shape[:1], jnp.inf, coef.dtype), jnp.zeros((), int))
    last = lax.while_loop(lambda s: jnp.any(s.decrement > tolerance) & (s.rounds < _MOST_STEPS), step, start)
    at = _expand(problem, last.coef, smoothing)
    covariance = _solve(at.hessian, at.bound, jnp.broadcast_to(jnp.eye(coef.shape[1]), at.hessian.shape))
    information = at.hessian - smoothing[:, None, None] * problem.penalty - RIDGE * jnp.eye(coef.shape[1])
    scores = _second_moments(problem, problem.counts, at.mean)
    if problem.intervals is not None:
        centred = within(problem.intervals, last.coef).mean - at.mean[:, None]
        scores = scores + contract("qcf,qc,qcg->qfg", centred, problem.intervals.squares, centred)
    optimism = jnp.sum(covariance * scores, axis=(1, 2))
    if problem.intervals is not None:
        # Where the likelihood of intervals is not concave, or steps have not ended, there is no such estimate.
        is_maximum = jnp.all(jnp.isfinite(jnp.linalg.cholesky(at.hessian)), axis=(1, 2)) & (last.decrement <= tolerance)
        optimism = jnp.where(is_maximum, optimism, jnp.inf)
    return Optimum(
        last.coef,
        at.mean,
        covariance,
        at.log_likelihood,
        optimism,
        jnp.sum(covariance * information, axis=(1, 2)),
        last.decrement,
    )


def _energy(problem: Problem, coef: Array) -> Array:
    """Log-density up to a constant, plus the log-weight of each node, shape (Q, M)."""
    if problem.products is not None:
        return contract("qf,mf->qm", coef, problem.features[0]) + problem.log_mass
    return contract("qf,qmf->qm", coef, problem.features) + problem.log_mass


def _log_likelihood(problem: Problem, coef: Array, log_total: Array) -> Array:
    value = jnp.sum(coef * problem.target, axis=-1) - log_total
    if problem.intervals is not None:
        value = value + jnp.sum(problem.intervals.weights * within(problem.intervals, coef).log_mass, axis=-1)
    return value


def _value(problem: Problem, coef: Array, smoothing: Array) -> Array:
    log_likelihood = _log_likelihood(problem, coef, jax.nn.logsumexp(_energy(problem, coef), axis=-1))
    return -log_likelihood + _roughness(problem, coef, smoothing)


def _roughness(problem: Problem, coef: Array, smoothing: Array) -> Array:
    penalised = jnp.sum(coef * _times_penalty(problem, coef), axis=-1)
    return 0.5 * (smoothing * penalised + RIDGE * jnp.sum(jnp.square(coef), axis=-1))


def _times_penalty(problem: Problem, coef: Array) -> Array:
    if len(problem.penalty) == 1:
        return contract("qf,fg->qg", coef, problem.penalty[0])
    return contract("qf,qfg->qg", coef, problem.penalty)


def _expand(problem: Problem, coef: Array, smoothing: Array) -> _Expansion:
    values = _energy(problem, coef)
    peak = jnp.max(values, axis=-1, keepdims=True)
    mass = jnp.exp(values - peak)
    total = jnp.sum(mass, axis=-1, keepdims=True)
    probability = mass / total
    log_total = (peak + jnp.log(total))[:, 0]
    if problem.products is not None:
        mean = contract("qm,mf->qf", probability, problem.features[0])
    else:
        mean = contract("qm,qmf->qf", probability, problem.features)
    log_likelihood = _log_likelihood(problem, coef, log_total)
    observed = problem.target
    bound = _second_moments(problem, probability, mean)
    bound = bound + smoothing[:, None, None] * problem.penalty + RIDGE * jnp.eye(coef.shape[1])
    hessian = bound
    if problem.intervals is not None:
        found = within(problem.intervals, coef)
        observed = observed + contract("qc,qcf->qf", problem.intervals.weights, found.mean)
        hessian = bound - covariance_within(problem.intervals, found)
    gradient = mean - observed + smoothing[:, None] * _times_penalty(problem, coef) + RIDGE * coef
    value = -log_likelihood + _roughness(problem, coef, smoothing)
    return _Expansion(value, gradient, hessian, bound, mean, log_likelihood)


def _second_moments(problem: Problem, weights: Array, centre: Array) -> Array:
    """Sum over the nodes of weights (Q, M) times products of features less their means (Q, F), shape (Q, F, F)."""
    number = problem.features.shape[-1]
    if problem.products is None:
        centred = problem.features - centre[:, None]
        return contract("qmf,qm,qmg->qfg", centred, weights, centred)
    first, second = (np.asarray(x, int) for x in problem.pairs)
    entries = contract("qm,mp->qp", weights, problem.products)
    upper = jnp.zeros((len(weights), number, number), entries.dtype).at[:, first, second].set(entries)
    full = upper + jnp.swapaxes(jnp.triu(upper, 1), 1, 2)
    sums = contract("qm,mf->qf", weights, problem.features[0])
    total = jnp.sum(weights, axis=1)[:, None, None]
    cross = sums[:, :, None] * centre[:, None]
    return full - cross - jnp.swapaxes(cross, 1, 2) + total * centre[:, :, None] * centre[:, None]


def _solve(hessian: Array, bound: Array, right: Array) -> Array:
    """H^-1 times vectors (Q, F) or matrices; where H is not positive definite, by the bound that EM steps take."""
    factor = jnp.linalg.cholesky(hessian)
    good = jnp.all(jnp.isfinite(factor), axis=(1, 2), keepdims=True)
    if hessian is not bound:
        factor = jnp.where(good, factor, jnp.linalg.cholesky(bound))
    matrix = right if right.ndim == 3 else right[..., None]
    solved = jax.vmap(lambda c, b: jax.scipy.linalg.cho_solve((c, True), b))(factor, matrix)
    return solved if right.ndim == 3 else solved[..., 0]
