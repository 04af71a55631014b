"""What each learning strategy makes of the same decoder on MNIST: held-out log-evidence and time, beside a VAE.

16 latents, a multilayer perceptron 400-400-784, scale 0.2, batches of 100, Adam at 1e-3. The first test images are
weighed by one method for all: Metropolis-adjusted Langevin chains on each posterior, a mixture of Student's t fitted to
each image's chains, and importance sampling from it. Run as `python benchmarks/train_mnist.py FOLDER [--out FILE]
[--only NAME ...] [--seeds N ...]`, the folder holding MNIST's IDX files; prints JSON lines.
"""

import argparse
import gzip
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax.scipy.special import logsumexp
from measure import initial_params

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    MALA,
    AdaptedLadder,
    ImportanceMLE,
    LangevinMLE,
    PathwiseImportanceMLE,
    ThermodynamicMLE,
    VariationalMLE,
    fit,
    sample_posterior,
)
from kaem_ppl.inference.model.power_posterior import read_power_posterior
from kaem_ppl.models import MLPGenerator, ProductKAEM

VAE, LATE = "VAE", "VariationalMLE, the prior in the last sixth"
NUM_LATENTS, NUM_PIXELS, SCALE = 16, 784, 0.2
NUM_CHAINS, NUM_STEPS, NUM_DRAWS, DEGREES_OF_FREEDOM = 4, 1000, 2000, 8.0


def read_images(path):
    """Images as numbers from 0 to 1, shape (num_images, 784)."""
    data = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
    return jnp.asarray(data.reshape(-1, NUM_PIXELS) / 255, jnp.float32)


def make_models():
    """The energy model, and the same with a standard normal prior."""
    generator = MLPGenerator((NUM_LATENTS, 400, 400, NUM_PIXELS), output=jax.nn.sigmoid)
    tilted = ProductKAEM((NUM_LATENTS, 1), generator, kp.RBF(20), (-4.0, 4.0), dist.Normal(0.0, 1.0), SCALE)

    def normal(x=None, size=None):
        generate = generator("generator")
        with numpyro.plate("data", size if x is None else len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([NUM_LATENTS, 1]).to_event(2))
            numpyro.sample("x", dist.Normal(generate(z[..., 0]), SCALE).to_event(1), obs=x)

    return tilted, normal


def guide(x):
    """An encoder that mirrors the decoder."""
    encode = MLPGenerator((NUM_PIXELS, 400, 400, 2 * NUM_LATENTS))("encoder")
    with numpyro.plate("data", len(x)):
        loc, log_scale = jnp.split(encode(x)[..., None], 2, axis=-2)
        numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(2))


def weigh(key, model, params, x):
    """Log-evidence of each image, its standard error, and the effective sample size of the weights."""
    chain_key, draw_key = jax.random.split(key)
    draws = sample_posterior(
        chain_key, model, x, params=params, sampler=MALA(), plate="data", num_chains=NUM_CHAINS, num_samples=NUM_STEPS,
        num_warmup=NUM_STEPS, progress_bar=False,
    )  # fmt: skip
    z = np.asarray(draws.samples["z"]).reshape(NUM_CHAINS, NUM_STEPS, len(x), NUM_LATENTS)
    loc = jnp.asarray(z.mean(1))
    centred = z - z.mean(1, keepdims=True)
    covariance = jnp.asarray(np.einsum("csni,csnj->cnij", centred, centred) / NUM_STEPS) + 1e-6 * jnp.eye(NUM_LATENTS)
    factor = jnp.linalg.cholesky(covariance)
    posterior = read_power_posterior(model, (x,), {}, params=params, plate="data")

    @jax.jit
    def estimate(key):
        def one_image(inputs):
            key, datum, loc, factor = inputs
            proposal = dist.MultivariateStudentT(DEGREES_OF_FREEDOM, loc, factor)
            chain_key, draw_key = jax.random.split(key)
            chain = jax.random.randint(chain_key, (NUM_DRAWS,), 0, NUM_CHAINS)
            z = proposal.sample(draw_key, (NUM_DRAWS,))[jnp.arange(NUM_DRAWS), chain]
            log_proposal = logsumexp(proposal.log_prob(z[:, None]), axis=-1) - jnp.log(NUM_CHAINS)
            target = posterior.target(datum)

            def log_joint(z):
                position = {"z": z.reshape(1, NUM_LATENTS, 1)}
                return target.log_prior(position) + target.log_likelihood(position)

            log_weights = jax.vmap(log_joint)(z) - log_proposal
            effective = jnp.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights))
            value = logsumexp(log_weights) - jnp.log(NUM_DRAWS)
            return value, jnp.sqrt(1 / effective - 1 / NUM_DRAWS), effective

        keys = jax.random.split(key, len(x))
        images = keys, posterior.rows, jnp.moveaxis(loc, 0, 1), jnp.moveaxis(factor, 0, 1)
        return jax.lax.map(one_image, images, batch_size=10)

    return jax.tree.map(np.asarray, estimate(draw_key))


def main():
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--test-images", type=int, default=200)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    train = read_images(options.folder / "train-images-idx3-ubyte.gz")
    test = read_images(options.folder / "t10k-images-idx3-ubyte.gz")[: options.test_images]
    tilted, normal = make_models()
    adam = optax.adam(1e-3)
    # The energies stay flat, so that this is the VAE, until the other parameters are nearly learnt; then they learn fast.
    flat = initial_params(tilted, train[:1])["prior$params"]
    flat |= {name: jnp.zeros_like(flat[name]) for name in ("coef", "base_weight")}
    num_steps = options.epochs * -(-len(train) // 100)
    late = optax.adam(lambda step: jnp.where(6 * step < 5 * num_steps, 0.0, 1e-2))
    runs = {
        VAE: (normal, VariationalMLE(guide), adam),
        "VariationalMLE": (tilted, VariationalMLE(guide), adam),
        LATE: (tilted, VariationalMLE(guide), {"prior": late, "generator": adam, "encoder": adam}),
        "LangevinMLE": (tilted, LangevinMLE(MALA(), 20), adam),
        "LangevinMLE, HMC": (tilted, LangevinMLE(HMC(num_integration_steps=10), 4), adam),
        "ImportanceMLE": (tilted, ImportanceMLE(1000, ess_threshold=0), adam),
        "PathwiseImportanceMLE": (tilted, PathwiseImportanceMLE(1000), adam),
        "ThermodynamicMLE": (tilted, ThermodynamicMLE(MALA(), AdaptedLadder(4), 20), adam),
    }  # fmt: skip
    values = {}
    for seed in options.seeds:
        for name, (model, strategy, optimizer) in runs.items():
            if options.only and name not in options.only:
                continue
            started, times = time.perf_counter(), []
            result = fit(
                jax.random.key(seed), model, train, strategy=strategy, optimizer=optimizer, num_epochs=options.epochs,
                batch_size=100, params={"prior$params": flat} if name == LATE else None, progress_bar=False,
                callback=lambda *_, times=times: times.append(time.perf_counter()),
            )  # fmt: skip
            seconds = time.perf_counter() - started
            value, std_error, effective = weigh(jax.random.key(1), model, result.params, test)
            values[name, seed] = value
            _report(
                options.out, strategy=name, seed=seed, epochs=options.epochs,
                held_out_log_evidence=float(value.mean()),
                # Of the mean, from the weights alone: the images are the same for all.
                std_error=float(np.sqrt(np.square(std_error).sum()) / len(value)),
                smallest_effective_sample_size=float(effective.min()),
                median_effective_sample_size=float(np.median(effective)),
                **_above(values, name, [seed]), seconds=seconds,
                seconds_of_an_epoch=float(np.median(np.diff(times))) if len(times) > 1 else None,
                last_epoch={key: float(column[-1]) for key, column in result.history.items()},
            )  # fmt: skip
    if len(options.seeds) > 1:
        for name in runs:
            if (name, options.seeds[0]) in values:
                _report(options.out, strategy=name, seeds=options.seeds, **_above(values, name, options.seeds))


def _above(values, name, seeds):
    """What a strategy is above the VAE of the same seed, nats for an image.

    The standard error is that over the images for one seed, and over the seeds for several.
    """
    if (VAE, seeds[0]) not in values:
        return {}
    above = np.stack([values[name, seed] - values[VAE, seed] for seed in seeds])
    spread = above.mean(1) if len(seeds) > 1 else above[0]
    std_error = spread.std(ddof=1) / np.sqrt(len(spread))
    return {"above_vae": float(above.mean()), "above_vae_std_error": float(std_error)}


def _report(path, **line):
    print(json.dumps(line), flush=True)
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
