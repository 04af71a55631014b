"""Warm-up: Stan's schedule of windows over BlackJAX's dual averaging and mass-matrix estimator, one step at a time.

`blackjax.window_adaptation` runs the same parts in a loop of its own, which leaves no room for exchanges between
replicas, for a batch of problems in one compiled step, or for a progress bar.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mass_matrix import MassMatrixAdaptationState, mass_matrix_adaptation
from blackjax.adaptation.step_size import DualAveragingAdaptationState, dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule

from ..model.power_posterior import Position
from .kernel import Kernel, Tuning

# Stages of a run: adapt the step size; that and the metric; draw; do nothing, to fill up a compiled chunk.
FAST, SLOW, DRAW, IDLE = range(4)


class Adaptation(NamedTuple):
    """What the warm-up of one chain of one problem remembers.

    Attributes:
        tuning: in force now.
        step_size: state of dual averaging; () for a kernel without a step size to adapt.
        metric: state of the running variances; () for a kernel without a metric to adapt.
    """

    tuning: Tuning
    step_size: DualAveragingAdaptationState | tuple[()]
    metric: MassMatrixAdaptationState | tuple[()]


def begin_adaptation(kernel: Kernel, position: Position) -> Adaptation:
    """Start from the kernel's own tuning."""
    tuning = kernel.default_tuning(position)
    dtype = tuning.step_size.dtype
    step_size = metric = ()
    if kernel.adapts:
        step_size = _strong(_dual_averaging(kernel)[0](tuning.step_size), dtype)
    if kernel.adapts and kernel.adapts_metric:
        metric = _strong(mass_matrix_adaptation()[0](tuning.inverse_mass_matrix.size), dtype)
    return Adaptation(tuning, step_size, metric)


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
    # A step that met NaN says that it was too long.
    acceptance_rate = jnp.nan_to_num(acceptance_rate, nan=0.0)
    start, update, final = _dual_averaging(kernel)
    learn_metric = adaptation.metric != ()

    def fast(adaptation):
        state = update(adaptation.step_size, acceptance_rate)
        tuning = adaptation.tuning._replace(step_size=jnp.exp(state.log_step_size))
        return adaptation._replace(tuning=tuning, step_size=state)

    def slow(adaptation):
        adaptation = fast(adaptation)
        if not learn_metric:
            return adaptation
        return adaptation._replace(metric=mass_matrix_adaptation()[1](adaptation.metric, position))

    def renew(adaptation):
        state = start(final(adaptation.step_size))
        inverse_mass_matrix, metric = adaptation.tuning.inverse_mass_matrix, adaptation.metric
        if learn_metric:
            metric = mass_matrix_adaptation()[2](metric)
            inverse_mass_matrix = metric.inverse_mass_matrix
        return Adaptation(Tuning(jnp.exp(state.log_step_size), inverse_mass_matrix), state, metric)

    def keep_types(branch):
        return lambda adaptation: _strong(branch(adaptation), adaptation.tuning.step_size.dtype)

    def learn(adaptation):
        adaptation = jax.lax.cond(stage == SLOW, keep_types(slow), keep_types(fast), adaptation)
        # Windows are for the metric: without one, the step size is averaged over the whole warm-up.
        return jax.lax.cond(window_ends, keep_types(renew), lambda x: x, adaptation) if learn_metric else adaptation

    return jax.lax.cond(stage <= SLOW, learn, lambda x: x, adaptation)


def end_adaptation(kernel: Kernel, adaptation: Adaptation) -> Adaptation:
    """Fix the tuning: the step size becomes its average over the last window."""
    if not kernel.adapts:
        return adaptation
    step_size = jnp.exp(adaptation.step_size.log_step_size_avg)
    return adaptation._replace(tuning=adaptation.tuning._replace(step_size=step_size))


def warmup_schedule(num_warmup: int) -> tuple[np.ndarray, np.ndarray]:
    """Stage of each step of a warm-up, and whether a window ends with it, shape (num_warmup,) each."""
    if num_warmup == 0:
        return np.zeros(0, np.int32), np.zeros(0, bool)
    stages, ends = np.asarray(build_schedule(num_warmup)).T
    return stages.astype(np.int32), ends.astype(bool)


def _dual_averaging(kernel):
    return dual_averaging_adaptation(kernel.target_acceptance)


def _strong(tree, dtype):
    """Give every number one type, so that branches and carries keep their types, in single and in double precision."""

    def convert(leaf):
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.int32)

    return jax.tree.map(convert, tree)
