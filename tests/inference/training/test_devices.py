"""Data on four forced host devices: batches are split over them, with the result of one device."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from kaem_ppl.inference import *
from kaem_ppl.inference.training import data_parallel

def model(x=None, size=None):
    loc = numpyro.param("loc", jnp.zeros(3))
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", dist.Normal(loc, 1).to_event(1))
        numpyro.sample("x", dist.Normal(z, 1).to_event(1), obs=x)

x = np.random.default_rng(0).normal(2.0, 1.0, (64, 3)).astype(np.float32)
split = jax.device_put(x, NamedSharding(Mesh(jax.devices(), "data"), PartitionSpec("data")))
seen = []
loss = data_parallel.DataParallel.loss
data_parallel.DataParallel.loss = lambda self, *arguments: seen.append(self) or loss(self, *arguments)
for strategy in (ImportanceMLE(50), LangevinMLE(ULA(0.1), 3, persistent=True)):
    options = {"strategy": strategy, "num_epochs": 2, "progress_bar": False}
    one = fit(jax.random.key(1), model, x, batch_size=16, **options)
    assert not seen
    four = fit(jax.random.key(1), model, split, batch_size=16, **options)
    assert seen and seen[0].sharding.num_devices == 4
    assert np.abs(one.params["loc"] - four.params["loc"]).max() < 1e-5
    assert np.abs(one.history["loss"] - four.history["loss"]).max() < 1e-4
    seen.clear()
try:
    fit(jax.random.key(1), model, split, num_epochs=1, batch_size=15, progress_bar=False)
except ValueError as error:
    assert "`batch_size` is 15, and the data are on 4 devices: expected a multiple of 4." in str(error)
else:
    raise AssertionError
"""


@pytest.mark.slow
def test_batches_are_split_over_the_devices_of_the_data():
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True)
