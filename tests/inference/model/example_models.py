"""Models for the reader: NumPyro's own examples, rewritten small, and one for each handler and control-flow primitive."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer.reparam import CircularReparam, LocScaleReparam, TransformReparam

import kaem_ppl as kp


class Example(NamedTuple):
    """A model and its arguments."""

    model: Any
    args: tuple
    kwargs: dict[str, Any] = {}
    make_params: Callable[[], dict[str, Any]] = dict

    @property
    def params(self):
        """Values of its parameters; made when they are asked for, not in every process that collects the tests."""
        return self.make_params()


_X = np.random.default_rng(0).normal(size=(6, 3))
X, Y = jnp.asarray(_X), jnp.asarray(_X @ [1.0, -0.5, 0.2] + 0.1)
SERIES = jnp.array([1.0, 2.0, 1.5, 0.5])


def eight_schools(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


SCHOOLS = (np.array([15.0, 10.0, 16.0, 11.0], np.float32),), {"y": np.array([28.0, 8.0, -3.0, 7.0], np.float32)}


def schools_by_sample_shape(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    theta = numpyro.sample("theta", dist.Normal(mu, tau), sample_shape=(len(sigma),))
    numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def baseball_partially_pooled(at_bats, hits=None):
    m = numpyro.sample("m", dist.Uniform(0, 1))
    kappa = numpyro.sample("kappa", dist.Pareto(1, 1.5))
    with numpyro.plate("num_players", at_bats.shape[0]):
        phi = numpyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
        return numpyro.sample("obs", dist.Binomial(at_bats, probs=phi), obs=hits)


def baseball_logit(at_bats, hits=None):
    loc = numpyro.sample("loc", dist.Normal(-1, 1))
    scale = numpyro.sample("scale", dist.HalfCauchy(1))
    with numpyro.plate("num_players", at_bats.shape[0]):
        alpha = numpyro.sample("alpha", dist.Normal(loc, scale))
        return numpyro.sample("obs", dist.Binomial(at_bats, logits=alpha), obs=hits)


def stochastic_volatility(returns):
    step_size = numpyro.sample("sigma", dist.Exponential(50.0))
    s = numpyro.sample("s", dist.GaussianRandomWalk(scale=step_size, num_steps=jnp.shape(returns)[0]))
    nu = numpyro.sample("nu", dist.Exponential(0.1))
    numpyro.sample("r", dist.StudentT(df=nu, loc=0.0, scale=jnp.exp(s)), obs=returns)


def ar2(y):
    alpha_1 = numpyro.sample("alpha_1", dist.Normal(0, 1))
    alpha_2 = numpyro.sample("alpha_2", dist.Normal(0, 1))
    const = numpyro.sample("const", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))

    def transition(carry, _):
        y_prev, y_prev_prev = carry
        m_t = const + alpha_1 * y_prev + alpha_2 * y_prev_prev
        y_t = numpyro.sample("y", dist.Normal(m_t, sigma))
        return (y_t, y_prev), m_t

    with handlers.condition(data={"y": y[2:]}):
        _, mu = scan(transition, (y[1], y[0]), jnp.arange(2, len(y)))
    numpyro.deterministic("mu", mu)


def holt_winters(y, n_seasons):
    level_smoothing = numpyro.sample("level_smoothing", dist.Beta(1, 1))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    level_init = numpyro.sample("level_init", dist.Normal(0, 1))
    with numpyro.plate("n_seasons", n_seasons):
        seasonality_init = numpyro.sample("seasonality_init", dist.Normal(0, 1))

    def transition(carry, t):
        level, season = carry
        new_level = level_smoothing * (y[t] - season[0]) + (1 - level_smoothing) * level
        pred = numpyro.sample("pred", dist.Normal(level + season[0], noise))
        return (new_level, jnp.roll(season, -1)), pred

    with handlers.condition(data={"pred": y}):
        scan(transition, (level_init, seasonality_init), jnp.arange(len(y)))


def ucb_admissions(dept, male, applications, admit=None):
    # As in NumPyro's example: the number of departments is counted in the data, by NumPy.
    num_dept = len(np.unique(dept))
    v_mu = numpyro.sample("v_mu", dist.Normal(0, jnp.array([4.0, 1.0])))
    sigma = numpyro.sample("sigma", dist.HalfNormal(jnp.ones(2)))
    cholesky = numpyro.sample("L_Rho", dist.LKJCholesky(2, concentration=2))
    scale_tril = sigma[..., jnp.newaxis] * cholesky
    z = numpyro.sample("z", dist.Normal(jnp.zeros((num_dept, 2)), 1))
    v = jnp.dot(scale_tril, z.T).T
    logits = v_mu[0] + v[dept, 0] + (v_mu[1] + v[dept, 1]) * male
    numpyro.sample("admit", dist.Binomial(applications, logits=logits), obs=admit)


ADMISSIONS = (
    np.array([0, 0, 1, 1, 2, 2]), np.array([1, 0, 1, 0, 1, 0]), np.array([825, 108, 560, 25, 325, 593]),
    np.array([512, 89, 353, 17, 120, 202]),
)  # fmt: skip


def horseshoe_regression(x, y=None):
    lambdas = numpyro.sample("lambdas", dist.HalfCauchy(jnp.ones(x.shape[1])))
    tau = numpyro.sample("tau", dist.HalfCauchy(jnp.ones(1)))
    unscaled = numpyro.sample("unscaled_betas", dist.Normal(0.0, jnp.ones(x.shape[1])))
    betas = numpyro.deterministic("betas", tau * lambdas * unscaled)
    precision = numpyro.sample("prec_obs", dist.Gamma(3.0, 1.0))
    numpyro.sample("y", dist.Normal(x @ betas, 1 / jnp.sqrt(precision)), obs=y)


def ordinal_regression(x, y):
    concentration = jnp.ones(3) * 10.0
    anchor = numpyro.sample("anchor", dist.Normal(0, 1))
    slope = numpyro.sample("b_X", dist.Normal(0, 5))
    with handlers.reparam(config={"cutpoints": TransformReparam()}):
        cutpoints = numpyro.sample(
            "cutpoints",
            dist.TransformedDistribution(
                dist.Dirichlet(concentration), dist.transforms.SimplexToOrderedTransform(anchor)
            ),
        )
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.OrderedLogistic(slope * x, cutpoints), obs=y)


def gaussian_process(x, y):
    var = numpyro.sample("kernel_var", dist.LogNormal(0.0, 1.0))
    noise = numpyro.sample("kernel_noise", dist.LogNormal(0.0, 1.0))
    length = numpyro.sample("kernel_length", dist.LogNormal(0.0, 1.0))
    delta = (x[:, None] - x[None]) / length
    covariance = var * jnp.exp(-0.5 * delta**2) + (noise + 1e-4) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance_matrix=covariance), obs=y)


def zero_inflated_regression(x, y):
    b1 = numpyro.sample("b1", dist.Normal(0, 1).expand([3]).to_event(1))
    b2 = numpyro.sample("b2", dist.Normal(0, 1).expand([3]).to_event(1))
    q = jax.nn.sigmoid(x @ b1)
    with numpyro.plate("obs", len(x)):
        numpyro.sample("y", dist.ZeroInflatedPoisson(q, jnp.exp(x @ b2)), obs=y)


def hierarchical_series(y):
    drift = numpyro.sample("drift", dist.LogNormal(-1, 1))
    num_series = y.shape[1]

    def transition(level, y):
        with numpyro.plate("series", num_series):
            new = numpyro.sample("level", dist.Normal(level, drift))
            numpyro.sample("y", dist.StudentT(4, new, 0.5), obs=y)
        return new, new

    scan(transition, jnp.zeros(num_series), y)


def funnel(dim=3):
    y = numpyro.sample("y", dist.Normal(0, 3))
    numpyro.sample("x", dist.Normal(jnp.zeros(dim - 1), jnp.exp(y / 2)))
    numpyro.factor("nothing", 0.0)


def var2(y):
    c = numpyro.sample("c", dist.Normal(0, 1).expand([2]).to_event(1))
    phi = numpyro.sample("Phi1", dist.Normal(0, 1).expand([2, 2]).to_event(2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0).expand([2]).to_event(1))
    l_omega = numpyro.sample("l_omega", dist.LKJCholesky(2, concentration=1))
    scale_tril = sigma[..., None] * l_omega

    def transition(previous, _):
        mean = c + phi @ previous
        current = numpyro.sample("y", dist.MultivariateNormal(mean, scale_tril=scale_tril))
        return current, mean

    with handlers.condition(data={"y": y[1:]}):
        scan(transition, y[0], jnp.arange(1, len(y)))


def bayesian_network(x, y):
    w1 = numpyro.sample("w1", dist.Normal(jnp.zeros((3, 4)), 1))
    w2 = numpyro.sample("w2", dist.Normal(jnp.zeros((4, 1)), 1))
    precision = numpyro.sample("prec_obs", dist.Gamma(3.0, 1.0))
    with numpyro.plate("data", len(x)):
        mean = jnp.tanh(x @ w1) @ w2
        numpyro.sample("y", dist.Normal(mean, 1 / jnp.sqrt(precision)).to_event(1), obs=y[:, None])


def mixture(x):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    locs = numpyro.sample(
        "locs",
        dist.TransformedDistribution(dist.Normal(0, 1).expand([3]).to_event(1), dist.transforms.OrderedTransform()),
    )
    parts = dist.MixtureSameFamily(dist.Categorical(probs=weights), dist.Normal(locs, 0.5))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", parts, obs=x)


def capture_recapture(captured):
    # Cormack-Jolly-Seber, whether an animal is alive summed out, over occasions.
    phi = numpyro.sample("phi", dist.Uniform(0, 1))
    with numpyro.plate("occasions", captured.shape[1] - 1):
        effort = numpyro.sample("effort", dist.Normal(0, 1))
    p = jax.nn.sigmoid(effort)

    def transition(log_alive, x):
        seen, p_t = x
        walk = numpyro.sample("walk", dist.Normal(0, 0.1))
        alive = jnp.exp(log_alive) * phi * jnp.exp(-jnp.abs(walk))
        seen_density = jnp.where(seen, alive * p_t, 1 - alive * p_t)
        numpyro.factor("seen", jnp.log(seen_density).sum())
        return jnp.where(seen, 0.0, jnp.log(alive * (1 - p_t) / (1 - alive * p_t))), None

    scan(transition, jnp.zeros(len(captured)), (captured.T[1:], p))


def local_level(y, reverse=False, history=1):
    def transition(level, y):
        level = numpyro.sample("level", dist.Normal(level, 1))
        numpyro.sample("y", dist.Normal(level, 1), obs=y)
        return level, level

    _, levels = scan(transition, 0.0, y, reverse=reverse, history=history)
    numpyro.deterministic("levels", levels)


def positive_walk(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1))

    def transition(level, y):
        level = numpyro.sample("level", dist.LogNormal(jnp.log(level), scale))
        share = numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))
        numpyro.sample("y", dist.Normal(level * share[0], 1), obs=y)
        return level, None

    scan(transition, 1.0, y)


def scan_under_handlers(y):
    with handlers.scale(scale=2.0), handlers.mask(mask=jnp.array([True, False, True, True])):
        local_level(y)


def scan_under_scope(y):
    with handlers.scope(prefix="inner"):
        local_level(y)


def scan_of_improper(y):
    def transition(level, y):
        step = numpyro.sample("step", dist.ImproperUniform(dist.constraints.positive, (), ()))
        numpyro.sample("y", dist.Normal(level + step, 1), obs=y)
        return level + step, None

    scan(transition, 0.0, y)


def branches(y):
    z = numpyro.sample("z", dist.Normal(0, 1))
    x = cond(
        z > 0,
        lambda z: numpyro.sample("x", dist.LogNormal(z, 1.5)),
        lambda z: numpyro.sample("x", dist.LogNormal(-2 * z, 0.5)),
        z,
    )
    numpyro.sample("y", dist.Normal(x, 1), obs=y)


def cond_in_scan(y):
    def transition(level, y):
        level = cond(
            level > 1,
            lambda m: numpyro.sample("level", dist.Normal(m, 1.0)),
            lambda m: numpyro.sample("level", dist.Normal(m, 2.0)),
            level,
        )
        numpyro.sample("y", dist.Normal(level, 1), obs=y)
        return level, None

    scan(transition, 0.0, y)


def scan_in_scan(y):
    def outer(level, y):
        def inner(level, _):
            level = numpyro.sample("level", dist.Normal(level, 1))
            return level, None

        level, _ = scan(inner, level, jnp.arange(2))
        numpyro.sample("y", dist.Normal(level, 1), obs=y)
        return level, None

    scan(outer, 0.0, y)


def nested_seeds(y):
    with handlers.seed(rng_seed=3):
        z = numpyro.sample("z", dist.Normal(0, 1))
        with handlers.seed(rng_seed=4):
            w = numpyro.sample("w", dist.Exponential(1))
    numpyro.sample("y", dist.Normal(z, w), obs=y)


def vmapped(y):
    z = numpyro.sample("z", dist.Normal(0, 1))
    jax.vmap(lambda y: numpyro.sample("y", dist.Normal(z, 1), obs=y))(y)


def vmapped_function(y):
    z = numpyro.sample("z", dist.Normal(jnp.zeros(4), 1))
    numpyro.sample("y", dist.Normal(jax.vmap(lambda z: z**2 + 1)(z), 1), obs=y)


def while_loop(y):
    def body(carry):
        return carry[0] + 1, carry[1] + numpyro.sample("z", dist.Normal(0, 1))

    _, z = jax.lax.while_loop(lambda carry: carry[0] < 3, body, (0, 0.0))
    numpyro.sample("y", dist.Normal(z, 1), obs=y)


def jitted(y):
    z = jax.jit(lambda: numpyro.sample("z", dist.Normal(0, 1)))()
    numpyro.sample("y", dist.Normal(z, 1), obs=y)


def plain(y):
    z = numpyro.sample("z", dist.Normal(0.5, 2))
    w = numpyro.sample("w", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Normal(z, w), obs=y)


def of_size_zero(y):
    nothing = numpyro.sample("nothing", dist.Normal(jnp.zeros(0), 1))
    z = numpyro.sample("z", dist.Normal(nothing.sum(), 1))
    numpyro.sample("y", dist.Normal(z, 1), obs=y)


def discrete(y):
    k = numpyro.sample("k", dist.Poisson(1.0))
    z = numpyro.sample("z", dist.Normal(k, 1))
    numpyro.sample("y", dist.Normal(z, 1), obs=y)


def subsampled(y):
    z = numpyro.sample("z", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=2) as rows:
        numpyro.sample("y", dist.Normal(z, 1), obs=y[rows])


def dropout(y):
    z = numpyro.sample("z", dist.Normal(0, 1))
    keep = jax.random.bernoulli(numpyro.prng_key(), 0.5)
    numpyro.sample("y", dist.Normal(z * keep, 1), obs=y)


def masked_observations(y, observed):
    z = numpyro.sample("z", dist.Normal(0, 1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(z, 1), obs=y, obs_mask=observed)


def lifted(y):
    loc = numpyro.param("loc", jnp.zeros(2))
    z = numpyro.sample("z", dist.Normal(loc, 1))
    numpyro.sample("y", dist.Normal(z.sum(), 1), obs=y)


def weighted_latent(y):
    with handlers.scale(scale=3.0), handlers.mask(mask=jnp.array([True, False])):
        z = numpyro.sample("z", dist.LogNormal(jnp.zeros(2), 1))
    numpyro.factor("penalty", -0.1 * z.sum() ** 2)
    numpyro.sample("y", dist.Normal(z.sum(), 1), obs=y)


def point_mass(y):
    z = numpyro.sample("z", dist.Normal(0, 1))
    square = numpyro.sample("square", dist.Delta(z**2).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(square.sum(), 1), obs=y)


def bounds_from_latents(y):
    low = numpyro.sample("low", dist.Normal(0, 1))
    width = numpyro.sample("width", dist.HalfNormal(2))
    u = numpyro.sample("u", dist.Uniform(low, low + width))
    t = numpyro.sample("t", dist.TruncatedNormal(0, 1, low=low))
    numpyro.sample("y", dist.Normal(u + t, 1), obs=y)


def many_supports(y):
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))
    factor = numpyro.sample("factor", dist.LKJCholesky(3, 1.5))
    matrix = numpyro.sample("matrix", dist.Wishart(5.0, jnp.eye(2)))
    heavy = numpyro.sample("heavy", dist.MultivariateStudentT(4.0, jnp.zeros(2), jnp.eye(2)))
    flat = numpyro.sample("flat", dist.ImproperUniform(dist.constraints.positive, (2,), ()))
    total = share[0] + factor[1, 0] + matrix[0, 1] + heavy.sum() + jnp.log(flat).sum()
    numpyro.sample("y", dist.Normal(total, 1), obs=y)


@jax.tree_util.register_dataclass
@dataclass
class Line:
    slope: jax.Array
    offset: jax.Array


def module_with_priors(y):
    # As `numpyro.contrib.module.random_eqx_module` writes it.
    numpyro.param("line$params", lambda _: Line(jnp.ones(2), jnp.zeros(())))
    slope = numpyro.sample("line/slope", dist.Normal(0, 1).expand([2]).to_event(1))
    offset = numpyro.sample("line/offset", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(slope.sum() + offset, 1), obs=y)


def circular(y):
    with handlers.reparam(config={"angle": CircularReparam()}):
        angle = numpyro.sample("angle", dist.VonMises(0.3, 2.0))
    numpyro.sample("y", dist.Normal(jnp.sin(angle), 1), obs=y)


def looks_at_data(x, y, count):
    num_levels = int(x.max()) + 1
    if x[0] > 0:
        num_levels += 1
    with numpyro.plate("levels", num_levels), numpyro.plate("count", count):
        z = numpyro.sample("z", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(z.sum(0)[x], 1), obs=y)


def dictionary_arguments(data, kind):
    z = numpyro.sample("z", dist.Normal(0, 1))
    assert kind == "plain"
    numpyro.sample("y", dist.Poisson(jnp.exp(z + data["offset"])), obs=data["y"])


def kaem(x):
    prior = kp.kan_prior("prior", (2,), basis=kp.RBF(6), domain=(-2, 2), reference=dist.Normal(0, 1))
    weight = numpyro.param("weight", jnp.ones((2, 3)))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(z @ weight, 0.5).to_event(1), obs=x)


@cache
def kaem_params():
    with handlers.trace() as sites, handlers.seed(rng_seed=0):
        kaem(X)
    return {name: site["value"] for name, site in sites.items() if site["type"] == "param"}


def plate_regression(x, y):
    with numpyro.plate("data", len(x)):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
        noise = numpyro.sample("noise", dist.LogNormal(0, 0.5))
        mean = numpyro.deterministic("mean", (w * x).sum(-1))
        numpyro.sample("y", dist.Normal(mean, noise), obs=y)


def plate_with_shared(x, weight, y):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(z + (x * weight).sum(-1), 1), obs=y)


def plate_with_scan(y):
    num_data = len(y)

    def transition(level, y):
        with numpyro.plate("data", num_data):
            level = numpyro.sample("level", dist.Normal(level, 1))
            numpyro.sample("y", dist.Normal(level, 1), obs=y)
        return level, level

    scan(transition, jnp.zeros(num_data), y.T)


def plate_with_mean_of_data(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x - x.mean())


SCALED = handlers.scale(plain, scale=0.3)
CAPTURED = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1]], bool)

# Read, and equal to NumPyro's log density.
READ = {
    "eight schools": Example(eight_schools, *SCHOOLS),
    "eight schools, not centred": Example(
        handlers.reparam(eight_schools, config={"theta": LocScaleReparam(0)}), *SCHOOLS
    ),
    "sample_shape": Example(schools_by_sample_shape, *SCHOOLS),
    "baseball": Example(baseball_partially_pooled, (np.array([45, 40, 30]), np.array([18, 12, 9]))),
    "baseball, logit": Example(baseball_logit, (np.array([45, 40, 30]), np.array([18, 12, 9]))),
    "stochastic volatility": Example(stochastic_volatility, (0.1 * SERIES,)),
    "AR2": Example(ar2, (jnp.linspace(-1, 1, 7) ** 2,)),
    "Holt-Winters": Example(holt_winters, (jnp.sin(jnp.arange(9.0)), 3)),
    "UCB admissions": Example(ucb_admissions, ADMISSIONS),
    "horseshoe": Example(horseshoe_regression, (X, Y)),
    "ordinal regression": Example(ordinal_regression, (X[:, 0], np.array([0, 1, 2, 1, 0, 2]))),
    "Gaussian process": Example(gaussian_process, (X[:, 0], Y)),
    "zero-inflated Poisson": Example(zero_inflated_regression, (X, np.array([0, 1, 0, 2, 0, 3]))),
    "hierarchical series": Example(hierarchical_series, (X,)),
    "funnel": Example(funnel, ()),
    "VAR": Example(var2, (X[:, :2],)),
    "Bayesian network": Example(bayesian_network, (X, Y)),
    "mixture": Example(mixture, (Y,)),
    "capture and recapture": Example(capture_recapture, (CAPTURED,)),
    "scan": Example(local_level, (SERIES,)),
    "scan with history": Example(local_level, (SERIES,), {"history": 2}),
    "scan of supports": Example(positive_walk, (SERIES,)),
    "scan under handlers": Example(scan_under_handlers, (SERIES,)),
    "scan of a flat prior": Example(scan_of_improper, (SERIES,)),
    "cond": Example(branches, (np.float32(0.7),)),
    "cond in scan": Example(cond_in_scan, (SERIES,)),
    "nested seeds": Example(nested_seeds, (SERIES,)),
    "vmap of a function": Example(vmapped_function, (SERIES,)),
    "size 0": Example(of_size_zero, (SERIES,)),
    "mask of observations": Example(masked_observations, (SERIES, np.array([True, False, True, True]))),
    "lift": Example(handlers.lift(lifted, prior={"loc": dist.Normal(jnp.zeros(2), 3).to_event(1)}), (SERIES,)),
    "scaled and masked latents, factor": Example(weighted_latent, (SERIES,)),
    "scale": Example(SCALED, (SERIES,)),
    "scope": Example(handlers.scope(plain, prefix="outer"), (SERIES,)),
    "condition": Example(handlers.condition(plain, data={"w": jnp.array(0.7)}), (SERIES,)),
    "do": Example(handlers.do(plain, data={"w": jnp.array(0.7)}), (SERIES,)),
    "substitute": Example(handlers.substitute(plain, data={"w": jnp.array(0.7)}), (SERIES,)),
    "whitened": Example(handlers.reparam(plain, config={"w": kp.InverseTransformReparam()}), (SERIES,)),
    "partial": Example(partial(plain, y=SERIES), ()),
    "bounds from latents": Example(bounds_from_latents, (SERIES,)),
    "supports": Example(many_supports, (SERIES,)),
    "circular": Example(circular, (SERIES,)),
    "module with priors": Example(module_with_priors, (SERIES,)),
    "looks at its data": Example(looks_at_data, (np.array([1, 0, 2, 1]), SERIES, np.int64(2))),
    "arguments of all kinds": Example(
        dictionary_arguments, ({"y": np.array([0, 2, 1]), "offset": 0.3},), {"kind": "plain"}
    ),
    "KAEM": Example(kaem, (X,), {}, kaem_params),
}

# Read along the plate "data", all problems together equal to NumPyro's log density.
READ_ALONG_PLATE = {
    "regression": Example(plate_regression, (X, Y)),
    "one datum": Example(plate_regression, (X[:1], Y[:1])),
    "KAEM": Example(kaem, (X,), {}, kaem_params),
    "shared array as long as the data": Example(plate_with_shared, (X[:3], np.array([1.0, 0.5, -2.0]), Y[:3])),
    "shared array, equal data": Example(plate_with_shared, (np.ones((3, 3)), np.array([1.0, 0.5, -2.0]), np.ones(3))),
    "scan": Example(plate_with_scan, (X,)),
}

# Refused, and what the sentence says.
REFUSED = {
    "scan in scan": (Example(scan_in_scan, (SERIES,)), "'level' stands in a `scan` inside a `scan`"),
    "vmap": (Example(vmapped, (SERIES,)), "'y' stands inside a JAX transformation"),
    "while_loop": (Example(while_loop, (SERIES,)), "'z' stands inside a JAX transformation"),
    "scope around scan": (Example(scan_under_scope, (SERIES,)), "'inner/level' depends on a random number"),
    "jit": (Example(jitted, (SERIES,)), "'z' stands inside a JAX transformation"),
    "discrete": (Example(discrete, (SERIES,)), "'k' is discrete with infinitely many values"),
    "point mass": (Example(point_mass, (SERIES,)), "'square' has a delta distribution"),
    "subsampled": (Example(subsampled, (SERIES,)), "'data' subsamples 2 of 4 rows"),
    "hidden by block": (Example(handlers.block(plain, hide=["w"]), (SERIES,)), "'y' depends on a random number"),
    "dropout": (Example(dropout, (SERIES,)), "'y' depends on a random number"),
}
