"""Evaluates a traced model where discrete sites take all their states at once, each number for the states it depends on.

A number that depends on no discrete site is computed once, one that depends on two of them for each pair of states. No
shape of the model's own changes: each operation is mapped, by `jax.vmap`, over the states that its inputs depend on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, jaxpr_as_fun  # pyright: ignore[reportPrivateImportUsage]

from .elimination import align, check_num_states
from .support import DiscreteSite, Variable

# First steps of a scan, run one by one until all later ones depend on the states of as many steps before them.
_MAX_HEAD = 8

# Stands in a traced program for the value of a discrete site.
_value_p = Primitive("discrete_site_value")


class Enumerated(NamedTuple):
    """A number of a program, for all states of the variables that it depends on.

    Attributes:
        array: one leading axis for each variable, then its own axes.
        variables: sorted.
    """

    array: Any
    variables: tuple[Variable, ...] = ()


class Series(NamedTuple):
    """What a `scan` stacks that depends on discrete sites inside it.

    Attributes:
        head: of the first steps, where the variables differ from step to step.
        rolled: of the other ones, stacked along the first axis; the variables are those of the first of them. None where
            there is no other step.
        scan: the scan.
    """

    head: tuple[Enumerated, ...]
    rolled: Enumerated | None
    scan: "ScanInfo"


class ScanInfo(NamedTuple):
    """A `scan` with discrete sites inside.

    Attributes:
        sites: names of the discrete sites inside.
        length: number of its steps.
        start: number of steps in the head.
        reverse: whether it runs from the end.
    """

    sites: frozenset[str]
    length: int
    start: int
    reverse: bool


class Unusable(NamedTuple):
    """A number outside of a `scan` that depends on discrete sites inside it, in a way that is not known.

    Attributes:
        sites: names of these.
    """

    sites: frozenset[str]


type Value = Enumerated | Series | Unusable


@_value_p.def_abstract_eval
def _value_shape(*, site: str, shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.core.ShapedArray(shape, dtype)


def mark_value(site: DiscreteSite) -> jax.Array:
    """Stand-in, in a program that is traced, for the value of a discrete site."""
    return _value_p.bind(site=site.name, shape=site.shape, dtype=jax.dtypes.canonicalize_dtype(site.states.dtype))


def evaluate(
    program: ClosedJaxpr, inputs: Sequence[Value], sites: Mapping[str, DiscreteSite], step: int = -1
) -> list[Value]:
    """Evaluate a program for all states of the discrete sites in it.

    Args:
        program: traced, with marked values of discrete sites.
        inputs: its inputs.
        sites: by name, the discrete sites.
        step: number of the step, in the body of a scan.

    Raises:
        ValueError: a number depends on too many joint states.
    """
    jaxpr = program.jaxpr
    env: dict[Any, Value] = dict(zip(jaxpr.constvars, map(Enumerated, program.consts), strict=True))
    env.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        return Enumerated(atom.val) if isinstance(atom, Literal) else env[atom]

    for equation in jaxpr.eqns:
        outputs = _evaluate_equation(jaxpr, equation, [read(atom) for atom in equation.invars], sites, step)
        env.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def marked_sites(jaxpr: Jaxpr) -> frozenset[str]:
    """Names of the discrete sites whose values are marked in a program, also inside its operations."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive is _value_p:
            found.add(equation.params["site"])
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                found |= marked_sites(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)
    return frozenset(found)


def map_over_states(function: Any, inputs: Sequence[Enumerated]) -> list[Enumerated]:
    """Apply a function of arrays that returns a list of arrays, for all states of the variables of its inputs."""
    variables = tuple(sorted({v for x in inputs for v in x.variables}))
    check_num_states({v: n for x in inputs for v, n in zip(x.variables, jnp.shape(x.array), strict=False)})
    for v in reversed(variables):
        function = jax.vmap(function, in_axes=tuple(0 if v in x.variables else None for x in inputs))
    return [Enumerated(array, variables) for array in function(*(x.array for x in inputs))]


def stack_over_time(parts: Sequence[Enumerated], rolled: Enumerated | None) -> Enumerated:
    """Steps of a scan, and the other ones, stacked already, along one axis behind those of the variables."""
    everything = [*parts, *([] if rolled is None else [rolled])]
    variables = tuple(sorted({v for x in everything for v in x.variables}))
    arrays = [jnp.expand_dims(align(x.array, x.variables, variables), len(variables)) for x in parts]
    if rolled is not None:
        array = jnp.moveaxis(rolled.array, 0, len(rolled.variables))
        arrays.append(align(array, rolled.variables, variables))
    lead = jnp.broadcast_shapes(*(x.shape[: len(variables)] for x in arrays))
    arrays = [jnp.broadcast_to(x, lead + x.shape[len(variables) :]) for x in arrays]
    return Enumerated(jnp.concatenate(arrays, len(variables)), variables)


def _evaluate_equation(
    jaxpr: Jaxpr, equation: Any, inputs: Sequence[Value], sites: Mapping[str, DiscreteSite], step: int
) -> list[Value]:
    name, params = equation.primitive.name, equation.params
    if equation.primitive is _value_p:
        site = sites[params["site"]]
        return [Enumerated(site.values(), (Variable(site.name, step),))]
    unusable = frozenset().union(*(_hidden_sites(x) for x in inputs))
    if unusable:
        return [Unusable(unusable)] * len(equation.outvars)
    known = [x for x in inputs if isinstance(x, Enumerated)]
    if name in ("jit", "pjit", "closed_call"):
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        if isinstance(inner, ClosedJaxpr) and (any(x.variables for x in known) or marked_sites(inner.jaxpr)):
            return evaluate(inner, inputs, sites, step)
    if name == "scan" and (inside := marked_sites(params["jaxpr"].jaxpr)):
        return _evaluate_scan(equation, known, inside, sites, is_nested=step >= 0)
    return list(map_over_states(_as_function(jaxpr, equation), known))


def _as_function(jaxpr: Jaxpr, equation: Any) -> Any:
    """One operation of a program as a function of its inputs that returns a list."""
    inputs = list(dict.fromkeys(x for x in equation.invars if not isinstance(x, Literal)))
    places = [None if isinstance(x, Literal) else inputs.index(x) for x in equation.invars]
    single = jaxpr.replace(constvars=[], invars=inputs, outvars=equation.outvars, eqns=[equation])
    run = jaxpr_as_fun(ClosedJaxpr(single, ()))

    def function(*args: Any) -> Any:
        values = {place: arg for place, arg in zip(places, args, strict=True) if place is not None}
        return run(*(values[place] for place in range(len(inputs))))

    return function


def _hidden_sites(value: Value) -> frozenset[str]:
    match value:
        case Series(scan=scan):
            return scan.sites
        case Unusable(sites=names):
            return names
        case _:
            return frozenset()


def _is_program(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def _evaluate_scan(
    equation: Any,
    inputs: Sequence[Enumerated],
    inside: frozenset[str],
    sites: Mapping[str, DiscreteSite],
    *,
    is_nested: bool,
) -> list[Value]:
    """Evaluate a scan with discrete sites inside, in time linear in its length.

    What the scan carries depends on states of steps before. The first steps are run one by one, until it depends on the
    same number of steps before, which is the order of the Markov chain; the others are one scan.

    Args:
        equation: the scan.
        inputs: its inputs.
        inside: names of the discrete sites in its body.
        sites: by name, the discrete sites.
        is_nested: whether it stands in the body of another one with discrete sites.

    Raises:
        ValueError: a step depends on the states of all steps before, or scans are nested.
    """
    names = sorted(inside)
    if is_nested:
        raise ValueError(
            f"Discrete latent sites {names} stand in a `scan` inside a `scan`: write the inner one as a loop."
        )
    body, length, reverse = (equation.params[name] for name in ("jaxpr", "length", "reverse"))
    # Constants and what is carried have the shape that they have in the body.
    num_consts_carry = sum(x.aval.ndim == y.aval.ndim for x, y in zip(equation.invars, body.jaxpr.invars, strict=True))
    num_carry = sum(x.aval.ndim == y.aval.ndim for x, y in zip(equation.outvars, body.jaxpr.outvars, strict=True))
    num_consts = num_consts_carry - num_carry
    consts, carry = list(inputs[:num_consts]), list(inputs[num_consts:num_consts_carry])
    xs = [_time_first(x, reverse) for x in inputs[num_consts_carry:]]

    def run(carry: Sequence[Enumerated], x: Sequence[Enumerated], step: int) -> list[Enumerated]:
        outputs = evaluate(body, [*consts, *carry, *x], sites, step)
        return [_check_usable(output) for output in outputs]

    def at(step: int) -> list[Enumerated]:
        return [x._replace(array=x.array[step]) for x in xs]

    head: list[list[Enumerated]] = []
    while len(head) < length:
        step = len(head)
        after = _variables_after(run, carry, at(step), step)[:num_carry]
        if [_relative(x.variables, inside, step) for x in carry] == [_relative(v, inside, step + 1) for v in after]:
            break
        if step == _MAX_HEAD:
            raise ValueError(
                f"What `scan` carries depends on discrete latent sites {names} of all steps before, so the steps can't be "
                f"summed out one by one. Carry the states of the last {_MAX_HEAD} steps at most."
            )
        outputs = run(carry, at(step), step)
        carry = outputs[:num_carry]
        head.append(outputs[num_carry:])

    start, rolled = len(head), None
    if start < length:
        carry, rolled = _roll(run, carry, [x._replace(array=x.array[start:]) for x in xs], start, length)
    info = ScanInfo(inside, length, start, reverse)
    num_stacked = len(equation.outvars) - num_carry
    parts = ([step[n] for step in head] for n in range(num_stacked))
    stacked = [_join(part, None if rolled is None else rolled[n], info) for n, part in enumerate(parts)]
    ends = [_hide(x, inside) if start < length else x for x in carry]
    return [*ends, *stacked]


def _roll(
    run: Any, carry: Sequence[Enumerated], xs: Sequence[Enumerated], start: int, length: int
) -> tuple[list[Enumerated], list[Enumerated]]:
    """Run the steps behind the head as one scan; the variables are those of its first step."""
    variables: list[tuple[Variable, ...]] = []

    def step(arrays: list[jax.Array], x: list[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        now = [part._replace(array=array) for part, array in zip(carry, arrays, strict=True)]
        outputs = run(now, [part._replace(array=array) for part, array in zip(xs, x, strict=True)], start)
        variables[:] = [output.variables for output in outputs[len(carry) :]]
        ends = [jnp.asarray(output.array) for output in outputs]
        return ends[: len(carry)], ends[len(carry) :]

    arrays, stacked = lax.scan(step, [x.array for x in carry], [x.array for x in xs], length=length - start)
    ends = [part._replace(array=array) for part, array in zip(carry, arrays, strict=True)]
    return ends, [Enumerated(array, v) for array, v in zip(stacked, variables, strict=True)]


def _variables_after(
    run: Any, carry: Sequence[Enumerated], x: Sequence[Enumerated], step: int
) -> list[tuple[Variable, ...]]:
    """What the outputs of a step depend on."""
    found: list[tuple[Variable, ...]] = []

    def trace(arrays: list[jax.Array], x_arrays: list[jax.Array]) -> list[Any]:
        now = [part._replace(array=array) for part, array in zip(carry, arrays, strict=True)]
        outputs = run(now, [part._replace(array=array) for part, array in zip(x, x_arrays, strict=True)], step)
        found[:] = [output.variables for output in outputs]
        return [output.array for output in outputs]

    jax.eval_shape(trace, [part.array for part in carry], [part.array for part in x])
    return found


def _relative(variables: tuple[Variable, ...], inside: frozenset[str], step: int) -> tuple[Variable, ...]:
    """Variables with steps counted from the present one."""
    return tuple(v._replace(step=v.step - step) if v.site in inside else v for v in variables)


def _time_first(x: Enumerated, reverse: bool) -> Enumerated:
    array = jnp.moveaxis(jnp.asarray(x.array), len(x.variables), 0)
    return x._replace(array=array[::-1] if reverse else array)


def _join(head: list[Enumerated], rolled: Enumerated | None, scan: ScanInfo) -> Value:
    parts = [*head, *([] if rolled is None else [rolled])]
    if any(v.site in scan.sites for part in parts for v in part.variables):
        return Series(tuple(head), rolled, scan)
    stacked = stack_over_time(head, rolled)
    if scan.reverse:
        stacked = stacked._replace(array=jnp.flip(stacked.array, len(stacked.variables)))
    return stacked


def _hide(x: Enumerated, inside: frozenset[str]) -> Value:
    found = frozenset(v.site for v in x.variables) & inside
    return Unusable(found) if found else x


def _check_usable(value: Value) -> Enumerated:
    assert isinstance(value, Enumerated), "scans are not nested"
    return value
