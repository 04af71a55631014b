"""One Optax optimiser for all parameters, from one for each site."""

from collections.abc import Mapping
from functools import lru_cache

import optax


def combine_optimizers(
    optimizer: optax.GradientTransformation | Mapping[str, optax.GradientTransformation], sites: tuple[str, ...]
) -> optax.GradientTransformation:
    """Combine optimisers given by site; a single one is returned as it is.

    Args:
        optimizer: one Optax gradient transformation; or one for each site, by the site's name or the part of it before `$`.
        sites: names of the learnt sites.

    Raises:
        TypeError: something else is given.
        ValueError: a site has none, or a name is no site's.
    """
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    if not isinstance(optimizer, Mapping) or not all(
        isinstance(part, optax.GradientTransformation) for part in optimizer.values()
    ):
        raise TypeError(
            "`optimizer` must be an Optax gradient transformation such as `optax.adam(1e-3)`, or a dictionary of them by "
            f"site, got {optimizer!r}."
        )
    labels = {site: site if site in optimizer else site.split("$")[0] for site in sites}
    missing, unknown = sorted(set(labels.values()) - set(optimizer)), sorted(set(optimizer) - set(labels.values()))
    if missing or unknown:
        raise ValueError(
            f"`optimizer` must name every learnt site once: it lacks {missing}, and has {unknown}, where the sites are "
            f"{sorted(sites)}."
        )
    return _multi_transform(tuple(sorted(optimizer.items())), tuple(sorted(labels.items())))


# Cached, so that equal settings give the same object: compiled steps are looked up by it.
@lru_cache(maxsize=32)
def _multi_transform(
    optimizers: tuple[tuple[str, optax.GradientTransformation], ...], labels: tuple[tuple[str, str], ...]
) -> optax.GradientTransformation:
    return optax.multi_transform(dict(optimizers), dict(labels))
