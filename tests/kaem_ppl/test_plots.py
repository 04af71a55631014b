"""Figures have the panels, labels and curves that were asked for, and can be written."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp

pytest.importorskip("matplotlib")
from PIL import Image

from kaem_ppl.plots import Curves, Snapshot, plot_images, plot_prior, plot_snapshot, save_animation


def energy(shape):
    return kp.UnivariateKAN.init(jax.random.key(0), shape, basis=kp.RBF(8), domain=(-3, 3))


def visible(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_each_latent_has_its_density_over_its_reference(shape, tmp_path):
    prior = kp.KANTilted(energy(shape), dist.Normal(0, 1))
    figure = plot_prior(prior)
    panels = visible(figure)
    assert len(panels) == max(1, int(np.prod(shape)))
    z, density = panels[-1].lines[0].get_data()
    last = np.asarray(jnp.exp(prior.log_prob(jnp.asarray(z).reshape(-1, *(1,) * len(shape))))).reshape(len(z), -1)
    np.testing.assert_allclose(density, last[:, -1], rtol=1e-6)
    np.testing.assert_allclose(panels[-1].lines[1].get_ydata(), np.exp(dist.Normal(0, 1).log_prob(z)), rtol=1e-6)
    assert figure.get_supxlabel() == "latent value z"
    assert figure.get_supylabel() == "density"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["learnt", "reference"]
    figure.savefig(tmp_path / "prior.png")
    assert (tmp_path / "prior.png").stat().st_size > 5000


def test_a_mixture_over_a_half_line_stays_in_its_support():
    figure = plot_prior(kp.KANTiltedMixture(jnp.zeros(3), energy((4, 3)), dist.LogNormal(0, 1)))
    z, density = visible(figure)[0].lines[0].get_data()
    assert z.min() > 0
    assert np.all(np.isfinite(density))


def test_many_latents_are_cut_to_the_first():
    assert len(visible(plot_prior(kp.KANTilted(energy((2, 3)), dist.Normal(0, 1)), max_panels=4))) == 4


@pytest.mark.parametrize("colours", [(), (3,)])
def test_generated_images_stand_beside_real_ones(colours, tmp_path):
    generated, real = np.full((10, 8, 8, *colours), 0.25), np.full((3, 8, 8, *colours), 0.75)
    figure = plot_images(generated, real, num_rows=2, num_columns=4)
    assert [axes.get_title() for axes in figure.axes] == ["generated", "real"]
    left, right = (axes.images[0].get_array() for axes in figure.axes)
    assert left.shape == (17, 35, *colours)
    assert left[0, 0].mean() == 0.25
    assert right[0, 0].mean() == 0.75
    figure.savefig(tmp_path / "images.png")
    assert (tmp_path / "images.png").stat().st_size > 1000


def test_flat_images_are_refused():
    with pytest.raises(ValueError, match=r"generated has shape \(10, 64\)"):
        plot_images(np.zeros((10, 64)), np.zeros((10, 8, 8)))


def test_snapshots_become_an_animation_on_one_scale(tmp_path):
    # Colours and no densities, then grey levels with densities of which one is infinite at its end.
    rng = np.random.default_rng(0)
    save_animation(tmp_path / "plain.gif", [Snapshot(n, rng.uniform(size=(5, 3, 4, 3)), None) for n in (1, 2, 3)])
    z = np.linspace(0, 1, 400)
    first, second = (
        Curves(z + shift, np.full((400, 2), float(top)), np.ones((400, 2))) for shift, top in ((0, 1), (1, 3))
    )
    second.learnt[0, 0] = np.inf
    snapshots = [Snapshot(number, rng.uniform(size=(4, 3, 4)), c) for number, c in enumerate((first, second), 1)]
    save_animation(tmp_path / "both.gif", snapshots)
    for name, number in (("plain", 3), ("both", 2)):
        with Image.open(tmp_path / f"{name}.gif") as animation:
            assert animation.n_frames == number
    figure = plot_snapshot(snapshots[0], (0, 2), 3.0)
    densities = [panel for panel in figure.axes if panel.lines]
    assert len(densities) == 2
    assert densities[0].get_xlim() == (0, 2)
    assert densities[0].get_ylim() == pytest.approx((0, 3.15))
    with pytest.raises(ValueError, match="`snapshots` is empty"):
        save_animation(tmp_path / "none.gif", [])
