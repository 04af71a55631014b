import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import log_density, potential_energy

import kaem_ppl as kp
from kaem_ppl.inference.model.coordinates import Unconstrained, Whitened
from kaem_ppl.inference.model.power_posterior import read_power_posterior

Y = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


noncentred = handlers.reparam(eight_schools, config={"theta": LocScaleReparam(0)})


def read(model, *args, coordinates=Unconstrained(), **kwargs):  # noqa: B008
    settings = {name: kwargs.pop(name) for name in ("params", "plate") if name in kwargs}
    return read_power_posterior(model, args, kwargs, coordinates=coordinates, **settings)


@pytest.mark.parametrize("model", [eight_schools, noncentred], ids=["centred", "reparameterised"])
def test_unconstrained_density_is_numpyros(model):
    # Oracle: NumPyro's potential energy.
    posterior = read(model, SIGMA, y=Y)
    target = posterior.target(())
    position = target.draw(jax.random.key(0))
    exact = -potential_energy(model, (SIGMA,), {"y": Y}, position)
    np.testing.assert_allclose(target.log_prior(position) + target.log_likelihood(position), exact, rtol=1e-5)
    values = posterior.values((), position)
    assert values["tau"] > 0
    if model is noncentred:
        assert [site.name for site in posterior.deterministics] == ["theta"]
        theta = posterior.deterministic_values((), position)["theta"]
        np.testing.assert_allclose(theta, values["mu"] + values["tau"] * values["theta_decentered"], rtol=1e-5)


def test_whitened_density_is_the_same_model():
    # Oracle: NumPyro's log joint density, by the change of variables to a standard normal.
    posterior = read(eight_schools, SIGMA, y=Y, coordinates=Whitened())
    target = posterior.target(())
    position = target.draw(jax.random.key(0))
    flat = jnp.concatenate([jnp.ravel(x) for x in position.values()])
    np.testing.assert_allclose(target.log_prior(position), dist.Normal(0, 1).log_prob(flat).sum(), rtol=1e-6)
    values = posterior.values((), position)
    np.testing.assert_allclose(target.log_likelihood(position), dist.Normal(values["theta"], SIGMA).log_prob(Y).sum())
    np.testing.assert_allclose(values["mu"], 5 * position["mu"], rtol=1e-6)
    # Each site follows those before it: the inner one is centred at mu with scale tau.
    np.testing.assert_allclose(values["theta"], values["mu"] + values["tau"] * position["theta"], rtol=1e-5)


def test_scales_masks_factors_and_deterministics():
    mask = jnp.array([True, False, True])

    def model(x):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.deterministic("square", z**2)
        numpyro.factor("penalty", -0.3 * z**2)
        with handlers.scale(scale=2.5), handlers.mask(mask=mask), numpyro.plate("n", 3):
            numpyro.sample("x", dist.Normal(z, 1), obs=x)

    x = jnp.array([1.0, 2.0, 3.0])
    posterior = read(model, x)
    target, z = posterior.target(()), {"z": jnp.array(0.4)}
    joint, _ = log_density(model, (x,), {}, z)
    np.testing.assert_allclose(target.log_prior(z), dist.Normal(0, 1).log_prob(0.4))
    np.testing.assert_allclose(target.log_prior(z) + target.log_likelihood(z), joint, rtol=1e-6)
    np.testing.assert_allclose(posterior.deterministic_values((), z)["square"], 0.16)
    assert set(posterior.observations()) == {"x"}
    assert {site.name: site.dims for site in posterior.observed} == {"penalty": (), "x": ("n",)}


def test_flat_and_scaled_priors():
    def flat(x):
        z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.positive, (), ()))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)

    def scaled(x):
        with handlers.scale(scale=3.0):
            z = numpyro.sample("z", dist.LogNormal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)

    for model in (flat, scaled):
        posterior = read(model, jnp.array(1.0))
        target, u = posterior.target(()), {"z": jnp.array(-0.4)}
        # Oracle: NumPyro's log density of z = exp(u), and the Jacobian, which no handler scales.
        joint, _ = log_density(model, (jnp.array(1.0),), {}, {"z": jnp.exp(u["z"])})
        np.testing.assert_allclose(target.log_prior(u) + target.log_likelihood(u), joint + u["z"], rtol=1e-6)
        assert not posterior.has_proper_prior
        assert jnp.isfinite(target.draw(jax.random.key(0))["z"])
    with pytest.raises(ValueError, match="'z' is scaled or masked"):
        read(scaled, jnp.array(1.0), coordinates=Whitened())


def rows_model(x, offset, *, scale, kind, size=None):
    weight = numpyro.param("weight", jnp.ones(2))
    with numpyro.plate("inner", 3, dim=-2), numpyro.plate("data", len(x) if size is None else size):
        z = numpyro.sample("z", dist.Normal(0, 1).expand((2,)).to_event(1))
        mean = numpyro.deterministic("mean", (z * weight).sum(-1) + offset)
        numpyro.sample("x", dist.Normal(mean, scale), obs=x[None].repeat(3, 0))
        assert kind == "plain"


def test_rows_of_a_plate_are_the_whole_model():
    # Oracle: NumPyro's log density of all rows together.
    x, offset = jnp.arange(4.0), jnp.linspace(0, 1, 4)
    params = {"weight": jnp.array([0.5, -1.0])}
    kwargs = {"scale": jnp.array(0.7), "kind": "plain"}
    posterior = read(rows_model, x, offset, params=params, plate="data", **kwargs)
    assert posterior.num_data == 4
    z = jax.random.normal(jax.random.key(0), (4, 3, 1, 2))

    def joint(datum, z):
        target = posterior.target(datum)
        return target.log_prior({"z": z}) + target.log_likelihood({"z": z})

    whole = {"z": jnp.moveaxis(z[:, :, 0], 0, 1)}
    exact, _ = log_density(handlers.substitute(rows_model, data=params), (x, offset), kwargs, whole)
    np.testing.assert_allclose(jax.vmap(joint)(posterior.rows, z).sum(), exact, rtol=1e-5)
    values = jax.vmap(posterior.values)(posterior.rows, {"z": z})
    assert values["z"].shape == (4, 3, 2)
    means = jax.vmap(posterior.deterministic_values)(posterior.rows, {"z": z})
    np.testing.assert_allclose(means["mean"], (z[:, :, 0] * params["weight"]).sum(-1) + offset[:, None], rtol=1e-5)
    assert posterior.observations()["x"].shape == (4, 3)
    assert posterior.latents[0].dims == ("inner",)


@pytest.mark.slow
@pytest.mark.parametrize("coordinates", [Unconstrained(), Whitened()], ids=["unconstrained", "whitened"])
def test_tilted_prior_is_tabulated_once(coordinates):
    # Oracle: the distribution that the model declares.
    def model(x):
        prior = kp.kan_prior("prior", (2,), basis=kp.RBF(8), domain=(-1.5, 1.5), reference=dist.Normal(0, 1))
        shift = numpyro.param("shift", jnp.array(0.0))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior.to_event(1))
            numpyro.sample("x", dist.Normal(z.sum(-1) + shift, 0.5), obs=x)

    x = jnp.array([0.3, -1.0])
    with handlers.trace() as sites, handlers.seed(rng_seed=0):
        model(x)
    params = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}
    posterior = read(model, x, params=params, plate="data", coordinates=coordinates)
    assert set(posterior.tables) == {"z"}
    target = posterior.target((x[0],))
    position = target.draw(jax.random.key(0))
    z = posterior.values((x[0],), position)["z"]
    fn = sites["z"]["fn"].base_dist.base_dist
    if isinstance(coordinates, Unconstrained):
        np.testing.assert_allclose(target.log_prior(position), fn.log_prob(z).sum(), atol=1e-5)
        np.testing.assert_allclose(position["z"], z[None])
    else:
        np.testing.assert_allclose(fn.cdf(z), jax.scipy.special.ndtr(position["z"][0]), atol=1e-6)
        np.testing.assert_allclose(target.log_prior(position), dist.Normal(0, 1).log_prob(position["z"]).sum())
    np.testing.assert_allclose(target.log_likelihood(position), dist.Normal(z.sum(), 0.5).log_prob(x[0]), rtol=1e-5)


def test_prior_that_depends_on_a_latent_is_not_tabulated():
    energy = kp.UnivariateKAN.init(jax.random.key(0), (), basis=kp.RBF(8), domain=(-1.5, 1.5))

    def model(x):
        loc = numpyro.sample("loc", dist.Normal(0, 1))
        z = numpyro.sample("z", kp.KANTilted(energy, dist.Normal(loc, 1)))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)

    assert read(model, jnp.array(0.0)).tables == {}


def discrete(x):
    k = numpyro.sample("k", dist.Poisson(0.5))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(k, 1), obs=x)


def outside(x):
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(loc, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


def unobserved(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(0, 1))


def all_observed(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(0, 1), obs=x)


def subsampled(x):
    with numpyro.plate("data", len(x), subsample_size=1):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x[:1])


def fixed_size(x):
    with numpyro.plate("data", 3):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


def learnt(x):
    scale = numpyro.param("scale", jnp.array(1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, scale))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


@pytest.mark.parametrize(
    ("model", "plate", "params", "message"),
    [
        (discrete, None, None, "'k' is discrete with infinitely many values"),
        (outside, "data", None, "Latent site 'loc' stands outside plate 'data'"),
        (unobserved, None, None, "no observed site"),
        (all_observed, None, None, "no latent site"),
        (subsampled, None, None, "'data' subsamples 1 of 3 rows"),
        (fixed_size, "data", None, "size 3 where the model was given 1 of its 3 rows"),
        (outside, "rows", None, r"`plate` is 'rows', but the model's plates are \['data'\]"),
        (learnt, "data", None, r"`params` lacks the model's \['scale'\]"),
        (learnt, "data", {"scale": 1.0, "loc": 0.0}, r"`params` names \['loc'\]"),
    ],
)
def test_refuses(model, plate, params, message):
    with pytest.raises(ValueError, match=message):
        read(model, jnp.zeros(3), plate=plate, params=params)
