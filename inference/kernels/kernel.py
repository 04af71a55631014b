"""The base class of Markov kernels: a state with prior and likelihood apart, and a step at any temperature."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from kaem_ppl.arguments import check_kind

from ..model.coordinates import Coordinates, Unconstrained
from ..model.power_posterior import Position, Target


class ChainState(NamedTuple):
    """A position, with its densities and gradients.

    Prior and likelihood stand apart, so that the same state serves every temperature: log density and gradient at
    temperature t are log_prior + t log_likelihood, and exchanging two replicas costs no evaluation.

    Attributes:
        position: arrays by site name.
        log_prior: scalar.
        log_likelihood: scalar.
        log_prior_grad: as `position`; () for a kernel that reads no gradient.
        log_likelihood_grad: as `log_prior_grad`.
    """

    position: Position
    log_prior: jax.Array
    log_likelihood: jax.Array
    log_prior_grad: Any
    log_likelihood_grad: Any

    def log_density(self, temperature: jax.Array) -> jax.Array:
        """Log-density of the power posterior, up to a constant."""
        return self.log_prior + temper(self.log_likelihood, temperature)

    def gradient(self, temperature: jax.Array) -> Position:
        """Gradient of `log_density`."""
        return jax.tree.map(
            lambda prior, likelihood: prior + temper(likelihood, temperature),
            self.log_prior_grad,
            self.log_likelihood_grad,
        )

    def joined(self) -> "ChainState":
        """As the state of `joint_target`."""
        zero = jnp.zeros_like(self.log_likelihood)
        return ChainState(
            self.position,
            self.log_prior + self.log_likelihood,
            zero,
            self.gradient(jnp.ones_like(zero)),
            jax.tree.map(jnp.zeros_like, self.log_prior_grad),
        )

    def is_finite(self) -> jax.Array:
        """Whether a chain can go on from here."""
        return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(self)]).all()


def temper(log_likelihood: jax.Array, temperature: jax.Array) -> jax.Array:
    """t log L, and 0 at t = 0 also where the likelihood is 0."""
    return jnp.where(temperature > 0, temperature * log_likelihood, 0.0)


def log_density_at(target: Target, temperature: jax.Array) -> Callable[[Position], jax.Array]:
    """The power posterior's log-density as a function of the position, -inf where it is not defined."""

    def log_density(position: Position) -> jax.Array:
        log_prior, log_likelihood = target.densities(position)
        value = log_prior + temper(log_likelihood, temperature)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    return log_density


def joint_target(target: Target) -> Target:
    """The same problem with all of its density as prior, for a chain that stays at temperature 1."""

    def log_joint(position: Position) -> jax.Array:
        return sum(target.densities(position), start=jnp.zeros(()))

    return JointDensity(log_joint, lambda position: jnp.zeros(()), target.draw)


class JointDensity(Target):
    """What `joint_target` returns: its likelihood is 1, so that a trajectory's own density and gradient are a state's."""


class Tuning(NamedTuple):
    """What a warm-up learns for one chain of one problem; d is the number of coordinates in the order of `ravel_pytree`.

    Attributes:
        step_size: scalar, in units of `scale`.
        scale: square root of the posterior's covariance: standard deviations, shape (d,), or a lower Cholesky factor, shape
            (d, d). A kernel moves in the coordinates u of z + scale u, in which the posterior is round.
        longest: variance along the longest direction in these coordinates, scalar; 1 where the posterior is round.
    """

    step_size: jax.Array
    scale: jax.Array
    longest: jax.Array


def stretch(scale: jax.Array, u: jax.Array) -> jax.Array:
    """scale u, for standard deviations or a Cholesky factor."""
    return scale * u if scale.ndim == 1 else scale @ u


def pull_back(scale: jax.Array, gradient: jax.Array) -> jax.Array:
    """The gradient in u of a function of scale u, whose own gradient is given."""
    return scale * gradient if scale.ndim == 1 else gradient @ scale


@dataclass(frozen=True)
class Kernel(ABC):
    """A Markov kernel that leaves the power posterior of one problem invariant, at any temperature.

    A member states its settings as fields and implements `step`. The same value serves `sample_posterior`, the replicas of
    `ParallelTempering`, and the moves of `TemperedSMC`.

    Attributes:
        coordinates: what positions are written in.
        uses_gradient: whether `step` reads the gradients of the state.
        target_acceptance: the acceptance rate that warm-up brings about by the step size; None where there is no step
            size to adapt.
        adapts_metric: whether warm-up learns `Tuning.scale` too.
        largest_dense: number of coordinates up to which the whole covariance is learnt, and above which the variances are.
        reads_longest: whether `step` reads `Tuning.longest`.
        takes_joint: whether a step on `joint_target` saves an evaluation.
        explorer: the `HMC` that moves and learns the metric in the first four fifths of a warm-up, for a kernel whose step
            is one leapfrog step of it; None for itself.
        is_exact: whether it leaves the power posterior invariant without a bias.
        advice: what to try where chains disagree.
        blind_to: what its draws can't show, however many there are.

    Example:
        >>> from kaem_ppl.inference import MALA, ULA, Kernel
        >>> isinstance(MALA(), Kernel), MALA().is_exact, ULA(0.1).is_exact
        (True, True, False)
    """

    coordinates: ClassVar[Coordinates] = Unconstrained()
    uses_gradient: ClassVar[bool] = True
    if TYPE_CHECKING:
        target_acceptance: ClassVar[float | None]
    else:
        # Annotated, even as a `ClassVar`, it would come first among the fields of the kernels that have it as one.
        target_acceptance = None
    adapts_metric: ClassVar[bool] = False
    largest_dense: ClassVar[int] = 0
    reads_longest: ClassVar[bool] = False
    takes_joint: ClassVar[bool] = False
    explorer: ClassVar["Kernel | None"] = None
    is_exact: ClassVar[bool] = True
    advice: ClassVar[str] = "try `ParallelTempering` or `TemperedSMC`."
    blind_to: ClassVar[str] = "modes apart from those that its chains started near"

    @abstractmethod
    def step(
        self, key: jax.Array, state: ChainState, target: Target, temperature: jax.Array, tuning: Tuning
    ) -> tuple[ChainState, dict[str, jax.Array]]:
        """Move once.

        Args:
            key: PRNG key.
            state: of this chain.
            target: the problem.
            temperature: t, from 0 (prior) to 1 (posterior).
            tuning: step size and metric.

        Returns:
            The new state, and scalars by the names that ArviZ gives to sample statistics; `acceptance_rate` is one.
        """

    @property
    def initial_step_size(self) -> float:
        """The given step size, or where its adaptation starts."""
        given = getattr(self, "step_size", None)
        return 0.1 if given is None else given

    @property
    def adapts(self) -> bool:
        """Whether a warm-up has anything to learn."""
        return self.target_acceptance is not None

    def shortest_useful_step(self, tuning: Tuning) -> jax.Array | float:
        """The step size below which the kernel moves less far at the same cost, scalar; 0 where there is none."""
        del tuning
        return 0.0

    def evaluate(self, target: Target, position: Position) -> ChainState:
        """The state at a position."""
        if not self.uses_gradient:
            return ChainState(position, target.log_prior(position), target.log_likelihood(position), (), ())
        log_prior, log_prior_grad = jax.value_and_grad(target.log_prior)(position)
        log_likelihood, log_likelihood_grad = jax.value_and_grad(target.log_likelihood)(position)
        return ChainState(position, log_prior, log_likelihood, log_prior_grad, log_likelihood_grad)

    def has_dense_metric(self, num_coordinates: int) -> bool:
        """Whether `Tuning.scale` is a Cholesky factor."""
        return self.adapts and self.adapts_metric and num_coordinates <= self.largest_dense

    def default_tuning(self, position: Position) -> Tuning:
        """Tuning before anything is learnt."""
        flat, _ = ravel_pytree(position)
        scale = jnp.eye(flat.size, dtype=flat.dtype) if self.has_dense_metric(flat.size) else jnp.ones_like(flat)
        return Tuning(jnp.asarray(self.initial_step_size, flat.dtype), scale, jnp.ones((), flat.dtype))


def check_kernel(kernel: object) -> None:
    """Refuse what is not a Markov kernel.

    Raises:
        TypeError: it is not.
    """
    check_kind(kernel, Kernel, "kernel", "a Markov kernel such as `MALA()` or `HMC()`")
