"""Mixtures of tilted densities, collapsed into one table."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import vmap_over
from numpyro.util import not_jax_tracer

from ..arguments import as_array
from ..univariate import UnivariateKAN
from .bank import Bank
from .base import TiltedDistribution
from .stacking import aligned_first
from .validation import bank_shape, check_arguments


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

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist, kaem_ppl as kp
        >>> energy = kp.UnivariateKAN.init(jax.random.key(0), (8, 5), basis=kp.RBF(20), domain=(-3, 3))
        >>> prior = kp.KANTiltedMixture(jnp.zeros(5), energy, dist.Normal(0, 1))  # of five components each
        >>> prior.sample(jax.random.key(1), (100,)).shape
        (100, 8)
    """

    arg_constraints = TiltedDistribution.arg_constraints | {"logits": constraints.real_vector}
    pytree_data_fields = ("logits",)
    reparametrized_params = [*TiltedDistribution.reparametrized_params, "logits"]

    def __init__(
        self,
        logits: ArrayLike,
        energy: UnivariateKAN,
        reference: Distribution,
        *,
        validate_args: bool | None = None,
    ) -> None:
        check_values = self._validate_args if validate_args is None else validate_args
        bank = bank_shape(energy)
        if not bank:
            raise ValueError("energy has batch shape (): expected a last axis of components, batch_shape + (K,).")
        self.logits = logits if isinstance(logits, jax.Array) else as_array(logits, "logits", float)
        if jnp.shape(self.logits)[-1:] != bank[-1:]:
            raise ValueError(
                f"logits has shape {jnp.shape(self.logits)}: expected {bank[-1]} components, as energy has."
            )
        if check_values and not_jax_tracer(self.logits) and not np.all(np.isfinite(self.logits)):
            raise ValueError("logits holds values that are not finite: expected finite numbers throughout.")
        batch_shape = check_arguments(
            energy, reference, lax.broadcast_shapes(bank[:-1], jnp.shape(self.logits)[:-1]), check_values
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
    def log_ratio(self, value: Array) -> Array:
        return jax.nn.logsumexp(self._log_weights(self.log_normalizer) + self.energy.components(value), axis=-1)

    def _log_weights(self, log_normalizer: Array) -> Array:
        """log w_k - log Z_k, shape batch_shape + (K,)."""
        return jax.nn.log_softmax(self.logits, axis=-1) - log_normalizer

    @property
    def _domain(self) -> tuple[Array, Array]:
        a, b = self.energy.domain[..., 0], self.energy.domain[..., 1]
        return (jnp.min(a, axis=-1), jnp.max(b, axis=-1)) if a.ndim else (a, b)

    def _bank(self) -> Bank:
        # Knots of each component's own would be too many for one table.
        grid = self.energy.grid
        breakpoints = self.energy.basis.breakpoints(grid) if grid.ndim == 1 else None
        left, right = (self.energy.components(jnp.broadcast_to(x, self.batch_shape)) for x in self.interval)
        return self._make_bank(breakpoints, (left, right), jax.nn.log_softmax(self.logits, axis=-1))

    def _of_components(self, values: Array) -> Array:
        return values.reshape(*self.batch_shape, self.energy.batch_shape[-1])


@vmap_over.register  # pyright: ignore[reportCallIssue, reportArgumentType]: NumPyro's own never returns
def _vmap_over(d: KANTiltedMixture, logits: Any = None, energy: Any = None, reference: Any = None) -> KANTiltedMixture:
    return vmap_over.dispatch(Distribution)(d, logits=logits, energy=energy, reference=reference)
