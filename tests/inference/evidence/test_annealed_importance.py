"""Annealed importance sampling, forward and back, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    ULA,
    AdaptedLadder,
    AnnealedImportanceSampling,
    GivenLadder,
    ImportanceMLE,
    ImportanceSampling,
    PowerLadder,
    bound_log_evidence,
    fit,
    log_evidence,
)
from kaem_ppl.models import split_digits


@pytest.mark.slow
def test_bounds_of_simulated_data(linear_gaussian):
    # Oracle: the closed form at the simulated data. The bounds hold on average over runs: within 4 standard errors for
    # six data. With 20 temperatures the gap is small.
    one = linear_gaussian
    method = AnnealedImportanceSampling(16, HMC(step_size=0.7, num_integration_steps=3), PowerLadder(20, 2.0))
    bounds = bound_log_evidence(
        jax.random.key(0), one.model, one.x, params=one.params, plate="data", method=method, num_chains=8,
        progress_bar=False,
    )  # fmt: skip
    assert not np.allclose(bounds.observations["x"], one.x)
    exact = np.asarray(one.log_evidence(one.params, bounds.observations["x"]), float)
    assert (bounds.lower - 4 * bounds.lower_std_error < exact).all()
    assert (exact < bounds.upper + 4 * bounds.upper_std_error).all()
    assert abs((bounds.upper - bounds.lower).mean()) < 0.1
    assert np.abs(bounds.lower - exact).max() < 0.3
    assert np.abs(bounds.upper - exact).max() < 0.3


@pytest.mark.slow
def test_a_short_ladder_leaves_a_gap_around_the_truth(linear_gaussian):
    # One particle and one step: plain bounds, each about half a nat from the truth. The average over 120 data, whose
    # exact draws scatter by less than a nat each, is known to a tenth.
    one = linear_gaussian
    x = jnp.tile(one.x, (20, 1))
    method = AnnealedImportanceSampling(1, HMC(step_size=0.7, num_integration_steps=3), GivenLadder((0, 1)))
    bounds = bound_log_evidence(
        jax.random.key(1), one.model, x, params=one.params, plate="data", method=method, num_chains=8,
        progress_bar=False,
    )  # fmt: skip
    exact = np.asarray(one.log_evidence(one.params, bounds.observations["x"]), float)
    assert bounds.lower.mean() < exact.mean() - 0.2
    assert exact.mean() + 0.2 < bounds.upper.mean()


@pytest.mark.slow
def test_a_plate_on_another_axis_of_the_data():
    # 1,024 particles of each datum: the bounds have standard deviations of 0.02 and 0.03, a fifth of what is let pass.
    method = AnnealedImportanceSampling(256, HMC(step_size=0.5, num_integration_steps=3), PowerLadder(12, 2.0))

    def model(rows):
        with numpyro.plate("data", len(rows), dim=-1), numpyro.plate("column", 2, dim=-2):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(z, 0.7), obs=rows.T)

    rows = jnp.zeros((3, 2))
    bounds = bound_log_evidence(
        jax.random.key(0), model, rows, plate="data", method=method, num_chains=4, progress_bar=False
    )
    exact = dist.Normal(0, np.sqrt(1.49)).log_prob(bounds.observations["x"].reshape(3, 2)).sum(-1)
    np.testing.assert_allclose(bounds.lower, exact, atol=0.15)
    np.testing.assert_allclose(bounds.upper, exact, atol=0.15)


@pytest.mark.exhaustive
def test_an_adapted_kernel_and_no_plate(linear_gaussian):
    # Joint evidence of all data against the closed form, within 4 standard errors.
    one = linear_gaussian
    settings = {"params": one.params, "method": AnnealedImportanceSampling(32, ladder=PowerLadder(24)), "num_chains": 2}
    evidence = log_evidence(jax.random.key(0), one.model, one.x, progress_bar=False, **settings)
    exact = float(one.log_evidence(one.params, one.x).sum())
    assert evidence.is_trustworthy
    assert abs(evidence.value - exact) < 4 * evidence.std_error
    bounds = bound_log_evidence(jax.random.key(1), one.model, one.x, progress_bar=False, **settings)
    assert bounds.lower.shape == ()
    exact = float(one.log_evidence(one.params, bounds.observations["x"]).sum())
    np.testing.assert_allclose([bounds.lower, bounds.upper], exact, atol=0.5)


def digits_kaem(x):
    prior = kp.kan_prior("prior", (8,), basis=kp.RBF(20), domain=(-3, 3), reference=dist.Normal(0, 1))
    decode = kp.kan_generator("decoder", (8, 17, 64), output=jax.nn.sigmoid)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(decode(z), 0.2).to_event(1), obs=x)


@pytest.mark.exhaustive
def test_sandwich_of_a_kaem_with_the_digits_decoder():
    # The bars: on average over 64 simulated data the lower bound is below the upper one, by less than half a nat. For no
    # datum is the order turned around by 4 standard errors.
    train, held_out = split_digits()
    params = fit(
        jax.random.key(0), digits_kaem, train.images[:500], strategy=ImportanceMLE(num_particles=100),
        optimizer=optax.adam(5e-3), num_epochs=10, batch_size=100, progress_bar=False,
    ).params  # fmt: skip
    method = AnnealedImportanceSampling(8, HMC(num_integration_steps=5), PowerLadder(64, 3.0))
    bounds = bound_log_evidence(
        jax.random.key(1), digits_kaem, held_out.images[:64], params=params, plate="data", method=method, num_chains=4,
        progress_bar=False,
    )  # fmt: skip
    gap = bounds.upper - bounds.lower
    assert 0 < gap.mean() < 0.5
    assert (gap > -4 * np.hypot(bounds.lower_std_error, bounds.upper_std_error)).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AnnealedImportanceSampling(0), ValueError, "`num_particles` must be a whole number of at least 1"),
        (
            lambda: AnnealedImportanceSampling(num_steps=0),
            ValueError,
            "`num_steps` must be a whole number of at least 1",
        ),
        (
            lambda: AnnealedImportanceSampling(kernel=ImportanceSampling()),
            TypeError,
            "`kernel` must be a Markov kernel",
        ),
        (lambda: AnnealedImportanceSampling(kernel=ULA(0.1)), ValueError, "`kernel` is ULA"),
        (lambda: AnnealedImportanceSampling(ladder=(0, 1)), TypeError, "`ladder` must be a ladder"),
        (lambda: AnnealedImportanceSampling(ladder=AdaptedLadder(4)), ValueError, "known before"),
        (lambda: AnnealedImportanceSampling(ladder=GivenLadder((0.1, 1))), ValueError, "must start at 0"),
        (lambda: bound_log_evidence(0, None, method=ImportanceSampling()), TypeError, "`method` must be an"),
        (lambda: bound_log_evidence(0, None, num_chains=1), ValueError, "`num_chains` must be a whole number"),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()
