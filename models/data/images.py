"""Preprocessing of images: grey levels in [0, 1], resizing, conversion of colours to grey."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

# Bytes of one image after another are resized as floats; this many numbers at once.
_CHUNK_ELEMENTS = 2**24
# ITU-R Recommendation BT.601, the luma of red, green and blue.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def to_unit_interval(images: ArrayLike) -> Array:
    """Grey levels in [0, 1], float32, on the device: bytes divided by 255, floats as they are.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import to_unit_interval
        >>> to_unit_interval(np.array([0, 255], np.uint8))
        Array([0., 1.], dtype=float32)
    """
    images = jnp.asarray(images)
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)


@dataclass(frozen=True, eq=False)
class ImageModel:
    """Wraps a model of grey levels so that it takes images as they are stored: bytes, a quarter of the memory.

    Attributes:
        model: of grey levels in [0, 1].
        is_flat: whether it takes images as vectors of pixels.

    Example:
        >>> import jax, numpy as np
        >>> from numpyro.infer import Predictive
        >>> from kaem_ppl.models import GaussianModel, ImageModel, MLPGenerator
        >>> model = ImageModel(GaussianModel(2, MLPGenerator((2, 16, 64)), 0.1), is_flat=True)
        >>> images = np.zeros((5, 8, 8, 1), np.uint8)
        >>> Predictive(model, num_samples=1)(jax.random.key(0), images)["x"].shape
        (1, 5, 64)
    """

    model: Callable
    is_flat: bool

    def __call__(self, x: Array | None = None, size: int | None = None) -> Array:
        """Condition on images (num_data, height, width, channels), or generate `size` of them."""
        if x is None:
            return self.model(size=size)
        levels = to_unit_interval(x)
        return self.model(levels.reshape(len(levels), -1) if self.is_flat else levels)


def resize_images(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Another height and width by linear interpolation, with a triangle filter as wide as a new pixel where it shrinks.

    Args:
        images: shape (num_images, height, width, channels), bytes or floats.
        size: new height and width, in pixels.

    Returns:
        Images of the same dtype; bytes are rounded.

    Raises:
        ValueError: `images` has another number of axes, or a size is not positive.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import resize_images
        >>> resize_images(np.zeros((5, 8, 8, 1), np.uint8), (4, 4)).shape
        (5, 4, 4, 1)
    """
    _check_images(images)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"`size` is {size}: expected (height, width), both at least 1.")
    height, width = size
    size = height, width
    if images.shape[1:3] == size:
        return images
    resized = np.empty((len(images), *size, images.shape[3]), images.dtype)
    chunk = max(1, _CHUNK_ELEMENTS // max(1, images[:1].size, resized[:1].size))
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk]
        resized[start : start + chunk] = _resize(part, size)
    return resized


@partial(jax.jit, static_argnums=1)
def _resize(images: jax.Array | np.ndarray, size: tuple[int, int]) -> jax.Array:
    shape = (images.shape[0], *size, images.shape[3])
    resized = jax.image.resize(images.astype(jnp.float32), shape, "linear", antialias=True)
    return jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8) if images.dtype == jnp.uint8 else resized


def grey_images(images: np.ndarray) -> np.ndarray:
    """The luma of colour images, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); grey images stay as they are.

    Args:
        images: shape (num_images, height, width, 1 or 3), bytes or floats.

    Returns:
        Images of the same dtype, shape (num_images, height, width, 1); bytes are rounded.

    Raises:
        ValueError: `images` has another shape.

    Example:
        >>> import numpy as np
        >>> from kaem_ppl.models import grey_images
        >>> grey_images(np.zeros((5, 8, 8, 3), np.uint8)).shape
        (5, 8, 8, 1)
    """
    _check_images(images)
    if images.shape[3] == 1:
        return images
    if images.shape[3] != 3:
        raise ValueError(f"`images` has {images.shape[3]} channels: expected 3, red, green and blue, or 1.")
    grey = np.empty((*images.shape[:3], 1), images.dtype)
    chunk = max(1, _CHUNK_ELEMENTS // max(1, images[:1].size))
    for start in range(0, len(images), chunk):
        luma = images[start : start + chunk] @ _LUMA
        grey[start : start + chunk, ..., 0] = np.rint(luma) if images.dtype == np.uint8 else luma
    return grey


def _check_images(images: np.ndarray) -> None:
    if np.ndim(images) != 4:
        raise ValueError(f"`images` has shape {np.shape(images)}: expected (num_images, height, width, channels).")
