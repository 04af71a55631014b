import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from kaem_ppl.inference import MALA, ParallelTempering, PowerLadder, sample_posterior
from kaem_ppl.inference.diagnostics.plots import plot_posterior_over_prior, plot_replica_trace, plot_swap_rates


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(z.sum(-1), 0.3), obs=x)


@pytest.fixture(scope="module")
def tempered():
    sampler = ParallelTempering(MALA(step_size=0.05), ladder=PowerLadder(3, 2.0))
    return sample_posterior(
        jax.random.key(0), model, jnp.array([0.5, -1.0, 2.0]), sampler=sampler, num_chains=2, num_samples=40,
        num_warmup=0, plate="data", progress_bar=False,
    )  # fmt: skip


def test_swap_rates_stand_between_their_temperatures(tempered):
    panel = plot_swap_rates(tempered).axes[0]
    line = panel.lines[0]
    np.testing.assert_allclose(line.get_xdata(), [0.125, 0.625])
    np.testing.assert_allclose(line.get_ydata(), tempered.sample_stats["swap_acceptance"].mean((0, 1, 2)), rtol=1e-5)
    assert panel.get_xlabel()
    assert panel.get_ylabel()


def test_a_trace_is_where_the_replica_stands(tempered):
    figure = plot_replica_trace(tempered, chain=1, datum=2, max_steps=30)
    place = figure.axes[2].lines[0].get_ydata()
    assert len(place) == 30
    replica = np.asarray(tempered.sample_stats["replica"])[1, :30, 2]
    np.testing.assert_array_equal(replica[np.arange(30), place], 2)


def test_posterior_over_prior_has_a_panel_for_each_latent(tempered):
    figure = plot_posterior_over_prior(tempered)
    assert [panel.get_title() for panel in figure.axes] == ["z[0]", "z[1]"]
    # A colour for each of the three data, which add up to one density.
    bars = [container for container in figure.axes[0].containers if len(container) > 1]
    assert len(bars) == 3
    shares = [sum(patch.get_height() * patch.get_width() for patch in container) for container in bars]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "prior"


def test_a_ladder_is_asked_for(tempered):
    one = sample_posterior(
        jax.random.key(0), model, jnp.array([0.5]), sampler=MALA(step_size=0.1), num_chains=1, num_samples=4, num_warmup=0,
        plate="data", progress_bar=False,
    )  # fmt: skip
    for plot in (plot_swap_rates, plot_replica_trace):
        with pytest.raises(ValueError, match="come from MALA, which has no ladder"):
            plot(one)
