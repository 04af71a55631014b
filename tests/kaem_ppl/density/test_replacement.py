"""`replace_priors`: the model's density with the other prior, and a trained KAEM whose prior is read as formulae."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import kaem_ppl as kp
from kaem_ppl.inference import ImportanceMLE, ImportanceSampling, fit, log_evidence, sample_posterior
from kaem_ppl.models import split_digits


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu.sum() + z, 1), obs=y)


Y = jnp.array([0.3, -0.2, 1.0])
VALUES = {"mu": jnp.array([0.2, -0.1]), "z": jnp.array([0.1, 0.5, -0.4])}
OTHER = {
    "mu": kp.KANCopula([dist.Laplace(0.0, 1.0), dist.StudentT(4.0, 0.0, 1.0)]),
    "z": dist.Logistic(0.0, jnp.array([1.0, 2.0, 3.0])),
}


@pytest.mark.slow
def test_the_density_is_that_of_the_model_with_the_other_prior():
    # Oracle: NumPyro's log density of the same model written out.
    def written_out(y):
        first, second = (
            numpyro.sample("a", dist.Laplace(0.0, 1.0)), numpyro.sample("b", dist.StudentT(4.0, 0.0, 1.0)),
        )  # fmt: skip
        with numpyro.plate("data", len(y)):
            z = numpyro.sample("z", OTHER["z"])
            numpyro.sample("y", dist.Normal(first + second + z, 1), obs=y)

    ours, trace = log_density(kp.replace_priors(model, OTHER), (Y,), {}, VALUES)
    split = {"a": VALUES["mu"][0], "b": VALUES["mu"][1], "z": VALUES["z"]}
    np.testing.assert_allclose(ours, log_density(written_out, (Y,), {}, split)[0], rtol=1e-6)
    assert trace["z"]["fn"].batch_shape == (3,)


def test_axes_of_a_batch_become_those_of_the_event():
    replaced = kp.replace_priors(model, {"mu": dist.Normal(jnp.zeros(2), 3.0)})
    trace = handlers.trace(handlers.seed(replaced, 0)).get_trace(Y)
    assert trace["mu"]["fn"].event_shape == (2,)


@pytest.mark.parametrize(
    ("priors", "error", "message"),
    [
        ({"nu": dist.Normal(0, 1)}, ValueError, r"`priors` names \['nu'\], but `fn` has no latent site of that name"),
        ({"y": dist.Normal(0, 1)}, ValueError, "'y', which is observed"),
        ({"mu": dist.Normal(0, 1)}, ValueError, r"`priors\['mu'\]` must have event shape \(2,\)"),
        ({"z": dist.Normal(jnp.zeros(4), 1)}, ValueError, r"`priors\['z'\]` must have event shape \(\)"),
        ({"z": 1.0}, TypeError, r"`priors\['z'\]` must be a NumPyro distribution"),
        ([], TypeError, "`priors` must have a distribution for each site"),
    ],
)
def test_refuses(priors, error, message):
    with pytest.raises(error, match=message):
        handlers.seed(kp.replace_priors(model, priors), 0)(Y)


def two_numbers(y):
    mean = numpyro.sample("mean", dist.Normal(0, 2))
    slope = numpyro.sample("slope", dist.Normal(0, 2).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(mean + slope.sum(), 1).expand(y.shape).to_event(1), obs=y)


@pytest.mark.exhaustive
def test_a_joint_prior_of_draws():
    # Oracle: the joint prior's density and the likelihood, written out.
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(3), np.eye(3) + 0.5, 2000)
    joint = kp.prior_from({"mean": draws[:, 0], "slope": draws[:, 1:]}, ["mean", "slope"])
    replaced = kp.replace_priors(two_numbers, joint)
    value = jnp.array([0.1, -0.2, 0.3])
    ours, trace = log_density(replaced, (Y,), {}, {"joint(mean,slope)": value})
    likelihood = dist.Normal(value.sum(), 1).log_prob(Y).sum()
    np.testing.assert_allclose(ours, joint.log_prob(value) + likelihood, rtol=1e-5)
    np.testing.assert_allclose(trace["slope"]["value"], value[1:])
    found = sample_posterior(0, replaced, Y, num_samples=200, num_warmup=200, num_chains=2, progress_bar=False)
    assert found.deterministics["slope"].shape == (2, 200, 2)
    # The parts are the prior of a third batch.
    assert dict(kp.prior_from(found, ["slope", "mean"]).sites) == {"slope": (2,), "mean": ()}
    with pytest.raises(ValueError, match=r"draws of shape \(\) for 'mean', but the model's site has shape \(2,\)"):
        handlers.seed(kp.replace_priors(lambda y: numpyro.sample("mean", dist.Normal(0, 1).expand([2])), joint), 0)(Y)


def digits_model(x):
    prior = kp.kan_prior("prior", (8,), basis=kp.RBF(20), domain=(-3, 3), reference=dist.Normal(0, 1))
    decode = kp.kan_generator("decoder", (8, 17, 64), output=jax.nn.sigmoid)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(decode(z), 0.2).to_event(1), obs=x)


@pytest.fixture(scope="module")
def trained():
    """Learnt parameters, the learnt prior, held-out images, and what their mean evidence by common draws is."""
    train, held_out = split_digits()
    result = fit(
        jax.random.key(0), digits_model, train.images, strategy=ImportanceMLE(num_particles=500),
        optimizer=optax.adam(2e-3), num_epochs=30, batch_size=100, progress_bar=False,
    )  # fmt: skip
    with handlers.seed(rng_seed=0), handlers.substitute(data=result.params):
        prior = kp.kan_prior("prior", (8,), basis=kp.RBF(20), domain=(-3, 3), reference=dist.Normal(0, 1))

    def evidence(model, params):
        return log_evidence(
            jax.random.key(1), model, held_out.images[:200], params=params, plate="data",
            method=ImportanceSampling(20_000), progress_bar=False,
        ).value.mean()  # fmt: skip

    return result.params, prior, held_out.images, evidence


@pytest.mark.exhaustive
def test_a_prior_of_digits_read_as_formulae_loses_little(trained):
    # Bar: 0.3 nats of held-out evidence, by the same prior quantiles; 176 parameters of the prior before.
    params, prior, _, evidence = trained
    found = [x.best for x in kp.symbolify(prior, max_kl=0.05)]
    assert sum(len(x.constants) for x in found) <= 40
    formulae = kp.replace_priors(digits_model, {"z": kp.KANCopula([x.distribution for x in found])})
    assert evidence(digits_model, params) - evidence(formulae, params) < 0.3


@pytest.mark.exhaustive
def test_a_pruned_prior_of_digits_loses_little(trained):
    # Bar: 0.3 nats of evidence of images that pruning has not seen.
    params, prior, images, evidence = trained
    draws = sample_posterior(
        jax.random.key(2), digits_model, images[200:], params=params, plate="data",
        sampler=ImportanceSampling(20_000), num_chains=4, num_samples=100, progress_bar=False,
    )  # fmt: skip
    pruned = kp.prune(prior, draws.samples["z"], max_evidence_loss=0.1)
    assert pruned.num_parameters[0] == 176
    assert pruned.num_parameters[1] <= 20
    lost = evidence(digits_model, params) - evidence(digits_model, params | {"prior$params": pruned.params})
    assert lost < 0.3
