"""Pictures of a training: samples and learnt densities after some epochs, and an animation of them all."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import Array

from ...inference import TrainingState
from ...inference.model.parameters import Params
from ...models import Dataset
from ...plots import Curves, Snapshot, density_curves, plot_snapshot, save_animation
from ..building.draws import generate, model_params
from ..building.model import build_prior
from ..messages import print_warning
from ..settings.config import Config

FOLDER, ANIMATION = "pictures", "training.gif"
# The same random numbers after every epoch, so that what changes is the model. A square number of samples.
_SEED, _NUM_SAMPLES, _MOST_CURVES = 0, 36, 9
_FRAMES_PER_SECOND = 4


class TrainingPictures:
    """Writes `pictures/epoch-000005.png` and the numbers in it, `.npz`, which the animation is made of at the end.

    They are kept with the run, so that one that was stopped and resumed has all of them.
    """

    def __init__(self, config: Config, folder: Path, model: Callable, dataset: Dataset) -> None:
        self._config, self._folder, self._shape = config, folder / FOLDER, dataset.values.shape[1:]

        def run(state: TrainingState) -> tuple[Params, Array]:
            params = model_params(model, dataset, state)
            return params, generate(jax.random.key(_SEED), model, params, _NUM_SAMPLES)

        # Compiled once for all epochs.
        self._run = jax.jit(run)

    def draw(self, state: TrainingState, epoch: int) -> None:
        """Draw samples after an epoch, from the first process's copy of the state."""
        params, drawn = self._run(state)
        images = np.asarray(drawn).reshape(_NUM_SAMPLES, *self._shape)
        if not np.isfinite(images).all():
            print_warning(f"the samples after epoch {epoch} are not finite, so there is no picture of them.")
            return
        prior = build_prior(self._config, params)
        curves = None if prior is None else density_curves(prior, _MOST_CURVES)
        snapshot = Snapshot(epoch, images[..., 0] if images.shape[-1] == 1 else images, curves)
        self._folder.mkdir(exist_ok=True)
        name = f"epoch-{epoch:06}"
        found = {} if curves is None else curves._asdict()
        np.savez_compressed(self._folder / f"{name}.npz", images=snapshot.images, **found)
        plot_snapshot(snapshot).savefig(self._folder / f"{name}.png", dpi=120)

    def animate(self) -> None:
        """Write the animation of all pictures in the folder, where there are two or more."""
        snapshots = [_read(path) for path in sorted(self._folder.glob("epoch-*.npz"))]
        if len(snapshots) > 1:
            save_animation(self._folder / ANIMATION, snapshots, _FRAMES_PER_SECOND)


def _read(path: Path) -> Snapshot:
    with np.load(path) as file:
        curves = Curves(*(file[name] for name in Curves._fields)) if "z" in file else None
        return Snapshot(int(path.stem.split("-")[1]), file["images"], curves)
