"""The primitives: what they register, how it starts, and how it is substituted."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.network import KANetwork

SETTINGS = {"basis": kp.RBF(8), "domain": (-3, 3), "reference": dist.Normal(0, 1)}


def design_model(x=None, size=None):
    """The usage that the design document fixes."""
    prior = kp.kan_prior("prior", (8,), basis=kp.RBF(20), domain=(-3, 3), reference=dist.Normal(0, 1))
    decode = kp.kan_generator("decoder", (8, 17, 64), output=jax.nn.sigmoid)
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(decode(z), 0.2).to_event(1), obs=x)


def trace_of(model, *args, params=None, **kwargs):
    with handlers.trace() as trace, handlers.substitute(data=params or {}), handlers.seed(rng_seed=0):
        model(*args, **kwargs)
    return trace


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def test_the_designs_model_registers_its_parameters():
    def values():
        return {name: site["value"] for name, site in trace_of(design_model, size=5).items() if name != "data"}

    # Shapes alone: nothing is compiled.
    sites = jax.eval_shape(values)
    assert set(sites) == {"prior$params", "decoder$params", "z", "x"}
    assert shapes(sites["prior$params"]) == {"coef": (8, 20), "base_weight": (8,), "spline_weight": (8,)}
    assert shapes(sites["decoder$params"]) == {
        "layer_0": {"coef": (8, 17, 10), "base_weight": (8, 17), "spline_weight": (8, 17)},
        "layer_1": {"coef": (17, 64, 10), "base_weight": (17, 64), "spline_weight": (17, 64)},
    }
    assert sites["z"].shape == (5, 8)
    assert sites["x"].shape == (5, 64)


@pytest.mark.exhaustive
def test_the_designs_model_learns_by_svi():
    x = jax.random.uniform(jax.random.key(1), (20, 64))
    guide = numpyro.infer.autoguide.AutoNormal(design_model)
    svi = numpyro.infer.SVI(design_model, guide, optax.adam(1e-2), numpyro.infer.Trace_ELBO())
    result = svi.run(jax.random.key(0), 30, x, progress_bar=False)
    assert result.losses[-1] < 0.9 * result.losses[0]
    assert {"prior$params", "decoder$params"} <= set(result.params)


@pytest.mark.parametrize("num_components", [pytest.param(None, marks=pytest.mark.slow), 3])
def test_a_prior_starts_close_to_its_reference(num_components):
    with handlers.seed(rng_seed=0):
        prior = kp.kan_prior("prior", (50,), num_components=num_components, **SETTINGS)
    assert prior.batch_shape == (50,)
    z = jnp.linspace(-4, 4, 33)[:, None]
    assert jnp.abs(prior.log_prob(z) - dist.Normal(0, 1).log_prob(z)).max() < 1.5
    assert jnp.abs(prior.log_prob(z) - dist.Normal(0, 1).log_prob(z)).mean() < 0.25


def test_a_mixture_has_logits():
    trace = trace_of(lambda: kp.kan_prior("prior", (4,), num_components=3, **SETTINGS))
    values = trace["prior$params"]["value"]
    assert shapes(values) == {"coef": (4, 3, 8), "base_weight": (4, 3), "spline_weight": (4, 3), "logits": (4, 3)}
    with handlers.substitute(data={"prior$params": values}):
        prior = kp.kan_prior("prior", (4,), num_components=3, **SETTINGS)
    energy = kp.UnivariateKAN.init(jax.random.key(0), basis=kp.RBF(8), domain=(-3, 3))
    energy = kp.UnivariateKAN(
        values["coef"],
        values["base_weight"],
        values["spline_weight"],
        energy.grid,
        energy.width,
        energy.domain,
        energy.basis,
    )
    expected = kp.KANTiltedMixture(values["logits"], energy, dist.Normal(0, 1))
    z = jnp.linspace(-4, 4, 9)[:, None]
    np.testing.assert_allclose(prior.log_prob(z), expected.log_prob(z), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("basis", [kp.RBF(8, trainable_width=True), kp.Chebyshev(5, trainable_width=True)])
def test_a_trainable_width_starts_at_its_value_and_keeps_its_constraint(basis):
    def model():
        return kp.kan_prior("prior", (2,), basis=basis, domain=(-3, 3), reference=dist.Normal(0, 1))

    values = trace_of(model)["prior$params"]["value"]
    with handlers.substitute(data={"prior$params": values}):
        np.testing.assert_allclose(model().energy.width, basis.default_width((-3.0, 3.0)), rtol=1e-6)
    for number in (-3.0, 3.0):
        with handlers.substitute(data={"prior$params": {**values, "unconstrained_width": jnp.array(number)}}):
            assert basis.width_constraint(model().energy.width)

    @jax.jit
    @jax.grad
    def slope(values):
        with handlers.substitute(data={"prior$params": values}):
            return model().log_prob(jnp.array(0.3)).sum()

    assert jnp.abs(slope(values)["unconstrained_width"]) > 0


def test_a_fixed_prior_stays_known_inside_a_traced_model():
    values = trace_of(lambda: kp.kan_prior("prior", (2,), **SETTINGS))["prior$params"]["value"]
    normalizers = []

    @jax.jit
    def log_prob(z):
        with handlers.substitute(data={"prior$params": values}):
            prior = kp.kan_prior("prior", (2,), **SETTINGS)
        normalizers.append(prior.log_normalizer)
        return prior.log_prob(z)

    log_prob(jnp.zeros(2))
    assert not isinstance(normalizers[0], jax.core.Tracer)


@pytest.mark.slow
def test_a_reference_may_be_learnt_too():
    def model():
        loc = numpyro.param("loc", 0.5)
        prior = kp.kan_prior("prior", (2,), basis=kp.RBF(8), domain=(-3, 3), reference=dist.Normal(loc, 1))
        numpyro.sample("z", prior.to_event(1))

    values = trace_of(lambda: kp.kan_prior("prior", (2,), **SETTINGS))["prior$params"]["value"]

    @jax.jit
    @jax.value_and_grad
    def log_prob(loc):
        data = {"prior$params": values, "loc": loc, "z": jnp.array([0.3, 2.0])}
        return numpyro.infer.util.log_density(model, (), {}, data)[0]

    step = 1e-2
    difference = (log_prob(0.5 + step)[0] - log_prob(0.5 - step)[0]) / (2 * step)
    np.testing.assert_allclose(log_prob(0.5)[1], difference, rtol=1e-2)


def test_a_generator_is_the_network_of_its_parameters():
    def generator():
        return kp.kan_generator("g", (3, 4, 2), basis=kp.RBF(7), domain=(-2, 2), output=jnp.tanh)

    values = trace_of(generator)["g$params"]["value"]
    network = KANetwork.init(jax.random.key(0), (3, 4, 2), basis=kp.RBF(7), domain=(-2, 2))
    layers = [
        kp.UnivariateKAN(**v, grid=layer.grid, width=layer.width, domain=layer.domain, basis=layer.basis)
        for v, layer in zip(values.values(), network.layers, strict=True)
    ]
    x = jax.random.normal(jax.random.key(1), (5, 3))
    with handlers.substitute(data={"g$params": values}):
        learnt = generator()
    np.testing.assert_allclose(learnt(x), jnp.tanh(KANetwork(tuple(layers))(x)), rtol=1e-6)
    assert isinstance(learnt, KANetwork)
    assert learnt.output is jnp.tanh


def test_without_a_seed_the_error_says_so():
    with pytest.raises(RuntimeError, match=r"'prior\$params'.*numpyro.handlers.seed"):
        kp.kan_prior("prior", (2,), **SETTINGS)
    with handlers.trace(), pytest.raises(RuntimeError, match=r"'g\$params'.*numpyro.handlers.seed"):
        kp.kan_generator("g", (2, 3))


def test_substituted_parameters_are_checked():
    values = trace_of(lambda: kp.kan_prior("prior", (2,), **SETTINGS))["prior$params"]["value"]
    wrong_shape = {**values, "coef": values["coef"][:, :3]}
    with (
        handlers.substitute(data={"prior$params": wrong_shape}),
        pytest.raises(ValueError, match=r"'prior\$params' has shape \(2, 3\) at \['coef'\]: expected \(2, 8\)"),
    ):
        kp.kan_prior("prior", (2,), **SETTINGS)
    with (
        handlers.substitute(data={"prior$params": {"coef": values["coef"]}}),
        pytest.raises(ValueError, match=r"'prior\$params' has the entries .*base_weight"),
    ):
        kp.kan_prior("prior", (2,), **SETTINGS)


def test_arguments_are_checked():
    with handlers.seed(rng_seed=0):
        with pytest.raises(ValueError, match="`num_components`"):
            kp.kan_prior("prior", (2,), num_components=0, **SETTINGS)
        with pytest.raises(ValueError, match="`sizes`"):
            kp.kan_generator("g", (2,))
        with pytest.raises(TypeError, match="`basis`"):
            kp.kan_prior("prior", (2,), basis=20, domain=(-3, 3), reference=dist.Normal(0, 1))
