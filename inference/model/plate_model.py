"""A model with a plate of data for importance sampling: prior draws, and their log-likelihood for each datum."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.primitives import Messenger

from kaem_ppl.distributions import KANTilted, KANTiltedMixture
from kaem_ppl.distributions.base import TiltedDistribution
from kaem_ppl.quadrature.table import Table
from kaem_ppl.reference import Tails

from .arguments import batch_arguments
from .discrete.latents import DiscreteLatents
from .handlers import (
    CheckSites,
    GiveLatents,
    PlaceLatents,
    SiteMessage,
    Trace,
    run_model,
    substitute_zero_latents,
)
from .hierarchy.globals_as_params import globals_as_params
from .modules.training_mode import TrainingMode, accepted_kwargs
from .pairwise import pairwise_log_prob
from .parameters import Params
from .reader import read_rows_model
from .sites import OutsidePlateError, apply_scale, check_has_latents, plate_dims, scaled_log_prob, sum_to_plate
from .traced import ModelIdentity
from .two_runs import Reading
from .wrappers import unwrap, with_base


class PriorIntegrals(TypedDict):
    """What `TiltedDistribution.given` takes: table, log-normaliser and its error estimate, and the reference's tails."""

    table: Table
    log_normalizer: tuple[jax.Array, jax.Array]
    tails: Tails


# By latent site.
type Integrals = dict[str, PriorIntegrals]

# Rows that pass through the model at once when every datum needs its own draws.
_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class PlateModel:
    """A model whose data are independent given its parameters, one row of a plate each.

    Attributes:
        model: the model, and what it computed when it was read.
        plate: name of the plate that holds the data.
        latent: names of the continuous latent sites.
        observed: names of the observed sites, `numpyro.factor` included.
        draws_are_shared: whether prior and likelihood are the same functions for every datum, so that one set of prior
            draws serves all. False when a distribution reads a datum's own covariates or mask, or a latent is discrete.
        discrete: the discrete latents, which are summed out of the likelihood; None where there is none.
        has_classes: whether data differ only in which members of a bank are the prior of the one latent: a `context` picks.
        training: how the passes that are scored run where they are trained; None where they are evaluated.
    """

    model: ModelIdentity
    plate: str
    latent: tuple[str, ...]
    observed: tuple[str, ...]
    draws_are_shared: bool
    discrete: DiscreteLatents | None
    has_classes: bool = field(default=False, kw_only=True)
    training: TrainingMode | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def has_latents(self) -> bool:
        """Whether a datum has a latent, continuous or discrete."""
        return bool(self.latent) or self.discrete is not None

    def score_prior_draws(
        self, key: jax.Array, params: Params, batch: Any, num_draws: int, integrals: Integrals | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Draw latents from the prior and evaluate them against each datum.

        The draws are held fixed: derivatives in `params` are those of the log-densities at the draws.

        Args:
            key: PRNG key; or keys (B,), one for each datum, where draws are not shared.
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

        Passed to a compiled function as arguments, so that it does not compute them and
        need not be compiled again for other parameters.
        """
        priors: dict[str, dist.Distribution] = {}

        def read(rows: Any) -> None:
            sites = self._run(jax.random.key(0), params, rows, substitute_zero_latents())
            priors.update({name: unwrap(sites[name]["fn"]) for name in self.latent})

        jax.eval_shape(read, jax.tree.map(lambda leaf: leaf[:1], batch))
        known = {
            name: fn for name, fn in priors.items() if isinstance(fn, KANTilted | KANTiltedMixture) and fn.is_known
        }
        return {
            name: {
                "table": fn.table,
                "log_normalizer": (fn.log_normalizer, fn.log_normalizer_error),
                "tails": fn.reference_tails,
            }
            for name, fn in known.items()
        }

    def _score_shared_draws(
        self, key: jax.Array, params: Params, batch: Any, num_draws: int, integrals: Integrals | None
    ) -> tuple[jax.Array, jax.Array]:
        # No distribution reads the data, so these rows only tell the model how many draws to make.
        rows = jax.tree.map(lambda leaf: jnp.zeros((num_draws, *leaf.shape[1:]), leaf.dtype), batch)
        sites, log_prior = self.draw_prior(key, params, rows, integrals)
        return self.score_draws(params, batch, sites), log_prior

    def score_draws(self, params: Params, batch: Any, sites: Trace) -> jax.Array:
        """log p(x_b | z_s) of a batch, shape (B, S), where the likelihood is the same function for every datum.

        Args:
            params: constrained parameters.
            batch: pytree of arrays (B, ...).
            sites: of a run on S rows, which holds the draws.
        """
        # Read for the observed values alone, so any latents will do, and XLA drops the rest of this pass.
        num_data = jax.tree.leaves(batch)[0].shape[0]
        batch_sites = self.run_at(
            params, batch, {name: self._repeat_first(sites[name], num_data) for name in self.latent}
        )
        log_likelihood = 0.0
        for name in self.observed:
            values = jnp.broadcast_to(batch_sites[name]["value"], batch_sites[name]["fn"].shape())
            log_prob = pairwise_log_prob(sites[name]["fn"], values, self._dim(sites[name]))
            log_likelihood += apply_scale(log_prob, sites[name])
        return self.note_states(jnp.asarray(log_likelihood), sites)

    def _score_own_draws(
        self, key: jax.Array, params: Params, batch: Any, num_draws: int, integrals: Integrals | None
    ) -> tuple[jax.Array, jax.Array]:
        num_data = jax.tree.leaves(batch)[0].shape[0]
        if self.training is not None:
            return self._score_passes(key, params, batch, num_draws, integrals)

        # Recomputed on the way back: what the chain rule needs would otherwise be kept for all data at once.
        @jax.checkpoint
        def score(key_and_datum: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
            key, datum = key_and_datum
            rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_draws, *leaf.shape)), datum)
            sites, log_prior = self.draw_prior(key, params, rows, integrals)
            return self._log_densities(params, rows, sites, log_prior)

        chunk = min(num_data, max(1, _ROWS_AT_ONCE // num_draws))
        keys = key if key.ndim else jax.random.split(key, num_data)
        return lax.map(score, (keys, batch), batch_size=chunk)

    def _score_passes(
        self, key: jax.Array, params: Params, batch: Any, num_draws: int, integrals: Integrals | None
    ) -> tuple[jax.Array, jax.Array]:
        """In training mode one pass has all data of the batch, and one draw of each: its mean is the batch's."""

        @jax.checkpoint
        def score(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            sites, log_prior = self.draw_prior(key, params, batch, integrals)
            return self._log_densities(params, batch, sites, log_prior)

        num_data = jax.tree.leaves(batch)[0].shape[0]
        together = min(num_draws, max(1, _ROWS_AT_ONCE // num_data))
        log_likelihood, log_prior = lax.map(score, jax.random.split(key, num_draws), batch_size=together)
        return log_likelihood.T, log_prior.T

    def run_at(self, params: Params, rows: Any, latents: dict[str, Any] | None) -> Trace:
        """The sites of a run on rows at given latents; at zeros where there are none."""
        place = substitute_zero_latents() if latents is None else PlaceLatents(latents)
        return self._train(jax.random.key(0), params, rows, place)

    def draw_prior(
        self, key: jax.Array, params: Params, rows: Any, integrals: Integrals | None = None
    ) -> tuple[Trace, jax.Array]:
        """The sites of a run on rows whose latents are prior draws, held fixed; and log p(z) of each row."""
        # Outside, so that it finds the keys that sites have.
        with _HoldDraws(integrals or {}):
            sites = self._train(key, params, rows)
        return sites, self._log_prior(sites)

    def _log_densities(
        self, params: Params, rows: Any, sites: Trace, log_prior: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """log p(x | z) and log p(z) of each row at the latents of a run; `log_prior` is that without entangled ones."""
        if self.discrete is None:
            log_likelihood = jnp.asarray(sum(self.site_log_prob(sites[name]) for name in self.observed))
            return self.note_states(log_likelihood, sites), log_prior
        latents = {name: sites[name]["value"] for name in self.latent}

        def run(handler: Messenger) -> Trace:
            return self._train(jax.random.key(0), params, rows, PlaceLatents(latents), handler)

        log_likelihood, entangled = self.discrete.log_densities(run, self.plate)
        return self.note_states(log_likelihood, sites), log_prior + entangled

    def _log_prior(self, sites: Trace) -> jax.Array:
        """log p(z) of each row, without the latents whose prior depends on discrete ones."""
        entangled = () if self.discrete is None else self.discrete.entangled
        terms = [self.site_log_prob(sites[name]) for name in self.latent if name not in entangled]
        return jnp.asarray(sum(terms)) if terms else jnp.zeros(())

    def note_states(self, log_prob: jax.Array, sites: Trace) -> jax.Array:
        """The log-density, with which the states that its pass left in modules come out of the loss; see `TrainingMode`."""
        return log_prob if self.training is None else self.training.note(log_prob, sites)

    def _train(self, key: jax.Array, params: Params, rows: Any, *messengers: Messenger) -> Trace:
        """The sites of a run, in training mode where the model is trained."""
        if self.training is None:
            return self._run(key, params, rows, *messengers)
        checks = CheckSites(self.plate, jax.tree.leaves(rows)[0].shape[0])
        args, kwargs = batch_arguments(rows)
        kwargs = kwargs | accepted_kwargs(self.model.function, self.training.kwargs)
        return run_model(self.model.function, args, kwargs, params, (checks, *messengers), key, self.training.key)

    def _run(self, key: jax.Array, params: Params, rows: Any, *messengers: Messenger) -> Trace:
        checks = CheckSites(self.plate, jax.tree.leaves(rows)[0].shape[0])
        args, kwargs = batch_arguments(rows)
        return run_model(self.model.function, args, kwargs, params, (checks, *messengers), key)

    def _repeat_first(self, site: SiteMessage, num_rows: int) -> jax.Array:
        axis = len(site["fn"].batch_shape) + self._dim(site)
        return jnp.take(site["value"], jnp.zeros(num_rows, int), axis)

    def site_log_prob(self, site: SiteMessage) -> jax.Array:
        """Log-density of a site of a trace, scaled, of each row: shape (B,)."""
        return sum_to_plate(scaled_log_prob(site), site, self.plate)

    def _dim(self, site: SiteMessage) -> int:
        return plate_dims(site)[self.plate]


class _HoldDraws(GiveLatents):
    """Draws latents and holds the draws fixed; a tilted prior's integrals serve the draw and the density."""

    def __init__(self, integrals: Integrals) -> None:
        super().__init__()
        self.integrals = integrals

    def give_value(self, site: SiteMessage) -> None:
        """See `GiveLatents`."""
        fn, base = site["fn"], unwrap(site["fn"])
        sampled = fn
        if isinstance(base, TiltedDistribution):
            integrals = self.integrals.get(site["name"])
            base = base.integrated() if integrals is None else base.given(**integrals)
            fn, sampled = with_base(fn, base), with_base(fn, base.held_fixed())
        site["fn"], site["value"] = fn, _draw_fixed(sampled, site)

    def value_in_body(self, site: SiteMessage, step: jax.Array | None, is_reversed: bool) -> jax.Array:
        """See `GiveLatents`."""
        return _draw_fixed(site["fn"], site)


def read_plate_model(
    key: jax.Array,
    model: Callable[..., Any],
    data: Any,
    plate: str,
    params: Params,
    *,
    needs_all_params: bool = False,
) -> PlateModel:
    """Find a model's latent and observed sites, and whether its data can share prior draws.

    The model is traced twice, on a few rows.

    Args:
        key: PRNG key.
        model: NumPyro model.
        data: pytree of arrays (num_data, ...).
        plate: name of the plate that holds the data.
        params: constrained parameters.
        needs_all_params: whether to refuse a model with parameters that are not among them.

    Raises:
        ValueError: the model has no such plate or subsamples it; a site stands outside it; a discrete latent can't be
            summed out; a latent is masked or scaled; nothing is latent, or nothing observed; a site can't be read, or its
            log-density is not NumPyro's.
    """
    try:
        reading = read_rows_model(key, model, data, plate, params, needs_all_params=needs_all_params)
    except OutsidePlateError as error:
        try:
            # Where all latents outside the plate have values among the parameters, as `fit` returns them.
            held = globals_as_params(model, plate)
            reading = read_rows_model(key, held, data, plate, params, needs_all_params=True)
        except ValueError:
            raise error from None
    check_has_latents(reading.sites)
    return PlateModel(**describe_plate_model(reading))


def describe_plate_model(reading: Reading) -> dict[str, Any]:
    """The fields of a `PlateModel`.

    Raises:
        ValueError: a latent is masked or scaled.
    """
    sites = reading.sites
    if sites.weighted_continuous:
        raise ValueError(
            f"Latent site {sites.weighted_continuous[0]!r} is scaled or masked, so draws from it are not draws from its "
            "density. Put `numpyro.handlers.scale` or `mask` around the observed sites only."
        )
    if sites.improper:
        raise ValueError(
            f"Latent site {sites.improper[0]!r} is flat, so nothing can be drawn from it. Give it a proper prior."
        )
    return {
        "model": reading.model,
        "plate": reading.plate,
        "latent": tuple(site.name for site in sites.latents),
        "observed": tuple(site.name for site in sites.observed),
        "draws_are_shared": not (reading.reads_data() or sites.scale_varies or reading.discrete),
        "has_classes": reading.has_classes(),
        "discrete": reading.discrete,
    }


def _draw_fixed(fn: dist.Distribution, site: SiteMessage) -> jax.Array:
    value = fn(rng_key=site["kwargs"]["rng_key"], sample_shape=site["kwargs"]["sample_shape"])
    return lax.stop_gradient(jnp.asarray(value))
