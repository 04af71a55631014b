"""Whether held-out evidence rises epoch by epoch where colour images are learnt by chains, and how well the chains mix.

CIFAR-10 from `KAEM_DATA_DIR`, 81 latents, deconvolutions 64-32-16, scale 0.3, batches of 100, Adam at 1e-3. After every
epoch the log-evidence of the first test images is estimated by annealed importance sampling; after the last one chains
of Hamiltonian Monte Carlo on a few posteriors give their R-hat. Run as `python benchmarks/train_cifar10.py [--out FILE]
[--epochs N] [--only NAME ...]`; prints JSON lines.
"""

import argparse
import time
from pathlib import Path

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from measure import report, write_lines

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    MALA,
    AdaptedLadder,
    AnnealedImportanceSampling,
    LangevinMLE,
    PowerLadder,
    ThermodynamicMLE,
    fit,
    log_evidence,
    sample_posterior,
)
from kaem_ppl.models import ConvGenerator, ProductKAEM, load_dataset, to_unit_interval

NUM_LATENTS, SHAPE, CHANNELS, SCALE = 81, (32, 32, 3), (64, 32, 16), 0.3
NUM_EVALUATED, NUM_DIAGNOSED, NUM_CHAINS, NUM_DRAWS = 32, 8, 4, 1000
STRATEGIES = {
    "langevin": LangevinMLE(MALA(), 20),
    "thermo": ThermodynamicMLE(MALA(), AdaptedLadder(4), 20),
}
MODEL = ProductKAEM(
    (NUM_LATENTS, 1), ConvGenerator(NUM_LATENTS, SHAPE, CHANNELS), kp.RBF(20), (-4.0, 4.0), dist.Normal(0.0, 1.0), SCALE
)
METHOD = AnnealedImportanceSampling(4, HMC(num_integration_steps=5), PowerLadder(65))


def load(split):
    """Images in [0, 1]."""
    return jnp.asarray(to_unit_interval(load_dataset("CIFAR10", split, progress_bar=False).values))


def measure_strategy(name, num_epochs):
    """Lines of the evidence after every epoch, and of R-hat at the end."""
    train, test = load("train"), load("test")
    times, errors = [time.perf_counter()], []

    def evaluate(key, params):
        times.append(time.perf_counter())
        # The same random numbers after every epoch: what changes is the model.
        evidence = log_evidence(
            jax.random.key(1), MODEL, test[:NUM_EVALUATED], params=params, plate="data", method=METHOD, num_chains=2,
            progress_bar=False,
        )  # fmt: skip
        value, std_error = evidence.total()
        errors.append(std_error / NUM_EVALUATED)
        times.append(time.perf_counter())
        return value / NUM_EVALUATED

    result = fit(
        jax.random.key(0), MODEL, train, strategy=STRATEGIES[name], optimizer=optax.adam(1e-3), num_epochs=num_epochs,
        batch_size=100, evaluate=evaluate, progress_bar=False,
    )  # fmt: skip
    draws = sample_posterior(
        jax.random.key(2), MODEL, test[:NUM_DIAGNOSED], params=result.params, sampler=HMC(num_integration_steps=10),
        plate="data", num_chains=NUM_CHAINS, num_samples=NUM_DRAWS, num_warmup=NUM_DRAWS, progress_bar=False,
    )  # fmt: skip
    r_hat = arviz.rhat(draws.to_arviz())["z"].values
    seconds = np.diff(times)[::2]
    setting = {"strategy": name, "images": len(train), "latents": NUM_LATENTS}
    lines = [
        report(
            "held-out log-evidence", {**setting, "epoch": epoch + 1}, value, "nats / image",
            std_error=errors[epoch], seconds_of_the_epoch=float(seconds[epoch]),
            log_likelihood=float(result.history["log_likelihood"][epoch]),
        )
        for epoch, value in enumerate(result.history["evaluation"])
    ]  # fmt: skip
    return [
        *lines,
        report(
            "R-hat of posteriors", {**setting, "sampler": "HMC", "draws": NUM_DRAWS}, np.median(r_hat), "R-hat, median",
            largest=float(r_hat.max()), above_1_01=float(np.mean(r_hat > 1.01)),
        ),
    ]  # fmt: skip


def main():
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=tuple(STRATEGIES), default=tuple(STRATEGIES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    write_lines((line for name in options.only for line in measure_strategy(name, options.epochs)), options.out)


if __name__ == "__main__":
    main()
