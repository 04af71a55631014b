"""Hamiltonian samplers of fixed and of self-chosen trajectory length, on BlackJAX's kernels."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from blackjax.mcmc import hmc, nuts

from .kernel import ChainState, Kernel, Target, check_acceptance, check_step_size, log_density_at


@dataclass(frozen=True)
class HMC(Kernel):
    """Hamiltonian Monte Carlo with a fixed number of leapfrog steps.

    Every trajectory draws its own step size, uniform between half the nominal one and all of it: trajectories of one
    length come back to where they started in directions whose period they match (Neal 2011, sec. 5.4.2.2).

    Attributes:
        step_size: the largest step of the leapfrog integrator, in unconstrained space and with unit masses; None adapts
            it and a diagonal mass matrix to each chain and datum in warm-up.
        num_integration_steps: leapfrog steps of a trajectory.
        target_acceptance: what the adaptation brings about.

    Raises:
        ValueError: a setting is out of its range.
    """

    adapts_metric: ClassVar[bool] = True
    step_size: float | None = None
    num_integration_steps: int = 10
    target_acceptance: float = 0.8

    def __post_init__(self):
        check_step_size(self.step_size)
        check_acceptance(self.target_acceptance)
        if self.num_integration_steps < 1:
            raise ValueError(f"`num_integration_steps` must be at least 1, got {self.num_integration_steps}.")

    @property
    def adapts(self):
        return self.step_size is None

    def step(self, key, state, target, temperature, tuning):
        """See `Kernel.step`."""
        step_key, key = jax.random.split(key)
        new, info = hmc.build_kernel()(
            key,
            _hamiltonian_state(state, temperature),
            log_density_at(target, temperature),
            tuning.step_size * jax.random.uniform(step_key, minval=0.5, maxval=1.0),
            tuning.inverse_mass_matrix,
            self.num_integration_steps,
        )
        return _evaluate_again(self, target, new, state), {
            "acceptance_rate": info.acceptance_rate,
            "diverging": info.is_divergent,
            "energy": info.energy,
        }


@dataclass(frozen=True)
class NUTS(Kernel):
    """The no-U-turn sampler (Hoffman and Gelman 2014), step size and diagonal mass matrix adapted in Stan's windows.

    Attributes:
        target_acceptance: what the adaptation brings about; raise it where trajectories diverge.
        max_tree_depth: a trajectory has at most 2^max_tree_depth leapfrog steps.

    Raises:
        ValueError: a setting is out of its range.
    """

    adapts_metric: ClassVar[bool] = True
    target_acceptance: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self):
        check_acceptance(self.target_acceptance)
        if self.max_tree_depth < 1:
            raise ValueError(f"`max_tree_depth` must be at least 1, got {self.max_tree_depth}.")

    def step(self, key, state, target, temperature, tuning):
        """See `Kernel.step`."""
        new, info = nuts.build_kernel()(
            key,
            _hamiltonian_state(state, temperature),
            log_density_at(target, temperature),
            tuning.step_size,
            tuning.inverse_mass_matrix,
            self.max_tree_depth,
        )
        return _evaluate_again(self, target, new, state), {
            "acceptance_rate": info.acceptance_rate,
            "diverging": info.is_divergent,
            "energy": info.energy,
            "n_steps": info.num_integration_steps,
            "tree_depth": info.num_trajectory_expansions,
        }


def _hamiltonian_state(state: ChainState, temperature) -> hmc.HMCState:
    return hmc.HMCState(state.position, state.log_density(temperature), state.gradient(temperature))


def _evaluate_again(kernel: Kernel, target: Target, new: hmc.HMCState, old: ChainState) -> ChainState:
    """Prior and likelihood apart where the trajectory ended: one evaluation more than the trajectory's own."""
    state = kernel.evaluate(target, new.position)
    # A gradient may be undefined at a place that was reached with a finite density.
    is_finite = state.is_finite()
    return jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), state, old)
