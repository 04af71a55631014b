"""`KANCopula`: univariate densities joined by a Gaussian copula."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample
from numpyro.util import not_jax_tracer

from .. import reference as ref
from ..arguments import as_array, as_key, as_shape, describe
from ..whitening import from_standard_normal, to_standard_normal, uniform_masses


class KANCopula(Distribution):
    """A joint density of d variables with given marginals, whose normal scores Phi^-1(F_i(x_i)) are jointly normal.

    log p(x) = sum_i log p_i(x_i) + log N(e; 0, R) - sum_i log N(e_i; 0, 1), e_i = Phi^-1(F_i(x_i)) (Song 2000). Each score
    is computed from the logarithm of its own tail's mass. In w = L^-1 e, L the Cholesky factor of R, the density is
    the standard normal one, and both ways are in closed form: `whiten` and `unwhiten`.

    Args:
        marginals: univariate continuous distributions in the order of the variables, each of batch shape () or (k,),
            k variables of one kind; or a single one of batch shape (d,).
        correlation: R, shape (d, d), of the normal scores; None for independent variables.
        validate_args: whether to look at the numbers, as NumPyro does.

    Raises:
        TypeError: where a marginal is no distribution, or the correlation not made of numbers.
        ValueError: where a marginal is multivariate, discrete, without a density or of more than one batch axis, or the
            correlation is no correlation matrix of the marginals' number.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist, kaem_ppl as kp
        >>> normal = kp.KANTilted.fit(jax.random.normal(jax.random.key(0), (500, 2))).density
        >>> joint = kp.KANCopula([normal, dist.Gamma(2.0, 1.0)], jnp.eye(3))
        >>> joint.sample(jax.random.key(1), (100,)).shape
        (100, 3)
    """

    arg_constraints = {"correlation_cholesky": constraints.corr_cholesky}
    pytree_data_fields = ("marginals", "correlation_cholesky")
    pytree_aux_fields = ("_lengths",)
    marginals: tuple[Any, ...]
    correlation_cholesky: Array

    def __init__(
        self,
        marginals: Distribution | Sequence[Distribution],
        correlation: ArrayLike | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.marginals = _check_marginals(marginals)
        self._lengths = tuple(m.batch_shape[0] if m.batch_shape else 1 for m in self.marginals)
        number = sum(self._lengths)
        correlation = np.eye(number) if correlation is None else correlation
        self.correlation_cholesky = _cholesky(as_array(correlation, "correlation", float), number)
        super().__init__((), (number,), validate_args=validate_args)

    def __repr__(self) -> str:
        names = ", ".join(type(m).__name__ for m in self.marginals)
        return f"{type(self).__name__}(event_shape={self.event_shape}, marginals=({names}))"

    @property
    def correlation(self) -> Array:
        """R, of the normal scores, shape (d, d)."""
        return self.correlation_cholesky @ self.correlation_cholesky.T

    @property
    def has_rsample(self) -> bool:
        """Draws are differentiable in the correlation, and in the marginals where their quantiles are."""
        return True

    @property
    def support(self) -> constraints.Constraint:
        """The product of the marginals' supports."""
        parts = [m.support for m in self.marginals]
        if all(part is constraints.real for part in parts):
            return constraints.real_vector
        return constraints.independent(constraints.cat(parts, -1, self._lengths), 1)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """Log-density, shape of `value` without its last axis; -inf outside the support."""
        value = jnp.asarray(value)
        own, inside = [], []
        for marginal, x in self._parts(value):
            own.append(marginal.log_prob(x))
            inside.append(marginal.support(x))
        within = jnp.concatenate(inside, axis=-1)
        e = jnp.where(within, self._scores(value, within), 0.0)
        w = self._decorrelated(e)
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(self.correlation_cholesky)))
        dependence = 0.5 * jnp.sum(jnp.square(e) - jnp.square(w), axis=-1) - log_determinant
        total = jnp.sum(jnp.concatenate(own, axis=-1), axis=-1) + dependence
        return jnp.where(jnp.all(within, axis=-1), total, -jnp.inf)

    def sample(self, key: Array, sample_shape: int | tuple[int, ...] = ()) -> Array:
        """Exact draws, shape sample_shape + (d,); differentiable."""
        shape = self.shape(as_shape(sample_shape, "sample_shape"))
        masses = uniform_masses(as_key(key), shape, self.correlation_cholesky.dtype)
        return self.unwhiten(from_standard_normal_masses(*masses))

    def whiten(self, value: ArrayLike) -> Array:
        """Coordinates (..., d) in which the density is the standard normal one, of points (..., d) inside the support."""
        value = jnp.asarray(value)
        return self._decorrelated(self._scores(value, jnp.ones(value.shape, bool)))

    def unwhiten(self, coordinates: ArrayLike) -> Array:
        """The points (..., d) that have given whitened coordinates (..., d)."""
        e = jnp.einsum("...j,ij->...i", jnp.asarray(coordinates), self.correlation_cholesky)
        return jnp.concatenate([from_standard_normal(marginal, part) for marginal, part in self._parts(e)], axis=-1)

    @property
    def mean(self) -> Array:
        """Means of the marginals, shape (d,)."""
        return jnp.concatenate([jnp.reshape(m.mean, (k,)) for m, k in zip(self.marginals, self._lengths, strict=True)])

    @property
    def variance(self) -> Array:
        """Variances of the marginals, shape (d,)."""
        parts = zip(self.marginals, self._lengths, strict=True)
        return jnp.concatenate([jnp.reshape(m.variance, (k,)) for m, k in parts])

    def _parts(self, value: Array) -> list[tuple[Any, Array]]:
        """Each marginal and its variables, along the last axis."""
        ends = np.cumsum(self._lengths)[:-1].tolist()
        return list(zip(self.marginals, jnp.split(value, ends, axis=-1), strict=True))

    def _scores(self, value: Array, inside: Array) -> Array:
        """e, shape of the value; of a number of its own where a value is outside of its support."""
        ends = np.cumsum(self._lengths)[:-1].tolist()
        parts = zip(self._parts(value), jnp.split(inside, ends, axis=-1), strict=True)
        scores = []
        for (marginal, x), within in parts:
            x = jnp.where(within, x, marginal.support.feasible_like(x))
            scores.append(to_standard_normal(marginal, x))
        return jnp.concatenate(scores, axis=-1)

    def _decorrelated(self, e: Array) -> Array:
        flat = e.reshape(-1, e.shape[-1]).T
        solved = jax.scipy.linalg.solve_triangular(self.correlation_cholesky, flat, lower=True)
        return solved.T.reshape(e.shape)


def from_standard_normal_masses(below: Array, above: Array) -> Array:
    """Standard normal variables with given masses on either side, from the smaller of the two."""
    return ref.quantile(dist.Normal(0.0, 1.0), jnp.log(below), jnp.log(above))


def _check_marginals(marginals: Any) -> tuple[Distribution, ...]:
    given = (marginals,) if isinstance(marginals, Distribution) else marginals
    if not isinstance(given, tuple | list) or not given or not all(isinstance(m, Distribution) for m in given):
        raise TypeError(
            f"`marginals` must be a distribution or a sequence of distributions, got {describe(marginals)}."
        )
    for marginal in given:
        fault = ref.fault_of(marginal)
        if fault:
            raise ValueError(f"`marginals` holds {type(marginal).__name__}, which {fault}.")
        if len(marginal.batch_shape) > 1:
            raise ValueError(
                f"`marginals` must have batch shapes of at most one axis, got {marginal.batch_shape} of "
                f"{type(marginal).__name__}: flatten it."
            )
    return tuple(given)


def _cholesky(correlation: Array, number: int) -> Array:
    if correlation.shape != (number, number):
        raise ValueError(
            f"`correlation` must have shape {(number, number)}, one row for each variable, got {correlation.shape}."
        )
    factor = jnp.linalg.cholesky(correlation)
    if not_jax_tracer(correlation):
        matrix = np.asarray(correlation, np.float64)
        is_one = np.allclose(np.diag(matrix), 1, atol=1e-5) and np.allclose(matrix, matrix.T, atol=1e-5)
        if not (is_one and np.all(np.isfinite(factor))):
            raise ValueError(
                "`correlation` must be symmetric and positive definite with ones on its diagonal, got another matrix: "
                "drop variables that others determine."
            )
    return factor
