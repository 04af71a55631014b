"""A bank of one-dimensional densities, each an energy over a reference."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from numpyro.distributions import Distribution
from numpyro.distributions.batch_util import vmap_over

from .. import reference as ref
from ..quadrature import edges_of_tier, evaluate, refine, resolved, summarize, with_spare_panels
from ..table import tabulate
from ..univariate import UnivariateKAN
from .base import (
    TiltedDistribution,
    add_tails,
    bank_shape,
    check_arguments,
    log_reference,
    seed_panels,
    total_and_error,
)
from .stacking import aligned_first


class KANTilted(TiltedDistribution):
    """The density p(z) = exp(f(z)) pi_0(z) / Z, f a learnt univariate function, pi_0 a reference distribution.

    f is constant outside its domain [a, b], so the density lives on the reference's whole support and its tails are the
    reference's, scaled. Z and the distribution function come from Gauss-Kronrod panels on the domain, draws from the
    inverse of that function (arXiv 2506.14167, sec. 3).

    Args:
        energy: f, a bank of functions.
        reference: pi_0, any univariate NumPyro distribution with `cdf` and `icdf`; its batch shape broadcasts with the
            bank's. The flat reference on the domain is `Uniform(a, b)`.
        validate_args: whether to look at the numbers, as NumPyro does; its default is NumPyro's.

    Raises:
        TypeError: where the energy is not a `UnivariateKAN` or the reference not a NumPyro distribution.
        ValueError: where shapes disagree, an energy is not finite, a grid is not increasing, the reference is
            multivariate, discrete or lacks `cdf` or `icdf`, or domain and support do not overlap.

    Example:
        >>> import jax, numpyro.distributions as dist, kaem_ppl as kp
        >>> energy = kp.UnivariateKAN.init(jax.random.key(0), (8,), basis=kp.RBF(20), domain=(-3, 3))
        >>> prior = kp.KANTilted(energy, dist.Normal(0, 1))
        >>> prior.sample(jax.random.key(1), (100,)).shape
        (100, 8)
    """

    def __init__(self, energy: UnivariateKAN, reference: Distribution, *, validate_args: bool | None = None):
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
    def log_ratio(self, value):
        return self.energy(value) - self.log_normalizer

    def _log_density(self, z):
        log_pi_0 = log_reference(self.reference, z)
        return self.energy.outer(z, log_pi_0) if log_pi_0.ndim == 1 else self.energy.outer(z) + log_pi_0

    def _outside(self):
        """Energies at the two ends of the interval, and logarithms of the reference's masses beyond them."""
        interval = self.interval
        energies = tuple(jnp.broadcast_to(self.energy(x), self.batch_shape) for x in interval)
        return energies, ref.log_outside(self.reference, *interval)

    def _seeds(self):
        return seed_panels(self, self.energy.basis.breakpoints(self.energy.grid))

    def _frame(self):
        return self._seeds(), *self._outside()

    def _integrate(self, what, tier, frame, own_edges=None):
        seeds, energies, outside = frame
        log_tails = add_tails(energies, outside)
        edges = edges_of_tier(seeds, tier, own_edges, log_tails.ndim)
        if tier == 0 or what == "table":
            panels, shape = evaluate(self._log_density, edges)
        else:
            panels = summarize(self._log_density, edges)
        serves = jnp.all(resolved(panels, log_tails))
        if what == "log_normalizer":
            return total_and_error(panels, log_tails, self.energy), serves

        log_normalizer = total_and_error(panels, log_tails, self.energy)
        if what == "both":
            if tier == 0:
                panels, shape = jax.lax.stop_gradient((panels, shape))
            else:
                fixed, edges = jax.lax.stop_gradient((self, edges))
                panels, shape = evaluate(fixed._log_density, edges)
            energies, outside = jax.lax.stop_gradient((energies, outside))
        table = tabulate(panels, shape, energies, outside, 4 * (seeds.shape[-1] - 1))
        return (table if what == "table" else (table, log_normalizer)), serves

    def _own_edges(self, frame, refined=True):
        self, (seeds, *outer) = jax.lax.stop_gradient((self, frame))
        log_tails = add_tails(*outer)
        return refine(self._log_density, seeds, log_tails) if refined else with_spare_panels(seeds, log_tails.shape)


@vmap_over.register
def _vmap_over(d: KANTilted, energy: Any = None, reference: Any = None) -> KANTilted:
    return vmap_over.dispatch(Distribution)(d, energy=energy, reference=reference)
