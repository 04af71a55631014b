"""Compare our log-densities with NumPyro's `log_density`, site by site, at random points."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from kaem_ppl.compilation import jit_by_cost

from .traced import Traced, compiled

# Of the sum of the sizes of a site's terms; float32 rounds each to 6e-8 of itself.
_TOLERANCE = 1e-5
# Points tried until all terms are finite: terms that are not can't differ.
_NUM_POINTS = 3
# Points where there are discrete latents: that elements of a plate depend on each other's shows where these differ.
_NUM_DISCRETE_POINTS = 12
# Operations that all of these together may take beyond the first three points: a few seconds.
_LARGEST_COST = 2e9


class Difference(NamedTuple):
    """A site whose log-density is not NumPyro's.

    Attributes:
        name: of the site.
        datum: number of the first datum where they differ; None without a plate.
        ours: log-density as it was read.
        numpyro: log-density of the whole model.
    """

    name: str
    datum: int | None
    ours: float
    numpyro: float


class Comparison(NamedTuple):
    """Two programs of one model.

    Attributes:
        whole: NumPyro's log-densities at a random point; of the model's arrays, given parameters and a key.
        one: ours, of one datum; of its row, shared arrays, parameters, values of the latents and a key.
        value_axes: by latent site, the axis of its value that belongs to the data plate; None without one.
    """

    whole: Traced
    one: Traced
    value_axes: tuple[tuple[str, int | None], ...]


def find_difference(
    comparison: Comparison,
    arrays: Sequence[Any],
    rows: Sequence[Any],
    shared: Sequence[Any],
    given: Mapping[str, Any],
    *,
    has_discrete: bool = False,
) -> Difference | None:
    """The first site whose log-density differs from NumPyro's at a random point; None where none does.

    Nothing is compared inside a traced function, whose numbers are not known, nor of arrays that other processes hold.

    Args:
        comparison: the two programs.
        arrays: what the whole model reads.
        rows: arrays (num_data, ...), those among them that are cut into rows.
        shared: the others.
        given: parameters that the whole model is given.
        has_discrete: whether latents are discrete.
    """
    inputs = list(arrays), list(rows), list(shared), dict(given)
    if not _are_known(inputs):
        return None
    # The comparison is compiled for one device, wherever the data are.
    inputs = jax.device_put(inputs, jax.local_devices()[0])
    (compare, cost), difference = _compiled(comparison), None
    num_points = _NUM_POINTS
    if has_discrete:
        num_points = int(np.clip(_LARGEST_COST / max(cost, 1), _NUM_POINTS, _NUM_DISCRETE_POINTS))
    for number in range(num_points):
        pairs = jax.device_get(compare(*inputs, point_key(number)))
        difference = next((found for name, pair in pairs.items() if (found := _differ(name, *pair))), None)
        if difference is not None or (
            not has_discrete and all(np.isfinite(size).all() for _, _, size in pairs.values())
        ):
            break
    return difference


def check_states(whole: Traced, arrays: Sequence[Any], given: Mapping[str, Any], key: jax.Array) -> None:
    """Refuse a model whose modules change their states where it is evaluated.

    Args:
        whole: NumPyro's reading of the model, with the states before and after a run.
        arrays: what it reads.
        given: parameters that it is given.
        key: of the run.

    Raises:
        ValueError: a state changes.
    """
    program = whole.select(lambda outputs: outputs["states"])
    inputs = list(arrays), dict(given), key
    if program.outputs.num_leaves == 0 or not _are_known(inputs):
        return
    before, after = jax.device_get(compiled(program)(*inputs))
    names = [name for name in before if not _is_same(before[name], after[name])]
    if names:
        raise ValueError(
            f"`model` changes the state {names[0]!r} where it is evaluated, as batch normalisation and dropout do in "
            "training mode. Make evaluation the default of an argument of the model, such as `is_training=False`, and "
            'train with `fit(..., training_kwargs={"is_training": True})`; modules of Flax NNX are switched without.'
        )


def find_whole_reads(
    whole: Traced, arrays: Sequence[Any], numbers: Sequence[int], given: Mapping[str, Any]
) -> tuple[int, ...]:
    """Those of the arrays whose first row reaches other data than the first: they are read whole.

    Args:
        whole: NumPyro's log-densities of each datum, of the model's arrays, given parameters and a key.
        arrays: the model's arrays.
        numbers: of those to look at, which have a row for each datum.
        given: parameters.
    """
    run = _compiled_log_probs(whole)

    def others(arrays: Sequence[Any]) -> list[np.ndarray]:
        log_probs = run(list(arrays), dict(given), jax.random.key(0))
        return [np.asarray(x)[1:] for x in jax.tree.leaves(log_probs)]

    def is_read_whole(number: int) -> bool:
        moved = others([_move_first_row(x) if n == number else x for n, x in enumerate(arrays)])
        return not all(np.array_equal(x, y, equal_nan=True) for x, y in zip(first, moved, strict=True))

    first = others(arrays)
    return tuple(number for number in numbers if is_read_whole(number))


@lru_cache(maxsize=64)
def _compiled(
    comparison: Comparison,
) -> tuple[Callable[..., dict[str, tuple[jax.Array, jax.Array, jax.Array]]], float]:
    """The comparison, and its number of operations.

    It is compiled ahead: so it also runs where the caller is traced, which `jax.jit` would trace it into.
    """
    whole, one, value_axes = comparison
    row, shared, given_to_one, *_ = one.input_shapes()
    has_plate = bool(row) or any(axis is not None for _, axis in value_axes)

    def compare(
        arrays: list[Any], rows: list[Any], shared: list[Any], given: dict[str, Any], key: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array, jax.Array]]:
        found = whole(arrays, given, key)

        def read(row: list[Any], values: dict[str, jax.Array]) -> dict[str, jax.Array]:
            params = {name: found["params"][name] for name in given_to_one}
            return one(row, shared, params, values, key)["log_probs"]

        values = found["values"]
        if has_plate:
            # The run of one datum keeps the plate's axis, of size 1.
            axes = ((name, axis) for name, axis in value_axes if axis is not None)
            values = {name: jnp.expand_dims(jnp.moveaxis(values[name], axis, 0), axis) for name, axis in axes}
            ours = jax.vmap(read)(rows, values)
        else:
            ours = read([], values)
        return {name: (ours[name], found["log_probs"][name], found["sizes"][name]) for name in ours}

    arrays, given, key = whole.input_shapes()
    sizes = jax.tree.leaves(whole.output_shapes()["sizes"])
    rows = [jax.ShapeDtypeStruct((*sizes[0].shape, *x.shape), x.dtype) for x in row]
    return jit_by_cost(compare, arrays, rows, shared, given, key)


@lru_cache(maxsize=_NUM_DISCRETE_POINTS)
def point_key(number: int) -> jax.Array:
    """A PRNG key that is known, also where the caller is traced."""
    with jax.ensure_compile_time_eval():
        return jax.random.key(number)


@lru_cache(maxsize=64)
def _compiled_log_probs(whole: Traced) -> Callable[..., Any]:
    return jax.jit(whole.select(lambda outputs: outputs["log_probs"]).__call__)


def _differ(name: str, ours: np.ndarray, numpyro: np.ndarray, size: np.ndarray) -> Difference | None:
    with np.errstate(invalid="ignore"):
        is_near = np.abs(ours - numpyro) <= _TOLERANCE * (size + 1)
    is_same = is_near | (ours == numpyro) | (np.isnan(ours) & np.isnan(numpyro))
    if is_same.all():
        return None
    datum = None if ours.ndim == 0 else int(np.argmin(is_same))
    return Difference(name, datum, *(float(x if datum is None else x[datum]) for x in (ours, numpyro)))


def _are_known(inputs: Any) -> bool:
    """Whether all numbers are at hand: nothing is traced, nor held by another process."""
    leaves = jax.tree.leaves(inputs)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return False
    return all(leaf.is_fully_addressable for leaf in leaves if isinstance(leaf, jax.Array))


def _is_same(before: Any, after: Any) -> bool:
    if jax.tree.structure(before) != jax.tree.structure(after):
        return False
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return all(np.array_equal(x, y, equal_nan=np.asarray(x).dtype.kind == "f") for x, y in pairs)


def _move_first_row(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    if x.dtype == bool:
        return x.at[0].set(~x[0])
    if jnp.issubdtype(x.dtype, jnp.integer):
        # Another row's, if there is one: a number that means something to the model.
        other = x[jnp.argmax(jnp.any((x != x[0]).reshape(len(x), -1), axis=-1))]
        return x.at[0].set(jnp.where(jnp.all(other == x[0]), x[0] + 1, other))
    return x.at[0].add(0.01 * (1 + jnp.abs(x[0])).astype(x.dtype))
