"""`KANTilted`: one-dimensional densities exp(energy) times a reference."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.distributions.batch_util import vmap_over

from ..arguments import check_kind
from ..basis import Basis, BSpline
from ..univariate import UnivariateKAN
from .bank import Bank
from .base import TiltedDistribution
from .fitting import TiltedFit, solve
from .fitting.frame import choose_domain, choose_reference, energy_of
from .fitting.observations import read_observations
from .stacking import aligned_first
from .validation import bank_shape, check_arguments


class KANTilted(TiltedDistribution):
    """The density p(z) = exp(f(z)) pi_0(z) / Z, f a learnt univariate function, pi_0 a reference distribution.

    f is constant outside its domain [a, b], so the density lives on the reference's whole support and its tails are the
    reference's, scaled. Z and the distribution function come from Gauss-Kronrod panels on the domain, draws from the
    inverse of that function (arXiv 2506.14167, sec. 3).

    Args:
        energy: f, a bank of functions.
        reference: pi_0, any univariate continuous NumPyro distribution with a density; its batch shape broadcasts with the
            bank's. The flat reference on the domain is `Uniform(a, b)`.
        validate_args: whether to look at the numbers, as NumPyro does; its default is NumPyro's.

    Raises:
        TypeError: where the energy is not a `UnivariateKAN` or the reference not a NumPyro distribution.
        ValueError: where shapes disagree, an energy is not finite, a grid is not increasing, the reference is
            multivariate, discrete or without a density, or domain and support do not overlap.

    Example:
        >>> import jax, numpyro.distributions as dist, kaem_ppl as kp
        >>> energy = kp.UnivariateKAN.init(jax.random.key(0), (8,), basis=kp.RBF(20), domain=(-3, 3))
        >>> prior = kp.KANTilted(energy, dist.Normal(0, 1))
        >>> prior.sample(jax.random.key(1), (100,)).shape
        (100, 8)
    """

    def __init__(self, energy: UnivariateKAN, reference: Distribution, *, validate_args: bool | None = None) -> None:
        check_values = self._validate_args if validate_args is None else validate_args
        batch_shape = check_arguments(energy, reference, bank_shape(energy), check_values)
        super().__init__(energy, reference, batch_shape, validate_args=validate_args)

    @classmethod
    def fit(
        cls,
        samples: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        basis: Basis = BSpline(3, num_grid=60),  # noqa: B008 - a frozen value
        reference: Distribution | str = "moments",
        support: tuple[float | None, float | None] | None = None,
        domain: tuple[float, float] | None = None,
        smoothing: ArrayLike | str = "cross-validation",
        upper: ArrayLike | None = None,
    ) -> TiltedFit:
        """Fit densities to samples by maximum penalised likelihood, all of a bank side by side.

        Maximises mean log p(x) - smoothing / 2 * variance of f'' over the domain, whose length is taken for 1 (Silverman
        1982; Gu and Qiu 1993; of B-splines the second differences of coefficients, Eilers and Marx 1996). At its smoothest
        the density is the reference times the exponential of a parabola. Of exact samples the objective is concave in
        the coefficients; Newton steps find its maximum, in double precision whatever the default is.

        A mixture (`KANTiltedMixture`) is not fitted: the logarithm of a sum of exponentials is one more energy, so that
        its components have nothing in the data to tell them apart.

        Args:
            samples: shape (n,) + batch_shape, one density for each element of the batch; lower bounds where `upper` is
                given.
            weights: relative weights, at least 0, shape (n,) or that of the samples; standard errors and the choice of
                smoothing take 1 / sum of squared shares for the number of samples.
            basis: of the energies.
            reference: the density that is tilted; "moments" takes the normal of the samples' mean and variance, cut to
                the support.
            support: (low, high) for "moments", None or an infinity for no bound: (0, None) for positive data.
            domain: (a, b), where energies vary, shared by the bank; by default the range of each density's samples and a
                fiftieth more on either side.
            smoothing: "cross-validation" takes, for each density, the candidate whose approximate leave-one-out
                likelihood is largest (Kim and Gu 2004); else positive numbers that broadcast to the batch shape.
            upper: upper bounds of samples known only to lie in [samples, upper], -inf and inf for none on a side; equal
                to the samples where they are exact. Shape as that of the weights. With such intervals the likelihood need
                not be concave, and what is found is a local maximum.

        Returns:
            The density and what is known of it: `.density`, `.band(z)`, `.goodness_of_fit()`.

        Raises:
            TypeError: where an argument is of the wrong kind.
            ValueError: where samples are too few, equal, not finite, traced, or off the support, weights are negative or
                leave fewer than five effective samples, or shapes disagree.

        Example:
            >>> import jax, kaem_ppl as kp
            >>> samples = jax.random.gumbel(jax.random.key(0), (1000,))
            >>> fitted = kp.KANTilted.fit(samples)
            >>> lower, upper = fitted.band(0.0)
            >>> bool(lower < 0.368 < upper)  # the density of a Gumbel variable at 0 is exp(-1)
            True
        """
        check_kind(basis, Basis, "basis", "a basis such as `BSpline(3, num_grid=60)`")
        observations = read_observations(samples, weights, upper)
        chosen = choose_reference(observations, reference, support)
        own_domain = choose_domain(observations, chosen, domain)
        found = solve(observations, basis, chosen, own_domain, smoothing)
        energy = energy_of(basis, own_domain, found.coef.reshape(*observations.batch_shape, -1))
        return TiltedFit(cls(energy, chosen), found, observations)

    @classmethod
    def infer_shapes(
        cls, energy: tuple[int, ...], reference: tuple[int, ...] = ()
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Batch and event shape for a bank and a reference of these shapes."""
        return lax.broadcast_shapes(energy, reference), ()

    @property
    @aligned_first
    def log_normalizer(self) -> Array:
        """log Z, shape `batch_shape`; differentiable."""
        return self._resolve("log_normalizer")[0]

    @property
    @aligned_first
    def log_normalizer_error(self) -> Array:
        """Error estimate of log Z, shape `batch_shape`: the relative error of Z by the embedded Gauss rule."""
        return self._resolve("log_normalizer")[1]

    @aligned_first
    def log_ratio(self, value: Array) -> Array:
        return self.energy(value) - self.log_normalizer

    def _bank(self) -> Bank:
        left, right = (jnp.broadcast_to(self.energy(x), self.batch_shape) for x in self.interval)
        return self._make_bank(self.energy.basis.breakpoints(self.energy.grid), (left, right))

    def _of_components(self, values: Array) -> Array:
        return values.reshape(self.batch_shape)


@vmap_over.register  # pyright: ignore[reportCallIssue, reportArgumentType]: NumPyro's own never returns
def _vmap_over(d: KANTilted, energy: Any = None, reference: Any = None) -> KANTilted:
    return vmap_over.dispatch(Distribution)(d, energy=energy, reference=reference)
