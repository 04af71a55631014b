"""`KANTilted`: one-dimensional densities exp(energy) times a reference."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from numpyro.distributions import Distribution
from numpyro.distributions.batch_util import vmap_over

from ..univariate import UnivariateKAN
from .bank import Bank
from .base import TiltedDistribution
from .stacking import aligned_first
from .validation import bank_shape, check_arguments


class KANTilted(TiltedDistribution):
    """The density p(z) = exp(f(z)) pi_0(z) / Z, f a learnt univariate function, pi_0 a reference distribution.

    f is constant outside its domain [a, b], so the density lives on the reference's whole support and its tails are the
    reference's, scaled. Z and the distribution function come from Gauss-Kronrod panels on the domain, draws from the
    inverse of that function (arXiv 2506.14167, sec. 3).

    Args:
        energy: f, a bank of functions.
        reference: pi_0, any univariate continuous NumPyro distribution with a density; its batch shape broadcasts with the
            bank's. The flat reference on the domain is `Uniform(a, b)`.
        validate_args: whether to look at the numbers, as NumPyro does; its default is NumPyro's.

    Raises:
        TypeError: where the energy is not a `UnivariateKAN` or the reference not a NumPyro distribution.
        ValueError: where shapes disagree, an energy is not finite, a grid is not increasing, the reference is
            multivariate, discrete or without a density, or domain and support do not overlap.

    Example:
        >>> import jax, numpyro.distributions as dist, kaem_ppl as kp
        >>> energy = kp.UnivariateKAN.init(jax.random.key(0), (8,), basis=kp.RBF(20), domain=(-3, 3))
        >>> prior = kp.KANTilted(energy, dist.Normal(0, 1))
        >>> prior.sample(jax.random.key(1), (100,)).shape
        (100, 8)
    """

    def __init__(self, energy: UnivariateKAN, reference: Distribution, *, validate_args: bool | None = None) -> None:
        check_values = self._validate_args if validate_args is None else validate_args
        batch_shape = check_arguments(energy, reference, bank_shape(energy), check_values)
        super().__init__(energy, reference, batch_shape, validate_args=validate_args)

    @classmethod
    def infer_shapes(
        cls, energy: tuple[int, ...], reference: tuple[int, ...] = ()
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Batch and event shape for a bank and a reference of these shapes."""
        return lax.broadcast_shapes(energy, reference), ()

    @property
    @aligned_first
    def log_normalizer(self) -> Array:
        """log Z, shape `batch_shape`; differentiable."""
        return self._resolve("log_normalizer")[0]

    @property
    @aligned_first
    def log_normalizer_error(self) -> Array:
        """Error estimate of log Z, shape `batch_shape`: the relative error of Z by the embedded Gauss rule."""
        return self._resolve("log_normalizer")[1]

    @aligned_first
    def log_ratio(self, value: Array) -> Array:
        return self.energy(value) - self.log_normalizer

    def _bank(self) -> Bank:
        left, right = (jnp.broadcast_to(self.energy(x), self.batch_shape) for x in self.interval)
        return self._make_bank(self.energy.basis.breakpoints(self.energy.grid), (left, right))

    def _of_components(self, values: Array) -> Array:
        return values.reshape(self.batch_shape)


@vmap_over.register  # pyright: ignore[reportCallIssue, reportArgumentType]: NumPyro's own never returns
def _vmap_over(d: KANTilted, energy: Any = None, reference: Any = None) -> KANTilted:
    return vmap_over.dispatch(Distribution)(d, energy=energy, reference=reference)
