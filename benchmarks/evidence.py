"""How far each estimator of the log-evidence is from the closed form over many seeds, and what an evidence of digits costs.

Run as `python benchmarks/evidence.py MODE [--out FILE]`; prints JSON lines. Modes:
- `table`: the linear-Gaussian model in 1, 10 and 50 dimensions, every method, all seeds in one batch;
- `ladder`: steppingstone with an adapted ladder against equal steps, strong data in 50 dimensions, equal budgets;
- `sandwich`: the bounds of 64 data simulated from a trained KAEM with 8 latents, for several annealing settings;
- `digits`: seconds for 128 digits, 8 latents, 10 temperatures, 50 Langevin steps, and the time of a datum by batch size.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import scipy.stats as st
from measure import interleave, report, write_lines

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    MALA,
    AdaptedLadder,
    AnnealedImportanceSampling,
    ImportanceMLE,
    ImportanceSampling,
    NestedSampling,
    ParallelTempering,
    PowerLadder,
    TemperedSMC,
    bound_log_evidence,
    fit,
    log_evidence,
)
from kaem_ppl.models import split_digits

KERNEL = HMC(num_integration_steps=5)


def linear_gaussian(dimension, num_seeds, noise=1.0):
    """A model of `dimension` latents and two more outputs, one datum for all seeds, and its log-evidence."""
    rng = np.random.default_rng(dimension)
    design = rng.normal(size=(dimension + 2, dimension)) / np.sqrt(dimension)
    marginal = st.multivariate_normal(cov=design @ design.T + noise**2 * np.eye(dimension + 2))
    x = marginal.rvs(random_state=rng)
    weight = jnp.asarray(design.T, jnp.float32)

    def model(x):
        with numpyro.plate("data", len(x)):
            # The prior reads the row, so that each seed has draws of its own.
            z = numpyro.sample("z", dist.Normal(0 * x[:, :1], 1).expand([len(x), dimension]).to_event(1))
            numpyro.sample("x", dist.Normal(z @ weight, noise).to_event(1), obs=x)

    return model, jnp.tile(jnp.asarray(x, jnp.float32), (num_seeds, 1)), marginal.logpdf(x)


def methods(dimension):
    """Methods by name for a number of dimensions; nested sampling up to ten.

    Prior draws are so many that in ten dimensions nearly all seeds are trusted. With 5,000 one in nine is, and those are
    the ones that missed the largest weights: 0.06 nats too low, where all seeds together are right.
    """
    num_temperatures = {1: 9, 10: 17, 50: 33}[dimension]
    found = {
        "importance": ImportanceSampling(5000 if dimension == 1 else 20_000),
        "smc": TemperedSMC(500, KERNEL, 10),
        "annealed": AnnealedImportanceSampling(64, KERNEL, PowerLadder(64 if dimension < 50 else 128)),
        "tempering": ParallelTempering(KERNEL, AdaptedLadder(num_temperatures)),
    }
    return found | ({"nested": NestedSampling(250)} if dimension <= 10 else {})


def errors_of(estimate, exact):
    """Bias, its size in standard errors, root-mean-square error, coverage and trust over the seeds."""
    trusted = np.asarray(estimate.is_trustworthy)
    numbers = {"trusted": int(trusted.sum())}
    if trusted.sum() < 2:
        return np.nan, numbers
    error, claimed = (estimate.value - exact)[trusted], estimate.std_error[trusted]
    spread = error.std(ddof=1)
    numbers |= {
        "bias": float(error.mean()),
        "bias_in_standard_errors": float(error.mean() / (spread / np.sqrt(len(error)))),
        "spread": float(spread),
        "mean_standard_error": float(claimed.mean()),
        "covered_by_95_percent_intervals": int((np.abs(error) < 1.96 * claimed).sum()),
    }
    return float(np.sqrt(np.square(error).mean())), numbers


def measure_table(dimensions, only, num_seeds, seed):
    """The root-mean-square error of every estimate, and what else the seeds say."""
    lines = []
    for dimension in dimensions:
        model, x, exact = linear_gaussian(dimension, num_seeds)
        for name, method in methods(dimension).items():
            if only is not None and name not in only:
                continue
            evidence = log_evidence(
                jax.random.key(seed), model, x, plate="data", method=method, num_chains=1 if name == "nested" else 2,
                num_samples=500, num_warmup=200, progress_bar=False,
            )  # fmt: skip
            for estimator, estimate in evidence.estimates.items():
                value, more = errors_of(estimate, exact)
                setting = {"dimension": dimension, "seeds": num_seeds, "method": repr(method), "key": seed}
                lines.append(report(f"error of {estimator}", setting, value, "nats", seconds=evidence.seconds, **more))
    return lines


def measure_ladder(num_seeds, seed):
    """Errors of steppingstone for two ladders of one length."""
    model, x, exact = linear_gaussian(50, num_seeds, noise=0.1)
    lines = []
    for ladder in (AdaptedLadder(16), PowerLadder(16, 1.0)):
        evidence = log_evidence(
            jax.random.key(seed), model, x, plate="data", method=ParallelTempering(KERNEL, ladder), num_chains=2,
            num_samples=300, num_warmup=300, progress_bar=False,
        )  # fmt: skip
        error = np.sqrt(np.square(evidence.value - exact).mean())
        setting = {"dimension": 50, "noise": 0.1, "seeds": num_seeds, "ladder": repr(ladder), "key": seed}
        lines.append(report("error of steppingstone, strong data", setting, error, "nats"))
    return lines


def digits_model(x=None, size=None):
    """The KAEM of the README."""
    prior = kp.kan_prior("prior", (8,), basis=kp.RBF(20), domain=(-3, 3), reference=dist.Normal(0, 1))
    decode = kp.kan_generator("decoder", (8, 17, 64), output=jax.nn.sigmoid)
    with numpyro.plate("data", size if x is None else len(x)):
        z = numpyro.sample("z", prior.to_event(1))
        numpyro.sample("x", dist.Normal(decode(z), 0.2).to_event(1), obs=x)


def train_digits():
    """Parameters learnt in ten epochs, and the digits held out."""
    train, held_out = split_digits()
    result = fit(
        jax.random.key(0), digits_model, train.images, strategy=ImportanceMLE(num_particles=200),
        optimizer=optax.adam(2e-3), num_epochs=10, batch_size=100, progress_bar=False,
    )  # fmt: skip
    return result.params, held_out.images


def measure_sandwich(seed):
    """The mean gap between the bounds of simulated data, and for how many data it is not positive."""
    params, images = train_digits()
    lines = []
    for num_particles, num_temperatures, num_steps, num_chains in (
        (1, 64, 1, 16), (8, 64, 1, 16), (1, 128, 2, 16), (1, 128, 2, 64), (8, 128, 2, 16),
    ):  # fmt: skip
        method = AnnealedImportanceSampling(num_particles, KERNEL, PowerLadder(num_temperatures), num_steps)
        bounds = bound_log_evidence(
            jax.random.key(seed), digits_model, images[:64], params=params, plate="data", method=method,
            num_chains=num_chains, progress_bar=False,
        )  # fmt: skip
        gap = bounds.upper - bounds.lower
        std_error = np.hypot(bounds.lower_std_error, bounds.upper_std_error)
        setting = {"latents": 8, "data": 64, "particles": num_particles, "temperatures": num_temperatures,
                   "steps": num_steps, "chains": num_chains, "key": seed}  # fmt: skip
        lines.append(
            report(
                "gap between the bounds", setting, gap.mean(), "nats", lower=float(bounds.lower.mean()),
                upper=float(bounds.upper.mean()), data_out_of_order=int((gap <= 0).sum()),
                data_out_of_order_by_3_standard_errors=int((gap < -3 * std_error).sum()),
            )
        )  # fmt: skip
    return lines


def measure_digits(repetitions):
    """Seconds of a call after the first, by batch size."""
    params, images = train_digits()
    method = ParallelTempering(MALA(step_size=1e-2), PowerLadder(10))
    call = partial(
        log_evidence, jax.random.key(0), digits_model, params=params, plate="data", method=method, num_chains=1,
        num_samples=50, num_warmup=0, progress_bar=False,
    )  # fmt: skip
    rivals = {str(size): partial(lambda size: call(jnp.asarray(images[:size])).value, size) for size in (1, 16, 128)}
    times, first = interleave(rivals, repetitions)
    lines = []
    for name, seconds in times.items():
        setting = {"latents": 8, "temperatures": 10, "steps": 50, "batch": int(name)}
        lines.append(report("log-evidence of digits", setting, seconds, "seconds", first_call_seconds=first[name]))
    per_datum = times["1"] / (times["128"] / 128)
    lines.append(
        report("time of a datum, batch 1 over batch 128", {"latents": 8}, per_datum, "ratio", relative_to="batch 128")
    )
    return lines


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("table", "ladder", "sandwich", "digits"))
    parser.add_argument("--dimensions", type=int, nargs="+", default=(1, 10, 50), choices=(1, 10, 50))
    parser.add_argument("--methods", nargs="+", help="those of the table to run; all by default")
    parser.add_argument("--seeds", type=int, default=50, help="data in the batch, each with random numbers of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    match options.mode:
        case "table":
            lines = measure_table(options.dimensions, options.methods, options.seeds, options.seed)
        case "ladder":
            lines = measure_ladder(options.seeds, options.seed)
        case "sandwich":
            lines = measure_sandwich(options.seed)
        case "digits":
            lines = measure_digits(options.repetitions)
    write_lines(lines, options.out)


if __name__ == "__main__":
    main()
