"""HMC with randomised trajectory length, and NUTS, on BlackJAX's kernels."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc import hmc, integrators, nuts
from jax.flatten_util import ravel_pytree

from kaem_ppl.arguments import set_counts, set_number

from .kernel import ChainState, JointDensity, Kernel, Target, Tuning, log_density_at, pull_back, stretch

# BlackJAX's annotations say float where arrays are meant.
_hmc: Any = hmc
_integrators: Any = integrators
_nuts: Any = nuts


@dataclass(frozen=True)
class HMC(Kernel):
    """Hamiltonian Monte Carlo whose trajectories have random lengths, around a quarter of the longest period.

    Trajectories of one length come back to where they started in directions whose period they match (Neal 2011, sec.
    3.2), so each draws its own. A trajectory of length pi / 2 in units of the posterior's standard deviation turns a normal
    draw into an independent one: lengths are uniform between a half and three halves of pi / 2 times the largest
    standard deviation, which warm-up measures along the first principal component (as Sountsov and Hoffman 2021).
    The shorter a trajectory, the shorter its steps, down to a third of the nominal one, by which all have the same number
    of steps: the short ones enter and leave places in which the nominal step is too long, such as a heavy tail.

    Attributes:
        step_size: the largest step of the leapfrog integrator, in unconstrained space and with unit masses; None adapts
            it in warm-up to each chain and datum, and the metric with it: the covariance of up to 32 coordinates, the
            variances of more.
        num_integration_steps: leapfrog steps of a trajectory, whose step size is then uniform between a half of the
            nominal one and all of it; None follows the lengths above.
        target_acceptance: what the adaptation brings about, in the mean over lengths.
        shortest_step: that of the shortest trajectory, as a fraction of the nominal step. 1 gives all trajectories the same
            step: at the same acceptance the longest one is shorter, and diverges less often in modes of unlike widths.
        max_integration_steps: a trajectory is cut there.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import HMC, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> sampler = HMC()
        >>> options = {"num_samples": 500, "num_warmup": 200, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=sampler, **options)
        >>> round(float(draws.samples["z"].mean()), 1)  # exactly: 1
        1.0
    """

    adapts_metric: ClassVar[bool] = True
    takes_joint: ClassVar[bool] = True
    largest_dense: ClassVar[int] = 32
    step_size: float | None = None
    num_integration_steps: int | None = None
    target_acceptance: float = 0.9
    shortest_step: float = 1 / 3
    max_integration_steps: int = 512

    def __post_init__(self) -> None:
        set_number(self, "step_size", above=0)
        set_number(self, "target_acceptance", above=0, below=1)
        set_number(self, "shortest_step", above=0, most=1)
        set_counts(self, num_integration_steps=1, max_integration_steps=1)

    @property
    def reads_longest(self) -> bool:  # type: ignore[override]
        """Whether the length of trajectories follows from `Tuning.longest`."""
        return self.num_integration_steps is None

    @property
    def adapts(self) -> bool:
        """Whether there is no step size given."""
        return self.step_size is None

    def shortest_useful_step(self, tuning: Tuning) -> jax.Array | float:
        """That with which a trajectory of mean length takes all of its steps."""
        if self.num_integration_steps is not None:
            return 0.0
        return jnp.pi * jnp.sqrt(tuning.longest) / ((1 + self.shortest_step) * self.max_integration_steps)

    def step(
        self, key: jax.Array, state: ChainState, target: Target, temperature: jax.Array, tuning: Tuning
    ) -> tuple[ChainState, dict[str, jax.Array]]:
        """See `Kernel.step`."""
        flat, _ = ravel_pytree(state.position)
        normals, uniforms = _draw(key, flat.size, tuning.step_size.dtype)
        step_size: jax.Array = tuning.step_size
        if self.num_integration_steps is None:
            length = 0.5 * jnp.pi * (0.5 + uniforms[0]) * jnp.sqrt(tuning.longest)
            step_size *= self.shortest_step + (1 - self.shortest_step) * uniforms[0]
            num_steps = jnp.clip(jnp.ceil(length / step_size), 1, self.max_integration_steps).astype(jnp.int32)
        else:
            step_size, num_steps = step_size * (0.5 + 0.5 * uniforms[0]), self.num_integration_steps
        tuning = tuning._replace(step_size=step_size)
        return _trajectory(self, state, target, temperature, tuning, num_steps, normals, uniforms[1])


def langevin_step(
    kernel: Kernel, key: jax.Array, state: ChainState, target: Target, temperature: jax.Array, tuning: Tuning
) -> tuple[ChainState, jax.Array]:
    """A trajectory of one leapfrog step, which is a Metropolis-adjusted Langevin step (Neal 2011, sec. 5.2).

    Args:
        kernel: what evaluates the state.
        key: PRNG key.
        state: of this chain.
        target: the problem.
        temperature: t.
        tuning: its step size is eta = h^2 / 2, for a leapfrog step of length h.

    Returns:
        The new state, and the acceptance rate.
    """
    normals, uniforms = _draw(key, ravel_pytree(state.position)[0].size, tuning.step_size.dtype)
    tuning = tuning._replace(step_size=jnp.sqrt(2 * tuning.step_size))
    state, info = _trajectory(kernel, state, target, temperature, tuning, 1, normals, uniforms[1])
    return state, info["acceptance_rate"]


def _trajectory(
    kernel: Kernel,
    start: ChainState,
    target: Target,
    temperature: jax.Array,
    tuning: Tuning,
    num_steps: jax.Array | int,
    momentum: jax.Array,
    uniform: jax.Array,
) -> tuple[ChainState, dict[str, jax.Array]]:
    """BlackJAX's trajectory and acceptance, with the whole state of the chain where it keeps a gradient.

    So the state at the end is there without another evaluation. All random numbers are given: BlackJAX's kernel hashes
    keys of its own for them, which are half of what XLA compiles of a step.
    """
    origin, unravel = ravel_pytree(start.position)

    def integrator_state(u: jax.Array, momentum: jax.Array, state: ChainState) -> Any:
        # A gradient may be undefined at a place that was reached with a finite density.
        log_density = jnp.where(state.is_finite(), state.log_density(temperature), -jnp.inf)
        return _integrators.IntegratorState(u, momentum, log_density, state)

    def half_kick(at: Any) -> jax.Array:
        gradient = pull_back(tuning.scale, ravel_pytree(at.logdensity_grad.gradient(temperature))[0])
        return at.momentum + 0.5 * tuning.step_size * gradient

    def leapfrog(at: Any, step_size: jax.Array) -> Any:
        momentum = half_kick(at)
        u = at.position + step_size * momentum
        state = kernel.evaluate(target, unravel(origin + stretch(tuning.scale, u)))
        at = integrator_state(u, momentum, state)
        return at._replace(momentum=half_kick(at))

    def accept(uniform: jax.Array, log_ratio: jax.Array, start: Any, end: Any) -> tuple[Any, Any]:
        rate = jnp.clip(jnp.exp(log_ratio), max=1)
        is_accepted = uniform < rate
        return jax.tree.map(lambda end, start: jnp.where(is_accepted, end, start), end, start), (
            is_accepted,
            rate,
            None,
        )

    def kinetic_energy(momentum: jax.Array, position: Any = None) -> jax.Array:
        del position
        return 0.5 * jnp.sum(jnp.square(momentum))

    propose = _hmc.hmc_proposal(leapfrog, kinetic_energy, tuning.step_size, num_steps, sample_proposal=accept)
    begin = integrator_state(jnp.zeros_like(origin), momentum, start)
    new, info, _ = propose(uniform, begin)
    return new.logdensity_grad, {
        "acceptance_rate": info.acceptance_rate,
        "diverging": info.is_divergent,
        # Of where the chain is now. BlackJAX gives that of the proposal, which may be infinite.
        "energy": jnp.where(info.is_accepted, info.energy, kinetic_energy(momentum) - begin.logdensity),
        "n_steps": jnp.asarray(num_steps, jnp.int32),
    }


def _draw(key: jax.Array, size: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """So many standard normals, and two uniforms between 0 and 1, from one array of random bits."""
    smallest = np.nextafter(np.asarray(-1, dtype), np.asarray(0, dtype))
    x = jax.random.uniform(key, (size + 2,), dtype, smallest, 1.0)
    return np.sqrt(2, dtype=dtype) * jax.lax.erf_inv(x[:size]), 0.5 * (x[size:] + 1)


@dataclass(frozen=True)
class NUTS(Kernel):
    """The no-U-turn sampler (Hoffman and Gelman 2014), step size and diagonal mass matrix adapted in Stan's windows.

    Attributes:
        target_acceptance: what the adaptation brings about; raise it where trajectories diverge.
        max_tree_depth: a trajectory has at most 2^max_tree_depth leapfrog steps.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import NUTS, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> sampler = NUTS()
        >>> options = {"num_samples": 500, "num_warmup": 200, "progress_bar": False}
        >>> draws = sample_posterior(jax.random.key(0), model, 2.0, sampler=sampler, **options)
        >>> round(float(draws.samples["z"].mean()), 1)  # exactly: 1
        1.0
    """

    adapts_metric: ClassVar[bool] = True
    takes_joint: ClassVar[bool] = True
    target_acceptance: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        set_number(self, "target_acceptance", above=0, below=1)
        set_counts(self, max_tree_depth=1)

    def step(
        self, key: jax.Array, state: ChainState, target: Target, temperature: jax.Array, tuning: Tuning
    ) -> tuple[ChainState, dict[str, jax.Array]]:
        """See `Kernel.step`."""
        start = _hmc.HMCState(state.position, state.log_density(temperature), state.gradient(temperature))
        new, info = _nuts.build_kernel()(
            key,
            start,
            log_density_at(target, temperature),
            tuning.step_size,
            jnp.square(tuning.scale),
            self.max_tree_depth,
        )
        return _new_state(self, target, new.position, new, state), {
            "acceptance_rate": info.acceptance_rate,
            "diverging": info.is_divergent,
            "energy": info.energy,
            "n_steps": info.num_integration_steps,
            "tree_depth": info.num_trajectory_expansions,
        }


def _new_state(kernel: Kernel, target: Target, position: dict[str, jax.Array], new: Any, old: ChainState) -> ChainState:
    """The state where a trajectory ended; prior and likelihood apart cost one evaluation more than the trajectory's own."""
    if isinstance(target, JointDensity):
        state = old._replace(position=position, log_prior=new.logdensity, log_prior_grad=new.logdensity_grad)
    else:
        state = kernel.evaluate(target, position)
    # A gradient may be undefined at a place that was reached with a finite density.
    is_finite = state.is_finite()
    return jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), state, old)
