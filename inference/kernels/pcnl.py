"""The preconditioned Crank-Nicolson Langevin sampler in whitened space."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from blackjax.mcmc import proposal as proposals
from jax.flatten_util import ravel_pytree

from kaem_ppl.arguments import set_number

from ..model.coordinates import Coordinates, Whitened
from .kernel import ChainState, Kernel, Target, Tuning, temper

# BlackJAX's annotations say float where arrays are meant.
_proposals: Any = proposals


@dataclass(frozen=True)
class PCNL(Kernel):
    """The preconditioned Crank-Nicolson Langevin algorithm (Cotter, Roberts, Stuart and White 2013, eq. 4.8).

    In whitened space, with g the gradient of the log-likelihood (times the temperature) and a = (2 - delta) / (2 + delta),

        e' = a e + (1 - a) g(e) + sqrt(1 - a^2) noise,

    accepted by a Metropolis step. Where the likelihood is flat every proposal is accepted, in any number of dimensions.

    Attributes:
        step_size: delta, in (0, 2]; at 2 the proposal forgets the state. None adapts it to each chain and datum in
            warm-up.
        target_acceptance: what the adaptation brings about.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import PCNL, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> sampler = PCNL()
        >>> options = {"num_samples": 500, "num_warmup": 200, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=sampler, **options)
        >>> round(float(draws.samples["z"].mean()), 1)  # exactly: 1
        1.0
    """

    coordinates: ClassVar[Coordinates] = Whitened()
    step_size: float | None = None
    target_acceptance: float = 0.574

    def __post_init__(self) -> None:
        # At 2 a proposal forgets the state.
        set_number(self, "step_size", above=0, most=2)
        set_number(self, "target_acceptance", above=0, below=1)

    @property
    def adapts(self) -> bool:
        """Whether there is no step size given."""
        return self.step_size is None

    def step(
        self, key: jax.Array, state: ChainState, target: Target, temperature: jax.Array, tuning: Tuning
    ) -> tuple[ChainState, dict[str, jax.Array]]:
        """See `Kernel.step`."""
        noise_key, accept_key = jax.random.split(key)
        delta = jnp.minimum(tuning.step_size, 2.0)
        a = (2 - delta) / (2 + delta)
        variance = 8 * delta / jnp.square(2 + delta)  # 1 - a^2 without its cancellation
        e, unravel = ravel_pytree(state.position)

        def drift(state: ChainState) -> jax.Array:
            # For a prior that is standard normal the gradient of the likelihood is all of it.
            gradient, _ = ravel_pytree(state.log_likelihood_grad)
            return (1 - a) * temper(gradient, temperature)

        new_e = a * e + drift(state) + jnp.sqrt(variance) * jax.random.normal(noise_key, e.shape, e.dtype)
        proposal = self.evaluate(target, unravel(new_e))

        def log_ratio(e: jax.Array, new_e: jax.Array, state: ChainState) -> jax.Array:
            # What the drift changes in the density of a move that leaves the prior invariant without it.
            shift = drift(state)
            return (jnp.dot(new_e - a * e, shift) - 0.5 * jnp.dot(shift, shift)) / variance

        old = temper(state.log_likelihood, temperature) + log_ratio(e, new_e, state)
        new = temper(proposal.log_likelihood, temperature) + log_ratio(new_e, e, proposal)
        log_accept = jnp.where(proposal.is_finite(), _proposals.safe_energy_diff(new, old), -jnp.inf)
        state, (_, acceptance_rate, _) = _proposals.static_binomial_sampling(accept_key, log_accept, state, proposal)
        return state, {"acceptance_rate": acceptance_rate}
