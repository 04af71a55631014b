"""The same key on one and on four forced host devices gives the same draws: results do not depend on how work is split."""

import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import kaem_ppl as kp
from kaem_ppl.inference import *

num_devices, x64, names, path = int(sys.argv[1]), sys.argv[2] == "x64", sys.argv[3].split(), sys.argv[4]
assert jax.device_count() == num_devices
jax.config.update("jax_enable_x64", x64)

def model(x):
    prior = kp.kan_prior("prior", (3,), basis=kp.RBF(8), domain=(-2, 2), reference=dist.Normal(0.0, 1.0))
    generate = kp.kan_generator("generator", (3, 7, 6))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(generate(z), 0.5).to_event(1), obs=x)

x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)))
with numpyro.handlers.trace() as sites, numpyro.handlers.seed(rng_seed=0):
    model(x[:1])
params = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}
x = jax.device_put(x, NamedSharding(Mesh(jax.devices(), "data"), PartitionSpec("data")))
# In float32 the settings are given: what a warm-up adapts follows every rounding, and a step that ends an adaptation a
# digit apart goes elsewhere.
samplers = {
    "ULA": ULA(0.01), "MALA": MALA(step_size=0.02), "HMC": HMC(step_size=0.1, num_integration_steps=3),
    "PCNL": PCNL(step_size=0.1),
    "EllipticalSlice": EllipticalSlice(), "ImportanceSampling": ImportanceSampling(50),
    "TemperedSMC": TemperedSMC(num_particles=20, kernel=MALA(step_size=0.02), num_mutation_steps=4),
    "ParallelTempering": ParallelTempering(MALA(step_size=0.02), ladder=PowerLadder(3, 2.0)),
}
warmup = 0
if x64:
    warmup = 20
    samplers = {"MALA": MALA(), "HMC": HMC(num_integration_steps=3), "NUTS": NUTS(max_tree_depth=4), "PCNL": PCNL(),
        "TemperedSMC": TemperedSMC(num_particles=20),
        "ParallelTempering": ParallelTempering(MALA(), ladder=AdaptedLadder(3))}
results, compiled = {}, []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, fun_name=None, **__:
    compiled.append(fun_name) if event.endswith("backend_compile_duration") else None)
for name in names or samplers:
    sampler = samplers[name]
    compiled.clear()
    draws = sample_posterior(jax.random.key(1), model, x, params=params, sampler=sampler, num_chains=2, num_samples=20,
        num_warmup=warmup, plate="data", progress_bar=False)
    if num_devices > 1 and name not in ("ImportanceSampling", "TemperedSMC"):
        assert len(draws.positions["z"].sharding.device_set) == num_devices, name
    # A program is compiled for where its arguments are: they stay where they began.
    steps = [f"jit({step})" for step in ("_start", "_begin", "_advance", "_draw", "_reweight", "_mutate")]
    assert any(step in compiled for step in steps) and all(compiled.count(step) <= 1 for step in steps), compiled
    results[name] = np.asarray(draws.samples["z"])
np.savez(path, **results)
"""


@pytest.mark.parametrize(
    ("precision", "names"),
    [
        pytest.param("float32", "ParallelTempering", marks=pytest.mark.exhaustive),
        pytest.param("float32", "", marks=pytest.mark.exhaustive),
        pytest.param("x64", "", marks=pytest.mark.exhaustive),
    ],
)
def test_one_and_four_devices(precision, names, tmp_path):
    results = []
    for num_devices in (1, 4):
        path = tmp_path / f"{num_devices}.npz"
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
            "JAX_PLATFORMS": "cpu",
        }
        arguments = [str(num_devices), precision, names, str(path)]
        subprocess.run([sys.executable, "-c", SCRIPT, *arguments], env=environment, check=True)
        results.append(np.load(path))
    one, four = results
    assert one.files
    for name in one.files:
        assert np.abs(one[name] - four[name]).max() < 1e-4, name
