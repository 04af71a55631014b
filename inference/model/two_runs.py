"""Trace a model twice, with all data and with one datum, compare both log-densities, and build what is known of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer.util import compute_log_probs
from numpyro.primitives import Messenger

from kaem_ppl.distributions.base import TiltedDistribution

from .arguments import Layout, is_array
from .check import Comparison, Difference, check_states, find_difference, point_key
from .discrete.latents import DiscreteLatents, check_support, random_state, read_discrete
from .handlers import (
    CheckSites,
    OmitNormalizers,
    PlaceLatents,
    SiteMessage,
    Trace,
    is_latent,
    random_point,
    run_model,
)
from .modules.modes import module_mode
from .modules.state import ModuleState, state_after
from .parameters import CheckParams, Parameters, Params
from .sites import Site, Sites, apply_scale, classify, plate_dims, plate_size, scaled_log_prob, sum_to_plate
from .traced import ModelIdentity, Traced, compiled
from .wrappers import is_discrete, is_picked, omit_normalizer, unwrap

_COMPARED = ("log_probs", "sizes", "values", "params")


@dataclass(frozen=True, eq=False)
class Reading:
    """What is known of a model and its arguments.

    Attributes:
        model: the model.
        layout: how rows, shared arrays and fixed values make up its arguments.
        rows: arrays (num_data, ...), of which each datum owns a row; empty without a plate.
        shared: arrays that every datum reads whole.
        plate: name of the plate that holds the data; None where the model is one problem.
        sites: its sites, of one datum.
        priors: distributions of the continuous latent sites, of one datum, their arrays abstract.
        discrete: what the discrete latents are to the other sites; None where there is none.
        parameters: its `numpyro.param` sites.
        whole: NumPyro's log-densities of the whole model, traced; of its arrays, given parameters and a key.
        one: our log-densities of one datum, traced; of its row, shared arrays, parameters, values of the latents and a key.
    """

    model: ModelIdentity
    layout: Layout
    rows: tuple[Any, ...]
    shared: tuple[Any, ...]
    plate: str | None
    sites: Sites
    priors: dict[str, dist.Distribution]
    discrete: DiscreteLatents | None
    parameters: Parameters
    whole: Traced
    one: Traced

    def reads_data(self) -> bool:
        """Whether a distribution depends on an array among the arguments, beyond the values that it is observed at."""
        arrays, _, _ = self.whole.select(lambda outputs: outputs["laws"]).uses()
        return any(arrays)

    def has_classes(self) -> bool:
        """Whether data differ only in which members of a bank are the prior of the one latent: a `context` picks them."""
        if self.discrete or self.sites.scale_varies or len(self.priors) != 1:
            return False
        names = [site.name for site in (*self.sites.all_latents, *self.sites.observed)]
        reading = [name for i, name in enumerate(names) if self._law_reads_data(i)]
        return len(reading) == 1 and reading[0] in self.priors and is_picked(self.priors[reading[0]])

    def _law_reads_data(self, number: int) -> bool:
        return any(self.whole.select(lambda outputs: outputs["laws"][number]).uses()[0])

    def reads_rows(self) -> bool:
        """Whether a distribution depends on a row, beyond the values that it is observed at; so where that is not known."""
        arrays, _, _ = self.whole.select(lambda outputs: outputs["laws"]).uses()
        kinds = [kind for kind, _ in self.layout.leaves if kind != "fixed"]
        return len(arrays) != len(kinds) or any(used for used, kind in zip(arrays, kinds, strict=True) if kind == "row")

    def fixed_priors(self) -> dict[str, TiltedDistribution]:
        """The tilted priors that depend on neither a latent nor a datum, by name of the latent site."""

        def is_fixed(name: str) -> bool:
            row, _, _, values, key = self.one.select(lambda outputs: outputs["tilted"][name]).uses()
            return not any(jax.tree.leaves((row, values, key)))

        names = [name for name in self.sites.tilted if is_fixed(name)]
        if not names:
            return {}
        program = self.one.select(lambda outputs: {name: outputs["tilted"][name] for name in names})
        row, _, _, values, _ = program.input_shapes()
        row, values = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (row, values))
        return compiled(program)(row, list(self.shared), self.parameters.values, values, point_key(0))


class WholeModel(NamedTuple):
    """The whole model, as NumPyro reads it.

    Attributes:
        program: log-densities at a random point, of the model's arrays, given parameters and a key.
        trace: its sites.
        layout: of its arguments.
    """

    program: Traced
    trace: Trace
    layout: Layout


@dataclass(frozen=True)
class Runs:
    """The two runs of a model, and their comparison."""

    model: Callable[..., Any]
    plate: str | None
    given: Params
    key: jax.Array
    is_wide: bool = False

    def trace_whole(self, layout: Layout, leaves: Sequence[Any], num_rows: int | None = None) -> WholeModel:
        """NumPyro's log-densities of the whole model at a random point, and its sites."""
        trace: Trace = {}

        def run(arrays: list[Any], given: Params, key: jax.Array) -> dict[str, Any]:
            args, kwargs = layout.merge(arrays)
            model = handlers.substitute(handlers.seed(self.model, key), data=given)
            model = handlers.substitute(model, substitute_fn=_random_value)
            state = ModuleState()
            checks = OmitNormalizers(), CheckParams(self.given), CheckSites(self.plate, num_rows)
            with module_mode("evaluation"), state, checks[0], checks[1], checks[2]:
                log_probs, found = compute_log_probs(model, args, kwargs, {}, sum_log_prob=False)
            trace.update(found)
            if self.plate is not None:
                plate_size(found, self.plate)
            sites = classify(found, self.plate)
            for site in sites.discrete:
                check_support(found[site.name])

            def per_datum(name: str, log_prob: jax.Array) -> jax.Array:
                return sum_to_plate(jnp.asarray(log_prob), found[name], self.plate)

            return {
                "log_probs": {name: per_datum(name, log_probs[name]) for name in sites.names},
                "sizes": {name: per_datum(name, jnp.abs(log_probs[name])) for name in sites.names},
                "values": {site.name: found[site.name]["value"] for site in sites.all_latents},
                "params": {name: site["value"] for name, site in found.items() if site["type"] == "param"}
                | state.before,
                "states": (state.before, state_after(found)),
                # Data that only ever are the observed value leave no trace here.
                "laws": [log_probs[site.name] for site in sites.all_latents]
                + [scaled_log_prob(found[x.name], jnp.zeros_like(found[x.name]["value"])) for x in sites.observed],
            }

        return WholeModel(Traced.of(run, layout.arrays(leaves), self.given, self.key), trace, layout)

    def read_one(
        self,
        whole: WholeModel,
        layout: Layout,
        leaves: Sequence[Any],
        parameters: Parameters,
        num_data: int | None = None,
    ) -> Reading:
        """Run the model on one datum and compare it with the whole."""
        check_states(whole.program, whole.layout.arrays(leaves), self.given, self.key)
        rows, shared = layout.split(leaves)
        row = [jax.ShapeDtypeStruct(x.shape[1:], jax.eval_shape(jnp.asarray, x).dtype) for x in rows]
        values = {name: _shape_of_one(site, self.plate) for name, site in whole.trace.items() if is_latent(site)}
        one, trace, discrete = self._trace_one(layout, row, shared, parameters.values, values, num_data)
        sites = classify(trace, self.plate)
        _check_randomness(one)
        program = whole.program.select(lambda outputs: {name: outputs[name] for name in _COMPARED})
        density = one.select(lambda outputs: {"log_probs": outputs["log_probs"]})
        comparison = Comparison(program, density, tuple((site.name, site.plate_axis) for site in sites.all_latents))
        difference = find_difference(
            comparison, whole.layout.arrays(leaves), rows, shared, self.given, has_discrete=bool(sites.discrete)
        )
        if difference is not None and (self.is_wide or not self._agrees_in_float64(whole, layout, leaves, num_data)):
            raise ValueError(_describe(difference, discrete))
        deterministics = tuple(_with_plate_axis(site, trace, whole.trace) for site in sites.deterministics)
        sites = replace(sites, deterministics=deterministics if self.plate is not None else sites.deterministics)
        priors = {site.name: trace[site.name]["fn"] for site in sites.latents}
        identity = ModelIdentity(self.model, one.fingerprint)
        return Reading(
            identity,
            layout,
            tuple(rows),
            tuple(shared),
            self.plate,
            sites,
            priors,
            discrete,
            parameters,
            whole.program,
            one,
        )

    def _trace_one(
        self, layout: Layout, row: list[Any], shared: list[Any], params: Params, values: Any, num_data: int | None
    ) -> tuple[Traced, Trace, DiscreteLatents | None]:
        """Our log-densities of one datum at values of its latents, its sites, and what its discrete latents are."""
        trace: Trace = {}
        discrete: list[DiscreteLatents] = []

        def run(row: list[Any], shared: list[Any], params: Params, values: Any, key: jax.Array) -> dict[str, Any]:
            args, kwargs = layout.arguments([x[None] for x in row], shared)

            def run_within(*messengers: Messenger) -> Trace:
                checks = CheckSites(self.plate, 1, num_data)
                return run_model(self.model, args, kwargs, params, (checks, *messengers), key)

            found = run_within(PlaceLatents(values))
            trace.update(found)
            sites = classify(found, self.plate)
            looked_up: dict[str, jax.Array] = {}
            if sites.discrete:
                summed, looked_up = read_discrete(run_within, sites, values)
                discrete[:] = [summed]

            def log_prob(name: str) -> jax.Array:
                if name in looked_up:
                    return looked_up[name]
                site = found[name]
                log_prob = jnp.asarray(omit_normalizer(site["fn"]).log_prob(site["value"]))
                return jnp.sum(apply_scale(log_prob, site))

            return {
                "log_probs": {name: log_prob(name) for name in sites.names},
                "tilted": {name: unwrap(found[name]["fn"]) for name in sites.tilted},
                # All that else is computed of a model; it is part of the fingerprint.
                "others": [
                    (site.get("value"), jax.tree.leaves(site["fn"]) if site["type"] == "sample" else ())
                    for site in found.values()
                    if site["type"] in ("sample", "deterministic")
                ],
            }

        return Traced.of(run, row, shared, params, values, self.key), trace, discrete[0] if discrete else None

    def _agrees_in_float64(
        self, whole: WholeModel, layout: Layout, leaves: Sequence[Any], num_data: int | None
    ) -> bool:
        """Whether the two agree where rounding is small, as between two ways to factorise a covariance."""
        with jax.enable_x64(True):
            leaves, given = jax.tree.map(_widen, (list(leaves), self.given))
            runs = replace(self, given=given, is_wide=True)
            try:
                wide = runs.trace_whole(whole.layout, leaves, None if num_data is None else num_data)
                params = compiled(wide.program.select(lambda outputs: outputs["params"]))(
                    whole.layout.arrays(leaves), given, self.key
                )
                runs.read_one(wide, layout, leaves, Parameters(params, {}), num_data)
            except ValueError:
                return False
        return True


def _random_value(site: SiteMessage) -> jax.Array | None:
    is_continuous = site["type"] != "sample" or not is_discrete(site["fn"])
    return random_point(site) if is_continuous else random_state(site)


def _widen(leaf: Any) -> Any:
    is_float = is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(leaf, jnp.float64) if is_float else leaf


def _shape_of_one(site: SiteMessage, plate: str | None) -> jax.ShapeDtypeStruct:
    """Shape of a latent's value in the model of one datum."""
    shape = list(jnp.shape(site["value"]))
    if plate is not None:
        shape[plate_dims(site)[plate] - site["fn"].event_dim] = 1
    return jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(site["value"]))


def _with_plate_axis(site: Site, one: Trace, whole: Trace) -> Site:
    """A deterministic site with its data axis, the one that grows with the rows."""
    shapes = [jnp.shape(trace[site.name]["value"]) for trace in (one, whole)]
    if len(shapes[0]) != len(shapes[1]):
        return site
    grown = [axis - len(shapes[0]) for axis, (n, m) in enumerate(zip(*shapes, strict=True)) if n == 1 and m > 1]
    return replace(site, plate_axis=grown[0] if grown else None)


def _check_randomness(one: Traced) -> None:
    """Refuse a model whose density is random: something is drawn that is no site."""
    *_, key = one.select(lambda outputs: outputs["log_probs"]).uses()
    if not key:
        return
    names = jax.tree.unflatten(one.outputs, range(one.outputs.num_leaves))["log_probs"]
    name = next(name for name in names if one.select(lambda outputs: outputs["log_probs"][name]).uses()[-1])  # noqa: B023
    raise ValueError(
        f"The log-density of site {name!r} depends on a random number that is no site of `model`, one hidden by "
        "`numpyro.handlers.block`, or drawn by `numpyro.prng_key()`, as dropout does: make it a latent site, or fix it; "
        "turn dropout off by default, and on in training by an argument, as "
        '`fit(..., training_kwargs={"is_training": True})` does.'
    )


def _describe(difference: Difference, discrete: DiscreteLatents | None) -> str:
    name, datum, ours, numpyro = difference
    if discrete is not None and datum is None:
        return (
            f"The log-density of site {name!r} is {ours:.7g} where each element of the discrete latent sites "
            f"{list(discrete.names)} is summed out by itself, but {numpyro:.7g} by NumPyro's own `log_density` at the same "
            "point. Do elements along a plate depend on the discrete values of others? Take that plate away, so that they "
            "are summed out together. Does the model do something else each time it runs?"
        )
    if datum is None:
        return (
            f"The log-density of site {name!r} is {ours:.7g} as the model is read here, but {numpyro:.7g} by NumPyro's own "
            "`log_density` at the same point, so draws would be wrong. Does the model do something else each time it runs? "
            "If not, write the site outside control flow and handlers, or report this model."
        )
    return (
        f"The log-density of site {name!r} of datum {datum} is {ours:.7g} where the model is given its row alone, but "
        f"{numpyro:.7g} where it is given all rows, so the data are not problems of their own. Does a row depend on the "
        "others, as by a mean over the data? Does an array that all data share have as many rows as there are data? Bind "
        "that one to the model by `functools.partial`, so that it is no argument."
    )
