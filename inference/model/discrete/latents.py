"""The discrete latents of a model as inference sees them: a marginal likelihood, a share of the prior, and exact draws."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.primitives import Messenger

from ..handlers import OmitNormalizers, PlaceLatents, SiteMessage, Trace, in_control_flow
from ..sites import Site, Sites
from .evaluation import Enumerated
from .marginal import draw_states, look_up, marginal, marginal_factors
from .program import EnumerateSites, Tables, depends_on, tabulate
from .support import describe_discrete_site, element_support

# Runs the model within a handler, the continuous latents at their values.
type Run = Callable[[EnumerateSites], Trace]
type Extras = Callable[[Trace], dict[str, jax.Array]]


@dataclass(frozen=True)
class DiscreteLatents:
    """The discrete latents c of a model with continuous latents z and data x.

    The likelihood is p(x | z) = sum_c p(c) p(x | z, c). Where a prior p(z | c) depends on c, or p(c) is masked or scaled so
    that its sum is not 1,

        log p(z) = log sum_c p(c) p(z | c),    log p(x | z) = log sum_c p(c) p(z | c) p(x | z, c) - log p(z).

    Attributes:
        sites: the discrete latent sites.
        entangled: names of the continuous latents whose prior depends on discrete ones.
        observed: names of the observed sites.
        is_normalized: whether no discrete site is masked or scaled.
    """

    sites: tuple[Site, ...]
    entangled: tuple[str, ...]
    observed: tuple[str, ...]
    is_normalized: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the discrete latent sites."""
        return tuple(site.name for site in self.sites)

    def log_likelihood(self, run: Run, plate: str | None = None) -> jax.Array:
        """log p(x | z), a number, or one for each row of a plate."""
        return self.log_densities(run, plate)[0]

    def log_prior(self, run: Run, jacobians: Extras) -> jax.Array:
        """What entangled latents and masked discrete ones add to the log-prior, log |d value / d coordinate| included."""
        if self.is_normalized and not self.entangled:
            return jnp.zeros(())
        tables = tabulate(run, self._prior_names, jacobians)
        return marginal(tables, self._prior_names, None) + sum(jnp.sum(x) for x in tables.extras.values())

    def log_densities(self, run: Run, plate: str | None = None) -> tuple[jax.Array, jax.Array]:
        """log p(x | z), and what the entangled latents add to log p(z): numbers, or one for each row of a plate."""
        tables = tabulate(run, self._all_names)
        total = marginal(tables, self._all_names, plate)
        if self.is_normalized and not self.entangled:
            return total, jnp.zeros_like(total)
        log_prior = marginal(tables, self._prior_names, plate)
        return total - log_prior, log_prior

    def pointwise(self, run: Run) -> dict[str, jax.Array]:
        """Log-likelihood by observed site, its batch axes kept where it depends on no discrete latent.

        Sites that depend on the same discrete latents have one log-likelihood together, along the plates that these share,
        under the name of the first.
        """
        tables = tabulate(run, self._all_names)
        linked = {name for name in self.observed if depends_on(tables.values[name])}
        values = {name: tables.values[name] for name in self.observed if name not in linked}
        found = {name: value.array for name, value in values.items() if isinstance(value, Enumerated)}
        if not self.is_normalized or self.entangled:
            rest = marginal(tables, [name for name in self._all_names if name not in found], None)
            rest -= marginal(tables, self._prior_names, None)
            return found | ({next(iter(sorted(linked))): rest} if linked else {})
        names = [*self.names, *sorted(linked)]
        for factor in marginal_factors(tables, names, linked, None):
            if factor.sites:
                name = next(name for name in self.observed if name in factor.sites)
                kept = {factor.table.ndim + dim for _, dim in factor.plates}
                table = factor.table.squeeze([axis for axis in range(factor.table.ndim) if axis not in kept])
                found[name] = table if name not in found else table.sum() + found[name].sum()
        return found

    def draw(self, key: jax.Array, run: Run) -> dict[str, jax.Array]:
        """Draw the discrete latents given everything else, by name."""
        return draw_states(tabulate(run, self._all_names), self._all_names, None, key)

    @property
    def _prior_names(self) -> tuple[str, ...]:
        return self.names + self.entangled

    @property
    def _all_names(self) -> tuple[str, ...]:
        return self._prior_names + self.observed


def check_support(site: SiteMessage) -> None:
    """Raise ValueError where a discrete latent site has too many states to be summed out, or they are not known."""
    if not in_control_flow(site):
        describe_discrete_site(site)


def random_state(site: SiteMessage) -> jax.Array | None:
    """A value of a discrete latent site, each equally likely; for `numpyro.handlers.substitute`."""
    if site["is_observed"] or site["value"] is not None:
        return None
    shape = site["fn"].shape(site["kwargs"].get("sample_shape", ()))
    return jax.random.choice(site["kwargs"]["rng_key"], jnp.asarray(element_support(site)), shape)


def read_discrete(
    run: Callable[..., Trace], sites: Sites, values: dict[str, Any]
) -> tuple[DiscreteLatents, dict[str, jax.Array]]:
    """Sum the discrete latents of a model out, to see that it can be done; and look densities up in its tables.

    Args:
        run: runs the model within handlers.
        sites: its sites.
        values: of its latents, discrete ones included.

    Returns:
        The discrete latents; and by name of the sites that depend on them, the log-density that the tables have at the
        values, summed.

    Raises:
        ValueError: a discrete latent can't be summed out; the message names it and says why.
    """
    continuous = {site.name: values[site.name] for site in sites.latents}

    def run_enumerated(handler: Messenger) -> Trace:
        return run(OmitNormalizers(), PlaceLatents(continuous), handler)

    tables: Tables = tabulate(run_enumerated, sites.names)
    entangled = tuple(site.name for site in sites.latents if depends_on(tables.values[site.name]))
    names = {site.name for site in sites.discrete}
    observed = tuple(site.name for site in sites.observed)
    # Its shape only: what can't be summed out is refused here.
    marginal(tables, (*names, *entangled, *observed), None)
    discrete = DiscreteLatents(sites.discrete, entangled, observed, names.isdisjoint(sites.weighted))
    dependent = [name for name in sites.names if depends_on(tables.values[name])]
    return discrete, {name: look_up(tables, name, values, None) for name in dependent}
