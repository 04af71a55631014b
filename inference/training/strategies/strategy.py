"""The protocol of training strategies: how the gradient of the log-evidence is estimated."""

from collections.abc import Callable
from typing import Any, Protocol

import jax

from kaem_ppl.arguments import describe

from ...model.parameters import Params
from ...model.training_model import TrainingModel


class Strategy(Protocol):
    """An estimator of the gradient of the log-evidence, as `fit` calls it.

    A strategy may keep a state of each datum, such as that of its Markov chain. `fit` stores it, passes the rows of the
    batch to the strategy, and writes back what the strategy returns.

    A strategy that learns a second NumPyro program, such as an encoder, has it as the attribute `guide`: a function of the
    model's arguments, whose `numpyro.param` sites are then learnt too and are entries of `params`. One that can tell from
    its metrics that another would serve better has the method `advise`: from the last row of the history to a sentence.

    Example:
        >>> from kaem_ppl.inference import LangevinMLE
        >>> strategy = LangevinMLE()
        >>> [callable(getattr(strategy, method)) for method in ("init", "loss", "draw")]
        [True, True, True]
    """

    def init(self, key: jax.Array, plate_model: TrainingModel, params: Params, data: Any) -> Any:
        """Return the state kept between steps: a pytree of arrays (num_data, ...), or () for none."""
        ...

    def loss(
        self, key: jax.Array, plate_model: TrainingModel, params: Params, state: Any, batch: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """Evaluate the objective that the optimiser minimises over `params`.

        Args:
            key: fresh PRNG key of this step.
            plate_model: the model, read along its plate.
            params: constrained parameters.
            state: rows of the state that belong to the batch.
            batch: rows of the data, leading size batch_size; no datum appears twice.

        Returns:
            The loss, a mean over the batch; and with it scalar metrics by name, which `fit` averages over each epoch
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


def advise(strategy: Strategy, row: dict[str, Any]) -> str | None:
    """What the strategy says of the last epoch's metrics, a sentence; None where nothing calls for advice."""
    of_strategy = getattr(strategy, "advise", None)
    return None if of_strategy is None else of_strategy(row)


def check_strategy(strategy: object) -> None:
    """Refuse what has not the methods of a strategy.

    Raises:
        TypeError: it has not.
    """
    methods = (getattr(strategy, name, None) for name in ("init", "loss"))
    if isinstance(strategy, type) or not all(callable(method) for method in methods):
        raise TypeError(f"`strategy` must be a strategy such as `ImportanceMLE()`, got {describe(strategy)}.")


def guide_of(strategy: Strategy) -> Callable | None:
    """The strategy's guide, None without one."""
    return getattr(strategy, "guide", None)
