"""When Markov chains are long enough: a sequential rule on R-hat and effective sample size."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kaem_ppl.arguments import set_counts, set_number

# From one check to the next chains grow by this factor: checks then cost a few times the last one, and draws beyond what
# was needed are at most this share.
_GROWTH = 1.25
# Fewer draws of a chain give neither R-hat nor an effective size.
_FEWEST_DRAWS = 20
_NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Until:
    """Draw until the chains agree and are worth enough independent draws.

    The rule stops at the first of growing numbers of draws, from `num_samples` on, at which every element of every latent
    site has an effective sample size (bulk and tail; Vehtari et al. 2021) of at least `ess`, over all chains, and a
    rank-normalised split R-hat of at most `r_hat`. Stopping at an effective size of W is stopping when the half-width of
    a 95 % interval of a mean is at most 1.96 / sqrt(W) standard deviations of the posterior: the relative standard
    deviation fixed-width rule of Gong and Flegal (2016, sec. 3), whose intervals keep their coverage as W grows, given a
    least number of draws, which is `num_samples` here.

    Attributes:
        r_hat: largest that is accepted.
        ess: smallest that is accepted.
        max_samples: draws of each chain at which sampling stops in any case.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import HMC, sample_posterior, Until
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> draws = sample_posterior(
        ...     jax.random.key(0), model, 2.0, sampler=HMC(num_integration_steps=3), num_samples=50, stop=Until(ess=200),
        ...     num_warmup=100, progress_bar=False,
        ... )
        >>> draws.samples["z"].size >= 200
        True
    """

    r_hat: float = 1.01
    ess: float = 400
    max_samples: int = 100_000

    def __post_init__(self) -> None:
        set_number(self, "r_hat", above=1)
        set_number(self, "ess", above=0)
        set_counts(self, max_samples=1)

    def checks(self, num_samples: int) -> Iterator[int]:
        """Numbers of draws of a chain at which the rule is asked; the last one is `max_samples`."""
        number = min(max(num_samples, _FEWEST_DRAWS), self.max_samples)
        while number < self.max_samples:
            yield number
            number = min(math.ceil(_GROWTH * number), self.max_samples)
        yield self.max_samples

    def measure(self, samples: Mapping[str, Any]) -> dict[str, float]:
        """Largest R-hat and smallest effective size of any element of draws (C, S, ...), read piece by piece.

        An element that does not move has neither: infinity and 0 stand for it.
        """
        from arviz_stats.base.array import array_stats

        stats: Any = array_stats
        worst, least = 1.0, math.inf
        for x in samples.values():
            for part in _pieces(x):
                with np.errstate(invalid="ignore", divide="ignore"):
                    r_hat = np.asarray(stats.rhat(part, chain_axis=0, draw_axis=1))
                    bulk = np.asarray(stats.ess(part, chain_axis=0, draw_axis=1, method="bulk"))
                    tail = np.asarray(stats.ess(part, chain_axis=0, draw_axis=1, method="tail", prob=(0.05, 0.95)))
                worst = max(worst, float(np.nan_to_num(r_hat, nan=np.inf, posinf=np.inf).max()))
                size = np.where(np.isnan(r_hat), 0.0, np.minimum(bulk, tail))
                least = min(least, float(np.nan_to_num(size, nan=0.0).min()))
        return {"r_hat": worst, "ess": least}

    def is_reached(self, figures: Mapping[str, float]) -> bool:
        """Whether what `measure` returned is good enough."""
        return figures["r_hat"] <= self.r_hat and figures["ess"] >= self.ess


def _pieces(x: Any) -> Iterator[np.ndarray]:
    """Arrays (C, S, some elements) of draws in memory or in files."""
    shape = tuple(x.shape)
    if not math.prod(shape):
        return
    if len(shape) == 2:
        yield np.asarray(x[:, :])[..., None]
        return
    rows = max(1, _NUMBERS_AT_ONCE // max(1, math.prod(shape) // shape[2]))
    for start in range(0, shape[2], rows):
        yield np.asarray(x[:, :, start : start + rows]).reshape(*shape[:2], -1)
