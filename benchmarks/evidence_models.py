"""The eight problems of `evidence_problems.py` as NumPyro models."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from evidence_problems import PROBLEMS


def _given_likelihood(prior, log_likelihood):
    def model():
        z = numpyro.sample("z", prior)
        numpyro.factor("likelihood", log_likelihood(z, jnp))

    return model


def linear(x, y):
    """Linear regression with known noise."""
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ weights, 1), obs=y)


def beta_binomial(total, y):
    """Counts of groups."""
    with numpyro.plate("groups", len(y)):
        rate = numpyro.sample("rate", dist.Beta(1, 3))
        numpyro.sample("y", dist.Binomial(total, rate), obs=y)


def logistic(x, y, scale):
    """Logistic regression."""
    weights = numpyro.sample("weights", dist.Normal(0, scale).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def schools(y, sigma):
    """Eight means around a common one, not centred."""
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", len(y)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)


def make_model(name):
    """A problem's model and its keyword arguments."""
    problem = PROBLEMS[name]()
    edge, scale = problem.data.get("edge"), problem.data.get("scale")
    priors = {
        "Gaussian shells, 10": lambda: dist.Uniform(-edge, edge),
        "eggbox, 2": lambda: dist.Uniform(0, 10 * jnp.pi),
        "two modes, 5": lambda: dist.Normal(0, scale),
        "Rosenbrock, 4": lambda: dist.Uniform(-edge, edge),
    }
    if name in priors:
        return _given_likelihood(priors[name]().expand([problem.dimension]).to_event(1), problem.log_likelihood), {}
    models = {
        "linear regression, 20": linear,
        "beta-binomial, 10": beta_binomial,
        "logistic regression, 3": logistic,
        "eight schools, 10": schools,
    }
    return models[name], {
        key: value if isinstance(value, float) else jnp.asarray(value) for key, value in problem.data.items()
    }
