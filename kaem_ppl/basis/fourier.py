"""Trigonometric functions."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from .base import Basis


@dataclass(frozen=True)
class Fourier(Basis):
    """Cosines and sines: cos(2 pi tau g z) and sin(2 pi tau g z), g = 0..num_frequencies.

    Args:
        num_frequencies: the highest multiple G of the fundamental frequency tau, at least 1; 2 (G + 1) functions.
        width: tau, the fundamental frequency in cycles per unit of z; half a cycle over the domain by default.
        trainable_width: whether tau is learnt.
        coef_scale: standard deviation of the initial coefficients.

    Example:
        >>> import jax, kaem_ppl as kp
        >>> f = kp.UnivariateKAN.init(jax.random.key(0), (3,), basis=kp.Fourier(10), domain=(-2, 2))
        >>> f.coef.shape  # three functions, and the number of basis functions of each
        (3, 22)
    """

    num_frequencies: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_frequencies < 1:
            raise ValueError(f"num_frequencies={self.num_frequencies} for Fourier: expected at least 1.")

    @property
    def num_features(self) -> int:
        """Cosines, then sines."""
        return 2 * (self.num_frequencies + 1)

    @property
    def num_panels(self) -> int:
        """Two panels for a cycle of the highest frequency, which has G / 2 of them on the domain by default."""
        return max(20, self.num_frequencies)

    def default_width(self, domain: tuple[float, float]) -> float:
        """Half a cycle over the domain: the slowest cosine runs from 1 at one end to -1 at the other."""
        return 0.5 / (domain[1] - domain[0])

    def __call__(self, z: Array, grid: Array, width: Array) -> Array:
        # Whole cycles are taken off the phase before the multiplication by g, so that float32 keeps its digits.
        cycles = (z * width)[..., None]
        cycles = cycles - jnp.round(cycles)
        multiples = jnp.asarray(np.arange(self.num_frequencies + 1), cycles.dtype)
        phase = multiples * cycles
        phase = 2 * jnp.pi * (phase - jnp.round(phase))
        return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)
