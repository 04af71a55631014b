"""The scale of normal noise around a generator's output: given, or learnt with the other parameters."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpyro
from jax import Array
from numpyro.distributions import constraints

from kaem_ppl.arguments import as_shape, set_number


@dataclass(frozen=True)
class LearntScale:
    """A standard deviation that is a parameter, the site `scale`.

    Maximum likelihood over a continuous latent drives a scale towards 0 where the generator can repeat the data, so it is
    bounded below.

    Attributes:
        first: the value that training begins with.
        shape: () for one, (channels,) for one for each channel of images (..., height, width, channels).
        least: the bound.

    Example:
        >>> from kaem_ppl.models import KANGenerator, LearntScale, ProductKAEM
        >>> import kaem_ppl as kp, numpyro.distributions as dist
        >>> model = ProductKAEM((4, 1), KANGenerator((4, 64)), kp.RBF(8), (-3, 3), dist.Normal(0, 1), LearntScale(0.2))
    """

    first: float = 0.2
    shape: tuple[int, ...] = ()
    least: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_shape(self.shape, "shape", least=1))
        set_number(self, "least", above=0)
        set_number(self, "first", above=self.least)

    def register(self) -> Array:
        """The site's value, of `shape`."""
        first = jnp.full(self.shape, self.first)
        value = numpyro.param("scale", first, constraint=constraints.greater_than(self.least))
        assert value is not None, "`numpyro.param` has a first value"
        return jnp.asarray(value)
