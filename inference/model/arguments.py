"""Classify the arguments of a model: a row for each datum, an array that all data share, or a fixed value."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np

type Kind = Literal["row", "shared", "fixed"]

# A model's array argument: as it is given, or its shape where a model is only traced.
type ArrayLike = jax.Array | np.ndarray | jax.ShapeDtypeStruct


class FixedValue:
    """A value that compiled programs may depend on: arrays and numbers compared by content, anything else by identity."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self._key = _key_of(value)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FixedValue) and self._key == other._key


@dataclass(frozen=True)
class Layout:
    """How rows, shared arrays and fixed values make up the arguments of a model; hashable, for it is static.

    Attributes:
        structure: of the pair (args, kwargs).
        leaves: for each leaf where it comes from, and its value where that is fixed.
    """

    structure: Any
    leaves: tuple[tuple[Kind, FixedValue | None], ...]

    @classmethod
    def of(cls, leaves: Sequence[Any], structure: Any, *, rows: Collection[int] = (), fix_arrays: bool = False) -> Self:
        """Describe arguments.

        Args:
            leaves: of (args, kwargs), as `flatten_arguments` returns them.
            structure: of (args, kwargs).
            rows: positions, among the leaves, of the arrays that are cut into rows.
            fix_arrays: whether all other arrays reach the model as they are, rather than traced.
        """

        def describe(position: int, leaf: Any) -> tuple[Kind, FixedValue | None]:
            if position in rows:
                return "row", None
            if is_array(leaf) and not fix_arrays:
                return "shared", None
            return "fixed", FixedValue(leaf)

        return cls(structure, tuple(describe(position, leaf) for position, leaf in enumerate(leaves)))

    @property
    def fixes_arrays(self) -> bool:
        """Whether arrays other than rows reach the model as they are."""
        return any(fixed is not None and is_array(fixed.value) for _, fixed in self.leaves)

    @property
    def places(self) -> tuple[int, ...]:
        """Positions, among the leaves, of the arrays that are not fixed."""
        return tuple(place for place, (kind, _) in enumerate(self.leaves) if kind != "fixed")

    def arrays(self, leaves: Sequence[Any]) -> list[Any]:
        """The leaves that are not fixed."""
        return [leaves[place] for place in self.places]

    def split(self, leaves: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The leaves that are rows and those that are shared."""
        rows, shared = (
            [leaf for leaf, (kind, _) in zip(leaves, self.leaves, strict=True) if kind == wanted]
            for wanted in ("row", "shared")
        )
        return rows, shared

    def merge(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of the model, from `arrays`."""
        values = iter(arrays)
        leaves = [next(values) if fixed is None else fixed.value for _, fixed in self.leaves]
        return jax.tree.unflatten(self.structure, leaves)

    def arguments(self, rows: Sequence[Any], shared: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of the model, from what `split` returns."""
        sources = {"row": iter(rows), "shared": iter(shared)}
        return self.merge([next(sources[kind]) for kind, _ in self.leaves if kind != "fixed"])


def flatten_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Any]:
    """Leaves and structure of a model's arguments; floating NumPy scalars become arrays, whole ones stay as they are."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    return [jnp.asarray(leaf) if isinstance(leaf, np.inexact) else leaf for leaf in leaves], structure


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of numbers."""
    return isinstance(leaf, jax.Array) or (isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufcV")


def batch_arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a batch, as `call_model` passes them."""
    if isinstance(batch, dict):
        return (), batch
    return (batch if isinstance(batch, tuple) else (batch,)), {}


def _key_of(value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return type(value), value
    if is_array(value) and not (isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)):
        array = np.ascontiguousarray(value)
        return type(value), array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).hexdigest()
    return type(value), id(value)
