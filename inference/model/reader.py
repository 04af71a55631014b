"""Inspect a model before sampling or training: trace it, find its rows, and reject what is unsupported."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .arguments import Layout, argument_names, batch_arguments, flatten_arguments, is_array
from .check import find_whole_reads, point_key
from .handlers import Trace, check_plate_size
from .parameters import Parameters, Params, transforms_of
from .sites import check_has_latents, check_params, classify, plate_size
from .traced import compiled
from .two_runs import Reading, Runs, WholeModel

# Rows that a model is read with for training, where it must take any number of them.
_NUM_ROWS = 3

_CONCRETE_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def read_model(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    params: Params,
    plate: str | None = None,
) -> Reading:
    """Read a model at its arguments; it runs twice, and once more where its arguments must not be traced.

    Args:
        model: NumPyro model.
        args: its positional arguments; pytrees.
        kwargs: its keyword arguments; pytrees.
        params: constrained values of all its `numpyro.param` sites.
        plate: name of the plate whose rows are problems of their own.

    Raises:
        ValueError: the model can't be read, or what was read is not the model; the message says why.
    """
    leaves, structure = flatten_arguments(args, kwargs)
    runs = Runs(model, plate, params, point_key(0))
    whole = _read_whole(runs, leaves, structure)
    check_has_latents(classify(whole.trace, plate))
    check_params(whole.trace, params)
    parameters = Parameters(params, transforms_of(whole.trace))
    if plate is None:
        return runs.read_one(whole, whole.layout, leaves, parameters)
    num_data = plate_size(whole.trace, plate)
    if num_data == 1 and any(site["type"] == "deterministic" for site in whole.trace.values()):
        whole = whole._replace(trace=_trace_two_rows(runs, whole, leaves))
    rows = [n for n, leaf in enumerate(leaves) if is_array(leaf) and leaf.ndim > 0 and leaf.shape[0] == num_data]

    def read(rows: Collection[int]) -> Reading:
        layout = Layout.of(leaves, structure, rows=rows, fix_arrays=whole.layout.fixes_arrays)
        try:
            return runs.read_one(whole, layout, leaves, parameters, num_data)
        except _CONCRETE_ERRORS as error:
            raise _looked_at(error) from error

    try:
        return read(rows)
    except Exception as error:
        # Perhaps an array that all data share has as many rows as there are data.
        places = whole.layout.places
        numbers = [number for number, place in enumerate(places) if place in rows]
        if len(numbers) < 2:
            raise
        read_whole = find_whole_reads(whole.program, whole.layout.arrays(leaves), numbers, params)
        if not 0 < len(read_whole) < len(numbers):
            raise
        try:
            return read([place for place in rows if places.index(place) not in read_whole])
        except Exception:
            raise error from None


def read_rows_model(
    key: jax.Array, model: Callable[..., Any], data: Any, plate: str, given: Params, *, needs_all_params: bool = False
) -> Reading:
    """Read a model of any number of rows, and first values of its parameters; it runs twice.

    Args:
        key: seed of the first values of the parameters.
        model: NumPyro model, called as `call_model` does.
        data: pytree of arrays (num_data, ...).
        plate: name of the plate that holds the data.
        given: constrained values that replace the model's own first ones.
        needs_all_params: whether to refuse a model with parameters that are not given.

    Raises:
        ValueError: the model can't be read, or what was read is not the model; the message says why.
    """
    num_data = jax.tree.leaves(data)[0].shape[0]
    # More rows than one, so that an axis of the plate is seen to be one.
    rows = jnp.arange(max(2, min(_NUM_ROWS, num_data))) % num_data
    leaves, structure = flatten_arguments(*batch_arguments(jax.tree.map(lambda leaf: leaf[rows], data)))
    layout = Layout.of(leaves, structure, rows=range(len(leaves)))
    runs = Runs(model, plate, given, key)
    try:
        whole = runs.trace_whole(layout, leaves, len(rows))
    except _CONCRETE_ERRORS as error:
        raise _looked_at(error) from error
    check_plate_size(plate, plate_size(whole.trace, plate), len(rows))
    if needs_all_params:
        check_params(whole.trace, given)
    program = compiled(whole.program.select(lambda outputs: outputs["params"]))
    parameters = Parameters(program(leaves, given, key), transforms_of(whole.trace))
    return runs.read_one(whole, layout, leaves, parameters, len(rows))


def _looked_at(error: Exception) -> ValueError:
    return ValueError(
        "The model looks at the values of its data in Python, as `int(x.max())` or `if x[0] > 0` do. Its data are rows "
        "here, traced by JAX: use `jnp.where` and shapes, or bind what all data share to the model by "
        f"`functools.partial`. JAX says: {error}"
    )


def _read_whole(runs: Runs, leaves: Sequence[Any], structure: Any) -> WholeModel:
    try:
        return runs.trace_whole(Layout.of(leaves, structure), leaves)
    except Exception as error:
        if not any(map(is_array, leaves)):
            raise
        _check_rows(error, runs.model, leaves, structure)
        try:
            # A model that looks at its data gets them as they are.
            return runs.trace_whole(Layout.of(leaves, structure, fix_arrays=True), leaves)
        except Exception:
            if isinstance(error, _CONCRETE_ERRORS):
                raise
            raise error from None


def _check_rows(error: Exception, model: Callable[..., Any], leaves: Sequence[Any], structure: Any) -> None:
    """Raise ValueError where NumPyro refused a plate because an array has no rows."""
    names = argument_names(Layout.of(leaves, structure), model)
    empty = [name for name, leaf in zip(names, leaves, strict=True) if is_array(leaf) and jnp.shape(leaf)[:1] == (0,)]
    if empty and isinstance(error, AssertionError) and "size of plate" in str(error):
        raise ValueError(f"{' and '.join(empty)} must have at least one row, got none.") from error


def _trace_two_rows(runs: Runs, whole: WholeModel, leaves: Sequence[Any]) -> Trace:
    """Sites of the model of the one datum twice, so that an axis of the plate is seen to be one."""
    twice = [jnp.repeat(x, 2, axis=0) if is_array(x) and jnp.shape(x)[:1] == (1,) else x for x in leaves]
    layout = Layout.of(twice, whole.layout.structure, fix_arrays=whole.layout.fixes_arrays)
    return runs.trace_whole(layout, twice).trace
