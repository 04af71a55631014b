"""Posterior draws as the tree of groups that ArviZ reads."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from kaem_ppl.arguments import check_kind

from ..model.arguments import argument_names, is_array
from ..model.power_posterior import PowerPosterior
from ..model.sites import Site

if TYPE_CHECKING:
    import xarray

    from .draws import Draws

type Names = Mapping[str, Sequence[str]]


def convert(
    draws: "Draws",
    *,
    prior: bool,
    posterior_predictive: bool,
    deterministics: bool,
    dims: Names | None,
    coords: Mapping[str, Any] | None,
) -> "xarray.DataTree":
    """What `Draws.to_arviz` does."""
    import xarray

    posterior = draws.posterior
    latents = posterior.latents + (posterior.deterministics if deterministics else ())
    values = {**draws.samples, **(draws.deterministics if deterministics and posterior.deterministics else {})}
    observed = posterior.observations()
    naming = _Naming(draws, values, dims, coords)
    factors = set(draws.log_likelihood) - set(observed)
    pointwise = {k: v for k, v in draws.log_likelihood.items() if k not in factors} or draws.log_likelihood
    of_sites = naming.site_dims(posterior.observed)
    # With a plate there is one number for each datum.
    of_densities = (lambda sites: {}) if draws.plate is not None else naming.site_dims
    groups = {
        "posterior": naming.dataset(values, naming.site_dims(latents)),
        "sample_stats": naming.dataset(draws.sample_stats, draws.dims),
        "log_likelihood": naming.dataset(pointwise, of_densities(posterior.observed), of_events=False),
        "log_prior": naming.dataset(draws.log_prior, of_densities(posterior.latents), of_events=False),
        "observed_data": naming.dataset(observed, of_sites, ()),
        "run_summary": naming.dataset(draws.summary, draws.dims, ("chain",)),
    }
    constants, of_rows = _constants(posterior, observed)
    if constants:
        groups["constant_data"] = naming.dataset(constants, {}, (), has_plate=of_rows)
    if posterior_predictive:
        new = draws.predict(jax.random.fold_in(draws.key, 1))
        groups["posterior_predictive"] = naming.dataset(new, of_sites)
    if prior:
        latent_draws, new = draws.draw_prior()
        groups["prior"] = naming.dataset(latent_draws, naming.site_dims(posterior.latents))
        groups["prior_predictive"] = naming.dataset(new, of_sites)
    attributes = {
        "inference_library": "kaem_ppl",
        "sampler": repr(draws.sampler),
        "sampling_time": draws.seconds,
    }
    for group in ("posterior", "sample_stats"):
        groups[group].attrs.update(attributes)
    return xarray.DataTree.from_dict(groups)


class _Naming:
    """Names of variables and of their axes, and the coordinates of these."""

    def __init__(
        self, draws: "Draws", values: Mapping[str, Any], dims: Names | None, coords: Mapping[str, Any] | None
    ) -> None:
        posterior = draws.posterior
        self.given = dict(dims or {})
        check_kind(dims or {}, Mapping, "dims", "a dictionary of names of axes by name of a site")
        check_kind(coords or {}, Mapping, "coords", "a dictionary of labels by name of an axis")
        variables = {*values, *(site.name for site in posterior.observed)}
        self.taken = {_plain(x) for x in (*variables, *draws.sample_stats, *draws.summary)}
        self.data_dim = [] if draws.plate is None else [self.dim_of(draws.plate)]
        self.coords: dict[str, Any] = {self.data_dim[0]: np.arange(posterior.num_data)} if self.data_dim else {}
        unknown = sorted(set(self.given) - variables)
        if unknown:
            raise ValueError(f"`dims` names {unknown}, but the sites are {sorted(variables)}.")
        self.asked = {name: np.asarray(labels) for name, labels in (coords or {}).items()}
        shapes = {name: np.shape(x)[2:] for name, x in values.items()}
        shapes |= {name: x.shape for name, x in posterior.observations().items()}
        self._check(
            shapes, {site.name: site for site in (*posterior.latents, *posterior.deterministics, *posterior.observed)}
        )

    def _check(self, shapes: Mapping[str, tuple[int, ...]], sites: Mapping[str, Site]) -> None:
        """Refuse names that do not fit the shapes, and labels of axes that do not exist or have another length."""
        sizes: dict[str, int] = {}
        for name, shape in shapes.items():
            names = self._fill(name, [*self.data_dim, *self.site_dims([sites[name]])[name]], len(shape))
            sizes |= dict(zip(names, shape, strict=True))
        for name, labels in self.asked.items():
            if name not in sizes:
                raise ValueError(f"`coords` names the axis {name!r}, but the axes are {sorted(sizes)}.")
            if labels.shape != (sizes[name],):
                raise ValueError(f"`coords[{name!r}]` must have {sizes[name]} labels, got {labels.shape}.")
        self.coords |= self.asked

    def dim_of(self, plate: str) -> str:
        """Name of a plate's axis."""
        plate = _plain(plate)
        # A dimension with the name of a variable would be taken for its coordinates.
        return f"{plate}_plate" if plate in self.taken else plate

    def site_dims(self, sites: Iterable[Site]) -> dict[str, list[str | None]]:
        """By name of the site, names of its axes after the data's."""
        return {site.name: [dim and self.dim_of(dim) for dim in site.dims] for site in sites}

    def dataset(
        self,
        variables: Mapping[str, Any],
        dims: Mapping[str, Sequence[str | None]],
        sample_dims: tuple[str, ...] = ("chain", "draw"),
        *,
        of_events: bool = True,
        has_plate: Mapping[str, bool] | None = None,
    ) -> "xarray.Dataset":
        """Variables of a group; those without elements are left out, for ArviZ can't read them.

        Args:
            variables: arrays by name.
            dims: names of their axes after those of samples and data.
            sample_dims: names of their first axes.
            of_events: whether names that were given apply; densities have no axes of events.
            has_plate: by name, whether there is an axis of data; None where all have one.
        """
        from arviz_base import dict_to_dataset

        arrays = {name: np.asarray(value) for name, value in variables.items() if np.size(value)}
        filled: dict[Hashable, Sequence[Hashable]] = {}
        for name, x in arrays.items():
            data_dim = self.data_dim if has_plate is None or has_plate[name] else []
            known = [*data_dim, *dims.get(name, [])]
            filled[_plain(name)] = self._fill(name, known, x.ndim - len(sample_dims), of_events)
        kept: dict[Any, Any] = {
            dim: values for dim, values in self.coords.items() if any(dim in d for d in filled.values())
        }
        named = {_plain(name): x for name, x in arrays.items()}
        return dict_to_dataset(named, dims=filled, coords=kept, sample_dims=list(sample_dims))

    def _fill(self, name: str, known: Sequence[str | None], num_axes: int, of_events: bool = True) -> list[str]:
        """Names for all axes: those given for the last ones, those of plates, and numbers."""
        names = [*known[:num_axes], *(None for _ in range(num_axes - len(known)))]
        filled = [dim or f"{_plain(name)}_dim_{axis}" for axis, dim in enumerate(names)]
        given = self.given.get(name, ())
        if not of_events:
            # Plates come first among the axes of a site; only those of a density are named by them.
            return filled
        if isinstance(given, str) or len(given) > num_axes:
            raise ValueError(f"`dims[{name!r}]` must name at most {num_axes} axes, the last ones, got {given!r}.")
        return [*filled[: num_axes - len(given)], *given]


def _plain(name: str) -> str:
    """A name without the slash of `numpyro.handlers.scope`, which divides groups in a tree and in a file."""
    return name.replace("/", ".")


def _constants(posterior: PowerPosterior, observed: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, bool]]:
    """Arrays among the model's arguments other than what is observed, and whether each has a row for each datum."""
    rows, shared = iter(posterior.rows), iter(posterior.shared)
    seen = [np.asarray(x) for x in observed.values()]
    constants, of_rows = {}, {}
    names = argument_names(posterior.layout, posterior.model.function)
    for name, (kind, fixed) in zip(names, posterior.layout.leaves, strict=True):
        value = fixed.value if fixed is not None else next(rows if kind == "row" else shared)
        if not is_array(value) or not np.size(value) or jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            continue
        array = np.asarray(value)
        if any(x.shape == array.shape and np.array_equal(x, array, equal_nan=True) for x in seen):
            continue
        name = name.strip("`")
        constants[name], of_rows[name] = array, kind == "row"
    return constants, of_rows
