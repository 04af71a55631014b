"""Mixtures of tilted densities, collapsed into one table."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import vmap_over
from numpyro.util import not_jax_tracer

from .. import reference as ref
from ..quadrature import (
    Panels,
    contract,
    edges_of_tier,
    evaluate,
    log_total,
    refine,
    resolved,
    summarize,
    sums_of_nodes,
    with_spare_panels,
)
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


class KANTiltedMixture(TiltedDistribution):
    """The density p(z) = sum_k w_k exp(f_k(z)) pi_0(z) / Z_k over the last axis of a bank of energies.

    A mixture over one reference is still one-dimensional: its components are collapsed into one table of masses, so that
    no component is ever drawn, sampling costs the same for any number of them, and draws stay differentiable.

    Args:
        logits: unnormalised log-weights, shape (K,) or batch_shape + (K,).
        energy: f, a bank of shape batch_shape + (K,).
        reference: pi_0, as for `KANTilted`; its batch shape broadcasts with batch_shape.
        validate_args: as for `KANTilted`.

    Raises:
        TypeError: as for `KANTilted`.
        ValueError: as for `KANTilted`, and where the logits do not have one finite entry per component.
    """

    arg_constraints = {"logits": constraints.real_vector}
    pytree_data_fields = ("logits",)
    reparametrized_params = ["logits"]

    def __init__(
        self,
        logits: ArrayLike,
        energy: UnivariateKAN,
        reference: Distribution,
        *,
        validate_args: bool | None = None,
    ):
        check_values = self._validate_args if validate_args is None else validate_args
        bank = bank_shape(energy)
        if not bank:
            raise ValueError("energy has batch shape (): expected a last axis of components, batch_shape + (K,).")
        self.logits = logits if isinstance(logits, jax.Array) else jnp.asarray(logits, float)
        if jnp.shape(logits)[-1:] != bank[-1:]:
            raise ValueError(f"logits has shape {jnp.shape(logits)}: expected {bank[-1]} components, as energy has.")
        if check_values and not_jax_tracer(self.logits) and not np.all(np.isfinite(self.logits)):
            raise ValueError("logits holds values that are not finite: expected finite numbers throughout.")
        batch_shape = check_arguments(
            energy, reference, lax.broadcast_shapes(bank[:-1], jnp.shape(logits)[:-1]), check_values
        )
        super().__init__(energy, reference, batch_shape, validate_args=validate_args)

    @classmethod
    def infer_shapes(
        cls, logits: tuple[int, ...], energy: tuple[int, ...], reference: tuple[int, ...] = ()
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Batch and event shape for logits, a bank and a reference of these shapes."""
        return lax.broadcast_shapes(logits[:-1], energy[:-1], reference), ()

    @property
    @aligned_first
    def log_normalizer(self) -> Array:
        """log Z_k of each component, shape batch_shape + (K,); differentiable."""
        return self._resolve("log_normalizer")[0]

    @property
    @aligned_first
    def log_normalizer_error(self) -> Array:
        """Error estimate of each log Z_k, shape batch_shape + (K,), by the embedded Gauss rule."""
        return self._resolve("log_normalizer")[1]

    @aligned_first
    def log_ratio(self, value):
        return jax.nn.logsumexp(self._log_weights(self.log_normalizer) + self.energy.components(value), axis=-1)

    def _log_weights(self, log_normalizer):
        """log w_k - log Z_k, shape batch_shape + (K,)."""
        return jax.nn.log_softmax(self.logits, axis=-1) - log_normalizer

    @property
    def _domain(self):
        a, b = self.energy.domain[..., 0], self.energy.domain[..., 1]
        return (jnp.min(a, axis=-1), jnp.max(b, axis=-1)) if a.ndim else (a, b)

    def _outside(self):
        """Energies at both ends of the interval, shape batch_shape + (K,), and log-masses of the reference beyond them."""
        interval = self.interval
        energies = tuple(self.energy.components(jnp.broadcast_to(x, self.batch_shape)) for x in interval)
        return energies, ref.log_outside(self.reference, *interval)

    def _component_log_density(self, z):
        """exp(f_k) pi_0 in logarithms at points shared by components, (M,) or batch_shape + (1, M), or their own."""
        if z.ndim == 1:
            log_pi_0 = log_reference(self.reference, z)
            return (
                self.energy.outer(z, log_pi_0) if log_pi_0.ndim == 1 else self.energy.outer(z) + log_pi_0[..., None, :]
            )
        # The components' axis goes to the front, where the reference's batch does not see it.
        log_pi_0 = jax.vmap(lambda z: log_reference(self.reference, z), in_axes=-2, out_axes=-2)(z)
        return self.energy.outer(z) + log_pi_0

    def _seeds(self):
        # Knots of each component's own would be too many for one table.
        grid = self.energy.grid
        return seed_panels(self, self.energy.basis.breakpoints(grid) if grid.ndim == 1 else None)

    def _frame(self):
        return self._seeds(), *self._outside()

    def _integrate(self, what, tier, frame, own_edges=None):
        """Components first; the table is that of their sum, on panels of its own where the components need theirs."""
        seeds, energies, outside = frame
        component_seeds, log_tails = _by_component(*frame)
        own_of_components, own = (None, None) if own_edges is None else own_edges
        component_edges = edges_of_tier(component_seeds, tier, own_of_components, log_tails.ndim)
        if tier == 0:
            panels, shapes = evaluate(self._component_log_density, component_edges)
        else:
            panels, shapes = summarize(self._component_log_density, component_edges), None
        serves = jnp.all(resolved(panels, log_tails))
        log_normalizer = total_and_error(panels, log_tails, self.energy)
        if what == "log_normalizer":
            return log_normalizer, serves
        if what == "both":
            constant = jax.lax.stop_gradient((self, panels, shapes, log_tails, seeds, energies, own))
            self, panels, shapes, log_tails, seeds, energies, own = constant

        log_weights = self._log_weights(log_total(panels, log_tails))
        if tier == 0:
            collapsed, shape = _add_components(log_weights, seeds, panels, shapes)
        else:
            edges = edges_of_tier(seeds, tier, own, len(self.batch_shape))
            collapsed, shape = evaluate(partial(self._collapsed_log_density, log_weights), edges)
        factors = _outer_factors(log_weights, energies)
        table = tabulate(collapsed, shape, factors, outside, 4 * (seeds.shape[-1] - 1))
        return (table if what == "table" else (table, log_normalizer)), serves

    def _own_edges(self, frame, refined=True):
        """Panels of each component, and of their sum."""
        self, frame = jax.lax.stop_gradient((self, frame))
        seeds, energies, outside = frame
        component_seeds, log_tails = _by_component(*frame)
        if not refined:
            shapes = (log_tails.shape, self.batch_shape)
            return tuple(with_spare_panels(*x) for x in zip((component_seeds, seeds), shapes, strict=True))
        component_edges = refine(self._component_log_density, component_seeds, log_tails)
        panels = summarize(self._component_log_density, component_edges)
        log_weights = self._log_weights(log_total(panels, log_tails))
        tails = jnp.broadcast_to(add_tails(_outer_factors(log_weights, energies), outside), self.batch_shape)
        return component_edges, refine(partial(self._collapsed_log_density, log_weights), seeds, tails)

    def _collapsed_log_density(self, log_weights, z):
        """Log-density of the sum at points (M,) or (..., M), the leading part broadcasting with the batch shape."""
        z = z if z.ndim == 1 else z[..., None, :]
        return jax.nn.logsumexp(log_weights[..., None] + self._component_log_density(z), axis=-2)


def _add_components(log_weights, edges, panels, shapes):
    """Panels of the sum, and its values over their peaks at the nodes: a sum of resolved densities is resolved."""
    level = log_weights[..., None] + panels.peak
    peak = jax.lax.stop_gradient(jnp.max(level, axis=-2))
    relative = jnp.exp(level - jnp.where(jnp.isfinite(peak), peak, 0.0)[..., None, :])
    shape = contract("...kn,...kjn->...jn", relative, shapes)
    return Panels(edges, peak, sums_of_nodes(shape), jnp.max(panels.step, axis=-2)), shape


def _outer_factors(log_weights, energies):
    """Logarithms of the sum over the reference left and right of the interval, from the components' energies there."""
    return tuple(jax.nn.logsumexp(log_weights + energy, axis=-1) for energy in energies)


def _by_component(seeds, energies, outside):
    """Seeds of each component, shared by all where the latents share them, and logarithms of each component's tails."""
    log_tails = add_tails(energies, tuple(jnp.asarray(mass)[..., None] for mass in outside))
    if seeds.ndim > 1:
        seeds = jnp.broadcast_to(seeds[..., None, :], (*log_tails.shape, seeds.shape[-1]))
    return seeds, log_tails


@vmap_over.register
def _vmap_over(d: KANTiltedMixture, logits: Any = None, energy: Any = None, reference: Any = None) -> KANTiltedMixture:
    return vmap_over.dispatch(Distribution)(d, logits=logits, energy=energy, reference=reference)
