"""Effective samples per second of each sampler: KAEM posteriors with one mode and with two, and of trained digits.

The first two are one model with one latent, whose square x determines well, and whose sign well or weakly. The third,
left out by `--quick`, has eight latents and was trained on digits. All samplers get as many draws, half as many steps
of warm-up, eight chains and eight data at once; what they do with them is counted from the second run on, warm-up
included, and without compilation. Effective sizes are of the worst latent, summed over the data: by
rank-normalised bulk for chains, by the spread between populations for `TemperedSMC`, by the weights for
`ImportanceSampling`. A sampler whose chains disagree has an effective size that means nothing, and an open marker.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from arviz_stats.base import array_stats
from measure import initial_params, main, report
from tqdm import tqdm

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

QUESTION, RIVAL = "effective samples per second, warm-up included", "MALA"
SAMPLERS = {RIVAL: MALA(), "ImportanceSampling": ImportanceSampling(5_000)}
MORE_SAMPLERS = {
    "NUTS": NUTS(),
    "EllipticalSlice": EllipticalSlice(),
    "ParallelTempering(MALA)": ParallelTempering(MALA(), ladder=AdaptedLadder(8)),
    "HMC": HMC(num_integration_steps=8),
    "PCNL": PCNL(),
    "TemperedSMC": TemperedSMC(num_particles=200, num_mutation_steps=5),
    "ParallelTempering(PCNL)": ParallelTempering(PCNL(), ladder=AdaptedLadder(8)),
}
NUM_CHAINS, NUM_DATA, REPETITIONS = 8, 8, 7
# The largest R-hat of a sampler that is said to converge, in runs as short as these.
LARGEST_R_HAT = 1.05


def one_latent(x, scale):
    """x is the latent's square and the latent, each with noise of its scale."""
    prior = kp.kan_prior("prior", (1,), basis=kp.RBF(12), domain=(-3, 3), reference=dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior.to_event(1))[..., 0]
        numpyro.sample("x", dist.Normal(jnp.stack([z**2, z], -1), scale).to_event(1), obs=x)


def make_problems(quick):
    """Model, parameters and data by name."""
    params = initial_params(one_latent, jnp.zeros((1, 2)), jnp.ones((1, 2)))
    z = jnp.linspace(-1.5, 1.5, NUM_DATA)
    squares = jnp.stack([jnp.linspace(0.2, 2.5, NUM_DATA), jnp.linspace(-1.0, 1.0, NUM_DATA)], -1)
    problems = {
        "one latent, one mode": (
            one_latent,
            params,
            (jnp.stack([z**2, z], -1), jnp.tile(jnp.array([0.3, 0.3]), (NUM_DATA, 1))),
        ),
        "one latent, two modes": (one_latent, params, (squares, jnp.tile(jnp.array([0.3, 2.0]), (NUM_DATA, 1)))),
    }
    if quick:
        return problems
    digits = ProductKAEM((8, 1), MLPGenerator((8, 256, 256, 64)), kp.RBF(20), (-3.0, 3.0), dist.Normal(0.0, 1.0), 0.2)
    train, held_out = split_digits()
    trained = fit(
        jax.random.key(0), digits, train.images, strategy=ImportanceMLE(num_particles=500), optimizer=optax.adam(2e-3),
        num_epochs=30, batch_size=100, progress_bar=False,
    )  # fmt: skip
    return problems | {"8 latents, digits": (digits, trained.params, (held_out.images[:NUM_DATA],))}


def effective_size(draws, z):
    """Of the worst latent, summed over the data; z of shape (C, S, N, latents)."""
    if isinstance(draws.sampler, ImportanceSampling):
        return float(np.asarray(draws.summary["effective_sample_size"]).sum())
    if isinstance(draws.sampler, TemperedSMC):
        between = z.mean(1).var(0, ddof=1) / len(z)
        return float(np.minimum(z.var((0, 1)) / between, z.shape[0] * z.shape[1]).min(-1).sum())
    return float(np.asarray(array_stats.ess(z, chain_axis=0, draw_axis=1, method="bulk")).min(-1).sum())


def measure_problem(name, problem, samplers, num_samples):
    """One line for each sampler; they take turns."""
    model, params, data = problem
    first, found = {}, {sampler: [] for sampler in samplers}
    for number in tqdm(range(REPETITIONS + 1), desc=name, disable=None, leave=False):
        for sampler_name, sampler in samplers.items():
            start = time.perf_counter()
            draws = sample_posterior(
                jax.random.key(number), model, *data, params=params, sampler=sampler, num_chains=NUM_CHAINS,
                num_samples=num_samples, num_warmup=num_samples // 2, plate="data", progress_bar=False,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            if number == 0:
                first[sampler_name] = seconds
                continue
            z = np.asarray(draws.samples["z"], float).reshape(NUM_CHAINS, num_samples, NUM_DATA, -1)
            size, r_hat = effective_size(draws, z), float(np.max(array_stats.rhat(z, chain_axis=0, draw_axis=1)))
            found[sampler_name].append((size / seconds, size / draws.seconds, r_hat, seconds))
    columns = {sampler: np.array(rows).T for sampler, rows in found.items()}
    setting = {"posterior": name, "chains": NUM_CHAINS, "data": NUM_DATA, "draws": num_samples}
    return [
        report(
            QUESTION, {**setting, "rival": sampler}, rates, "1 / second", relative_to=RIVAL,
            ratios=rates / columns[RIVAL][0], without_warmup=float(np.median(warm_rates)),
            r_hat=float(np.median(r_hats)), converges=bool(np.median(r_hats) < LARGEST_R_HAT),
            first_call_seconds=first[sampler], compile_seconds=max(0.0, first[sampler] - float(np.median(seconds))),
        )
        for sampler, (rates, warm_rates, r_hats, seconds) in columns.items()
    ]  # fmt: skip


def measure(quick):
    """Every problem by every sampler."""
    samplers = SAMPLERS if quick else SAMPLERS | MORE_SAMPLERS
    lines = []
    for name, problem in make_problems(quick).items():
        lines += measure_problem(name, problem, samplers, 200 if quick else 1000)
    return lines


def draw(lines):
    """Rates of every sampler, one panel for each posterior."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    posteriors = list(dict.fromkeys(line["setting"]["posterior"] for line in lines))
    samplers = list(dict.fromkeys(line["setting"]["rival"] for line in lines))
    figure = Figure(figsize=(2.0 + 3.4 * len(posteriors), 1.2 + 0.35 * len(samplers)), layout="constrained")
    for panel, posterior in zip(figure.subplots(1, len(posteriors), sharey=True), posteriors, strict=True):
        for line in (line for line in lines if line["setting"]["posterior"] == posterior):
            value, (low, high) = line["value"], line["quartiles"]
            face = PALETTE[1] if line["converges"] else "white"
            panel.errorbar(
                value, samplers.index(line["setting"]["rival"]), xerr=[[value - low], [high - value]], fmt="o",
                color=PALETTE[1], markerfacecolor=face,
            )  # fmt: skip
        plain_axis(panel, "effective samples / second", posterior, yscale="linear")
        panel.set_yticks(range(len(samplers)), samplers)
        panel.set_ylim(len(samplers) - 0.5, -0.5)
    for face, label in ((PALETTE[1], f"R-hat below {LARGEST_R_HAT}"), ("white", "chains disagree")):
        panel.plot([], [], "o", color=PALETTE[1], markerfacecolor=face, label=label)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    main(measure, draw)
