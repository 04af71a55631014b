"""The base class of samplers, what `sample_posterior` calls."""

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax

from ..model.coordinates import Coordinates, Unconstrained
from ..model.power_posterior import Position, PowerPosterior

if TYPE_CHECKING:
    from .run import Run


class SamplerOutput(NamedTuple):
    """What a sampler returns; C chains, S draws, N data (1 without a plate).

    Attributes:
        positions: arrays (C, S, N, ...) by site name, in the sampler's coordinates.
        stats: by name, arrays (C, S, N, ...) for each draw.
        summary: by name, arrays for the run as a whole, (C, N, ...).
        dims: by name of a statistic or summary, names of the axes after those three (or two).
        seconds: time spent on drawing, warm-up left out.
        state: from which Markov chains go on; None for samplers that have no chains.
        values: of the latent sites at the positions; None where they are not known yet.
    """

    positions: Position
    stats: dict[str, Any]
    summary: dict[str, Any]
    dims: dict[str, tuple[str, ...]]
    seconds: float
    state: Any = None
    values: dict[str, Any] | None = None


class Sampler(ABC):
    """A way to draw from the posterior: a frozen value that holds settings and nothing else.

    Attributes:
        coordinates: what its positions are written in.
        advice: what to try where chains disagree.
        has_chains: whether draws are those of Markov chains, which can go on from where they ended.
        keeps_state: whether it saves its state in the checkpoint of a run.
        blind_to: what its draws can't show, however many there are.

    Example:
        >>> from kaem_ppl.inference import ParallelTempering, Sampler
        >>> sampler = ParallelTempering()
        >>> isinstance(sampler, Sampler), sampler.is_exact
        (True, True)
    """

    coordinates: ClassVar[Coordinates] = Unconstrained()
    has_chains: ClassVar[bool] = False
    keeps_state: ClassVar[bool] = False
    advice: ClassVar[str] = "try `ParallelTempering` or `TemperedSMC`."
    blind_to: ClassVar[str] = "modes that no draw has come near"

    @property
    def is_exact(self) -> bool:
        """Whether draws have no bias but that of a finite run."""
        return True

    def summarize_stats(self, stats: dict[str, Any]) -> dict[str, Any]:
        """What statistics of draws, (C, S, ...), say of each chain as a whole, by name."""
        return {}

    @abstractmethod
    def sample(
        self,
        key: jax.Array,
        posterior: PowerPosterior,
        *,
        num_chains: int,
        num_samples: int,
        num_warmup: int,
        run: "Run",
    ) -> SamplerOutput:
        """Draw from the posterior of every datum.

        Args:
            key: PRNG key. Chain c of datum n uses `problem_keys(key, ...)[c, n]` and nothing else, so that results do not
                depend on how the work is split.
            posterior: in the sampler's coordinates.
            num_chains: C, independent chains (populations, for a sampler that moves particles) for each datum.
            num_samples: S, draws of each chain.
            num_warmup: steps before them, for a sampler that has a warm-up.
            run: shows progress, and keeps the state where one is to be kept.

        Raises:
            ValueError: the posterior can't be sampled in this way.
        """


@partial(jax.jit, static_argnums=(1, 2))
def problem_keys(key: jax.Array, num_chains: int, num_data: int) -> jax.Array:
    """A key for each chain and datum, shape (num_chains, num_data), that depends on its two indices only."""
    fold = jax.random.fold_in
    chains, data = jax.numpy.arange(num_chains), jax.numpy.arange(num_data)
    return jax.vmap(lambda chain: jax.vmap(lambda datum: fold(fold(key, chain), datum))(data))(chains)
