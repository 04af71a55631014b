"""Arguments as users write them: what is taken for what is meant, and the one sentence that refuses the rest."""

import operator
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Characters of a value that a message shows.
_LONGEST = 80


def as_key(key: Any, name: str = "key") -> Array:
    """The argument as one JAX random key.

    Args:
        key: a typed key of shape (), an old one (uint32 words), or an integer, which is taken as a seed.
        name: of the argument.

    Raises:
        TypeError: it is no key and no integer.
        ValueError: it is an array of keys, or the words of no key.
    """
    if isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape == ():
            return key
        raise ValueError(f"`{name}` must be one random key, got {key.shape} of them: pass a single one, as `keys[0]`.")
    if isinstance(key, Array | np.ndarray) and key.ndim and key.dtype == np.uint32:
        words = _words(jax.config.jax_default_prng_impl)
        if key.shape == words:
            return jax.random.wrap_key_data(jnp.asarray(key))
        raise ValueError(
            f"`{name}` must be one random key, whose words have shape {words}, got {describe(key)}: pass "
            "`jax.random.key(0)`, or an integer seed."
        )
    try:
        if isinstance(key, bool | np.bool):
            raise TypeError
        return jax.random.key(operator.index(key))
    except (TypeError, OverflowError):
        raise TypeError(
            f"`{name}` must be a random key such as `jax.random.key(0)`, or an integer seed, got {describe(key)}."
        ) from None


@lru_cache(maxsize=8)
def _words(implementation: str) -> tuple[int, ...]:
    """Shape of the words of an old key."""
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=implementation))).shape


def as_array(value: Any, name: str, dtype: Any = None) -> Array:
    """The value as an array of numbers.

    Args:
        value: what was given.
        name: of the argument.
        dtype: of the array; None takes what NumPy takes.

    Raises:
        TypeError: it is not made of numbers.
        ValueError: it is made of rows of different lengths.
    """
    if isinstance(value, Array):
        return value if dtype is None else value.astype(dtype)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"`{name}` must be an array of numbers, got rows of different lengths.") from None
    if array.dtype.kind not in "biufcV":
        raise TypeError(f"`{name}` must be an array of numbers, got {describe(value)}.")
    return jnp.asarray(array, dtype)


def as_shape(shape: int | Iterable[int], name: str = "shape", *, least: int = 0) -> tuple[int, ...]:
    """The shape as a tuple of ints; an int is a shape of one axis.

    Args:
        shape: what was given.
        name: of the argument.
        least: smallest size.

    Raises:
        ValueError: where it is neither an int nor a sequence of ints, or too small.
    """
    try:
        sizes = _sizes(shape)
    except TypeError:
        raise ValueError(f"`{name}` must be a shape such as (3,), or an int, got {describe(shape)}.") from None
    if any(size < least for size in sizes):
        raise ValueError(f"`{name}` must hold sizes of at least {least}, got {sizes}.")
    return sizes


def _sizes(shape: Any) -> tuple[int, ...]:
    try:
        return (operator.index(shape),)
    except TypeError:
        return tuple(operator.index(size) for size in shape)


def as_count(value: Any, name: str, least: int | None = None) -> int:
    """The value as an int; NumPy's integers and arrays of one integer are taken.

    Args:
        value: what was given.
        name: of the argument.
        least: smallest number.

    Raises:
        ValueError: where it is not an integer, or too small.
    """
    wanted = "a whole number" if least is None else f"a whole number of at least {least}"
    try:
        if isinstance(value, bool | np.bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"`{name}` must be {wanted}, got {describe(value)}.") from None
    if least is not None and number < least:
        raise ValueError(f"`{name}` must be {wanted}, got {number}.")
    return number


def as_number(
    value: Any,
    name: str,
    *,
    above: float | None = None,
    below: float | None = None,
    least: float | None = None,
    most: float | None = None,
    what: str = "a number",
) -> float:
    """The value as a finite float within bounds.

    Args:
        value: what was given; NumPy's numbers and arrays of one number are taken.
        name: of the argument.
        above: a bound that it must exceed.
        below: a bound that it must stay under.
        least: smallest value.
        most: largest value.
        what: the argument means, for the message.

    Raises:
        ValueError: it is not a number, not finite, or out of bounds.
    """
    bounds = [("above", above), ("of at least", least), ("below", below), ("of at most", most)]
    said = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    try:
        if isinstance(value, bool | np.bool | str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    outside = (
        not np.isfinite(number)
        or (above is not None and not number > above)
        or (below is not None and not number < below)
        or (least is not None and not number >= least)
        or (most is not None and not number <= most)
    )
    if outside:
        raise ValueError(f"`{name}` must be {what}{' ' + said if said else ''}, got {describe(value)}.")
    return number


def as_names(value: Any, name: str, known: Iterable[str]) -> list[str]:
    """The value as a list of one or more names; a string is one name.

    Args:
        value: what was given.
        name: of the argument.
        known: the names that there are.

    Raises:
        ValueError: where there is none, or one that is not known.
    """
    known = list(known)
    names = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    unknown = [x for x in names if x not in known]
    if unknown or not names:
        raise ValueError(f"`{name}` must be of {known}, got {describe(unknown or names)}.")
    return names


def set_counts(settings: Any, **least: int) -> None:
    """Make integers of the fields of a frozen dataclass, in place; None stays where it is the field's default.

    Args:
        settings: the instance, in its `__post_init__`.
        **least: by name of the field, its smallest value.

    Raises:
        ValueError: a field is no integer, or too small.
    """
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is not None or getattr(type(settings), name, 0) is not None:
            object.__setattr__(settings, name, as_count(value, name, smallest))


def set_number(settings: Any, name: str, **bounds: Any) -> None:
    """Make a float of a field of a frozen dataclass, in place; None stays where it is the field's default.

    Args:
        settings: the instance, in its `__post_init__`.
        name: of the field.
        **bounds: as those of `as_number`.

    Raises:
        ValueError: the field is no finite number, or out of bounds.
    """
    value = getattr(settings, name)
    if value is not None or getattr(type(settings), name, 0) is not None:
        object.__setattr__(settings, name, as_number(value, name, **bounds))


def check_kind(value: Any, kinds: type | tuple[type, ...], name: str, expected: str) -> None:
    """Refuse an argument that is not an instance of one of the classes.

    Args:
        value: what was given.
        kinds: the classes.
        name: of the argument.
        expected: what it must be, for the message, such as "a basis such as `RBF(20)`".

    Raises:
        TypeError: it is not; where a class itself was given, the message says to call it.
    """
    if isinstance(value, kinds):
        return
    raise TypeError(f"`{name}` must be {expected}, got {describe(value)}.")


def check_callable(value: Any, name: str, expected: str) -> None:
    """Refuse an argument that can't be called.

    Raises:
        TypeError: it can't.
    """
    if not callable(value):
        raise TypeError(f"`{name}` must be {expected}, got {describe(value)}.")


def describe(value: Any) -> str:
    """A value in a few words, on one line."""
    if isinstance(value, type):
        return f"the class `{value.__name__}`, which lacks its parentheses"
    if isinstance(value, Array | np.ndarray) and np.ndim(value):
        return f"an array of shape {value.shape} and type {value.dtype}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({type(value).__name__})"
