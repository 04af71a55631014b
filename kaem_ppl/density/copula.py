"""`KANCopula`: univariate densities joined by a copula, Gaussian or a vine of pairs."""

from collections.abc import Sequence
from typing import Any

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
from .gaussian import GaussianDependence
from .vine import DVine


class KANCopula(Distribution):
    """A joint density of d variables with given marginals, and a given dependence of their normal scores.

    log p(x) = sum_i log p_i(x_i) + log c(e), e_i = Phi^-1(F_i(x_i)) (Sklar 1959), of jointly normal scores
    log c(e) = log N(e; 0, R) - sum_i log N(e_i; 0, 1) (Song 2000). Each score is computed from the logarithm of its own
    tail's mass. There are coordinates w in which the density is the standard normal one, and both ways are in closed form,
    `whiten` and `unwhiten`: w = L^-1 e, L the Cholesky factor of R, or Rosenblatt's transform of a `DVine`.

    Args:
        marginals: univariate continuous distributions in the order of the variables, each of batch shape () or (k,),
            k variables of one kind; or a single one of batch shape (d,).
        dependence: of the normal scores: their correlation matrix R, shape (d, d), a `DVine`, or None for independent
            variables. What is kept is `dependence.correlation` of the former, and the vine itself.
        validate_args: whether to look at the numbers, as NumPyro does.

    Raises:
        TypeError: where a marginal is no distribution, or the dependence not made of numbers.
        ValueError: where a marginal is multivariate, discrete, without a density or of more than one batch axis, or the
            dependence is no correlation matrix or vine of the marginals' number.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist, kaem_ppl as kp
        >>> normal = kp.KANTilted.fit(jax.random.normal(jax.random.key(0), (500, 2))).density
        >>> joint = kp.KANCopula([normal, dist.Gamma(2.0, 1.0)], jnp.eye(3))
        >>> joint.sample(jax.random.key(1), (100,)).shape
        (100, 3)
    """

    arg_constraints = {}
    pytree_data_fields = ("marginals", "dependence")
    pytree_aux_fields = ("_lengths",)
    marginals: tuple[Any, ...]
    dependence: GaussianDependence | DVine

    def __init__(
        self,
        marginals: Distribution | Sequence[Distribution],
        dependence: ArrayLike | DVine | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.marginals = _check_marginals(marginals)
        self._lengths = tuple(m.batch_shape[0] if m.batch_shape else 1 for m in self.marginals)
        number = sum(self._lengths)
        self.dependence = _check_dependence(np.eye(number) if dependence is None else dependence, number)
        super().__init__((), (number,), validate_args=validate_args)

    def __repr__(self) -> str:
        names = ", ".join(type(m).__name__ for m in self.marginals)
        head = f"{type(self).__name__}(event_shape={self.event_shape}, marginals=({names}))"
        return f"{head}\n{self.dependence!r}" if isinstance(self.dependence, DVine) else head

    @property
    def has_rsample(self) -> bool:
        """Draws are differentiable in the dependence, and in the marginals where their quantiles are."""
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
        total = jnp.sum(jnp.concatenate(own, axis=-1), axis=-1) + self.dependence.log_density(e)
        return jnp.where(jnp.all(within, axis=-1), total, -jnp.inf)

    def sample(self, key: Array, sample_shape: int | tuple[int, ...] = ()) -> Array:
        """Exact draws, shape sample_shape + (d,); differentiable."""
        shape = self.shape(as_shape(sample_shape, "sample_shape"))
        masses = uniform_masses(as_key(key), shape, self.dependence.dtype)
        return self.unwhiten(from_standard_normal_masses(*masses))

    def whiten(self, value: ArrayLike) -> Array:
        """Coordinates (..., d) in which the density is the standard normal one, of points (..., d) inside the support."""
        value = jnp.asarray(value)
        return self.dependence.whiten(self._scores(value, jnp.ones(value.shape, bool)))

    def unwhiten(self, coordinates: ArrayLike) -> Array:
        """The points (..., d) that have given whitened coordinates (..., d)."""
        e = self.dependence.unwhiten(jnp.asarray(coordinates))
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


def _check_dependence(dependence: Any, number: int) -> GaussianDependence | DVine:
    if isinstance(dependence, DVine):
        if dependence.num_variables != number:
            raise ValueError(
                f"`dependence` must be of as many variables as the marginals, {number}, got a vine of "
                f"{dependence.num_variables}."
            )
        return dependence
    correlation = as_array(dependence, "dependence", float)
    if correlation.shape != (number, number):
        raise ValueError(
            f"`dependence` must be a correlation matrix of shape {(number, number)}, one row for each variable, or a "
            f"`DVine`, got {describe(correlation)}."
        )
    factor = jnp.linalg.cholesky(correlation)
    if not_jax_tracer(correlation):
        matrix = np.asarray(correlation, np.float64)
        is_one = np.allclose(np.diag(matrix), 1, atol=1e-5) and np.allclose(matrix, matrix.T, atol=1e-5)
        if not (is_one and np.all(np.isfinite(factor))):
            raise ValueError(
                "`dependence` must be a correlation matrix, symmetric and positive definite with ones on its diagonal, got "
                "another matrix: drop variables that others determine."
            )
    return GaussianDependence(factor)
