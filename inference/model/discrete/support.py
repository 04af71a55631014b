"""The states of a discrete latent site, and which discrete latents cannot be summed out."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..wrappers import unwrap

# States of one table: those of a site, or the joint ones of sites that are summed out together.
MAX_JOINT_STATES = 100_000

# A plate by its name and its batch axis, counted from the right.
type Plates = frozenset[tuple[str, int]]


class Variable(NamedTuple):
    """What is summed over: a discrete site, or one step of a discrete site inside `scan`.

    Attributes:
        site: name of the site.
        step: number of the step in the order in which the scan runs; -1 outside.
    """

    site: str
    step: int = -1


@dataclass(frozen=True)
class DiscreteSite:
    """A discrete latent site; one step of it, if it stands inside `scan`.

    Elements along plates are independent given all else. Those along other batch axes and in the event are not, so that
    one state is a value of all of them.

    Attributes:
        name: its name.
        shape: of its value, batch and event axes.
        states: all values, (num_states, ...) with the axes of `shape`, of size 1 along plates.
        plates: those around it.
        num_batch: number of batch axes.
    """

    name: str
    shape: tuple[int, ...]
    states: np.ndarray
    plates: Plates
    num_batch: int

    @property
    def num_states(self) -> int:
        """Number of states of one element along the plates."""
        return self.states.shape[0]

    @property
    def num_event(self) -> int:
        """Number of event axes."""
        return len(self.shape) - self.num_batch

    @property
    def plate_shape(self) -> tuple[int, ...]:
        """Sizes of the batch axes, 1 for those that are no plates."""
        return tuple(n if m == 1 else 1 for n, m in zip(self.shape, self.states.shape[1:], strict=True))[
            : self.num_batch
        ]

    def values(self) -> jax.Array:
        """The site's value where all elements are in one state, for each state: (num_states, *shape)."""
        return jnp.broadcast_to(self.states, (self.num_states, *self.shape))

    def state_of(self, value: jax.Array) -> jax.Array:
        """Numbers of the states of a value (..., *shape): (..., *plate_shape)."""
        lead = value.ndim - len(self.shape)
        states = self.states.reshape(self.num_states, *(1,) * lead, *self.states.shape[1:])
        axes = [axis - len(self.shape) for axis, n in enumerate(self.states.shape[1:]) if n > 1]
        matches = (value == states).all(axis=axes, keepdims=True)
        number = jnp.argmax(matches, axis=0)
        return number.reshape(*value.shape[:lead], *self.plate_shape)

    def value_of(self, weights: jax.Array) -> jax.Array:
        """Value of the states that weights (..., num_states, *plate_shape) of 0 and 1 mark: (..., *shape)."""
        weights = weights.reshape(*weights.shape, *(1,) * self.num_event)
        axis = weights.ndim - len(self.shape) - 1
        # Not a sum of floats, rounded: XLA on CPU has returned 0 for 2 there.
        value = jnp.sum(jnp.where(weights > 0.5, self.states, 0), axis=axis)
        return jnp.broadcast_to(value, (*value.shape[:axis], *self.shape))


def describe_discrete_site(site: dict[str, Any]) -> DiscreteSite:
    """The states of a discrete latent site of a model.

    Raises:
        ValueError: they are not finitely many, not known before the model is traced, or too many.
    """
    name, fn = site["name"], site["fn"]
    sample_shape = tuple(site["kwargs"].get("sample_shape", ()))
    shape = tuple(fn.shape(sample_shape))
    num_batch = len(sample_shape) + len(fn.batch_shape)
    plates = frozenset((frame.name, frame.dim) for frame in site["cond_indep_stack"])
    plate_axes = {num_batch + dim for _, dim in plates}
    support = element_support(site)
    joint = [1 if axis in plate_axes else size for axis, size in enumerate(shape)]
    num_elements = math.prod(joint)
    if num_elements * math.log(len(support)) > math.log(MAX_JOINT_STATES) + 1e-9:
        raise ValueError(
            f"Discrete latent site {name!r} has {num_elements} elements of {len(support)} values that are in no plate, "
            f"which makes {len(support)}^{num_elements} joint states; at most {MAX_JOINT_STATES:,} are summed out. Put "
            "elements that are independent of each other into a `numpyro.plate`."
        )
    numbers = np.indices((len(support),) * num_elements).reshape(num_elements, -1).T
    return DiscreteSite(name, shape, support[numbers].reshape(-1, *joint), plates, num_batch)


def element_support(site: dict[str, Any]) -> np.ndarray:
    """Values of one element of a discrete latent site, shape (K,).

    Raises:
        ValueError: they are not finitely many, or not known before the model is traced.
    """
    name, base = site["name"], unwrap(site["fn"])
    kind = type(base).__name__
    if not base.has_enumerate_support:
        raise ValueError(
            f"Latent site {name!r} is discrete with infinitely many values, or NumPyro does not know them ({kind}), so it "
            "can't be summed out. Bound it, for example as `Categorical` over the values that matter, or use a "
            "continuous latent."
        )
    if base.event_shape:
        raise ValueError(
            f"Latent site {name!r} is discrete with vectors as values ({kind}), which can't be summed out."
        )
    try:
        with jax.ensure_compile_time_eval():
            return np.asarray(base.enumerate_support(expand=False)).reshape(-1)
    except (NotImplementedError, TypeError, jax.errors.JAXTypeError) as error:
        raise ValueError(
            f"The values of discrete latent site {name!r} ({kind}) are not known before the model is run: {error} Give "
            "its bounds, such as `total_count`, as the same Python integer for all elements."
        ) from error
