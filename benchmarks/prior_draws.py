"""Draws from 81 latents, each a mixture of 40 tilted densities, from parameters to draws; ratios, measured side by side.

Run as `python benchmarks/prior_draws.py [--out FILE]`. Prints JSON: times in milliseconds, and what they mean as ratios.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import kaem_ppl as kp

NUM_LATENTS, NUM_COMPONENTS = 81, 40
FEW, MANY = 128, 10_000


def mixture(num_components):
    """Logits and energies of a mixture prior, as initialised."""
    energy = kp.UnivariateKAN.init(
        jax.random.key(0), (NUM_LATENTS, num_components), basis=kp.RBF(20), domain=(-3.0, 3.0)
    )
    return jax.random.normal(jax.random.key(1), (NUM_LATENTS, num_components)), energy


def collapsed(num_draws):
    """Draws by one table for each latent."""

    def draw(logits, energy, key):
        return kp.KANTiltedMixture(logits, energy, dist.Normal(0.0, 1.0)).sample(key, (num_draws,))

    return jax.jit(draw)


def drawn_and_chosen(num_draws):
    """Draws of every component, of which one is chosen."""

    def draw(logits, energy, key):
        draw_key, choice_key = jax.random.split(key)
        choice = jax.random.categorical(choice_key, logits, shape=(num_draws, NUM_LATENTS))
        draws = kp.KANTilted(energy, dist.Normal(0.0, 1.0)).sample(draw_key, (num_draws,))
        return jnp.take_along_axis(draws, choice[..., None], axis=-1)[..., 0]

    return jax.jit(draw)


def measure(rounds):
    """Median times in milliseconds of all candidates, one call of each in turn."""
    key, square = jax.random.key(2), jax.random.normal(jax.random.key(3), (2048, 2048))
    forty, one = mixture(NUM_COMPONENTS), mixture(1)
    product, few, many, all_many = jax.jit(jnp.matmul), collapsed(FEW), collapsed(MANY), drawn_and_chosen(MANY)
    candidates = {
        "product_2048": lambda: product(square, square),
        "few_of_40": lambda: few(*forty, key),
        "many_of_40": lambda: many(*forty, key),
        "many_of_1": lambda: many(*one, key),
        "many_drawn_and_chosen": lambda: all_many(*forty, key),
    }
    times = {name: [] for name in candidates}
    for call in candidates.values():
        jax.block_until_ready(call())
    for number in range(rounds):
        for name, call in candidates.items():
            if name == "many_drawn_and_chosen" and number >= 3:
                continue
            # Twice, the first time not counted: what the candidate before left in the caches is not this one's cost.
            jax.block_until_ready(call())
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    times = measure(options.rounds)
    ratios = {
        "128 draws over a 2048 x 2048 product": times["few_of_40"] / times["product_2048"],
        "10,000 draws, 40 components over 1": times["many_of_40"] / times["many_of_1"],
        "10,000 draws, every component and choose over collapsed": times["many_drawn_and_chosen"] / times["many_of_40"],
    }
    report = json.dumps({"milliseconds": times, "ratios": ratios}, indent=2)
    print(report)
    if options.out:
        options.out.write_text(report + "\n")


if __name__ == "__main__":
    main()
