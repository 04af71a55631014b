"""Proposals for importance sampling: a Student mixture fitted to posterior draws, and any NumPyro guide."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from kaem_ppl.compilation import jit_outermost

from ...model.coordinates import Coordinates, Direction, Unconstrained, to_support
from ...model.handlers import run_model
from ...model.power_posterior import Position, PowerPosterior
from ..draws import Draws
from ..same_posterior import check_same_posterior
from .normal_fit import fit_normal

# Of the Student distributions: their tails are heavier than those of most posteriors.
_DEGREES_OF_FREEDOM = 5.0


class Proposal(ABC):
    """A distribution of positions, for each datum, that importance sampling draws from in place of the prior.

    Attributes:
        coordinates: what positions are written in.

    Example:
        >>> from kaem_ppl.inference import Proposal, StudentProposal
        >>> issubclass(StudentProposal, Proposal)
        True
    """

    coordinates: Coordinates = Unconstrained()

    @abstractmethod
    def check(self, posterior: PowerPosterior) -> None:
        """Refuse a posterior that this is no proposal for.

        Raises:
            ValueError: it is none.
        """

    @abstractmethod
    def parameters(self) -> Any:
        """What `draw` needs to know, pytree of arrays (N, ...)."""

    @abstractmethod
    def draw(
        self, parameters: Any, key: jax.Array, posterior: PowerPosterior, datum: tuple[jax.Array, ...]
    ) -> tuple[Position, jax.Array]:
        """A position, and the log-density of the proposal there; `parameters` are those of the datum, (...)."""


class StudentProposal(Proposal):
    """A mixture of multivariate Student distributions, one fitted to each chain of posterior draws, in equal parts.

    Chains that sit in modes of their own get a component each. Five degrees of freedom make the tails heavier than those
    of most posteriors, as a proposal's should be; draws need not be many, nor exact, for weights make up for it.

    Args:
        draws: of `sample_posterior`, by any sampler, at least 10 in each chain.

    Raises:
        TypeError: `draws` did not come from `sample_posterior`.
        ValueError: there are fewer draws.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import ImportanceSampling, log_evidence, NUTS, sample_posterior, StudentProposal
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> draws = sample_posterior(
        ...     jax.random.key(0), model, 2.0, sampler=NUTS(), num_samples=200, num_warmup=200, progress_bar=False
        ... )
        >>> method = ImportanceSampling(1000, proposal=StudentProposal(draws))
        >>> evidence = log_evidence(jax.random.key(1), model, 2.0, method=method, progress_bar=False)
        >>> round(float(evidence.value), 1)  # exactly: -2.27
        -2.3
    """

    def __init__(self, draws: Draws) -> None:
        if not isinstance(draws, Draws):
            raise TypeError(f"`draws` must be what `sample_posterior` returned, got {type(draws).__name__}.")
        if draws.num_samples < 10:
            raise ValueError(f"`draws` has {draws.num_samples} draws in a chain; a fit takes at least 10.")
        self.draws = draws
        self.coordinates = draws.posterior.coordinates
        # Spooled draws are read.
        positions = {name: jnp.asarray(x) for name, x in draws.positions.items()}
        flat = np.asarray(_flatten(positions), float)
        fits = [[fit_normal(flat[c, :, n]) for c in range(flat.shape[0])] for n in range(flat.shape[2])]
        dtype = jax.tree.leaves(positions)[0].dtype
        self._means = jnp.asarray([[fit.mean for fit in of_datum] for of_datum in fits], dtype)
        self._factors = jnp.asarray([[fit.factor for fit in of_datum] for of_datum in fits], dtype)

    def __repr__(self) -> str:
        # A checkpoint tells calls apart by how their arguments print.
        fit = zlib.crc32(np.asarray(self._means).tobytes() + np.asarray(self._factors).tobytes())
        return f"StudentProposal(draws by {self.draws.sampler!r}, fit {fit:08x})"

    # Programs depend on parameters, which are arguments: one serves all fits.
    def __hash__(self) -> int:
        return hash(type(self))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def check(self, posterior: PowerPosterior) -> None:
        """See `Proposal`."""
        check_same_posterior(self.draws, posterior)

    def parameters(self) -> tuple[jax.Array, jax.Array]:
        """Means and Cholesky factors of the components, (N, C, d) and (N, C, d, d)."""
        return self._means, self._factors

    def draw(
        self,
        parameters: tuple[jax.Array, jax.Array],
        key: jax.Array,
        posterior: PowerPosterior,
        datum: tuple[jax.Array, ...],
    ) -> tuple[Position, jax.Array]:
        """See `Proposal`."""
        means, factors = parameters
        like = {name: jnp.zeros(x.shape[3:], x.dtype) for name, x in self.draws.positions.items()}
        _, unravel = ravel_pytree(like)
        choose_key, draw_key = jax.random.split(key)
        chosen = jax.random.randint(choose_key, (), 0, len(means))
        one = dist.MultivariateStudentT(_DEGREES_OF_FREEDOM, means[chosen], factors[chosen])
        position = unravel(one.sample(draw_key))
        return position, self.log_density(parameters, position)

    def log_density(self, parameters: tuple[jax.Array, jax.Array], position: Position) -> jax.Array:
        """At a position, scalar."""
        means, factors = parameters
        components = dist.MultivariateStudentT(_DEGREES_OF_FREEDOM, means, factors)
        flat = ravel_pytree(position)[0]
        return jax.nn.logsumexp(jnp.asarray(components.log_prob(flat))) - jnp.log(len(means))


class GuideProposal(Proposal):
    """A NumPyro guide, such as an `AutoGuide` fitted by `SVI`, of a model without a plate of separate problems.

    Args:
        guide: called with the model's arguments; it samples the model's latents.
        params: constrained values of its parameters, as `svi.get_params(state)` returns them.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import GuideProposal, ImportanceSampling, log_evidence
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> def guide(y):
        ...     numpyro.sample("z", dist.Normal(y / 2, 1))
        >>> method = ImportanceSampling(1000, proposal=GuideProposal(guide, {}))
        >>> evidence = log_evidence(jax.random.key(0), model, 2.0, method=method, progress_bar=False)
        >>> round(float(evidence.value), 1)  # exactly: -2.27
        -2.3
    """

    def __init__(self, guide: Callable, params: Mapping[str, Any]) -> None:
        self.guide, self.params = guide, dict(params)

    def __repr__(self) -> str:
        return f"GuideProposal({type(self.guide).__name__})"

    def __hash__(self) -> int:
        return hash((type(self), id(self.guide)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GuideProposal) and other.guide is self.guide

    def check(self, posterior: PowerPosterior) -> None:
        """See `Proposal`."""
        if posterior.plate is not None:
            raise ValueError(
                f"A guide is of the whole model, but `plate` is {posterior.plate!r}, whose data are problems of their own. "
                "Leave `plate` out, or take `StudentProposal(draws)`."
            )
        trace = jax.eval_shape(lambda key: self._values(self.params, key, posterior, ())[0], jax.random.key(0))
        missing = [site.name for site in posterior.latents if site.name not in trace]
        if missing:
            raise ValueError(
                f"The guide does not sample the model's {missing}. Give one that samples every latent site."
            )

    def parameters(self) -> dict[str, Any]:
        """Those of the guide, with an axis for the one datum."""
        return jax.tree.map(lambda x: jnp.asarray(x)[None], self.params)

    def draw(
        self, parameters: dict[str, Any], key: jax.Array, posterior: PowerPosterior, datum: tuple[jax.Array, ...]
    ) -> tuple[Position, jax.Array]:
        """See `Proposal`."""
        values, log_density = self._values(parameters, key, posterior, datum)
        args, kwargs = posterior.layout.arguments([row[None] for row in datum], posterior.shared)
        sites = run_model(posterior.model.function, args, kwargs, {**posterior.params, **values})
        position = {}
        for site in posterior.latents:
            value = values[site.name]
            transform = Direction() if site.is_circular else to_support(sites[site.name]["fn"].support)
            position[site.name] = transform.inv(value)
            # From the value's density to the coordinate's.
            log_density += jnp.sum(transform.log_abs_det_jacobian(position[site.name], value))
        return position, log_density

    def _values(
        self, params: dict[str, Any], key: jax.Array, posterior: PowerPosterior, datum: tuple[jax.Array, ...]
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        args, kwargs = posterior.layout.arguments([row[None] for row in datum], posterior.shared)
        trace = run_model(self.guide, args, kwargs, params, (), key)
        sites = [site for site in trace.values() if site["type"] == "sample" and not site["is_observed"]]
        log_density = sum(jnp.sum(site["fn"].log_prob(site["value"])) for site in sites)
        return {site["name"]: site["value"] for site in sites}, jnp.asarray(log_density)


@partial(jit_outermost, static_argnums=(0, 1))
def draw_proposals(
    proposal: Proposal, num_draws: int, parameters: Any, posterior: PowerPosterior, keys: jax.Array, start: jax.Array
) -> tuple[Position, jax.Array, jax.Array, jax.Array]:
    """Draws numbered from `start`: positions, log-prior, log-likelihood and log-weight, (C, N, draws, ...); keys (C, N)."""

    def draw(
        key: jax.Array, datum: tuple[jax.Array, ...], parameters: Any
    ) -> tuple[Position, jax.Array, jax.Array, jax.Array]:
        target = posterior.target(datum)

        def one(number: jax.Array) -> tuple[Position, jax.Array, jax.Array, jax.Array]:
            position, log_density = proposal.draw(parameters, jax.random.fold_in(key, number), posterior, datum)
            log_prior, log_likelihood = target.log_prior(position), target.log_likelihood(position)
            return position, log_prior, log_likelihood, log_prior + log_likelihood - log_density

        return jax.vmap(one)(start + jnp.arange(num_draws))

    over_data = jax.vmap(draw)
    return jax.vmap(over_data, in_axes=(0, None, None))(keys, posterior.rows, parameters)


@jax.jit
def _flatten(positions: Position) -> jax.Array:
    """Positions (C, S, N, ...) as (C, S, N, d)."""
    over_data = jax.vmap(lambda position: ravel_pytree(position)[0])
    return jax.vmap(jax.vmap(over_data))(positions)
