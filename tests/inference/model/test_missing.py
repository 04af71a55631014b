"""Missing entries of observations, against the closed forms of a linear-Gaussian model and NumPyro's own densities."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st
from numpyro.contrib.control_flow import cond, scan

from kaem_ppl.inference import (
    NUTS,
    ImportanceSampling,
    fit,
    log_evidence,
    sample_posterior,
)
from kaem_ppl.inference.model.hierarchy.posterior import read_posterior
from kaem_ppl.inference.model.missing.incomplete import Incomplete
from kaem_ppl.inference.model.pairwise import pairwise_log_prob

_WEIGHT = np.array([[0.8, 0.1], [-0.3, 0.9], [0.5, -0.2], [0.2, 0.7]])
_NOISE = np.array([[1.0, 0.5, 0.0, 0.2], [0.5, 0.8, 0.1, 0.0], [0.0, 0.1, 0.6, -0.2], [0.2, 0.0, -0.2, 0.9]])
_X = np.random.default_rng(0).normal(size=(6, 4))
# Every datum has its own pattern; one is complete and one is missing altogether.
_MISSING = np.array([[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 0]], bool)
_INCOMPLETE = jnp.asarray(np.where(_MISSING, np.nan, _X), jnp.float32)
_SETTINGS = {"plate": "data", "missing": "nan", "progress_bar": False}


def independent(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand((2,)).to_event(1))
        loc = z @ jnp.asarray(_WEIGHT, jnp.float32).T
        numpyro.sample("x", dist.Normal(loc, jnp.sqrt(jnp.diag(jnp.asarray(_NOISE)))).to_event(1), obs=x)


def correlated(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand((2,)).to_event(1))
        loc = z @ jnp.asarray(_WEIGHT, jnp.float32).T
        numpyro.sample("x", dist.MultivariateNormal(loc, jnp.asarray(_NOISE, jnp.float32)), obs=x)


def closed_form(noise):
    """Evidence of each datum's observed entries, and mean and covariance of its latents and of its entries given these."""
    evidence, means, covariances, entries = [], [], [], []
    for x, missing in zip(_X, _MISSING, strict=True):
        o = ~missing
        weight, covariance = _WEIGHT[o], (_WEIGHT @ _WEIGHT.T + noise)[np.ix_(o, o)]
        evidence.append(st.multivariate_normal(np.zeros(o.sum()), covariance).logpdf(x[o]) if o.any() else 0.0)
        gain = weight.T @ np.linalg.inv(covariance)
        means.append(gain @ x[o])
        covariances.append(np.eye(2) - gain @ weight)
        all_given_some = (_WEIGHT @ _WEIGHT.T + noise)[:, o] @ np.linalg.inv(covariance)
        entries.append(np.where(o, x, all_given_some @ x[o]))
    return map(np.array, (evidence, means, covariances, entries))


@pytest.mark.parametrize(
    ("model", "noise"),
    [(independent, np.diag(np.diag(_NOISE))), (correlated, _NOISE)],
    ids=["independent", "correlated"],
)
def test_posterior_evidence_and_imputation_are_exact(model, noise):
    exact, means, covariances, entries = closed_form(noise)
    evidence = log_evidence(
        jax.random.key(0), model, _INCOMPLETE, method=ImportanceSampling(40_000), num_chains=1, **_SETTINGS
    )
    # 4.5 standard errors, for six data: once in 25,000 runs.
    assert (abs(evidence.value - exact) < 4.5 * evidence.std_error + 1e-5).all()
    assert (evidence.std_error < 0.05).all()
    draws = sample_posterior(
        jax.random.key(1),
        model,
        _INCOMPLETE,
        sampler=ImportanceSampling(20_000),
        num_chains=1,
        num_samples=4000,
        **_SETTINGS,
    )
    z = np.asarray(draws.samples["z"], float)[0]
    # Effective sizes of weights are at least 500 here: tolerances are 5 errors of a mean, and of a variance.
    np.testing.assert_allclose(z.mean(0), means, atol=5 / np.sqrt(500))
    for n in range(6):
        np.testing.assert_allclose(np.cov(z[:, n].T), covariances[n], atol=0.3)
    imputed = np.asarray(draws.impute(jax.random.key(2))["x"])[0]
    assert (imputed[:, ~_MISSING] == _X[~_MISSING].astype(np.float32)).all()
    np.testing.assert_allclose(imputed.mean(0), entries, atol=5 * 1.3 / np.sqrt(500))
    assert np.isfinite(draws.predict(jax.random.key(3))["x"]).all()


@pytest.mark.slow
def test_markov_chains_and_evidence_of_one_problem():
    # The joint evidence is the sum over data; derivatives that met a NaN would stop the chains at their start.
    exact, means, covariances, _ = closed_form(np.diag(np.diag(_NOISE)))
    draws = sample_posterior(
        jax.random.key(0), independent, _INCOMPLETE, sampler=NUTS(), num_samples=500, num_warmup=200, **_SETTINGS
    )
    z = np.asarray(draws.samples["z"], float).reshape(-1, 6, 2)
    # Chains of NUTS on normal posteriors are worth at least 500 of their 2,000 draws: five errors.
    np.testing.assert_allclose(z.mean(0), means, atol=5 / np.sqrt(500))
    np.testing.assert_allclose(z.var(0), np.diagonal(covariances, axis1=1, axis2=2), atol=0.3)
    settings = {name: value for name, value in _SETTINGS.items() if name != "plate"}
    evidence = log_evidence(
        jax.random.key(1), independent, _INCOMPLETE, method=ImportanceSampling(40_000), num_chains=2, **settings
    )
    assert abs(evidence.value - exact.sum()) < 4.5 * evidence.std_error
    assert evidence.std_error < 0.3


_SCALES = jnp.linspace(0.3, 1, 15).reshape(5, 3)
_LAWS = {
    "normal": dist.Normal(jnp.linspace(-1, 1, 15).reshape(5, 3), 0.7).to_event(1),
    "normal with scales": dist.Normal(jnp.linspace(-1, 1, 15).reshape(5, 3), _SCALES).to_event(1),
    "bernoulli": dist.Bernoulli(logits=jnp.linspace(-1, 1, 15).reshape(5, 3)).to_event(1),
    "categorical": dist.Categorical(logits=jnp.linspace(-1, 1, 60).reshape(5, 3, 4)).to_event(1),
    "poisson": dist.Poisson(jnp.linspace(0.5, 2, 15).reshape(5, 3)).to_event(1),
    "log-normal": dist.LogNormal(jnp.linspace(-1, 1, 15).reshape(5, 3), 0.7).to_event(1),
}  # fmt: skip


@pytest.mark.parametrize("name", _LAWS)
def test_pairwise_sums_over_the_entries_that_are_there(name):
    # Oracle: NumPyro's own densities of the single entries.
    fn, rng = _LAWS[name], np.random.default_rng(1)
    values = np.asarray(fn.base_dist.sample(jax.random.key(0), (2,)), np.float32)[:, 1]
    missing = rng.random(values.shape) < 0.4
    whole = values.astype(int) if fn.support.base_constraint.is_discrete else values
    entries = fn.base_dist.log_prob(whole[:, None])
    expected = np.where(missing[:, None], 0, entries).sum(-1)

    def score(fn):
        return pairwise_log_prob(Incomplete(fn), jnp.where(missing, jnp.nan, values), -1)

    np.testing.assert_allclose(score(fn), expected, rtol=1e-4, atol=1e-4)
    gradient = jax.grad(lambda fn: score(fn).sum())(fn)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_mask_of_the_model_stays():
    fn = dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(1).mask(jnp.array([True, False]))
    value = jnp.array([[0.5, jnp.nan, 1.0], [0.0, 0.0, jnp.nan]])
    expected = dist.Normal(0, 1).log_prob(0.5) + dist.Normal(0, 1).log_prob(1.0)
    np.testing.assert_allclose(Incomplete(fn).log_prob(value), [expected, 0.0], rtol=1e-6)


def local_level(y):
    def step(z, y):
        z = numpyro.sample("z", dist.Normal(z, 1))
        numpyro.sample("y", dist.Normal(z, 1), obs=y)
        return z, None

    scan(step, 0.0, y)


def either_branch(y):
    a = numpyro.sample("a", dist.Normal(0, 1))

    def observe(y):
        numpyro.sample("y", dist.Normal(a, 1), obs=y)

    cond(jnp.array(True), observe, observe, y)


def hidden_markov(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1))

    def step(c, y):
        c = numpyro.sample("c", dist.Categorical(jnp.array([[0.9, 0.1], [0.2, 0.8]])[c]))
        numpyro.sample("y", dist.Normal(jnp.array([-1.0, 1.0])[c], scale), obs=y)
        return c, None

    scan(step, 0, y)


@pytest.mark.slow
def test_inside_scan_and_cond():
    # Oracle: densities of the entries that are there; and the forward recursion of a hidden Markov model by hand.
    y = jnp.array([1.0, jnp.nan, 1.5, jnp.nan, 0.5])
    there = ~np.isnan(y)
    for model, name in ((local_level, "z"), (either_branch, "a")):
        posterior = read_posterior(model, (y,), {}, missing="nan")
        position = posterior.target(()).draw(jax.random.key(0))
        value = np.broadcast_to(posterior.values((), position)[name], y.shape)
        expected = st.norm(value[there], 1).logpdf(y[there]).sum()
        np.testing.assert_allclose(posterior.target(()).log_likelihood(position), expected, rtol=1e-5)
        imputed = posterior.impute(jax.random.key(1), (), position)["y"]
        np.testing.assert_array_equal(imputed[there], y[there])
        assert np.isfinite(imputed).all()
    forward = np.array([1.0, 0.0])
    for number in np.asarray(y):
        forward = forward @ np.array([[0.9, 0.1], [0.2, 0.8]])
        forward = forward if np.isnan(number) else forward * st.norm([-1, 1], 2).pdf(number)
    posterior = read_posterior(hidden_markov, (y,), {}, missing="nan")
    found = posterior.target(()).log_likelihood({"scale": jnp.log(2.0)})
    np.testing.assert_allclose(found, np.log(forward.sum()), rtol=1e-5)


def composition(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.LogNormal(0, 1))
        numpyro.sample("x", dist.Dirichlet(z[:, None] * jnp.ones(3)), obs=x)


def test_refuses_a_part_of_a_joint_law_by_name():
    whole = jnp.array([[0.2, 0.3, 0.5], [jnp.nan, jnp.nan, jnp.nan]])
    value = log_evidence(
        jax.random.key(0), composition, whole, method=ImportanceSampling(500), num_chains=1, **_SETTINGS
    ).value
    np.testing.assert_allclose(value[1], 0.0, atol=1e-6)
    with pytest.raises(ValueError, match="Observed site 'x' misses a part"):
        sample_posterior(jax.random.key(0), composition, whole.at[0, 0].set(jnp.nan), **_SETTINGS)


def test_nan_is_an_error_unless_it_is_announced():
    with pytest.raises(ValueError, match=r"`data` holds values that are not finite.*`missing='nan'`"):
        fit(jax.random.key(0), independent, _INCOMPLETE, num_epochs=1)
    with pytest.raises(ValueError, match="`data` holds infinite values"):
        fit(jax.random.key(0), independent, _INCOMPLETE.at[0, 0].set(jnp.inf), num_epochs=1, missing="nan")
    with pytest.raises(ValueError, match="`missing` must be 'nan' or None, got 'NaN'"):
        sample_posterior(jax.random.key(0), independent, _INCOMPLETE, missing="NaN")
