"""What networks and models refuse: generators that are none, inputs of another width, shapes of images, scales."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from kaem_ppl.arguments import as_number, as_shape, describe

from .noise import LearntScale


def check_generator(generator: Any, name: str = "generator") -> None:
    """Refuse what is not a function of a name, or is a class, which lacks its settings.

    Raises:
        TypeError: it is.
    """
    if isinstance(generator, type) or not callable(generator):
        raise TypeError(
            f"`{name}` must be a function of a name that returns a network, such as `MLPGenerator((8, 64))`, got "
            f"{describe(generator)}."
        )


def check_inputs(x: Array, num_inputs: int) -> None:
    """Refuse inputs whose last axis is not that of the network.

    Raises:
        ValueError: it is not.
    """
    if jnp.shape(x)[-1:] != (num_inputs,):
        raise ValueError(f"`x` has shape {jnp.shape(x)}: expected (..., {num_inputs}), the network's inputs.")


def set_image_shape(settings: Any) -> None:
    """Make tuples of the fields `shape` and `channels` of a convolutional network, in place.

    Raises:
        ValueError: they are not (height, width, channels), and one number of channels or more, all positive.
    """
    shape = as_shape(settings.shape, "shape", least=1)
    if len(shape) != 3:
        raise ValueError(f"`shape` must be (height, width, channels), all positive, got {shape}.")
    channels = as_shape(settings.channels, "channels", least=1)
    if not channels:
        raise ValueError("`channels` must hold at least one number of channels, got none.")
    object.__setattr__(settings, "shape", shape)
    object.__setattr__(settings, "channels", channels)


def check_scale(scale: Any) -> None:
    """Refuse a standard deviation that is not positive; a traced one, an array, or a learnt one is taken as it is.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(scale, Array | LearntScale):
        as_number(scale, "scale", above=0)
