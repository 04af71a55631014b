"""A learnt density as masses at points: what every candidate is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ... import reference as ref
from ...distributions.base import TiltedDistribution
from ...distributions.stacking import promote
from ...distributions.truncated import decaying_nodes
from ...quadrature import KRONROD, panel_nodes


@dataclass(frozen=True, eq=False)
class Nodes:
    """One density p over a reference pi_0, in double precision; tails beyond the energy's domain come last.

    Attributes:
        z: points, shape (M,).
        mass: of p that each stands for, shape (M,), summing to 1.
        log_density: log p there.
        clipped: z within the domain, where an energy is evaluated.
        log_ratio: log p - log pi_0.
        energy_z: points for the normaliser of another energy: those of the panels and both ends of the domain.
        log_reference_mass: of pi_0 that each of these stands for.
        interval: ends of the domain.
        support: ends of the support.
    """

    z: np.ndarray
    mass: np.ndarray
    log_density: np.ndarray
    clipped: np.ndarray
    log_ratio: np.ndarray
    energy_z: np.ndarray
    log_reference_mass: np.ndarray
    interval: tuple[float, float]
    support: tuple[float, float]


def nodes_of(density: TiltedDistribution, marks: Sequence[Sequence[float]] | None = None) -> list[Nodes]:
    """Of every member of a bank, in row-major order.

    Args:
        density: the bank.
        marks: points of each member that are to be edges of panels.
    """
    number = max(map(len, marks)) if marks is not None else 0
    # An edge that is there already takes the place of what a member has less.
    filled = [[*own, *[np.nan] * (number - len(own))] for own in marks or []]
    extra = np.reshape(np.transpose(filled), (number, *density.batch_shape)) if number else np.zeros(0)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), density)
        wide = promote(wide)
        arrays = [np.asarray(x) for x in _evaluate(wide, jnp.asarray(extra))]
        bounds = [np.broadcast_to(np.asarray(x), density.batch_shape) for x in ref.support_bounds(wide.reference)]
        ends = [np.broadcast_to(np.asarray(x), density.batch_shape) for x in wide.interval]
    # Points lead and the batch follows.
    columns = [np.reshape(x, (len(x), -1)).T for x in arrays]
    limits = zip(*(np.reshape(x, -1) for x in (*ends, *bounds)), strict=True)
    rows = zip(*columns, strict=True)
    return [_make(row, (a, b), (low, high)) for row, (a, b, low, high) in zip(rows, limits, strict=True)]


def _evaluate(density: TiltedDistribution, marks: jax.Array) -> tuple[jax.Array, ...]:
    """Points and masses in the panels and in both tails, by columns; log masses of the reference."""
    batch = density.batch_shape
    edges = jnp.moveaxis(density.table.edges, -1, 0)
    if marks.size:
        inside = jnp.clip(jnp.where(jnp.isnan(marks), edges[0], marks), edges[0], edges[-1])
        edges = jnp.sort(jnp.concatenate([edges, inside]), axis=0)
    nodes = panel_nodes(edges)
    low, high = (jnp.broadcast_to(x, batch) for x in density.interval)
    used = jnp.broadcast_to(jnp.diff(edges, axis=0) > 0, nodes.shape)
    z = jnp.where(used, jnp.clip(nodes, low, high), 0.5 * (low + high))
    log_reference = jnp.broadcast_to(density.reference.log_prob(z), z.shape)
    column = jnp.asarray(KRONROD).reshape(-1, *(1,) * (z.ndim - 1))
    log_weight = jnp.where(used, jnp.log(jnp.where(used, 0.5 * jnp.diff(edges, axis=0), 1.0) * column), -jnp.inf)
    z, log_reference, log_weight = (x.reshape(-1, *batch) for x in (z, log_reference, log_weight))
    outside = [jnp.broadcast_to(x, batch)[None] for x in ref.log_outside(density.reference, *density.interval)]
    log_reference_mass = jnp.concatenate([log_weight + log_reference, *outside])

    fractions, weights = (x.reshape(-1, *(1,) * len(batch)) for x in decaying_nodes(32.0, jnp.float64))
    left, right = density.tails(low)[0], density.tails(high)[1]
    points, masses = [z], [jnp.exp(density.log_ratio(z) + log_reference + log_weight)]
    for tail, is_upper in ((left, False), (right, True)):
        mass = tail * fractions
        there = density.quantile(1 - mass, mass) if is_upper else density.quantile(mass, 1 - mass)
        points.append(jnp.where(tail > 1e-290, there, 0.5 * (low + high)))
        masses.append(jnp.where(tail > 1e-290, tail * weights, 0.0))
    points, masses = jnp.concatenate(points), jnp.concatenate(masses)
    log_ratio = jnp.broadcast_to(density.log_ratio(points), points.shape)
    log_density = log_ratio + density.reference.log_prob(points)
    return points, masses, log_density, log_ratio, log_reference_mass


def _make(row: tuple[np.ndarray, ...], interval: tuple[float, float], support: tuple[float, float]) -> Nodes:
    """The nodes of one density, without those of no mass."""
    z, mass, log_density, log_ratio, log_reference_mass = row
    inner = len(log_reference_mass) - 2
    energy_z = np.concatenate([z[:inner], interval])
    used = mass > 0
    return Nodes(
        z[used],
        mass[used] / mass.sum(),
        log_density[used],
        np.clip(z[used], *interval),
        log_ratio[used],
        energy_z,
        log_reference_mass,
        interval,
        support,
    )
