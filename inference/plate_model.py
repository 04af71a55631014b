"""A NumPyro model read along one plate: which sites are latent, which observed, and how prior draws score the data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import partial_eval
from numpyro import handlers
from numpyro.primitives import Messenger

from kaem_ppl.distributions.base import TiltedDistribution
from kaem_ppl.quadrature.table import Table

from .data import call_model
from .pairwise import pairwise_log_prob, sum_to_axis
from .parameters import Params
from .placeholders import undrawn
from .wrapped import is_masked, unwrap, with_base

# By latent site: table, log-normaliser and its error estimate.
type Integrals = dict[str, tuple[Table, tuple[jax.Array, jax.Array]]]

# Rows that pass through the model at once when every datum needs its own draws.
_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class PlateModel:
    """A model whose data are independent given its parameters, one row of a plate each.

    Attributes:
        model: NumPyro model.
        plate: name of the plate that holds the data.
        latent: names of the latent sites.
        observed: names of the observed sites, `numpyro.factor` included.
        draws_are_shared: whether prior and likelihood are the same functions for every datum, so that one set of prior
            draws serves all. False when a distribution reads a datum's own covariates or mask.
    """

    model: Callable
    plate: str
    latent: tuple[str, ...]
    observed: tuple[str, ...]
    draws_are_shared: bool

    def score_prior_draws(
        self, key: jax.Array, params: Params, batch: Any, num_draws: int, integrals: Integrals | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Draw latents from the prior and evaluate them against each datum.

        The draws are held fixed: derivatives in `params` are those of the log-densities at the draws.

        Args:
            key: PRNG key.
            params: constrained parameters.
            batch: pytree of arrays (B, ...).
            num_draws: S, prior draws for all data together where draws are shared, for each datum otherwise.
            integrals: what `integrals` found at the same parameters; through it no derivative reaches them.

        Returns:
            log p(x_b | z_s) of shape (B, S); and log p(z_s), of shape (S,) where draws are shared and (B, S) otherwise.
        """
        if self.draws_are_shared:
            return self._score_shared_draws(key, params, batch, num_draws, integrals)
        return self._score_own_draws(key, params, batch, num_draws, integrals)

    def integrals(self, params: Params, batch: Any) -> Integrals:
        """Tables and normalisers of the tilted priors that follow from the parameters alone, all of them known numbers.

        Handed to a compiled function as arguments, they spare it finding them, and it serves other parameters too.
        """
        priors = {}

        def read(rows):
            with undrawn():
                sites = self._run(jax.random.key(0), params, rows)
            priors.update({name: unwrap(sites[name]["fn"]) for name in self.latent})

        jax.eval_shape(read, jax.tree.map(lambda leaf: leaf[:1], batch))
        known = {name: fn for name, fn in priors.items() if isinstance(fn, TiltedDistribution) and fn.is_known}
        return {
            name: {
                "table": fn.table,
                "log_normalizer": (fn.log_normalizer, fn.log_normalizer_error),
                "tails": fn.reference_tails,
            }
            for name, fn in known.items()
        }

    def _score_shared_draws(self, key, params, batch, num_draws, integrals):
        # No distribution reads the data, so these rows only tell the model how many draws to make.
        rows = jax.tree.map(lambda leaf: jnp.zeros((num_draws, *leaf.shape[1:]), leaf.dtype), batch)
        sites, log_prior = self._prior_draws(key, params, rows, integrals)
        # Read for the observed values alone, so any latents will do, and XLA drops the rest of this pass.
        num_data = jax.tree.leaves(batch)[0].shape[0]
        any_latents = {name: self._repeat_first(sites[name], num_data) for name in self.latent}
        batch_sites = self._run(key, params, batch, any_latents)
        log_likelihood = 0.0
        for name in self.observed:
            values = jnp.broadcast_to(batch_sites[name]["value"], batch_sites[name]["fn"].shape())
            log_prob = pairwise_log_prob(sites[name]["fn"], values, self._dim(sites[name]))
            log_likelihood += _scaled(log_prob, sites[name])
        return log_likelihood, log_prior

    def _score_own_draws(self, key, params, batch, num_draws, integrals):
        num_data = jax.tree.leaves(batch)[0].shape[0]

        # Recomputed on the way back: what the chain rule needs would otherwise be kept for all data at once.
        @jax.checkpoint
        def score(key_and_datum):
            key, datum = key_and_datum
            rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_draws, *leaf.shape)), datum)
            sites, log_prior = self._prior_draws(key, params, rows, integrals)
            return sum(self._log_prob(sites[name], sites[name]["value"]) for name in self.observed), log_prior

        chunk = min(num_data, max(1, _ROWS_AT_ONCE // num_draws))
        return lax.map(score, (jax.random.split(key, num_data), batch), batch_size=chunk)

    def _prior_draws(self, key, params, rows, integrals=None):
        with _Draw(self.latent, integrals or {}):
            sites = self._run(key, params, rows)
        return sites, sum(self._log_prob(sites[name], sites[name]["value"]) for name in self.latent)

    def _run(self, key, params, rows, latents=None):
        sites = _trace(key, self.model, rows, {**params, **(latents or {})})
        _check_plate_size(sites, self.plate, jax.tree.leaves(rows)[0].shape[0])
        return sites

    def _repeat_first(self, site, num_rows):
        axis = len(site["fn"].batch_shape) + self._dim(site)
        return jnp.take(site["value"], jnp.zeros(num_rows, int), axis)

    def _log_prob(self, site, value):
        return sum_to_axis(_scaled(site["fn"].log_prob(value), site), self._dim(site))

    def _dim(self, site):
        return _plate_dims(site)[self.plate]


def read_plate_model(key: jax.Array, model: Callable, data: Any, plate: str, params: Params) -> PlateModel:
    """Find a model's latent and observed sites, and whether its data can share prior draws.

    The model runs once, abstractly: nothing is computed.

    Args:
        key: PRNG key.
        model: NumPyro model.
        data: pytree of arrays (num_data, ...).
        plate: name of the plate that holds the data.
        params: constrained parameters.

    Raises:
        ValueError: the model has no such plate or subsamples it; a site stands outside it; a latent is discrete, masked
            or scaled; nothing is latent, or nothing observed.
    """
    # One row fewer than the data betrays a plate whose size does not come from the arguments.
    num_rows = max(2, jax.tree.leaves(data)[0].shape[0] - 1)
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num_rows, *leaf.shape[1:]), leaf.dtype), data)
    found = {}

    def log_probs(rows, params):
        with undrawn():
            sites = _trace(key, model, rows, params)
        _check_plate_size(sites, plate, num_rows)
        samples = {name: site for name, site in sites.items() if site["type"] == "sample"}
        found.update(_classify(samples, plate))
        # What is observed is replaced by a constant: data that only ever are the observed value leave no trace here.
        values = {name: jnp.zeros_like(samples[name]["value"]) for name in found["observed"]}
        values |= {name: samples[name]["value"] for name in found["latent"]}
        return [_scaled(samples[name]["fn"].log_prob(value), samples[name]) for name, value in values.items()]

    # Parameters are arguments here, so that nothing known is computed from them.
    jaxpr = jax.make_jaxpr(log_probs)(rows, params).jaxpr
    _, is_used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    data_is_used = is_used[: len(jax.tree.leaves(rows))]
    scale_varies = found.pop("scale_varies")
    return PlateModel(model, plate, draws_are_shared=not (any(data_is_used) or scale_varies), **found)


class _Draw(Messenger):
    """Draws latents and holds the draws fixed; a tilted prior's integrals serve the draw and the density."""

    def __init__(self, latent, integrals):
        super().__init__()
        self.latent, self.integrals = latent, integrals

    def process_message(self, msg):
        if msg["type"] != "sample" or msg["name"] not in self.latent:
            return
        fn, base = msg["fn"], unwrap(msg["fn"])
        sampled = fn
        if isinstance(base, TiltedDistribution):
            integrals = self.integrals.get(msg["name"])
            base = base.integrated() if integrals is None else base.given(**integrals)
            fn, sampled = with_base(fn, base), with_base(fn, base.held_fixed())
        draw = sampled(rng_key=msg["kwargs"]["rng_key"], sample_shape=msg["kwargs"]["sample_shape"])
        msg["fn"], msg["value"] = fn, lax.stop_gradient(draw)


def _trace(key, model, rows, values):
    with handlers.trace() as sites, handlers.substitute(data=values), handlers.seed(rng_seed=key):
        call_model(model, rows)
    return sites


def _scaled(log_prob, site):
    return log_prob if site["scale"] is None else site["scale"] * log_prob


def _plate_dims(site):
    return {frame.name: frame.dim for frame in site["cond_indep_stack"]}


def _check_plate_size(sites, plate, num_rows):
    plates = {name: site["args"] for name, site in sites.items() if site["type"] == "plate"}
    if plate not in plates:
        raise ValueError(f"`plate` is {plate!r}, but the model's plates are {sorted(plates)}.")
    for name, (size, subsample_size) in plates.items():
        if subsample_size not in (None, size):
            raise ValueError(
                f"Plate {name!r} subsamples {subsample_size} of {size} rows. Remove `subsample_size`: batches are "
                "formed outside the model, by `batch_size`."
            )
    size = plates[plate][0]
    if size != num_rows:
        raise ValueError(
            f"Plate {plate!r} has size {size} where the model was given {num_rows} rows. Take its size from the data "
            f'inside the model: `numpyro.plate("{plate}", len(x))`.'
        )


def _classify(samples, plate):
    """Split sample sites into latent and observed, refusing those that have no meaning per datum."""
    latent, observed, scale_varies = [], [], False
    for name, site in samples.items():
        kind = "Observed" if site["is_observed"] else "Latent"
        if plate not in _plate_dims(site):
            raise ValueError(
                f"{kind} site {name!r} stands outside plate {plate!r}. Every datum is its own problem: move the site "
                "into the plate, or make it a `numpyro.param` if all data share it."
            )
        if site["is_observed"]:
            observed.append(name)
            # An array of scales belongs to batch axes that the pairwise product sums over.
            scale_varies |= site["scale"] is not None and jnp.ndim(site["scale"]) > 0
            continue
        if site["fn"].support.is_discrete:
            raise ValueError(f"Latent site {name!r} is discrete. Sum it out, for example with a mixture distribution.")
        if site["scale"] is not None or is_masked(site["fn"]):
            raise ValueError(
                f"Latent site {name!r} is scaled or masked, so draws from it are not draws from its density. Put "
                "`numpyro.handlers.scale` or `mask` around the observed sites only."
            )
        latent.append(name)
    if not latent:
        raise ValueError(f"Plate {plate!r} has no latent site: there is nothing to infer.")
    if not observed:
        raise ValueError(f"Plate {plate!r} has no observed site. Give one `obs=`, read from the data.")
    return {"latent": tuple(latent), "observed": tuple(observed), "scale_varies": scale_varies}
