"""The log-evidence by every method against closed forms, quadrature, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st
from numpyro import handlers
from scipy.special import betaln, gammaln, logsumexp

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    MALA,
    ULA,
    AdaptedLadder,
    AnnealedImportanceSampling,
    GivenLadder,
    ImportanceSampling,
    NestedSampling,
    ParallelTempering,
    PowerLadder,
    TemperedSMC,
    log_evidence,
)

KERNEL = MALA(step_size=0.3)
SMALL = {
    "ParallelTempering": ParallelTempering(KERNEL, PowerLadder(9, 2.0)),
    "TemperedSMC": TemperedSMC(400, KERNEL, 3),
    "AnnealedImportanceSampling": AnnealedImportanceSampling(100, KERNEL, PowerLadder(16, 2.0)),
    "ImportanceSampling": ImportanceSampling(2000),
}
QUICK = {"num_chains": 2, "num_samples": 300, "num_warmup": 0, "progress_bar": False}


@pytest.fixture(scope="module")
def found(request):
    """Results by method for the linear-Gaussian model, made once."""
    return {}


@pytest.fixture(
    params=[name if name == "ImportanceSampling" else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def result(request, linear_gaussian, found):
    one, name = linear_gaussian, request.param
    if name not in found:
        found[name] = log_evidence(
            jax.random.key(0), one.model, one.x, params=one.params, plate="data", method=SMALL[name], **QUICK
        )
    return found[name], np.asarray(one.log_evidence(one.params, one.x), float)


def test_each_datum_against_the_closed_form(result):
    # Six data, up to four estimates each, within 4 standard errors: a false alarm in 6e-4 of seeds.
    evidence, exact = result
    for name, estimate in evidence.estimates.items():
        assert (np.abs(estimate.value - exact) < 4 * estimate.std_error).all(), name
    assert evidence.value.shape == evidence.std_error.shape == evidence.is_trustworthy.shape == (6,)
    assert evidence.is_trustworthy.all()
    assert evidence.warnings == ()
    assert (evidence.std_error < 0.15).all()
    total, std_error = evidence.total()
    assert abs(total - exact.sum()) < 4 * std_error
    assert "Nothing crossed a threshold" in str(evidence)


def test_to_arviz(result):
    evidence, _ = result
    group = evidence.to_arviz()["log_evidence"]
    np.testing.assert_array_equal(group["value"], evidence.value)
    assert group["value"].dims == ("data",)
    assert list(group["estimator"].values) == list(evidence.estimates)
    assert group["estimate_value"].dims == ("estimator", "data")
    assert ("mean_log_likelihood" in group) is (evidence.curve is not None)


def one_latent(x):
    z = numpyro.sample("z", dist.Normal(0, 1))
    numpyro.sample("x", dist.Normal(z, 1), obs=x)


def test_one_problem_is_a_scalar():
    evidence = log_evidence(jax.random.key(0), one_latent, 1.0, method=ImportanceSampling(1000), **QUICK)
    assert evidence.value.shape == evidence.is_trustworthy.shape == ()
    assert abs(evidence.value - st.norm.logpdf(1.0, scale=2**0.5)) < 4 * evidence.std_error
    assert evidence.to_arviz()["log_evidence"]["value"].dims == ()


def test_a_narrow_posterior_is_not_believed():
    # The posterior has a scale of 1e-3 in four dimensions, far from the prior's bulk.
    def model(x):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([4]).to_event(1))
        numpyro.sample("x", dist.Normal(z, 1e-3).to_event(1), obs=x)

    evidence = log_evidence(jax.random.key(0), model, jnp.full(4, 2.0), method=ImportanceSampling(1000), **QUICK)
    assert not evidence.is_trustworthy
    assert "Pareto k-hat is above 0.7" in evidence.warnings[0]
    assert "! " in str(evidence)


@pytest.mark.slow
@pytest.mark.parametrize("method", [ParallelTempering(ULA(0.1), PowerLadder(4)), TemperedSMC(100, ULA(0.1), 2)])
def test_an_inexact_kernel_is_not_believed(method):
    evidence = log_evidence(jax.random.key(0), one_latent, jnp.array(1.0), method=method, **QUICK)
    assert not evidence.is_trustworthy
    assert any("kernel is ULA" in words for words in evidence.warnings)


@pytest.mark.slow
def test_a_datum_does_not_depend_on_the_others():
    def model(x):
        with numpyro.plate("data", len(x)):
            one_latent(x)

    def run(x):
        return log_evidence(jax.random.key(0), model, x, plate="data", method=TemperedSMC(50, MALA(0.5), 2), **QUICK)

    x = jnp.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(run(x).value[:2], run(x[:2]).value, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*SMALL.values(), NestedSampling(50)], ids=[*SMALL, "NestedSampling"])
def test_a_second_call_compiles_nothing(method, caplog):
    def model(x):
        with numpyro.plate("data", len(x)):
            one_latent(x)

    def run(key):
        log_evidence(jax.random.key(key), model, jnp.array([0.5, -1.0]), plate="data", method=method, **QUICK)

    run(0)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        run(1)
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]


def flat(x):
    z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("x", dist.Normal(z, 1), obs=x)


def impossible(x):
    z = numpyro.sample("z", dist.Normal(0, 1))
    numpyro.sample("x", dist.Uniform(0, 1 + z**2), obs=x)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_chains": 0}, ValueError, "`num_chains` must be a whole number of at least 1"),
        ({"num_samples": 3}, ValueError, "`num_samples` must be a whole number of at least 4"),
        ({"method": "smc"}, TypeError, "`method` must be one of"),
        ({"method": HMC()}, TypeError, "`method` must be one of"),
        ({"method": TemperedSMC}, TypeError, "`method` must be one of"),
        ({"model": flat}, ValueError, "its evidence is not defined"),
        ({"method": ParallelTempering(ladder=GivenLadder((0.1, 1)))}, ValueError, "must start at 0"),
        pytest.param(
            {"model": impossible, "method": SMALL["TemperedSMC"]}, ValueError, "0 at every one of 4000... prior draws",
            marks=pytest.mark.slow,
        ),
        ({"model": impossible, "method": SMALL["ImportanceSampling"]}, ValueError, "0 at every one of 4000 prior draws"),
        pytest.param(
            {"model": impossible, "method": NestedSampling(50)}, ValueError, "0 at every one of 4000... prior draws",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"model": impossible, "method": SMALL["AnnealedImportanceSampling"]}, ValueError,
            "0 at every one of 4000... prior draws", marks=pytest.mark.slow,
        ),
        ({"model": impossible, "method": SMALL["ParallelTempering"]}, ValueError, "log-likelihood is not finite at any"),
    ],
)  # fmt: skip
def test_refuses(settings, error, message):
    settings = {"model": one_latent, "method": SMALL["ImportanceSampling"], **QUICK, **settings}
    with pytest.raises(error, match=message):
        log_evidence(jax.random.key(0), settings.pop("model"), jnp.array(-1.0), **settings)


# The acceptance of the estimators: slow, with 50 seeds as a plate of 50 equal data, each with keys of its own.
NUM_SEEDS = 50


def linear(dimension, noise=1.0):
    """A model of `dimension` latents and two more outputs, equal data for all seeds, and their log-evidence."""
    rng = np.random.default_rng(dimension)
    design = rng.normal(size=(dimension + 2, dimension)) / np.sqrt(dimension)
    marginal = st.multivariate_normal(cov=design @ design.T + noise**2 * np.eye(dimension + 2))
    x = marginal.rvs(random_state=rng)
    weight = jnp.asarray(design.T, jnp.float32)

    def model(x):
        with numpyro.plate("data", len(x)):
            # The prior reads the row, so that each seed has draws of its own.
            z = numpyro.sample("z", dist.Normal(0 * x[:, :1], 1).expand([len(x), dimension]).to_event(1))
            numpyro.sample("x", dist.Normal(z @ weight, noise).to_event(1), obs=x)

    return model, jnp.tile(jnp.asarray(x, jnp.float32), (NUM_SEEDS, 1)), marginal.logpdf(x)


HMC5 = HMC(num_integration_steps=5, target_acceptance=0.8)
LINEAR = {
    (1, "importance"): (ImportanceSampling(4000), 0.1),
    (1, "smc"): (TemperedSMC(500, HMC5, 3), 0.1),
    (1, "annealed"): (AnnealedImportanceSampling(64, HMC5, PowerLadder(16)), None),
    (1, "nested"): (NestedSampling(200), None),
    (1, "tempering"): (ParallelTempering(HMC5, AdaptedLadder(7)), 0.1),
    (10, "importance"): (ImportanceSampling(20_000), None),
    (10, "smc"): (TemperedSMC(500, HMC5, 3), 0.1),
    (10, "annealed"): (AnnealedImportanceSampling(64, HMC5, PowerLadder(32)), None),
    (10, "nested"): (NestedSampling(100), None),
    (10, "tempering"): (ParallelTempering(HMC5, AdaptedLadder(13)), 0.1),
    (50, "smc"): (TemperedSMC(300, HMC5, 4), 0.5),
    (50, "tempering"): (ParallelTempering(HMC5, AdaptedLadder(21)), 0.5),
}


# One dimension is easier than ten, and what else is exhaustive takes half a minute.
LONGEST = [setting for setting in LINEAR if setting != (10, "importance")]


@pytest.mark.parametrize(
    ("dimension", "name"),
    [
        pytest.param(*setting, marks=pytest.mark.exhaustive if setting in LONGEST else pytest.mark.slow)
        for setting in LINEAR
    ],
    ids=str,
)
def test_linear_gaussian(dimension, name):
    # Bars: bias under 3.5 standard errors of the mean (a false alarm in 5e-4 of seeds for each of 20 estimates, 1 % in
    # all); 95 % intervals cover in 43 of 50 (below that in 1 % of seeds); and the root-mean-square error.
    method, largest_error = LINEAR[dimension, name]
    model, x, exact = linear(dimension)
    num_chains = 1 if name == "nested" else 2
    evidence = log_evidence(
        jax.random.key(2024), model, x, plate="data", method=method, num_chains=num_chains, num_samples=250,
        num_warmup=100, progress_bar=False,
    )  # fmt: skip
    assert evidence.is_trustworthy.sum() >= 45
    for key, estimate in evidence.estimates.items():
        error = (estimate.value - exact)[estimate.is_trustworthy]
        if len(error) < 45:
            continue
        assert abs(error.mean()) < 3.5 * error.std(ddof=1) / np.sqrt(len(error)), key
        covered = np.abs(error) < 1.96 * estimate.std_error[estimate.is_trustworthy]
        assert covered.sum() + NUM_SEEDS - len(error) >= 43, key
        if largest_error is not None:
            assert np.sqrt(np.square(error).mean()) < largest_error, key


@pytest.mark.slow
def test_importance_sampling_in_fifty_dimensions_knows_that_it_fails():
    model, x, _ = linear(50)
    evidence = log_evidence(jax.random.key(0), model, x, plate="data", method=ImportanceSampling(2000), **QUICK)
    assert not evidence.is_trustworthy.any()


@pytest.mark.exhaustive
def test_an_adapted_ladder_halves_the_error_of_equal_steps():
    # Strong data: a signal of ten times the noise in fifty dimensions. Equal budgets, 20 seeds.
    model, x, exact = linear(50, noise=0.1)
    errors = {}
    for name, ladder in (("adapted", AdaptedLadder(16)), ("equal", PowerLadder(16, 1.0))):
        evidence = log_evidence(
            jax.random.key(0), model, x[:20], plate="data", method=ParallelTempering(HMC5, ladder), num_chains=2,
            num_samples=200, num_warmup=200, progress_bar=False,
        )  # fmt: skip
        errors[name] = np.sqrt(np.square(evidence.value - exact).mean())
    assert errors["adapted"] < 0.5 * errors["equal"]


THREE = {
    "smc": TemperedSMC(500, HMC5, 4),
    "tempering": ParallelTempering(HMC5, AdaptedLadder(12)),
}
LONGER = {"num_chains": 4, "num_samples": 1000, "num_warmup": 300, "progress_bar": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [pytest.param(THREE["smc"], marks=pytest.mark.exhaustive), THREE["tempering"]], ids=THREE
)
def test_beta_binomial(method):
    # Oracle: the beta-binomial law. Three data, three estimates, within 3 standard errors.
    successes, trials, a, b = np.array([2, 17, 30]), 30, 1.5, 2.5

    def model(k):
        with numpyro.plate("data", len(k)):
            p = numpyro.sample("p", dist.Beta(a, b))
            numpyro.sample("k", dist.Binomial(trials, p), obs=k)

    evidence = log_evidence(jax.random.key(0), model, jnp.asarray(successes), plate="data", method=method, **LONGER)
    choose = gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1)
    exact = choose + betaln(a + successes, b + trials - successes) - betaln(a, b)
    for name in ("steppingstone", "thermodynamic_integration", "tempered_smc"):
        if name in evidence.estimates:
            estimate = evidence.estimates[name]
            assert (np.abs(estimate.value - exact) < 3 * estimate.std_error).all(), name


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", THREE.values(), ids=THREE)
def test_two_gaussians_of_ching_and_chen(method):
    # Weights 0.1 and 0.9, modes at 0.5 and -0.5 in all of four dimensions, ten standard deviations apart; the prior is
    # uniform on [-2, 2]^4 (Ching and Chen 2007, ex. 2). The likelihood integrates to one over the box, up to 1e-50.
    def model():
        z = numpyro.sample("z", dist.Uniform(-2.0, 2.0).expand([4]).to_event(1))
        parts = [jnp.log(w) + dist.Normal(m, 0.1).log_prob(z).sum() for w, m in ((0.1, 0.5), (0.9, -0.5))]
        numpyro.factor("mixture", jnp.logaddexp(*parts))

    evidence = log_evidence(jax.random.key(0), model, method=method, **LONGER)
    for name in ("steppingstone", "thermodynamic_integration", "tempered_smc"):
        if name in evidence.estimates:
            estimate = evidence.estimates[name]
            assert abs(estimate.value + 4 * np.log(4)) < 3 * estimate.std_error, name


@pytest.mark.exhaustive
def test_kaem_with_two_latents_against_quadrature():
    # Oracle: the trapezoidal rule on 401 x 401 points of [-7, 7]^2 for each of 32 data.
    def model(x):
        prior = kp.kan_prior("prior", (2,), basis=kp.RBF(10), domain=(-3, 3), reference=dist.Normal(0.0, 1.0))
        decode = kp.kan_generator("decoder", (2, 5, 6))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior.to_event(1))
            numpyro.sample("x", dist.Normal(decode(z), 0.5).to_event(1), obs=x)

    def sites(values, size):
        with handlers.trace() as found, handlers.seed(rng_seed=5), handlers.substitute(data=values):
            model(jnp.zeros((size, 6)))
        return found

    params = {name: site["value"] for name, site in sites({}, 1).items() if site["type"] == "param"}
    params["prior$params"] = jax.tree.map(
        lambda p: p + 0.5 * jax.random.normal(jax.random.key(3), p.shape), params["prior$params"]
    )
    grid = np.linspace(-7, 7, 401)
    points = jnp.asarray(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2))
    on_grid = sites({**params, "z": points}, len(points))
    mean = np.asarray(on_grid["x"]["fn"].base_dist.loc, float)
    log_prior = np.asarray(on_grid["z"]["fn"].log_prob(points), float)
    x = sites(params, 32)["x"]["fn"].sample(jax.random.key(7))
    exact = np.array([
        logsumexp(log_prior + st.norm.logpdf(np.asarray(one, float), mean, 0.5).sum(-1)) for one in x
    ]) + 2 * np.log(grid[1] - grid[0])  # fmt: skip

    # Standard errors near 0.01, so that 32 data stay within 0.05.
    longer = {**LONGER, "num_samples": 3 * LONGER["num_samples"]}
    for method in (TemperedSMC(2000, MALA(), 4), THREE["tempering"]):
        evidence = log_evidence(jax.random.key(1), model, x, params=params, plate="data", method=method, **longer)
        for name in ("steppingstone", "thermodynamic_integration", "tempered_smc"):
            if name in evidence.estimates:
                np.testing.assert_allclose(evidence.estimates[name].value, exact, atol=0.05, err_msg=name)


@pytest.mark.slow
def test_eight_schools():
    # No closed form: four methods that share nothing but the model, every pair within 3 combined standard errors.
    effects = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        tau = numpyro.sample("tau", dist.HalfCauchy(5))
        with numpyro.plate("school", 8):
            theta = numpyro.sample("theta", dist.Normal(0, 1))
            numpyro.sample("y", dist.Normal(mu + tau * theta, errors), obs=y)

    found = {}
    for method in (*THREE.values(), NestedSampling(300)):
        evidence = log_evidence(jax.random.key(0), model, effects, method=method, **LONGER)
        found |= evidence.estimates
    assert len(found) == 4
    for one in found.values():
        for other in found.values():
            assert abs(one.value - other.value) <= 3 * np.hypot(one.std_error, other.std_error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [TemperedSMC(200), AnnealedImportanceSampling(), NestedSampling(200)], ids=lambda x: type(x).__name__
)
def test_a_likelihood_above_0_at_one_draw_in_740(method):
    # Oracle: SciPy's tail of the normal law. Within 4 standard errors: a false alarm in 2e-4 of seeds.
    def model():
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.factor("tail", jnp.where(z > 3.0, 0.0, -jnp.inf))

    evidence = log_evidence(jax.random.key(0), model, method=method, progress_bar=False)
    assert abs(evidence.value - st.norm.logsf(3.0)) < 4 * evidence.std_error
    assert 0.01 < evidence.std_error < 0.2
