"""Evidence, training and posterior means of models with discrete latents, against closed forms, EM and NumPyro's NUTS."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints
from numpyro.infer import MCMC
from scipy import stats

from kaem_ppl.inference import ImportanceMLE, ImportanceSampling, LangevinMLE, fit, log_evidence, sample_posterior

from .models import COUNTS, SERIES, gaussian_mixture, hmm, zero_inflated
from .test_marginal import exact_hmm, exact_mixture, exact_zero_inflated

FEW = np.array([-1.2, -0.7, 1.5, 2.0, 0.3, -2.0])


def conjugate_mixture(x):
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0, 2))
    with numpyro.plate("data", len(x)):
        c = numpyro.sample("c", dist.Categorical(jnp.array([0.3, 0.7])))
        numpyro.sample("x", dist.Normal(loc[c], 1), obs=x)


def test_evidence_of_a_conjugate_mixture():
    # Oracle: the sum over all 64 assignments of normal evidences. At 4.5 errors a false alarm in 150,000 runs.
    def log_joint(assignment):
        total = np.log(np.array([0.3, 0.7]))[assignment].sum()
        for k in range(2):
            x = FEW[assignment == k]
            if len(x):
                total += stats.multivariate_normal(np.zeros(len(x)), np.eye(len(x)) + 4).logpdf(x)
        return total

    exact = np.logaddexp.reduce([log_joint(np.array(c)) for c in itertools.product([0, 1], repeat=6)])
    evidence = log_evidence(
        jax.random.key(0), conjugate_mixture, jnp.asarray(FEW), method=ImportanceSampling(4000), progress_bar=False
    )
    assert abs(evidence.value - exact) < 4.5 * evidence.std_error
    assert evidence.std_error < 0.05


def classes(x=None, size=None):
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", size if x is None else len(x)):
        c = numpyro.sample("c", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[c], 0.7), obs=x)


def classes_and_effects(x=None, size=None):
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        c = numpyro.sample("c", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[c] + 0.5 * z, np.sqrt(0.7**2 - 0.25)), obs=x)


def em(x):
    """The maximum-likelihood weights and locations of two normals of scale 0.7."""
    weights, loc = np.array([0.5, 0.5]), np.array([-1.0, 1.0])
    for _ in range(2000):
        joint = weights * stats.norm(loc, 0.7).pdf(x[:, None])
        share = joint / joint.sum(1, keepdims=True)
        weights, loc = share.mean(0), (share * x[:, None]).sum(0) / share.sum(0)
    return weights, loc


@pytest.mark.parametrize(
    ("model", "strategy", "tolerance"),
    [
        (classes, ImportanceMLE(num_particles=1), 1e-3),
        pytest.param(classes, LangevinMLE(num_steps=1), 1e-3, marks=pytest.mark.slow),
        # Noise of the draws, a hundredth; the fixed seed leaves nothing to chance.
        pytest.param(classes_and_effects, ImportanceMLE(num_particles=200), 0.05, marks=pytest.mark.exhaustive),
        pytest.param(classes_and_effects, LangevinMLE(num_steps=5), 0.08, marks=pytest.mark.slow),
    ],
    ids=["classes-importance", "classes-langevin", "effects-importance", "effects-langevin"],
)
def test_learns_what_em_does(model, strategy, tolerance):
    rng = np.random.default_rng(1)
    x = np.where(rng.random(100) < 0.3, -2, 1) + rng.normal(0, 0.7, 100)
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-2, 300))
    result = fit(
        jax.random.key(0), model, jnp.asarray(x, jnp.float32), num_epochs=300, strategy=strategy, optimizer=optimizer,
        progress_bar=False,
    )  # fmt: skip
    weights, loc = em(x)
    np.testing.assert_allclose(result.params["weights"], weights, atol=tolerance)
    np.testing.assert_allclose(result.params["loc"], loc, atol=tolerance)


@pytest.mark.slow
def test_evidence_of_each_datum():
    x = jnp.array([-2.0, 0.3, 1.1])
    evidence = log_evidence(
        jax.random.key(0), classes_and_effects, x, plate="data", method=ImportanceSampling(2000), progress_bar=False,
        params={"weights": jnp.array([0.3, 0.7]), "loc": jnp.array([-2.0, 1.0])},
    )  # fmt: skip
    exact = np.log(np.array([0.3, 0.7]) @ stats.norm(np.array([[-2.0], [1.0]]), 0.7).pdf(x))
    # 3 numbers at 4.5 errors: a false alarm in 50,000 runs.
    assert (abs(evidence.value - exact) < 4.5 * evidence.std_error).all()


# By name, the model and its data.
AGAINST_NUTS = {
    "mixture": (gaussian_mixture, jnp.asarray(np.random.default_rng(2).normal([[0.0, 4.0, 9.0]], 1, (20, 3)).ravel())),
    "zero inflated": (zero_inflated, COUNTS),
    "hmm": (hmm, SERIES[:100]),
}


def by_hand(name):
    def mixture(x):
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
        loc = numpyro.sample("loc", dist.Normal(0, 5).expand([3]).to_event(1))
        numpyro.factor("x", exact_mixture({"weights": weights, "loc": loc}, x))

    def inflated(counts):
        values = {"gate": numpyro.sample("gate", dist.Beta(1, 1)), "rate": numpyro.sample("rate", dist.Gamma(2, 1))}
        numpyro.factor("x", exact_zero_inflated(values, counts))

    def chain(y):
        transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones((3, 3))).to_event(1))
        loc = numpyro.sample("loc", dist.Normal(0, 3).expand([3]).to_event(1))
        numpyro.factor("y", exact_hmm({"transition": transition, "loc": loc}, y))

    return {"mixture": mixture, "zero inflated": inflated, "hmm": chain}[name]


def symmetric(samples):
    """Numbers of each draw that do not depend on the labels of components, (chains, draws, k)."""
    if "rate" in samples:
        return np.stack([samples["gate"], samples["rate"]], -1)
    loc = np.asarray(samples["loc"])
    sums = [np.sort(loc, -1), (loc**2).sum(-1, keepdims=True)]
    if "transition" in samples:
        sums.append(np.trace(samples["transition"], axis1=-2, axis2=-1)[..., None])
    return np.concatenate(sums, -1)


def mean_and_error(x):
    """Mean over all draws, and its error by batches of 100 draws, which are longer than the chains remember."""
    batches = x.reshape(-1, 100, x.shape[-1]).mean(1)
    return batches.mean(0), batches.std(0, ddof=1) / np.sqrt(len(batches))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", AGAINST_NUTS)
def test_posterior_means_are_those_of_numpyros_nuts(name):
    # At most 5 means at 4.5 combined errors: a false alarm in 10,000 runs, some more by the error of 60 batches.
    model, data = AGAINST_NUTS[name]
    draws = sample_posterior(
        jax.random.key(0), model, data, num_chains=4, num_samples=1500, num_warmup=500, progress_bar=False
    )
    mcmc = MCMC(
        numpyro.infer.NUTS(by_hand(name)), num_warmup=500, num_samples=1500, num_chains=4, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(1), data)
    ours, our_error = mean_and_error(symmetric(draws.samples))
    theirs, their_error = mean_and_error(symmetric(mcmc.get_samples(group_by_chain=True)))
    assert (abs(ours - theirs) < 4.5 * np.hypot(our_error, their_error)).all()
