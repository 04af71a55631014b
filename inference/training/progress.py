"""What the progress of training shows: steps, the epoch, and its mean loss so far."""

from typing import Self

from kaem_ppl.progress import Progress

from .epochs import StaticConfig
from .state import TrainingState

# Steps between two looks at the loss, at most.
MOST_STEPS_BETWEEN = 50


class TrainingProgress:
    """Counts the steps of all epochs, those before a resumed state among them."""

    def __init__(self, config: StaticConfig, state: TrainingState, num_epochs: int, is_shown: bool) -> None:
        self._num_batches, self._num_epochs = config.num_batches, num_epochs
        self._progress = Progress.innermost() if is_shown else Progress("", is_shown=False)
        total = num_epochs * config.num_batches
        self._progress.begin("compiling the steps of training", total, "step", self._count(state))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.begin("finishing")

    def say_where_it_goes_on(self, state: TrainingState) -> None:
        """Print the place that training is resumed from."""
        step = f" and {int(state.step)} of {self._num_batches} steps" if int(state.step) else ""
        self._progress.say(f"training goes on after epoch {int(state.epoch)} of {self._num_epochs}{step}")

    def _count(self, state: TrainingState) -> int:
        return int(state.epoch) * self._num_batches + int(state.step)

    def show(self, state: TrainingState) -> None:
        """Move to a state inside an epoch or at its end, with the mean loss of the epoch so far."""
        if self._progress.is_shown:
            loss = float(state.totals["loss"]) / int(state.step)
            self._progress.update(
                self._count(state), f"training, epoch {int(state.epoch) + 1} of {self._num_epochs}", loss=loss
            )
