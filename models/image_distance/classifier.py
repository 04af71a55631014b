"""A small convolutional classifier, trained on the labels of a data set, whose hidden layer gives features of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from kaem_ppl.arguments import as_count, as_key
from kaem_ppl.compilation import flat_draws

from ..convolutions import downsample
from ..data.images import to_unit_interval

_CHANNELS, _NUM_FEATURES, _ROWS = (16, 32), 32, 1000


@dataclass(frozen=True, eq=False)
class ImageClassifier:
    """Two convolutions of stride 2, a hidden layer of 32 rectified features, and logits.

    Attributes:
        params: weights, by layer; and `scale`, what features are divided by: the root of their mean variance over the
            training images, so that distances of different data sets have one scale.

    Example:
        >>> import jax
        >>> from kaem_ppl.models import split_digits, train_classifier
        >>> train, held_out = split_digits()
        >>> images = train.images[:200].reshape(-1, 8, 8)
        >>> classifier = train_classifier(jax.random.key(0), images, train.labels[:200], num_epochs=1)
        >>> classifier.features(images).shape
        (200, 32)
    """

    params: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        """Of the logits."""
        return self.params["logits"]["bias"].shape[0]

    def features(self, images: ArrayLike) -> np.ndarray:
        """The hidden layer, shape (n, 32), for the distances of this package.

        Args:
            images: bytes or grey levels in [0, 1], shape (n, height, width, channels), or without channels.

        Raises:
            ValueError: the images are of another size than those the classifier was trained on.
        """
        return self._map(_features, images)

    def probabilities(self, images: ArrayLike) -> np.ndarray:
        """Of the classes, shape (n, num_classes); images as in `features`."""
        return self._map(_probabilities, images)

    def _map(self, function: Any, images: ArrayLike) -> np.ndarray:
        x = _with_channels(images)
        height, width, channels = (-(-x.shape[1] // 4), -(-x.shape[2] // 4), x.shape[3])
        wanted = (self.params["first"]["kernel"].shape[2], self.params["hidden"]["kernel"].shape[0])
        if (channels, height * width * _CHANNELS[1]) != wanted:
            raise ValueError(f"`images` has shape {x.shape}: the classifier was trained on images of another size.")
        parts = [function(self.params, x[start : start + _ROWS]) for start in range(0, len(x), _ROWS)]
        return np.concatenate([np.asarray(part) for part in parts])


def train_classifier(
    key: ArrayLike, images: ArrayLike, labels: ArrayLike, num_epochs: int = 20, batch_size: int = 100
) -> ImageClassifier:
    """Train by cross-entropy and Adam, at a rate that falls to 0.

    Args:
        key: PRNG key or an integer seed.
        images: bytes or grey levels in [0, 1], shape (n, height, width, channels), or without channels.
        labels: classes, integers from 0, shape (n,).
        num_epochs: passes through the images.
        batch_size: images of a step.

    Raises:
        ValueError: shapes do not fit each other, or a number is too small.

    Example:
        >>> import jax
        >>> from kaem_ppl.models import split_digits, train_classifier
        >>> train, _ = split_digits()
        >>> images = train.images[:200].reshape(-1, 8, 8)
        >>> train_classifier(jax.random.key(0), images, train.labels[:200], num_epochs=1).num_classes
        10
    """
    key, epochs, size = as_key(key), as_count(num_epochs, "num_epochs", 1), as_count(batch_size, "batch_size", 1)
    x, y = _with_channels(images), np.asarray(labels)
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError(f"`labels` must be an integer of at least 0 for each of the {len(x)} images, got {y.shape}.")
    if size > len(x):
        raise ValueError(f"`batch_size` must be at most the number of images, {len(x)}, got {size}.")
    init_key, shuffle_key = jax.random.split(key)
    params = _init(init_key, x.shape[1:], int(y.max()) + 1)
    params = _train(shuffle_key, params, x, jnp.asarray(y), epochs, size)
    hidden = ImageClassifier({**params, "scale": jnp.ones(())}).features(x)
    return ImageClassifier({**params, "scale": jnp.sqrt(jnp.maximum(hidden.var(0).mean(), 1e-12))})


def _with_channels(images: ArrayLike) -> Array:
    x = to_unit_interval(images)
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4:
        raise ValueError(f"`images` must have shape (n, height, width) or (n, height, width, channels), got {x.shape}.")
    return x


def _init(key: Array, shape: tuple[int, ...], num_classes: int) -> dict[str, dict[str, Array]]:
    height, width, channels = shape
    flat = -(-height // 4) * -(-width // 4) * _CHANNELS[1]
    shapes = {
        "first": (4, 4, channels, _CHANNELS[0]), "second": (4, 4, *_CHANNELS), "hidden": (flat, _NUM_FEATURES),
        "logits": (_NUM_FEATURES, num_classes),
    }  # fmt: skip
    return {
        name: {
            "kernel": jnp.sqrt(2 / np.prod(sizes[:-1])) * flat_draws(jax.random.normal, part, sizes),
            "bias": jnp.zeros(sizes[-1]),
        }
        for (name, sizes), part in zip(shapes.items(), jax.random.split(key, len(shapes)), strict=True)
    }


@partial(jax.jit, static_argnums=(4, 5))
def _train(key: Array, params: Any, x: Array, y: Array, num_epochs: int, batch_size: int) -> Any:
    num_batches = len(x) // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, num_epochs * num_batches))

    def epoch(state: Any, key: Array) -> tuple[Any, None]:
        order = jax.random.permutation(key, len(x))[: num_batches * batch_size].reshape(num_batches, batch_size)
        return jax.lax.scan(step, state, order)

    def step(state: Any, rows: Array) -> tuple[Any, None]:
        params, moments = state

        def loss(params: Any) -> Array:
            return optax.softmax_cross_entropy_with_integer_labels(_logits(params, x[rows]), y[rows]).mean()

        updates, moments = optimizer.update(jax.grad(loss)(params), moments)
        return (optax.apply_updates(params, updates), moments), None

    return jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, num_epochs))[0][0]


def _hidden(params: Any, x: Array) -> Array:
    for name in ("first", "second"):
        x = jax.nn.relu(downsample(x, params[name]["kernel"]) + params[name]["bias"])
    return jax.nn.relu(x.reshape(len(x), -1) @ params["hidden"]["kernel"] + params["hidden"]["bias"])


def _logits(params: Any, x: Array) -> Array:
    return _hidden(params, x) @ params["logits"]["kernel"] + params["logits"]["bias"]


_features = jax.jit(lambda params, x: _hidden(params, x) / params["scale"])
_probabilities = jax.jit(lambda params, x: jax.nn.softmax(_logits(params, x)))
