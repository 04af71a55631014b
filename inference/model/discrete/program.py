"""A model whose discrete latents take all their states at once: its log-densities by site, as tables over the states."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]
from jax.interpreters import partial_eval
from numpyro import handlers
from numpyro.primitives import Messenger

from ..handlers import SiteMessage, Trace, in_control_flow, is_latent, is_scan
from ..sites import scaled_log_prob
from ..wrappers import is_discrete
from .evaluation import Enumerated, Series, Unusable, Value, evaluate, mark_value
from .support import DiscreteSite, Plates, describe_discrete_site


@dataclass(frozen=True)
class Tables:
    """Log-densities of the sites of a model, for all states of its discrete latents.

    Attributes:
        values: by name of the site, what its log-density is, elementwise.
        plates: by name of the site, its plates.
        sites: by name, the discrete latent sites.
        scans: by name of a discrete latent site inside `scan`, the number of steps and whether they run from the end.
        extras: what else was asked for, which depends on no discrete site.
    """

    values: dict[str, Value]
    plates: dict[str, Plates]
    sites: dict[str, DiscreteSite]
    scans: dict[str, tuple[int, bool]]
    extras: dict[str, jax.Array]


class EnumerateSites(Messenger):
    """Gives discrete latent sites stand-ins for their values, also inside `scan`."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[str, DiscreteSite] = {}
        self.plates: dict[str, Plates] = {}
        self.scans: dict[str, tuple[int, bool]] = {}

    def process_message(self, msg: SiteMessage) -> None:
        if msg["type"] == "control_flow":
            give: Callable[[SiteMessage], jax.Array | None] = _refuse_in_branch
            if is_scan(msg):
                body, init, xs, length, reverse = msg["args"]
                length = jax.tree.leaves(xs)[0].shape[0] if length is None else length
                give = partial(self._in_scan, (length, bool(reverse)))
                msg["args"] = (self._with_log_probs(body), init, xs, length, reverse)
            msg["kwargs"]["substitute_stack"].append(("substitute", give))
        elif _is_discrete_latent(msg) and not in_control_flow(msg):
            msg["value"] = self._mark(msg)

    def _in_scan(self, scan: tuple[int, bool], site: SiteMessage) -> jax.Array | None:
        if not _is_discrete_latent(site):
            return None
        self.scans[site["name"]] = scan
        return self._mark(site)

    def _mark(self, site: SiteMessage) -> jax.Array:
        described = describe_discrete_site(site)
        self.sites[site["name"]] = described
        return mark_value(described)

    def _with_log_probs(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """The body of a scan that brings the log-densities of its sites out of it, where states are still known apart."""

        def with_log_probs(*args: Any) -> Any:
            with handlers.trace() as sites:
                result = body(*args)
            for name, site in sites.items():
                if site["type"] == "sample":
                    self.plates[name] = plates_around(site)
                    numpyro.deterministic(_log_prob_site(name), jnp.asarray(scaled_log_prob(site)))
            return result

        return with_log_probs


def tabulate(
    run: Callable[[EnumerateSites], Trace],
    names: Collection[str],
    extras: Callable[[Trace], dict[str, jax.Array]] = lambda sites: {},
) -> Tables:
    """Log-densities of sites for all states of the discrete latents.

    Args:
        run: runs the model within a handler, the continuous latents at their values.
        names: of the sites.
        extras: of the sites of the run, arrays by name that depend on no discrete site.

    Raises:
        ValueError: a discrete latent can't be summed out, or what must not depend on one does.
    """
    handler = EnumerateSites()

    def program() -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        sites = run(handler)
        handler.plates |= {name: plates_around(sites[name]) for name in names if name not in handler.plates}
        return {name: _log_prob(sites, name) for name in names}, extras(sites)

    traced, shapes = jax.make_jaxpr(program, return_shape=True)()
    jaxpr, _ = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars), instantiate=True)
    outputs = evaluate(ClosedJaxpr(jaxpr, traced.consts), [], handler.sites)
    log_probs, others = jax.tree.unflatten(jax.tree.structure(shapes), outputs)
    found = {name: _check_fixed(name, value) for name, value in others.items()}
    return Tables(
        {name: _check_known(name, log_probs[name]) for name in names},
        handler.plates,
        handler.sites,
        handler.scans,
        found,
    )


def plates_around(site: SiteMessage) -> Plates:
    """The plates around a site."""
    return frozenset((frame.name, frame.dim) for frame in site["cond_indep_stack"])


def depends_on(value: Value) -> frozenset[str]:
    """Names of the discrete sites that a number depends on."""
    match value:
        case Enumerated(variables=variables):
            return frozenset(v.site for v in variables)
        case Series(head=head, rolled=rolled):
            return frozenset().union(*(depends_on(x) for x in (*head, rolled) if x is not None))
        case Unusable(sites=names):
            return names


def _is_discrete_latent(site: Mapping[str, Any]) -> bool:
    return is_latent(dict(site)) and site["value"] is None and is_discrete(site["fn"])


def _refuse_in_branch(site: SiteMessage) -> None:
    if _is_discrete_latent(site):
        raise ValueError(
            f"Discrete latent site {site['name']!r} stands inside `cond`, where it can't be summed out. Write it outside."
        )


def _log_prob(sites: Trace, name: str) -> jax.Array:
    inner = sites.get(_log_prob_site(name))
    return jnp.asarray(scaled_log_prob(sites[name])) if inner is None else inner["value"]


def _log_prob_site(name: str) -> str:
    return f"_{name}_log_prob"


def _check_known(name: str, value: Value) -> Value:
    if isinstance(value, Unusable):
        raise ValueError(
            f"Site {name!r} stands outside of a `scan` and depends on the discrete latent sites {sorted(value.sites)} "
            "in it, so they can't be summed out step by step. Write the site inside the `scan`."
        )
    return value


def _check_fixed(name: str, value: Value) -> jax.Array:
    names = sorted(depends_on(value))
    if names:
        raise ValueError(
            f"The support of latent site {name!r} depends on the discrete latent sites {names}, so it has no coordinates "
            "that hold for all their states. Write it with a support that does not."
        )
    assert isinstance(value, Enumerated), "it depends on no site"
    return value.array
