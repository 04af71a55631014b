"""What `diagnose` says of draws that are made up, so that what it should say is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from kaem_ppl.inference import (
    HMC,
    NUTS,
    ULA,
    AdaptedLadder,
    EllipticalSlice,
    ImportanceSampling,
    ParallelTempering,
    diagnose,
    sample_posterior,
)
from kaem_ppl.inference.diagnostics.spread import error_of_deviation


def model(x):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x", dist.Normal(z, 1).to_event(1), obs=x)


@pytest.fixture(scope="module")
def draws():
    return sample_posterior(
        jax.random.key(0), model, jnp.zeros(2), sampler=ULA(0.5), num_samples=800, num_warmup=0, progress_bar=False
    )


def changed(draws, *, sampler=None, stats=None, summary=None, z=None):
    """The same draws with other values, independent ones unless told otherwise."""
    z = jax.random.normal(jax.random.key(1), (4, 800, 2)) if z is None else z
    return dataclasses.replace(
        draws, samples={"z": z}, sampler=sampler or NUTS(), sample_stats=stats or {}, summary=summary or {}
    )


def test_nothing_to_say_of_independent_draws(draws):
    diagnosis = diagnose(changed(draws))
    assert diagnosis.warnings == ()
    assert diagnosis.table.loc["z", "r_hat"] < 1.01
    assert 2000 < diagnosis.table.loc["z", "ess_bulk"] < 5000
    assert diagnosis.table.loc["z", "ess_per_second"] == diagnosis.table.loc["z", "ess_bulk"] / draws.seconds
    assert "Nothing crossed a threshold" in str(diagnosis)


@pytest.mark.parametrize(("degrees", "is_known"), [(1.5, False), (30.0, True)])
def test_a_standard_deviation_that_few_draws_carry(draws, degrees, is_known):
    # Student's t: of 1.5 degrees of freedom it has no variance. Independent draws, so that all else is good.
    z = st.t(degrees).rvs((4, 800, 2), random_state=1).astype(np.float32)
    diagnosis = diagnose(changed(draws, z=z))
    assert diagnosis.checks["standard deviation"] == is_known
    assert {name for name, passed in diagnosis.checks.items() if not passed} <= {"standard deviation"}
    assert any("The standard deviation of z[" in words for words in diagnosis.warnings) != is_known


def test_the_error_of_a_standard_deviation():
    # Oracle: the spread of the standard deviations of 2,000 samples; of 400 independent draws each, known to 1.6 %.
    samples = st.gamma(2).rvs((2000, 400), random_state=0)
    stated = error_of_deviation(samples.T, np.full(2000, 400)).mean()
    deviations = samples.std(1)
    np.testing.assert_allclose(stated, deviations.std() / deviations.mean(), rtol=0.1)
    assert error_of_deviation(np.full((4, 800, 1), 1e30), np.ones(1)) == 0


@pytest.mark.parametrize("end", [-1, 1])
def test_steps_that_are_rejected_in_a_tail(draws, end):
    z = end * np.asarray(draws.positions["z"])[..., 1]
    rates = np.full(z.shape, 0.9)
    assert diagnose(changed(draws, stats={"acceptance_rate": rates})).checks["acceptance in the tails"]
    # Of the step that starts there, which is that of the next draw.
    rates[:, 1:] = np.where(z > np.quantile(z, 0.985), 0.2, 0.9)[:, :-1]
    diagnosis = diagnose(changed(draws, stats={"acceptance_rate": rates}))
    name = {-1: "lowest", 1: "highest"}[end]
    assert any(
        f"among the {name} 31 draws of 'z', 20% are accepted, of all 89%" in words for words in diagnosis.warnings
    )
    # A slice has no step that could be too long.
    diagnosis = diagnose(changed(draws, sampler=EllipticalSlice(), stats={"acceptance_rate": rates}))
    assert "acceptance in the tails" not in diagnosis.checks


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_a_ridge_that_narrows(slope):
    """R-hat and effective sizes of the wide direction are good, though the narrow end is hardly visited."""

    def ridge():
        u = numpyro.sample("u", dist.Normal(0, 1))
        numpyro.sample("w", dist.Normal(0, jnp.exp(-slope * u)))
        numpyro.factor("flat", jnp.zeros(()))

    draws = sample_posterior(jax.random.key(2), ridge, sampler=HMC(), progress_bar=False)
    assert diagnose(draws).checks["acceptance in the tails"] == (slope == 0)


def test_separate_modes(draws):
    z = jax.random.normal(jax.random.key(1), (4, 800, 2)).at[0, :, 1].add(8.0)
    diagnosis = diagnose(changed(draws, z=z))
    assert diagnosis.table.loc["z", "worst"] == "z[1]"
    assert any(words.startswith("R-hat of z[1] is") and "(1 of 2 elements)" in words for words in diagnosis.warnings)
    assert any("effective sample size of 'z'" in words for words in diagnosis.warnings)
    assert "! R-hat of z[1]" in str(diagnosis)


def test_stuck_and_not_finite(draws):
    assert any("did not move" in words for words in diagnose(changed(draws, z=jnp.zeros((4, 800, 2)))).warnings)
    z = jax.random.normal(jax.random.key(1), (4, 800, 2)).at[0, 0, 0].set(jnp.nan)
    assert any("not finite" in words for words in diagnose(changed(draws, z=z)).warnings)


def test_hamiltonian_trouble(draws):
    walk = np.cumsum(np.asarray(jax.random.normal(jax.random.key(2), (4, 800))), axis=1)
    stats = {
        "diverging": np.arange(800) % 400 == np.zeros((4, 1)),
        "energy": walk,
        "n_steps": np.full((4, 800), 7),
        "tree_depth": np.where(np.arange(800) < 3, 10, 3) * np.ones((4, 1)),
    }
    diagnosis = diagnose(changed(draws, sampler=NUTS(), stats=stats))
    assert diagnosis.run["divergences"] == 8
    assert diagnosis.run["max_tree_depth_hits"] == 12
    assert diagnosis.run["bfmi"] < 0.3
    for beginning in ("8 of 3200 steps diverged", "BFMI is", "12 trajectories reached"):
        assert any(words.startswith(beginning) for words in diagnosis.warnings)


def test_heavy_weights(draws):
    summary = {"pareto_k": np.array([0.2, 0.9, 0.3, 0.1]), "effective_sample_size": np.array([30.0, 5.0, 30.0, 40.0])}
    diagnosis = diagnose(changed(draws, sampler=ImportanceSampling(), summary=summary))
    assert diagnosis.run["pareto_k"] == 0.9
    # The size is that of the weights, not what resampled draws look like.
    assert diagnosis.table.loc["z", "ess_bulk"] == 105
    assert any(words.startswith("Pareto k-hat is 0.9") and "25%" in words for words in diagnosis.warnings)


def test_ladder_that_no_replica_climbs(draws):
    stats = {
        "swap_acceptance": np.full((4, 800, 2), 0.01),
        "replica": np.broadcast_to(np.arange(3), (4, 800, 3)),
        "tempered_log_likelihood": np.asarray(jax.random.normal(jax.random.key(3), (4, 800, 3))),
    }
    summary = {"communication_barrier": np.full(4, 1.98), "recommended_num_temperatures": np.full(4, 5)}
    diagnosis = diagnose(
        changed(draws, sampler=ParallelTempering(ladder=AdaptedLadder(3)), stats=stats, summary=summary)
    )
    assert diagnosis.run["round_trips"] == 0
    assert diagnosis.run["ess_per_temperature"].shape == (3,)
    assert any("calls for 5 temperatures, and there are 3" in words for words in diagnosis.warnings)
    assert any("no replica went from the prior to the posterior and back" in words for words in diagnosis.warnings)


@pytest.mark.parametrize(
    ("crosses", "wanted", "expected"),
    [
        (True, 3, "Replicas do cross, with 14 round trips in the chain of fewest: draws are too few"),
        (True, 5, "Draw longer; 5 temperatures in place of 3 bring more trips."),
        (False, 5, "Give 5 temperatures, as the barrier calls for, in place of 3."),
        (False, 3, "Draw longer: the barrier calls for no more than the 3 temperatures that there are."),
    ],
)
def test_chains_of_tempering_that_disagree_are_advised_by_their_replicas(draws, crosses, wanted, expected):
    # Two of the three replicas go to the other end and back in each of eight cycles of 100 draws, 7 times in full.
    places = np.array([[0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 1, 0]] if crosses else [[0, 1, 2]])
    replica = np.tile(places[np.arange(800) // 25 % len(places)], (4, 1, 1))
    stats = {
        "swap_acceptance": np.full((4, 800, 2), 0.5),
        "replica": replica,
        "tempered_log_likelihood": np.asarray(jax.random.normal(jax.random.key(2), (4, 800, 3))),
    }
    summary = {"communication_barrier": np.ones(4), "recommended_num_temperatures": np.full(4, wanted)}
    z = jax.random.normal(jax.random.key(1), (4, 800, 2)).at[0, :, 1].add(8.0)
    sampler = ParallelTempering(ladder=AdaptedLadder(3))
    diagnosis = diagnose(changed(draws, sampler=sampler, stats=stats, summary=summary, z=z))
    about = [words for words in diagnosis.warnings if words.startswith("R-hat of z[1]")]
    assert len(about) == 1
    assert expected in about[0]
    assert "separate modes" not in about[0]
    assert (diagnosis.run["round_trips"] > 0) == diagnosis.checks["round trips"] == crosses


def test_one_chain(draws):
    z = jax.random.normal(jax.random.key(1), (1, 800, 2))
    one = dataclasses.replace(changed(draws, z=z), positions={"z": z[:, :, None]})
    assert any("There is one chain" in words for words in diagnose(one).warnings)
