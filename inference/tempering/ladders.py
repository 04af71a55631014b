"""Ladders of temperatures from 0, the prior, to 1, the posterior: geometric, power and fixed spacing."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from kaem_ppl.arguments import as_number, check_kind, describe, set_counts, set_number


@dataclass(frozen=True)
class Ladder(ABC):
    """The temperatures of the replicas or stages of a tempered method.

    Attributes:
        num_temperatures: R, at least two.
        adapts: whether the temperatures are only where a warm-up or training starts.

    Example:
        >>> from dataclasses import dataclass
        >>> from kaem_ppl.inference import Ladder
        >>> @dataclass(frozen=True)
        ... class Even(Ladder):
        ...     num_temperatures: int
        ...     @property
        ...     def temperatures(self):
        ...         return tuple(k / (self.num_temperatures - 1) for k in range(self.num_temperatures))
        >>> Even(3).temperatures
        (0.0, 0.5, 1.0)
    """

    adapts: ClassVar[bool] = False
    num_temperatures: int

    @property
    @abstractmethod
    def temperatures(self) -> tuple[float, ...]:
        """R increasing exponents of the likelihood, the last one 1."""

    @property
    def starts_at_prior(self) -> bool:
        """Whether the first temperature is 0."""
        return self.temperatures[0] == 0

    def quadrature_weights(self) -> np.ndarray | None:
        """Weights of a rule for the integral over [0, 1] from values at the temperatures, if these are nodes of one."""
        return None


@dataclass(frozen=True)
class PowerLadder(Ladder):
    """t_k = (k / (R - 1))^p (Friel and Pettitt 2008): p above 1 crowds the temperatures towards the prior.

    Attributes:
        num_temperatures: R.
        power: p.

    Raises:
        ValueError: there are fewer than two temperatures, or p is not positive.

    Example:
        >>> from kaem_ppl.inference import PowerLadder
        >>> [round(float(t), 3) for t in PowerLadder(4).temperatures]
        [0.0, 0.037, 0.296, 1.0]
    """

    num_temperatures: int = 16
    power: float = 3.0

    def __post_init__(self) -> None:
        set_counts(self, num_temperatures=2)
        set_number(self, "power", above=0)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """See `Ladder.temperatures`."""
        return tuple(float(t) for t in np.linspace(0, 1, self.num_temperatures) ** self.power)

    def quadrature_weights(self) -> np.ndarray | None:
        """Simpson's rule in u = t^(1/p), where R is odd and p at least 1: the integral of E(u^p) p u^(p-1) over u."""
        if self.num_temperatures % 2 == 0 or self.power < 1:
            return None
        u = np.linspace(0, 1, self.num_temperatures)
        simpson = np.where(np.arange(self.num_temperatures) % 2 == 1, 4.0, 2.0)
        simpson[[0, -1]] = 1.0
        return simpson / (3 * (self.num_temperatures - 1)) * self.power * u ** (self.power - 1)


@dataclass(frozen=True)
class GeometricLadder(Ladder):
    """0, and then temperatures in constant ratio from the smallest to 1.

    Attributes:
        num_temperatures: R, 0 counted.
        smallest: the first temperature above 0.

    Raises:
        ValueError: there are fewer than three temperatures, or the smallest does not lie between 0 and 1.

    Example:
        >>> from kaem_ppl.inference import GeometricLadder
        >>> [round(float(t), 3) for t in GeometricLadder(4, smallest=0.01).temperatures]
        [0.0, 0.01, 0.1, 1.0]
    """

    num_temperatures: int = 16
    smallest: float = 1e-3

    def __post_init__(self) -> None:
        set_counts(self, num_temperatures=3)
        set_number(self, "smallest", above=0, below=1)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """See `Ladder.temperatures`."""
        return (0.0, *(float(t) for t in np.geomspace(self.smallest, 1, self.num_temperatures - 1)))


@dataclass(frozen=True, init=False)
class GivenLadder(Ladder):
    """Temperatures as they are given.

    Attributes:
        num_temperatures: R, how many were given.

    Raises:
        TypeError: they are no sequence.
        ValueError: they are no numbers, or do not increase from 0 or more to 1 in at least two temperatures.

    Example:
        >>> from kaem_ppl.inference import GivenLadder
        >>> [round(float(t), 3) for t in GivenLadder((0.0, 0.1, 1.0)).temperatures]
        [0.0, 0.1, 1.0]
    """

    num_temperatures: int
    given: tuple[float, ...]

    def __init__(self, temperatures: Sequence[float]) -> None:
        if isinstance(temperatures, str) or not np.iterable(temperatures):
            raise TypeError(f"`temperatures` must be a sequence of numbers, got {describe(temperatures)}.")
        ladder = tuple(as_number(t, "temperatures", what="a sequence of numbers") for t in temperatures)
        increases = all(low < high for low, high in itertools.pairwise(ladder))
        if len(ladder) < 2 or not increases or ladder[0] < 0 or ladder[-1] != 1:
            raise ValueError(f"`temperatures` must increase from 0 or more to 1, in at least two values, got {ladder}.")
        object.__setattr__(self, "given", ladder)
        object.__setattr__(self, "num_temperatures", len(ladder))

    @property
    def temperatures(self) -> tuple[float, ...]:
        """See `Ladder.temperatures`."""
        return self.given


@dataclass(frozen=True)
class AdaptedLadder(Ladder):
    """Temperatures that a warm-up moves, for each datum, to where neighbours reject equally often (Syed et al. 2022).

    They start at cubes: most of the change happens close to the prior. In training every update adapts
    them.

    Attributes:
        num_temperatures: R. Where none is given it starts at 8, and `ParallelTempering` raises it in warm-up to about twice
            the communication barrier that it measures, the number that makes most round trips for the work.
        max_temperatures: to which it may be raised.

    Raises:
        ValueError: there are fewer than two temperatures.

    Example:
        >>> from kaem_ppl.inference import AdaptedLadder
        >>> [round(float(t), 3) for t in AdaptedLadder(4).temperatures]
        [0.0, 0.037, 0.296, 1.0]
    """

    adapts: ClassVar[bool] = True
    num_temperatures: int = None  # type: ignore[assignment]  # replaced where it is missing
    max_temperatures: int = 48
    grows: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        set_counts(self, max_temperatures=2, num_temperatures=2)
        if self.num_temperatures is None:
            object.__setattr__(self, "num_temperatures", min(8, self.max_temperatures))
            object.__setattr__(self, "grows", True)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """See `Ladder.temperatures`."""
        return PowerLadder(self.num_temperatures, 3.0).temperatures

    def raised_to(self, num_temperatures: int) -> "AdaptedLadder":
        """The same ladder with more temperatures, as many as are allowed."""
        raised = AdaptedLadder(min(num_temperatures, self.max_temperatures), self.max_temperatures)
        object.__setattr__(raised, "grows", True)
        return raised


def check_ladder(ladder: Ladder, method: str, *, fixed: bool = False, from_prior: bool = False) -> None:
    """Refuse a ladder that a method can't use.

    Args:
        ladder: to be checked.
        method: its name, for the message.
        fixed: whether the temperatures must be known before the run.
        from_prior: whether the first one must be 0.

    Raises:
        TypeError: it is not a ladder.
        ValueError: the temperatures are adapted, or do not start at 0.
    """
    check_kind(ladder, Ladder, "ladder", "a ladder such as `PowerLadder(16)`")
    if fixed and ladder.adapts:
        raise ValueError(
            f"`ladder` must be known before {method} runs, got `{type(ladder).__name__}`: give a `PowerLadder`, "
            "`GeometricLadder` or `GivenLadder`."
        )
    if from_prior and not ladder.starts_at_prior:
        raise ValueError(f"`ladder` must start at 0, the prior, for {method}, got {ladder.temperatures[0]} first.")
