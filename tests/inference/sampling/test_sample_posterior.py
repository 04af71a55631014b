import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    MALA,
    NUTS,
    PCNL,
    ULA,
    AdaptedLadder,
    EllipticalSlice,
    GivenLadder,
    ImportanceSampling,
    ParallelTempering,
    PowerLadder,
    TemperedSMC,
    sample_posterior,
)
from kaem_ppl.inference.model.parameters import read_parameters
from kaem_ppl.inference.sampling.sampler import problem_keys

X = jnp.array([0.5, -1.0, 2.0])


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)


def draw(x=X, model=model, sampler=MALA(), **settings):  # noqa: B008
    settings = {"num_chains": 2, "num_samples": 12, "num_warmup": 20, "plate": "data", **settings}
    return sample_posterior(jax.random.key(0), model, x, sampler=sampler, progress_bar=False, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        MALA(),
        ULA(0.1),
        HMC(),
        NUTS(),
        EllipticalSlice(),
        PCNL(),
        ImportanceSampling(50),
        TemperedSMC(num_particles=20, kernel=MALA()),
        ParallelTempering(ladder=PowerLadder(3, 2.0)),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_draw_depends_on_its_own_chain_and_datum_only(sampler):
    # Fewer data and fewer chains leave the others' draws as they are.
    few, many = draw(X[:2], sampler=sampler, num_chains=1), draw(sampler=sampler)
    np.testing.assert_allclose(few.samples["z"][0], many.samples["z"][0, :, :2], atol=1e-4)


@pytest.mark.parametrize(
    "sampler", [ULA(1e-10), ParallelTempering(ULA(1e-10), ladder=GivenLadder((0.5, 0.7, 0.9, 1.0)))]
)
def test_starts_where_the_likelihood_is_positive(sampler):
    # Half of the prior's draws are impossible. Those of 20 chains and data are never all good at once (2^-20), nor are
    # 20 pairs of four replicas; any of them would be seen for ever in a statistic of minus infinity.
    def positive(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.factor("positive", jnp.where(z > 0, 0.0, -jnp.inf))
            numpyro.sample("x", dist.Normal(z, 1), obs=x)

    draws = draw(jnp.full(10, 3.0), positive, sampler, num_samples=2, num_warmup=0)
    assert np.isfinite(draws.sample_stats["lp"]).all()
    if "tempered_log_likelihood" in draws.sample_stats:
        first = np.asarray(draws.sample_stats["tempered_log_likelihood"])[:, 0].reshape(-1, 4)
        assert np.isfinite(first).all()
        # Replicas start apart from each other where they can; the steps are too small to part them later.
        distinct = [len(set(values.tolist())) for values in first.round(3)]
        assert max(distinct) == 4
        assert min(distinct) < 4


def test_draws_do_not_depend_on_the_chunks():
    # Without adaptation a longer run starts with the shorter one, whatever chunks they are compiled in.
    sampler = MALA(step_size=0.5)
    few, many = (draw(sampler=sampler, num_warmup=0, num_samples=n) for n in (7, 31))
    np.testing.assert_allclose(few.samples["z"], many.samples["z"][:, :7], atol=1e-5)


@pytest.mark.slow
def test_first_draws_take_few_programs():
    # Oracle: JAX's own count of compilations. All replicas start in one program and move in another; the prior's table,
    # keys and results, and the comparison of the reading with NumPyro, take the others. Each operation outside `jax.jit`
    # would be one more.
    programs = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, fun_name=None, **__: (
            programs.append(fun_name) if event.endswith("backend_compile_duration") else None
        )
    )

    def learnt(x):
        prior = kp.kan_prior("prior", (2,), basis=kp.RBF(7), domain=(-3, 3), reference=dist.Normal(0, 1))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior.to_event(1))
            numpyro.sample("x", dist.Normal(z.sum(-1), 1), obs=x)

    params = read_parameters(jax.random.key(0), learnt, (X,)).values
    sampler = ParallelTempering(ULA(0.1), ladder=GivenLadder((0.1, 0.3, 1.0)))
    # What other tests have compiled would not be counted.
    jax.clear_caches()
    programs.clear()
    draw(model=learnt, params=params, sampler=sampler, num_warmup=0, num_samples=13)
    assert {"jit(_start)", "jit(_advance)"} <= set(programs)
    assert len(programs) <= 63, programs
    programs.clear()
    draw(model=learnt, params=params, sampler=sampler, num_warmup=0, num_samples=13)
    assert not programs


def test_keys_differ():
    keys = jax.random.key_data(problem_keys(jax.random.key(0), 5, 7)).reshape(35, -1)
    assert len({tuple(key.tolist()) for key in keys}) == 35


def test_adaptation_reaches_its_target():
    # 4 x 3 x 2,000 steps measure the acceptance to 0.01; the adapted step size itself scatters by some hundredths.
    draws = draw(num_chains=4, num_samples=2_000, num_warmup=1_000)
    assert abs(float(draws.sample_stats["acceptance_rate"].mean()) - 0.574) < 0.08
    assert draws.summary["step_size"].shape == (4, 3)


def test_progress_in_a_log(capfd, monkeypatch):
    monkeypatch.setattr("kaem_ppl.progress.FIRST_LINE_SECONDS", 0.0)
    sample_posterior(jax.random.key(0), model, X, sampler=ULA(0.1), plate="data", num_samples=5, num_warmup=0)
    assert capfd.readouterr().err.startswith("kaem-ppl: ")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_chains": 0}, ValueError, "`num_chains` must be a whole number of at least 1, got 0"),
        ({"num_samples": 1.5}, ValueError, "`num_samples` must be a whole number"),
        ({"num_warmup": -1}, ValueError, "`num_warmup` must be a whole number of at least 0"),
        ({"sampler": "NUTS"}, TypeError, "`sampler` must be a sampler such as"),
        ({"sampler": NUTS}, TypeError, "`sampler` must be a sampler such as"),
        ({"num_warmup": 0}, ValueError, "MALA adapts its step size in warm-up, but `num_warmup` is 0"),
        ({"sampler": ParallelTempering(ULA(0.1)), "num_warmup": 0}, ValueError, "The ladder is adapted in warm-up"),
        ({"x": jnp.array([1.0, jnp.nan])}, ValueError, r"log-likelihood is not finite .* for data \[1\]"),
    ],
)
def test_refuses(settings, error, message):
    with pytest.raises(error, match=message):
        draw(**settings)


def test_refuses_a_prior_that_can_not_be_drawn():
    def flat(x):
        z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.sample("x", dist.Normal(z, 1), obs=x)

    for sampler in (ImportanceSampling(), TemperedSMC(), ParallelTempering()):
        with pytest.raises(ValueError, match="the prior of `model` is flat"):
            draw(model=flat, sampler=sampler, plate=None)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ULA(0.0), ValueError, "`step_size` must be a number above 0"),
        (lambda: ULA(None), ValueError, "`step_size` must be a number above 0"),
        (lambda: MALA(target_acceptance=1.0), ValueError, "`target_acceptance` must be a number above 0"),
        (
            lambda: HMC(num_integration_steps=0),
            ValueError,
            "`num_integration_steps` must be a whole number of at least 1",
        ),
        (lambda: NUTS(max_tree_depth=0), ValueError, "`max_tree_depth` must be a whole number of at least 1"),
        (lambda: PCNL(step_size=3.0), ValueError, "`step_size` must be a number above 0 and of at most 2"),
        (lambda: ImportanceSampling(3), ValueError, "`num_particles` must be a whole number of at least 20"),
        (lambda: TemperedSMC(kernel=ImportanceSampling()), TypeError, "`kernel` must be a Markov kernel"),
        (lambda: TemperedSMC(target_ess=1.0), ValueError, "`target_ess` must be a fraction"),
        (lambda: TemperedSMC(ladder=GivenLadder((0.1, 1))), ValueError, "must start at 0"),
        (lambda: ParallelTempering(kernel="MALA"), TypeError, "`kernel` must be a Markov kernel"),
        (
            lambda: ParallelTempering(ladder=AdaptedLadder(1)),
            ValueError,
            "`num_temperatures` must be a whole number of at least 2",
        ),
        (lambda: ParallelTempering(ladder=GivenLadder((0, 0.5))), ValueError, "must increase from 0 or more to 1"),
        (lambda: ParallelTempering(ladder=(0, 1)), TypeError, "`ladder` must be a ladder"),
        (lambda: TemperedSMC(ladder=AdaptedLadder(4)), ValueError, "known before"),
        (lambda: PowerLadder(4, 0.0), ValueError, "`power` must be a number above 0"),
    ],
)
def test_settings_out_of_range(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "sampler",
    [
        HMC(num_integration_steps=2),
        pytest.param(TemperedSMC(num_particles=20), marks=pytest.mark.slow),
        pytest.param(ParallelTempering(ladder=AdaptedLadder(3)), marks=pytest.mark.slow),
        pytest.param(PCNL(), marks=pytest.mark.slow),
        pytest.param(ImportanceSampling(50), marks=pytest.mark.slow),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_double_precision(sampler):
    with jax.enable_x64(True):
        draws = draw(jnp.asarray(np.array([0.5, -1.0])), sampler=sampler, num_samples=10)
        assert draws.samples["z"].dtype == jnp.float64
        assert np.isfinite(draws.samples["z"]).all()
