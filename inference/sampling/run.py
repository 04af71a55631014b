"""What long sampling shows of itself, whom it tells, and where it keeps its state: one value handed down to a sampler."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from kaem_ppl.progress import Progress

from .stopping import Until
from .storage.checkpoint import Checkpoint

if TYPE_CHECKING:
    from .chains_state import ChainsState


class Report(NamedTuple):
    """What a callback is told after each piece of work.

    Attributes:
        activity: what is being done, such as "warm-up" or "drawing".
        done: how much of it, in steps, iterations, or temperature.
        total: how much it will be; None where that is not known.
        figures: what matters, by name, such as `acceptance` or `temperature`.
        state: of Markov chains, a copy from which `sample_posterior(..., state=)` goes on; else None.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import HMC, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> reports = []
        >>> draws = sample_posterior(
        ...     jax.random.key(0), model, 2.0, sampler=HMC(num_integration_steps=3), num_samples=20, num_warmup=20,
        ...     callback=reports.append, progress_bar=False,
        ... )
        >>> reports[-1].activity, reports[-1].done == reports[-1].total
        ('drawing', True)
    """

    activity: str
    done: float
    total: float | None
    figures: dict[str, float]
    state: "ChainsState | None"


@dataclass(frozen=True)
class Run:
    """One piece of long work.

    Attributes:
        progress: shows it.
        callback: is told of it.
        checkpoint: keeps its state in a folder.
        thinning: steps of Markov chains from one kept draw to the next.
        stop: when Markov chains are long enough; None takes the number of draws.
        state: from which Markov chains go on.
        spool: whether draws of Markov chains stay in the folder of the checkpoint.
    """

    progress: Progress = field(default_factory=lambda: Progress("", is_shown=False))
    callback: Callable[[Report], object] | None = None
    checkpoint: Checkpoint | None = None
    thinning: int = 1
    stop: Until | None = None
    state: "ChainsState | None" = None
    spool: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether Markov chains go on from a state, and need no warm-up."""
        return self.state is not None or (self.checkpoint is not None and self.checkpoint.has("chains"))

    @property
    def is_watched(self) -> bool:
        """Whether anybody looks at figures, which cost something."""
        return self.callback is not None or self.progress.is_shown

    def report(
        self,
        activity: str,
        done: float,
        total: float | None,
        figures: dict[str, float],
        copy_state: "Callable[[], ChainsState] | None" = None,
    ) -> None:
        """Show how far the work is, and tell the callback."""
        self.progress.update(done, activity, **figures)
        if self.callback is not None:
            self.callback(Report(activity, done, total, figures, None if copy_state is None else copy_state()))

    def load(self, name: str) -> Any:
        """What was saved under a name; None where nothing was, or nothing is kept."""
        return None if self.checkpoint is None else self.checkpoint.load(name)

    def save(self, name: str, make: Callable[[], Any], *, now: bool = True) -> None:
        """Save the tree that `make` returns, at once or when it is due, where a state is kept at all."""
        if self.checkpoint is not None and (now or self.checkpoint.is_due()):
            self.checkpoint.save(name, make())
