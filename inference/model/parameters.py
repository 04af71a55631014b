"""The `numpyro.param` sites of a model: their first values, and the map to the unconstrained space of optimisers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from .data import call_model
from .latent_placeholders import undrawn

type Params = dict[str, Any]


@dataclass(frozen=True)
class Parameters:
    """Values and constraints of a model's `numpyro.param` sites.

    Attributes:
        values: constrained values by site name; each is an array or a pytree of arrays, as `flax_module` registers.
        transforms: by site name, the bijection from unconstrained to constrained space.
    """

    values: Params
    transforms: dict[str, Any]

    def constrain(self, unconstrained: Params) -> Params:
        """Map unconstrained values to the space the model reads."""
        return {name: jax.tree.map(self.transforms[name], value) for name, value in unconstrained.items()}

    def unconstrain(self, constrained: Params) -> Params:
        """Map constrained values to the space the optimiser moves in."""
        return {name: jax.tree.map(self.transforms[name].inv, value) for name, value in constrained.items()}


def parameter_names(model: Callable, data: Any, given: Params) -> set[str]:
    """Names of the model's parameters, from an abstract run at given ones, in which nothing is computed."""
    names = set()

    def run(first, given):
        with handlers.trace() as sites, undrawn(), handlers.substitute(data=given), handlers.seed(rng_seed=0):
            call_model(model, first)
        names.update(name for name, site in sites.items() if site["type"] == "param")

    jax.eval_shape(run, jax.tree.map(lambda leaf: leaf[:1], data), given)
    return names


def read_parameters(key: jax.Array, model: Callable, data: Any, given: Params | None = None) -> Parameters:
    """Run the model once, on the first datum, and collect its parameters.

    Args:
        key: seed of the initial values.
        model: NumPyro model.
        data: pytree of arrays (num_data, ...).
        given: constrained values that replace the model's own initial ones.

    Raises:
        ValueError: `given` names a parameter the model does not have, or the model has mutable state.
    """
    given = given or {}
    first = jax.tree.map(lambda leaf: leaf[:1], data)
    sites = {}

    # Compiled, so that only what initial values need is computed.
    @jax.jit
    def initial_values(key, given):
        with handlers.trace() as trace, undrawn(), handlers.substitute(data=given), handlers.seed(rng_seed=key):
            call_model(model, first)
        sites.update(trace)
        return {name: site["value"] for name, site in trace.items() if site["type"] == "param"}

    values = initial_values(key, given)
    mutable = [name for name, site in sites.items() if site["type"] == "mutable"]
    if mutable:
        raise ValueError(
            f"The model keeps mutable state in {mutable} (batch statistics, for example), which has no meaning when "
            "data share prior draws. Use a module without it, such as layer or group normalisation."
        )
    params = {name: site for name, site in sites.items() if site["type"] == "param"}
    unknown = sorted(set(given) - set(params))
    if unknown:
        raise ValueError(f"`params` names {unknown}, but the model's parameters are {sorted(params)}.")
    return Parameters(
        values=values,
        transforms={
            name: biject_to(site["kwargs"].get("constraint", constraints.real)) for name, site in params.items()
        },
    )
