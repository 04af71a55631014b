"""The power posterior p(z) p(x | z)^t of any NumPyro model with continuous latents; with a plate, one for each datum."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.interpreters import partial_eval
from numpyro import handlers
from numpyro.primitives import Messenger

from kaem_ppl.distributions.base import TiltedDistribution
from kaem_ppl.distributions.tabulated import TabulatedPrior, tabulate_prior

from .coordinates import Coordinates, Unconstrained, is_improper
from .parameters import Params
from .wrappers import is_masked, unwrap, with_base

type Position = dict[str, jax.Array]


class Target(NamedTuple):
    """One problem: a prior and a likelihood as functions of a position, and a way to draw from the prior.

    Attributes:
        log_prior: position to scalar, in the coordinates that the position is in.
        log_likelihood: position to scalar.
        draw: key to a position distributed as the prior.
    """

    log_prior: Callable[[Position], jax.Array]
    log_likelihood: Callable[[Position], jax.Array]
    draw: Callable[[jax.Array], Position]


@dataclass(frozen=True)
class Site:
    """What is known of a site before anything is computed.

    Attributes:
        name: its name.
        plate_axis: the axis of its value, negative, that belongs to the data plate; None without one.
        dims: a name for each batch axis of its value, from the left, the data plate's axis left out; None where a
            batch axis has no plate.
    """

    name: str
    plate_axis: int | None
    dims: tuple[str | None, ...]

    def drop_plate_axis(self, value: jax.Array) -> jax.Array:
        """Take the data plate's axis, of size 1 in the run of one datum, out of the site's value."""
        return value if self.plate_axis is None else jnp.squeeze(value, self.plate_axis)


class _Held:
    """A static value of any kind, compared by identity, so that it can be part of what a program is compiled for."""

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        return id(self.value)

    def __eq__(self, other):
        return isinstance(other, _Held) and self.value is other.value


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "shared", "params", "tables"],
    meta_fields=[
        "model",
        "layout",
        "plate",
        "coordinates",
        "latents",
        "observed",
        "deterministics",
        "has_proper_prior",
    ],
)
@dataclass(frozen=True, eq=False)
class PowerPosterior:
    """A model, its data and its parameters, ready to be conditioned. Made by `read_power_posterior`.

    A pytree whose arrays are data and whose other fields are static: a program compiled for one of them serves every
    other of the same model and shapes.

    Attributes:
        rows: arrays (num_data, ...), of which each datum owns a row; empty without a plate.
        shared: arrays that every datum reads whole.
        params: constrained values of the model's `numpyro.param` sites.
        tables: by name of the latent site, its prior, where that is tilted and the same for all data and latents.
        model: the model, held.
        layout: how arrays and other values make up the arguments of the model.
        plate: name of the plate that holds the data; None where the model is one problem.
        coordinates: the coordinates positions are in.
        latents: the latent sites.
        observed: the observed sites; `numpyro.factor` is one, and counts as likelihood.
        deterministics: the deterministic sites.
        has_proper_prior: whether a position can be drawn from the prior, and the draw is from its density.
    """

    rows: tuple[jax.Array, ...]
    shared: tuple[jax.Array, ...]
    params: Params
    tables: dict[str, TabulatedPrior]
    model: _Held
    layout: "_Layout"
    plate: str | None
    coordinates: Coordinates
    latents: tuple[Site, ...]
    observed: tuple[Site, ...]
    deterministics: tuple[Site, ...]
    has_proper_prior: bool

    @property
    def num_data(self) -> int:
        """Number of problems."""
        return self.rows[0].shape[0] if self.rows else 1

    def target(self, datum: tuple[jax.Array, ...]) -> Target:
        """The problem of one datum, whose rows, without a leading axis, are `datum`."""

        def log_prior(position):
            return self._place(datum, position)[1]

        def log_likelihood(position):
            sites, _ = self._place(datum, position)
            total = sum(jnp.sum(_log_prob(sites[site.name])) for site in self.observed)
            # What has no likelihood is impossible: NaN would be accepted by a comparison somewhere.
            return jnp.where(jnp.isnan(total), -jnp.inf, total)

        def draw(key):
            messenger = _Draw(self.coordinates, self.tables, key)
            self._run(datum, messenger)
            return messenger.position

        return Target(log_prior, log_likelihood, draw)

    def values(self, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Values of the latent sites at a position, without the data plate's axis."""
        sites, _ = self._place(datum, position)
        return {site.name: site.drop_plate_axis(sites[site.name]["value"]) for site in self.latents}

    def deterministic_values(self, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Values of the deterministic sites at a position, without the data plate's axis."""
        sites, _ = self._place(datum, position)
        return {site.name: site.drop_plate_axis(jnp.asarray(sites[site.name]["value"])) for site in self.deterministics}

    def pointwise_log_likelihood(self, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Log-likelihood of each observed site, its batch axes kept; with a plate one number for the datum."""
        sites, _ = self._place(datum, position)
        pointwise = {site.name: _log_prob(sites[site.name]) for site in self.observed}
        return pointwise if self.plate is None else jax.tree.map(jnp.sum, pointwise)

    def predict(self, key: jax.Array, datum: tuple[jax.Array, ...], position: Position) -> dict[str, jax.Array]:
        """Draw every observed site anew given a position, without the data plate's axis."""
        messengers = _Replicate(), _Place(self.coordinates, self.tables, position)
        return self._read_observed(self._run(datum, *messengers, key=key))

    def draw_prior(
        self, key: jax.Array, datum: tuple[jax.Array, ...]
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Draw the latents from the prior; their values, without the data plate's axis, and new observations."""
        draw_key, predict_key = jax.random.split(key)
        position = self.target(datum).draw(draw_key)
        return self.values(datum, position), self.predict(predict_key, datum, position)

    def _read_observed(self, sites):
        named = {site.name: site for site in self.observed if not isinstance(sites[site.name]["fn"], dist.Unit)}
        return {name: site.drop_plate_axis(sites[name]["value"]) for name, site in named.items()}

    def observations(self) -> dict[str, jax.Array]:
        """Values of the observed sites other than factors, shape (num_data, ...) with a plate."""

        def read(datum):
            messenger = _Draw(self.coordinates, self.tables, jax.random.key(0))
            return self._read_observed(self._run(datum, messenger))

        return jax.jit(jax.vmap(read))(self.rows) if self.rows else jax.jit(read)(())

    def _place(self, datum, position):
        messenger = _Place(self.coordinates, self.tables, position)
        return self._run(datum, messenger), messenger.log_prior

    def _run(self, datum, *messengers, key=None):
        args, kwargs = self.layout.arguments([row[None] for row in datum], self.shared)
        return _trace(self.model.value, args, kwargs, self.params, *messengers, key=key)


def read_power_posterior(
    model: Callable,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    params: Params | None = None,
    plate: str | None = None,
    coordinates: Coordinates = Unconstrained(),  # noqa: B008 - a frozen value
) -> PowerPosterior:
    """Read a model's latent and observed sites and tabulate its tilted priors.

    The model runs abstractly: nothing of it is computed but the parameters of tilted priors.

    Args:
        model: NumPyro model.
        args: its positional arguments; pytrees.
        kwargs: its keyword arguments; pytrees.
        params: constrained values of its `numpyro.param` sites.
        plate: name of the plate whose rows are problems of their own. Arrays among the arguments whose leading axis has
            the plate's size are then cut into rows; everything else reaches the model as it is.
        coordinates: what positions are written in.

    Raises:
        ValueError: the model has no such plate or subsamples it, or a site stands outside it; a latent is discrete, or
            the coordinates do not exist for it; nothing is latent, or nothing observed; a parameter is missing.
    """
    params = jax.tree.map(jnp.asarray, params or {})
    leaves, structure = jax.tree.flatten((args, kwargs))
    leaves = [jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf for leaf in leaves]
    param_leaves, param_structure = jax.tree.flatten(params)
    reading = _read(
        _Held(model), structure, tuple(map(_describe, leaves)), param_structure, tuple(map(_describe, param_leaves)),
        plate, coordinates, jax.config.jax_enable_x64,
    )  # fmt: skip
    rows, shared = reading.posterior.layout.split(leaves)
    posterior = dataclasses.replace(reading.posterior, rows=tuple(rows), shared=tuple(shared), params=params)
    if not reading.fixed_priors:
        return posterior
    zeros = {name: np.zeros(shape.shape, shape.dtype) for name, shape in reading.latent_shapes.items()}
    known = _tilted_priors(posterior, reading.fixed_priors, zeros)
    tables = {name: tabulate_prior(name, prior) for name, prior in known.items()}
    return dataclasses.replace(posterior, tables=tables)


class _Reading(NamedTuple):
    """What follows from a model and the shapes of its arguments.

    Attributes:
        posterior: the power posterior, shapes in the place of its arrays.
        latent_shapes: of the latent sites' values, by name.
        fixed_priors: names of the latent sites with a tilted prior that depends on neither a latent nor a datum.
    """

    posterior: PowerPosterior
    latent_shapes: dict[str, jax.ShapeDtypeStruct]
    fixed_priors: tuple[str, ...]


# Running a model to read it costs a tenth of a second, as much as some hundred steps of a chain. What was read holds for
# as long as what `jax.jit` compiled: a model is the function it is.
@lru_cache(maxsize=64)
def _read(model, structure, leaves, param_structure, param_leaves, plate, coordinates, x64):
    leaves = [leaf if isinstance(leaf, jax.ShapeDtypeStruct) else leaf[1] for leaf in leaves]
    params = jax.tree.unflatten(param_structure, param_leaves)
    layout = _Layout.of(leaves, structure, None)
    sites = _read_sites(model.value, layout, *layout.split(leaves), params)
    _check_params(sites, params)
    num_data = None if plate is None else _plate_size(sites, plate)
    _check_subsampling(sites)
    layout = _Layout.of(leaves, structure, num_data)
    rows, shared = layout.split(leaves)

    deterministic_axes = {}
    if plate is not None:
        sites, deterministic_axes = _read_rows(model.value, layout, rows, shared, params, plate, num_data)
    latents, observed, deterministics = _classify(sites, plate, deterministic_axes)
    for site in latents:
        coordinates.check(site.name, sites[site.name]["fn"])
        if not isinstance(coordinates, Unconstrained) and _is_weighted(sites[site.name]):
            raise ValueError(
                f"Latent site {site.name!r} is scaled or masked, so it is not standard normal a priori when whitened. "
                "Put `numpyro.handlers.scale` or `mask` around the observed sites only, or choose a sampler that moves "
                "in unconstrained space, such as `NUTS()`."
            )
    proper = not any(_is_weighted(sites[s.name]) or is_improper(sites[s.name]["fn"]) for s in latents)
    posterior = PowerPosterior(
        tuple(rows), tuple(shared), params, {}, model, layout, plate, coordinates, latents, observed, deterministics,
        proper,
    )  # fmt: skip
    return _Reading(posterior, *_find_fixed_priors(posterior))


def _describe(leaf):
    """What the reading of a model depends on: the shape of an array, any other value itself and its type."""
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return type(leaf), leaf if _is_plain(leaf) else _Held(leaf)


class _Place(Messenger):
    """Puts each latent where a position says, and adds up the log-density of the prior there."""

    def __init__(self, coordinates, tables, position):
        super().__init__()
        self.coordinates, self.tables, self.position = coordinates, tables, position
        self.log_prior = 0.0

    def process_message(self, msg):
        if not _is_latent(msg):
            return
        msg["fn"] = _with_table(msg, self.tables)
        value, log_prob, log_jacobian = self.coordinates.place(msg["fn"], self.position[msg["name"]])
        msg["value"] = value
        self.log_prior += jnp.sum(_scaled(log_prob, msg["scale"])) + log_jacobian


class _Draw(Messenger):
    """Draws each latent from the prior and writes down the position."""

    def __init__(self, coordinates, tables, key):
        super().__init__()
        self.coordinates, self.tables, self.key = coordinates, tables, key
        self.position = {}

    def process_message(self, msg):
        if not _is_latent(msg):
            return
        fn = _with_table(msg, self.tables)
        coordinate = self.coordinates.draw(jax.random.fold_in(self.key, len(self.position)), fn)
        self.position[msg["name"]] = coordinate
        msg["fn"], msg["value"] = fn, self.coordinates.place(fn, coordinate)[0]


class _Replicate(Messenger):
    """Makes observed sites be drawn anew; those that only carry a factor stay."""

    def process_message(self, msg):
        if msg["type"] == "sample" and msg["is_observed"] and not isinstance(unwrap(msg["fn"]), dist.Unit):
            msg["is_observed"], msg["value"] = False, None


class _Fix(Messenger):
    """Gives latents any values, drawing nothing."""

    def __init__(self, values=None):
        super().__init__()
        self.values = values

    def process_message(self, msg):
        if _is_latent(msg):
            value = None if self.values is None else self.values[msg["name"]]
            msg["value"] = jnp.zeros(msg["fn"].shape()) if value is None else value


def _trace(model, args, kwargs, params, *messengers, key=None):
    key = jax.random.key(0) if key is None else key
    # The last one entered is the first to see a message: latents have values before the seed would draw them.
    with handlers.trace() as sites, handlers.seed(rng_seed=key), handlers.substitute(data=params):
        _call_within(messengers, model, args, kwargs)
    return sites


def _call_within(messengers, model, args, kwargs):
    if not messengers:
        return model(*args, **kwargs)
    with messengers[0]:
        return _call_within(messengers[1:], model, args, kwargs)


def _read_sites(model, layout, rows, shared, params):
    """The model's sites, their arrays abstract."""
    found = {}

    def run(rows, shared, params):
        args, kwargs = layout.arguments(rows, shared)
        found.update(_trace(model, args, kwargs, params, _Fix()))

    jax.eval_shape(run, rows, shared, params)
    return found


@dataclass(frozen=True)
class _Layout:
    """Where each leaf of the model's arguments comes from: a row, a shared array, or a value that is no array."""

    structure: Any
    leaves: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, leaves, structure, num_data):
        def kind(leaf):
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                return "value", leaf
            is_row = num_data is not None and leaf.ndim > 0 and leaf.shape[0] == num_data
            return ("row" if is_row else "shared"), None

        return cls(structure, tuple(kind(leaf) for leaf in leaves))

    def split(self, leaves):
        return (
            [leaf for leaf, (kind, _) in zip(leaves, self.leaves, strict=True) if kind == wanted]
            for wanted in ("row", "shared")
        )

    def arguments(self, rows, shared):
        arrays = {"row": iter(rows), "shared": iter(shared)}
        leaves = [
            next(arrays[kind]) if kind in arrays else (value.value if isinstance(value, _Held) else value)
            for kind, value in self.leaves
        ]
        return jax.tree.unflatten(self.structure, leaves)


def _is_plain(leaf):
    return isinstance(leaf, bool | int | float | str | bytes)


def _is_latent(msg):
    return msg["type"] == "sample" and not msg["is_observed"]


def _scaled(log_prob, scale):
    return log_prob if scale is None else scale * log_prob


def _log_prob(site):
    return _scaled(site["fn"].log_prob(site["value"]), site["scale"])


def _with_table(site, tables):
    """The site's distribution, its tilted base replaced by the table of it where there is one."""
    table = tables.get(site["name"])
    return site["fn"] if table is None else with_base(site["fn"], table)


def _is_weighted(site):
    return site["scale"] is not None or is_masked(site["fn"])


def _check_params(sites, params):
    names = {name for name, site in sites.items() if site["type"] == "param"}
    mutable = [name for name, site in sites.items() if site["type"] == "mutable"]
    if mutable:
        raise ValueError(
            f"The model keeps mutable state in {mutable} (batch statistics, for example), which has no meaning along a "
            "chain. Use a module without it, such as layer or group normalisation."
        )
    missing, unknown = sorted(names - set(params)), sorted(set(params) - names)
    if missing:
        raise ValueError(f"`params` lacks the model's {missing}. Pass the learnt values, such as `fit(...).params`.")
    if unknown:
        raise ValueError(f"`params` names {unknown}, but the model's parameters are {sorted(names)}.")


def _plate_size(sites, plate):
    plates = {name: site["args"][0] for name, site in sites.items() if site["type"] == "plate"}
    if plate not in plates:
        raise ValueError(
            f"`plate` is {plate!r}, but the model's plates are {sorted(plates)}. Name one of them, or leave `plate` out "
            "to treat the model as one problem."
        )
    return plates[plate]


def _check_subsampling(sites):
    for name, site in sites.items():
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
            raise ValueError(
                f"Plate {name!r} subsamples {site['args'][1]} of {site['args'][0]} rows, which has no meaning along a "
                "chain. Remove `subsample_size`."
            )


def _read_rows(model, layout, rows, shared, params, plate, num_data):
    """Sites of the model of one datum; and the data axis of deterministic sites, the one that grows with the rows."""

    def read(num_rows):
        some = [jax.ShapeDtypeStruct((num_rows, *row.shape[1:]), row.dtype) for row in rows]
        sites = _read_sites(model, layout, some, shared, params)
        if _plate_size(sites, plate) != num_rows:
            raise ValueError(
                f"Plate {plate!r} has size {_plate_size(sites, plate)} where the model was given {num_rows} of its "
                f"{num_data} rows. Every datum is its own problem: take the plate's size from the data inside the "
                f'model, `numpyro.plate("{plate}", len(x))`, and pass data as arrays.'
            )
        return sites

    one, two = read(1), read(2)
    axes = {}
    for name, site in one.items():
        if site["type"] == "deterministic":
            shapes = jnp.shape(site["value"]), jnp.shape(two[name]["value"])
            grown = [axis - len(shapes[0]) for axis, pair in enumerate(zip(*shapes, strict=True)) if pair == (1, 2)]
            axes[name] = grown[0] if grown else None
    return one, axes


def _classify(sites, plate, deterministic_axes):
    latents, observed, deterministics = [], [], []
    for name, site in sites.items():
        if site["type"] == "deterministic":
            deterministics.append(Site(name, deterministic_axes.get(name), ()))
        if site["type"] != "sample":
            continue
        kind = "Observed" if site["is_observed"] else "Latent"
        fn, frames = site["fn"], {frame.name: frame.dim for frame in site["cond_indep_stack"]}
        if plate is not None and plate not in frames:
            raise ValueError(
                f"{kind} site {name!r} stands outside plate {plate!r}. With `plate=` every datum is its own problem: "
                "move the site into the plate, fix its value by `numpyro.handlers.condition`, or leave `plate` out to "
                "sample the joint posterior of all sites."
            )
        if not site["is_observed"] and fn.support is not None and fn.support.is_discrete:
            raise ValueError(
                f"Latent site {name!r} is discrete, with distribution {type(unwrap(fn)).__name__}. Sum it out, for "
                "example with a mixture distribution such as `MixtureSameFamily`."
            )
        num_batch = len(fn.batch_shape)
        names = {dim: frame for frame, dim in frames.items() if frame != plate}
        skipped = frames.get(plate)
        dims = tuple(names.get(dim) for dim in range(-num_batch, 0) if dim != skipped)
        plate_axis = None if plate is None else frames[plate] - fn.event_dim
        (observed if site["is_observed"] else latents).append(Site(name, plate_axis, dims))
    if not latents:
        raise ValueError("The model has no latent site: there is nothing to sample. Is every site observed?")
    if not observed:
        raise ValueError(
            "The model has no observed site, so its posterior is its prior. Give a site `obs=`, and pass the data to "
            "`sample_posterior`; or draw from the prior by `numpyro.infer.Predictive`."
        )
    return tuple(latents), tuple(observed), tuple(deterministics)


def _find_fixed_priors(posterior):
    """Shapes of the latents' values, and the tilted priors whose parameters depend on neither a latent nor a datum."""
    datum = tuple(jax.ShapeDtypeStruct(row.shape[1:], row.dtype) for row in posterior.rows)
    shapes, names = {}, []

    def read(posterior, datum):
        sites = posterior._run(datum, _Fix())
        for site in posterior.latents:
            fn = sites[site.name]["fn"]
            shapes[site.name] = jax.ShapeDtypeStruct(fn.shape(), jnp.result_type(float))
            if isinstance(unwrap(fn), TiltedDistribution):
                names.append(site.name)

    jax.eval_shape(read, posterior, datum)

    def is_fixed(name):
        def prior(posterior, latents, datum):
            return _read_tilted_priors(posterior, (name,), latents, datum)

        jaxpr = jax.make_jaxpr(prior)(posterior, shapes, datum).jaxpr
        _, is_used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        return not any(is_used[len(jax.tree.leaves(posterior)) :])

    return shapes, tuple(name for name in names if is_fixed(name))


@partial(jax.jit, static_argnums=1)
def _tilted_priors(posterior, names, latents):
    """The tilted distributions of sites that depend on neither a latent nor a datum, so that any will do."""
    return _read_tilted_priors(posterior, names, latents, tuple(row[0] for row in posterior.rows))


def _read_tilted_priors(posterior, names, latents, datum):
    """The tilted distributions of some sites, where latents have these values."""
    sites = posterior._run(datum, _Fix(latents))
    return {name: unwrap(sites[name]["fn"]) for name in names}
