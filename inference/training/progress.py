"""The progress bar of training."""

from typing import Any, Self

from .epochs import StaticConfig
from .state import TrainingState


class ProgressBar:
    """A bar that counts steps with tqdm, where one is wanted."""

    def __init__(self, config: StaticConfig, state: TrainingState, num_epochs: int, is_shown: bool) -> None:
        self._num_batches = config.num_batches
        self._bar: Any = None
        if is_shown:
            from tqdm import tqdm

            self._bar = tqdm(unit="step", initial=self._count(state), total=num_epochs * config.num_batches)
            self._bar.set_description("compiling")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _count(self, state: TrainingState) -> int:
        return int(state.epoch) * self._num_batches + int(state.step)

    def show(self, state: TrainingState) -> None:
        """Move the bar to a state inside an epoch or at its end, with the mean loss of the epoch so far."""
        if self._bar is not None:
            loss = float(state.totals["loss"]) / int(state.step)
            self._bar.set_description(None, refresh=False)
            self._bar.set_postfix(epoch=int(state.epoch) + 1, loss=f"{loss:.4g}", refresh=False)
            self._bar.update(self._count(state) - self._bar.n)
