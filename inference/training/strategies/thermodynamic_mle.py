"""Maximum likelihood by replica exchange: a ladder of chains for each datum, swapped at every step."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from kaem_ppl.arguments import set_counts, set_number

from ...kernels.kernel import ChainState, Kernel
from ...kernels.langevin import MALA
from ...model.parameters import Params
from ...model.power_posterior import Position, PowerPosterior
from ...model.training_model import TrainingModel
from ...tempering import replica_exchange
from ...tempering.ladder_adaptation import equalize_rejection
from ...tempering.ladders import AdaptedLadder, Ladder, check_ladder
from .langevin_mle import check_chain
from .persistent_chains import PersistentChains, adapt_step_size, draw_starts, init_persistent_chains, is_slow_kernel


class PersistentPopulation(NamedTuple):
    """One row for each datum.

    Attributes:
        chains: of its replicas.
        temperatures: its ladder, shape (num_data, R); () where the ladder is not adapted.
    """

    chains: PersistentChains
    temperatures: jax.Array | tuple[()]


@dataclass(frozen=True)
class CyclicPower:
    """A ladder t_k = ((k - 1) / (R - 1))^p whose power goes from `low` to `high` and back in `period` epochs.

    Attributes:
        num_temperatures: R.
        low: p at the start of a cycle; 1 spaces temperatures equally.
        high: p in the middle of it; a larger one moves temperatures closer to the prior.
        period: epochs of a cycle.

    Raises:
        ValueError: an argument is out of range.

    Source: the annealing schedule of Raj, arXiv 2506.14167.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import CyclicPower, fit, MALA, ThermodynamicMLE
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> strategy = ThermodynamicMLE(MALA(), CyclicPower(3, period=5), num_steps=3)
        >>> options = {"optimizer": optax.adam(0.1), "num_epochs": 60, "progress_bar": False}
        >>> result = fit(jax.random.key(1), model, x, strategy=strategy, **options)
        >>> abs(float(result.params["loc"]) - float(x.mean())) < 0.2  # the maximum of the likelihood
        True
    """

    adapts: ClassVar[bool] = False
    num_temperatures: int = 8
    low: float = 1.0
    high: float = 4.0
    period: int = 10

    def __post_init__(self) -> None:
        set_counts(self, num_temperatures=2, period=1)
        set_number(self, "low", above=0)
        set_number(self, "high", above=0)
        if self.low > self.high:
            raise ValueError(f"`low` must be at most `high`, got {self.low:g} and {self.high:g}.")

    def temperatures(self, num_epochs: jax.Array) -> jax.Array:
        """The ladder after a number of finished epochs, shape (R,)."""
        phase = 2 * jnp.pi * num_epochs / self.period
        power = self.low + (self.high - self.low) * 0.5 * (1 - jnp.cos(phase))
        return jnp.linspace(0, 1, self.num_temperatures) ** power


@dataclass(frozen=True)
class ThermodynamicMLE:
    """Learn from replicas of each datum's power posteriors p_k proportional to p(z) p(x | z)^t_k, 0 = t_1 < ... < t_R = 1.

    An update makes `num_steps` sweeps: the replica at temperature 0 is drawn from the prior, exactly, every other one moves
    by the kernel, and neighbours are exchanged (Syed et al. 2022). With l = log p(x | z) and M sweeps, three
    objectives are built on the draws, which are held fixed:

    - `fisher`: log p(x, z) at t = 1, by Fisher's identity; the ladder is for mixing. The least noise, and no bias from the
      ladder.
    - `thermodynamic`: the trapezoid rule for log p(x) = integral_0^1 E_t[l] dt (Friel and Pettitt 2008, eq. 7).
    - `steppingstone`: log p(x) ~ sum_k log mean exp((t_{k+1} - t_k) l) (Xie et al. 2011, eq. 11).

    The last two include the gradient of the draws' own densities: d E_t[l] = E_t[d l] + Cov_t(l, d log p(z) + t d l)
    (Masrani et al., arXiv 1907.00031, eq. 9), and for the steppingstone the score of its draws likewise. Without those
    terms the sum over k of (t_{k+1} - t_k) d l is not the derivative of the evidence. They are estimated over the M sweeps
    of an update, successive states of a chain: with few sweeps, or slow chains, a part of the covariance is missed.

    The history's `log_evidence` is the steppingstone estimate of the sweeps made for training, from chains that are
    at most one update behind the parameters.

    Attributes:
        kernel: moves each replica; where it adapts its step size, each datum has one for each temperature.
        ladder: temperatures of the replicas, from 0 on. An `AdaptedLadder` is adapted throughout training, each datum's by
            itself, less with each update; a `CyclicPower` follows the epochs; any other is fixed.
        num_steps: M, sweeps of an update.
        objective: one of the three.
        persistent: whether replicas continue from update to update, rather than from prior draws.
        initial_step_size: where the adaptation of the step sizes starts; None takes the kernel's default.

    Raises:
        TypeError: `kernel` is not a Markov kernel, or `ladder` not a ladder.
        ValueError: another argument is out of range, or the ladder does not start at the prior.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist, optax
        >>> from kaem_ppl.inference import fit, MALA, PowerLadder, ThermodynamicMLE
        >>> def model(x=None, size=None):
        ...     loc = numpyro.param("loc", 0.0)
        ...     with numpyro.plate("data", size if x is None else len(x)):
        ...         z = numpyro.sample("z", dist.Normal(loc, 1))
        ...         numpyro.sample("x", dist.Normal(z, 1), obs=x)
        >>> x = 2 + jax.random.normal(jax.random.key(0), (100,))
        >>> strategy = ThermodynamicMLE(MALA(), PowerLadder(3), num_steps=3)
        >>> options = {"optimizer": optax.adam(0.1), "num_epochs": 60, "progress_bar": False}
        >>> result = fit(jax.random.key(1), model, x, strategy=strategy, **options)
        >>> abs(float(result.params["loc"]) - float(x.mean())) < 0.2  # the maximum of the likelihood
        True
    """

    kernel: Kernel = MALA()  # noqa: RUF009 - a frozen value
    ladder: Ladder | CyclicPower = AdaptedLadder()  # noqa: RUF009 - a frozen value
    num_steps: int = 20
    objective: Literal["fisher", "thermodynamic", "steppingstone"] = "fisher"
    persistent: bool = True
    initial_step_size: float | None = None

    def __post_init__(self) -> None:
        set_counts(self, num_steps=1)
        check_chain(self.kernel, self.initial_step_size)
        if not isinstance(self.ladder, CyclicPower):
            check_ladder(self.ladder, "ThermodynamicMLE", from_prior=True)
        if self.objective not in ("fisher", "thermodynamic", "steppingstone"):
            raise ValueError(
                f"`objective` must be 'fisher', 'thermodynamic' or 'steppingstone', got {self.objective!r}."
            )
        if self.objective != "fisher" and self.num_steps < 2:
            raise ValueError(
                f"`objective={self.objective!r}` needs the variance of draws within an update: give at least 2 `num_steps`."
            )

    def init(self, key: jax.Array, plate_model: TrainingModel, params: Params, data: Any) -> PersistentPopulation:
        """Start R replicas from prior draws for each datum."""
        shape = (self.ladder.num_temperatures,)
        position = draw_starts(self.kernel, plate_model, shape, key, data) if self.persistent else ()
        num_data = jax.tree.leaves(data)[0].shape[0]
        temperatures = jnp.tile(jnp.array(self.ladder.temperatures), (num_data, 1)) if self.ladder.adapts else ()
        chains = init_persistent_chains(self.kernel, position, num_data, shape, self.initial_step_size)
        return PersistentPopulation(chains, temperatures)

    def loss(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: PersistentPopulation, batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], PersistentPopulation]]:
        """Return minus the objective, averaged over the batch; see `Strategy.loss`."""
        posterior = plate_model.posterior(params, batch, self.kernel.coordinates)
        record, new_state = self._move(key, posterior, state)
        estimate, likelihood_weight, prior_weight = jax.vmap(_OBJECTIVES[self.objective])(
            record.log_likelihood, record.temperatures
        )
        evidence = jax.vmap(_steppingstone)(record.log_likelihood, record.temperatures)[0]
        metrics = {
            "log_evidence": evidence.mean(),
            "log_likelihood": record.log_likelihood[:, -1, -1].mean(),
            "acceptance_rate": record.acceptance_rate.mean(),
            "swap_acceptance": record.swap_acceptance.mean(),
        }
        if self.objective == "fisher":
            last = jax.tree.map(lambda x: x[:, -1, -1], record.position)
            log_likelihood, log_prior = plate_model.log_densities(params, batch, plate_model.values(posterior, last))
            return -(log_likelihood + log_prior).mean(), (metrics, new_state)
        surrogate = self._weigh(plate_model, params, posterior, batch, record.position, likelihood_weight, prior_weight)
        # The value is the estimate, the derivative that of the weighted densities.
        return -(estimate.mean() + surrogate - lax.stop_gradient(surrogate)), (metrics, new_state)

    def draw(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: PersistentPopulation, batch: Any
    ) -> dict[str, jax.Array]:
        """Draw by one more update, which is not kept; see `Strategy.draw`."""
        posterior = plate_model.posterior(params, batch, self.kernel.coordinates)
        record, _ = self._move(key, posterior, state)
        last = jax.tree.map(lambda x: x[:, -1, -1], record.position)
        return jax.vmap(posterior.values)(posterior.rows, last)

    def _weigh(
        self,
        plate_model: TrainingModel,
        params: Params,
        posterior: PowerPosterior,
        batch: Any,
        positions: Position,
        likelihood_weight: jax.Array,
        prior_weight: jax.Array,
    ) -> jax.Array:
        """Weighted log-densities of all draws, (B, M, R), a mean over the data; one sweep at a time bounds memory."""
        num_temperatures = self.ladder.num_temperatures
        rows = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_temperatures, axis=0), batch)
        repeated = plate_model.posterior_at(posterior, rows)

        @jax.checkpoint
        def add(total: jax.Array, sweep: tuple[Position, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            position, likelihood_weight, prior_weight = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sweep)
            latents = plate_model.values(repeated, position)
            log_likelihood, log_prior = plate_model.log_densities(params, rows, latents)
            # A draw of likelihood 0 has log-density -inf and weight 0.
            terms = jnp.where(likelihood_weight == 0, 0, likelihood_weight * log_likelihood) + prior_weight * log_prior
            return total + terms.sum(), None

        sweeps = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (positions, likelihood_weight, prior_weight))
        first = jax.tree.map(lambda x: x[0, 0, 0], positions)
        unroll = self.num_steps if is_slow_kernel(self.kernel, posterior, first) else 1
        total, _ = lax.scan(add, jnp.zeros((), likelihood_weight.dtype), sweeps, unroll=unroll)
        return total / posterior.num_data

    def _temperatures(self, population: PersistentPopulation) -> jax.Array:
        """The ladder of one datum."""
        if not isinstance(population.temperatures, tuple):
            return population.temperatures
        if isinstance(self.ladder, CyclicPower):
            # A datum is updated once in an epoch.
            return self.ladder.temperatures(population.chains.num_updates)
        return jnp.array(self.ladder.temperatures)

    def _move(
        self, key: jax.Array, posterior: PowerPosterior, population: PersistentPopulation
    ) -> tuple["_Record", PersistentPopulation]:
        """The sweeps of an update of each datum, and its population afterwards."""
        kernel = self.kernel

        def move(
            key: jax.Array, datum: tuple[jax.Array, ...], population: PersistentPopulation
        ) -> tuple[_Record, PersistentPopulation]:
            target = posterior.target(datum)
            start_key, steps_key = jax.random.split(key)
            temperatures, num_updates = self._temperatures(population), population.chains.num_updates
            position = population.chains.position
            if not self.persistent:
                position = jax.vmap(target.draw)(jax.random.split(start_key, temperatures.size))
            replicas = jax.vmap(lambda position: kernel.evaluate(target, position))(position)
            tuning = kernel.default_tuning(jax.tree.map(lambda x: x[0], position))

            def step(
                key: jax.Array, replica: ChainState, temperature: jax.Array, step_size: jax.Array
            ) -> tuple[ChainState, dict[str, jax.Array]]:
                return kernel.step(key, replica, target, temperature, tuning._replace(step_size=step_size))

            exchange = replica_exchange.build_kernel(
                step, lambda replica: replica.log_likelihood, lambda key: kernel.evaluate(target, target.draw(key))
            )

            def sweep(carry: tuple[Any, jax.Array], key: jax.Array) -> tuple[tuple[Any, jax.Array], _Record]:
                state, log_step_size = carry
                state, info = exchange(key, state, jnp.exp(log_step_size))
                acceptance_rate = info.kernel_info["acceptance_rate"]
                # The first replica is drawn, not moved.
                moved = adapt_step_size(kernel, log_step_size[1:], acceptance_rate, num_updates)
                record = _Record(
                    state.replicas.position, state.replicas.log_likelihood, info.swap_acceptance, acceptance_rate,
                    temperatures,
                )  # fmt: skip
                return (state, log_step_size.at[1:].set(moved)), record

            state = replica_exchange.init(replicas, temperatures)
            # Even and odd pairs alternate across updates.
            state = state._replace(num_steps=num_updates * self.num_steps)
            keys = jax.random.split(steps_key, self.num_steps)
            is_slow = is_slow_kernel(kernel, posterior, jax.tree.map(lambda x: x[0], position))
            unroll = self.num_steps if is_slow else 1
            (state, log_step_size), record = lax.scan(
                sweep, (state, population.chains.log_step_size), keys, unroll=unroll
            )
            position = state.replicas.position if self.persistent else ()
            new_temperatures = ()
            if self.ladder.adapts:
                rejection = 1 - record.swap_acceptance.mean(0)
                wanted = equalize_rejection(temperatures, rejection)
                new_temperatures = temperatures + 0.5 * lax.rsqrt(1.0 + num_updates) * (wanted - temperatures)
            chains = PersistentChains(position, log_step_size, num_updates + 1)
            return record._replace(temperatures=temperatures), PersistentPopulation(chains, new_temperatures)

        keys = jax.random.split(key, posterior.num_data)
        return lax.stop_gradient(jax.vmap(move)(keys, posterior.rows, population))


class _Record(NamedTuple):
    """Sweeps of an update, arrays (M, R, ...), and the ladder, (R,)."""

    position: Any
    log_likelihood: jax.Array
    swap_acceptance: jax.Array
    acceptance_rate: jax.Array
    temperatures: jax.Array


# Of one datum: an estimate of the log-evidence from log-likelihoods (M, R), and the weights (M, R) with which each draw's
# log-likelihood and log-prior enter its derivative.


def _thermodynamic(log_likelihood: jax.Array, temperatures: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    num_sweeps = len(log_likelihood)
    intervals = jnp.diff(temperatures)
    trapezoid = 0.5 * (jnp.pad(intervals, (0, 1)) + jnp.pad(intervals, (1, 0)))
    mean = log_likelihood.mean(0)
    covariance = trapezoid * (log_likelihood - mean) / (num_sweeps - 1)
    return (trapezoid * mean).sum(), trapezoid / num_sweeps + temperatures * covariance, covariance


def _steppingstone(log_likelihood: jax.Array, temperatures: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    num_sweeps = len(log_likelihood)
    # The last temperature is not the lower end of any interval.
    intervals = jnp.pad(jnp.diff(temperatures), (0, 1))
    log_weights = jnp.where(intervals > 0, intervals * log_likelihood, 0.0)
    weights = jax.nn.softmax(log_weights, axis=0)
    excess = jnp.where(intervals > 0, weights - 1 / num_sweeps, 0.0)
    estimate = (logsumexp(log_weights, axis=0) - jnp.log(num_sweeps)).sum()
    return estimate, intervals * weights + temperatures * excess, excess


_OBJECTIVES = {"fisher": _steppingstone, "thermodynamic": _thermodynamic, "steppingstone": _steppingstone}
