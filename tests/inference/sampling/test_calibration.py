"""Simulation-based calibration (Talts et al. 2018): ranks of what data were made from among draws given the data."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.inference import MALA, NUTS, AdaptedLadder, ParallelTempering, TemperedSMC, sample_posterior

REPLICATIONS, DRAWS, BINS = 500, 99, 20


def kaem(x=None, size=None):
    prior = kp.kan_prior("prior", (2,), basis=kp.RBF(10), domain=(-2, 2), reference=dist.Normal(0, 1))
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        mean = z + 0.3 * jnp.sin(2 * z[..., ::-1])
        numpyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)


@pytest.fixture(scope="module")
def replications():
    """Parameters, and latents drawn from the prior with data drawn given each of them."""
    with handlers.seed(rng_seed=0), handlers.trace() as sites:
        kaem(size=1)
    params = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}
    params = jax.tree.map(lambda p: p + 0.5 * jax.random.normal(jax.random.key(3), p.shape), params)
    with handlers.seed(rng_seed=1), handlers.trace() as sites, handlers.substitute(data=params):
        kaem(size=REPLICATIONS)
    return params, np.asarray(sites["z"]["value"]), sites["x"]["value"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "thin"),
    [
        pytest.param(MALA(), 20, marks=pytest.mark.exhaustive),
        pytest.param(NUTS(), 5, marks=pytest.mark.exhaustive),
        pytest.param(TemperedSMC(num_particles=500, kernel=MALA()), 1, marks=pytest.mark.exhaustive),
        pytest.param(ParallelTempering(MALA(), ladder=AdaptedLadder(4)), 20, marks=pytest.mark.exhaustive),
    ],
    ids=["MALA", "NUTS", "TemperedSMC", "ParallelTempering"],
)
def test_ranks_are_uniform(replications, sampler, thin):
    # Draws are thinned until they are nearly independent. Ranks of both latents and of the log-likelihood among 99 draws
    # fall into 20 bins of equal probability: p-values above 1e-3 by chi-square. 12 tests: a false alarm in 1.2 % of seeds.
    params, truth, x = replications
    draws = sample_posterior(
        jax.random.key(2), kaem, x, params=params, sampler=sampler, num_chains=1, num_samples=DRAWS * thin, num_warmup=500,
        plate="data", progress_bar=False,
    )  # fmt: skip
    z = np.asarray(draws.samples["z"])[0, ::thin]
    mean = truth + 0.3 * np.sin(2 * truth[:, ::-1])
    true_log_likelihood = st.norm(mean, 0.5).logpdf(np.asarray(x)).sum(-1)
    drawn_log_likelihood = np.asarray(draws.sample_stats["log_likelihood"])[0, ::thin]
    ranks = {
        "z[0]": (z[..., 0] < truth[:, 0]).sum(0),
        "z[1]": (z[..., 1] < truth[:, 1]).sum(0),
        "log_likelihood": (drawn_log_likelihood < true_log_likelihood).sum(0),
    }
    for name, rank in ranks.items():
        counts = np.bincount(rank * BINS // (DRAWS + 1), minlength=BINS)
        assert counts.sum() == REPLICATIONS
        assert st.chisquare(counts).pvalue > 1e-3, (name, counts)
