"""Maximum likelihood by Markov chains: one chain for each datum, a few steps at each update."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kaem_ppl.arguments import as_number, set_counts

from ...kernels.kernel import ChainState, Kernel, check_kernel
from ...kernels.langevin import MALA
from ...model.parameters import Params
from ...model.power_posterior import Position, PowerPosterior
from ...model.training_model import TrainingModel
from .persistent_chains import PersistentChains, adapt_step_size, draw_starts, init_persistent_chains, is_slow_kernel


@dataclass(frozen=True)
class LangevinMLE:
    """Follow Fisher's identity with the last state of a Markov chain on each datum's posterior.

        grad log p(x_b) = E_{p(z | x_b)}[grad log p(x_b, z)]  ~  grad log p(x_b, z_b),    z_b held fixed.

    The gradient of log p(z) includes the prior's normaliser exactly, so no chain runs on the prior. A persistent chain
    continues from its state after the datum's last update (Tieleman 2008); a fresh one starts from an exact prior draw, and
    is biased as far as its steps do not reach the posterior.

    Attributes:
        kernel: any Markov kernel, `ULA`, `MALA`, `HMC`, ...; where it adapts its step size, each datum has its own, moved
            towards the target acceptance, less with each update.
        num_steps: steps of an update.
        persistent: whether chains continue from update to update.
        initial_step_size: where the adaptation of the step size starts; None takes the kernel's default.

    Raises:
        TypeError: `kernel` is not a Markov kernel.
        ValueError: `num_steps` is not positive, or `initial_step_size` is given to a kernel that does not adapt.

    Sources: short-run chains as Nijkamp et al., arXiv 1912.01909, and Pang et al., arXiv 2006.08205, alg. 1.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import fit, LangevinMLE, MALA
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> options = {"optimizer": optax.adam(0.1), "num_epochs": 60, "progress_bar": False}
        >>> result = fit(jax.random.key(1), model, x, strategy=LangevinMLE(MALA(), num_steps=3), **options)
        >>> abs(float(result.params["loc"]) - float(x.mean())) < 0.2  # the maximum of the likelihood
        True
    """

    kernel: Kernel = MALA()  # noqa: RUF009 - a frozen value
    num_steps: int = 20
    persistent: bool = True
    initial_step_size: float | None = None

    def __post_init__(self) -> None:
        set_counts(self, num_steps=1)
        check_chain(self.kernel, self.initial_step_size)

    def init(self, key: jax.Array, plate_model: TrainingModel, params: Params, data: Any) -> PersistentChains:
        """Start a chain from a prior draw for each datum."""
        position = draw_starts(self.kernel, plate_model, (), key, data) if self.persistent else ()
        num_data = jax.tree.leaves(data)[0].shape[0]
        return init_persistent_chains(self.kernel, position, num_data, initial_step_size=self.initial_step_size)

    def loss(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: PersistentChains, batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], PersistentChains]]:
        """Return the negative log-joint at the chains' new states; see `Strategy.loss`."""
        latents, acceptance_rate, new_state = self._update_chains(key, plate_model, params, state, batch)
        log_likelihood, log_prior = plate_model.log_densities(params, batch, latents)
        metrics = {
            "log_likelihood": lax.stop_gradient(log_likelihood).mean(),
            "acceptance_rate": acceptance_rate.mean(),
            "step_size": jnp.exp(state.log_step_size).mean(),
        }
        return -(log_likelihood + log_prior).mean(), (metrics, new_state)

    def draw(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: PersistentChains, batch: Any
    ) -> dict[str, jax.Array]:
        """Draw by one more update, which is not kept; see `Strategy.draw`."""
        posterior = plate_model.posterior(params, batch, self.kernel.coordinates)
        _, position, _ = self._move(key, posterior, state)
        return jax.vmap(posterior.values)(posterior.rows, position)

    def _update_chains(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, chains: PersistentChains, batch: Any
    ) -> tuple[dict[str, jax.Array], jax.Array, PersistentChains]:
        """Latents at the new states, the mean acceptance rate of each datum, and the chains."""
        posterior = plate_model.posterior(params, batch, self.kernel.coordinates)
        log_step_size, position, acceptance_rate = self._move(key, posterior, chains)
        chains = PersistentChains(position if self.persistent else (), log_step_size, chains.num_updates + 1)
        return plate_model.values(posterior, position), acceptance_rate, chains

    def _move(
        self, key: jax.Array, posterior: PowerPosterior, chains: PersistentChains
    ) -> tuple[jax.Array, Position, jax.Array]:
        """Step size, last state and mean acceptance rate of each datum's chain."""
        kernel = self.kernel

        def move(
            key: jax.Array, datum: tuple[jax.Array, ...], chain: PersistentChains
        ) -> tuple[jax.Array, Position, jax.Array]:
            target = posterior.target(datum)
            start_key, steps_key = jax.random.split(key)
            position = target.draw(start_key) if isinstance(chain.position, tuple) else chain.position
            state = kernel.evaluate(target, position)
            temperature = jnp.ones((), state.log_likelihood.dtype)
            tuning = kernel.default_tuning(position)

            def step(
                carry: tuple[ChainState, jax.Array], key: jax.Array
            ) -> tuple[tuple[ChainState, jax.Array], jax.Array]:
                state, log_step_size = carry
                tuned = tuning._replace(step_size=jnp.exp(log_step_size))
                state, info = kernel.step(key, state, target, temperature, tuned)
                acceptance_rate = info["acceptance_rate"]
                log_step_size = adapt_step_size(kernel, log_step_size, acceptance_rate, chain.num_updates)
                return (state, log_step_size), acceptance_rate

            keys = jax.random.split(steps_key, self.num_steps)
            unroll = self.num_steps if is_slow_kernel(kernel, posterior, position) else 1
            (state, log_step_size), acceptance_rate = lax.scan(step, (state, chain.log_step_size), keys, unroll=unroll)
            return log_step_size, state.position, acceptance_rate.mean()

        keys = jax.random.split(key, posterior.num_data)
        return lax.stop_gradient(jax.vmap(move)(keys, posterior.rows, chains))


def check_chain(kernel: Kernel, initial_step_size: float | None) -> None:
    """Check the settings of a chain.

    Raises:
        TypeError: `kernel` is not a Markov kernel.
        ValueError: `initial_step_size` is not positive, or given to a kernel that does not adapt.
    """
    check_kernel(kernel)
    if initial_step_size is None:
        return
    if not kernel.adapts:
        raise ValueError(f"`initial_step_size` is where adaptation starts, but {kernel!r} does not adapt.")
    as_number(initial_step_size, "initial_step_size", above=0)
