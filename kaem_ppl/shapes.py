"""Shapes and counts as users write them: an int for a shape of one axis, NumPy's integers for ints."""

import operator
from collections.abc import Iterable
from typing import Any


def as_shape(shape: int | Iterable[int], name: str = "shape") -> tuple[int, ...]:
    """The shape as a tuple of ints; an int is a shape of one axis.

    Raises:
        ValueError: where it is neither an int nor a sequence of ints, or negative; names the argument `name`.
    """
    try:
        sizes = _sizes(shape)
    except TypeError:
        raise ValueError(f"{name}={shape!r}: expected a shape such as (3,), or an int.") from None
    if any(size < 0 for size in sizes):
        raise ValueError(f"{name}={shape!r}: expected sizes of at least 0.")
    return sizes


def _sizes(shape: Any) -> tuple[int, ...]:
    try:
        return (operator.index(shape),)
    except TypeError:
        return tuple(operator.index(size) for size in shape)


def as_count(value: Any, name: str) -> int:
    """The value as an int.

    Raises:
        ValueError: where it is not an integer; names the argument `name`.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r}: expected an integer.") from None
