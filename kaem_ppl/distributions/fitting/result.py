"""The result of fitting: the density, its standard errors and bands, and how well it fits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtri
from jax.typing import ArrayLike

from ...arguments import as_array, as_number
from ...printing import to_html
from .goodness import GoodnessOfFit, kolmogorov_smirnov
from .observations import Observations
from .solution import Solution

if TYPE_CHECKING:
    from ..tilted import KANTilted


@dataclass(frozen=True, eq=False, repr=False)
class TiltedFit:
    """A density fitted to samples, or a bank of them; made by `KANTilted.fit`.

    Attributes:
        density: the fitted `KANTilted`.
        solution: coefficients in double precision, their covariance, and the penalties that were compared.
        observations: what the density was fitted to.
    """

    density: "KANTilted"
    solution: Solution
    observations: Observations

    def __repr__(self) -> str:
        smoothing, freedom = (np.asarray(x) for x in (self.smoothing, self.effective_parameters))
        found = ", ".join(
            f"{name}={_range(x)}" for name, x in (("smoothing", smoothing), ("effective_parameters", freedom))
        )
        return f"TiltedFit(batch_shape={self.density.batch_shape}, {found})"

    def _repr_html_(self) -> str:
        return to_html(repr(self))

    @property
    def smoothing(self) -> Array:
        """Factor of half the variance of f'' over the domain, whose length is taken for 1, shape `batch_shape`."""
        return self._shaped(self.solution.smoothing)

    @property
    def effective_parameters(self) -> Array:
        """Effective number of parameters, shape `batch_shape`."""
        return self._shaped(self.solution.freedom)

    @property
    def log_likelihood(self) -> Array:
        """Mean over the observations, by weight, shape `batch_shape`, in nats."""
        return self._shaped(self.solution.log_likelihood)

    def log_density_error(self, value: ArrayLike) -> Array:
        """Standard error of the log-density (delta method), shape of `value` broadcast with `batch_shape`.

        From the posterior of the coefficients under the prior that the penalty is, whose intervals hold the truth as
        often as they say on average over the curve, the bias of smoothing counted (Wahba 1983; Nychka 1988).
        """
        value = as_array(value, "value", float)
        energy, batch = self.density.energy, self.density.batch_shape
        shape = jnp.broadcast_shapes(value.shape, batch)
        with jax.enable_x64(True):
            z = jnp.clip(jnp.asarray(value, jnp.float64), energy.domain[..., 0], energy.domain[..., 1])
            features = energy.basis(jnp.broadcast_to(z, shape), energy.grid, energy.width)
            mean, covariance = (x.reshape(*batch, *x.shape[1:]) for x in (self.solution.mean, self.solution.covariance))
            centred = features - mean
            variance = jnp.einsum("...f,...fg,...g->...", centred, covariance, centred)
            error = np.sqrt(np.maximum(np.asarray(variance), 0.0))
        return jnp.asarray(error, float)

    def std_error(self, value: ArrayLike) -> Array:
        """Standard error of the density (delta method), shape of `value` broadcast with `batch_shape`."""
        return jnp.exp(self.density.log_prob(value)) * self.log_density_error(value)

    def band(self, value: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
        """Pointwise confidence limits of the density, normal on the scale of its logarithm.

        Args:
            value: points, of a shape that broadcasts with `batch_shape`.
            level: probability between the limits, in (0, 1).

        Returns:
            Lower and upper limit, each of the broadcast shape.
        """
        level = as_number(level, "level", above=0, below=1)
        half = ndtri(0.5 + 0.5 * level) * self.log_density_error(value)
        log_density = self.density.log_prob(value)
        return jnp.exp(log_density - half), jnp.exp(log_density + half)

    def probability_transform(self) -> Array:
        """F(x) of every observation, shape (n,) + batch_shape: uniform on [0, 1] where the density fits.

        Raises:
            ValueError: some observations are known only to lie in intervals.
        """
        if not np.all(self.observations.is_exact):
            raise ValueError("`upper` was given to `fit`: the probability transform is of exact observations only.")
        values = self.observations.values.T.reshape(-1, *self.density.batch_shape)
        return self.density.cdf(jnp.asarray(values, float))

    def goodness_of_fit(self) -> GoodnessOfFit:
        """Kolmogorov and Smirnov's test of each density against its own observations.

        Raises:
            ValueError: some observations are known only to lie in intervals.
        """
        uniform = np.asarray(self.probability_transform(), np.float64)
        rows = uniform.reshape(len(uniform), -1).T
        distance, p_value = kolmogorov_smirnov(rows, self.observations)
        return GoodnessOfFit(self._shaped(distance), self._shaped(p_value))

    def _shaped(self, values: Any) -> Array:
        return jnp.asarray(np.reshape(values, self.density.batch_shape), float)


def _range(x: np.ndarray) -> str:
    return f"{x.min():.3g}" if x.size == 1 else f"{x.min():.3g} to {x.max():.3g}"
