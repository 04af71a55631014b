"""Training that becomes non-finite: it ends with an error that names the sites and has the last good parameters."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from kaem_ppl.inference import NonFiniteLossError, fit

from .small_models import QUICK, CountVisits, ppca, ppca_data


@dataclass(frozen=True)
class FailAt:
    """A parabola in `noise` that turns into NaN once a datum has been seen `visits` times."""

    visits: int

    def init(self, key, plate_model, params, data):
        return jnp.zeros(len(data))

    def loss(self, key, plate_model, params, state, batch):
        value = jnp.square(params["noise"] - 5)
        return jnp.where(state.max() >= self.visits, jnp.nan, value), ({}, state + 1)


@pytest.mark.parametrize("epoch", [1, 3])
def test_non_finite_loss_names_the_epoch_and_keeps_good_params(epoch):
    # Oracle: the same training stopped before it fails. The last parameters known to have a finite loss are those of
    # the last finite step, one update behind those an epoch returns.
    x, arguments = ppca_data(20), {"optimizer": optax.adam(0.1), "progress_bar": False, "batch_size": 5}
    with pytest.raises(NonFiniteLossError, match=f"in step 1 of epoch {epoch} of 5") as caught:
        fit(jax.random.key(0), ppca, x, strategy=FailAt(epoch - 1), num_epochs=5, **arguments)
    error = caught.value
    assert (error.epoch, error.step) == (epoch, 1)
    # It is the strategy that fails: no site of the model is to blame.
    assert error.sites == ()
    assert "so is every site at draws from the prior" in str(error)
    np.testing.assert_array_equal(error.history.get("epoch", []), range(1, epoch))
    if epoch == 1:
        np.testing.assert_allclose(error.params["noise"], 0.6, rtol=1e-6)
        return
    good = fit(jax.random.key(0), ppca, x, strategy=FailAt(epoch), num_epochs=epoch - 1, **arguments).params
    assert 0.6 < error.params["noise"] < good["noise"]
    np.testing.assert_allclose(error.params["noise"], good["noise"], rtol=0.15)


def test_diverging_parameters_are_not_the_good_ones():
    # A step of 1e30 leaves finite parameters whose loss is not; the good ones are those before it.
    x = ppca_data(20)
    with pytest.raises(NonFiniteLossError) as caught:
        fit(jax.random.key(0), ppca, x, **(QUICK | {"optimizer": optax.sgd(1e30), "num_epochs": 3}))
    error = caught.value
    np.testing.assert_allclose(error.params["noise"], 0.6, rtol=1e-6)
    np.testing.assert_allclose(error.params["offset"], 0)
    assert error.step == 1
    assert error.epoch == 2
    # The broken parameters lie far out; the exponential that keeps `noise` positive has overflowed there.
    assert np.abs(error.broken_params["offset"]).max() > 1e20
    assert error.sites == ("noise",)
    assert "What is not finite there: 'noise'" in str(error)


def test_a_likelihood_that_is_not_finite_is_named():
    # Oracle: a model whose likelihood is NaN once `a` has been moved, and whose parameters and prior stay finite.
    def model(x):
        a = numpyro.param("a", 1.0)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            numpyro.sample("x", dist.Normal(z, jnp.sqrt(a)), obs=x)

    with pytest.raises(NonFiniteLossError, match="What is not finite there: 'x'") as caught:
        fit(jax.random.key(0), model, 5 * jnp.ones(4), **(QUICK | {"optimizer": optax.sgd(-10.0)}))
    assert caught.value.sites == ("x",)
    assert caught.value.broken_params["a"] < 0 < caught.value.params["a"]


def test_parameters_that_are_not_finite_are_named():
    # The loss is finite, and the parameters after the step are not.
    with pytest.raises(NonFiniteLossError, match="What is not finite there: 'offset'") as caught:
        fit(
            jax.random.key(0), ppca, ppca_data(20), strategy=CountVisits(), num_epochs=1, progress_bar=False,
            optimizer={name: optax.sgd(np.nan if name == "offset" else 0.0) for name in ("weight", "offset", "noise")},
        )  # fmt: skip
    assert caught.value.sites == ("offset",)


def test_a_last_step_that_is_far_too_long_is_found():
    # The one step of a training leaves finite parameters, whose loss no step computes.
    with pytest.raises(NonFiniteLossError, match="not finite at the parameters after the last step") as caught:
        fit(jax.random.key(0), ppca, ppca_data(20), **(QUICK | {"optimizer": optax.sgd(1e30), "num_epochs": 1}))
    assert (caught.value.epoch, caught.value.step) == (1, 1)
    assert caught.value.sites == ("noise",)
    np.testing.assert_allclose(caught.value.params["noise"], 0.6, rtol=1e-6)
