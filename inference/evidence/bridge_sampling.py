"""Bridge sampling: the evidence from posterior draws that exist already, by a normal proposal fitted to half of them."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.diagnostics import effective_sample_size

from ..model.coordinates import Coordinates, Unconstrained
from ..model.power_posterior import Position, PowerPosterior
from ..sampling.draws import Draws
from ..sampling.importance.normal_fit import NormalFit, fit_normal
from ..sampling.map_draws import map_draws
from ..sampling.same_posterior import check_same_posterior
from .thermodynamic import std_error_of_mean

# Halvings of the interval that holds the solution; in double precision all of them.
_NUM_BISECTIONS = 100


@dataclass(frozen=True)
class BridgeSampling:
    """The evidence from posterior draws and draws of a proposal that overlaps with them (Meng and Wong 1996).

    Half of the chains, or of a single chain, fit a normal distribution in the sampler's coordinates, the other half and as
    many draws of the normal are bridged; then the halves change roles, and the two estimates are averaged. The bridge
    function is the optimal one, its equation solved by bisection, and the number of posterior draws in it is the
    effective one (Gronau et al. 2017). The standard error is the relative mean-squared error of Frühwirth-Schnatter
    (2004), autocorrelation counted by effective sample sizes.

    The posterior is mirrored: its mean with its mirror image at the proposal's mean has the same evidence, no skewness,
    and so a larger overlap with the normal (Warp-III of Meng and Schilling 2002), at twice the evaluations.

    As many draws of the prior are weighed too: where they find more evidence than the bridge, the chains have missed some.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from kaem_ppl.inference import BridgeSampling, log_evidence, NUTS, sample_posterior
        >>> def model(y):
        ...     z = numpyro.sample("z", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(z, 1), obs=y)
        >>> draws = sample_posterior(
        ...     jax.random.key(0), model, 2.0, sampler=NUTS(), num_samples=500, num_warmup=200, progress_bar=False
        ... )
        >>> evidence = log_evidence(jax.random.key(1), model, 2.0, draws=draws, method=BridgeSampling(), progress_bar=False)
        >>> round(float(evidence.value), 1)  # exactly: -2.27
        -2.3
    """

    coordinates: ClassVar[Coordinates] = Unconstrained()


class Bridge(NamedTuple):
    """What the two halves found, for N data.

    Attributes:
        values: log-evidence by either half, shape (2, N).
        std_errors: of them, shape (2, N).
        effective_sample_size: of the bridge's terms at posterior draws, the smaller of the halves, shape (N,).
    """

    values: np.ndarray
    std_errors: np.ndarray
    effective_sample_size: np.ndarray


def check_draws(draws: Draws, posterior: PowerPosterior) -> None:
    """Refuse draws that are not of this posterior, and too few of them.

    Raises:
        ValueError: they are.
    """
    if draws.num_samples < 8:
        raise ValueError(
            f"`draws` has {draws.num_samples} draws in a chain, too few for bridge sampling. Take at least 8."
        )
    check_same_posterior(draws, posterior)


def run_bridge(key: jax.Array, posterior: PowerPosterior, draws: Draws) -> Bridge:
    """Fit, draw and bridge, with each half of the draws as the one that fits.

    Args:
        key: PRNG key.
        posterior: in the coordinates of the draws.
        draws: of this posterior.
    """
    # Spooled draws are read.
    positions = {name: jnp.asarray(x) for name, x in draws.positions.items()}
    flat = np.asarray(_flatten(positions), float)
    half = draws.num_chains // 2
    # One chain is cut in time.
    halves = (flat[:half], flat[half:]) if half else tuple(np.array_split(flat, 2, axis=1))
    found = []
    for turn, (fitted, bridged) in enumerate((halves, halves[::-1])):
        found.append(_bridge_half(jax.random.fold_in(key, turn), posterior, positions, fitted, bridged))
    values, std_errors, sizes = (np.stack(x) for x in zip(*found, strict=True))
    return Bridge(values, std_errors, sizes.min(0))


def _bridge_half(
    key: jax.Array,
    posterior: PowerPosterior,
    like: Position,
    fitted: np.ndarray,
    bridged: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bridge draws (C, S, N, d) by proposals fitted to others; see `solve_bridge`."""
    num_data, size = fitted.shape[2:]
    fits = [fit_normal(fitted[:, :, n].reshape(-1, size)) for n in range(num_data)]
    number = bridged.shape[0] * bridged.shape[1]
    standard = np.stack([_standard_normal(key, n, number, size) for n in range(num_data)], axis=1)
    ratio = partial(_log_ratio, posterior, like, fits)
    at_draws = np.stack([fits[n].standardize(bridged[:, :, n]) for n in range(num_data)], axis=2)
    at_draws = ratio(at_draws.reshape(number, num_data, size)).reshape(bridged.shape[:3])
    return solve_bridge(at_draws, ratio(standard))


def _standard_normal(key: jax.Array, datum: int, number: int, size: int) -> np.ndarray:
    rng = np.random.default_rng([*np.asarray(jax.random.key_data(key)).ravel().tolist(), datum])
    return rng.standard_normal((number, size))


def _log_ratio(posterior: PowerPosterior, like: Position, fits: list[NormalFit], standard: np.ndarray) -> np.ndarray:
    """Log of unnormalised, mirrored posterior over proposal at standardised points, (M, N, d) to (M, N)."""

    def log_density(standard: np.ndarray) -> np.ndarray:
        points = np.stack([fit.place(standard[:, n]) for n, fit in enumerate(fits)], axis=1)
        return np.asarray(map_draws(_log_density, posterior, _unflatten(like, points)), float)

    value = np.logaddexp(log_density(standard), log_density(-standard)) - np.log(2)
    size = standard.shape[-1]
    log_proposal = -0.5 * np.square(standard).sum(-1) - 0.5 * size * np.log(2 * np.pi)
    value = value + [fit.log_determinant() for fit in fits] - log_proposal
    return np.where(np.isnan(value), -np.inf, value)


def solve_bridge(at_draws: np.ndarray, at_proposals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The evidence r that solves the equation of the optimal bridge (Gronau et al. 2017, eq. 15).

        mean_q[ p / (s1 p + s2 r q) ] = mean_p[ q / (s1 p + s2 r q) ] r,    s1 = n1 / (n1 + n2)

    with p the unnormalised posterior and q the proposal. In log r the left side falls and the right side rises.

    Args:
        at_draws: log p / q at posterior draws, shape (C, S, N).
        at_proposals: the same at draws of the proposal, shape (M, N).

    Returns:
        Log-evidence, its standard error, and the effective number of posterior draws, shape (N,) each.
    """
    number = at_draws.shape[0] * at_draws.shape[1]
    size = _effective_size(at_draws)
    log_odds = np.log(size) - np.log(len(at_proposals))
    finite = [np.where(np.isfinite(x), x, np.nan).reshape(-1, x.shape[-1]) for x in (at_draws, at_proposals)]
    middle = np.concatenate(finite)
    with np.errstate(invalid="ignore"):
        low, high = np.nanmin(middle, axis=0) - 50, np.nanmax(middle, axis=0) + 50
    for _ in range(_NUM_BISECTIONS):
        log_r = 0.5 * (low + high)
        of_proposal = _share(at_proposals - log_r + log_odds).mean(0) / size
        of_draws = _share(log_r - log_odds - at_draws).mean((0, 1)) / len(at_proposals)
        is_low = of_proposal > of_draws
        low, high = np.where(is_low, log_r, low), np.where(is_low, high, log_r)
    of_proposal = _share(at_proposals - log_r + log_odds)
    of_draws = _share(log_r - log_odds - at_draws)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = of_proposal.std(0, ddof=1) / of_proposal.mean(0) / np.sqrt(len(at_proposals))
        std_error = np.hypot(relative, std_error_of_mean(of_draws) / of_draws.mean((0, 1)))
        spread = of_draws.std((0, 1), ddof=1) / std_error_of_mean(of_draws)
    return log_r, std_error, np.where(np.isfinite(spread), np.minimum(np.square(spread), number), number)


def _share(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return np.exp(-np.logaddexp(0.0, -x))


def _effective_size(x: np.ndarray) -> np.ndarray:
    """Of draws (C, S, N), at least 1 and at most as many as they are."""
    number, half = x.shape[0] * x.shape[1], x.shape[1] // 2
    finite = np.where(np.isfinite(x), x, np.finfo(np.float32).min)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = effective_sample_size(np.concatenate([finite[:, :half], finite[:, -half:]]))
    return np.clip(np.where(np.isfinite(size), size, number), 1.0, number)


def _log_density(posterior: PowerPosterior, datum: tuple[jax.Array, ...], position: Position) -> jax.Array:
    target = posterior.target(datum)
    return target.log_prior(position) + target.log_likelihood(position)


@jax.jit
def _flatten(positions: Position) -> jax.Array:
    """Positions (C, S, N, ...) as (C, S, N, d)."""
    over_data = jax.vmap(lambda position: ravel_pytree(position)[0])
    return jax.vmap(jax.vmap(over_data))(positions)


def _unflatten(like: Position, flat: np.ndarray) -> Position:
    """Points (M, N, d) as positions (M, N, ...), like others of (C, S, N, ...)."""
    one = jax.tree.map(lambda x: x[0, 0, 0], like)
    template, unravel = ravel_pytree(one)
    return jax.vmap(jax.vmap(unravel))(jnp.asarray(flat, template.dtype))
