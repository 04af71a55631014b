"""Observations that a density is fitted to: checked, one row for each density, their weights summing to 1."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpyro.util import not_jax_tracer

from ...arguments import as_array

# Fewer observations, or weights that amount to fewer, determine no curve.
_FEWEST = 5


@dataclass(frozen=True, eq=False)
class Observations:
    """n observations of each of Q densities, in double precision.

    Attributes:
        values: shape (Q, n); the lower bound of what is known only to lie in an interval.
        upper: its upper bound, equal to the value of what is known exactly; None where all is.
        weights: shape (Q, n), each row summing to 1.
        batch_shape: of the densities; its product is Q.
    """

    values: np.ndarray
    upper: np.ndarray | None
    weights: np.ndarray
    batch_shape: tuple[int, ...]

    @property
    def is_exact(self) -> np.ndarray:
        """Which observations are known exactly, shape (Q, n)."""
        return np.ones(self.values.shape, bool) if self.upper is None else self.values == self.upper

    @property
    def effective_number(self) -> np.ndarray:
        """Kish's effective number of observations, 1 / sum of squared weights, shape (Q,)."""
        return 1 / np.sum(np.square(self.weights), axis=1)

    @property
    def finite(self) -> np.ndarray:
        """A finite number for each observation: its value, the middle of its interval, or the finite end of that."""
        if self.upper is None:
            return self.values
        low, high = self.values, self.upper
        low, high = np.where(np.isfinite(low), low, high), np.where(np.isfinite(high), high, low)
        return np.where(self.is_exact, self.values, 0.5 * (low + high))

    @property
    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest finite number that observations of positive weight give, shape (Q,) each."""
        ends = [self.values] if self.upper is None else [self.values, self.upper]
        used = np.concatenate([np.where((self.weights > 0) & np.isfinite(x), x, np.nan) for x in ends], axis=1)
        return np.nanmin(used, axis=1), np.nanmax(used, axis=1)

    def members(self, index: np.ndarray) -> "Observations":
        """Those of the densities at an index, as a batch of one axis."""
        upper = None if self.upper is None else self.upper[index]
        return Observations(self.values[index], upper, self.weights[index], index.shape)


def read_observations(samples: Any, weights: Any, upper: Any) -> Observations:
    """Check what was given and lay it out in rows.

    Raises:
        TypeError: it is not made of numbers.
        ValueError: it is traced, not finite, of shapes that disagree, or too little to fit a density to.
    """
    values = _numbers(samples, "samples")
    if values.ndim == 0 or values.shape[0] < _FEWEST:
        raise ValueError(
            f"`samples` must have at least {_FEWEST} observations along its first axis, got shape {values.shape}."
        )
    upper = None if upper is None else _bounds(upper, values)
    if not np.all(np.isfinite(values) | (False if upper is None else np.isneginf(values))):
        raise ValueError("`samples` must be finite, got NaN or infinite values: drop them, or state bounds by `upper`.")
    batch_shape = values.shape[1:]
    shape = (values.shape[0], math.prod(batch_shape))
    mass = _weights(weights, values).reshape(shape).T
    total = mass.sum(axis=1, keepdims=True)
    rows = None if upper is None else np.ascontiguousarray(upper.reshape(shape).T)
    found = Observations(np.ascontiguousarray(values.reshape(shape).T), rows, mass / total, batch_shape)
    if rows is not None and not np.all(np.isfinite(found.finite)):
        raise ValueError("`upper` must leave each observation a finite bound, got intervals from -inf to inf.")
    effective = found.effective_number.min()
    if effective < _FEWEST - 1e-6:
        raise ValueError(
            f"`weights` must leave at least {_FEWEST} effective observations (1 / sum of squared shares), got "
            f"{effective:.3g}."
        )
    low, high = found.range
    if not np.all(high > low):
        raise ValueError("`samples` must differ from each other, got observations of one value only.")
    return found


def _numbers(value: Any, name: str) -> np.ndarray:
    if not not_jax_tracer(value):
        raise ValueError(f"`{name}` must be known numbers, got a traced array: call `fit` outside of `jit` and `vmap`.")
    array = np.asarray(as_array(value, name) if not isinstance(value, np.ndarray) else value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"`{name}` must be an array of real numbers, got type {array.dtype}.")
    return array.astype(np.float64)


def _bounds(upper: Any, values: np.ndarray) -> np.ndarray:
    array = _numbers(upper, "upper")
    if array.shape not in (values.shape, values.shape[:1]):
        raise ValueError(
            f"`upper` must have the shape of `samples`, {values.shape}, or {values.shape[:1]}, got {array.shape}."
        )
    array = np.broadcast_to(array.reshape(array.shape + (1,) * (values.ndim - array.ndim)), values.shape)
    if not np.all(array >= values):
        raise ValueError("`upper` must be at least `samples`, the lower bounds, got smaller values or NaN.")
    return array


def _weights(weights: Any, values: np.ndarray) -> np.ndarray:
    if weights is None:
        return np.ones_like(values)
    array = _numbers(weights, "weights")
    if array.shape not in (values.shape, values.shape[:1]):
        raise ValueError(
            f"`weights` must have the shape of `samples`, {values.shape}, or {values.shape[:1]}, got {array.shape}."
        )
    array = np.broadcast_to(array.reshape(array.shape + (1,) * (values.ndim - array.ndim)), values.shape)
    if not (np.all(np.isfinite(array)) and np.all(array >= 0) and np.all(array.sum(axis=0) > 0)):
        raise ValueError("`weights` must be finite, at least 0, and not all 0, got others.")
    return array
