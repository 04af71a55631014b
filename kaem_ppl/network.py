"""Kolmogorov-Arnold networks: layers that sum univariate functions of their inputs."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .arguments import as_shape
from .basis import Basis
from .pickling import from_picklable, to_picklable
from .quadrature import contract
from .univariate import UnivariateKAN


@partial(jax.tree_util.register_dataclass, data_fields=["layers"], meta_fields=["output"])
@dataclass(frozen=True, eq=False)
class KANetwork:
    """A stack of layers x_{l+1, j} = sum_i f_{l, ij}(x_{l, i}) (Liu et al. 2024, arXiv 2404.19756, eq. 2.5).

    Attributes:
        layers: one bank of functions of batch shape (in, out) per layer, the `out` of each the `in` of the next.
        output: elementwise function of the outputs; None leaves them as they are.

    Example:
        >>> import jax, kaem_ppl as kp
        >>> from kaem_ppl.network import KANetwork
        >>> network = KANetwork.init(jax.random.key(0), (8, 17, 64), basis=kp.RBF(10), domain=(-3, 3))
        >>> network(jax.numpy.zeros((5, 8))).shape
        (5, 64)
    """

    layers: tuple[UnivariateKAN, ...]
    output: Callable[[Array], Array] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"output": None if self.output is None else to_picklable(self.output)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, output=from_picklable(state["output"]))

    @classmethod
    def init(
        cls,
        key: Array,
        sizes: Sequence[int],
        *,
        basis: Basis,
        domain: tuple[float, float],
        activation: Callable[[Array], Array] = jax.nn.silu,
    ) -> "KANetwork":
        """A network with random functions on uniform grids whose activations are of order 1.

        Base weights have the variance 1 / (in E[act(x)^2]), x standard normal, so that inputs of variance about 1 give
        outputs of variance about 1; coefficients are those of the basis over sqrt(in), a small perturbation of that.

        Args:
            key: a JAX random key.
            sizes: the numbers of inputs, of each hidden layer's sums, and of outputs.
            basis: the family of every function.
            domain: (a, b), where every function is learnt; beyond it a function is constant.
            activation: act, an elementwise function.

        Raises:
            ValueError: where the sizes are not two or more positive integers, or the domain is not usable.
        """
        sizes = check_sizes(sizes)
        gain = _second_moment(activation) ** -0.5
        layers = []
        for layer_key, shape in zip(jax.random.split(key, len(sizes) - 1), pairwise(sizes), strict=True):
            bank_key, base_key = jax.random.split(layer_key)
            bank = UnivariateKAN.init(bank_key, shape, basis=basis, domain=domain, activation=activation)
            scale = 1 / math.sqrt(shape[0])
            base_weight = gain * scale * jax.random.normal(base_key, shape, bank.coef.dtype)
            layers.append(dataclasses.replace(bank, coef=scale * bank.coef, base_weight=base_weight))
        return cls(tuple(layers))

    def __call__(self, x: ArrayLike) -> Array:
        """Outputs at inputs of shape (..., in): shape (..., out)."""
        x = jnp.asarray(x)
        for layer in self.layers:
            x = apply_layer(layer, x)
        return x if self.output is None else self.output(x)


def apply_layer(bank: UnivariateKAN, x: ArrayLike) -> Array:
    """sum_i f_ij(x_i) for every j.

    Args:
        bank: functions f_ij, batch shape (in, out). Where they share grid, width and domain, the basis is evaluated
            once per input and the layer is two matrix products.
        x: inputs, shape (..., in).

    Returns:
        Sums, shape (..., out).

    Raises:
        ValueError: where the last axis of x does not have `in` entries.
    """
    x = jnp.asarray(x)
    if x.shape[-1:] != bank.batch_shape[:1]:
        raise ValueError(f"x has shape {x.shape}: expected (..., {bank.batch_shape[0]}), the layer's inputs.")
    if not bank.is_shared:
        return jnp.sum(bank(x[..., None]), axis=-2)
    x = jnp.clip(x, bank.domain[0], bank.domain[1])
    coef = bank.spline_weight[..., None] * bank.coef
    spline = contract("...if,iof->...o", bank.basis(x, bank.grid, bank.width), coef)
    return contract("...i,io->...o", bank.activation(x), bank.base_weight) + spline


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of a network as a tuple; ValueError where they are not two or more positive integers."""
    found = as_shape(sizes, "sizes", least=1)
    if len(found) < 2:
        raise ValueError(
            f"`sizes` must be two or more positive integers, inputs first and outputs last, got {sizes!r}."
        )
    return found


def _second_moment(activation: Callable[[Array], Array]) -> float:
    """E[act(x)^2] of a standard normal x, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    with jax.ensure_compile_time_eval():
        values = np.asarray(activation(jnp.asarray(nodes, float)))
    return float(weights @ np.square(values) / weights.sum())
