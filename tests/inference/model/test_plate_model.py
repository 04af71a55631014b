import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

from kaem_ppl.inference.model.plate_model import read_plate_model

X = jnp.ones((6, 2))


def read(model, data=X, plate="data"):
    return read_plate_model(jax.random.key(0), model, data, plate, {})


def test_sites_of_a_plain_model(linear_gaussian):
    found = read_plate_model(jax.random.key(0), linear_gaussian.model, X[:, :1], "data", linear_gaussian.params)
    assert (found.latent, found.observed, found.draws_are_shared) == (("z",), ("x",), True)


def test_length_and_dtype_of_the_data_are_not_covariates():
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros_like(x[:, 0]), x.shape[1]))
            numpyro.sample("x", dist.Normal(z[:, None], 1).expand(x.shape).to_event(1), obs=jnp.log1p(x))

    assert read(model).draws_are_shared


def likelihood_reads_data(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z + x[:, 1], 1), obs=x[:, 0])


def prior_reads_data(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(x[:, 1], 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


def second_observation_reads_the_first(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        first = numpyro.sample("first", dist.Normal(z, 1), obs=x[:, 0])
        numpyro.sample("second", dist.Normal(z + first, 1), obs=x[:, 1])


def mask_reads_data(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        with numpyro.handlers.mask(mask=x[:, 1] > 0):
            numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


def scale_reads_data(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        with numpyro.handlers.scale(scale=x[:, 1]):
            numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


def factor_reads_data(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.factor("log_likelihood", -((z - x[:, 0]) ** 2))


@pytest.mark.parametrize(
    "model",
    [
        likelihood_reads_data,
        prior_reads_data,
        second_observation_reads_the_first,
        mask_reads_data,
        scale_reads_data,
        factor_reads_data,
    ],
)
def test_own_covariates_are_found_and_scored(model):
    # What the draws are worth meets closed forms in test_importance_evidence; here, that the dependence is seen.
    found = read(model)
    assert not found.draws_are_shared
    log_likelihood, log_prior = found.score_prior_draws(jax.random.key(1), {}, X, 10)
    assert log_likelihood.shape == log_prior.shape == (6, 10)
    assert jnp.isfinite(log_likelihood).all()


def latent_outside(x):
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, scale))
        numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


def observed_outside(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
    numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


def discrete_latent(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Geometric(0.5))
        numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


def nothing_observed(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(0, 1))


def nothing_latent(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(0, 1), obs=x[:, 0])


def fixed_plate(x):
    with numpyro.plate("data", 6):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


def subsampling_plate(x):
    with numpyro.plate("data", len(x), subsample_size=3):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x[:3, 0])


def scaled_latent(x):
    with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=0.5):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


def masked_latent(x):
    with numpyro.plate("data", len(x)), numpyro.handlers.mask(mask=False):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x[:, 0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (latent_outside, "Latent site 'scale' stands outside plate 'data'"),
        (observed_outside, "Observed site 'x' stands outside plate 'data'"),
        (discrete_latent, "Latent site 'z' is discrete"),
        (nothing_observed, "no observed site"),
        (nothing_latent, "no latent site"),
        (fixed_plate, "has size 6 where the model was given 3 rows"),
        (subsampling_plate, "subsamples 3 of"),
        (scaled_latent, "Latent site 'z' is scaled or masked"),
        (masked_latent, "Latent site 'z' is scaled or masked"),
    ],
)
def test_refuses(model, message):
    with pytest.raises(ValueError, match=message):
        read(model)


def test_unknown_plate_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"`plate` is 'rows', but the model's plates are \['data'\]"):
        read(likelihood_reads_data, plate="rows")
