"""What `fit` asks of a learning strategy."""

from typing import Any, Protocol

import jax

from .parameters import Params
from .plate_model import PlateModel


class Strategy(Protocol):
    """A way to estimate the gradient of the log-evidence: a value that `fit` calls and knows nothing else about.

    A strategy may remember something about each datum, such as the present state of its Markov chain. `fit` keeps that
    state, hands the strategy the rows of the batch at hand, and writes back what the strategy returns.
    """

    def init(self, key: jax.Array, plate_model: PlateModel, params: Params, data: Any) -> Any:
        """Return the state remembered between steps: a pytree of arrays (num_data, ...), or () for none."""
        ...

    def loss(
        self, key: jax.Array, plate_model: PlateModel, params: Params, state: Any, batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """Evaluate the objective whose gradient in `params` the optimiser follows downhill.

        Args:
            key: fresh PRNG key of this step.
            plate_model: the model, read along its plate.
            params: constrained parameters.
            state: rows of the state that belong to the batch.
            batch: rows of the data, leading size batch_size; no datum appears twice.

        Returns:
            The loss, a mean over the batch; and beside it scalar metrics by name, which `fit` averages over each epoch
            into the history, and the new rows of the state.
        """
        ...
