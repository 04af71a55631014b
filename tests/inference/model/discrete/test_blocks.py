"""Discrete latents of data beside latents that all data share: summed out in every block, against mixtures by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.diagnostics import effective_sample_size

from kaem_ppl.inference import Blocks, TemperedSMC, fit, log_evidence, sample_posterior
from kaem_ppl.inference.model.hierarchy.posterior import HierarchicalPosterior, read_posterior
from kaem_ppl.inference.model.hierarchy.standardize import Standardized

_X = jnp.concatenate([jax.random.normal(jax.random.key(n), (12,)) + shift for n, shift in enumerate((-2.0, 1.5))])
_WEIGHTS = jnp.array([0.4, 0.6])


def _globals():
    mu = numpyro.sample("mu", dist.Normal(jnp.array([-2.0, 2.0]), 1).to_event(1))
    return mu, numpyro.sample("tau", dist.HalfNormal(1))


def entangled(x):
    """The law of the local latent depends on the discrete one."""
    mu, tau = _globals()
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Categorical(_WEIGHTS))
        z = numpyro.sample("z", dist.Normal(mu[c], tau))
        numpyro.sample("x", dist.Normal(z, 0.5), obs=x)


def apart(x):
    """The discrete latent moves the observation."""
    mu, tau = _globals()
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Categorical(_WEIGHTS))
        z = numpyro.sample("z", dist.Normal(0, tau))
        numpyro.sample("x", dist.Normal(mu[c] + z, 0.5), obs=x)


def assignments(x):
    """All that a datum has of its own is discrete."""
    mu, tau = _globals()
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Categorical(_WEIGHTS))
        numpyro.sample("x", dist.Normal(mu[c], jnp.sqrt(tau**2 + 0.25)), obs=x)


def by_hand(x):
    mu, tau = _globals()
    with numpyro.plate("data", len(x)):
        components = dist.Normal(mu, jnp.sqrt(tau**2 + 0.25))
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(_WEIGHTS), components), obs=x)


def bernoulli_outside(x):
    b = numpyro.sample("b", dist.Bernoulli(0.3))
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(mu, 1))
        numpyro.sample("x", dist.Normal(z + b, 1), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize("model", [entangled, pytest.param(apart, marks=pytest.mark.exhaustive)])
def test_conditionals_are_the_joint_up_to_a_constant(model):
    # Oracle: differences of the joint log-density, in which the discrete latents are summed out; it is compared with
    # NumPyro's where the model is read.
    posterior = read_posterior(model, (_X,), {}, plate="data", coordinates=Standardized())
    assert isinstance(posterior, HierarchicalPosterior)
    target = posterior.target(())
    position = target.draw(jax.random.key(0))
    globals_, locals_ = posterior.blocks.split(position)
    moved = jax.tree.map(lambda x: x + 0.1, globals_)

    def total(target, position):
        return target.log_prior(position) + target.log_likelihood(position)

    given = posterior.of_globals(locals_)
    expected = total(target, moved | locals_) - total(target, position)
    np.testing.assert_allclose(total(given, moved) - total(given, globals_), expected, rtol=1e-4)
    of_locals = posterior.of_locals(globals_, locals_)
    first, second = posterior.blocks.data_first(locals_), posterior.blocks.data_first(jax.tree.map(jnp.sin, locals_))
    parts = [
        sum(total(of_locals.target((row,)), jax.tree.map(lambda x: x[n], place)) for n, row in enumerate(_X))  # noqa: B023
        for place in (first, second)
    ]
    expected = total(target, globals_ | jax.tree.map(jnp.sin, locals_)) - total(target, position)
    np.testing.assert_allclose(parts[1] - parts[0], expected, rtol=1e-4)


def test_discrete_latents_alone_are_summed_out_of_one_problem():
    # Oracle: the mixture by hand.
    found, expected = (
        read_posterior(model, (_X,), {}, plate=p) for model, p in ((assignments, "data"), (by_hand, None))
    )
    position = expected.target(()).draw(jax.random.key(1))
    assert found.plate is None
    for name in ("log_prior", "log_likelihood"):
        values = [getattr(x.target(()), name)(position) for x in (found, expected)]
        np.testing.assert_allclose(*values, rtol=1e-5)


def test_discrete_latents_of_all_data_are_refused():
    with pytest.raises(ValueError, match="Discrete latent site 'b' stands outside plate 'data'"):
        sample_posterior(0, bernoulli_outside, _X, plate="data", progress_bar=False)


def mean_and_error(x):
    x = np.asarray(x, float)
    return x.mean((0, 1)), x.std((0, 1)) / np.sqrt(effective_sample_size(x))


@pytest.mark.exhaustive
@pytest.mark.parametrize("model", [assignments, entangled, apart], ids=lambda x: x.__name__)
def test_posterior_means_and_evidence(model):
    # Oracle: the mixture by hand. Three means and an evidence within 4.5 errors: a false alarm in 3e-5 of seeds.
    settings = {"num_chains": 4, "num_samples": 1500, "progress_bar": False}
    draws = sample_posterior(jax.random.key(2), model, _X, plate="data", **settings)
    assert isinstance(draws.sampler, Blocks) is (model is not assignments)
    expected = sample_posterior(jax.random.key(3), by_hand, _X, **settings)
    for name in ("mu", "tau"):
        (mean, error), (other, of_other) = (mean_and_error(x.samples[name]) for x in (draws, expected))
        assert (np.abs(mean - other) < 4.5 * np.hypot(error, of_other)).all(), name
    if model is entangled:
        # z given globals is a mixture of normals, weighted by the components' evidences.
        mu, tau = (expected.samples[name][..., None, :] if name == "mu" else expected.samples[name][..., None, None]
                   for name in ("mu", "tau"))  # fmt: skip
        weights = jax.nn.softmax(dist.Normal(mu, jnp.sqrt(tau**2 + 0.25)).log_prob(_X[:, None]) + jnp.log(_WEIGHTS))
        z = (weights * (mu / tau**2 + 4 * _X[:, None]) / (1 / tau**2 + 4)).sum(-1)
        (mean, error), (other, of_other) = mean_and_error(draws.samples["z"]), mean_and_error(z)
        assert (np.abs(mean - other) < 4.5 * np.hypot(error, of_other)).all()
    assert draws.infer_discrete(jax.random.key(4))["c"].shape == (4, 1500, len(_X))
    first, second = (
        log_evidence(jax.random.key(5), m, _X, plate=p, method=TemperedSMC(300), progress_bar=False)
        for m, p in ((model, "data"), (by_hand, None))
    )
    assert abs(first.value - second.value) < 4.5 * np.hypot(first.std_error, second.std_error)


@pytest.mark.slow
def test_fit_learns_globals():
    # Oracle: gradients of the mixture by hand vanish at the mode of the globals' posterior.
    result = fit(0, assignments, _X, num_epochs=400, optimizer=optax.adam(0.03), progress_bar=False)
    target = read_posterior(by_hand, (_X,), {}).target(())

    def log_joint(values):
        position = {"mu": values["mu"], "tau": jnp.log(values["tau"])}
        # Less the Jacobian: the mode is that of the sites' own space.
        return target.log_prior(position) + target.log_likelihood(position) - position["tau"]

    gradient = jax.grad(log_joint)(result.params)
    assert all(jnp.abs(x).max() < 0.05 for x in jax.tree.leaves(gradient)), gradient
