import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from kaem_ppl.inference.model.pairwise import pairwise_log_prob

B, S, D, K = 5, 7, 4, 3


# Drawn by NumPy, for what JAX draws is compiled in every process that collects the tests.
def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def uniform(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape))


LOC = normal(0, S, D)
SCALE = jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, (S, D)))
REAL = normal(2, B, D)
BINARY = jnp.asarray(np.random.default_rng(3).integers(0, 2, (B, D)))
CLASSES = jnp.asarray(np.random.default_rng(4).integers(0, K, (B, D)))
SIMPLEX = jnp.asarray(np.random.default_rng(5).dirichlet(np.ones(K), (S, D)))

# name: (distribution over S particles, B values, plate dim), made when it is asked for
CASES = {
    "normal, scalar scale": lambda: (dist.Normal(LOC, 0.2).to_event(1), REAL, -1),
    "normal, scale per output": lambda: (dist.Normal(LOC, SCALE[0]).to_event(1), REAL, -1),
    "normal, scale per particle": lambda: (dist.Normal(LOC, SCALE).to_event(1), REAL, -1),
    "normal, scale per particle, shared by outputs": lambda: (dist.Normal(LOC, SCALE[:, :1]).to_event(1), REAL, -1),
    "normal, loc shared, scale per particle": lambda: (dist.Normal(LOC[0], SCALE).to_event(1), REAL, -1),
    "normal, blind to particles": lambda: (dist.Normal(LOC[0], 0.3).to_event(1).expand([S]), REAL, -1),
    "normal, scalar event": lambda: (dist.Normal(LOC[:, 0], 0.3), REAL[:, 0], -1),
    "normal, image event": lambda: (dist.Normal(LOC.reshape(S, 2, 2), 0.3).to_event(2), REAL.reshape(B, 2, 2), -1),
    "normal, second plate right of the data": lambda: (dist.Normal(LOC, SCALE[0]), REAL, -2),
    "normal, second plate left of the data": lambda: (dist.Normal(LOC.T, SCALE.T), REAL.T, -1),
    "bernoulli probs": lambda: (dist.Bernoulli(probs=uniform(6, S, D)).to_event(1), BINARY, -1),
    "bernoulli logits": lambda: (dist.Bernoulli(logits=LOC).to_event(1), BINARY, -1),
    "categorical probs": lambda: (dist.Categorical(probs=SIMPLEX).to_event(1), CLASSES, -1),
    "categorical logits": lambda: (dist.Categorical(logits=normal(8, S, D, K)).to_event(1), CLASSES, -1),
    "categorical, no event": lambda: (dist.Categorical(logits=normal(8, S, K)), CLASSES[:, 0], -1),
    "categorical, impossible class": lambda: (
        dist.Categorical(probs=jnp.tile(jnp.array([0.5, 0.5, 0.0]), (S, 1))),
        jnp.array([0, 1, 2, 1, 0]),
        -1,
    ),
    "student, no product formula": lambda: (dist.StudentT(3.0, LOC, SCALE).to_event(1), REAL, -1),
    "student, second plate left of the data": lambda: (dist.StudentT(3.0, LOC.T, SCALE.T), REAL.T, -1),
    "masked": lambda: (dist.Normal(LOC, 0.2).mask(jnp.array([True, True, False, True])).to_event(1), REAL, -1),
    "correlated": lambda: (dist.MultivariateNormal(LOC, 0.5 * jnp.eye(D)), REAL, -1),
    "factor": lambda: (dist.Unit(LOC[:, 0]), jnp.zeros((B, 0)), -1),
}
FORMULAS = [name for name in CASES if name.startswith(("normal", "bernoulli", "categorical"))]


def by_broadcasting(fn, values, dim):
    # Oracle: NumPyro's own log_prob, one datum at a time, repeated for every particle.
    axis = len(fn.batch_shape) + dim
    other_axes = tuple(a for a in range(len(fn.batch_shape)) if a != axis)

    def row(value):
        return fn.log_prob(jnp.broadcast_to(jnp.expand_dims(value, axis), fn.shape())).sum(other_axes)

    return jax.vmap(row, in_axes=axis)(values)


@pytest.mark.parametrize("name", CASES)
def test_equals_broadcasting(name):
    fn, values, dim = CASES[name]()
    # float32: squared distances here reach about 400, each with a relative rounding error of 1e-7.
    ours, theirs = (jax.jit(f, static_argnums=2)(fn, values, dim) for f in (pairwise_log_prob, by_broadcasting))
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-4)


@pytest.mark.parametrize("name", ["normal, scalar scale", "normal, scale per particle", "student, no product formula"])
def test_gradient_equals_broadcasting(name):
    # Oracle: the same, differentiated through every leaf of the distribution.
    fn, values, dim = CASES[name]()
    ours, theirs = (
        jax.jit(jax.grad(lambda fn, log_prob=log_prob: jnp.sin(log_prob(fn, values, dim)).sum()))(fn)
        for log_prob in (pairwise_log_prob, by_broadcasting)
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-2)


def test_gaussian_far_from_the_origin():
    # Oracle: NumPy in float64. Without a common centre, float32 would be wrong by whole nats here.
    x, loc = 1000 + np.asarray(REAL, np.float64), 1000 + np.asarray(LOC, np.float64)
    x, loc = np.float64(np.float32(x)), np.float64(np.float32(loc))
    expected = -0.5 * (((x[:, None] - loc) / 0.1) ** 2).sum(-1) - D * np.log(0.1 * np.sqrt(2 * np.pi))
    ours = pairwise_log_prob(dist.Normal(jnp.float32(loc), 0.1).to_event(1), jnp.float32(x))
    np.testing.assert_allclose(ours, expected, rtol=5e-6)


def test_class_out_of_range_is_not_finite():
    log_prob = pairwise_log_prob(dist.Categorical(logits=jnp.zeros((S, K))), jnp.array([0, K, -1]))
    np.testing.assert_array_equal(np.isfinite(log_prob).all(1), [True, False, False])


def is_jaxpr(parameter):
    return isinstance(parameter, jax.extend.core.ClosedJaxpr)


def sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for inner in jax.tree.leaves(equation.params, is_leaf=is_jaxpr):
            if is_jaxpr(inner):
                yield from sizes(inner.jaxpr)


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_never_build_data_by_particles_by_outputs(name):
    # Oracle: the sizes of all intermediate arrays. Classes count towards the width of a row.
    fn, values, dim = CASES[name]()
    jaxpr = jax.make_jaxpr(lambda values: pairwise_log_prob(fn, values, dim))(values).jaxpr
    width = np.prod(fn.shape()) // S * (K if name.startswith("categorical") else 1)
    assert max(sizes(jaxpr)) <= max(B * S, (B + S) * width)
