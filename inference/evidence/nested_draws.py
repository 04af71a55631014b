"""What nested sampling makes of the points it met: the evidence, weights for them, and draws from the posterior."""

from typing import NamedTuple

import jax
import numpy as np

from ..model.power_posterior import Position

# Shrinkages of the prior mass that are simulated for the standard error and the weights.
_NUM_SIMULATIONS = 200


class NestedPoints(NamedTuple):
    """Points met by runs of C chains and N data, in K iterations that delete D points each, from n live ones.

    Points are numbered as they are made: 0 to n - 1 are draws of the prior, and iteration k makes n + k D and the next.

    Attributes:
        weights: by chain and datum, of the points that were deleted and then of those that live, which sum to 1.
        dead: arrays (K, C, N, D, ...).
        live: arrays (C, N, n, ...).
        counts: whether an iteration was before the end, (K, C, N).
        dead_numbers: of the points deleted, (K, C, N, D).
        live_numbers: of those that live, (C, N, n).
        parents: number of the point that each new one started as a copy of, (K, C, N, D).
    """

    weights: dict[tuple[int, int], np.ndarray]
    dead: Position
    live: Position
    counts: np.ndarray
    dead_numbers: np.ndarray
    live_numbers: np.ndarray
    parents: np.ndarray


def integrate(
    rng: np.random.Generator, dead: np.ndarray, live: np.ndarray, num_delete: int
) -> tuple[float, float, float, np.ndarray]:
    """Log-evidence, its standard error, the information, and the weights, from the likelihoods met on the way.

    The prior mass above the i-th likelihood is a product of beta variates, X_i = X_{i-1} u^(1/n_i), n_i the points that
    were alive (Skilling 2006, sec. 5). Points that are deleted together are taken one by one, from n points down. The
    evidence is the trapezoidal sum of L over X, its law simulated.

    Args:
        rng: of the simulated shrinkages.
        dead: log-likelihoods of the points deleted, shape (iterations * num_delete,).
        live: of those alive at the end, shape (n,).
        num_delete: points deleted together.

    Returns:
        The three numbers; and the posterior probabilities of the points, `dead` and then `live`, means over the
        simulations.
    """
    num_live = len(live)
    alive = np.concatenate(
        [np.tile(num_live - np.arange(num_delete), len(dead) // num_delete), np.arange(num_live, 0, -1)]
    )
    order = np.concatenate([np.argsort(dead), len(dead) + np.argsort(live)])
    l = np.concatenate([dead, live])[order][:, None]
    log_x = np.cumsum(np.log(rng.uniform(size=(len(l), _NUM_SIMULATIONS))) / alive[:, None], axis=0)
    before = np.vstack([np.zeros_like(log_x[:1]), log_x[:-1]])
    after = np.vstack([log_x[1:], np.full_like(log_x[:1], -np.inf)])
    log_weights = before + np.log(-np.expm1(after - before)) - np.log(2) + l
    log_z = np.logaddexp.reduce(log_weights, axis=0)
    posterior = np.exp(log_weights - log_z)
    finite = np.where(np.isfinite(l), l, 0.0)
    weights = np.empty(len(l))
    weights[order] = posterior.mean(1)
    return log_z.mean(), log_z.std(ddof=1), float(((posterior * finite).sum(0) - log_z).mean()), weights


def resample(points: NestedPoints, num_samples: int) -> tuple[Position, np.ndarray]:
    """Draws of equal weight, relatives next to each other, (C, S, N, ...); and Kish's size of the weights, (C, N).

    Resampling is systematic.
    """
    num_chains, num_data, num_live = points.live_numbers.shape
    draws = jax.tree.map(lambda x: np.empty((num_chains, num_samples, num_data, *x.shape[3:]), x.dtype), points.live)
    size = np.empty((num_chains, num_data))
    for chain, datum in np.ndindex(num_chains, num_data):
        weights, counts = points.weights[chain, datum], points.counts[:, chain, datum]
        size[chain, datum] = 1 / np.square(weights).sum()
        rng = np.random.default_rng([chain, datum, 1])
        steps = (rng.uniform() + np.arange(num_samples)) / num_samples
        chosen = np.searchsorted(np.cumsum(weights), steps * weights.sum()).clip(0, len(weights) - 1)
        dead_numbers = points.dead_numbers[counts, chain, datum].ravel()
        numbers = np.concatenate([dead_numbers, points.live_numbers[chain, datum]])[chosen]
        parents = np.concatenate([np.full(num_live, -1), points.parents[:, chain, datum].ravel()])
        chosen = chosen[order_relatives(numbers, parents)]

        def take(dead: np.ndarray, live: np.ndarray) -> np.ndarray:
            flat = dead[counts, chain, datum].reshape(-1, *live.shape[3:])  # noqa: B023 - called at once
            return np.concatenate([flat, live[chain, datum]])[chosen]  # noqa: B023 - called at once

        taken = jax.tree.map(take, points.dead, points.live)
        for name, x in taken.items():
            draws[name][chain, :, datum] = x
    return draws, size


def order_relatives(numbers: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """An order in which points stand behind what they descend from, families together.

    Args:
        numbers: of points, shape (S,).
        parents: of all points by number; -1 for a draw of the prior.
    """
    paths: dict[int, tuple[int, ...]] = {}
    for number in numbers.tolist():
        line = [number]
        while parents[line[-1]] >= 0:
            line.append(int(parents[line[-1]]))
        paths[number] = tuple(reversed(line))
    return np.array(sorted(range(len(numbers)), key=lambda place: paths[int(numbers[place])]))
