"""The `numpyro.param` sites of a model: their first values, and the map to the unconstrained space of optimisers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform
from numpyro.primitives import Messenger

from kaem_ppl.arguments import describe

from .data import call_model
from .handlers import SiteMessage, Trace, substitute_zero_latents
from .modules.modes import module_mode
from .modules.state import ModuleState, without_keys
from .sites import check_names

type Params = dict[str, Any]


@dataclass(frozen=True)
class Parameters:
    """Values and constraints of a model's `numpyro.param` sites, and the states of its modules.

    Attributes:
        values: constrained values by site name; each is an array or a pytree of arrays, as `flax_module` registers. Those
            of `mutable` sites are among them, without PRNG keys.
        transforms: by name of the `numpyro.param` sites, the bijection from unconstrained to constrained space.
    """

    values: Params
    transforms: dict[str, Transform]

    def constrain(self, unconstrained: Params) -> Params:
        """Map unconstrained values to the space the model reads."""
        return {name: jax.tree.map(self.transforms[name], value) for name, value in unconstrained.items()}

    def unconstrain(self, constrained: Params) -> Params:
        """Map constrained values to the space the optimiser moves in."""
        return {name: jax.tree.map(self.transforms[name].inv, value) for name, value in constrained.items()}


def as_params(params: Any) -> Params:
    """The argument `params` as values by site name; what has them as its own `params`, as a result of `fit`, is taken.

    Raises:
        TypeError: it is no mapping of site names to arrays.
        ValueError: a value is NaN.
    """
    if params is None:
        return {}
    # A result of `fit` holds the learnt values.
    params = getattr(params, "params", params)
    if not isinstance(params, Mapping):
        raise TypeError(
            "`params` must be a dictionary of values by the name of a `numpyro.param` site, such as `fit(...).params`, got "
            f"{describe(params)}."
        )
    # The states of modules that NumPyro's SVI returns have keys.
    params = without_keys(params)
    for path, leaf in jax.tree.leaves_with_path(params):
        name = f"`params{jax.tree_util.keystr(path)}`"
        dtype = np.asarray(leaf).dtype if not isinstance(leaf, jax.Array) else leaf.dtype
        if not (jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool)):
            raise TypeError(f"{name} must be an array of numbers, got {describe(leaf)}.")
        is_known = not isinstance(leaf, jax.core.Tracer) and getattr(leaf, "is_fully_addressable", True)
        if is_known and jnp.issubdtype(dtype, jnp.inexact) and np.isnan(np.asarray(leaf)).any():
            raise ValueError(f"{name} holds NaN: pass values that are numbers, such as those of an earlier state.")
    return params


class CheckParams(Messenger):
    """Refuses a given parameter of another shape than the model starts it with, before the model meets it."""

    def __init__(self, given: Params) -> None:
        """Set up.

        Args:
            given: values by site name.
        """
        super().__init__()
        self.given = given

    def postprocess_message(self, msg: SiteMessage) -> None:
        """Raise ValueError where the shape differs."""
        name = msg.get("name", "")
        if msg["type"] == "mutable" and msg["value"] is None and name.replace("$state", "$params") in self.given:
            raise ValueError(f"`params` lacks the model's {[name]}: pass the learnt values, such as `fit(...).params`.")
        if msg["type"] not in ("param", "mutable") or msg["name"] not in self.given or not msg["args"]:
            return
        shapes = []
        for value in map(without_keys, (msg["args"][0], msg["value"])):
            if value is None or not jax.tree.leaves(value):
                return
            leaves = jax.tree.leaves_with_path(value)
            shapes.append({jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves})
        expected, found = shapes
        if expected != found:
            # Those of one array have no path.
            wanted, came = (", ".join(f"{k} {v}".strip() for k, v in x.items()) for x in shapes)
            raise ValueError(
                f"`params[{msg['name']!r}]` has shape {came}, but the model starts it with shape {wanted}: pass values of "
                "that shape."
            )


def transforms_of(trace: Trace) -> dict[str, Transform]:
    """By name of the `numpyro.param` sites of a trace, the bijection from unconstrained to constrained space."""
    params = {name: site for name, site in trace.items() if site["type"] == "param"}
    return {name: biject_to(site["kwargs"].get("constraint", constraints.real)) for name, site in params.items()}


def check_floating(values: Params) -> None:
    """Raise ValueError where a parameter that is learnt is not made of floating-point numbers."""
    for name, value in values.items():
        for leaf in jax.tree.leaves(value):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(
                    f"`params[{name!r}]` has dtype {jnp.result_type(leaf)}: start it from floating-point numbers."
                )


def read_parameters(
    key: jax.Array, model: Callable[..., Any], data: Any, given: Params | None = None, *, may_lack: bool = False
) -> Parameters:
    """Run the model once, on the first datum, and collect its parameters.

    Args:
        key: seed of the initial values.
        model: NumPyro model.
        data: pytree of arrays (num_data, ...).
        given: constrained values that replace the model's own initial ones.
        may_lack: whether `given` may name parameters that the model does not have.

    Raises:
        ValueError: `given` names a parameter the model does not have.
    """
    given = given or {}
    first = jax.tree.map(lambda leaf: leaf[:1], data)
    sites: Trace = {}
    state = ModuleState()

    # Compiled, so that only what initial values need is computed.
    @jax.jit
    def initial_values(key: jax.Array, given: Params) -> Params:
        with (
            module_mode("evaluation"),
            handlers.trace() as trace,
            state,
            substitute_zero_latents(),
            handlers.substitute(data=given),
            handlers.seed(rng_seed=key),
        ):
            call_model(model, first)
        sites.update(trace)
        return {name: site["value"] for name, site in trace.items() if site["type"] == "param"} | state.before

    values = initial_values(key, given)
    if not may_lack:
        check_names(set(given), set(values))
    return Parameters(values, transforms_of(sites))
