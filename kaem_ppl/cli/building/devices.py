"""The devices of a run: processes that join, and data that are placed on all of them."""

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..errors import CommandError

_AXIS = "data"


def start_processes() -> None:
    """Join the other processes of a distributed run.

    The address of the first process, their number and the number of this one are read from `JAX_COORDINATOR_ADDRESS`,
    `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, or detected from the cluster (Slurm, Open MPI, ...) where these are not set.

    Raises:
        CommandError: they can't be detected, or the first process can't be reached.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = {name: os.environ[name] for name in names if name in os.environ}
    if given and len(given) < len(names):
        missing = ", ".join(name for name in names if name not in given)
        raise CommandError(f"--distributed: {', '.join(given)} is set, but {missing} is not. Set all three, or none.")
    try:
        if given:
            address, num_processes, process_id = given.values()
            jax.distributed.initialize(address, int(num_processes), int(process_id))
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise CommandError(f"--distributed: {error} Set {', '.join(names)} for each process.") from error


def all_devices(batch_size: int) -> NamedSharding | None:
    """The sharding of the rows of a batch over all devices; None where there is only one.

    Raises:
        CommandError: the batch can't be split evenly.
    """
    devices = jax.devices()
    if len(devices) == 1:
        return None
    if batch_size % len(devices):
        raise CommandError(
            f"batch_size is {batch_size}, and there are {len(devices)} devices: expected a multiple of {len(devices)}."
        )
    return NamedSharding(Mesh(np.array(devices), (_AXIS,)), PartitionSpec(_AXIS))


def place(values: np.ndarray, sharding: NamedSharding | None) -> jax.Array | np.ndarray:
    """Put data on the devices: split by rows where the number of devices divides theirs, replicated otherwise.

    Args:
        values: all data, in every process.
        sharding: of their rows; None returns them unchanged, as memory maps always are: batches are read from them.
    """
    if sharding is None or isinstance(values, np.memmap):
        return values
    if len(values) % sharding.num_devices:
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def gather(tree: Any) -> Any:
    """Copy arrays to the host, also those split over processes; every process has to call this."""

    def to_host(leaf: jax.Array) -> np.ndarray:
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            return np.asarray(leaf)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(to_host, tree)
