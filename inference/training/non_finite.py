"""Where a model leaves the finite numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro import handlers

from ..model.data import call_model
from ..model.parameters import Params
from ..model.plate_model import PlateModel


def find_non_finite(key: jax.Array, plate_model: PlateModel, params: Params, batch: Any) -> tuple[str, ...]:
    """Names of parameters that are not finite; or if all are, of sample sites whose log-density is not.

    Args:
        key: PRNG key, of the draws from the prior at which log-densities are looked at.
        plate_model: the model.
        params: constrained parameters, of a guide too.
        batch: pytree of arrays (B, ...).
    """
    broken = tuple(name for name, value in params.items() if not _is_finite(value))
    if broken:
        return broken
    # A distribution whose parameters are not finite is what is looked for, not an error.
    with numpyro.validation_enabled(False):
        with handlers.trace() as sites, handlers.substitute(data=params), handlers.seed(rng_seed=key):
            call_model(plate_model.model, batch)
        samples = {name: sites[name] for name in (*plate_model.latent, *plate_model.observed)}
        return tuple(name for name, site in samples.items() if not _is_finite(site["fn"].log_prob(site["value"])))


def describe_non_finite(sites: tuple[str, ...]) -> str:
    """A sentence about what `find_non_finite` found."""
    if sites:
        return f"What is not finite there: {', '.join(map(repr, sites))}."
    return (
        "All parameters are finite there, and so is every site at draws from the prior: what is not are draws from the "
        "posterior, or a gradient."
    )


def _is_finite(tree):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
