"""`kaem traverse` and `kaem interpolate`: what single latents change, and paths from datum to datum."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
from jax import Array
from matplotlib.figure import Figure

from ...inference import MALA, sample_posterior
from ...models import interpolate as interpolate_latents
from ...models import latent_effects
from ...models import traverse as traverse_latent
from ...plots import plot_image_rows
from ...progress import Progress
from ..building.draws import decode
from ..building.model import build_prior
from ..errors import CommandError
from ..messages import print_result
from ..storage.saved_run import SavedRun, first_held_out


def traverse(run: SavedRun, key: jax.Array, num_latents: int, num_points: int, folder: Path) -> None:
    """Write `traverse.png`, `traverse.npz` and `effects.csv`: latents in the order in which they change the output.

    Of the product layout those move together that the generator adds up.

    Args:
        run: to look into.
        key: PRNG key.
        num_latents: rows of the figure.
        num_points: columns, between the 1 % and the 99 % quantile of a latent.
        folder: to write into.

    Raises:
        CommandError: the run has no images, or no prior of independent latents.
    """
    figure, found = plot_traversal(run, key, num_latents, num_points)
    figure.savefig(folder / "traverse.png", dpi=150)
    np.savez_compressed(folder / "traverse.npz", images=found.images, latents=np.array(found.places[:num_latents]))
    lines = [f"{_name(place, ' ')},{found.effects[place]:.6g}\n" for place in found.places]
    (folder / "effects.csv").write_text("latent,effect\n" + "".join(lines), encoding="utf-8")
    print_result(
        f"{len(found.images)} of {found.effects.size:,} shown; {_name(found.places[0])} changes the output most, by "
        f"{found.effects.max():.3g}"
    )


class Traversal(NamedTuple):
    """Latents moved one by one.

    Attributes:
        images: shape (num_latents, num_points, height, width), or with a last axis of 3.
        places: indices of all latents in the order of their effects, the largest first.
        effects: of the latents on the output, by index.
    """

    images: np.ndarray
    places: list[tuple[int, ...]]
    effects: np.ndarray


def plot_traversal(run: SavedRun, key: jax.Array, num_latents: int, num_points: int) -> tuple[Figure, Traversal]:
    """Move the latents that change the output most; arguments and errors are those of `traverse`."""
    prior, generate = _prior(run), _generator(run)
    draw_key, effect_key = jax.random.split(key)
    # A generator of the product layout reads the sums over the last axis, to which a single latent adds little.
    effects = np.asarray(latent_effects(effect_key, generate, prior, num_axes=1))
    order = np.argsort(-effects, axis=None)
    places = list(zip(*(x.tolist() for x in np.unravel_index(order, effects.shape)), strict=True))
    z = prior.sample(draw_key)
    rows = [generate(traverse_latent(prior, z, place, num_points)) for place in places[:num_latents]]
    images = _images(run, np.stack([np.asarray(row) for row in rows]))
    names = [_name(place) for place in places[:num_latents]]
    figure = plot_image_rows(images, names, "quantile of the latents, 1 % to 99 %")
    return figure, Traversal(images, places, effects)


def _name(place: tuple[int, ...], separator: str = ", ") -> str:
    return f"z[{separator.join(map(str, place))}]"


def interpolate(run: SavedRun, key: jax.Array, num_pairs: int, num_points: int, num_steps: int, folder: Path) -> None:
    """Write `interpolate.png` and `interpolate.npz`: paths between posterior draws of held-out data, two by two.

    Args:
        run: to look into.
        key: PRNG key.
        num_pairs: rows of the figure.
        num_points: columns, both ends among them.
        num_steps: of `MALA` before a draw is taken.
        folder: to write into.

    Raises:
        CommandError: there are fewer data; or the run has no images, or no prior of independent latents.
    """
    prior, generate = _prior(run), _generator(run)
    draws = sample_posterior(
        key, run.model, x=first_held_out(run, num_pairs, "--num-pairs", 2), params=run.params, sampler=MALA(), plate="data",
        num_chains=1, num_warmup=num_steps, num_samples=1,
    )  # fmt: skip
    Progress.innermost().begin("compiling and drawing paths")
    z = draws.samples["z"][0, 0]
    rows = [generate(interpolate_latents(prior, z[2 * i], z[2 * i + 1], num_points)) for i in range(num_pairs)]
    images = _images(run, np.stack([np.asarray(row) for row in rows]))
    names = [f"{2 * i} to {2 * i + 1}" for i in range(num_pairs)]
    plot_image_rows(images, names, "from a held-out datum's posterior draw to the next one's").savefig(
        folder / "interpolate.png", dpi=150
    )
    np.savez_compressed(folder / "interpolate.npz", images=images)
    print_result(f"{num_pairs} paths of {num_points} images")


def _prior(run: SavedRun) -> dist.Distribution:
    if run.data.vocabulary is not None:
        raise CommandError(f"{run.folder.path} generates texts: there are no images to look at.")
    prior = build_prior(run.config, run.params)
    if prior is not None:
        return prior
    if run.config.model.kind == "vae":
        return dist.Normal(0.0, 1.0).expand((run.config.model.num_latents,))
    if run.config.model.kind == "diffusion":
        raise CommandError(f"{run.folder.path} is a diffusion, which has no latents to move.")
    raise CommandError(f"{run.folder.path} is a {run.config.model.kind}, whose latents depend on each other a priori.")


def _generator(run: SavedRun) -> Callable[[Array], Array]:
    """Means of the likelihood as a function of latents (n, ...)."""

    @partial(jax.jit, static_argnums=1)
    def generate(z: Array, size: int) -> Array:
        return decode(run.model, jax.random.key(0), {**run.params, "z": z}, size)

    return lambda z: generate(z, len(z))


def _images(run: SavedRun, means: np.ndarray) -> np.ndarray:
    """Means (R, N, ...) as images in [0, 1], (R, N, height, width) or (R, N, height, width, 3)."""
    images = means.reshape(*means.shape[:2], *run.data.values.shape[1:])
    images = images[..., 0] if images.shape[-1] == 1 else images
    if not np.isfinite(images).all():
        raise CommandError(f"The images are not finite: the parameters of {run.folder.path} are too large.", status=1)
    low, high = float(images.min()), float(images.max())
    # Fields have a unit, images lie in [0, 1] up to the ends of a linear output.
    return images if low >= -0.5 and high <= 1.5 else (images - low) / (high - low)
