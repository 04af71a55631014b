"""Figures: learnt priors over their references, fitted densities over samples, and generated images beside real ones."""

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpyro.distributions import Distribution
from PIL import Image

from .distributions.base import TiltedDistribution
from .distributions.fitting import TiltedFit
from .plot_style import MAIN, NEUTRAL, plain_axes


class Curves(NamedTuple):
    """Densities of latents on one grid.

    Attributes:
        z: values, shape (400,).
        learnt: densities there, shape (400, num_latents).
        reference: those of the references.
    """

    z: np.ndarray
    learnt: np.ndarray
    reference: np.ndarray


class Snapshot(NamedTuple):
    """What a model draws after an epoch, and the densities it has learnt.

    Attributes:
        epoch: finished ones.
        images: shape (num_images, height, width) or (num_images, height, width, 3).
        curves: of the prior; None for a model without a learnt one.
    """

    epoch: int
    images: np.ndarray
    curves: Curves | None


def density_curves(prior: TiltedDistribution, max_latents: int) -> Curves:
    """The learnt density of each latent and its reference, of the first ones where there are more than `max_latents`."""
    z = np.linspace(*_range(prior), 400)
    # Points lead and the batch follows, as the densities broadcast; then every latent is one column.
    points = z.reshape(-1, *(1,) * len(prior.batch_shape))
    learnt, reference = (
        np.broadcast_to(density, (len(z), *prior.batch_shape)).reshape(len(z), -1)[:, :max_latents]
        for density in _densities(prior, (prior.log_normalizer, prior.log_normalizer_error), points)
    )
    return Curves(z, learnt, reference)


def plot_prior(prior: TiltedDistribution, *, num_columns: int = 4, max_panels: int = 16) -> Figure:
    """The learnt density of each latent over its reference, one small panel each.

    Args:
        prior: a tilted density or a bank of them.
        num_columns: panels in a row.
        max_panels: latents shown, the first ones where there are more.

    Returns:
        The figure; save it with `figure.savefig(path)`.
    """
    num_in_all = math.prod(prior.batch_shape)
    z, learnt, reference = density_curves(prior, max_panels)
    num_latents = learnt.shape[1]
    num_columns = min(num_columns, num_latents)
    num_rows = -(-num_latents // num_columns)
    figure = Figure(figsize=(2.4 * num_columns + 0.4, 1.8 * num_rows + 0.7), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True, sharey=True)
    indices = list(np.ndindex(prior.batch_shape))
    for column, panel in enumerate(panels.flat):
        if column >= num_latents:
            panel.set_visible(False)
            continue
        learnt_label, reference_label = ("learnt", "reference") if column == 0 else (None, None)
        panel.fill_between(z, learnt[:, column], color=MAIN, alpha=0.2, linewidth=0)
        panel.plot(z, learnt[:, column], color=MAIN, linewidth=1.4, label=learnt_label)
        panel.plot(z, reference[:, column], color=NEUTRAL, linewidth=1.1, linestyle="--", label=reference_label)
        if prior.batch_shape:
            panel.set_title(f"z[{', '.join(map(str, indices[column]))}]", fontsize=9)
        panel.tick_params(labelsize=8, labelbottom=column + num_columns >= num_latents)
        plain_axes(panel)
    # A density may be infinite at an end of its support.
    panels[0, 0].set_ylim(0, 1.08 * np.max(learnt[np.isfinite(learnt)]))
    shown = "" if num_latents == num_in_all else f" (the first {num_latents} of {num_in_all:,} latents)"
    figure.supxlabel("latent value z" + shown, fontsize=10)
    figure.supylabel("density", fontsize=10)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def plot_fit(fitted: TiltedFit, *, level: float = 0.95, num_columns: int = 4, max_panels: int = 16) -> Figure:
    """Fitted densities with their confidence bands over histograms of the samples, one small panel each.

    Args:
        fitted: made by `KANTilted.fit`.
        level: of the bands, in (0, 1).
        num_columns: panels in a row.
        max_panels: densities shown, the first ones where there are more.

    Returns:
        The figure; save it with `figure.savefig(path)`.
    """
    density, observations = fitted.density, fitted.observations
    number = min(max_panels, math.prod(density.batch_shape))
    low, high = observations.range
    margin = 0.05 * (high - low)
    # Points lead and the batch follows, as the densities broadcast.
    z = np.linspace(low - margin, high + margin, 400)
    points = z.reshape(-1, *density.batch_shape)
    inside = np.asarray(density.support(points)).reshape(z.shape)
    points = jnp.where(inside.reshape(points.shape), points, density.icdf(0.5))
    curve = np.exp(np.asarray(density.log_prob(points)))
    curve, below, above = (
        np.where(inside, np.asarray(x).reshape(z.shape), np.nan) for x in (curve, *fitted.band(points, level))
    )
    num_columns = min(num_columns, number)
    num_rows = -(-number // num_columns)
    figure = Figure(figsize=(2.4 * num_columns + 0.8, 1.8 * num_rows + 0.9), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False)
    for column, panel in enumerate(panels.flat):
        if column >= number:
            panel.set_visible(False)
            continue
        labels = ("samples", "fitted", f"{100 * level:g} % band") if column == 0 else (None, None, None)
        panel.hist(
            observations.finite[column], bins=40, weights=observations.weights[column], density=True, color="#d0d0d0",
            label=labels[0],
        )  # fmt: skip
        panel.plot(z[:, column], curve[:, column], color=MAIN, linewidth=1.4, label=labels[1])
        panel.fill_between(
            z[:, column], below[:, column], above[:, column], color=MAIN, alpha=0.25, linewidth=0, label=labels[2]
        )
        panel.set_ylim(0, 1.3 * np.nanmax(curve[:, column]))
        panel.tick_params(labelsize=8)
        plain_axes(panel)
    figure.supxlabel("value z", fontsize=10)
    figure.supylabel("density", fontsize=10)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def plot_images(generated: ArrayLike, real: ArrayLike, *, num_rows: int = 8, num_columns: int = 8) -> Figure:
    """A grid of generated images beside a grid of real ones; fewer images than it has places make a smaller square.

    Args:
        generated: images in [0, 1], shape (num_images, height, width) or (num_images, height, width, 3); values outside
            are clipped.
        real: images of the same height and width.
        num_rows: images in a column of each grid.
        num_columns: images in a row of each grid.

    Returns:
        The figure.

    Raises:
        ValueError: where the images have no height and width.
    """
    grids = {"generated": np.asarray(generated), "real": np.asarray(real)}
    for name, images in grids.items():
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
            raise ValueError(
                f"{name} has shape {images.shape}: expected (num_images, height, width), perhaps with a last axis of 3."
            )
    number = min(num_rows * num_columns, max(len(images) for images in grids.values()))
    if number < num_rows * num_columns:
        num_columns = min(num_columns, max(3, math.ceil(math.sqrt(number))))
        num_rows = min(num_rows, -(-number // num_columns))
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(0.9 * num_columns + 0.6, 0.45 * num_rows + 0.6), layout=layout)
    for panel, (name, images) in zip(figure.subplots(1, 2), grids.items(), strict=True):
        shown = images[: num_rows * num_columns]
        panel.imshow(_tile(np.clip(shown, 0, 1), num_rows, num_columns), cmap="gray_r", vmin=0, vmax=1)
        panel.set_title(name, fontsize=11)
        panel.set_axis_off()
    return figure


def plot_image_rows(images: ArrayLike, labels: Sequence[str], axis_label: str) -> Figure:
    """Rows of images, each with a label, such as paths through the latents of a model.

    Args:
        images: in [0, 1], shape (num_rows, num_columns, height, width) or (..., height, width, 3); values outside are
            clipped.
        labels: of the rows.
        axis_label: what changes along a row.

    Returns:
        The figure.

    Raises:
        ValueError: the images have another shape, or there are not as many labels as rows.
    """
    images = np.asarray(images)
    if images.ndim not in (4, 5) or (images.ndim == 5 and images.shape[-1] != 3):
        raise ValueError(
            f"`images` has shape {images.shape}: expected (rows, columns, height, width), perhaps with a last axis of 3."
        )
    num_rows, num_columns, height = images.shape[:3]
    if len(labels) != num_rows:
        raise ValueError(f"`labels` has {len(labels)} entries for {num_rows} rows of images.")
    figure = Figure(figsize=(0.75 * num_columns + 1.2, 0.75 * num_rows + 0.5), layout="constrained")
    panel = figure.subplots()
    tiled = _tile(np.clip(images, 0, 1).reshape(-1, *images.shape[2:]), num_rows, num_columns)
    panel.imshow(tiled, cmap="gray_r", vmin=0, vmax=1)
    panel.set_yticks(np.arange(num_rows) * (height + 1) + height / 2 - 0.5, labels, fontsize=8)
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.set_xlabel(axis_label, fontsize=9)
    return figure


def plot_snapshot(
    snapshot: Snapshot, z_range: tuple[float, float] | None = None, highest: float | None = None
) -> Figure:
    """Images drawn from a model, in a square, beside the densities it has learnt.

    Args:
        snapshot: images and densities.
        z_range: of the densities; None takes all that is there.
        highest: density at the top; None takes the highest.

    Returns:
        The figure.
    """
    images, curves = snapshot.images, snapshot.curves
    side = math.isqrt(len(images))
    figure = Figure(figsize=(4.4 if curves is None else 8.6, 4.6), layout="constrained")
    figure.suptitle(f"epoch {snapshot.epoch}", fontsize=11)
    parts: Any = [figure] if curves is None else figure.subfigures(1, 2)
    panel = parts[0].subplots()
    panel.imshow(_tile(np.clip(images[: side**2], 0, 1), side, side), cmap="gray_r", vmin=0, vmax=1)
    panel.set_axis_off()
    if curves is None:
        return figure
    top = 1.05 * (_highest(curves) if highest is None else highest)
    learnt = np.minimum(curves.learnt, 2 * top)
    columns = min(3, learnt.shape[1])
    rows = -(-learnt.shape[1] // columns)
    panels = parts[1].subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for column, panel in enumerate(panels.flat):
        if column >= learnt.shape[1]:
            panel.set_visible(False)
            continue
        panel.fill_between(curves.z, learnt[:, column], color=MAIN, alpha=0.2, linewidth=0)
        panel.plot(curves.z, learnt[:, column], color=MAIN, linewidth=1.2)
        panel.plot(curves.z, curves.reference[:, column], color=NEUTRAL, linewidth=0.9, linestyle="--")
        panel.tick_params(labelsize=7)
        plain_axes(panel)
    panels[0, 0].set_xlim(z_range or (curves.z[0], curves.z[-1]))
    panels[0, 0].set_ylim(0, top)
    parts[1].supxlabel("latent value z (dashed: reference)", fontsize=9)
    parts[1].supylabel("density", fontsize=9)
    return figure


def save_animation(path: str | PathLike, snapshots: Sequence[Snapshot], frames_per_second: int = 4) -> None:
    """Write snapshots as an animated GIF, all on the same axes; the last one stays for two seconds.

    Args:
        path: of the file.
        snapshots: in their order, all with densities or all without.
        frames_per_second: of the animation.

    Raises:
        ValueError: there are none.
    """
    if not snapshots:
        raise ValueError("`snapshots` is empty: give at least one.")
    curves = [one.curves for one in snapshots if one.curves is not None]
    z_range = (min(c.z[0] for c in curves), max(c.z[-1] for c in curves)) if curves else None
    highest = max(map(_highest, curves)) if curves else None
    frames = []
    for snapshot in snapshots:
        canvas = FigureCanvasAgg(plot_snapshot(snapshot, z_range, highest))
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(128))
    duration = [1000 // frames_per_second] * (len(frames) - 1) + [2000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, loop=0, optimize=True)


def _highest(curves: Curves) -> float:
    """The highest learnt density; one may be infinite at an end of its support."""
    return float(np.max(curves.learnt[np.isfinite(curves.learnt)]))


def _range(prior: TiltedDistribution) -> tuple[float, float]:
    """Ends of a range that holds nearly all mass of every density and of every reference.

    Of a heavy tail less is shown: it would leave no room for the rest.
    """
    (low, high), (low_near, high_near) = (_range_of_mass(prior, mass) for mass in (1e-3, 2e-2))
    is_heavy = high - low > 2 * (high_near - low_near)
    if not is_heavy:
        return low, high
    # The side that is not heavy keeps its range.
    width = high_near - low_near
    return max(low, low_near - width / 2), min(high, high_near + width / 2)


def _range_of_mass(prior: TiltedDistribution, mass: float) -> tuple[float, float]:
    low, high = (np.asarray(x) for x in _icdf(prior.reference, np.array([mass, 1 - mass])))
    # Left of the panel where the mass is passed, and right of it; beyond the panels a density is the reference's.
    edges, lower, upper = (np.asarray(x) for x in prior.table[:3])
    left, right = edges[..., :-1][lower[..., 1:] > mass], edges[..., 1:][upper[..., :-1] > mass]
    return float(min(low.min(), left.min())), float(max(high.max(), right.max()))


@jax.jit
def _icdf(reference: Distribution, masses: ArrayLike) -> Array:
    return jax.vmap(reference.icdf)(masses)


@jax.jit
def _densities(
    prior: TiltedDistribution, log_normalizer: tuple[Array, Array], points: ArrayLike
) -> tuple[Array, Array]:
    """Of the prior and its reference. One program: operations one by one would take seconds to compile."""
    prior = prior.given(log_normalizer=log_normalizer)
    return jnp.exp(prior.log_prob(points)), jnp.exp(prior.reference.log_prob(points))


def _tile(images: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    """One image of all, with a white line between neighbours: 1 in colours, 0 where ink is 1."""
    height, width = images.shape[1:3]
    shape = (num_rows * (height + 1) - 1, num_columns * (width + 1) - 1, *images.shape[3:])
    canvas = np.full(shape, 1.0 if images.ndim == 4 else 0.0)
    for index, image in enumerate(images):
        row, column = divmod(index, num_columns)
        top, left = row * (height + 1), column * (width + 1)
        canvas[top : top + height, left : left + width] = image
    return canvas
