"""Data-parallel training: batches are split over devices, parameters are replicated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from ..model.parameters import Params
from ..model.training_model import TrainingModel
from .strategies.strategy import Strategy, guide_of


@dataclass(frozen=True)
class DataParallel:
    """A strategy whose batches, and their state, are split equally over all devices.

    The compiler propagates the split: each datum is computed on its device, and means over the batch, gradients included,
    are summed over the devices.

    Attributes:
        strategy: the loss of a batch.
        sharding: of arrays whose leading axis runs over the batch.
    """

    strategy: Strategy
    sharding: NamedSharding

    @property
    def guide(self) -> Callable | None:
        """The strategy's guide, if it has one."""
        return guide_of(self.strategy)

    def init(self, key: jax.Array, plate_model: TrainingModel, params: Params, data: Any) -> Any:
        """The strategy's initial state."""
        return self.strategy.init(key, plate_model, params, data)

    def loss(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: Any, batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """The strategy's loss of a batch that is split; see `Strategy.loss`."""
        state, batch = jax.lax.with_sharding_constraint((state, batch), self.sharding)
        loss, (metrics, state) = self.strategy.loss(key, plate_model, params, state, batch)
        replicated = NamedSharding(self.sharding.mesh, PartitionSpec())
        # The state of all data is replicated, so that each process can save it.
        return loss, (metrics, jax.lax.with_sharding_constraint(state, replicated))

    def draw(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: Any, batch: Any
    ) -> dict[str, jax.Array]:
        """The strategy's draws."""
        return self.strategy.draw(key, plate_model, params, state, batch)


def split_like(data: Any, strategy: Strategy, batch_size: int) -> Strategy:
    """The strategy, with batches split over the devices that the data are placed on, where these are several.

    Raises:
        ValueError: a batch can't be split evenly.
    """
    if isinstance(strategy, DataParallel):
        return strategy
    shardings = [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(data)]
    meshes = [x.mesh for x in shardings if isinstance(x, NamedSharding) and x.num_devices > 1]
    if not meshes:
        return strategy
    mesh = meshes[0]
    if batch_size % mesh.size:
        raise ValueError(
            f"`batch_size` is {batch_size}, and the data are on {mesh.size} devices: expected a multiple of {mesh.size}."
        )
    return DataParallel(strategy, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
