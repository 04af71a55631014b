"""Looking inside a trained model: which latents change its output most, and paths through the latents."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from kaem_ppl.arguments import as_array, as_count, as_key, check_callable, check_kind
from kaem_ppl.compilation import flat_draws
from kaem_ppl.reference import fault_of, support_bounds
from kaem_ppl.whitening import from_standard_normal, to_standard_normal

# Outputs that are evaluated together.
_OUTPUTS_AT_ONCE = 2**22


def interpolate(prior: dist.Distribution, start: ArrayLike, end: ArrayLike, num_points: int = 9) -> Array:
    """A path between two points whose every point follows the prior where both ends do.

    In the coordinates in which the prior is standard normal, e = Phi^-1(F(z)), the path is cos(a) e_start + sin(a) e_end,
    a from 0 to pi / 2: of two independent normal draws that is one again, which a straight line is not.

    Args:
        prior: of the latents, such as `kan_prior` returns; of independent univariate ones.
        start: a point inside the support, of a shape whose last axes are those of the prior.
        end: the same.
        num_points: on the path, both ends among them.

    Returns:
        Shape (num_points,) + that of `start`.

    Raises:
        ValueError: the prior is of another kind, or the points are of another shape.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist, kaem_ppl as kp
        >>> from kaem_ppl.models import interpolate
        >>> energy = kp.UnivariateKAN.init(jax.random.key(0), (2,), basis=kp.RBF(8), domain=(-3, 3))
        >>> prior = kp.KANTilted(energy, dist.Normal(0, 1))
        >>> interpolate(prior, jnp.array([-1.0, 0.0]), jnp.array([1.0, 2.0]), 5).shape
        (5, 2)
    """
    prior, number = _univariate(prior), as_count(num_points, "num_points", 2)
    ends = [_point(x, name, prior) for x, name in ((start, "start"), (end, "end"))]
    first, last = (to_standard_normal(prior, x) for x in jnp.broadcast_arrays(*ends))
    angle = jnp.linspace(0.0, 0.5 * jnp.pi, number).reshape(-1, *(1,) * first.ndim)
    path = from_standard_normal(prior, jnp.cos(angle) * first + jnp.sin(angle) * last)
    # The ends themselves, to the last digit.
    return path.at[0].set(jnp.broadcast_to(ends[0], first.shape)).at[-1].set(jnp.broadcast_to(ends[1], first.shape))


def traverse(
    prior: dist.Distribution, z: ArrayLike, index: tuple[int, ...] | int, num_points: int = 9, mass: float = 0.98
) -> Array:
    """A point with one of its latents moved along that latent's own quantiles, or several of them together.

    Args:
        prior: of the latents.
        z: the point, of the prior's shape.
        index: of the latent. Fewer indices than the prior has axes move all P latents that stand there, in the coordinates
            in which the prior is standard normal and along the direction of equal parts, whose component is standard
            normal too: in the product layout, where the generator reads sums over the last axis, a single latent changes
            little.
        num_points: on the path.
        mass: between the first quantile and the last; probabilities between are equally far apart.

    Returns:
        Shape (num_points,) + that of `z`.

    Raises:
        ValueError: an argument is out of range, or of another shape.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from kaem_ppl.models import traverse
        >>> path = traverse(dist.Normal(0, 1).expand([3]), jnp.zeros(3), 1, num_points=5, mass=0.9)
        >>> path.shape, [round(float(z), 2) for z in path[:, 1]]
        ((5, 3), [-1.64, -0.6, 0.0, 0.6, 1.64])
    """
    prior, number = _univariate(prior), as_count(num_points, "num_points", 2)
    if not 0 < mass < 1:
        raise ValueError(f"`mass` must be between 0 and 1, got {mass}.")
    z = jnp.asarray(z, float)
    if z.shape != prior.batch_shape:
        raise ValueError(f"`z` must have the prior's shape {prior.batch_shape}, got {z.shape}.")
    index = _index(index, prior.batch_shape)
    place = (slice(None), *index)
    e = jnp.broadcast_to(to_standard_normal(prior, z), (number, *z.shape))
    along = jax.scipy.stats.norm.ppf(jnp.linspace(0.5 - mass / 2, 0.5 + mass / 2, number))
    moved = _move(e[place].reshape(number, -1), along[:, None]).reshape(e[place].shape)
    path = from_standard_normal(prior, e.at[place].set(moved))
    return jnp.broadcast_to(z, path.shape).at[place].set(path[place])


def latent_effects(
    key: ArrayLike,
    decode: Callable[[Array], Array],
    prior: dist.Distribution,
    num_draws: int = 4,
    mass: float = 0.8,
    num_axes: int | None = None,
) -> Array:
    """How much each latent, or group of them, changes the output of a generator.

    The root mean square, over outputs and over draws of the other latents, of the change of the output between the two
    quantiles of the latent that hold `mass` between them; groups move as in `traverse`.

    Args:
        key: PRNG key or an integer seed.
        decode: maps latents of shape (n,) + that of the prior to outputs of shape (n, ...).
        prior: of the latents.
        num_draws: of the other latents. The generator is evaluated 2 num_draws times for each latent or group.
        mass: between the two quantiles.
        num_axes: of the prior's shape that tell groups apart, whose latents move together; None takes all, so that each
            latent moves alone.

    Returns:
        The first `num_axes` axes of the prior's shape.

    Raises:
        ValueError: an argument is out of range, or the prior of another kind.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from kaem_ppl.models import latent_effects
        >>> prior = dist.Normal(0, 1).expand([3])
        >>> effects = latent_effects(jax.random.key(0), lambda z: z * jnp.array([3.0, 1.0, 0.0]), prior)
        >>> [round(float(effect), 2) for effect in effects]
        [4.44, 1.48, 0.0]
    """
    prior, number, key = _univariate(prior), as_count(num_draws, "num_draws", 1), as_key(key)
    check_callable(decode, "decode", "a function from latents to outputs")
    if not 0 < mass < 1:
        raise ValueError(f"`mass` must be between 0 and 1, got {mass}.")
    shape = prior.batch_shape
    groups = shape if num_axes is None else shape[: as_count(num_axes, "num_axes", 1)]
    num_groups = math.prod(groups)
    e = flat_draws(jax.random.normal, key, (number, num_groups, math.prod(shape) // max(1, num_groups)))

    def place(e: Array) -> Array:
        return from_standard_normal(prior, e.reshape(number, *shape)).reshape(e.shape)

    furthest = jax.scipy.stats.norm.ppf(0.5 + mass / 2)
    draws, low, high = (place(x) for x in (e, _move(e, -furthest), _move(e, furthest)))

    def effect(group: Array) -> Array:
        first, last = (decode(draws.at[:, group].set(end[:, group]).reshape(number, *shape)) for end in (low, high))
        return jnp.sqrt(jnp.mean(jnp.square(last - first)))

    num_outputs = 2 * math.prod(jax.eval_shape(decode, draws.reshape(number, *shape)).shape)
    at_once = max(1, _OUTPUTS_AT_ONCE // num_outputs)
    return _map(effect, jnp.arange(num_groups), min(at_once, num_groups)).reshape(groups)


def _move(e: Array, along: ArrayLike) -> Array:
    """Standard normal coordinates (..., P) whose component in the direction of equal parts becomes `along`."""
    size = e.shape[-1]
    return e - e.mean(-1, keepdims=True) + along / math.sqrt(size)


def _map(function: Callable[[Array], Array], x: Array, at_once: int) -> Array:
    return jax.jit(lambda x: jax.lax.map(function, x, batch_size=at_once))(x)


def _univariate(prior: dist.Distribution) -> dist.Distribution:
    """The prior without `to_event`, so that its batch shape is that of the latents."""
    check_kind(prior, dist.Distribution, "prior", "a distribution such as `kan_prior` returns")
    while isinstance(prior, dist.Independent):
        prior = prior.base_dist
    if prior.event_shape:
        raise ValueError(f"`prior` must be of independent univariate latents, got {type(prior).__name__}.")
    fault = fault_of(prior)
    if fault:
        raise ValueError(f"`prior` has the distribution {type(prior).__name__}, which {fault}.")
    return prior


def _point(x: ArrayLike, name: str, prior: dist.Distribution) -> Array:
    point, size = as_array(x, name), len(prior.batch_shape)
    if point.shape[max(0, point.ndim - size) :] != prior.batch_shape:
        raise ValueError(f"`{name}` must end in the prior's shape {prior.batch_shape}, got {point.shape}.")
    low, high = support_bounds(prior)
    # At an end of the support the normal coordinate would be infinite.
    if not np.all((point > low) & (point < high)):
        raise ValueError(f"`{name}` has values that do not lie inside the prior's support, between {low} and {high}.")
    return point


def _index(index: tuple[int, ...] | int, shape: tuple[int, ...]) -> tuple[int, ...]:
    place = (index,) if isinstance(index, int) else tuple(index)
    if not 0 < len(place) <= len(shape) or not all(0 <= i < n for i, n in zip(place, shape, strict=False)):
        raise ValueError(f"`index` must name latents of shape {shape}, got {index}.")
    return place
