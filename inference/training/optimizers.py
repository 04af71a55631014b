"""One Optax optimiser for all parameters, from one for each site."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.optim
import optax

from kaem_ppl.arguments import describe


def combine_optimizers(
    optimizer: optax.GradientTransformation | Mapping[str, optax.GradientTransformation], sites: tuple[str, ...]
) -> optax.GradientTransformation:
    """Combine optimisers given by site; a single one is returned as it is.

    Args:
        optimizer: one Optax gradient transformation, or optimiser of NumPyro; or one for each site, by the site's name or
            the part of it before `$`.
        sites: names of the learnt sites.

    Raises:
        TypeError: something else is given.
        ValueError: a site has none, or a name is no site's.
    """
    if isinstance(optimizer, Mapping):
        optimizer = {name: _as_optax(part) for name, part in optimizer.items()}
    else:
        optimizer = _as_optax(optimizer)
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    if not isinstance(optimizer, Mapping) or not all(
        isinstance(part, optax.GradientTransformation) for part in optimizer.values()
    ):
        raise TypeError(
            "`optimizer` must be an Optax gradient transformation such as `optax.adam(1e-3)`, or a dictionary of them by "
            f"site, got {describe(optimizer)}."
        )
    labels = {site: site if site in optimizer else site.split("$")[0] for site in sites}
    missing, unknown = sorted(set(labels.values()) - set(optimizer)), sorted(set(optimizer) - set(labels.values()))
    if missing or unknown:
        raise ValueError(
            f"`optimizer` must name every learnt site once: it lacks {missing}, and has {unknown}, where the sites are "
            f"{sorted(sites)}."
        )
    return _multi_transform(tuple(sorted(optimizer.items())), tuple(sorted(labels.items())))


def _as_optax(optimizer: Any) -> Any:
    """An optimiser of NumPyro as a gradient transformation, and anything else as it is."""
    return _from_numpyro(optimizer) if isinstance(optimizer, numpyro.optim._NumPyroOptim) else optimizer


# Cached, so that the same object gives the same one.
@lru_cache(maxsize=32)
def _from_numpyro(optimizer: Any) -> optax.GradientTransformation:
    """NumPyro's optimisers carry the parameters in their state: an update is by how much these change."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new = optimizer.update(updates, state)
        return jax.tree.map(jnp.subtract, optimizer.get_params(new), optimizer.get_params(state)), new

    return optax.GradientTransformation(optimizer.init, update)


# Cached, so that equal settings give the same object: compiled steps are looked up by it.
@lru_cache(maxsize=32)
def _multi_transform(
    optimizers: tuple[tuple[str, optax.GradientTransformation], ...], labels: tuple[tuple[str, str], ...]
) -> optax.GradientTransformation:
    return optax.multi_transform(dict(optimizers), dict(labels))
