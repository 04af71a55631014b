"""`kaem sample`: data drawn from a trained model."""

import math
import os
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from ...plots import plot_images
from ..building.data import is_field
from ..building.draws import generate
from ..errors import CommandError
from ..messages import print_result
from ..storage.saved_run import SavedRun
from .figures import plot_fields, plot_spectra

# Numbers of outputs of one call of the model.
_NUMBERS_PER_CALL = 2**22


def sample(run: SavedRun, key: jax.Array, num_samples: int, folder: Path) -> None:
    """Write images and fields as NumPy arrays and figures, texts as lines.

    Args:
        run: to draw from.
        key: PRNG key.
        num_samples: how many.
        folder: to write into.

    Raises:
        CommandError: they do not fit into memory, or are not finite.
    """
    _check_memory(num_samples, 4 * math.prod(run.data.values.shape[1:]))
    if run.data.vocabulary is not None:
        texts = draw_texts(run, key, num_samples)
        (folder / "samples.txt").write_text("".join(f"{text!r}\n" for text in texts), encoding="utf-8")
        print_result(f"{num_samples} texts, such as {texts[0][:60]!r}")
        return
    drawn = draw_images(run, key, num_samples) * run.data.unit
    for name, figure in _figures(run, drawn).items():
        figure.savefig(folder / name, dpi=150)
    np.savez_compressed(folder / "samples.npz", samples=drawn)
    print_result(f"{num_samples} samples")


def draw_texts(run: SavedRun, key: jax.Array, num_samples: int) -> list[str]:
    """Texts drawn from a run of texts."""
    vocabulary = run.data.vocabulary
    assert vocabulary is not None, "of a run of texts"
    drawn = _draw(run, key, num_samples, math.prod(run.data.values.shape[1:]) * len(vocabulary))
    return list(vocabulary.decode(drawn))


def draw_figures(run: SavedRun, key: jax.Array, num_samples: int) -> dict[str, Figure]:
    """By the name of their file, figures of images or fields drawn from a run beside held-out ones.

    Raises:
        CommandError: they are not finite.
    """
    return _figures(run, draw_images(run, key, num_samples) * run.data.unit)


def _figures(run: SavedRun, drawn: np.ndarray) -> dict[str, Figure]:
    real = np.asarray(run.data.values)
    if is_field(run.config):
        generated, real = drawn[..., 0], real[..., 0] * run.data.unit
        return {
            "samples.png": plot_fields(generated, real[: len(drawn)]),
            "spectra.png": plot_spectra(generated, real),
        }
    real = real[: len(drawn)]
    real = real / 255 if real.dtype == np.uint8 else real
    generated, real = (x[..., 0] if x.shape[-1] == 1 else x for x in (drawn, real))
    return {"samples.png": plot_images(generated, real)}


def draw_images(run: SavedRun, key: jax.Array, num_samples: int) -> np.ndarray:
    """Means of the likelihood, shape (num_samples, height, width, channels), of a run of images or fields.

    Raises:
        CommandError: they are not finite.
    """
    event_shape = run.data.values.shape[1:]
    drawn = _draw(run, key, num_samples, math.prod(event_shape))
    if not np.isfinite(drawn).all():
        raise CommandError(
            f"The samples are not finite: the parameters of {run.folder.path} are too large. Train again with a smaller "
            "--learning-rate, or --clip-norm.",
            status=1,
        )
    return drawn.reshape(num_samples, *event_shape)


def _draw(run: SavedRun, key: jax.Array, num_samples: int, num_outputs: int) -> np.ndarray:
    """Draws, as many in each call as fit into little memory."""
    num_per_call = min(num_samples, max(1, _NUMBERS_PER_CALL // num_outputs))
    num_calls = -(-num_samples // num_per_call)
    keys = (jax.random.fold_in(key, number) for number in range(num_calls))
    parts = [np.asarray(generate(part_key, run.model, run.params, num_per_call)) for part_key in keys]
    return np.concatenate(parts)[:num_samples]


def _check_memory(num_samples: int, num_bytes: int) -> None:
    """Raise where samples, and the copies that are made to save and draw them, exceed the memory that is free."""
    if not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    largest = free // (4 * num_bytes)
    if num_samples > largest:
        raise CommandError(f"--num-samples is {num_samples:,}, but memory is free for {largest:,}: draw fewer.")
