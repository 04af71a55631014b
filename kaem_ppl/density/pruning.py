"""`prune`: a learnt prior with fewer parameters, as few as the evidence of data allows."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..arguments import as_array, as_number, check_kind
from ..distributions import KANTilted, KANTiltedMixture
from ..primitives import learnt_parameters
from ..printing import to_html
from ..univariate import UnivariateKAN

# Quantiles of a density that stand for it while terms are chosen; what is chosen is then held against data.
_NUM_NODES = 256
# Of the mean variance of a term, so that terms that the others can replace have an inverse.
_RIDGE = 1e-6
# Divergences of one density that are tried, in nats, and how often the interval between them is halved.
_KL_TRIED = (1e-6, 10.0)
_NUM_HALVINGS = 12
# A logit so far below the others is a weight of 0.
_DROPPED_LOGIT = -1e4


@dataclass(frozen=True, eq=False, repr=False)
class PrunedPrior:
    """A prior without the terms that do not matter; made by `prune`.

    Attributes:
        prior: of the same family and shape; dropped terms have coefficient 0, dropped components weight 0.
        params: entries of the site `{name}$params` that `kan_prior` registers, of the shapes they had.
        kept: by entry of `params`, True where a number is still a parameter.
        num_parameters: how many there were, and are.
        evidence_loss: mean over data of log p(x) before minus after, in nats.
        std_error: of `evidence_loss`, from the spread of the chains; NaN for one chain.
        max_kl: what each latent's density was allowed to change by, in nats; 0 where nothing was dropped.
    """

    prior: KANTilted | KANTiltedMixture
    params: dict[str, Array]
    kept: dict[str, Array]
    num_parameters: tuple[int, int]
    evidence_loss: float
    std_error: float
    max_kl: float

    @property
    def is_reference(self) -> Array:
        """Latents of which nothing learnt is left: their prior is the reference. Shape batch_shape."""
        learnt = jnp.any(self.kept["coef"], axis=-1) | self.kept["base_weight"]
        return ~(jnp.any(learnt, axis=-1) if "logits" in self.kept else learnt)

    def __repr__(self) -> str:
        before, after = self.num_parameters
        lines = [
            f"PrunedPrior: {after} of {before} parameters, {int(self.is_reference.sum())} of "
            f"{self.is_reference.size} latents at the reference",
            f"  evidence lost {self.evidence_loss:.3g} +- {self.std_error:.2g} nats per datum, "
            f"each density changed by at most {self.max_kl:.2g} nats",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return to_html(repr(self))


def prune(prior: KANTilted | KANTiltedMixture, samples: ArrayLike, *, max_evidence_loss: float = 0.1) -> PrunedPrior:
    """Drop basis functions, components and whole energies of a learnt prior, as many as the data can spare.

    Terms of an energy go one after another, the one whose loss changes the density least first, and those that are left
    take over what they can: the optimal brain surgeon (Hassibi and Stork 1993, eqs. 4 and 5), whose Hessian here is the
    covariance of the terms under the density, exactly that of KL(learnt || pruned). Light components of a mixture go too.
    One number, the divergence that each latent's density may change by, decides how far all of them go. It is the largest
    for which the mean log-evidence falls by at most `max_evidence_loss`: with p' for the pruned prior,
    log p'(x) - log p(x) = log E[prod_q p'(z_q) / p(z_q) | x], an average over posterior draws.

    That average is too low where p' and p differ much, so the loss is rather over- than understated. Only the prior is
    changed: a generator that is trained on may make up for some of the loss.

    Args:
        prior: a learnt prior, as `kan_prior` returns it where its parameters are substituted.
        samples: posterior draws of the latents of N data, best those that were not trained on, shape
            (C, S, N) + batch_shape: what `sample_posterior(..., plate=)` has in `draws.samples`.
        max_evidence_loss: nats per datum, at least 0.

    Returns:
        The pruned prior, its parameters for `params | {"prior$params": pruned.params}`, and what was lost.

    Raises:
        TypeError: where the prior is not a tilted distribution or a mixture of them.
        ValueError: where the samples have another shape or are not finite, or `max_evidence_loss` is no such number.

    Example:
        >>> import jax, numpyro.distributions as dist, kaem_ppl as kp
        >>> energy = kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=kp.RBF(6), domain=(-3, 3))
        >>> prior = kp.KANTilted(energy, dist.Normal(0, 1))
        >>> pruned = kp.prune(prior, prior.sample(jax.random.key(1), (2, 50, 10)))  # of data that say nothing
        >>> pruned.num_parameters[0], pruned.num_parameters[1] < 10
        (24, True)
    """
    check_kind(prior, (KANTilted, KANTiltedMixture), "prior", "a `KANTilted` or a `KANTiltedMixture`")
    max_evidence_loss = as_number(max_evidence_loss, "max_evidence_loss", least=0)
    samples = as_array(samples, "samples", float)
    shape = prior.batch_shape
    if samples.ndim != 3 + len(shape) or samples.shape[3:] != shape or not samples.size:
        raise ValueError(
            f"`samples` must have shape (chains, draws, data) + {shape}, that of the prior, got {samples.shape}."
        )
    if not np.all(np.isfinite(samples)):
        raise ValueError("`samples` must be finite numbers, got some that are not.")
    paths = _paths(prior)
    before = _log_prob(prior, samples)

    def attempt(log_kl: float) -> tuple[PrunedPrior, float]:
        pruned, kept = paths.cut(np.exp(log_kl))
        loss, std_error = _evidence_loss(_log_prob(pruned, samples) - before)
        return paths.describe(pruned, kept, loss, std_error, float(np.exp(log_kl))), loss

    low, high = np.log(_KL_TRIED)
    best, loss = attempt(high)
    if loss <= max_evidence_loss:
        return best
    best = None
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        found, loss = attempt(middle)
        if loss <= max_evidence_loss:
            best, low = found, middle
        else:
            high = middle
    return paths.unchanged() if best is None else best


@jax.jit
def _log_prob(prior: KANTilted | KANTiltedMixture, samples: Array) -> Array:
    """Summed over the latents, shape (C, S, N)."""
    log_prob = jax.lax.map(jax.vmap(prior.log_prob), samples)
    return jnp.sum(log_prob, axis=tuple(range(3, log_prob.ndim)))


def _evidence_loss(log_ratio: Array) -> tuple[float, float]:
    """Mean over data of -log E[ratio], and its standard error from the spread of the chains."""
    ratios = np.asarray(log_ratio, float)
    peak = ratios.max((0, 1))
    by_chain = np.exp(ratios - peak).mean(1)
    mean = by_chain.mean(0)
    loss = -(np.log(mean) + peak).mean()
    if len(by_chain) == 1:
        return float(loss), float("nan")
    # To first order, what a chain's own mean adds to the mean of all.
    own = (by_chain / mean).mean(-1)
    return float(loss), float(own.std(ddof=1) / np.sqrt(len(own)))


@dataclass(frozen=True, eq=False)
class _Paths:
    """What is left of each of M energies after 0, 1, ..., T of its T terms have gone.

    Attributes:
        prior: the prior as it was.
        weights: coefficients of the terms, the activation first, shape (M, T + 1, T).
        kl: divergence from the energy's density as it was, shape (M, T + 1).
    """

    prior: KANTilted | KANTiltedMixture
    weights: np.ndarray
    kl: np.ndarray

    def cut(self, max_kl: float) -> tuple[KANTilted | KANTiltedMixture, dict[str, np.ndarray]]:
        """The prior where each latent's density may change by `max_kl`, and which parameters it keeps."""
        bank = self.prior.energy.batch_shape
        allowed, dropped = np.full(bank, max_kl), np.zeros(bank, bool)
        logits = None
        if isinstance(self.prior, KANTiltedMixture):
            logits = np.broadcast_to(np.asarray(self.prior.logits, float), bank)
            share = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
            # Light components go while what is left has all but 1 - exp(-max_kl) of the mass.
            order = np.argsort(share, axis=-1)
            gone = np.cumsum(np.take_along_axis(share, order, -1), axis=-1) <= -np.expm1(-max_kl)
            gone[..., -1] = False
            np.put_along_axis(dropped, order, gone, -1)
            # A mixture changes by at most the weighted sum of what its components change by.
            allowed = np.where(dropped, np.inf, max_kl / (bank[-1] * np.maximum(share, 1e-12)))
        # KL along the path only grows, but for rounding.
        steps = (np.maximum.accumulate(self.kl, axis=1) <= allowed.reshape(-1, 1)).sum(1) - 1
        weights = self.weights[np.arange(len(steps)), steps]
        kept = {"base_weight": weights[:, 0].reshape(bank) != 0, "coef": weights[:, 1:].reshape(*bank, -1) != 0}
        if logits is not None:
            kept["logits"] = ~dropped
            logits = np.where(dropped, logits.max(-1, keepdims=True) + _DROPPED_LOGIT, logits)
        return self._with(weights, logits), kept

    def _with(self, weights: np.ndarray, logits: np.ndarray | None) -> KANTilted | KANTiltedMixture:
        energy, reference = self.prior.energy, self.prior.reference
        bank, dtype = energy.batch_shape, energy.dtype
        energy = replace(
            energy,
            base_weight=jnp.asarray(weights[:, 0].reshape(bank), dtype),
            coef=jnp.asarray(weights[:, 1:].reshape(*bank, -1), dtype),
            spline_weight=jnp.ones(bank, dtype),
        )
        if logits is None:
            return KANTilted(energy, reference, validate_args=False)
        return KANTiltedMixture(jnp.asarray(logits, dtype), energy, reference, validate_args=False)

    def describe(
        self,
        pruned: KANTilted | KANTiltedMixture,
        kept: dict[str, np.ndarray],
        loss: float,
        std_error: float,
        max_kl: float,
    ) -> PrunedPrior:
        energy = pruned.energy
        params = learnt_parameters(energy)
        if isinstance(pruned, KANTiltedMixture):
            params["logits"] = pruned.logits
        # The weight of the spline part is 1 now, its size that of the coefficients.
        masks = {name: np.ones(np.shape(x), bool) for name, x in params.items()}
        masks |= {"spline_weight": np.zeros(energy.batch_shape, bool)} | kept
        before = sum(x.size for x in params.values())
        after = int(sum(mask.sum() for mask in masks.values()))
        kept_masks = {name: jnp.asarray(mask) for name, mask in masks.items()}
        return PrunedPrior(pruned, params, kept_masks, (before, after), loss, std_error, max_kl)

    def unchanged(self) -> PrunedPrior:
        """Nothing dropped but the weight that the coefficients can carry."""
        logits = np.asarray(self.prior.logits, float) if isinstance(self.prior, KANTiltedMixture) else None
        bank = self.prior.energy.batch_shape
        kept = {name: np.ones(shape, bool) for name, shape in (("base_weight", bank), ("coef", self._coef_shape))}
        if logits is not None:
            logits = np.broadcast_to(logits, bank)
            kept["logits"] = np.ones(bank, bool)
        return self.describe(self._with(self.weights[:, 0], logits), kept, 0.0, 0.0, 0.0)

    @property
    def _coef_shape(self) -> tuple[int, ...]:
        return self.prior.energy.coef.shape


def _paths(prior: KANTilted | KANTiltedMixture) -> _Paths:
    energy = prior.energy
    bank = energy.batch_shape
    quantiles = ((jnp.arange(_NUM_NODES) + 0.5) / _NUM_NODES).reshape(-1, *(1,) * len(bank))
    if isinstance(prior, KANTiltedMixture):
        # Components as the first axis: the reference of a latent is that of all of them.
        single = KANTilted(_components_first(energy), prior.reference, validate_args=False)
        nodes = jnp.moveaxis(single.icdf(quantiles), (0, 1), (-1, -2))
    else:
        nodes = jnp.moveaxis(KANTilted(energy, prior.reference, validate_args=False).icdf(quantiles), 0, -1)
    nodes = np.asarray(jnp.broadcast_to(nodes, (*bank, _NUM_NODES))).reshape(-1, _NUM_NODES)
    weights = np.concatenate(
        [
            np.asarray(energy.base_weight)[..., None],
            np.asarray(energy.spline_weight)[..., None] * np.asarray(energy.coef),
        ],
        axis=-1,
    ).astype(float)
    weights = weights.reshape(-1, weights.shape[-1])
    found = [_eliminate(_terms(energy, index, nodes[index]), own) for index, own in enumerate(weights)]
    return _Paths(prior, np.stack([x for x, _ in found]), np.stack([x for _, x in found]))


def _components_first(energy: UnivariateKAN) -> UnivariateKAN:
    axis = len(energy.batch_shape) - 1
    of_each = {"coef": 1, "base_weight": 0, "spline_weight": 0, "grid": 1, "width": 0, "domain": 1}
    fields = {name: getattr(energy, name) for name in of_each}
    # What the bank shares has no axis of components.
    own = {name: x for name, x in fields.items() if jnp.ndim(x) > of_each[name]}
    return replace(energy, **{name: jnp.moveaxis(x, axis, 0) for name, x in own.items()})


def _terms(energy: UnivariateKAN, index: int, points: np.ndarray) -> np.ndarray:
    """The activation and the basis functions of one energy at points, (number of points, T)."""
    return np.asarray(_evaluate_terms(energy.member(index), jnp.asarray(points)), float)


@jax.jit
def _evaluate_terms(energy: UnivariateKAN, z: Array) -> Array:
    z = jnp.clip(z, energy.domain[0], energy.domain[1])
    return jnp.concatenate([energy.activation(z)[:, None], energy.basis(z, energy.grid, energy.width)], axis=-1)


def _eliminate(terms: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients after each of the T terms has gone, (T + 1, T), and KL of the first density from each, (T + 1,).

    Args:
        terms: at equally likely points of the density, shape (n, T).
        weights: their coefficients, shape (T,).
    """
    number = len(weights)
    # Constants do not change a density.
    centred = terms - terms.mean(0)
    covariance = centred.T @ centred / len(terms)
    ridge = _RIDGE * max(np.trace(covariance) / number, np.finfo(float).tiny)
    inverse = np.linalg.inv(covariance + ridge * np.eye(number))
    left, path, kl = np.ones(number, bool), [weights], [0.0]
    current = weights
    for _ in range(number):
        cost = np.where(left, current**2 / np.maximum(np.diag(inverse), np.finfo(float).tiny), np.inf)
        j = int(np.argmin(cost))
        pivot = inverse[j, j]
        current = current - current[j] / pivot * inverse[:, j]
        inverse = inverse - np.outer(inverse[:, j], inverse[j]) / pivot
        left[j] = False
        current = np.where(left, current, 0.0)
        path.append(current)
        change = centred @ (current - weights)
        peak = change.max()
        kl.append(max(0.0, float(np.log(np.mean(np.exp(change - peak))) + peak - change.mean())))
    return np.stack(path), np.asarray(kl)
