"""Langevin samplers: the Euler scheme as it is, and corrected by a Metropolis step."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from blackjax.mcmc.diffusions import DiffusionState, overdamped_langevin
from blackjax.mcmc.proposal import compute_asymmetric_acceptance_ratio, static_binomial_sampling

from .kernel import ChainState, Kernel, check_acceptance, check_step_size


@dataclass(frozen=True)
class ULA(Kernel):
    """The unadjusted Langevin algorithm, z + eta grad + sqrt(2 eta) noise.

    Nothing is rejected, so draws follow the posterior up to a bias of order eta: for a normal posterior of variance v the
    stationary variance is v / (1 - eta / (2 v)), and the mean is exact.

    Attributes:
        step_size: eta, in unconstrained space; less than twice the smallest posterior variance.

    Raises:
        ValueError: `step_size` is not positive.
    """

    step_size: float

    def __post_init__(self):
        check_step_size(self.step_size, required=True)

    def step(self, key, state, target, temperature, tuning):
        """See `Kernel.step`; a step that leaves the finite numbers is not taken, and counted as diverging."""
        new_state = _euler(self, key, state, target, temperature, tuning.step_size)
        is_finite = new_state.is_finite()
        new_state = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), new_state, state)
        return new_state, {"acceptance_rate": is_finite.astype(tuning.step_size.dtype), "diverging": ~is_finite}


@dataclass(frozen=True)
class MALA(Kernel):
    """The Metropolis-adjusted Langevin algorithm (Roberts and Tweedie 1996), with BlackJAX's solver and acceptance.

    Attributes:
        step_size: eta of the proposal z + eta grad + sqrt(2 eta) noise, in unconstrained space; None adapts it to each
            chain and datum in warm-up.
        target_acceptance: what the adaptation brings about; 0.574 is optimal in many dimensions (Roberts and Rosenthal
            1998).

    Raises:
        ValueError: `step_size` is not positive, or `target_acceptance` not between 0 and 1.
    """

    step_size: float | None = None
    target_acceptance: float = 0.574

    def __post_init__(self):
        check_step_size(self.step_size)
        check_acceptance(self.target_acceptance)

    @property
    def adapts(self):
        return self.step_size is None

    def step(self, key, state, target, temperature, tuning):
        """See `Kernel.step`."""
        euler_key, accept_key = jax.random.split(key)
        step_size = tuning.step_size
        proposal = _euler(self, euler_key, state, target, temperature, step_size)

        def transition_energy(state, new_state):
            # -log density at the new place, and minus log of the proposal's density of the way back.
            squares = jax.tree.map(
                lambda z, new_z, gradient: jnp.sum(jnp.square(z - new_z - step_size * gradient)),
                state.position,
                new_state.position,
                new_state.gradient(temperature),
            )
            return -new_state.log_density(temperature) + 0.25 / step_size * sum(jax.tree.leaves(squares))

        log_ratio = compute_asymmetric_acceptance_ratio(transition_energy)(state, proposal)
        state, (_, acceptance_rate, _) = static_binomial_sampling(accept_key, log_ratio, state, proposal)
        return state, {"acceptance_rate": acceptance_rate}


def _euler(kernel, key, state, target, temperature, step_size) -> ChainState:
    """One step of BlackJAX's solver; what it carries as the log-density is the whole state, so that nothing is lost."""

    def evaluate(position):
        new_state = kernel.evaluate(target, position)
        return new_state, new_state.gradient(temperature)

    start = DiffusionState(state.position, state, state.gradient(temperature))
    return overdamped_langevin(evaluate)(key, start, step_size).logdensity
