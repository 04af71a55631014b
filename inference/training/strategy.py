"""What `fit` asks of a learning strategy."""

from collections.abc import Callable
from typing import Any, Protocol

import jax

from ..model.parameters import Params
from ..model.training_model import TrainingModel


class Strategy(Protocol):
    """A way to estimate the gradient of the log-evidence: a value that `fit` calls and knows nothing else about.

    A strategy may remember something about each datum, such as the present state of its Markov chain. `fit` keeps that
    state, hands the strategy the rows of the batch at hand, and writes back what the strategy returns.

    A strategy that learns a NumPyro program beside the model, such as an encoder, has it as the attribute `guide`: a
    function of the model's arguments, whose `numpyro.param` sites are then learnt too and stand among `params`.
    """

    def init(self, key: jax.Array, plate_model: TrainingModel, params: Params, data: Any) -> Any:
        """Return the state remembered between steps: a pytree of arrays (num_data, ...), or () for none."""
        ...

    def loss(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: Any, batch: Any
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

    def draw(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: Any, batch: Any
    ) -> dict[str, jax.Array]:
        """Draw the latents of each datum of a batch from its posterior, for grids to be refitted to.

        Args: as `loss`.

        Returns:
            By name of the latent site, values whose leading axis runs over the data.
        """
        ...


def guide_of(strategy: Strategy) -> Callable | None:
    """The program that a strategy learns beside the model, if there is one."""
    return getattr(strategy, "guide", None)
