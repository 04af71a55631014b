"""The posterior that Markov chains see during training: its tabulated priors against the exact ones."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.inference.model.training_model import read_training_model


def make_model(basis, num_components):
    def model(x):
        prior = kp.kan_prior(
            "prior",
            (3,),
            basis=basis,
            domain=(-1.5, 1.5),
            reference=dist.Normal(0, 1),
            num_components=num_components,
            adaptive_grid=True,
        )
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior.to_event(1))
            numpyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)

    return model


@pytest.mark.parametrize(
    ("basis", "num_components", "tolerance"),
    [
        pytest.param(kp.RBF(20), None, 1e-5, marks=pytest.mark.slow),
        pytest.param(kp.RBF(20), 5, 1e-5, marks=pytest.mark.exhaustive),
        pytest.param(kp.Fourier(50), None, 5e-4, marks=pytest.mark.slow),
        pytest.param(kp.Fourier(50), 5, 1e-2, marks=pytest.mark.exhaustive),
    ],
    ids=["RBF", "RBF mixture", "Fourier", "Fourier mixture"],
)
def test_a_table_made_anew_at_each_update_is_the_prior(basis, num_components, tolerance):
    # Oracle: the distribution itself, at parameters and on a grid that differ from those the model was read with. Energies
    # have a standard deviation of about two nats, spread evenly over the basis, up to its shortest wave.
    model, data = make_model(basis, num_components), jnp.zeros((4, 3))
    with handlers.trace() as sites, handlers.seed(rng_seed=0):
        model(data)
    first = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}
    plate_model = read_training_model(jax.random.key(0), model, data, "data", first)
    coef = first["prior$params"]["coef"]
    coef = 2 / np.sqrt(coef.shape[-1]) * jax.random.normal(jax.random.key(1), coef.shape)
    grid = first["prior$grid"]
    params = {
        "prior$params": {**first["prior$params"], "coef": coef},
        "prior$grid": {"grid": 1.5 * grid["grid"], "domain": 1.5 * grid["domain"]},
    }
    z = jnp.linspace(-2.24, 2.24, 2001)[:, None]

    @jax.jit
    def densities(params):
        (table,) = plate_model.posterior(params, data).tables.values()
        (exact,) = plate_model.priors(params, data, ["z"]).values()
        return [(fn.log_prob(z), jax.jvp(fn.log_prob, (z,), (jnp.ones_like(z),))[1]) for fn in (table, exact)]

    (value, slope), (exact, exact_slope) = densities(params)
    # The table of a prior without components is short of the normaliser.
    off = value - exact
    off = off - off.mean(0)
    assert exact.std() > 0.5
    assert jnp.abs(off).max() < tolerance
    assert jnp.abs(slope - exact_slope).max() < 10 * tolerance * jnp.abs(exact_slope).max()
