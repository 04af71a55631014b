"""`UnivariateKAN`: arrays of univariate Kolmogorov-Arnold functions."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.util import not_jax_tracer

from .arguments import as_key, as_shape, check_callable, check_kind
from .basis import Basis
from .pickling import from_picklable, to_picklable
from .printing import describe_numbers, to_html
from .quadrature import contract
from .refitting import check_domain, refit


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["coef", "base_weight", "spline_weight", "grid", "width", "domain"],
    meta_fields=["basis", "activation"],
)
@dataclass(frozen=True, eq=False, repr=False)
class UnivariateKAN:
    """A bank of functions f(z) = w_base act(z) + w_spline sum_g c_g B_g(z; grid, tau), evaluated at clip(z, a, b).

    The residual form of Liu et al. 2024 (arXiv 2404.19756, eq. 2.10). A pytree: every array is a leaf, the basis and the
    activation are static. Make one with `UnivariateKAN.init`; change a field with `dataclasses.replace`.

    Attributes:
        coef: c, shape batch_shape + (F,).
        base_weight: w_base, shape batch_shape.
        spline_weight: w_spline, shape batch_shape.
        grid: grid points, shape (G,) shared by the bank or batch_shape + (G,); G = 0 for a basis without a grid.
        width: tau, shape () shared by the bank or batch_shape.
        domain: (a, b), shape (2,) shared by the bank or batch_shape + (2,).
        basis: the family of B_g.
        activation: act, an elementwise function.

    Example:
        >>> import jax, kaem_ppl as kp
        >>> f = kp.UnivariateKAN.init(jax.random.key(0), (8,), basis=kp.RBF(20), domain=(-3, 3))
        >>> f(jax.numpy.zeros((5, 8))).shape
        (5, 8)
    """

    coef: Array
    base_weight: Array
    spline_weight: Array
    grid: Array
    width: Array
    domain: Array
    basis: Basis
    activation: Callable[[Array], Array] = jax.nn.silu

    def __repr__(self) -> str:
        # Leaves are other things than arrays where JAX takes trees apart.
        shape = getattr(self.base_weight, "shape", "?")
        return f"UnivariateKAN(batch_shape={shape}, basis={self.basis}, domain={describe_numbers(self.domain)})"

    def _repr_html_(self) -> str:
        return to_html(repr(self))

    @classmethod
    def init(
        cls,
        key: Array,
        batch_shape: int | tuple[int, ...] = (),
        *,
        basis: Basis,
        domain: tuple[float, float],
        activation: Callable[[Array], Array] = jax.nn.silu,
    ) -> "UnivariateKAN":
        """A bank with random coefficients on a uniform grid, close to the zero function.

        Args:
            key: a JAX random key, or an integer seed.
            batch_shape: shape of the bank; an int is a shape of one axis.
            basis: the family of functions, for example `RBF(20)`.
            domain: (a, b), finite and increasing.
            activation: act, an elementwise function.

        Raises:
            ValueError: where the domain is not two finite increasing numbers, or `batch_shape` no shape.
            TypeError: where the basis is not a `Basis`, the key no key, or the activation no function.
        """
        check_kind(basis, Basis, "basis", "a basis such as `RBF(20)`")
        check_callable(activation, "activation", "an elementwise function such as `jax.nn.silu`")
        key, batch_shape = as_key(key), as_shape(batch_shape, "batch_shape")
        constants = uniform_grid(basis, domain)
        dtype = constants["domain"].dtype
        spline_key, base_key = jax.random.split(key)
        return cls(
            coef=basis.init_coef(spline_key, batch_shape, dtype),
            base_weight=basis.coef_scale * jax.random.normal(base_key, batch_shape, dtype),
            spline_weight=jnp.ones(batch_shape, dtype),
            basis=basis,
            activation=activation,
            **constants,
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"activation": to_picklable(self.activation)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, activation=from_picklable(state["activation"]))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the bank."""
        return jnp.shape(self.coef)[:-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """`batch_shape`, by the name that arrays give it: what NumPyro's `infer_shapes` is asked with."""
        return self.batch_shape

    @property
    def dtype(self) -> jnp.dtype:
        """Type of the numbers, by the name that arrays give it."""
        return jnp.result_type(self.coef)

    @property
    def is_shared(self) -> bool:
        """Whether the whole bank has one grid, one width and one domain, so that features serve all of it."""
        return all(jnp.ndim(x) == rank for _, x, rank in self._constants)

    def member(self, index: int | tuple[int, ...]) -> "UnivariateKAN":
        """One function of the bank, of batch shape ().

        Args:
            index: its place, a tuple as long as `batch_shape`, or a number in row-major order.
        """
        place = np.unravel_index(index, self.batch_shape) if isinstance(index, int) else index
        own = {"coef": self.coef, "base_weight": self.base_weight, "spline_weight": self.spline_weight}
        own |= {name: x for name, x, rank in self._constants if jnp.ndim(x) > rank}
        return replace(self, **{name: x[place] for name, x in own.items()})

    @property
    def _constants(self) -> tuple[tuple[str, Array, int], ...]:
        """Arrays that a bank may share, and how many axes they have where it does."""
        return ("grid", self.grid, 1), ("width", self.width, 0), ("domain", self.domain, 1)

    @property
    def term_size(self) -> Array:
        """Sum of the sizes that f's terms reach, shape `batch_shape`: what rounding errors of f scale with."""
        base = jnp.max(jnp.abs(self.activation(self.domain)), axis=-1)
        spline = jnp.sum(jnp.abs(self.coef), axis=-1)
        return jnp.abs(self.base_weight) * base + jnp.abs(self.spline_weight) * spline

    def __call__(self, z: ArrayLike) -> Array:
        """f(z), elementwise over the bank.

        Args:
            z: points, of a shape that broadcasts with `batch_shape`.

        Returns:
            Values, of the broadcast shape.
        """
        z = jnp.asarray(z)
        num_axes = z.ndim - len(self.batch_shape)
        if num_axes > 0:
            # Many points of each function: they go last, where a product takes them in half the time.
            shape, own = z.shape[:num_axes], z.shape[num_axes:]
            values = jnp.moveaxis(self.outer(jnp.moveaxis(z.reshape(math.prod(shape), *own), 0, -1)), -1, 0)
            return values.reshape(*shape, *values.shape[1:])
        z = self._clip(z, self.domain)
        features = self.basis(z, self.grid, self.width)
        spline = jnp.sum(self.coef * features, axis=-1)
        return self.base_weight * self.activation(z) + self.spline_weight * spline

    def outer(self, z: ArrayLike) -> Array:
        """f at many points of each function, as one contraction.

        Args:
            z: points, shape (M,) for points shared by the bank, or any shape (..., M) whose leading part broadcasts with
                `batch_shape`.

        Returns:
            Values, shape batch_shape + (M,), the leading parts broadcast.
        """
        per_point = partial(jnp.expand_dims, axis=-2)
        grid, domain = (x if jnp.ndim(x) == 1 else per_point(x) for x in (self.grid, self.domain))
        width = self.width if jnp.ndim(self.width) == 0 else self.width[..., None]
        z = self._clip(jnp.asarray(z), domain)
        return contract("...mf,...f->...m", *self._as_product(z, self.basis(z, grid, width)))

    def at_points(self, z: Array, common: Array | None = None) -> Array:
        """f at points shared by a bank that shares grid, width and domain, as one product.

        Args:
            z: points, shape (M,).
            common: what to add to every function at the points, shape (M,).

        Returns:
            Values, shape (M,) + batch_shape.
        """
        z = self._clip(z, self.domain)
        features, weights = self._as_product(z, self.basis(z, self.grid, self.width), common)
        return contract("mf,...f->m...", features, weights)

    def _as_product(self, z: Array, features: Array, common: Array | None = None) -> tuple[Array, Array]:
        """Features and weights, (..., F) each, whose product is f: the activation, and what is common, are features too."""
        columns = [features, self.activation(z)[..., None]]
        weights = [self.spline_weight[..., None] * self.coef, self.base_weight[..., None]]
        if common is not None:
            columns.append(common[..., None])
            weights.append(jnp.ones_like(weights[1]))
        shape = features.shape[:-1]
        columns = [jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in columns]
        return jnp.concatenate(columns, axis=-1), jnp.concatenate(weights, axis=-1)

    def components(self, z: ArrayLike) -> Array:
        """f of every function along the last batch axis at the same points.

        Args:
            z: points, of a shape that broadcasts with batch_shape[:-1].

        Returns:
            Values, shape (..., K) with K = batch_shape[-1].
        """
        z = jnp.asarray(z)
        if not self.is_shared:
            return self(z[..., None])
        z = self._clip(z, self.domain)
        spline = contract("...f,...kf->...k", self.basis(z, self.grid, self.width), self.coef)
        return self.base_weight * self.activation(z)[..., None] + self.spline_weight * spline

    def refit(
        self, samples: ArrayLike, *, domain: tuple[float, float] | Array | None = None, tolerance: float = 1e-3
    ) -> "UnivariateKAN":
        """Move each grid to where the samples are, as far as the function stays what it was.

        New grid points are a convex mix of the samples' quantiles and a uniform grid (Liu et al. 2024, sec. 2.4), new
        coefficients follow by least squares. Of several mixes each function takes the one nearest to the quantiles that
        changes it by at most `tolerance` of its range over the samples' range; the present grid is among them where the
        domain stays. A basis without a grid keeps its functions unless the domain changes. Traceable.

        Args:
            samples: draws, shape (num_samples, ...) + batch_shape.
            domain: the new domain, or an array batch_shape + (2,) of one for each function; None keeps the present one.
                Outside the old domain the old function is constant.
            tolerance: largest change, relative to the range of the function, at least 0.

        Returns:
            A bank of the same shape whose grids have the shape batch_shape + (G,).

        Raises:
            ValueError: where the shape of the samples does not end in `batch_shape`, they are known and not finite, or
                an argument is out of range.
        """
        return refit(self, samples, domain, tolerance)

    @staticmethod
    def _clip(z: Array, domain: Array) -> Array:
        return jnp.clip(z, domain[..., 0], domain[..., 1])


def uniform_grid(basis: Basis, domain: tuple[float, float]) -> dict[str, Array]:
    """The fields `grid`, `width` and `domain` of a new bank, shared by all of it.

    Raises:
        ValueError: where the domain is not two finite increasing numbers.
    """
    return _uniform_grid(basis, check_domain(domain), jnp.result_type(float))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _uniform_grid(basis: Basis, domain: tuple[float, float], dtype: jnp.dtype) -> dict[str, Array]:
    bounds = jnp.asarray(domain, dtype)
    width = basis.default_width(domain) if basis.width is None else basis.width
    return {"grid": basis.init_grid(bounds), "width": jnp.asarray(width, dtype), "domain": bounds}


def check_bank(energy: UnivariateKAN, check_values: bool = True, argument: str = "energy") -> None:
    """Refuse a bank whose shapes disagree or, where its values are known and `check_values`, whose numbers can't be used.

    Args:
        energy: the bank.
        check_values: whether to look at its numbers too.
        argument: what the user calls the bank.

    Raises:
        ValueError: naming the field, what it holds, and what was expected.
    """
    batch_shape, basis = energy.batch_shape, energy.basis
    expected = {
        "coef": {(*batch_shape, basis.num_features)},
        "base_weight": {batch_shape},
        "spline_weight": {batch_shape},
        "grid": {energy.grid.shape[-1:], batch_shape + energy.grid.shape[-1:]},
        "width": {(), batch_shape},
        "domain": {(2,), (*batch_shape, 2)},
    }
    for name, shapes in expected.items():
        shape = jnp.shape(getattr(energy, name))
        if shape not in shapes:
            wanted = " or ".join(str(s) for s in sorted(shapes, key=len))
            raise ValueError(f"{argument}.{name} has shape {shape}: expected {wanted} for {basis}.")
    if not check_values:
        return
    for name in expected:
        value = getattr(energy, name)
        if not_jax_tracer(value) and not np.all(np.isfinite(value)):
            raise ValueError(f"{argument}.{name} holds values that are not finite: expected finite numbers throughout.")
    for name in ("grid", "domain"):
        value = getattr(energy, name)
        if not_jax_tracer(value) and not np.all(np.diff(value, axis=-1) > 0):
            raise ValueError(f"{argument}.{name} is not increasing: expected strictly increasing values, got {value}.")
    constraint = basis.width_constraint
    if constraint is not None and not_jax_tracer(energy.width) and not np.all(constraint(np.asarray(energy.width))):
        raise ValueError(f"{argument}.width={energy.width}: expected {constraint} for {basis}.")
