"""Moves of nested sampling's live points, by BlackJAX: points with labels, and slices along differences of neighbours."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.ns import nss
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.special import ndtr

from ..model.power_posterior import Position, Target

# Labels are uniform on (-1/2, 1/2) and add this many nats for a unit; the mean of exp(c u) is sinh(c / 2) / (c / 2).
_NATS_OF_LABEL = 0.1
LABELS_LOG_EVIDENCE = float(np.log(np.sinh(_NATS_OF_LABEL / 2) / (_NATS_OF_LABEL / 2)))
# Stands for the logarithm of 0; with a label, between this and twice this.
IMPOSSIBLE = -1e30
# Live points of which the nearest to a random one gives the direction of a slice: among few, of equal modes both points are
# then of one in 15 of 16, and a difference is hardly shorter than one of random points.
_NUM_NEIGHBOURS = 4
# Of slices, along the covariance of all live points.
_SHARE_OF_ALL = 0.25
# Slices of a replacement: times the number of coordinates, and at least.
_SLICES_OF_COORDINATE, _FEWEST_SLICES = 3, 10


class Labelled(NamedTuple):
    """A position, and a standard normal number whose normal probability is the label."""

    position: Position
    label: jax.Array


def nested_sampler(target: Target, num_steps: int | None, num_delete: int, num_coordinates: int) -> Any:
    """BlackJAX's nested slice sampler of labelled points.

    Args:
        target: the problem.
        num_steps: slice moves that make a replacement; None takes three times the number of coordinates, at least 10.
        num_delete: points replaced in an iteration.
        num_coordinates: of a position.
    """
    steps = num_steps or max(_FEWEST_SLICES, _SLICES_OF_COORDINATE * num_coordinates)

    def log_prior(labelled: Labelled) -> jax.Array:
        value = target.log_prior(labelled.position) - 0.5 * jnp.square(labelled.label)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def log_likelihood(labelled: Labelled) -> jax.Array:
        value = target.log_likelihood(labelled.position)
        label = ndtr(labelled.label) - 0.5
        return jnp.where(value > IMPOSSIBLE, value + _NATS_OF_LABEL * label, IMPOSSIBLE * (1.5 - label))

    return nss.as_top_level_api(
        log_prior, log_likelihood, steps, num_delete, proposal=_along_differences,
        inner_kernel_params=_live_points, update_strategy=_replace_deleted,
    )  # fmt: skip


def _live_points(key: jax.Array, state: Any, info: Any, params: Any = None) -> dict[str, jax.Array]:
    """The live points, (n, d), and a square root of their covariance, (d, d)."""
    points = jax.vmap(lambda point: ravel_pytree(point)[0])(state.particles.position)
    deviation = jnp.maximum(points.std(0), jnp.finfo(points.dtype).tiny)
    # A correlation has a root in float32 where a covariance may have none, and with a little more where points are in line.
    correlation = jnp.cov((points - points.mean(0)) / deviation, rowvar=False).reshape(deviation.size, deviation.size)
    root = jnp.linalg.cholesky(correlation + 1e-5 * jnp.eye(deviation.size, dtype=points.dtype))
    return {"points": points, "root": deviation[:, None] * root}


def _along_differences(
    make_state: Callable[..., Any], loglikelihood_0: jax.Array, points: jax.Array, root: jax.Array
) -> Any:
    """Slices along differences of neighbouring live points, for BlackJAX (ter Braak 2006, of differential evolution).

    Of two points in one mode a difference has about twice the covariance of that mode, whatever the distance of the modes.
    Along the covariance of all points every direction is one from mode to mode, and within a mode points hardly move; but
    where tails are heavy it has the length of the farthest points, so that some slices are along it. What neighbours are,
    coordinates in units of their standard deviations say.
    """
    num_live, dimension = points.shape
    precision = 1 / jnp.maximum(points.var(0), jnp.finfo(points.dtype).tiny)
    # Two standard deviations, as BlackJAX has it for directions of the covariance.
    length = 2 / np.sqrt(dimension)

    def propose(key: jax.Array, position: Any, _: Any) -> Callable[[jax.Array], tuple[Any, jax.Array]]:
        first_key, others_key, normal_key, kind_key = jax.random.split(key, 4)
        first = jax.random.randint(first_key, (), 0, num_live)
        others = (first + jax.random.randint(others_key, (_NUM_NEIGHBOURS,), 1, num_live)) % num_live
        differences = points[first] - points[others]
        difference = differences[jnp.argmin(jnp.square(differences) @ precision)] / np.sqrt(2)
        of_all = root @ jax.random.normal(normal_key, (dimension,), points.dtype)
        along = length * jnp.where(jax.random.bernoulli(kind_key, _SHARE_OF_ALL), of_all, difference)
        direction = ravel_pytree(position)[1](along)

        def at(t: jax.Array) -> tuple[Any, jax.Array]:
            place = jax.tree.map(lambda x, d: x + t * d, position, direction)
            moved = make_state(place, loglikelihood_birth=loglikelihood_0)
            return moved, moved.loglikelihood > loglikelihood_0

        return at

    return propose


def _replace_deleted(step: Callable[..., Any], num_steps: int, num_delete: int) -> Callable[..., Any]:
    """BlackJAX's way to make new points, by moves of copies of random survivors; it says which ones these were."""

    def update(key: jax.Array, state: Any, threshold: jax.Array, **settings: Any) -> tuple[Any, jax.Array]:
        choose_key, move_key = jax.random.split(key)
        particles = state.particles
        survives = particles.loglikelihood > threshold
        weights = jnp.where(survives.any(), survives, True).astype(threshold.dtype)
        chosen = jax.random.choice(choose_key, len(weights), (num_delete,), p=weights / weights.sum())

        def move(key: jax.Array, particle: Any) -> Any:
            def body(particle: Any, key: jax.Array) -> tuple[Any, None]:
                return step(key, particle, loglikelihood_0=threshold, **settings)[0], None

            return lax.scan(body, particle, jax.random.split(key, num_steps))[0]

        starts = jax.tree.map(lambda x: x[chosen], particles)
        moved = jax.vmap(move)(jax.random.split(move_key, num_delete), starts)
        birth = jnp.full_like(moved.loglikelihood_birth, threshold)
        return moved._replace(loglikelihood_birth=birth), chosen

    return update
