"""Gradients by the implicit function theorem, and of the log-density, against central differences in float64."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp

from .. import members
from ..members import ONE_PER_BASIS, REFERENCES

# As drawn; moderate; and on panels of each function's own.
SIZES = (None, 10, 100)
U = (1e-4, 0.13, 0.5, 0.77, 1 - 1e-4)


def _distribution(basis, reference):
    # A uniform reference on the domain itself has one-sided derivatives in its ends: take one that crosses it.
    pi_0 = dist.Uniform(-2.0, 4.0) if reference == "Uniform" else REFERENCES[reference][0]()
    # The reference's parameters are numbers to it, and arrays to those who differentiate.
    return jax.tree.map(lambda x: jnp.asarray(x, float), kp.KANTilted(members.bank(basis, SIZES), pi_0))


def _objectives(d, key):
    """One number per function, so that one gradient serves all of them."""
    weights = jnp.array([0.3, -1.0, 1.7, 0.6, -0.8])[:, None]
    if key == "icdf":
        return jnp.sum(weights * d.icdf(jnp.array(U)[:, None] * jnp.ones(3)), axis=0)
    if key == "sample":
        return jnp.sum(weights * d.sample(jax.random.key(5), (5,)), axis=0)
    if key == "log_normalizer":
        return d.log_normalizer
    z = jnp.array([0.1, 0.7, 1.3, 2.9, 3.6])[:, None] * jnp.ones(3)
    return jnp.sum(weights * jnp.where(jnp.isfinite(d.log_prob(z)), d.log_prob(z), 0.0), axis=0)


_value = jax.jit(_objectives, static_argnums=1)
_gradient = jax.jit(jax.grad(lambda d, key: jnp.sum(_objectives(d, key))), static_argnums=1)


def _check(d, key, value=_value, gradient=_gradient):
    """Five-point differences in every number of every parameter but grid and domain; bar 1e-5 relative."""
    ours = jax.tree.leaves(gradient(d, key))
    leaves, structure = jax.tree.flatten(d)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(d)[0]]
    checked = 0
    for i, leaf in enumerate(leaves):
        if _kind(d, i) in ("grid", "domain") or (leaf.size == 0):
            continue
        # A shared parameter moves all functions: their sum is what its gradient belongs to.
        per_function = leaf.ndim > 0
        entries = range(0, leaf.shape[-1], 6) if leaf.ndim == 2 else [None]
        for entry in entries:
            h = 1e-5 if _kind(d, i) == "width" else 1e-4 * max(1.0, float(jnp.max(jnp.abs(leaf))) / 10)

            def at(step, i=i, entry=entry, leaf=leaf):
                moved = leaf + step if entry is None else leaf.at[..., entry].add(step)
                return value(jax.tree.unflatten(structure, [*leaves[:i], moved, *leaves[i + 1 :]]), key)

            difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
            exact = ours[i] if entry is None else ours[i][..., entry]
            difference = difference if per_function else jnp.sum(difference)
            # Below a thousandth, rounding of the differences is what a relative error would show.
            scale = np.maximum(np.abs(difference), 1e-3 * max(1.0, np.max(np.abs(difference))))
            error = np.max(np.abs(exact - difference) / scale)
            assert error <= 1e-5, f"{names[i]}[{entry}] of {key}: {exact} against {difference}"
            checked += bool(np.any(np.abs(difference) > 1e-8))
    # Gradients that vanish everywhere would pass for nothing.
    assert checked >= 6


def _kind(d, index):
    """Which field of the energy a leaf is; '' for the rest."""
    fields = ["coef", "base_weight", "spline_weight", "grid", "width", "domain"]
    position = {id(getattr(d.energy, name)): name for name in fields}
    return position.get(id(jax.tree.leaves(d)[index]), "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("basis", "reference"),
    [ONE_PER_BASIS[0], *(pytest.param(*p, marks=pytest.mark.exhaustive) for p in ONE_PER_BASIS[1:])],
)
def test_gradients_of_icdf(basis, reference, x64):
    _check(_distribution(basis, reference), "icdf")


@pytest.mark.exhaustive
@pytest.mark.parametrize("basis", ["RBF", "BSpline1"])
@pytest.mark.parametrize("size", [None, pytest.param(100, marks=pytest.mark.slow)])
def test_gradients_in_the_ends_of_the_support(basis, size, x64):
    # Both ends inside the domain: they are the ends of the panels too, wherever those came from.
    energy = members.bank(basis, (size,))

    @jax.jit
    def value(ends):
        d = kp.KANTilted(energy, dist.Uniform(*ends))
        return jnp.concatenate([d.log_normalizer, d.icdf(jnp.array([0.1])), d.icdf(jnp.array([0.8]))])

    ends, h = jnp.array([-2.1, 1.7]), 1e-5
    exact = jax.jit(jax.jacrev(value))(ends)
    for i, step in enumerate(h * jnp.eye(2)):
        np.testing.assert_allclose(exact[:, i], (value(ends + step) - value(ends - step)) / (2 * h), 1e-5, 1e-8)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("basis", "reference"), [ONE_PER_BASIS[0], pytest.param(*ONE_PER_BASIS[1], marks=pytest.mark.slow)]
)
def test_gradients_of_sample(basis, reference, x64):
    # Key 5 draws the same u at every evaluation.
    _check(_distribution(basis, reference), "sample")


@pytest.mark.parametrize(
    ("basis", "reference"),
    [ONE_PER_BASIS[0], *(pytest.param(*p, marks=pytest.mark.exhaustive) for p in ONE_PER_BASIS[1:])],
)
def test_gradients_of_log_prob(basis, reference, x64):
    _check(_distribution(basis, reference), "log_prob")


@pytest.mark.slow
@pytest.mark.parametrize("basis", ["RBF", pytest.param("BSpline3", marks=pytest.mark.exhaustive)])
def test_gradients_of_log_normalizer(basis, x64):
    _check(_distribution(basis, "Normal"), "log_normalizer")


@pytest.mark.slow
def test_slope_of_icdf_in_u(x64):
    # Oracle: dz/du = 1 / p(z), p by NumPy and quad.
    d = members.tilted("RBF", "Normal", SIZES)
    u = jnp.array(U)[:, None] * jnp.ones(3)
    z, slope = jax.jit(lambda u: jax.jvp(d.icdf, (u,), (jnp.ones_like(u),)))(u)
    for i in range(3):
        oracle = members.density("RBF", "Normal", i, SIZES)
        np.testing.assert_allclose(slope[:, i], np.exp(-oracle.log_prob(z[:, i])), rtol=1e-8)


@pytest.mark.exhaustive
def test_gradients_through_huge_energies_are_finite():
    # Law: with energies of +-1e4 under a reference far from the domain, draws and their gradients stay finite.
    d = members.tilted("RBF", "Normal", (100, 1e4, -1e4), (3.0, 6.0))
    value, gradient = jax.jit(jax.value_and_grad(lambda d: jnp.sum(_objectives(d, "icdf"))))(d)
    for leaf in jax.tree.leaves((value, gradient)):
        assert np.all(np.isfinite(leaf))


def _mixture_objectives(d, key):
    weights = jnp.array([0.3, -1.0, 1.7, 0.6, -0.8])
    return jnp.sum(
        weights * (d.icdf(jnp.array(U)) if key == "icdf" else d.log_prob(jnp.array([-3.4, -1, 0.2, 1.4, 3.3])))
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", ["icdf", "log_prob"])
def test_gradients_of_a_mixture(key, x64):
    # In logits, coefficients, weights, width and the reference's parameters; one objective for all.
    energy = members.bank("RBF", (None, 3, 10))
    d = kp.KANTiltedMixture(jnp.array([0.3, -0.5, 0.1]), energy, dist.Normal(0.1, 1.2))
    value = jax.jit(partial(_mixture_objectives, key=key))
    gradient = jax.jit(jax.grad(partial(_mixture_objectives, key=key)))
    ours = gradient(d)

    def rebuilt(**changes):
        energy = dataclasses.replace(d.energy, **{k: v for k, v in changes.items() if hasattr(d.energy, k)})
        reference = dist.Normal(changes.get("loc", d.reference.loc), changes.get("scale", d.reference.scale))
        return kp.KANTiltedMixture(changes.get("logits", d.logits), energy, reference)

    parts = {
        "logits": (d.logits, ours.logits),
        "base_weight": (d.energy.base_weight, ours.energy.base_weight),
        "spline_weight": (d.energy.spline_weight, ours.energy.spline_weight),
        "coef": (d.energy.coef, ours.energy.coef),
        "width": (d.energy.width, ours.energy.width),
        "loc": (d.reference.loc, ours.reference.loc),
        "scale": (d.reference.scale, ours.reference.scale),
    }
    for name, (leaf, exact) in parts.items():
        leaf, exact = jnp.asarray(leaf), np.asarray(exact)
        h = 1e-4
        indices = list(np.ndindex(leaf.shape))[:: max(1, leaf.size // 6)]
        found = []
        for index in indices:
            at = lambda step, i=index, n=name, x=leaf: value(rebuilt(**{n: x.at[i].add(step)}))  # noqa: E731
            found.append((8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h))
        found, exact = np.array(found), np.array([exact[index] for index in indices])
        assert np.max(np.abs(found)) > 1e-6
        np.testing.assert_allclose(exact, found, rtol=1e-5, atol=1e-8 * max(1, np.max(np.abs(found))), err_msg=name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("size", [1.0, 100.0, 1e4])
def test_second_derivatives_of_log_normalizer(size, x64):
    # Oracle: central differences of the gradient, on undivided panels, panels in four parts and a function's own.
    energy = members.bank("RBF", (size, 1.0))

    def log_normalizer(coef):
        return jnp.sum(kp.KANTilted(dataclasses.replace(energy, coef=coef), dist.Normal(0.0, 1.0)).log_normalizer)

    gradient = jax.jit(jax.grad(log_normalizer))
    direction = jnp.cos(jnp.arange(energy.coef.size)).reshape(energy.coef.shape)
    _, found = jax.jit(lambda x: jax.jvp(jax.grad(log_normalizer), (x,), (direction,)))(energy.coef)
    h = 1e-5
    expected = (gradient(energy.coef + h * direction) - gradient(energy.coef - h * direction)) / (2 * h)
    assert np.max(np.abs(expected)) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.max(np.abs(expected)))
