"""A model with other priors at some of its latent sites, such as formulae for learnt ones or an earlier posterior."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpyro
from jax import Array
from numpyro.distributions import Distribution
from numpyro.primitives import Messenger

from ..arguments import check_callable, describe
from .posterior import JointPrior


class replace_priors(Messenger):  # noqa: N801 - a handler, and named as NumPyro's are
    """A model in which latent sites have other priors than it gives them; all else stays.

    The prior that the model makes itself is not used: its parameters are still sites of the model. A prior is expanded to
    the plates that the site stands in, and axes of a batch that the model's own prior counts as part of the event are
    counted so. Works with every sampler, method and strategy of this package, and with NumPyro's.

    A joint prior of several sites, as `prior_from` makes it of posterior draws, is one latent site `joint(mu,tau)`, and the
    sites that it names become deterministic ones, its parts: `draws.deterministics` has them.

    Args:
        fn: NumPyro model.
        priors: by the name of a latent site, a distribution of the site's event shape; or what `prior_from` returns.

    Raises:
        TypeError: `fn` can't be called, or a prior is no distribution.
        ValueError: when the model runs: it has no latent site of the name, or the site has another shape.

    Example:
        >>> import numpyro, numpyro.distributions as dist, kaem_ppl as kp
        >>> def model(y):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(mu, 1), obs=y)
        >>> heavier = kp.replace_priors(model, {"mu": dist.StudentT(4, 0, 1)})
        >>> trace = numpyro.handlers.trace(numpyro.handlers.seed(heavier, 0)).get_trace(0.5)
        >>> type(trace["mu"]["fn"]).__name__
        'StudentT'
    """

    def __init__(self, fn: Callable[..., Any], priors: Mapping[str, Distribution] | JointPrior) -> None:
        check_callable(fn, "fn", "a NumPyro model")
        self.joint = priors if isinstance(priors, JointPrior) else None
        self.priors: dict[str, Distribution] = {}
        if self.joint is None:
            if not isinstance(priors, Mapping) or not priors:
                raise TypeError(f"`priors` must have a distribution for each site by its name, got {describe(priors)}.")
            for name, prior in priors.items():
                if not isinstance(prior, Distribution):
                    raise TypeError(f"`priors[{name!r}]` must be a NumPyro distribution, got {describe(prior)}.")
            self.priors = dict(priors)
        self._names = set(self.priors) if self.joint is None else {name for name, _ in self.joint.sites}
        self._unused: set[str] = set()
        self._parts: dict[str, Array] | None = None
        super().__init__(fn)

    def __enter__(self) -> "replace_priors":
        self._unused, self._parts = set(self._names), None
        super().__enter__()
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        """Leave the model, and refuse names that it does not have."""
        super().__exit__(exc_type, exc_value, traceback)
        if exc_type is None and self._unused:
            raise ValueError(f"`priors` names {sorted(self._unused)}, but `fn` has no latent site of that name.")

    def process_message(self, msg: dict[str, Any]) -> None:
        """Give a latent site its other prior; see NumPyro's `Messenger`."""
        if msg["type"] != "sample" or msg["name"] not in self._names:
            return
        name, own = msg["name"], msg["fn"]
        if msg["is_observed"]:
            raise ValueError(f"`priors` names {name!r}, which is observed: only latent sites have a prior.")
        self._unused.discard(name)
        if self.joint is not None:
            self._take_part(msg, self.joint)
            return
        prior = self.priors[name]
        if 0 < own.event_dim - prior.event_dim <= len(prior.batch_shape):
            prior = prior.to_event(own.event_dim - prior.event_dim)
        if prior.event_shape != own.event_shape or not _broadcasts(prior.batch_shape, own.batch_shape):
            raise ValueError(
                f"`priors[{name!r}]` must have event shape {own.event_shape} and a batch shape that broadcasts to "
                f"{own.batch_shape}, as the model's own, got {prior.event_shape} and {prior.batch_shape}."
            )
        msg["fn"] = prior.expand(own.batch_shape) if prior.batch_shape != own.batch_shape else prior

    def _take_part(self, msg: dict[str, Any], joint: JointPrior) -> None:
        """Make a site the part of the joint draw that it names; the first of them draws it."""
        name, shape = msg["name"], dict(joint.sites)[msg["name"]]
        own = (*msg["fn"].batch_shape, *msg["fn"].event_shape)
        if shape != own:
            raise ValueError(f"`priors` has draws of shape {shape} for {name!r}, but the model's site has shape {own}.")
        if self._parts is None:
            drawn = numpyro.sample(f"joint({','.join(site for site, _ in joint.sites)})", joint)
            self._parts = joint.unpack(cast(Array, drawn))
        value = self._parts[name]
        for key in set(msg) - {"type", "name", "value"}:
            del msg[key]
        msg["type"], msg["value"] = "deterministic", value


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))
