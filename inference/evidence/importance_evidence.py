"""The log-evidence of each datum by importance sampling: weights come in batches, of which sums and tails are kept."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kaem_ppl.compilation import jit_outermost

from ..model.plate_model import Integrals, PlateModel
from ..model.power_posterior import PowerPosterior
from ..model.traced import ModelIdentity
from ..sampling import batching
from ..sampling.batching import evaluation_bytes, over_problems
from ..sampling.importance.proposals import Proposal, draw_proposals
from ..sampling.importance.psis import num_largest, pareto_k_of_largest
from ..sampling.run import Run
from ..sampling.sampler import problem_keys
from .log_bias import LogBias, bias_of_log_mean

# Draws in a batch, and bytes of their evaluations, at most. Keys of shared draws are those of batches, which therefore do
# not depend on the memory budget.
_DRAWS_AT_ONCE, _BYTES_AT_ONCE = 2000, 2**28
# Bytes that a pair of a draw and a datum takes while it is weighed: a few arrays of them live together.
_BYTES_OF_PAIR = 16
# Batches, at least, that the bias of the logarithm and the error of the sum over data are read from.
NUM_BATCHES = 32


class WeightSummary(NamedTuple):
    """What is known of S weights of each of N data.

    Attributes:
        value: log mean weight, shape (N,).
        std_error: of `value` by the delta method, sqrt(var(w) / S) / mean(w), shape (N,).
        effective_sample_size: (sum w)^2 / sum w^2, shape (N,).
        pareto_k: shape of the tail, shape (N,).
        log_bias: of `value`, and the error of the sum of `value`; None where there is one batch.
    """

    value: np.ndarray
    std_error: np.ndarray
    effective_sample_size: np.ndarray
    pareto_k: np.ndarray
    log_bias: LogBias | None


def weigh_prior_draws(key: jax.Array, posterior: PowerPosterior, num_draws: int, run: Run) -> WeightSummary:
    """Weigh draws of the prior by the likelihood of each datum.

    Where prior and likelihood are the same functions for every datum, all data share their draws, and what the model
    makes of a draw is computed once; errors of different data are then correlated.

    Args:
        key: PRNG key.
        posterior: with a proper prior.
        num_draws: S, at least 2.
        run: shows progress.
    """
    batches = _score_shared if posterior.draws_are_shared and posterior.rows else _score_own
    return summarize(batches(key, posterior, num_draws, run), num_draws, posterior.draws_are_shared)


def weigh_proposal_draws(
    key: jax.Array, posterior: PowerPosterior, proposal: Proposal, num_draws: int, run: Run
) -> WeightSummary:
    """Weigh draws of a proposal, of each datum's own.

    Args:
        key: PRNG key.
        posterior: in the proposal's coordinates.
        proposal: for it.
        num_draws: S, at least 2.
        run: shows progress.

    Raises:
        ValueError: the proposal is not for this posterior.
    """
    proposal.check(posterior)
    size = _batch_size(posterior, num_draws, posterior.num_data)
    keys, parameters = problem_keys(key, 1, posterior.num_data), proposal.parameters()

    def batches() -> Iterator[np.ndarray]:
        starts = range(0, num_draws, size)
        for start in _shown(starts, size, num_draws, run):
            *_, log_weights = draw_proposals(proposal, size, parameters, posterior, keys, start)
            yield np.asarray(log_weights[0])[:, : num_draws - start]

    return summarize(batches(), num_draws, False)


def summarize(batches: Iterator[np.ndarray], num_draws: int, are_shared: bool) -> WeightSummary:
    """Read log-weights, in batches (N, S_i), once, in double precision.

    Args:
        batches: of log-weights; NaN stands for a weight of 0.
        num_draws: how many there are in all.
        are_shared: whether columns belong to the same draws for all data.
    """
    keep = num_largest(num_draws)
    sums, sizes, squares, largest, number = [], [], -np.inf, None, 0
    for batch in batches:
        # In its own precision but for the sums, which are of weights relative to the largest.
        l = np.where(np.isnan(batch), -np.inf, batch)
        top = l.max(-1).astype(float)
        top = np.where(np.isfinite(top), top, 0.0)
        weights = np.exp(l - top[:, None].astype(l.dtype))
        with np.errstate(divide="ignore"):
            sums.append(np.log(weights.sum(-1, dtype=float)) + top)
            squares = np.logaddexp(squares, np.log(np.square(weights).sum(-1, dtype=float)) + 2 * top)
        sizes.append(l.shape[-1])
        number = number + np.isfinite(l).sum(-1)
        l = np.partition(l, -keep, axis=-1)[:, -keep:] if l.shape[-1] > keep else l
        l = l if largest is None else np.concatenate([largest, l], axis=-1)
        largest = np.partition(l, -keep, axis=-1)[:, -keep:] if l.shape[-1] > keep else l
    assert largest is not None, "there is a batch"
    log_sum = np.logaddexp.reduce(sums, axis=0)
    with np.errstate(invalid="ignore"):
        size = np.exp(2 * log_sum - squares)
        # Rounding may put the effective size above the number of draws.
        std_error = np.sqrt(np.maximum(1 / size - 1 / num_draws, 0))
        log_bias = None
        if len(sizes) > 1:
            log_bias = bias_of_log_mean(np.array(sums) - log_sum, np.array(sizes), std_error, are_shared=are_shared)
    k = pareto_k_of_largest(largest.astype(float), np.asarray(number))
    return WeightSummary(log_sum - np.log(num_draws), std_error, size, k, log_bias)


def _batch_size(posterior: PowerPosterior, num_draws: int, num_problems: int) -> int:
    size = min(_DRAWS_AT_ONCE, _BYTES_AT_ONCE // (evaluation_bytes(posterior)[0] * num_problems))
    return max(1, min(size, -(-num_draws // NUM_BATCHES)))


def _score_shared(key: jax.Array, posterior: PowerPosterior, num_draws: int, run: Run) -> Iterator[np.ndarray]:
    size = _batch_size(posterior, num_draws, 1)
    integrals = _plate_model(posterior).integrals(posterior.params, tuple(posterior.rows))
    num_rows = max(1, batching.MEMORY_BUDGET // (_BYTES_OF_PAIR * size))
    parts = [
        tuple(x[first : first + num_rows] for x in posterior.rows) for first in range(0, posterior.num_data, num_rows)
    ]
    starts = range(0, num_draws, size)
    for number, start in enumerate(_shown(starts, size, num_draws, run)):
        batch_key = jax.random.fold_in(key, number)
        weights = [np.asarray(_score_shared_batch(size, posterior, integrals, batch_key, rows)) for rows in parts]
        # The last batch may reach beyond the draws asked for.
        yield np.concatenate(weights)[:, : num_draws - start]


def _score_own(key: jax.Array, posterior: PowerPosterior, num_draws: int, run: Run) -> Iterator[np.ndarray]:
    size = _batch_size(posterior, num_draws, posterior.num_data)
    keys = problem_keys(key, 1, posterior.num_data)
    starts = range(0, num_draws, size)
    for start in _shown(starts, size, num_draws, run):
        yield np.asarray(_score_own_batch(size, posterior, keys, start)[0])[:, : num_draws - start]


def _shown(starts: range, size: int, num_draws: int, run: Run) -> Iterator[int]:
    """The numbers of the first draws of batches, and progress as they are taken."""
    run.progress.begin("compiling the draws", num_draws, "draw")
    for start in starts:
        yield start
        run.report("weighing draws", min(start + size, num_draws), num_draws, {})


def _plate_model(posterior: PowerPosterior) -> PlateModel:
    """The model as one of rows; shared arrays are bound to it, so that within a compiled program it is made anew."""

    def model(*rows: jax.Array) -> Any:
        args, kwargs = posterior.layout.arguments(rows, posterior.shared)
        return posterior.model.function(*args, **kwargs)

    assert posterior.plate is not None, "data that share draws have a plate"
    return PlateModel(
        ModelIdentity(model, posterior.model.fingerprint),
        posterior.plate,
        tuple(site.name for site in posterior.latents),
        tuple(site.name for site in posterior.observed),
        draws_are_shared=True,
        discrete=None,
    )


@partial(jit_outermost, static_argnums=0)
def _score_shared_batch(
    size: int, posterior: PowerPosterior, integrals: Integrals, key: jax.Array, rows: tuple[jax.Array, ...]
) -> jax.Array:
    """Log-weights of draws that all data share, (rows, size)."""
    return _plate_model(posterior).score_prior_draws(key, posterior.params, rows, size, integrals)[0]


@partial(jit_outermost, static_argnums=0)
def _score_own_batch(size: int, posterior: PowerPosterior, keys: jax.Array, start: jax.Array) -> jax.Array:
    """Log-weights of draws of each datum's own, (1, N, size); keys (1, N)."""

    def score(key: jax.Array, datum: tuple[jax.Array, ...]) -> jax.Array:
        target = posterior.target(datum)

        def one(number: jax.Array) -> jax.Array:
            return target.log_likelihood(target.draw(jax.random.fold_in(key, number)))

        return jax.vmap(one)(start + jnp.arange(size))

    return over_problems(score, posterior, keys)
