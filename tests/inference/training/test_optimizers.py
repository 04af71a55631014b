"""Optimisers of all sites together, and of each site."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kaem_ppl.inference import fit

from .small_models import Pull, ppca, ppca_data


def test_one_optimizer_for_each_site():
    # Oracle: steps of gradient descent by hand; a rate of 0 leaves a site where it was.
    rates = {"weight": 0.0, "offset": 0.1, "noise": 0.0}
    arguments = {"strategy": Pull(), "num_epochs": 1, "progress_bar": False}
    optimizer = {name: optax.sgd(rate) for name, rate in rates.items()}
    params = fit(jax.random.key(0), ppca, ppca_data(4), optimizer=optimizer, **arguments).params
    np.testing.assert_allclose(params["offset"], 0.1 * 6 * np.ones(4), rtol=1e-6)
    np.testing.assert_array_equal(params["weight"], jnp.array([0.5, 0.1, -0.2, 0.3]))
    np.testing.assert_allclose(params["noise"], 0.6, rtol=1e-6)


def test_gradients_are_clipped_by_optax():
    optimizer = optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(1.0))
    arguments = {"strategy": Pull(), "num_epochs": 1, "progress_bar": False}
    params = fit(jax.random.key(0), ppca, ppca_data(4), optimizer=optimizer, **arguments).params
    moved = jnp.square(params["weight"] - jnp.array([0.5, 0.1, -0.2, 0.3])).sum() + jnp.square(params["offset"]).sum()
    assert 0 < moved <= 0.01**2 * 1.001
