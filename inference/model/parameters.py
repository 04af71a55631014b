"""The `numpyro.param` sites of a model: their first values, and the map to the unconstrained space of optimisers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from .data import call_model
from .handlers import Trace, substitute_zero_latents
from .sites import check_mutable, check_names

type Params = dict[str, Any]


@dataclass(frozen=True)
class Parameters:
    """Values and constraints of a model's `numpyro.param` sites.

    Attributes:
        values: constrained values by site name; each is an array or a pytree of arrays, as `flax_module` registers.
        transforms: by site name, the bijection from unconstrained to constrained space.
    """

    values: Params
    transforms: dict[str, Transform]

    def constrain(self, unconstrained: Params) -> Params:
        """Map unconstrained values to the space the model reads."""
        return {name: jax.tree.map(self.transforms[name], value) for name, value in unconstrained.items()}

    def unconstrain(self, constrained: Params) -> Params:
        """Map constrained values to the space the optimiser moves in."""
        return {name: jax.tree.map(self.transforms[name].inv, value) for name, value in constrained.items()}


def transforms_of(trace: Trace) -> dict[str, Transform]:
    """By name of the `numpyro.param` sites of a trace, the bijection from unconstrained to constrained space."""
    params = {name: site for name, site in trace.items() if site["type"] == "param"}
    return {name: biject_to(site["kwargs"].get("constraint", constraints.real)) for name, site in params.items()}


def check_floating(values: Params) -> None:
    """Raise ValueError where a parameter is not made of floating-point numbers."""
    for name, value in values.items():
        for leaf in jax.tree.leaves(value):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(
                    f"Parameter {name!r} has dtype {jnp.result_type(leaf)}. Start it from floating-point numbers."
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
        ValueError: `given` names a parameter the model does not have, or the model has mutable state.
    """
    given = given or {}
    first = jax.tree.map(lambda leaf: leaf[:1], data)
    sites: Trace = {}

    # Compiled, so that only what initial values need is computed.
    @jax.jit
    def initial_values(key: jax.Array, given: Params) -> Params:
        with (
            handlers.trace() as trace,
            substitute_zero_latents(),
            handlers.substitute(data=given),
            handlers.seed(rng_seed=key),
        ):
            call_model(model, first)
        sites.update(trace)
        return {name: site["value"] for name, site in trace.items() if site["type"] == "param"}

    values = initial_values(key, given)
    check_mutable(sites)
    if not may_lack:
        check_names(set(given), set(values))
    return Parameters(values, transforms_of(sites))
