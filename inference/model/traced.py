"""Traced functions (jaxprs): dependencies of their outputs, partial evaluation, and a fingerprint."""

import enum
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun  # pyright: ignore[reportPrivateImportUsage]
from jax.interpreters import partial_eval

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PLAIN = str | bytes | int | float | complex | bool | None | enum.Enum | np.dtype


@dataclass(frozen=True, eq=False)
class Traced:
    """A traced function; two of them are equal where they compute the same.

    Attributes:
        program: what it computes, flat.
        inputs: structure of its positional arguments.
        outputs: structure of what it returns.
    """

    program: ClosedJaxpr
    inputs: Any
    outputs: Any

    @classmethod
    def of(cls, function: Callable[..., Any], *args: Any) -> "Traced":
        """Trace a function at arguments, arrays or their shapes; it runs once."""
        structures = []

        def flat(*args: Any) -> list[Any]:
            leaves, structure = jax.tree.flatten(function(*args))
            structures.append(structure)
            return leaves

        program = jax.make_jaxpr(flat)(*args)
        return cls(program, jax.tree.structure(args), structures[-1])

    def select(self, choose: Callable[[Any], Any]) -> "Traced":
        """The part of the function that computes `choose` of its outputs."""
        numbers = jax.tree.unflatten(self.outputs, range(self.outputs.num_leaves))
        chosen, outputs = jax.tree.flatten(choose(numbers))
        is_chosen = [number in set(chosen) for number in range(self.outputs.num_leaves)]
        jaxpr, _ = partial_eval.dce_jaxpr(self.program.jaxpr, is_chosen, instantiate=True)
        place = {number: place for place, number in enumerate(sorted(chosen))}
        jaxpr = jaxpr.replace(outvars=[jaxpr.outvars[place[number]] for number in chosen])
        return Traced(ClosedJaxpr(jaxpr, self.program.consts), self.inputs, outputs)

    def uses(self) -> tuple[Any, ...]:
        """For each leaf of the arguments, whether an output depends on it."""
        jaxpr = self.program.jaxpr
        _, is_used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        return jax.tree.unflatten(self.inputs, is_used)

    def input_shapes(self) -> tuple[Any, ...]:
        """Shapes of the arguments."""
        return jax.tree.unflatten(self.inputs, map(_shape_of, self.program.in_avals))

    def output_shapes(self) -> Any:
        """Shapes of what it returns."""
        return jax.tree.unflatten(self.outputs, map(_shape_of, self.program.out_avals))

    def __call__(self, *args: Any) -> Any:
        """Run it."""
        leaves = jax.tree.leaves(args)
        return jax.tree.unflatten(self.outputs, jaxpr_as_fun(self.program)(*leaves))

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what is computed: equal programs have equal ones, wherever the functions stand in memory."""
        digest = hashlib.sha256(_ADDRESS.sub("", f"{self.inputs}{self.outputs}").encode())
        _update_closed(digest.update, self.program)
        return digest.hexdigest()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Traced) and self.fingerprint == other.fingerprint


@lru_cache(maxsize=64)
def compiled(traced: Traced) -> Callable[..., Any]:
    """A traced function, compiled; equal ones are compiled once."""
    return jax.jit(traced.__call__)


class ModelIdentity:
    """A model as compiled programs know it: the function that it is, and what it computed when it was read.

    The same function computes something else when a global that it reads has changed; the fingerprint notices.
    """

    def __init__(self, function: Callable[..., Any], fingerprint: str) -> None:
        self.function, self.fingerprint = function, fingerprint

    def __hash__(self) -> int:
        return hash((id(self.function), self.fingerprint))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ModelIdentity):
            return False
        return self.function is other.function and self.fingerprint == other.fingerprint

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _shape_of(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _update_closed(update: Callable[[bytes], None], closed: ClosedJaxpr) -> None:
    _update_jaxpr(update, closed.jaxpr)
    for const in closed.consts:
        _update_value(update, const)


def _update_jaxpr(update: Callable[[bytes], None], jaxpr: Jaxpr) -> None:
    numbers: dict[Any, int] = {}

    def name(var: Any) -> str:
        if isinstance(var, Literal):
            _update_value(update, var.val)
            return f"literal {var.aval}"
        return f"{numbers.setdefault(var, len(numbers))}:{var.aval}"

    update(" ".join(map(name, (*jaxpr.constvars, *jaxpr.invars))).encode())
    for equation in jaxpr.eqns:
        update(equation.primitive.name.encode())
        update(" ".join(map(name, (*equation.invars, *equation.outvars))).encode())
        for key, value in equation.params.items():
            update(key.encode())
            _update_value(update, value)
    update(" ".join(map(name, jaxpr.outvars)).encode())


def _update_value(update: Callable[[bytes], None], value: Any) -> None:
    """Add one parameter of an operation to a digest; of functions only the name, for their programs stand beside them."""
    if isinstance(value, ClosedJaxpr):
        _update_closed(update, value)
    elif isinstance(value, Jaxpr):
        _update_jaxpr(update, value)
    elif isinstance(value, _PLAIN):
        update(repr(value).encode())
    elif isinstance(value, tuple | list):
        update(b"(%d" % len(value))
        for item in value:
            _update_value(update, item)
    elif isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        _update_value(update, jax.random.key_data(value))
    elif isinstance(value, jax.Array | np.ndarray | np.generic) or hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        update(f"{array.dtype}{array.shape}".encode())
        update(array.tobytes())
    else:
        update(_ADDRESS.sub("", repr(value)).encode())
