"""Where a function and its formulae are compared: its values in double precision at points that stand for its inputs."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ..quadrature import KRONROD, NODES
from ..univariate import UnivariateKAN
from .forms import Floats, inner_starts
from .functions import Term

# Equally likely points of the inputs' distribution at which constants inside functions are searched for.
_NUM_POINTS = 256
# Of the sizes of a function's terms: what rounding makes of a constant function.
_ROUNDING = 10.0


@dataclass(frozen=True, eq=False)
class Starts:
    """Values of every function's starting terms at the points of a search; shared by functions of the same inputs.

    Attributes:
        z: the points, shape (256,).
        interval: from the first to the last.
        features: by name of the elementary function, its terms and their values less their means, shape (terms, 256).
    """

    z: Floats
    interval: tuple[float, float]
    features: dict[str, tuple[list[Term], Floats]]

    @classmethod
    def of(cls, z: Floats, names: set[str]) -> "Starts":
        """Of these functions by name, at increasing points."""
        low, high = float(z[0]), float(z[-1])
        interval = low, high if high > low else low + 1.0
        found = {}
        for name in names:
            terms = inner_starts(name, interval)
            values = np.stack([term(np, z) for term in terms])
            found[name] = terms, values - values.mean(1, keepdims=True)
        return cls(z, interval, found)


class Target:
    """One function and the distribution of its inputs.

    Args:
        function: of batch shape (), in double precision.
        samples: of its inputs, shape (n,); None for the uniform distribution on its domain.
        num_kinks: how many kinks of a formula an integral over the domain allows for.

    Attributes:
        interval: the domain; inputs beyond it count as its ends, where the function stays constant.
        search_z: points at equally spaced quantiles of the inputs.
        search_values: of the function there.
        mean: of the function under its inputs.
        std: standard deviation of the function under its inputs.
        is_flat: whether that is no more than rounding.
    """

    def __init__(self, function: UnivariateKAN, samples: Floats | None, num_kinks: int) -> None:
        low, high = (float(x) for x in np.asarray(function.domain))
        self.interval = low, high
        self._function, self._num_kinks = function, num_kinks
        middles = (np.arange(_NUM_POINTS) + 0.5) / _NUM_POINTS
        if samples is None:
            self.search_z = low + (high - low) * middles
            self._samples = None
            with jax.enable_x64(True):
                breaks = function.basis.breakpoints(jnp.asarray(function.grid))
            edges = np.linspace(low, high, function.basis.num_panels + 1)
            self._edges = edges if breaks is None else np.union1d(edges, np.clip(np.asarray(breaks, float), low, high))
            z, weights = self._panels(())
        else:
            self._samples = np.clip(samples, low, high)
            self.search_z = np.quantile(self._samples, middles)
            z, weights = self._samples, np.full(len(samples), 1 / len(samples))
        values = evaluate(function, np.concatenate([self.search_z, z]))
        self.search_values, values = values[:_NUM_POINTS], values[_NUM_POINTS:]
        self._points = z, weights, values
        self.mean = float(weights @ values)
        self.std = float(np.sqrt(weights @ (values - self.mean) ** 2))
        rounding = np.finfo(np.float32).eps * float(function.term_size)
        self.is_flat = self.std <= _ROUNDING * rounding

    def points(self, kinks: list[float]) -> tuple[Floats, Floats, Floats]:
        """Points, their weights, which sum to 1, and the function's values, (M,) each.

        Args:
            kinks: of a formula; an integral over the domain is divided there.
        """
        inside = tuple(x for x in kinks if self.interval[0] < x < self.interval[1])
        if self._samples is not None or not inside:
            return self._points
        z, weights = self._panels(inside)
        return z, weights, evaluate(self._function, z)

    def _panels(self, kinks: tuple[float, ...]) -> tuple[Floats, Floats]:
        """Points and weights of the uniform distribution; as many whatever the number of kinks, for the compiler's sake."""
        spare = [self.interval[1]] * (self._num_kinks - len(kinks))
        edges = np.sort(np.concatenate([self._edges, kinks, spare]))
        half = 0.5 * np.diff(edges)[:, None]
        z = edges[:-1, None] + half + half * NODES
        weights = half * KRONROD / (self.interval[1] - self.interval[0])
        return np.clip(z, *self.interval).ravel(), weights.ravel()


def in_double_precision(bank: UnivariateKAN) -> UnivariateKAN:
    """The bank with arrays of NumPy in double precision."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), bank)


def evaluate(function: UnivariateKAN, z: Floats) -> Floats:
    """Values of one function at points (M,), in double precision."""
    with jax.enable_x64(True):
        return np.asarray(_evaluate(function, jnp.asarray(z)))


@jax.jit
def _evaluate(function: UnivariateKAN, z: jax.Array) -> jax.Array:
    return function(z)
