"""Warm-up: Stan's schedule of windows over BlackJAX's dual averaging and running moments, one step at a time.

`blackjax.window_adaptation` runs the same parts in a loop of its own, which leaves no room for exchanges between
replicas, for a batch of problems in one compiled step, or for a progress bar.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import WelfordAlgorithmState, welford_algorithm
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule
from jax.flatten_util import ravel_pytree

from ..model.power_posterior import Position
from .kernel import Kernel, Tuning

# Where steps are so short that trajectories are cut, this acceptance does: none reaches a higher one where rounding makes
# the density rough, as in a Gaussian process in single precision.
_LOWEST_TARGET = 0.4
# Stages of a run: adapt the step size; that and the metric; draw; do nothing, to fill up a compiled chunk.
FAST, SLOW, DRAW, IDLE = range(4)


class LongestDirection(NamedTuple):
    """Running estimate of the direction of largest variance of standardised draws (Oja 1982).

    Attributes:
        direction: unit vector, shape (d,).
        variance: of the draws along it, scalar.
    """

    direction: jax.Array
    variance: jax.Array


class Adaptation(NamedTuple):
    """State of the warm-up of one chain of one problem.

    Attributes:
        tuning: in force now.
        step_size: BlackJAX's state of dual averaging; () for a kernel without a step size to adapt.
        moments: BlackJAX's running mean and covariance of a window; () for a kernel without a metric to adapt.
        longest: a `LongestDirection`; () for a kernel that does not read `Tuning.longest`, and where the metric is dense.
        target: the acceptance rate aimed at, scalar.
    """

    tuning: Tuning
    step_size: Any
    moments: Any
    longest: Any
    target: jax.Array


def begin_adaptation(kernel: Kernel, position: Position) -> Adaptation:
    """Start from the kernel's own tuning."""
    tuning = kernel.default_tuning(position)
    dtype = tuning.step_size.dtype
    step_size: Any = ()
    moments: Any = ()
    longest: Any = ()
    if kernel.adapts:
        step_size = _unify_types(_dual_averaging(kernel)[0](tuning.step_size), dtype)
    if kernel.adapts and kernel.adapts_metric:
        moments = _unify_types(_begin_moments(tuning.scale), dtype)
        if kernel.reads_longest and tuning.scale.ndim == 1:
            size = tuning.scale.size
            longest = LongestDirection(jnp.full(size, size**-0.5, dtype), jnp.ones((), dtype))
    return Adaptation(tuning, step_size, moments, longest, jnp.asarray(_target(kernel), dtype))


def adapt(
    kernel: Kernel,
    adaptation: Adaptation,
    position: Position,
    acceptance_rate: jax.Array,
    stage: jax.Array,
    window_ends: jax.Array,
) -> Adaptation:
    """Learn from one step of a warm-up; outside it, nothing.

    Args:
        kernel: the kernel that moved.
        adaptation: before.
        position: where it moved to.
        acceptance_rate: of the step.
        stage: one of `FAST`, `SLOW`, `DRAW`.
        window_ends: whether the metric is renewed after this step.
    """
    if not kernel.adapts:
        return adaptation
    # Treat a NaN acceptance rate as 0, so that the step size shrinks.
    acceptance_rate = jnp.nan_to_num(acceptance_rate, nan=0.0)
    _, update, final = _dual_averaging(kernel)
    learns_metric = adaptation.moments != ()
    flat, _ = ravel_pytree(position)

    def fast(adaptation: Adaptation) -> Adaptation:
        is_short = adaptation.tuning.step_size < kernel.shortest_useful_step(adaptation.tuning)
        # Dual averaging reads how far the acceptance is from the kernel's own target.
        target = jnp.where(is_short, jnp.minimum(adaptation.target, _LOWEST_TARGET), adaptation.target)
        surplus = _power(adaptation.tuning) * (acceptance_rate - target)
        state = update(adaptation.step_size, _target(kernel) + surplus)
        tuning = adaptation.tuning._replace(step_size=jnp.exp(state.log_step_size))
        return adaptation._replace(tuning=tuning, step_size=state)

    def slow(adaptation: Adaptation) -> Adaptation:
        adaptation = fast(adaptation)
        if not learns_metric:
            return adaptation
        moments = welford_algorithm(adaptation.tuning.scale.ndim == 1)[1](adaptation.moments, flat)
        adaptation = adaptation._replace(moments=moments)
        if adaptation.longest == ():
            return adaptation
        return adaptation._replace(longest=_follow_longest(adaptation.longest, moments, flat))

    def renew(adaptation: Adaptation) -> Adaptation:
        tuning = adaptation.tuning
        state = _restart(kernel, tuning, final(adaptation.step_size))
        tuning = tuning._replace(step_size=jnp.exp(state.log_step_size))
        if not learns_metric:
            return adaptation._replace(tuning=tuning, step_size=state)
        scale = _estimate_scale(tuning.scale, adaptation.moments)
        if adaptation.longest != ():
            longest = jnp.clip(adaptation.longest.variance, 1.0, scale.size)
            tuning = tuning._replace(longest=jnp.where(tuning.longest > 0, longest, 0.0))
        return adaptation._replace(tuning=tuning._replace(scale=scale), step_size=state, moments=_begin_moments(scale))

    def keep_types(branch: Callable[[Adaptation], Adaptation]) -> Callable[[Adaptation], Adaptation]:
        return lambda adaptation: _unify_types(branch(adaptation), adaptation.tuning.step_size.dtype)

    def learn(adaptation: Adaptation) -> Adaptation:
        adaptation = jax.lax.cond(stage == SLOW, keep_types(slow), keep_types(fast), adaptation)
        # Windows are for the metric: without one, the step size is averaged over the whole warm-up.
        return jax.lax.cond(window_ends, keep_types(renew), lambda x: x, adaptation) if learns_metric else adaptation

    return jax.lax.cond(stage <= SLOW, learn, lambda x: x, adaptation)


def shorten(adaptation: Adaptation, kernel: Kernel) -> Adaptation:
    """What is adapted of `HMC` once its trajectories are single steps, those of a Langevin kernel.

    The metric and its window stay. A second call changes nothing.
    """
    target = jnp.full_like(adaptation.target, _target(kernel))
    tuning = adaptation.tuning._replace(longest=jnp.zeros_like(adaptation.tuning.longest))
    state = _unify_types(_restart(kernel, tuning, tuning.step_size), target.dtype)
    state = state._replace(log_step_size_avg=adaptation.step_size.log_step_size)
    later = adaptation._replace(tuning=tuning, step_size=state, target=target)
    is_first = adaptation.tuning.longest > 0
    return jax.tree.map(lambda later, now: jnp.where(is_first, later, now), later, adaptation)


def end_adaptation(kernel: Kernel, adaptation: Adaptation) -> Adaptation:
    """Fix the tuning: the step size becomes its average over the last window."""
    if not kernel.adapts or adaptation.step_size == ():
        return adaptation
    step_size = jnp.exp(adaptation.step_size.log_step_size_avg)
    return adaptation._replace(tuning=adaptation.tuning._replace(step_size=step_size))


def factor_covariance(covariance: jax.Array, num_draws: jax.Array | int) -> jax.Array:
    """Lower Cholesky factor of a covariance estimated from draws, shape (d, d); finite also for few or equal draws.

    The correlation matrix is factored, so that single precision does for coordinates of any units.
    """
    variance = jnp.diagonal(covariance)
    deviation = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 1e-3)
    size, few = len(covariance), 5.0 / (num_draws + 5.0)
    ridge = 1e-3 * few + 4 * size * jnp.finfo(covariance.dtype).eps
    correlation = covariance / deviation / deviation[:, None] + ridge * jnp.eye(size, dtype=covariance.dtype)
    factor = jnp.linalg.cholesky(correlation)
    factor = jnp.where(jnp.isfinite(factor).all(), factor, jnp.eye(size, dtype=covariance.dtype))
    return deviation[:, None] * factor


def _begin_moments(scale: jax.Array) -> WelfordAlgorithmState:
    return welford_algorithm(scale.ndim == 1)[0](len(scale))


def _estimate_scale(old: jax.Array, moments: WelfordAlgorithmState) -> jax.Array:
    """Standard deviations or Cholesky factor of a window's draws; shrunk as Stan does."""
    covariance, count, _ = welford_algorithm(old.ndim == 1)[2](moments)
    if old.ndim == 2:
        return factor_covariance(covariance, count)
    share = count / (count + 5.0)
    return jnp.sqrt(share * covariance + (1 - share) * 1e-3)


def _follow_longest(longest: LongestDirection, moments: WelfordAlgorithmState, flat: jax.Array) -> LongestDirection:
    """Turn the direction towards one more draw, its variance averaged with growing weight on late draws."""
    count = jnp.asarray(moments.sample_size, flat.dtype)
    deviation = jnp.sqrt(moments.m2 / jnp.maximum(count - 1, 1))
    standardised = jnp.where(deviation > 0, (flat - moments.mean) / jnp.where(deviation > 0, deviation, 1), 0.0)
    along = jnp.dot(longest.direction, standardised)
    direction = longest.direction + 4 / (count + 8) * (along * standardised) / (1 + jnp.square(along))
    rate = 2 / (count + 2)
    variance = longest.variance + rate * (jnp.square(along) - longest.variance)
    return LongestDirection(direction / jnp.linalg.norm(direction), variance)


def _warmup_schedule(num_warmup: int) -> tuple[np.ndarray, np.ndarray]:
    """Stage of each step of a warm-up, and whether a window ends with it, shape (num_warmup,) each."""
    if num_warmup == 0:
        return np.zeros(0, np.int32), np.zeros(0, bool)
    stages, ends = np.asarray(build_schedule(num_warmup)).T
    return stages.astype(np.int32), ends.astype(bool)


def warmup_steps(num_warmup: int, length: int) -> np.ndarray:
    """Of each step of a warm-up its number, stage, and whether a window ends; what fills the last chunk is idle."""
    stages, ends = _warmup_schedule(num_warmup)
    steps = np.stack([np.arange(num_warmup, dtype=np.int32), stages, ends.astype(np.int32)], axis=-1)
    return np.concatenate([steps, _idle(-num_warmup % length)])


def drawing_steps(first: int, num_steps: int, length: int) -> np.ndarray:
    """The same for steps after it, numbered from `first`, so that keys are the same for any cut into chunks."""
    steps = np.zeros((num_steps, 3), np.int32)
    steps[:, 0], steps[:, 1] = first + np.arange(num_steps), DRAW
    return np.concatenate([steps, _idle(length - num_steps)])


def _idle(number: int) -> np.ndarray:
    return np.broadcast_to(np.array([0, IDLE, 0], np.int32), (number, 3))


def _dual_averaging(kernel: Kernel) -> tuple[Callable, Callable, Callable]:
    return dual_averaging_adaptation(_target(kernel))


def _restart(kernel: Kernel, tuning: Tuning, step_size: jax.Array) -> Any:
    """BlackJAX's state of dual averaging, drawn towards ten times the step that is adapted."""
    state = _dual_averaging(kernel)[0](step_size)
    return state._replace(mu=jnp.log(step_size) + _power(tuning) * np.log(10))


def _power(tuning: Tuning) -> jax.Array:
    """By which power the leapfrog step h goes with the step that is adapted: 1/2 where that is a Langevin step."""
    return jnp.where(tuning.longest > 0, 1.0, 0.5)


def _target(kernel: Kernel) -> float:
    return 0.8 if kernel.target_acceptance is None else kernel.target_acceptance


def _unify_types(tree: Any, dtype: Any) -> Any:
    """Give every number one type, so that branches and carries keep their types, in single and in double precision."""

    def convert(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.int32)

    return jax.tree.map(convert, tree)
