"""Training on incomplete rows, against the maximum of the likelihood of the entries that are there."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from kaem_ppl.inference import (
    MALA,
    ImportanceMLE,
    LangevinMLE,
    PathwiseImportanceMLE,
    ThermodynamicMLE,
    VariationalMLE,
    fit,
)

_X = np.random.default_rng(0).normal([1.0, -2.0, 0.5], 1.0, (30, 3))
_INCOMPLETE = np.where(np.random.default_rng(1).random((30, 3)) < 0.3, np.nan, _X).astype(np.float32)


def offsets(x):
    offset = numpyro.param("offset", jnp.zeros(3))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(offset + 0.01 * z[:, None], 1.0).to_event(1), obs=x)


def guide(x):
    loc = numpyro.param("loc", jnp.zeros(3))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(jnp.nan_to_num(x) @ loc, 1.0))


_STRATEGIES = [
    ImportanceMLE(20),
    LangevinMLE(MALA(), num_steps=2),
    pytest.param(PathwiseImportanceMLE(20), marks=pytest.mark.slow),
    pytest.param(ThermodynamicMLE(num_steps=2), marks=pytest.mark.slow),
    pytest.param(VariationalMLE(guide), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("strategy", _STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_learns_from_the_entries_that_are_there(strategy):
    # Oracle: latents hardly matter, so that the likelihood is greatest at the mean of each column's observed entries. Their
    # noise of 0.01 and the last steps' leave less than a tenth of the tolerance; zeros in place of NaN would miss by 0.3.
    result = fit(
        jax.random.key(0), offsets, _INCOMPLETE, strategy=strategy, num_epochs=150, progress_bar=False, missing="nan",
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 150)),
    )  # fmt: skip
    np.testing.assert_allclose(result.params["offset"], np.nanmean(_INCOMPLETE, 0), atol=0.05)
