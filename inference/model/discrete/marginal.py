"""Discrete latents summed out: the marginal log-density, exact draws of them, and their log-densities at given values."""

from collections import defaultdict
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp

from .chains import chain_factors
from .elimination import Factor, make_keys, product_over, sum_out
from .evaluation import Enumerated, ScanInfo, Series, Value
from .program import Tables
from .support import DiscreteSite, Plates, Variable

# Of each variable, weights of its states: (num_states, *plate_shape); inside a scan, steps behind its head are one array
# with time in front, under the number of the first.
type States = dict[Variable, jax.Array]


def marginal_factors(
    tables: Tables,
    names: Collection[str],
    observed: Collection[str],
    plate: str | None,
    key: jax.Array | None = None,
    taps: States | None = None,
) -> list[Factor]:
    """Sum the discrete latents out of the product of some sites' densities.

    Args:
        tables: log-densities of the sites.
        names: of the sites to multiply.
        observed: names of the observed sites.
        plate: name of the plate that holds the data, whose axis stays.
        key: where given, derivatives draw states; see `elimination.logsumexp`.
        taps: added to the log-density of each variable.

    Returns:
        Factors without a variable, not yet multiplied along their plates.

    Raises:
        ValueError: they can't be summed out; the message names the sites.
    """
    factors, chains = _split(tables, names, observed, plate)
    plates_of = _plates_of(tables, factors, chains, plate)
    num_batch = max((x.table.ndim - len(x.variables) for x in factors), default=0)
    num_batch = max([num_batch, *(x.table.ndim - 1 - len(x.variables) for xs in chains.values() for x in xs)])
    for v, tap in (taps or {}).items():
        (chains[_chain_of(v, chains)] if _is_rolled(v, chains) else factors).append(Factor((v,), plates_of[v], tap))
    factors = [_pad(x, num_batch, len(x.variables)) for x in factors]
    keys = None if key is None else make_keys(key)
    for scan, parts in chains.items():
        rolled = [_pad(x, num_batch, 1 + len(x.variables)) for x in parts]
        factors += chain_factors(rolled, scan, plates_of, None if keys is None else next(keys))
    return sum_out(factors, plates_of, keys=keys)


def marginal(
    tables: Tables, names: Collection[str], plate: str | None, key: jax.Array | None = None, taps: States | None = None
) -> jax.Array:
    """The marginal log-density of some sites; of each row of the plate, (rows,), or a number without one.

    Args: as `marginal_factors`.
    """
    total = jnp.zeros(())
    for factor in marginal_factors(tables, names, (), plate, key, taps):
        table = product_over(factor, factor.plates).table
        total = total + (table.sum() if plate is None else table.reshape(-1))
    return total


def draw_states(tables: Tables, names: Collection[str], plate: str | None, key: jax.Array) -> dict[str, jax.Array]:
    """Draw the discrete latents from their joint law given all that is known.

    Args: as `marginal_factors`; `names` are those of all sites.

    Returns:
        Values by name of the site, time in front inside a `scan`.
    """
    taps = _zeros(tables, names, plate)
    weights = jax.grad(lambda taps: marginal(tables, names, plate, key, taps).sum())(taps)
    return {name: _assemble(tables, site, weights) for name, site in tables.sites.items()}


def look_up(tables: Tables, name: str, values: Mapping[str, jax.Array], plate: str | None) -> jax.Array:
    """The log-density of a site at values of the discrete latents, summed; as the tables have it."""
    factors, chains = _split(tables, [name], (), plate)
    states = {name: site.state_of(_forward(tables, name, values[name])) for name, site in tables.sites.items()}
    total = jnp.zeros(())
    for factor in factors:
        total += _select(
            factor, {v: states[v.site][v.step] if v.step >= 0 else states[v.site] for v in factor.variables}
        )
    for scan, parts in chains.items():
        for factor in parts:
            steps = {v: _steps(states[v.site], v, scan) for v in factor.variables}
            total += jax.vmap(lambda table, now, factor=factor: _select(factor._replace(table=table), now))(
                factor.table, steps
            ).sum()
    return total


def _split(
    tables: Tables, names: Collection[str], observed: Collection[str], plate: str | None
) -> tuple[list[Factor], dict[ScanInfo, list[Factor]]]:
    """Factors outside of scans and of their heads; and by scan those behind the head, time in front."""
    factors: list[Factor] = []
    chains: dict[ScanInfo, list[Factor]] = defaultdict(list)
    for name in names:
        value = tables.values[name]
        sites = frozenset({name} & set(observed))
        make = _FactorMaker(tables, name, sites, plate)
        if isinstance(value, Series):
            factors += [make(x) for x in value.head]
            if value.rolled is not None:
                chains[value.scan].append(make(value.rolled, time=1))
        else:
            factors.append(make(value))
    return factors, chains


class _FactorMaker:
    """Makes factors of a site, whose axes outside of plates are summed over."""

    def __init__(self, tables: Tables, name: str, sites: frozenset[str], plate: str | None) -> None:
        self.tables, self.name, self.sites = tables, name, sites
        self.around = tables.plates[name]
        self.plates = _without(self.around, plate)

    def __call__(self, value: Value, time: int = 0) -> Factor:
        assert isinstance(value, Enumerated), "series are split"
        for v in value.variables:
            missing = sorted(plate for plate, _ in self.tables.sites[v.site].plates - self.around)
            if missing:
                raise ValueError(
                    f"Site {self.name!r} stands outside of plate {missing[0]!r} and depends on the discrete latent site "
                    f"{v.site!r} inside it, whose elements then can't be summed out one by one. Move {self.name!r} into "
                    f"the plate, or {v.site!r} out of it."
                )
        lead = time + len(value.variables)
        array = jnp.asarray(value.array)
        kept = {array.ndim + dim for _, dim in self.around}
        summed = [axis for axis in range(lead, array.ndim) if axis not in kept]
        return Factor(value.variables, self.plates, array.sum(summed, keepdims=True), self.sites)


def _plates_of(
    tables: Tables, factors: list[Factor], chains: Mapping[ScanInfo, list[Factor]], plate: str | None
) -> dict[Variable, Plates]:
    variables = {v for x in [*factors, *(x for parts in chains.values() for x in parts)] for v in x.variables}
    # What a step calls those of steps before is one more for the next.
    variables |= {v._replace(step=step) for v in variables if v.step >= 0 for step in range(v.step + 2)}
    return {v: _without(tables.sites[v.site].plates, plate) for v in variables}


def _without(plates: Plates, plate: str | None) -> Plates:
    return frozenset((name, dim) for name, dim in plates if name != plate)


def _pad(factor: Factor, num_batch: int, lead: int) -> Factor:
    """The same factor with a common number of batch axes."""
    shape = factor.table.shape
    table = factor.table.reshape(shape[:lead] + (1,) * (num_batch - len(shape) + lead) + shape[lead:])
    return factor._replace(table=table)


def _is_rolled(v: Variable, chains: Mapping[ScanInfo, list[Factor]]) -> bool:
    return any(v.site in scan.sites and v.step == scan.start for scan in chains)


def _chain_of(v: Variable, chains: Mapping[ScanInfo, list[Factor]]) -> ScanInfo:
    return next(scan for scan in chains if v.site in scan.sites)


def _zeros(tables: Tables, names: Collection[str], plate: str | None) -> States:
    """For each variable, a zero for each state, in one array for the steps behind the head of a scan."""
    factors, chains = _split(tables, names, (), plate)
    dtype = jnp.result_type(float)
    shapes = {name: (site.num_states, *site.plate_shape) for name, site in tables.sites.items()}
    taps = {v: jnp.zeros(shapes[v.site], dtype) for x in factors for v in x.variables}
    for scan, parts in chains.items():
        names_inside = {v.site for x in parts for v in x.variables if v.site in scan.sites and v.step == scan.start}
        for name in names_inside:
            taps[Variable(name, scan.start)] = jnp.zeros((scan.length - scan.start, *shapes[name]), dtype)
    return taps


def _assemble(tables: Tables, site: DiscreteSite, weights: States) -> jax.Array:
    """The value that weights of 0 and 1 mark."""
    if site.name not in tables.scans:
        return site.value_of(weights[Variable(site.name)])
    steps = sorted(v for v in weights if v.site == site.name)
    num_axes = 1 + site.num_batch
    parts = [weights[v][None] if weights[v].ndim == num_axes else weights[v] for v in steps]
    return _forward(tables, site.name, site.value_of(jnp.concatenate(parts)))


def _forward(tables: Tables, name: str, value: jax.Array) -> jax.Array:
    """Values in the order in which a scan runs, from those in the order of its data, or back."""
    return jnp.flip(value, 0) if tables.scans.get(name, (0, False))[1] else value


def _steps(states: jax.Array, v: Variable, scan: ScanInfo) -> jax.Array:
    """States of a variable at each step behind the head; those of one outside the scan again and again."""
    count = scan.length - scan.start
    if v.site not in scan.sites:
        return jnp.broadcast_to(states, (count, *states.shape))
    return states[v.step : v.step + count]


def _select(factor: Factor, states: Mapping[Variable, jax.Array]) -> jax.Array:
    """The sum of a factor's table at states of its variables, which have the shapes of their plates."""
    table, num = factor.table, len(factor.variables)
    batch = table.shape[num:]
    for v in factor.variables:
        state = states[v].reshape((1,) * (len(batch) - states[v].ndim) + states[v].shape)
        index = jnp.broadcast_to(state, batch).reshape((1,) * (table.ndim - len(batch)) + batch)
        index = jnp.broadcast_to(index, (1, *table.shape[1:]))
        table = jnp.take_along_axis(table, index, axis=0)[0]
    return table.sum()
