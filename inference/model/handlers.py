"""Handlers that give latent sites their values, drawn, placed or zero, also inside NumPyro's `scan` and `cond`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.infer.initialization import init_to_uniform
from numpyro.primitives import Messenger

from kaem_ppl.arguments import describe

from .coordinates import as_angle
from .modules.modes import module_mode
from .modules.state import ModuleState
from .wrappers import is_discrete, omit_normalizer, unwrap

# A site as NumPyro's handlers see it, and the sites of one run by name.
type SiteMessage = dict[str, Any]
type Trace = dict[str, SiteMessage]


def run_model(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    params: Mapping[str, Any],
    messengers: Sequence[Messenger] = (),
    key: jax.Array | None = None,
    training_key: jax.Array | None = None,
) -> Trace:
    """The sites of one run of a model.

    Args:
        model: NumPyro model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        params: constrained values of `numpyro.param` sites.
        messengers: handlers around the model; the last one is the first to see a site.
        key: of what no handler gives a value to.
        training_key: of dropout and the like; with it modules are in training mode, else in evaluation mode.
    """
    key = jax.random.key(0) if key is None else key
    # The last one entered is the first to see a message: latents have values before the seed would draw them.
    with (
        module_mode("evaluation" if training_key is None else "training"),
        handlers.trace() as sites,
        handlers.seed(rng_seed=key),
        ModuleState(training_key),
        handlers.substitute(data=dict(params)),
    ):
        _call_within(messengers, model, args, kwargs)
    return sites


def is_latent(site: SiteMessage) -> bool:
    """Whether a site of a trace is a latent one."""
    return site["type"] == "sample" and not site["is_observed"]


def in_control_flow(site: SiteMessage) -> bool:
    """Whether a site stands inside `scan` or `cond`."""
    return site.get("_control_flow_done", False)


def is_scan(msg: SiteMessage) -> bool:
    """Whether a message of control flow is a `scan`."""
    return msg["fn"] is scan_wrapper


def wrap_bodies(msg: SiteMessage, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Change the bodies of a message of control flow."""
    # (body, init, xs, ...) of a scan; (predicate, branch, branch, operand) of a cond.
    bodies = (0,) if is_scan(msg) else (1, 2)
    msg["args"] = tuple(wrap(x) if place in bodies else x for place, x in enumerate(msg["args"]))


class GiveLatents(Messenger):
    """Gives each latent site a value, wherever it stands.

    The body of a `scan` or `cond` runs hidden from the handlers outside, which leave a function on a stack for it. When
    the body has run, its sites reach the handlers outside once more, a scan's values stacked along a leading axis: they
    have their values then.
    """

    def process_message(self, msg: SiteMessage) -> None:
        if msg["type"] == "control_flow":
            msg["kwargs"]["substitute_stack"].append(("substitute", partial(self._value_in_body, _scan_order(msg))))
        elif is_latent(msg) and not in_control_flow(msg):
            self.give_value(msg)

    def give_value(self, site: SiteMessage) -> None:
        """Put a value into a latent site that is not in a body."""
        raise NotImplementedError

    def value_in_body(self, site: SiteMessage, step: jax.Array | None, is_reversed: bool) -> jax.Array | None:
        """Value of a latent site in a body; in that of a scan the number of its step, else None."""
        raise NotImplementedError

    def _value_in_body(self, is_reversed: bool, site: SiteMessage) -> jax.Array | None:
        if not is_latent(site):
            return None
        return self.value_in_body(site, site["infer"].get("_scan_current_index"), is_reversed)


class PlaceLatents(GiveLatents):
    """Puts each latent where a position says."""

    def __init__(
        self,
        position: Mapping[str, jax.Array],
        value_at: Callable[[dist.Distribution, jax.Array], jax.Array] = lambda fn, value: value,
        replace: Callable[[SiteMessage], dist.Distribution] = lambda site: site["fn"],
    ) -> None:
        """Set up.

        Args:
            position: by name of the latent site.
            value_at: of a site's distribution and its position, the site's value; the position itself by default.
            replace: of a site that is not in a body, the distribution to use for it.
        """
        super().__init__()
        self.position, self.value_at, self.replace = position, value_at, replace

    def give_value(self, site: SiteMessage) -> None:
        """See `GiveLatents`."""
        if is_discrete(site["fn"]):
            # No coordinate but the value; without one it is drawn, or enumerated.
            site["value"] = self.position.get(site["name"], site["value"])
            return
        site["fn"] = as_angle(site["name"], self.replace(site))
        site["value"] = self.value_at(site["fn"], self.position[site["name"]])

    def value_in_body(self, site: SiteMessage, step: jax.Array | None, is_reversed: bool) -> jax.Array | None:
        """See `GiveLatents`."""
        name = site["name"]
        if name not in self.position:
            # An observed site that is drawn anew, or a discrete one.
            return None
        coordinate = self.position[name]
        if step is not None:
            # NumPyro counts steps; values stand in the order in which the scan stacks them.
            coordinate = coordinate[coordinate.shape[0] - 1 - step if is_reversed else step]
        value = coordinate if is_discrete(site["fn"]) else self.value_at(as_angle(name, site["fn"]), coordinate)
        if step is not None and jnp.ndim(value) != len(site["fn"].shape(site["kwargs"].get("sample_shape", ()))):
            raise ValueError(
                f"Latent site {name!r} stands in a `scan` inside a `scan`, which NumPyro does not support. Write the inner "
                "one as a plate or as a Python loop with sites of different names."
            )
        return value


class DrawLatents(GiveLatents):
    """Draws each continuous latent's coordinate; `position` reads them from the trace."""

    def __init__(
        self,
        key: jax.Array,
        draw: Callable[[jax.Array, dist.Distribution, tuple[int, ...]], jax.Array],
        value_at: Callable[[dist.Distribution, jax.Array], jax.Array],
        replace: Callable[[SiteMessage], dist.Distribution],
    ) -> None:
        """Set up.

        Args:
            key: PRNG key.
            draw: of a key, a distribution and a sample shape, a coordinate.
            value_at: of a distribution and a coordinate, the value.
            replace: of a site that is not in a body, the distribution to use for it.
        """
        super().__init__()
        self.key, self.draw, self.value_at, self.replace = key, draw, value_at, replace
        self.drawn: dict[str, jax.Array] = {}

    def give_value(self, site: SiteMessage) -> None:
        """See `GiveLatents`."""
        if is_discrete(site["fn"]):
            return
        fn = as_angle(site["name"], self.replace(site))
        key = jax.random.fold_in(self.key, len(self.drawn))
        self.drawn[site["name"]] = coordinate = self.draw(key, fn, site["kwargs"].get("sample_shape", ()))
        site["fn"], site["value"] = fn, self.value_at(fn, coordinate)

    def value_in_body(self, site: SiteMessage, step: jax.Array | None, is_reversed: bool) -> jax.Array | None:
        """See `GiveLatents`."""
        if is_discrete(site["fn"]):
            return None
        sample_shape = site["kwargs"].get("sample_shape", ())
        fn = as_angle(site["name"], site["fn"])
        coordinate = self.draw(site["kwargs"]["rng_key"], fn, sample_shape)
        # A site of its own brings it out of the body.
        numpyro.deterministic(_coordinate_site(site["name"]), coordinate)
        return self.value_at(fn, coordinate)

    def position(self, sites: Trace) -> dict[str, jax.Array]:
        """What was drawn, in the order of the sites of the trace."""
        latents = [name for name, site in sites.items() if is_latent(site) and not is_discrete(site["fn"])]
        return {
            name: self.drawn[name] if name in self.drawn else sites[_coordinate_site(name)]["value"] for name in latents
        }


class RedrawObserved(Messenger):
    """Makes observed sites be drawn anew; those that only carry a factor stay."""

    def process_message(self, msg: SiteMessage) -> None:
        if msg["type"] == "control_flow":
            wrap_bodies(msg, _redraw_in_body)
        elif _is_redrawn(msg) and not in_control_flow(msg):
            msg["is_observed"], msg["value"] = False, None


class OmitNormalizers(Messenger):
    """Takes tilted distributions up to a constant: their integrals take long to compile."""

    def process_message(self, msg: SiteMessage) -> None:
        if msg["type"] == "sample" and msg["value"] is not None:
            msg["fn"] = omit_normalizer(msg["fn"])


class CheckSites(Messenger):
    """Refuses what NumPyro can't read from a trace, where it happens, so that the message can name it."""

    def __init__(self, plate: str | None = None, num_rows: int | None = None, whole: int | None = None) -> None:
        """Set up.

        Args:
            plate: name of the plate that holds the data.
            num_rows: rows that the model is given; None where they are not known.
            whole: rows of all data, for the message.
        """
        super().__init__()
        self.plate, self.num_rows, self.whole = plate, num_rows, whole
        self._trace_state: Any = None

    def __enter__(self) -> None:
        super().__enter__()
        self._trace_state = jax.extend.core.get_opaque_trace_state()

    def process_message(self, msg: SiteMessage) -> None:
        """Raise ValueError where the message can't be read."""
        if msg["type"] == "plate":
            self._check_plate(msg["name"], *msg["args"])
        if msg["type"] == "sample" and msg["is_observed"]:
            _check_value(msg["name"], msg["value"])
        is_site = msg["type"] in ("sample", "deterministic")
        if is_site and jax.extend.core.get_opaque_trace_state() != self._trace_state:
            raise ValueError(
                f"Site {msg['name']!r} stands inside a JAX transformation, such as `jax.vmap`, `jax.lax.scan`, "
                "`jax.lax.while_loop` or `jax.jit`, whose values NumPyro can't see from outside. Use `numpyro.plate`, or "
                "`scan` and `cond` of `numpyro.contrib.control_flow`."
            )

    def _check_plate(self, name: str, size: int, subsample_size: int | None) -> None:
        check_subsampling(name, size, subsample_size)
        if name == self.plate and self.num_rows is not None:
            check_plate_size(name, size, self.num_rows, self.whole)


def _check_value(name: str, value: Any) -> None:
    """Raise TypeError for an observed value that is no array of numbers."""
    is_array = isinstance(value, jax.Array) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufcV")
    if not (is_array or isinstance(value, int | float | complex | np.number | np.bool)):
        raise TypeError(
            f"Observed site {name!r} has a value that is no array of numbers, {describe(value)}: pass an array, as by "
            "`jnp.asarray`."
        )


def check_subsampling(name: str, size: int, subsample_size: int | None) -> None:
    """Raise ValueError for a plate that takes a part of its rows."""
    if subsample_size not in (None, size):
        raise ValueError(
            f"Plate {name!r} subsamples {subsample_size} of {size} rows. Remove `subsample_size`: chains see all rows, and "
            "`fit` forms batches outside the model, by `batch_size`."
        )


def check_plate_size(name: str, size: int, num_rows: int, whole: int | None = None) -> None:
    """Raise ValueError where a plate's size is not that of the rows that the model is given."""
    if size != num_rows:
        of_all = f"{num_rows} rows" if whole is None else f"{num_rows} of its {whole} rows"
        raise ValueError(
            f"Plate {name!r} has size {size} where the model was given {of_all}. Every datum is its own problem: take the "
            f'plate\'s size from the data inside the model, `numpyro.plate("{name}", len(x))`, and pass data as arrays.'
        )


def substitute_zero_latents() -> handlers.substitute:
    """A handler that puts zeros in the place of every continuous latent that has no value."""

    def zeros(site: SiteMessage) -> jax.Array | None:
        if site["type"] != "sample" or site["value"] is not None or site["fn"].support.is_discrete:
            return None
        return jnp.zeros(site["fn"].shape(site["kwargs"].get("sample_shape", ())))

    return handlers.substitute(substitute_fn=zeros)


def random_point(site: SiteMessage) -> jax.Array | None:
    """A point of a latent's support, uniform in unconstrained space; for `numpyro.handlers.substitute`."""
    if site["type"] != "sample" or site["value"] is not None or site["fn"].support is None:
        return None
    try:
        # Of a site it returns an array; the annotation has what it returns of none, too.
        value: Any = init_to_uniform(site, radius=1)
        return value
    except NotImplementedError as error:
        raise ValueError(
            f"Latent site {site['name']!r} has a support that NumPyro knows no unconstrained coordinates for: "
            f"{site['fn'].support}. {error}"
        ) from error


def _call_within(
    messengers: Sequence[Messenger], model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if not messengers:
        return model(*args, **kwargs)
    with messengers[0]:
        return _call_within(messengers[1:], model, args, kwargs)


def _scan_order(msg: SiteMessage) -> bool:
    """Whether a scan runs from its end; NumPyro passes (f, init, xs, length, reverse)."""
    return is_scan(msg) and bool(msg["args"][4])


def _is_redrawn(msg: SiteMessage) -> bool:
    return msg["type"] == "sample" and msg["is_observed"] and not isinstance(unwrap(msg["fn"]), dist.Unit)


def _redraw_in_body(body: Callable[..., Any]) -> Callable[..., Any]:
    def redrawn(*args: Any) -> Any:
        with RedrawObserved():
            return body(*args)

    return redrawn


def _coordinate_site(name: str) -> str:
    return f"_{name}_coordinate"
