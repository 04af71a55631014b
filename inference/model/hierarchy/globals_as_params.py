"""A model whose latents outside the data plate are parameters, so that its data are problems of their own."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpyro
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.primitives import Messenger

from ..handlers import SiteMessage, in_control_flow, is_latent, run_model, substitute_zero_latents
from ..parameters import Params
from ..sites import plate_dims, scaled_log_prob


class GlobalsAsParams:
    """The model with each latent site outside a plate made a `numpyro.param` of the same name, constrained to its support.

    Its density, and whatever is observed outside the plate, is left out. Made by `globals_as_params`.
    """

    def __init__(self, model: Callable[..., Any], plate: str, is_learnt: bool) -> None:
        self.model, self.plate, self.is_learnt = model, plate, is_learnt
        # So that `inspect.signature` is the model's own.
        self.__wrapped__ = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _MakeParams(self.plate, self.is_learnt):
            return self.model(*args, **kwargs)


@lru_cache(maxsize=64)
def globals_as_params(model: Callable[..., Any], plate: str, *, is_learnt: bool = False) -> GlobalsAsParams:
    """The same object for the same arguments, as programs that are compiled for it want.

    Args:
        model: NumPyro model.
        plate: name of the data plate.
        is_learnt: whether an optimiser moves the parameters, which needs supports that are known beforehand.
    """
    return GlobalsAsParams(model, plate, is_learnt)


def log_density_outside(
    model: GlobalsAsParams,
    params: Params,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inside: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """Sum of the log-densities of all sites outside the plate, in the sites' own space.

    Args:
        model: the model; the one inside is run.
        params: constrained parameters, the globals' values among them.
        args: positional arguments of the model.
        kwargs: its keyword arguments.
        inside: values of the latents inside the plate, which nothing outside may depend on; zeros by default.
    """
    given = handlers.substitute(data={**params, **(inside or {})})
    sites = run_model(model.model, args, kwargs, params, (substitute_zero_latents(), given))
    outside = [s for s in sites.values() if s["type"] == "sample" and model.plate not in plate_dims(s)]
    return jnp.asarray(sum(jnp.sum(scaled_log_prob(site)) for site in outside))


class _MakeParams(Messenger):
    def __init__(self, plate: str, is_learnt: bool) -> None:
        super().__init__()
        self.plate, self.is_learnt = plate, is_learnt

    def process_message(self, msg: SiteMessage) -> None:
        if msg["type"] != "sample" or self.plate in plate_dims(msg):
            return
        if in_control_flow(msg):
            raise ValueError(
                f"Site {msg['name']!r} stands outside plate {self.plate!r} and inside a `scan` or `cond`: it can't "
                "be moved apart from the plate's latents. Leave `plate` out to sample the joint posterior as one problem."
            )
        if is_latent(msg) and msg["value"] is None:
            if msg["fn"].support.is_discrete:
                raise ValueError(
                    f"Latent site {msg['name']!r} outside plate {self.plate!r} is discrete. Sum it out, or fix its value "
                    "by `numpyro.handlers.condition`."
                )
            fn, shape = msg["fn"], msg["fn"].shape(msg["kwargs"].get("sample_shape", ()))

            def first_value(key: jax.Array) -> jax.Array:
                transform = biject_to(fn.support)
                return transform(jnp.zeros(transform.inverse_shape(shape)))

            is_known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(fn.support))
            if self.is_learnt and not is_known:
                raise ValueError(
                    f"The support of latent site {msg['name']!r}, outside plate {self.plate!r}, is computed by the model, "
                    "so it has no fixed map to the space of the optimiser. Give it a distribution whose support is known."
                )
            constraint = fn.support if is_known else constraints.real
            msg["value"] = numpyro.param(msg["name"], first_value, constraint=constraint)
        # Hidden from everything outside.
        msg["stop"] = True
