"""Generators register parameters under their name and are the networks they say."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.models import ConvGenerator, KANGenerator, MLPGenerator, SequenceGenerator
from kaem_ppl.models.wrapped_generators import Bfloat16Generator


def parameters(generator, name="g"):
    with handlers.trace() as trace, handlers.seed(rng_seed=0):
        generator(name)
    return trace[f"{name}$params"]["value"]


def test_an_mlp_is_its_layers_one_after_another():
    generator = MLPGenerator((3, 5, 4, 2), activation=jnp.tanh, output=jax.nn.sigmoid)
    params = parameters(generator)
    z = jax.random.normal(jax.random.key(1), (6, 3))
    w, b = ([params[f"layer_{i}"][name] for i in range(3)] for name in ("weight", "bias"))
    expected = jax.nn.sigmoid(jnp.tanh(jnp.tanh(z @ w[0] + b[0]) @ w[1] + b[1]) @ w[2] + b[2])
    with handlers.substitute(data={"g$params": params}):
        np.testing.assert_allclose(generator("g")(z), expected, rtol=1e-6)


def test_an_mlp_starts_with_outputs_of_order_one():
    with handlers.seed(rng_seed=0):
        outputs = MLPGenerator((8, 256, 256, 64), activation=jax.nn.relu)("g")(
            jax.random.normal(jax.random.key(1), (500, 8))
        )
    assert 0.7 < outputs.std() < 2


def test_a_kan_is_the_primitive():
    generator = KANGenerator((3, 5, 2), basis=kp.Fourier(4), domain=(-2.0, 2.0), output=jnp.tanh)
    params = parameters(generator)
    z = jax.random.normal(jax.random.key(1), (6, 3))
    with handlers.substitute(data={"g$params": params}):
        primitive = kp.kan_generator("g", (3, 5, 2), basis=kp.Fourier(4), domain=(-2, 2), output=jnp.tanh)
        np.testing.assert_array_equal(generator("g")(z), primitive(z))


@pytest.mark.parametrize("generator", [MLPGenerator((3, 5, 2)), KANGenerator((3, 5, 2))])
def test_parameters_of_another_generator_are_refused(generator):
    with (
        handlers.substitute(data={"g$params": parameters(type(generator)((3, 4, 2)))}),
        pytest.raises(ValueError, match=r"'g\$params' has shape"),
    ):
        generator("g")


@pytest.mark.parametrize("make", [MLPGenerator, KANGenerator])
def test_sizes_are_checked(make):
    with handlers.seed(rng_seed=0), pytest.raises(ValueError, match="`sizes`"):
        make((3,))("g")


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((28, 28, 1), (8, 4)), ((32, 32, 3), (8, 4, 2)), ((9, 5, 1), (4, 2)), ((64, 64, 3), (8, 4, 4, 2))],
)
def test_deconvolutions_have_the_size_of_the_image(shape, channels):
    generator = ConvGenerator(6, shape, channels)
    params = parameters(generator)
    z = jax.random.normal(jax.random.key(1), (2, 3, 6))
    with handlers.substitute(data={"g$params": params}):
        images = generator("g")(z)
    assert images.shape == (2, 3, *shape)
    assert ((images > 0) & (images < 1)).all()


def test_a_deconvolution_is_a_strided_transposed_convolution():
    # Oracle: one layer by hand. Kernel 4, stride 2: input i adds kernel[3 - k] to output 2 i + k - 1, in both directions.
    generator = ConvGenerator(3, (4, 4, 1), (2,), activation=jnp.tanh, output=None)
    params = parameters(generator)
    params = jax.tree.map(lambda p: p + jax.random.normal(jax.random.key(2), p.shape), params)
    z = jax.random.normal(jax.random.key(1), (3,))
    small = np.tanh((z @ params["start"]["kernel"] + params["start"]["bias"]).reshape(2, 2, 2))
    kernel, expected = np.asarray(params["layer_0"]["kernel"]), np.zeros((6, 6))
    for row, column in np.ndindex(2, 2):
        expected[2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += np.einsum(
            "hwio,i->hw", kernel[::-1, ::-1], small[row, column]
        )
    with handlers.substitute(data={"g$params": params}):
        image = generator("g")(z)[..., 0]
    np.testing.assert_allclose(image, expected[1:5, 1:5] + np.asarray(params["layer_0"]["bias"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((3, (4, 4), (2,)), "`shape`"), ((3, (4, 4, 1), ()), "`channels`"), ((3, (4, 4, 1), (0,)), "`channels`")],
)
def test_a_convolution_checks_its_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvGenerator(*arguments)


def test_a_sequence_generator_is_attention_over_positions():
    # Oracle: Vaswani et al. 2017, eq. 1, in NumPy, one head at a time.
    generator = SequenceGenerator(3, length=4, vocabulary_size=5, width=6, num_heads=2, num_layers=2)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: parameters(generator))
    params = jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape, np.float32), shapes)
    z = rng.standard_normal((2, 3, 3), np.float32)

    @jax.jit
    def generate(params, z):
        with handlers.substitute(data={"g$params": params}):
            return generator("g")(z)

    logits = generate(params, z)
    assert logits.shape == (2, 3, 4, 5)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)

    def linear(name, x):
        return x @ p[name]["kernel"] + p[name]["bias"]

    def normalize(name, x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6) * p[name]["scale"] + p[name]["bias"]

    def attend(name, x):
        layers, total = p[name], p[name]["out"]["bias"]
        for head in range(2):
            query, key, value = (
                x @ layers[part]["kernel"][:, head] + layers[part]["bias"][head] for part in ("query", "key", "value")
            )
            scores = np.exp(query @ key.T / np.sqrt(3))
            total = total + (scores / scores.sum(-1, keepdims=True)) @ value @ layers["out"]["kernel"][head]
        return total

    for index in np.ndindex(2, 3):
        x = linear("start", np.asarray(z[index], float)) + p["positions"]["embedding"]
        for layer in range(2):
            x = x + attend(f"attention_{layer}", normalize(f"attention_normalization_{layer}", x))
            hidden = jax.nn.gelu(linear(f"expand_{layer}", normalize(f"perceptron_normalization_{layer}", x)))
            x = x + linear(f"contract_{layer}", np.asarray(hidden, float))
        np.testing.assert_allclose(logits[index], linear("logits", normalize("normalization", x)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"length": 0}, "`length`"), ({"num_layers": 0}, "`num_layers`"), ({"num_heads": 3}, "multiple of num_heads=3")],
)
def test_a_sequence_generator_checks_its_sizes(changes, message):
    with pytest.raises(ValueError, match=message):
        SequenceGenerator(**{"num_inputs": 2, "length": 4, "vocabulary_size": 5, "width": 8, "num_heads": 2} | changes)


@pytest.mark.parametrize(
    "generator",
    [
        MLPGenerator((3, 16, 16, 5)),
        ConvGenerator(3, (8, 8, 1), (8, 4), output=None),
        pytest.param(SequenceGenerator(3, 4, 5, 8, 2, 1), marks=pytest.mark.slow),
        pytest.param(KANGenerator((3, 7, 5)), marks=pytest.mark.slow),
    ],
    ids=["mlp", "conv", "sequence", "kan"],
)
def test_bfloat16_rounds_and_does_nothing_else(generator):
    # Oracle: the same network in float32. Numbers are rounded to 2^-9 of their size, some ten times on their way.
    params = parameters(generator)
    assert jax.tree.map(jnp.result_type, parameters(Bfloat16Generator(generator))) == jax.tree.map(
        jnp.result_type, params
    )
    z = jax.random.normal(jax.random.key(1), (20, 3))

    def run(generator, params, z):
        with handlers.substitute(data={"g$params": params}):
            return generator("g")(z)

    exact, rounded = (jax.jit(run, static_argnums=0)(g, params, z) for g in (generator, Bfloat16Generator(generator)))
    assert rounded.dtype == exact.dtype == jnp.float32
    off = jnp.abs(rounded - exact).max() / jnp.abs(exact).max()
    assert 0 < off < 10 * 2**-9, off


@pytest.mark.parametrize("generator", [MLPGenerator((3, 16, 5)), ConvGenerator(3, (8, 8, 1), (8, 4))])
def test_bfloat16_products_and_convolutions(generator):
    params = jax.eval_shape(lambda: parameters(generator))

    def run(params, z):
        with handlers.substitute(data={"g$params": params}):
            return Bfloat16Generator(generator)("g")(z)

    program = jax.make_jaxpr(run)(params, jnp.zeros((2, 3)))
    # A convolution with a derivative of its own stands in a program of its own.
    inner = [x.params["call_jaxpr"].eqns for x in program.eqns if x.primitive.name == "custom_jvp_call"]
    equations = itertools.chain(program.eqns, *inner)
    products = [x for x in equations if x.primitive.name in ("dot_general", "conv_general_dilated")]
    assert len(products) >= 2
    assert {variable.aval.dtype for product in products for variable in product.invars} == {jnp.dtype(jnp.bfloat16)}
