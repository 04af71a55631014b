"""`kaem sample`: data drawn from a trained model."""

import jax
import numpy as np

from ..plots import plot_images
from .build import generate
from .data import is_field
from .figures import plot_fields, plot_spectra
from .messages import say
from .saved_run import SavedRun


def sample(run: SavedRun, key: jax.Array, num_samples: int) -> None:
    """Write `samples` of images and fields as NumPy arrays and figures, of texts as lines.

    Args:
        run: to draw from.
        key: PRNG key.
        num_samples: how many.
    """
    folder = run.folder.samples
    drawn = np.asarray(generate(key, run.model, run.params, num_samples))
    if run.data.vocabulary is not None:
        texts = run.data.vocabulary.decode(drawn)
        (folder / "samples.txt").write_text("".join(f"{text!r}\n" for text in texts), encoding="utf-8")
        say(f"{num_samples} texts in {folder / 'samples.txt'}, such as {texts[0][:60]!r}")
        return
    drawn = drawn.reshape(num_samples, *run.data.values.shape[1:])
    real = np.asarray(run.data.values[:num_samples])
    if is_field(run.config):
        drawn, real = (x[..., 0] * run.data.unit for x in (drawn, real))
        plot_fields(drawn, real).savefig(folder / "samples.png", dpi=150)
        plot_spectra(drawn, np.asarray(run.data.values[..., 0]) * run.data.unit).savefig(
            folder / "spectra.png", dpi=150
        )
    else:
        real = real / 255 if real.dtype == np.uint8 else real
        images = [x[..., 0] if x.shape[-1] == 1 else x for x in (drawn, real)]
        plot_images(*images).savefig(folder / "samples.png", dpi=150)
    np.savez_compressed(folder / "samples.npz", samples=drawn)
    say(f"{num_samples} samples in {folder}")
