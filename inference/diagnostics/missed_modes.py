"""Whether draws of the prior find a part of the posterior that chains have not been near."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from kaem_ppl.progress import Progress

from ..kernels.kernel import Kernel
from ..model.power_posterior import Position
from ..sampling import batching
from ..sampling.sampler import problem_keys
from ..sampling.starts import prior_draws
from .findings import Findings
from .limits import LARGEST_MISSED_MASS

if TYPE_CHECKING:
    from ..sampling.draws import Draws

# Draws of the prior for each datum: at most so many, at most so large a share of the steps that made the draws, each of
# which evaluates the model at least once, and not worth it below so few.
_MOST, _SHARE_OF_STEPS, _FEWEST = 1000, 1 / 8, 100
# Draws that are looked at, and bytes of a coordinate: a few copies in double precision live together.
_MOST_DRAWS, _FEWEST_DRAWS, _BYTES_OF_COORDINATE = 4000, 400, 32
# Coordinates whose covariance is looked at, at most, and effective draws for each of them, at least: with fewer, the
# determinant comes out too small, and so do distances. Otherwise variances alone.
_LARGEST_DENSE, _DRAWS_PER_COORDINATE = 300, 10
# How far beyond the median distance from the mean a region counts as near to the draws, over how far the farthest draw is.
_MARGIN = 1.5


class _Reach(NamedTuple):
    """Where draws of N data have been, in d coordinates.

    Attributes:
        mean: shape (N, 1, d).
        deviation: shape (N, 1, d).
        whitening: inverse of the Cholesky factor of the covariance, shape (N, d, d); None where variances alone are known.
        farthest: for each of `distances` the largest that counts as near, shape (N, 1, number of them).
        log_evidence: an upper bound of the evidence of the region, in nats, shape (N,).
        precision: of the bound, in nats, shape (N,).
    """

    mean: np.ndarray
    deviation: np.ndarray
    whitening: np.ndarray | None
    farthest: np.ndarray
    log_evidence: np.ndarray
    precision: np.ndarray


def check_missed_modes(
    report: Findings, draws: "Draws", stats: Mapping[str, np.ndarray], size: float, progress_bar: bool
) -> None:
    """Compare the evidence that prior draws find beyond the chains with an upper bound of that where the chains were.

    The mean of the likelihood over prior draws, counted as 0 where a draw is near to the chains, has the evidence of the
    region beyond them as its expectation. Within, the posterior q of the chains has the evidence E_q[log joint] + H(q), and
    no density of the same covariance has a larger entropy H than a normal one. By Markov's inequality, chains that have
    missed a share s of the posterior are refused by chance with a probability of at most s over the limit, whatever the law
    of the weights.

    Args:
        report: what is found goes there.
        draws: of samplers with weights of their own, or without densities, nothing is checked.
        stats: their `sample_stats`.
        size: effective number of draws, of the worst coordinate.
        progress_bar: whether to show the progress where it takes longer than a second.
    """
    if "lp" not in stats or "pareto_k" in draws.summary:
        return
    number = _number_of_prior_draws(draws, stats)
    report.run["missed_mass"] = np.nan
    if not draws.posterior.has_proper_prior or number < _FEWEST or not np.isfinite(size):
        return
    share, num_hits = _missed_share(draws, stats["lp"], number, size, progress_bar)
    if not np.isfinite(share).any():
        return
    worst = int(np.nanargmax(share))
    missed = report.run["missed_mass"] = float(share[worst])
    of = "" if draws.plate is None else f" of datum {worst}"
    report.check(
        "missed modes",
        missed <= LARGEST_MISSED_MASS,
        f"At least {missed:.0%} of the posterior{of} is where no chain or particle has been near, above "
        f"{LARGEST_MISSED_MASS:.0%}: so say the likelihoods of {number:,} prior draws, of which about "
        f"{num_hits[worst]:.0f} count there. A mode, or a part of one, was missed: {draws.sampler.advice}",
        is_cause=True,
    )


def _number_of_prior_draws(draws: "Draws", stats: Mapping[str, np.ndarray]) -> int:
    steps = draws.num_chains * draws.num_samples * draws.thinning
    evaluations = float(np.mean(stats["n_steps"])) if "n_steps" in stats else 1.0
    number = min(_MOST, int(_SHARE_OF_STEPS * steps * evaluations))
    # As many for each chain, of thousands of chains one.
    return number if number < _FEWEST else max(1, number // draws.num_chains) * draws.num_chains


def _missed_share(
    draws: "Draws", lp: np.ndarray, number: int, size: float, progress_bar: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Of each datum the share of the posterior beyond the draws, at least, and about how many prior draws say so.

    NaN stands for a share that is not known.
    """
    reach = _measure_reach(draws, lp, size)
    sums, squares = np.full((2, len(reach.log_evidence)), -np.inf)
    for positions, log_likelihood in _flat_prior_draws(draws, number, progress_bar):
        # What is infinite is no density.
        is_counted = _is_beyond(reach, positions) & (log_likelihood < np.inf)
        log_weights = np.where(is_counted, log_likelihood, -np.inf)
        sums = np.logaddexp(sums, np.logaddexp.reduce(log_weights, axis=1))
        squares = np.logaddexp(squares, np.logaddexp.reduce(2 * log_weights, axis=1))
    more = sums - np.log(number) - reach.log_evidence - reach.precision
    with np.errstate(invalid="ignore", over="ignore"):
        return np.exp(-np.logaddexp(0.0, -more)), np.exp(2 * sums - squares)


def _measure_reach(draws: "Draws", lp: np.ndarray, size: float) -> _Reach:
    num_data = draws.posterior.num_data
    sites = [draws.positions[name] for name in sorted(draws.positions) if 0 not in draws.positions[name].shape]
    num_coordinates = sum(int(np.prod(x.shape[3:])) for x in sites)
    bytes_of_draw = _BYTES_OF_COORDINATE * num_coordinates
    number = int(np.clip(batching.MEMORY_BUDGET // bytes_of_draw, _FEWEST_DRAWS, _MOST_DRAWS))
    every = slice(None, None, -(-draws.num_chains * draws.num_samples // number))
    at_once = max(1, batching.MEMORY_BUDGET // (number * bytes_of_draw))
    is_dense = (
        num_coordinates <= _LARGEST_DENSE
        and size >= _DRAWS_PER_COORDINATE * num_coordinates
        and 8 * num_data * num_coordinates**2 <= batching.MEMORY_BUDGET
    )
    # With the axis of data that the statistics of one problem lack.
    lp = lp.reshape(*lp.shape[:2], num_data)
    parts = []
    for first in range(0, num_data, at_once):
        data = slice(first, first + at_once)
        # Of spooled draws no more is read than this.
        index = (slice(None), every) if at_once >= num_data else (slice(None), every, data)
        thinned = [np.asarray(x[index], float) for x in sites]
        flat = np.concatenate([x.reshape(*x.shape[:3], -1) for x in thinned], axis=-1)
        flat = np.moveaxis(flat, 2, 0).reshape(flat.shape[2], -1, num_coordinates)
        parts.append(_reach(flat, lp[:, :, data], size, is_dense))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _reach(flat: np.ndarray, lp: np.ndarray, size: float, is_dense: bool) -> _Reach:
    """The reach of draws (N, M, d) whose log-densities are `lp`, (C, S, N)."""
    num_draws, num_coordinates = flat.shape[1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, deviation = flat.mean(1, keepdims=True), flat.std(1, keepdims=True, ddof=1)
        scaled = (flat - mean) / deviation
        # A sample's log-variance is on average too small, a dense covariance's log-determinant more so.
        log_determinant = 2 * np.log(deviation).sum((1, 2)) + num_coordinates / size
    whitening = None
    if is_dense:
        correlation = np.swapaxes(scaled, 1, 2) @ scaled / (num_draws - 1)
        is_known = np.isfinite(correlation).all((1, 2), keepdims=True)
        factor = _cholesky(np.where(is_known, correlation, np.eye(num_coordinates)))
        whitening = np.linalg.inv(factor)
        log_determinant += 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1)
        log_determinant += num_coordinates * (num_coordinates - 1) / (2 * size)
    distances = _distances(scaled, whitening)
    middle, farthest = np.median(distances, axis=1, keepdims=True), distances.max(1, keepdims=True)
    energy = lp.mean((0, 1), dtype=float)
    log_evidence = energy + 0.5 * (log_determinant + num_coordinates * (1 + np.log(2 * np.pi)))
    return _Reach(
        mean,
        deviation,
        whitening,
        middle + _MARGIN * (farthest - middle),
        # Where a coordinate never moved, it is minus infinity and no bound.
        np.where(np.isfinite(log_evidence), log_evidence, np.nan),
        4 * np.finfo(lp.dtype).eps * np.abs(energy),
    )


def _cholesky(correlation: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        # Variances alone, whose normal has a larger entropy.
        return np.broadcast_to(np.eye(correlation.shape[-1]), correlation.shape)


def _distances(scaled: np.ndarray, whitening: np.ndarray | None) -> np.ndarray:
    """Of each coordinate, and of Mahalanobis where the covariance is known, (N, M, d or d + 1)."""
    each = np.abs(scaled)
    if whitening is None:
        return each
    of_all = np.linalg.norm(scaled @ np.swapaxes(whitening, 1, 2), axis=-1, keepdims=True)
    return np.concatenate([each, of_all], axis=-1)


def _is_beyond(reach: _Reach, positions: np.ndarray) -> np.ndarray:
    """Which of positions (N, B, d) are farther than the draws in any of the distances, (N, B)."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scaled = (positions - reach.mean) / reach.deviation
        return (_distances(scaled, reach.whitening) > reach.farthest).any(-1)


def _flat_prior_draws(draws: "Draws", number: int, progress_bar: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Coordinates (N, B, d) and log-likelihoods (N, B) of prior draws, in batches within the memory budget."""
    keys = problem_keys(draws.key, draws.num_chains, draws.posterior.num_data)
    kernel = draws.sampler if isinstance(draws.sampler, Kernel) else None
    batch: list[tuple[Position, jax.Array]] = []
    num_bytes = 0
    with _shown_if_long("weighing prior draws", number, progress_bar) as show:
        for drawn in prior_draws(kernel, draws.posterior, keys, number // draws.num_chains):
            batch.append(jax.block_until_ready(drawn))
            show(drawn[1].shape[0] * drawn[1].shape[2])
            num_bytes += _BYTES_OF_COORDINATE * sum(x.size for x in drawn[0].values())
            if num_bytes >= batching.MEMORY_BUDGET:
                yield _flatten(batch)
                batch, num_bytes = [], 0
    if batch:
        yield _flatten(batch)


@contextmanager
def _shown_if_long(activity: str, total: int, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """A function that is told how much more has been done, and shows it from the second second on."""
    started, done = time.monotonic(), 0
    with ExitStack() as stack:
        progress: Progress | None = None

        def show(more: int) -> None:
            nonlocal progress, done
            done += more
            if progress is None and is_shown and time.monotonic() - started > 1:
                progress = stack.enter_context(Progress(activity, is_shown=True))
                progress.begin(activity, total, "draw", done)
            if progress is not None:
                progress.update(done)

        yield show


def _flatten(batch: list[tuple[Position, jax.Array]]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and log-likelihoods in parts of (C, N, R, ...) as (N, B, d) and (N, B)."""

    def draws_first(x: np.ndarray) -> np.ndarray:
        x = np.moveaxis(x.astype(float), 0, 1)
        return x.reshape(len(x), x.shape[1] * x.shape[2], -1)

    flat, log_likelihood = [], []
    for position, values in jax.device_get(batch):
        # As `_measure_reach` orders coordinates.
        flat.append(np.concatenate([draws_first(position[name]) for name in sorted(position)], axis=-1))
        log_likelihood.append(draws_first(values)[..., 0])
    return np.concatenate(flat, axis=1), np.concatenate(log_likelihood, axis=1)
