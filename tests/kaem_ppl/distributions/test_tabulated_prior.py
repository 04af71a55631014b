import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp
from kaem_ppl.distributions.tabulated import tabulate_prior


def tilted(basis, reference, *, components=None, activation=jax.nn.silu):
    shape = (2,) if components is None else (2, components)
    energy = kp.UnivariateKAN.init(jax.random.key(0), shape, basis=basis, domain=(-1.5, 1.5), activation=activation)
    coef = energy.coef + jax.random.normal(jax.random.key(1), energy.coef.shape)
    energy = dataclasses.replace(energy, coef=coef)
    if components is None:
        return kp.KANTilted(energy, reference)
    return kp.KANTiltedMixture(jnp.arange(float(components)), energy, reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("basis", "reference", "components"),
    [
        (kp.RBF(8), dist.Normal(0.0, 1.0), None),
        pytest.param(kp.Fourier(10), dist.Uniform(-1.5, 1.5), None, marks=pytest.mark.exhaustive),
        pytest.param(kp.RBF(8), dist.LogNormal(0.0, 1.0), 3, marks=pytest.mark.exhaustive),
    ],
    ids=["RBF-normal", "Fourier-uniform", "mixture-lognormal"],
)
@pytest.mark.filterwarnings("ignore:Out-of-support values")
def test_is_the_prior(basis, reference, components):
    # Oracle: the distribution itself, inside the domain, at its ends, beyond them, and outside the support.
    prior = tilted(basis, reference, components=components)
    table = tabulate_prior("z", prior)
    z = jnp.concatenate([jnp.linspace(-1.49, 1.49, 101), jnp.array([-1.5, 1.5, -3.0, 3.0, 6.0])])[:, None]
    np.testing.assert_allclose(table.log_prob(z), prior.log_prob(z), atol=1e-4)
    inside = z[:101][z[:101, 0] > 0.02]
    slope, exact = (jax.vmap(jax.grad(lambda z, fn=fn: fn.log_prob(z).sum()))(inside) for fn in (table, prior))
    np.testing.assert_allclose(slope, exact, atol=2e-3 * float(jnp.abs(exact).max()))
    u = jnp.array([[1e-6], [0.3], [1 - 1e-4]])
    np.testing.assert_allclose(table.quantile(u, 1 - u), prior.quantile(u, 1 - u), rtol=1e-5)
    assert float(table.error) < 1e-4
    assert table.sample(jax.random.key(0), (5,)).shape == (5, 2)


def test_gradient_beyond_the_domain_is_the_references():
    table = tabulate_prior("z", tilted(kp.RBF(8), dist.Normal(0.0, 1.0)))
    slope = jax.grad(lambda z: table.log_prob(z).sum())(jnp.array([-4.0, 3.0]))
    np.testing.assert_allclose(slope, [4.0, -3.0], rtol=1e-6)


def test_is_a_pytree_of_known_arrays():
    # A Markov chain takes the table as an argument: nothing is integrated inside.
    table = tabulate_prior("z", tilted(kp.RBF(8), dist.Normal(0.0, 1.0)))
    jaxpr = str(jax.make_jaxpr(lambda table, z: table.log_prob(z))(table, jnp.zeros(2)))
    assert "while" not in jaxpr
    assert "exp " not in jaxpr


@pytest.mark.slow
def test_warns_of_what_it_can_not_interpolate():
    prior = tilted(kp.RBF(8), dist.Normal(0.0, 1.0), activation=lambda z: 50 * jnp.sign(jnp.sin(40 * z)))
    with pytest.warns(UserWarning, match="'z' is wrong by up to"):
        tabulate_prior("z", prior)
