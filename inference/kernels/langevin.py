"""ULA, the unadjusted Langevin kernel, and MALA, its Metropolis-corrected version."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from blackjax.mcmc import diffusions

from kaem_ppl.arguments import set_number

from .hamiltonian import HMC, langevin_step
from .kernel import ChainState, Kernel, Target, Tuning

# BlackJAX's annotations say float where arrays are meant.
_diffusions: Any = diffusions


@dataclass(frozen=True)
class ULA(Kernel):
    """The unadjusted Langevin algorithm, z + eta grad + sqrt(2 eta) noise.

    Nothing is rejected, so draws follow the posterior up to a bias of order eta: for a normal posterior of variance v the
    stationary variance is v / (1 - eta / (2 v)), and the mean is exact.

    Attributes:
        step_size: eta, in unconstrained space; less than twice the smallest posterior variance.

    Raises:
        ValueError: `step_size` is not positive.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import sample_posterior, ULA
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> sampler = ULA(step_size=0.05)
        >>> options = {"num_samples": 500, "num_warmup": 200, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=sampler, **options)
        >>> round(float(draws.samples["z"].mean()), 1)  # exactly: 1
        1.0
    """

    is_exact: ClassVar[bool] = False
    step_size: float

    def __post_init__(self) -> None:
        set_number(self, "step_size", above=0)

    def step(
        self, key: jax.Array, state: ChainState, target: Target, temperature: jax.Array, tuning: Tuning
    ) -> tuple[ChainState, dict[str, jax.Array]]:
        """See `Kernel.step`; a step that leaves the finite numbers is not taken, and counted as diverging."""
        new_state = _euler(self, key, state, target, temperature, tuning.step_size)
        is_finite = new_state.is_finite()
        new_state = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), new_state, state)
        return new_state, {"acceptance_rate": is_finite.astype(tuning.step_size.dtype), "diverging": ~is_finite}


@dataclass(frozen=True)
class MALA(Kernel):
    """The Metropolis-adjusted Langevin algorithm (Roberts and Tweedie 1996), preconditioned by what warm-up learns.

    With C the covariance of the posterior and L its Cholesky factor, the proposal is z + eta C grad + sqrt(2 eta) L noise,
    which is one leapfrog step of `HMC`. Single steps come slowly from a far start, and C is learnt from draws that have
    arrived: in four fifths of the warm-up `HMC` moves the chains and learns it, by trajectories of at most 32 steps, and in
    the rest eta is adapted.

    Attributes:
        step_size: eta, in unconstrained space and with C the identity; None adapts it in warm-up to each chain and datum,
            and C with it: the covariance of up to 32 coordinates, the variances of more.
        target_acceptance: what the adaptation brings about; 0.574 is optimal in many dimensions (Roberts and Rosenthal
            1998).

    Raises:
        ValueError: `step_size` is not positive, or `target_acceptance` not between 0 and 1.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import MALA, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> sampler = MALA()
        >>> options = {"num_samples": 500, "num_warmup": 200, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=sampler, **options)
        >>> round(float(draws.samples["z"].mean()), 1)  # exactly: 1
        1.0
    """

    adapts_metric: ClassVar[bool] = True
    largest_dense: ClassVar[int] = 32
    step_size: float | None = None
    target_acceptance: float = 0.574

    def __post_init__(self) -> None:
        set_number(self, "step_size", above=0)
        set_number(self, "target_acceptance", above=0, below=1)

    @property
    def adapts(self) -> bool:
        """Whether there is no step size given."""
        return self.step_size is None

    @property
    def explorer(self) -> Kernel | None:  # type: ignore[override]
        """`HMC`, where there is something to learn."""
        return HMC(target_acceptance=0.8, shortest_step=1, max_integration_steps=32) if self.adapts else None

    def step(
        self, key: jax.Array, state: ChainState, target: Target, temperature: jax.Array, tuning: Tuning
    ) -> tuple[ChainState, dict[str, jax.Array]]:
        """See `Kernel.step`."""
        state, acceptance_rate = langevin_step(self, key, state, target, temperature, tuning)
        return state, {"acceptance_rate": acceptance_rate}


def _euler(
    kernel: Kernel, key: jax.Array, state: ChainState, target: Target, temperature: jax.Array, step_size: jax.Array
) -> ChainState:
    """One step of BlackJAX's solver; what it carries as the log-density is the whole state, so that nothing is lost."""

    def evaluate(position: dict[str, jax.Array]) -> tuple[ChainState, dict[str, jax.Array]]:
        new_state = kernel.evaluate(target, position)
        return new_state, new_state.gradient(temperature)

    start = _diffusions.DiffusionState(state.position, state, state.gradient(temperature))
    return _diffusions.overdamped_langevin(evaluate)(key, start, step_size).logdensity
