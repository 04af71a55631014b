"""Both layouts of the model: their sites, their densities written out, and that they learn digits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import kaem_ppl as kp
from kaem_ppl.inference import AdaptiveGrid, ImportanceMLE, fit
from kaem_ppl.models import ConvGenerator, KANGenerator, MixtureKAEM, MLPGenerator, ProductKAEM, split_digits
from kaem_ppl.models.generators import Bfloat16Generator

PRIOR = {"basis": kp.RBF(6), "domain": (-3.0, 3.0), "reference": dist.Normal(0, 1)}
GENERATOR = MLPGenerator((3, 5, 4), output=jax.nn.sigmoid)
MODELS = {
    "product": ProductKAEM((3, 2), GENERATOR, scale=0.3, **PRIOR),
    "mixture": MixtureKAEM((3, 2), GENERATOR, scale=0.3, **PRIOR),
}
LATENT_SHAPES = {"product": (3, 2), "mixture": (3,)}


def trace_of(model, *args, params=None, **kwargs):
    with handlers.trace() as trace, handlers.substitute(data=params or {}), handlers.seed(rng_seed=0):
        model(*args, **kwargs)
    return trace


def values_of(model, *args, kind=("param", "sample", "deterministic"), **kwargs):
    sites = trace_of(model, *args, **kwargs)
    return {name: site["value"] for name, site in sites.items() if site["type"] in kind}


def parameters(model):
    # Compiled, so that the draws nobody reads are left out.
    return jax.jit(lambda: values_of(model, size=1, kind=("param",)))()


@pytest.mark.parametrize("layout", MODELS)
def test_sites(layout):
    model, latent_shape = MODELS[layout], LATENT_SHAPES[layout]
    # Shapes alone: nothing is compiled.
    sites = jax.eval_shape(lambda: values_of(model, size=5))
    assert set(sites) == {"prior$params", "generator$params", "z", "mean", "x"}
    assert sites["z"].shape == (5, *latent_shape)
    assert sites["x"].shape == sites["mean"].shape == (5, 4)
    x = jnp.arange(28.0).reshape(7, 4)
    conditioned = jax.jit(lambda x: values_of(model, x)["x"])(x)
    np.testing.assert_array_equal(conditioned, x)
    assert jax.eval_shape(lambda x: values_of(model, x), x)["z"].shape == (7, *latent_shape)


@pytest.mark.parametrize("layout", MODELS)
def test_an_adaptive_grid_is_a_site(layout):
    sites = jax.eval_shape(lambda: values_of(dataclasses.replace(MODELS[layout], adaptive_grid=True), size=5))
    assert {name: leaf.shape for name, leaf in sites["prior$grid"].items()} == {"grid": (3, 2, 6), "domain": (3, 2, 2)}


def one_by_one(params, z, layout):
    """Log prior, a latent at a time: for the mixture, the sum over components of densities normalised on their own."""
    values = params["prior$params"]
    template = kp.UnivariateKAN.init(jax.random.key(0), basis=PRIOR["basis"], domain=PRIOR["domain"])
    constants = {name: getattr(template, name) for name in ("grid", "width", "domain", "basis")}
    total = 0.0
    for q in range(3):
        densities = [
            kp.KANTilted(
                kp.UnivariateKAN(
                    values["coef"][q, p], values["base_weight"][q, p], values["spline_weight"][q, p], **constants
                ),
                PRIOR["reference"],
            )
            for p in range(2)
        ]
        if layout == "product":
            total += sum(density.log_prob(z[:, q, p]) for p, density in enumerate(densities))
        else:
            terms = jnp.stack([density.log_prob(z[:, q]) for density in densities])
            total += jax.nn.logsumexp(terms + jax.nn.log_softmax(values["logits"][q])[:, None], axis=0)
    return total


@pytest.mark.parametrize("layout", [x if x == "product" else pytest.param(x, marks=pytest.mark.slow) for x in MODELS])
def test_the_joint_density_is_the_one_written_out(layout):
    model = MODELS[layout]
    params = parameters(model)
    if layout == "mixture":
        params["prior$params"]["logits"] = jnp.arange(6.0).reshape(3, 2)
    z = jax.random.normal(jax.random.key(1), (5, *LATENT_SHAPES[layout]))
    x = jax.random.uniform(jax.random.key(2), (5, 4))
    with handlers.substitute(data=params):
        mean = GENERATOR("generator")(z.sum(-1) if layout == "product" else z)
    expected = one_by_one(params, z, layout).sum() + dist.Normal(mean, 0.3).log_prob(x).sum()
    density, _ = log_density(model, (x,), {}, {**params, "z": z})
    np.testing.assert_allclose(density, expected, rtol=1e-5)


def test_outputs_may_be_images():
    def generator(name):
        flat = KANGenerator((3, 4 * 4))(name)
        return lambda z: flat(z).reshape(*z.shape[:-1], 4, 4)

    model = ProductKAEM((3, 2), generator, scale=0.3, **PRIOR)

    def log_density_of_images(x):
        with handlers.trace() as trace, handlers.seed(rng_seed=0):
            model(x)
        return trace["x"]["fn"].log_prob(x)

    assert jax.eval_shape(lambda: values_of(model, size=5))["x"].shape == (5, 4, 4)
    assert jax.eval_shape(log_density_of_images, jnp.zeros((7, 4, 4))).shape == (7,)


@pytest.mark.exhaustive
@pytest.mark.parametrize("make", [ProductKAEM, MixtureKAEM])
def test_a_few_epochs_on_digits_help(make):
    pytest.importorskip("sklearn")
    images = split_digits()[0].images[:100]
    model = make((4, 2), KANGenerator((4, 9, 64), output=jax.nn.sigmoid), scale=0.3, **PRIOR)
    _, history, *_ = fit(
        jax.random.key(0),
        model,
        images,
        num_epochs=3,
        batch_size=20,
        strategy=ImportanceMLE(num_particles=200),
        progress_bar=False,
    )
    assert np.all(np.isfinite(history["log_evidence"]))
    assert history["log_evidence"][-1] > history["log_evidence"][0] + 1


@pytest.mark.exhaustive
def test_training_with_refitted_grids_and_a_bfloat16_generator():
    pytest.importorskip("sklearn")
    images = split_digits()[0].images[:100].reshape(-1, 8, 8, 1)
    generator = Bfloat16Generator(ConvGenerator(4, (8, 8, 1), (8, 4)))
    model = MixtureKAEM((4, 2), generator, scale=0.3, adaptive_grid=True, **PRIOR)
    params, history, *_ = fit(
        jax.random.key(0),
        model,
        images,
        num_epochs=3,
        batch_size=20,
        strategy=ImportanceMLE(num_particles=200),
        grids=AdaptiveGrid(),
        progress_bar=False,
    )
    assert np.all(np.isfinite(history["log_evidence"]))
    assert history["log_evidence"][-1] > history["log_evidence"][0] + 1
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    domain = params["prior$grid"]["domain"]
    assert (domain != jnp.array([-3.0, 3.0])).all()
