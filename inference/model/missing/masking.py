"""A model whose observed NaN are missing entries, and what is refused of such."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.primitives import Messenger

from ..arguments import Layout, flatten_arguments
from ..handlers import SiteMessage, in_control_flow, run_model, substitute_zero_latents, wrap_bodies
from ..wrappers import unwrap
from .incomplete import Incomplete, is_joint

type Missing = Literal["nan"] | None


class IncompleteModel:
    """The model with each observed site of floating-point numbers `Incomplete`. Made by `incomplete_model`."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model
        # So that `inspect.signature` is the model's own.
        self.__wrapped__ = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _MakeIncomplete():
            return self.model(*args, **kwargs)


def incomplete_model(model: Callable[..., Any], missing: Missing) -> Callable[..., Any]:
    """The model as `missing` says; the same object for the same model, as programs that are compiled for it want.

    Args:
        model: NumPyro model.
        missing: "nan" where NaN among the observations stands for missing entries; None where there are none.

    Raises:
        ValueError: `missing` is something else.
    """
    if missing is None:
        return model
    if not isinstance(missing, str) or missing != "nan":
        raise ValueError(
            f"`missing` must be 'nan' or None, got {missing!r}: where a boolean array says what is missing, put NaN "
            "there by `jnp.where(is_missing, jnp.nan, x)`."
        )
    return _cached(model)


@lru_cache(maxsize=64)
def _cached(model: Callable[..., Any]) -> IncompleteModel:
    return IncompleteModel(model)


def check_missing(
    model: Callable[..., Any], missing: Missing, args: tuple[Any, ...], kwargs: dict[str, Any], params: dict[str, Any]
) -> None:
    """Refuse a value of which a part is missing where its law has no marginal that is known.

    Raises:
        ValueError: there is one.
    """
    if missing is None:
        return
    flags: dict[str, jax.Array] = {}
    leaves, structure = flatten_arguments(args, kwargs)
    layout = Layout.of(leaves, structure)

    def run(arrays: list[Any], params: dict[str, Any]) -> dict[str, jax.Array]:
        sites = run_model(_cached(model), *layout.merge(arrays), params, (substitute_zero_latents(),))
        for name, site in sites.items():
            if site["type"] == "sample" and isinstance(site["fn"], Incomplete) and is_joint(site["fn"].complete):
                is_nan = jnp.isnan(site["value"])
                axes = tuple(range(-unwrap(site["fn"].complete).event_dim, 0))
                flags[name] = jnp.any(is_nan.any(axes) & ~is_nan.all(axes))
        return flags

    try:
        found = jax.jit(run)(layout.arrays(leaves), params)
    except Exception:
        # What is wrong with the model is said where it is read.
        return
    for name, is_partial in found.items():
        if is_partial:
            raise ValueError(
                f"Observed site {name!r} misses a part of a value whose entries depend on each other, and the law of "
                "the others alone is not known. Pass values that are all there or all NaN, write independent entries by "
                "`to_event`, or use `MultivariateNormal`."
            )


def _within(body: Callable[..., Any]) -> Callable[..., Any]:
    def incomplete(*args: Any) -> Any:
        with _MakeIncomplete():
            return body(*args)

    return incomplete


class _MakeIncomplete(Messenger):
    def process_message(self, msg: SiteMessage) -> None:
        if msg["type"] == "control_flow":
            wrap_bodies(msg, _within)
        if (
            msg["type"] != "sample"
            or in_control_flow(msg)
            or not msg["is_observed"]
            or isinstance(unwrap(msg["fn"]), dist.Unit)
        ):
            return
        if jnp.issubdtype(jnp.result_type(msg["value"]), jnp.floating):
            msg["fn"] = Incomplete(msg["fn"])
