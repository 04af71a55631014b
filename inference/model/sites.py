"""Classify sites, find which batch axis of a latent is the data's, and drop it, so that each datum has its own latent."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from kaem_ppl.distributions.base import TiltedDistribution

from .coordinates import is_circular, is_improper
from .handlers import SiteMessage, Trace, check_subsampling, in_control_flow, is_latent
from .modules.state import is_learnt_state
from .pairwise import sum_to_axis
from .wrappers import is_discrete, is_masked, unwrap


class OutsidePlateError(ValueError):
    """A latent or observed site stands outside the data plate, where each datum was to be a problem of its own."""


@dataclass(frozen=True)
class Site:
    """What is known of a site before anything is computed.

    Attributes:
        name: its name.
        plate_axis: the axis of its value, negative, that belongs to the data plate; None without one.
        dims: a name for each batch axis of its value, from the left, the data plate's axis left out; None where a
            batch axis has no plate.
        is_circular: whether its values are angles, -pi and pi the same.
    """

    name: str
    plate_axis: int | None
    dims: tuple[str | None, ...]
    is_circular: bool = False

    def drop_plate_axis(self, value: jax.Array) -> jax.Array:
        """Take the data plate's axis, of size 1 in the run of one datum, out of the site's value."""
        return value if self.plate_axis is None else jnp.squeeze(value, self.plate_axis)


@dataclass(frozen=True)
class Sites:
    """The sites of a model by kind.

    Attributes:
        latents: the continuous latent sites.
        discrete: the discrete latent sites.
        observed: the observed sites; `numpyro.factor` is one, and counts as likelihood.
        deterministics: the deterministic sites.
        weighted: names of latent sites, discrete ones too, that are scaled or masked, so that draws from them do not follow
            their density.
        improper: names of latent sites whose prior is flat.
        tilted: names of latent sites with a tilted prior, those inside `scan` and `cond` left out.
        scale_varies: whether an observed site is scaled by an array.
    """

    latents: tuple[Site, ...]
    discrete: tuple[Site, ...]
    observed: tuple[Site, ...]
    deterministics: tuple[Site, ...]
    weighted: tuple[str, ...]
    improper: tuple[str, ...]
    tilted: tuple[str, ...]
    scale_varies: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sites with a density, latent ones first."""
        return tuple(site.name for site in (*self.latents, *self.discrete, *self.observed))

    @property
    def weighted_continuous(self) -> tuple[str, ...]:
        """Those of `weighted` that are continuous."""
        return tuple(site.name for site in self.latents if site.name in self.weighted)

    @property
    def all_latents(self) -> tuple[Site, ...]:
        """The latent sites, continuous ones first."""
        return self.latents + self.discrete


def classify(trace: Trace, plate: str | None) -> Sites:
    """Sort the sites of a trace by kind.

    Raises:
        ValueError: a site stands outside the plate; a latent site has a delta distribution; nothing is observed; the model
            subsamples a plate.
    """
    for name, site in trace.items():
        if site["type"] == "plate":
            check_subsampling(name, *site["args"])
    samples = [site for site in trace.values() if site["type"] == "sample"]
    for site in samples:
        _check_sample(site, plate)
    hidden = [site for site in samples if is_latent(site)]
    discrete = [site for site in hidden if is_discrete(site["fn"])]
    latents = [site for site in hidden if not is_discrete(site["fn"])]
    observed = [site for site in samples if not is_latent(site)]
    if not observed:
        raise ValueError(
            "`model` has no observed site, so its posterior is its prior: give a site `obs=`, and pass the data to the "
            "model; or draw from the prior by `numpyro.infer.Predictive`."
        )
    return Sites(
        tuple(replace(_describe(site, plate), is_circular=_is_angle(site, trace)) for site in latents),
        tuple(_describe(site, plate) for site in discrete),
        tuple(_describe(site, plate) for site in observed),
        tuple(_describe_deterministic(site, plate) for site in trace.values() if site["type"] == "deterministic"),
        _names(site for site in hidden if site["scale"] is not None or is_masked(site["fn"])),
        _names(site for site in latents if is_improper(site["fn"])),
        _names(s for s in latents if isinstance(unwrap(s["fn"]), TiltedDistribution) and not in_control_flow(s)),
        # An array of scales belongs to batch axes that the pairwise product sums over.
        any(site["scale"] is not None and jnp.ndim(site["scale"]) > 0 for site in observed),
    )


def check_has_latents(sites: Sites) -> None:
    """Refuse a model with nothing to sample.

    Raises:
        ValueError: nothing is latent.
    """
    if not sites.all_latents:
        raise ValueError("`model` has no latent site, so there is nothing to sample: is every site observed?")


def plate_size(trace: Trace, plate: str) -> int:
    """Size of a plate of the model.

    Raises:
        ValueError: the model has no such plate.
    """
    sizes = {name: site["args"][0] for name, site in trace.items() if site["type"] == "plate"}
    for site in trace.values():
        # Plates inside a `scan` are known by their sites only.
        sizes |= {frame.name: frame.size for frame in site.get("cond_indep_stack") or ()}
    if plate not in sizes:
        raise ValueError(
            f"`plate` is {plate!r}, but the model's plates are {sorted(sizes)}: name one of them, or leave `plate` out to "
            "treat the model as one problem."
        )
    return sizes[plate]


def plate_dims(site: SiteMessage) -> dict[str, int]:
    """By name, the batch axis of each plate around a site, counted from the right."""
    return {frame.name: frame.dim for frame in site["cond_indep_stack"]}


def scaled_log_prob(site: SiteMessage, value: Any = None) -> jax.Array:
    """Log-density of a site of a trace at its value, or at another one, scaled as `numpyro.handlers.scale` says."""
    return apply_scale(site["fn"].log_prob(site["value"] if value is None else value), site)


def apply_scale(log_prob: jax.Array, site: SiteMessage) -> jax.Array:
    """A log-density of a site, scaled as `numpyro.handlers.scale` says."""
    return log_prob if site["scale"] is None else site["scale"] * log_prob


def sum_to_plate(log_prob: jax.Array, site: SiteMessage, plate: str | None) -> jax.Array:
    """Sum a log-density of a site over all axes but the plate's; over all without a plate."""
    return jnp.sum(log_prob) if plate is None else sum_to_axis(log_prob, plate_dims(site)[plate])


def check_params(trace: Trace, params: dict[str, Any]) -> None:
    """Raise ValueError where parameters are not those of the model."""
    values = {name: site["value"] for name, site in trace.items() if site["type"] == "param"}
    states = {name: site["value"] for name, site in trace.items() if site["type"] == "mutable"}
    # `random_flax_module` leaves no number in the place of parameters that have a prior, `random_eqx_module` leaves all.
    needed = {name for name, value in values.items() if jax.tree.leaves(value) and not _has_priors(name, value, trace)}
    missing = sorted((needed | {name for name, value in states.items() if is_learnt_state(value)}) - set(params))
    if missing:
        of_svi = ", or `{**svi_result.params, **svi_result.state.mutable_state}`" if set(missing) & set(states) else ""
        raise ValueError(
            f"`params` lacks the model's {missing}: pass the learnt values, such as `fit(...).params`{of_svi}."
        )
    check_names(set(params), {*values, *states})


def _has_priors(name: str, value: Any, trace: Trace) -> bool:
    """Whether every array of an Equinox module has a site with a prior, which its path within the module names."""
    prefix = name.removesuffix("$params")
    sites = [site for site in trace if site.startswith(prefix) and trace[site]["type"] == "sample"]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(value)]
    return prefix != name and all(path and any(site.endswith(path[1:]) for site in sites) for path in paths)


def check_names(given: set[str], names: set[str]) -> None:
    """Raise ValueError where a parameter is given that does not exist."""
    unknown = sorted(given - names)
    if unknown:
        raise ValueError(f"`params` names {unknown}, but the model's parameters are {sorted(names)}.")


def _check_sample(site: SiteMessage, plate: str | None) -> None:
    name = site["name"]
    kind = "Latent" if is_latent(site) else "Observed"
    if is_latent(site) and isinstance(unwrap(site["fn"]), dist.Delta):
        raise ValueError(
            f"Latent site {name!r} has a delta distribution, so its value is no random number, and no chain can move it: "
            "make it a `numpyro.deterministic` site."
        )
    if plate is not None and plate not in plate_dims(site):
        raise OutsidePlateError(
            f"{kind} site {name!r} stands outside plate {plate!r}. Every datum is its own problem: move the site into the "
            "plate, make it a `numpyro.param` if all data share it, fix its value by `numpyro.handlers.condition`, or "
            "leave `plate` out to sample the joint posterior of all sites."
        )


def _describe(site: SiteMessage, plate: str | None) -> Site:
    fn: dist.Distribution = site["fn"]
    dims = plate_dims(site)
    names = {dim: name for name, dim in dims.items() if name != plate}
    num_batch = len(site["kwargs"].get("sample_shape", ())) + len(fn.batch_shape)
    skipped = None if plate is None else dims[plate]
    return Site(
        site["name"],
        None if skipped is None else skipped - fn.event_dim,
        tuple(names.get(dim) for dim in range(-num_batch, 0) if dim != skipped),
    )


def _is_angle(site: SiteMessage, trace: Trace) -> bool:
    """Whether a latent is an angle; a `scan` brings one of `CircularReparam` out as a flat real number, with its factor."""
    name, suffix = site["name"], "_unwrapped"
    is_unwrapped = in_control_flow(site) and is_improper(site["fn"]) and name.endswith(suffix)
    return is_circular(site["fn"].support) or (is_unwrapped and f"{name.removesuffix(suffix)}_factor" in trace)


def _describe_deterministic(site: SiteMessage, plate: str | None) -> Site:
    """A deterministic site; the plates around it name its first axes, where these have their sizes."""
    if plate is not None:
        return Site(site["name"], None, ())
    frames = {frame.dim: frame for frame in site.get("cond_indep_stack", ())}
    shape, num_batch = jnp.shape(site["value"]), -min(frames, default=0)
    sizes = [frames[dim].size if dim in frames else None for dim in range(-num_batch, 0)]
    if len(shape) < num_batch or any(wanted not in (None, size) for wanted, size in zip(sizes, shape, strict=False)):
        return Site(site["name"], None, ())
    names = tuple(frames[dim].name if dim in frames else None for dim in range(-num_batch, 0))
    return Site(site["name"], None, names)


def _names(sites: Iterable[SiteMessage]) -> tuple[str, ...]:
    return tuple(site["name"] for site in sites)
