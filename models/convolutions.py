"""Convolutions of kernel 4 and stride 2: down to half the size, and up to twice it.

Both are one convolution of kernel 2 and stride 1 on maps in which every block of 2 x 2 pixels is one pixel of four times as
many channels (Shi et al. 2016, arXiv 1609.05158, fig. 1): no multiplication is by a zero that a stride has put in. The
numbers are those of Flax's `Conv` and `ConvTranspose` with these settings, whose kernels these functions take.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero


def downsample(x: Array, kernel: Array) -> Array:
    """Convolve with stride 2, as `flax.nnx.Conv(in, out, (4, 4), strides=(2, 2))` without its bias.

    Args:
        x: maps (B, H, W, in).
        kernel: shape (4, 4, in, out).

    Returns:
        Maps (B, ceil(H / 2), ceil(W / 2), out).
    """
    _, height, width, num_in = x.shape
    # One pixel before and one behind, or two where the size is odd.
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, num_in).swapaxes(2, 3)
    x = x.reshape(*x.shape[:3], 4 * num_in)
    # Tap 2 d + r of the kernel multiplies pixel r of block d.
    blocks = kernel.reshape(2, 2, 2, 2, num_in, -1).swapaxes(1, 2)
    return _convolve(x, blocks.reshape(2, 2, 4 * num_in, -1), 0)


def upsample(x: Array, kernel: Array) -> Array:
    """Convolve with fractional stride 1/2, as `flax.nnx.ConvTranspose(in, out, (4, 4), strides=(2, 2))` without its bias.

    Args:
        x: maps (B, H, W, in).
        kernel: shape (4, 4, in, out).

    Returns:
        Maps (B, 2 H, 2 W, out).
    """
    batch, height, width, num_in = x.shape
    num_out = kernel.shape[-1]
    # Block j holds the pixels 2 j - 1 and 2 j, which tap 2 d + 1 - r leads to from pixel j - 1 + d, r = 0 and 1.
    taps = kernel.reshape(2, 2, 2, 2, num_in, num_out)[:, ::-1, :, ::-1]
    blocks = taps.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, num_in, 4 * num_out)
    y = _convolve(x, blocks, 1).reshape(batch, height + 1, width + 1, 2, 2, num_out)
    y = y.swapaxes(2, 3).reshape(batch, 2 * height + 2, 2 * width + 2, num_out)
    return y[:, 1:-1, 1:-1]


# XLA for CPU brings the convolutions of a program into its fast layout, but not those inside a loop. Derivatives that JAX
# derives have another layout, and Langevin steps in a loop took four times as long by them.
@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, padding: int) -> Array:
    """Convolve maps (B, H, W, in) by a kernel (2, 2, in, out); `padding` pixels of zero on every side."""
    return _product(x, kernel, padding, "HWIO")


def _product(x: Array, kernel: Array, padding: int, kernel_layout: str) -> Array:
    numbers = ("NHWC", kernel_layout, "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), ((padding, padding),) * 2, dimension_numbers=numbers)


def _differentiate(
    padding: int, primals: tuple[Array, Array], tangents: tuple[Array | SymbolicZero, Array | SymbolicZero]
) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    y, parts = _convolve(x, kernel, padding), []
    if not isinstance(dx, SymbolicZero):
        # A slow layout, whose transpose, all that a gradient evaluates, has the fast one.
        parts.append(_product(dx, kernel.swapaxes(2, 3), padding, "HWOI"))
    if not isinstance(dkernel, SymbolicZero):
        # Matrix products, whose transposes are matrix products.
        height, width = y.shape[1:3]
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        parts += [x[:, d : d + height, e : e + width] @ dkernel[d, e] for d in (0, 1) for e in (0, 1)]
    tangent = jnp.zeros_like(y)
    for index, part in enumerate(parts):
        tangent = tangent + part if index else part
    return y, tangent


_convolve.defjvp(_differentiate, symbolic_zeros=True)
