"""Kill sampling and evidence at random moments and go on: `python kill.py FOLDER NUM_KILLS SEED [JOB ...]`.

Modules are imported once, and each run is a fork of this process that starts JAX itself; programs are compiled once, and
found again in a folder. Each job leaves its result in `JOB/whole.npz`, and those that were stopped in `JOB/NUMBER.npz`.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import arviz_stats.base.array  # noqa: F401 - imported once, before the forks
import h5py  # noqa: F401
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def model(x):
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(z.sum(-1) + z[..., 0] ** 2, 0.3), obs=x)


def run_job(job, folder):
    """The arrays that a job results in."""
    # Only in the fork: JAX starts threads when it makes its first array.
    import jax.numpy as jnp

    from kaem_ppl import inference
    from kaem_ppl.inference.sampling.storage import checkpoint

    # Often, so that short runs have many states to be killed at.
    checkpoint.SECONDS, checkpoint.SHARE = 0.05, 0.5
    key, x = jax.random.key(0), jnp.array([0.5, -1.0, 2.0])
    common = {"plate": "data", "num_chains": 2, "checkpoint": folder, "progress_bar": False}
    if job in ("nuts", "tempering"):
        kernel = inference.NUTS(max_tree_depth=4)
        sampler = kernel if job == "nuts" else inference.ParallelTempering(inference.MALA())
        draws = inference.sample_posterior(key, model, x, sampler=sampler, num_warmup=500, num_samples=3000, **common)
        return {"z": draws.samples["z"], **draws.sample_stats, **{f"of {k}": v for k, v in draws.summary.items()}}
    method = inference.TemperedSMC(500) if job == "smc" else inference.NestedSampling(200)
    found = inference.log_evidence(key, model, x, method=method, **common)
    return {"value": found.value, "std_error": found.std_error, **found.summary}


def start(job, folder, result):
    """Run a job in a process of its own."""
    process = os.fork()
    if process:
        return process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        np.savez(result.with_suffix(".part.npz"), **{k: np.asarray(v) for k, v in run_job(job, folder).items()})
        result.with_suffix(".part.npz").rename(result)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:
        print(job, repr(error), flush=True)
        os._exit(1)
    os._exit(0)


def wait_for_state(folder):
    """Wait until a state is saved; returns how long that took, in seconds."""
    began = time.monotonic()
    while not any(folder.glob("*.npz")):
        assert time.monotonic() < began + 300
        time.sleep(0.002)
    return time.monotonic() - began


def kill_and_resume(root, job, num_kills, seed):
    """Leave the result of an uninterrupted run, and of as many others that were killed and resumed."""
    root = root / job
    root.mkdir()
    # The first one compiles.
    assert os.waitpid(start(job, root / "compiled", root / "compiled.npz"), 0)[1] == 0
    process = start(job, root / "whole", root / "whole.npz")
    before = wait_for_state(root / "whole")
    began = time.monotonic()
    assert os.waitpid(process, 0)[1] == 0
    between = time.monotonic() - began
    rng = random.Random(f"{job} {seed}")
    for number in range(num_kills):
        folder, result = root / f"killed-{number}", root / f"killed-{number}.npz"
        chosen = SIGNALS[number % len(SIGNALS)]
        process = start(job, folder, result)
        # One in six before there is a state; the others while it changes.
        if number % 6 == 5:
            time.sleep(rng.uniform(0, before))
        else:
            wait_for_state(folder)
            time.sleep(rng.uniform(0, 0.9 * between))
        os.kill(process, chosen)
        status = os.waitpid(process, 0)[1]
        died = os.waitstatus_to_exitcode(status) in (-chosen, 130)
        kept = " ".join(sorted(path.name for path in folder.glob("*"))) if folder.exists() else "nothing"
        print(f"{job} {number}: {'stopped' if died else 'too late'} by {chosen.name}, kept {kept}", flush=True)
        if not died:
            continue
        assert os.waitpid(start(job, folder, result), 0)[1] == 0


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled-programs")
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    for job in sys.argv[4:] or ("nuts", "tempering", "smc", "nested"):
        kill_and_resume(folder, job, int(sys.argv[2]), int(sys.argv[3]))
