"""The log-evidence of each datum by simple importance sampling from the prior."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp

from kaem_ppl.arguments import as_count, as_key

from ..model.arguments import batch_arguments, check_call
from ..model.data import check_data
from ..model.missing.masking import Missing, check_missing, incomplete_model
from ..model.parameters import Params, as_params
from ..model.plate_model import Integrals, PlateModel, read_plate_model
from ..sampling import batching

# Bytes that a pair of a draw and a datum takes while it is weighed: a few arrays of them live together.
_BYTES_OF_PAIR = 16


class ImportanceLogEvidence(NamedTuple):
    """Estimates for B data, in nats where a unit applies.

    Attributes:
        value: log-evidence, shape (B,).
        std_error: standard error of `value`, shape (B,). Believe it where `effective_sample_size` is large: draws that
            all miss a narrow posterior agree with each other.
        effective_sample_size: (sum_s w_s)^2 / sum_s w_s^2, between 1 and num_draws, shape (B,).
    """

    value: jax.Array
    std_error: jax.Array
    effective_sample_size: jax.Array


def importance_log_evidence(
    key: jax.Array,
    model: Callable,
    data: Any,
    *,
    num_draws: int,
    params: Params | None = None,
    plate: str = "data",
    chunk_size: int = 2000,
    missing: Missing = None,
) -> ImportanceLogEvidence:
    """Estimate log p(x_b) = log E_{p(z)}[p(x_b | z)] for each datum, by prior draws that the data share.

    With weights w_s = p(x_b | z_s), the value is log mean(w) and its standard error, by the delta method,
    sqrt(var(w) / S) / mean(w) = sqrt(1 / effective_sample_size - 1 / S). The value is unbiased before the logarithm and
    low on average after it. Errors of different data are correlated where they share draws, so the error of their sum
    is not the root of the sum of squares.

    Args:
        key: PRNG key.
        model: NumPyro model with the plate `plate`.
        data: pytree of arrays (B, ...), given to the model as in `fit`.
        num_draws: S, prior draws.
        params: constrained values of the model's `numpyro.param` sites.
        plate: name of the plate that holds the data.
        chunk_size: draws made at once, which meet the data in pieces of bounded memory (`sampling/batching.py`).
        missing: "nan" where NaN among the data stands for missing entries, as in `fit`.

    Raises:
        ValueError: an argument, the data or the model is not usable; the message says which and what to do.
    """
    whole_model, model = model, incomplete_model(model, missing)
    data, _ = check_data(data, may_miss=missing is not None)
    key, num_draws = as_key(key), as_count(num_draws, "num_draws", 1)
    chunk_size = min(as_count(chunk_size, "chunk_size", 1), num_draws)
    params = as_params(params)
    check_call(whole_model, *batch_arguments(data), plate)
    check_missing(whole_model, missing, *batch_arguments(data), params)
    read_key, draws_key = jax.random.split(key)
    plate_model = read_plate_model(read_key, model, data, plate, params, needs_all_params=True)

    integrals = plate_model.integrals(params, data)
    return _estimate(plate_model, num_draws, chunk_size, draws_key, params, integrals, data)


# Compiled once for all parameters. Priors are integrated before, not for every chunk.
@partial(jax.jit, static_argnums=(0, 1, 2))
def _estimate(
    plate_model: PlateModel,
    num_draws: int,
    chunk_size: int,
    key: jax.Array,
    params: Params,
    integrals: Integrals,
    data: Any,
) -> ImportanceLogEvidence:
    def add_chunk(sums: tuple[jax.Array, jax.Array], chunk: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        chunk_key = jax.random.fold_in(key, chunk)
        # The last chunk may reach beyond the draws asked for.
        wanted = chunk * chunk_size + jnp.arange(chunk_size) < num_draws

        def sum_weights(first: jax.Array) -> tuple[jax.Array, jax.Array]:
            rows = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, num_rows), data)
            keys = chunk_key if plate_model.draws_are_shared else _keys_of_data(chunk_key, first, num_rows)
            log_weights, _ = plate_model.score_prior_draws(keys, params, rows, chunk_size, integrals)
            log_weights = jnp.where(wanted, log_weights, -jnp.inf)
            return logsumexp(log_weights, axis=-1), logsumexp(2 * log_weights, axis=-1)

        if num_rows == num_data:
            found = sum_weights(jnp.array(0))
        else:
            found = jax.tree.map(lambda x: x[piece_of_datum, place_in_piece], lax.map(sum_weights, firsts))
        return jax.tree.map(jnp.logaddexp, sums, found), None

    num_data = jax.tree.leaves(data)[0].shape[0]
    num_rows = int(np.clip(batching.MEMORY_BUDGET // (chunk_size * _BYTES_OF_PAIR), 1, num_data))
    # The last piece of the data has the size of the others, and begins earlier.
    firsts = jnp.minimum(jnp.arange(-(-num_data // num_rows)) * num_rows, num_data - num_rows)
    piece_of_datum = jnp.arange(num_data) // num_rows
    place_in_piece = jnp.arange(num_data) - firsts[piece_of_datum]
    nothing = jnp.full(num_data, -jnp.inf)
    num_chunks = -(-num_draws // chunk_size)
    (log_sum, log_sum_of_squares), _ = lax.scan(add_chunk, (nothing, nothing), jnp.arange(num_chunks))
    effective_sample_size = jnp.exp(2 * log_sum - log_sum_of_squares)
    return ImportanceLogEvidence(
        log_sum - jnp.log(num_draws),
        # Rounding may put the effective size above the number of draws.
        jnp.sqrt(jnp.maximum(1 / effective_sample_size - 1 / num_draws, 0)),
        effective_sample_size,
    )


def _keys_of_data(key: jax.Array, first: jax.Array, number: int) -> jax.Array:
    """A key for each datum that depends on its number only."""
    return jax.vmap(lambda datum: jax.random.fold_in(key, datum))(first + jnp.arange(number))
