"""The composite Gauss-Kronrod (7, 15) rule: nodes, weights, sums and an error estimate."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.polynomial import legendre

# The (7, 15) pair on [-1, 1] (Kronrod 1965; QUADPACK, Piessens et al. 1983). Nodes and weights for x >= 0.
_HALF_NODES = np.array([
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851, 0.864864423359769072789712788640926,
    0.741531185599394439863864773280788, 0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245, 0.000000000000000000000000000000000,
])  # fmt: skip
_HALF_KRONROD = np.array([
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204, 0.104790010322250183839876322541518,
    0.140653259715525918745189590510238, 0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714,
])  # fmt: skip
_HALF_GAUSS = np.array([
    0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780,
    0.0, 0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327,
])  # fmt: skip
NODES = np.concatenate([-_HALF_NODES, _HALF_NODES[-2::-1]])
KRONROD = np.concatenate([_HALF_KRONROD, _HALF_KRONROD[-2::-1]])
GAUSS = np.concatenate([_HALF_GAUSS, _HALF_GAUSS[-2::-1]])
DEGREE = len(NODES) - 1
# Legendre coefficients of a polynomial of degree 14 to its values at the nodes, and back.
FROM_LEGENDRE = legendre.legvander(NODES, DEGREE)
TO_LEGENDRE = np.linalg.inv(FROM_LEGENDRE)
SUMS = np.stack([KRONROD, KRONROD - GAUSS, *TO_LEGENDRE[-4:]], axis=1)

# Matrix products keep every digit of the working precision on every device.
contract = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Panels(NamedTuple):
    """What quadrature needs of densities, known up to a factor, on their panels. Panels come first, densities last.

    Attributes:
        edges: shape (N + 1, ...), increasing, the rest broadcasting with batch_shape; a panel may have no width.
        peak: log-density at the panel's highest node, shape (N,) + batch_shape; -inf for a panel of no width.
        sums: of the density over its peak: Kronrod sum, Kronrod less Gauss sum, last four Legendre coefficients, shape
            (6, N) + batch_shape.
        step: largest change of the log-density between nearby nodes, shape (N,) + batch_shape.
    """

    edges: Array
    peak: Array
    sums: Array
    step: Array

    @property
    def half_width(self) -> Array:
        """Half the width of each panel, shape (N, ...)."""
        return 0.5 * jnp.diff(self.edges, axis=0)

    def mass(self, log_scale: Array) -> Array:
        """Each panel's integral over exp(log_scale), which broadcasts with it, shape (N,) + batch_shape."""
        return self.half_width * self.sums[0] * jnp.exp(self.peak - log_scale)


def panel_nodes(edges: Array) -> Array:
    """Kronrod nodes of every panel, shape (15, N, ...) for edges of shape (N + 1, ...)."""
    half = 0.5 * jnp.diff(edges, axis=0)
    return (edges[:-1] + half) + half * _column(NODES, half)


def evaluate(log_density: Callable[[Array], Array], edges: Array) -> tuple[Panels, Array, Array]:
    """Densities at all nodes of their panels at once.

    Args:
        log_density: maps points of shape (15, N, ...) to values of shape (15, N) + batch_shape.
        edges: shape (N + 1, ...), the rest broadcasting with batch_shape.

    Returns:
        The panels; the density over its peak at the nodes, in [0, 1], and the log-density there, shape
        (15, N) + batch_shape each.
    """
    used = jnp.diff(edges, axis=0) > 0
    # Nodes of panels without a width lie in the middle of the whole, where the density is finite.
    values = log_density(jnp.where(used, panel_nodes(edges), 0.5 * (edges[:1] + edges[-1:])))
    fixed = jax.lax.stop_gradient(values)
    peak = jnp.max(fixed, axis=0)
    # XLA's CPU compiler would evaluate the exponentials anew for each of their uses.
    shape = jax.lax.optimization_barrier(jnp.exp(values - jnp.where(jnp.isfinite(peak), peak, 0.0)))
    step = jnp.max(jnp.abs(jnp.diff(fixed[::2], axis=0)), axis=0)
    return Panels(edges, jnp.where(used, peak, -jnp.inf), sums_of_nodes(shape), step), shape, values


def sums_of_nodes(shape: Array) -> Array:
    """`Panels.sums` of a density over its peak at the nodes, (15, ...) to (6, ...)."""
    return multiply_nodes(SUMS.T, shape)


def multiply_nodes(matrix: np.ndarray, values: Array) -> Array:
    """A matrix (M, 15) times values at the nodes, (15, ...) to (M, ...), as one product."""
    flat = values.reshape(len(values), -1)
    product = contract("mj,jx->mx", np.asarray(matrix, values.dtype), flat)
    return product.reshape(len(matrix), *values.shape[1:])


def _column(numbers: np.ndarray, like: Array) -> np.ndarray:
    """Numbers along a new first axis, in front of those of another array."""
    return np.asarray(numbers, like.dtype).reshape(-1, *(1,) * like.ndim)


def log_total(panels: Panels, log_tails: Array) -> Array:
    """Logarithm of the whole mass, shape batch_shape."""
    highest = jnp.max(panels.peak, axis=0)
    highest = jnp.where(jnp.isfinite(highest), highest, 0.0)
    return jnp.logaddexp(highest + safe_log(jnp.sum(panels.mass(highest), axis=0)), log_tails)


def decay(sums: Array) -> tuple[Array, Array]:
    """The last two Legendre coefficients of a density, and what they say of those to come, over its peak, (...) each.

    The next two are taken to be smaller in the proportion in which the last two are smaller than those before, sixteen
    times at most; not where rounding makes them alike.

    Args:
        sums: as in `Panels`, shape (6, ...).
    """
    before, last = (jnp.abs(sums[i]) + jnp.abs(sums[i + 1]) for i in (2, 4))
    return last, last * jnp.clip(last / jnp.where(before > 0, before, 1.0), 1 / 16, 1.0)


def relative_truncation(sums: Array) -> Array:
    """Error estimate of a panel's integral, relative to it, (6, ...) to (...).

    QUADPACK's, min(1, (200 |K - G| / K)^1.5) by the embedded Gauss rule (after Piessens et al. 1983, sec. 2.2.4.1), or
    the Legendre coefficients beyond the last if these are less: Kronrod's sum errs by later ones only.
    """
    mass = jnp.where(sums[0] > 0, sums[0], 1.0)
    ratio = 200 * jnp.abs(sums[1]) / mass
    by_gauss = jnp.minimum(1.0, ratio * jnp.sqrt(ratio))
    return jnp.minimum(by_gauss, decay(sums)[1] / mass)


def truncation(panels: Panels, log_total: Array) -> Array:
    """Error estimate of each panel's integral relative to the whole mass, shape (N,) + batch_shape.

    Args:
        panels: the density at its nodes.
        log_total: logarithm of the whole mass, of a shape that broadcasts with the panels' masses.
    """
    return panels.mass(log_total) * relative_truncation(panels.sums)


def rounding(panels: Panels, log_total: Array, term_size: Array) -> Array:
    """Rounding errors of the log-density that quadrature can't undo, in nats, shape batch_shape.

    Four units of the largest log-density that matters, and one of the sum of the sizes of its terms, for they may cancel.

    Args:
        panels: the density at its nodes.
        log_total: logarithm of the whole mass, shape batch_shape.
        term_size: sum of the sizes of the log-density's terms, of a shape that broadcasts with batch_shape.
    """
    matters = panels.peak + safe_log(2 * panels.half_width) > log_total - 20
    largest = jnp.max(jnp.where(matters, jnp.abs(panels.peak), 0.0), axis=0)
    return jnp.finfo(largest.dtype).eps * (4 * jnp.maximum(largest, 1.0) + term_size)


def with_ends(edges: Array, low: Array, high: Array) -> Array:
    """The edges between low and high, those at an end being that end itself: panels without a width may stand there."""
    is_low, is_high = (jax.lax.stop_gradient(x) for x in (edges <= low, edges >= high))
    return jnp.where(is_low, low, jnp.where(is_high, high, edges))


def safe_log(x: Array) -> Array:
    """Logarithm, -inf at 0 with a gradient of 0."""
    positive = x > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, x, 1.0)), -jnp.inf)
