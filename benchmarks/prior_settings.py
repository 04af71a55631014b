"""What the learnt prior costs by basis, size, preset and size of its coefficients, and what its first call costs.

No setting should cost many times its neighbour's. Each is set beside RBF(20) over a standard normal: 81 latents of 40
components, in float32, parameters unknown until the program runs. The dearest of all is named.
"""

import dataclasses
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from measure import interleave, main, ratio, report

import kaem_ppl as kp
from kaem_ppl.cli.building.model import build_basis, build_reference
from kaem_ppl.cli.settings.config import resolve
from kaem_ppl.models import DATASETS

BATCH_SHAPE, NUM_DRAWS = (81, 40), 100
PLAIN = "RBF(20) over Normal"
DRAWS, GRADIENT = f"prior: {NUM_DRAWS} draws", "prior: gradient of log_prob"
FIRST_CALL = "prior: first call of draws, log_prob and its gradient / of a gradient of a perceptron"


def settings(quick):
    """Basis, domain and reference by name."""
    normal = (-3.0, 3.0), dist.Normal(0.0, 1.0)
    found = {
        PLAIN: (kp.RBF(20), *normal),
        "BSpline(3) of 20": (kp.BSpline(3, num_grid=20), *normal),
        "Fourier(20)": (kp.Fourier(20), *normal),
        "Chebyshev(20)": (kp.Chebyshev(20), *normal),
        "RSWAF(20)": (kp.RSWAF(20), *normal),
        "Morlet(20)": (kp.Morlet(20), *normal),
        "Morlet(50)": (kp.Morlet(50), *normal),
        "Fourier(50)": (kp.Fourier(50), *normal),
    }
    if not quick:
        for name in DATASETS:
            model = resolve(name, "vanilla", None, {}).model
            found[f"preset {name}"] = build_basis(model), model.domain, build_reference(model)
    return found


def programs(basis, domain, reference, size):
    """Draws, and a gradient of the log-density at draws, of a mixture whose coefficients are `size` times as drawn."""
    energy = kp.UnivariateKAN.init(jax.random.key(0), BATCH_SHAPE, basis=basis, domain=domain)
    params = jnp.zeros(BATCH_SHAPE), size * energy.coef

    def prior(logits, coef):
        bank = dataclasses.replace(energy, coef=coef)
        return kp.KANTiltedMixture(logits, bank, reference, validate_args=False)

    draw = jax.jit(lambda key, params: prior(*params).sample(key, (NUM_DRAWS,)))
    gradient = jax.jit(jax.grad(lambda params, z: jnp.sum(prior(*params).log_prob(z))))
    key = jax.random.key(1)
    return partial(draw, key, params), partial(gradient, params, draw(key, params))


def measure_settings(quick):
    """Ratios to the plain setting, a line for each, and the dearest."""
    sizes = (1, 30) if quick else (1, 3, 10, 30)
    plain = settings(quick)[PLAIN]
    lines = []
    for name, setting in settings(quick).items():
        for size in sizes:
            pairs = zip((DRAWS, GRADIENT), programs(*plain, 1), programs(*setting, size), strict=True)
            for question, beside, call in pairs:
                times, first = interleave({PLAIN: beside, "setting": call}, 7)
                values = ratio(times, "setting", PLAIN)
                lines.append(
                    report(
                        f"{question} / {PLAIN}", {"setting": name, "coefficients": size}, values, "ratio",
                        relative_to=PLAIN, milliseconds=1e3 * float(min(times["setting"])),
                        first_call_seconds=first["setting"],
                    )
                )  # fmt: skip
    for question in (DRAWS, GRADIENT):
        dearest = max((line for line in lines if line["question"].startswith(question)), key=lambda line: line["value"])
        lines.append(
            report(f"{question} / {PLAIN}, the dearest setting", dearest["setting"], dearest["value"], "ratio",
                   relative_to=PLAIN, at_most=5)
        )  # fmt: skip
    return lines


def measure_first_call():
    """Seconds of a cold program with draws, a log-density and its gradient, over those of a perceptron's gradient."""
    basis, domain, reference = settings(True)[PLAIN]
    energy = kp.UnivariateKAN.init(jax.random.key(0), BATCH_SHAPE, basis=basis, domain=domain)
    params = jnp.zeros(BATCH_SHAPE), energy.coef

    def prior_program(key, params):
        def score(params):
            bank = dataclasses.replace(energy, coef=params[1])
            prior = kp.KANTiltedMixture(params[0], bank, reference, validate_args=False)
            z = jax.lax.stop_gradient(prior.sample(key, (NUM_DRAWS,)))
            return jnp.sum(prior.log_prob(z)), z

        return jax.value_and_grad(score, has_aux=True)(params)

    def perceptron(weights, x):
        for w in weights:
            x = jnp.tanh(x @ w)
        return jnp.sum(x)

    weights = [jnp.ones((64, 64))] * 3
    # What JAX itself sets up at the first program of a process is neither's.
    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(3)))
    seconds = [
        _cold(jax.jit(jax.grad(perceptron)), weights, jnp.ones((32, 64))),
        _cold(jax.jit(prior_program), jax.random.key(1), params),
    ]
    return [
        report(FIRST_CALL, {"setting": PLAIN}, seconds[1] / seconds[0], "ratio", relative_to="perceptron", at_most=40,
               seconds=seconds[1], perceptron_seconds=seconds[0])
    ]  # fmt: skip


def _cold(program, *args):
    started = time.perf_counter()
    jax.block_until_ready(program(*args))
    return time.perf_counter() - started


def measure(quick):
    """The first call first, while nothing is compiled."""
    return measure_first_call() + measure_settings(quick)


def draw(lines):
    """Ratios of every setting, by the size of its coefficients."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    lines = [line for line in lines if "coefficients" in line["setting"] and "dearest" not in line["question"]]
    names = list(dict.fromkeys(line["setting"]["setting"] for line in lines))
    sizes = sorted({line["setting"]["coefficients"] for line in lines})
    figure = Figure(figsize=(10, 1.5 + 0.35 * len(names)), layout="constrained")
    for axis, question in zip(figure.subplots(1, 2, sharey=True), (DRAWS, GRADIENT), strict=True):
        for colour, size in zip(PALETTE, sizes, strict=False):
            found = {
                line["setting"]["setting"]: line["value"]
                for line in lines
                if line["question"].startswith(question) and line["setting"]["coefficients"] == size
            }
            axis.plot([found[name] for name in names], range(len(names)), "o", color=colour, label=f"x {size}")
        axis.axvline(5, color="0.7", linewidth=1)
        plain_axis(axis, f"time / {PLAIN}", question, xscale="linear", yscale="linear")
        axis.set_yticks(range(len(names)), names)
        axis.set_xlim(left=0)
    figure.axes[0].legend(frameon=False, title="coefficients")
    return figure


if __name__ == "__main__":
    main(measure, draw)
