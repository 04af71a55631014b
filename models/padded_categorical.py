"""A categorical distribution over tokens that ignores padding."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample
from numpyro.util import is_prng_key


class PaddedCategorical(dist.Distribution):
    """Tokens by their logits; the padding token is never drawn, and observing it has log-probability 0.

    The mask of a padded sequence is part of the likelihood, because it is a function of the value alone:

        log p(x) = 0 for padding,    log softmax(logits without padding)_x otherwise

    Given which positions are padded, this is the categorical distribution over all other tokens.

    Args:
        logits: shape (..., vocabulary).
        padding: the token that pads.
        validate_args: whether to check arguments and values, as everywhere in NumPyro.

    Raises:
        ValueError: there are fewer than two tokens, or `padding` is not one of them.

    Example:
        >>> import jax.numpy as jnp
        >>> from kaem_ppl.models import PaddedCategorical
        >>> tokens = PaddedCategorical(jnp.zeros((3, 5)))  # three places, token 0 is padding
        >>> tokens.log_prob(jnp.array([1, 2, 0]))
        Array([-1.3862944, -1.3862944,  0.       ], dtype=float32)
    """

    arg_constraints = {"log_probs": constraints.real_vector}
    pytree_data_fields = ("log_probs",)
    pytree_aux_fields = ("padding",)

    def __init__(self, logits: ArrayLike, padding: int = 0, *, validate_args: bool | None = None) -> None:
        if jnp.ndim(logits) < 1 or jnp.shape(logits)[-1] < 2:
            raise ValueError(
                f"`logits` has shape {jnp.shape(logits)}: expected at least two tokens along the last axis."
            )
        num_tokens = jnp.shape(logits)[-1]
        if not 0 <= padding < num_tokens:
            raise ValueError(f"`padding` is {padding}: expected a token, 0 to {num_tokens - 1}.")
        is_padding = jnp.arange(num_tokens) == padding
        log_probs = jax.nn.log_softmax(jnp.where(is_padding, -jnp.inf, logits))
        self.log_probs = jnp.where(is_padding, 0, log_probs)
        self.padding = padding
        super().__init__(jnp.shape(logits)[:-1], (), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)  # pyright: ignore[reportArgumentType]
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.log_probs.shape[-1] - 1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        assert is_prng_key(key)
        logits = jnp.where(jnp.arange(self.log_probs.shape[-1]) == self.padding, -jnp.inf, self.log_probs)
        return jax.random.categorical(key, logits, shape=(*sample_shape, *self.batch_shape))

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        shape = jnp.broadcast_shapes(jnp.shape(value), self.batch_shape)
        log_probs = jnp.broadcast_to(self.log_probs, (*shape, self.log_probs.shape[-1]))
        return jnp.take_along_axis(log_probs, jnp.broadcast_to(value, shape)[..., None], -1)[..., 0]
