"""Mixtures of tilted densities, collapsed into one table."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.util import not_jax_tracer

from .. import reference as ref
from ..quadrature import (
    Panels,
    divide_seeds,
    evaluate,
    log_total,
    over_panels,
    pad_end,
    refine,
    relative_error,
    select_panels,
    summarize,
    with_ends_of,
)
from ..table import Table, tabulate
from ..univariate import UnivariateKAN
from .base import TiltedDistribution, add_tails, check_arguments, log_reference, seed_panels


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

    def __init__(
        self,
        logits: ArrayLike,
        energy: UnivariateKAN,
        reference: Distribution,
        *,
        validate_args: bool | None = None,
    ):
        check_values = self._validate_args if validate_args is None else validate_args
        bank = energy.batch_shape if isinstance(energy, UnivariateKAN) else (1,)
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

    @property
    def log_normalizer(self) -> Array:
        """log Z_k of each component, shape batch_shape + (K,); differentiable."""
        return self._remember("log_normalizer", _log_normalizer)[0]

    @property
    def log_normalizer_error(self) -> Array:
        """Error estimate of each log Z_k, shape batch_shape + (K,), by the embedded Gauss rule."""
        return self._remember("log_normalizer", _log_normalizer)[1]

    def _log_ratio(self, value):
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
        interval = self._interval
        energies = tuple(self.energy.components(jnp.broadcast_to(x, self.batch_shape)) for x in interval)
        return energies, ref.log_outside(self.reference, *interval)

    def _component_tails(self):
        energies, outside = self._outside()
        return add_tails(energies, tuple(jnp.asarray(mass)[..., None] for mass in outside))

    def _component_log_density(self, z):
        """exp(f_k) pi_0 in logarithms at points shared by components, (M,) or batch_shape + (1, M), or their own."""
        if z.ndim == 1:
            log_pi_0 = log_reference(self.reference, z)
            return self.energy.outer(z) + (log_pi_0[..., None, :] if self.reference.batch_shape else log_pi_0)
        # The components' axis goes to the front, where the reference's batch does not see it.
        log_pi_0 = jax.vmap(lambda z: log_reference(self.reference, z), in_axes=-2, out_axes=-2)(z)
        return self.energy.outer(z) + log_pi_0

    def _seeds(self):
        # Knots of each component's own would be too many for one table.
        grid = self.energy.grid
        return seed_panels(self, self.energy.basis.breakpoints(grid) if grid.ndim == 1 else None)

    def _tabulate(self) -> Table:
        """One table of the collapsed density; where components need their own panels, the sum is resolved on its own."""
        (left, right), outside = self._outside()
        seeds, log_tails = self._seeds(), self._component_tails()
        size = 4 * (seeds.shape[-1] - 1)
        component_seeds = _by_component(seeds, log_tails)
        panels, shapes = evaluate(self._component_log_density, component_seeds)

        def outer_factors(log_weights):
            return tuple(jax.nn.logsumexp(log_weights + energy, axis=-1) for energy in (left, right))

        # A sum of resolved densities is resolved: add the components up at the nodes.
        log_weights = self._log_weights(log_total(panels, log_tails))
        level = log_weights[..., None] + panels.peak
        peak = jax.lax.stop_gradient(jnp.max(level, axis=-2))
        relative = jnp.exp(level - jnp.where(jnp.isfinite(peak), peak, 0.0)[..., None, :])[..., None]
        sums, shape = (jnp.sum(relative * x, axis=-3) for x in (panels.sums, shapes))
        collapsed = Panels(seeds, peak, sums, jnp.max(panels.step, axis=-2))
        coarse = tabulate(collapsed, shape, outer_factors(log_weights), outside, size)

        constant, fixed_tails = jax.lax.stop_gradient((self, log_tails))
        component_log_density = constant._component_log_density
        level, component_edges = select_panels(component_log_density, component_seeds, fixed_tails, panels)

        def own_edges(seeds):
            """Panels of the sum's own, where components have their own."""
            own = log_total(summarize(component_log_density, component_edges), fixed_tails)
            log_weights = constant._log_weights(own)
            tails = add_tails(jax.lax.stop_gradient(outer_factors(log_weights)), outside)
            return refine(partial(_collapse, constant, log_weights), seeds, jax.lax.stop_gradient(tails))

        def unused(seeds):
            edges = pad_end(seeds, seeds.shape[-1] - 1)
            return jnp.broadcast_to(edges, (*self.batch_shape, edges.shape[-1]))

        edges = jax.lax.cond(level == 2, own_edges, unused, jax.lax.stop_gradient(seeds))

        def on_panels(self, component_edges, edges):
            own = log_total(summarize(self._component_log_density, component_edges), log_tails)
            log_weights = self._log_weights(own)
            measured = evaluate(partial(_collapse, self, log_weights), edges)
            return tabulate(*measured, outer_factors(log_weights), outside, size)

        @jax.checkpoint
        def on_finer_seeds(self, seeds, component_edges, edges):
            finer = divide_seeds(component_seeds, log_tails.ndim), divide_seeds(seeds, log_tails.ndim - 1)
            return on_panels(self, *finer)

        @jax.checkpoint
        def on_own_panels(self, seeds, component_edges, edges):
            ends = _by_component(seeds, log_tails)
            return on_panels(self, with_ends_of(ends, component_edges), with_ends_of(seeds, edges))

        branches = (lambda *_: coarse, on_finer_seeds, on_own_panels)
        return jax.lax.switch(level, branches, self, seeds, component_edges, edges)


def _collapse(self, log_weights, z):
    """Log-density of the sum at points of shape (M,) or (..., M), the leading part broadcasting with the batch shape."""
    z = z if z.ndim == 1 else z[..., None, :]
    return jax.nn.logsumexp(log_weights[..., None] + self._component_log_density(z), axis=-2)


@jax.jit
def _log_normalizer(self):
    log_tails, seeds = self._component_tails(), self._seeds()

    def integrate(panels):
        return log_total(panels, log_tails), jax.lax.stop_gradient(relative_error(panels, log_tails))

    return over_panels(
        KANTiltedMixture._component_log_density,
        self,
        _by_component(seeds, log_tails),
        log_tails,
        integrate,
        measure=summarize,
    )


def _by_component(seeds, log_tails):
    """Seeds of each component: shared by all where the latents share them."""
    if seeds.ndim == 1:
        return seeds
    return jnp.broadcast_to(seeds[..., None, :], (*log_tails.shape, seeds.shape[-1]))
