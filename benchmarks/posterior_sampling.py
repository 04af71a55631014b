"""Effective samples per second of each sampler: a KAEM with one latent, and one with eight latents trained on digits.

Run as `python benchmarks/posterior_sampling.py [--out FILE]`; prints JSON lines. A sampler is timed from its second run on,
so that nothing is compiled in it. Effective sizes are of the worst latent, summed over the data: by rank-normalised bulk
for chains, by the spread between populations for `TemperedSMC`, by the weights for `ImportanceSampling`.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from arviz_stats.base import array_stats
from measure import report, write_lines

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    MALA,
    NUTS,
    PCNL,
    AdaptedLadder,
    EllipticalSlice,
    ImportanceMLE,
    ImportanceSampling,
    ParallelTempering,
    TemperedSMC,
    fit,
    sample_posterior,
)
from kaem_ppl.models import MLPGenerator, ProductKAEM, split_digits

SAMPLERS = {
    "MALA": MALA(),
    "HMC": HMC(num_integration_steps=8),
    "NUTS": NUTS(),
    "EllipticalSlice": EllipticalSlice(),
    "PCNL": PCNL(),
    "ImportanceSampling": ImportanceSampling(20_000),
    "TemperedSMC": TemperedSMC(num_particles=500),
    "ParallelTempering(MALA)": ParallelTempering(MALA(), ladder=AdaptedLadder(8)),
    "ParallelTempering(PCNL)": ParallelTempering(PCNL(), ladder=AdaptedLadder(8)),
}
NUM_CHAINS, NUM_DATA = 8, 8
# The largest R-hat of a sampler that is said to converge, in runs as short as these.
LARGEST_R_HAT = 1.05


def one_latent(x):
    """x knows the latent's square well and its sign a little: two modes, unequal."""
    prior = kp.kan_prior("prior", (1,), basis=kp.RBF(12), domain=(-3, 3), reference=dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior.to_event(1))[..., 0]
        numpyro.sample("x", dist.Normal(jnp.stack([z**2, z], -1), jnp.array([0.3, 2.0])).to_event(1), obs=x)


def problems(num_epochs):
    """Model, parameters and data by name."""
    with numpyro.handlers.trace() as sites, numpyro.handlers.seed(rng_seed=0):
        one_latent(jnp.zeros((1, 2)))
    params = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}
    squares = jnp.stack([jnp.linspace(0.2, 2.5, NUM_DATA), jnp.linspace(-1.0, 1.0, NUM_DATA)], -1)
    digits = ProductKAEM((8, 1), MLPGenerator((8, 256, 256, 64)), kp.RBF(20), (-3.0, 3.0), dist.Normal(0.0, 1.0), 0.2)
    train, held_out = split_digits()
    trained = fit(
        jax.random.key(0), digits, train.images, strategy=ImportanceMLE(num_particles=500), optimizer=optax.adam(2e-3),
        num_epochs=num_epochs, batch_size=100, progress_bar=False,
    )  # fmt: skip
    return {
        "one latent, two modes": (one_latent, params, squares),
        "8 latents, digits": (digits, trained.params, held_out.images[:NUM_DATA]),
    }


def effective_size(draws, z):
    """Of the worst latent, summed over the data; z of shape (C, S, N, latents)."""
    if isinstance(draws.sampler, ImportanceSampling):
        return float(np.asarray(draws.summary["effective_sample_size"]).sum())
    if isinstance(draws.sampler, TemperedSMC):
        between = z.mean(1).var(0, ddof=1) / len(z)
        return float(np.minimum(z.var((0, 1)) / between, z.shape[0] * z.shape[1]).min(-1).sum())
    return float(np.asarray(array_stats.ess(z, chain_axis=0, draw_axis=1, method="bulk")).min(-1).sum())


def measure(repetitions, num_samples, num_epochs):
    """One line for each problem and sampler."""
    lines = []
    for name, (model, params, x) in problems(num_epochs).items():
        for sampler_name, sampler in SAMPLERS.items():
            rates, warm_rates, r_hats = [], [], []
            for number in range(repetitions + 1):
                start = time.perf_counter()
                draws = sample_posterior(
                    jax.random.key(number), model, x, params=params, sampler=sampler, num_chains=NUM_CHAINS,
                    num_samples=num_samples, num_warmup=num_samples // 2, plate="data", progress_bar=False,
                )  # fmt: skip
                seconds = time.perf_counter() - start
                if number == 0:
                    first = seconds
                    continue
                z = np.asarray(draws.samples["z"], float).reshape(NUM_CHAINS, num_samples, NUM_DATA, -1)
                size = effective_size(draws, z)
                rates.append(size / seconds)
                warm_rates.append(size / draws.seconds)
                r_hats.append(float(np.max(array_stats.rhat(z, chain_axis=0, draw_axis=1))))
            lines.append(
                report(
                    "effective samples per second, warm-up included",
                    {"posterior": name, "sampler": sampler_name, "chains": NUM_CHAINS, "data": NUM_DATA},
                    rates, "1 / second", without_warmup=float(np.median(warm_rates)), r_hat=float(np.median(r_hats)),
                    converges=bool(np.median(r_hats) < LARGEST_R_HAT), first_call_seconds=first,
                )
            )  # fmt: skip
    return lines


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    write_lines(measure(options.repetitions, options.samples, options.epochs), options.out)


if __name__ == "__main__":
    main()
