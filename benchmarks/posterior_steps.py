"""What a step of a posterior sampler costs beside the gradient of the generator, and how a ladder scales.

81 latents, each a mixture of 40 tilted densities, deconvolutions 64-32-16 to 32 x 32 x 3, batch 128. Run as
`python benchmarks/posterior_steps.py [--out FILE]`; prints JSON lines.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from measure import initial_params, interleave, ratio, report, write_lines
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.inference import MALA, ULA, GivenLadder, ParallelTempering, PowerLadder, sample_posterior
from kaem_ppl.inference.model.power_posterior import read_power_posterior
from kaem_ppl.inference.sampling.chains import _advance, _begin
from kaem_ppl.inference.sampling.sampler import problem_keys
from kaem_ppl.inference.sampling.starts import find_starts
from kaem_ppl.inference.tempering.parallel_tempering import _Tempered
from kaem_ppl.models import ConvGenerator, MixtureKAEM

NUM_LATENTS, NUM_COMPONENTS, BATCH, STEPS, STEP_SIZE = 81, 40, 128, 20, 1e-4
# Without the prior's own temperature all four replicas move by the kernel.
LADDER = ParallelTempering(ULA(STEP_SIZE), ladder=GivenLadder((0.1, 0.3, 0.6, 1.0)))
SETTING = {"latents": NUM_LATENTS, "components": NUM_COMPONENTS, "batch": BATCH, "generator": "deconvolutions 64-32-16"}


def make_model():
    """The model, its parameters as initialised, and noise for images."""
    model = MixtureKAEM(
        (NUM_LATENTS, NUM_COMPONENTS), ConvGenerator(NUM_LATENTS, (32, 32, 3), (64, 32, 16)), kp.RBF(20), (-3.0, 3.0),
        dist.Normal(0.0, 1.0), 0.3,
    )  # fmt: skip
    x = jax.random.uniform(jax.random.key(0), (BATCH, 32, 32, 3))
    return model, initial_params(model, x[:1]), x


def generator_gradients(model, params, x, num_replicas=1):
    """`STEPS` gradients of the generator's log-likelihood one after another, unrolled in one program."""
    x = jnp.tile(x, (num_replicas, 1, 1, 1))

    def log_likelihood(z, x, params):
        with handlers.substitute(data={"generator$params": params}):
            mean = model.generator("generator")(z)
        return -0.5 / model.scale**2 * jnp.sum(jnp.square(x - mean))

    @jax.jit
    def run(z, x, params):
        for _ in range(STEPS):
            z = z + STEP_SIZE * jax.grad(log_likelihood)(z, x, params)
        return z

    z = jax.random.normal(jax.random.key(2), (len(x), NUM_LATENTS))
    return lambda: run(z, x, params["generator$params"])


def posterior_gradients(model, params, x):
    """The same with the tabulated prior's score added: what the prior costs in a Langevin step."""
    posterior = read_power_posterior(model, (x,), {}, params=params, plate="data")

    def log_density(z, datum, posterior):
        target = posterior.target(datum)
        return target.log_prior({"z": z}) + target.log_likelihood({"z": z})

    @jax.jit
    def run(z, posterior):
        for _ in range(STEPS):
            z = z + STEP_SIZE * jax.vmap(jax.grad(log_density), in_axes=(0, 0, None))(z, posterior.rows, posterior)
        return z

    z = jax.random.normal(jax.random.key(2), (BATCH, NUM_LATENTS))
    return lambda: run(z, posterior)


def sampler_run(model, params, x, sampler):
    """`STEPS` steps by `sample_posterior`."""
    draw = partial(
        sample_posterior, jax.random.key(3), model, params=params, sampler=sampler, num_chains=1, num_samples=STEPS,
        num_warmup=0, plate="data", progress_bar=False,
    )  # fmt: skip
    return lambda: draw(x).positions


def measure_steps(repetitions):
    """Ratios to the generator's own gradients."""
    model, params, x = make_model()
    base, of_replicas = "generator's gradients", "generator's gradients, 4 replicas"
    rivals = {
        base: generator_gradients(model, params, x),
        of_replicas: generator_gradients(model, params, x, 4),
        "gradients with the prior": posterior_gradients(model, params, x),
        "20 steps of ULA": sampler_run(model, params, x, ULA(STEP_SIZE)),
        "4 temperatures x 20 steps of ULA": sampler_run(model, params, x, LADDER),
    }
    times, first = interleave(rivals, repetitions)
    lines = [report(base, SETTING, times[base] / STEPS, "seconds per step", first_call_seconds=first[base])]
    _, _, with_prior, chain, replicas = rivals
    for name, rival, factor in (
        (with_prior, base, 1), (chain, base, 1), (replicas, of_replicas, 1), (replicas, base, 4), (of_replicas, base, 4),
    ):  # fmt: skip
        lines.append(
            report(
                name, SETTING, ratio(times, name, rival) / factor, "ratio",
                relative_to=f"{rival} x {factor}" if factor > 1 else rival, first_call_seconds=first[name],
            )
        )  # fmt: skip
    return lines


def measure_compilation():
    """Seconds of compilation before a sampler's first draw, from empty caches, and of the whole first call."""
    model, params, x = make_model()
    seconds = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: seconds.append(duration) if event.endswith("backend_compile_duration") else None
    )
    lines = []
    for name, sampler in (("ULA", ULA(STEP_SIZE)), ("ladder of 4", LADDER)):
        run = sampler_run(model, params, x, sampler)
        jax.clear_caches()
        seconds.clear()
        started = time.perf_counter()
        jax.block_until_ready(run())
        whole = time.perf_counter() - started
        more = {"programs": len(seconds), "first_call_seconds": whole}
        lines.append(report(f"compile time of {name}", SETTING, sum(seconds), "seconds", **more))
    return lines


def memory_of_steps(model, params, x, sampler):
    """Bytes that the program of a chunk of two steps holds at most: what it is given, makes, and uses in between."""
    posterior = read_power_posterior(model, (x,), {}, params=params, plate="data")
    transition, keys = _Tempered(sampler), problem_keys(jax.random.key(3), 1, len(x))
    replicas = find_starts(transition.kernel, transition.num_replicas, posterior, keys)
    carry = _begin(transition, replicas)
    steps = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    memory = _advance.lower(transition, posterior, carry, keys, steps).compile().memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return held + memory.temp_size_in_bytes


def measure_ladder(repetitions):
    """Time and memory of steps against the number of temperatures, on a model whose step is all arithmetic."""
    from kaem_ppl.models import MLPGenerator, ProductKAEM

    model = ProductKAEM((8, 1), MLPGenerator((8, 256, 256, 64)), kp.RBF(20), (-3.0, 3.0), dist.Normal(0.0, 1.0), 0.2)
    x = jax.random.uniform(jax.random.key(0), (BATCH, 64))
    params = initial_params(model, x[:1])
    ladders = {t: ParallelTempering(MALA(step_size=1e-3), ladder=PowerLadder(t + 1, 2.0)) for t in (1, 2, 4, 8, 15)}
    rivals = {str(t): sampler_run(model, params, x, ladder) for t, ladder in ladders.items()}
    times, _ = interleave(rivals, repetitions)
    memory = {t: memory_of_steps(model, params, x, ladder) for t, ladder in ladders.items()}
    setting = {"latents": 8, "batch": BATCH, "generator": "MLP 8-256-256-64", "steps": STEPS}
    return [
        report(
            f"moved replicas of a ladder: {what} over that of one, divided by their number",
            {**setting, "temperatures": t + 1}, values / t, "ratio", relative_to="2 temperatures",
        )
        for t in list(ladders)[1:]
        for what, values in (("time", ratio(times, str(t), "1")), ("memory", memory[t] / memory[1]))
    ]  # fmt: skip


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    repetitions = options.repetitions
    write_lines(measure_compilation() + measure_steps(repetitions) + measure_ladder(repetitions), options.out)


if __name__ == "__main__":
    main()
