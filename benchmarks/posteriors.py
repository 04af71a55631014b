"""Twelve posteriors by NUTS of `sample_posterior` and by NumPyro's own, and many small posteriors at once.

Each sampler runs three times from cold: what JAX has compiled is forgotten before, so that a user's first wait is
measured; then once more with another key, for NumPyro by the same `MCMC` object. Rivals take turns. Effective sizes are
of the worst coordinate, by rank-normalised bulk over four chains; means are compared in combined Monte Carlo errors.
`ParallelTempering()` at its defaults is the third on the full setting. The last question is 128 posteriors of a KAEM,
each with its own datum: `plate=` against NumPyro's NUTS, by `vmap` over the data, by a loop over a function that is
compiled once, and by a loop over `MCMC` objects, each compiled anew (the loops over eight and four data, scaled).
"""

import time
from functools import partial

import jax
import numpy as np
import numpyro
from arviz_stats.base import array_stats
from measure import initial_params, main, report
from numpyro import infer
from posterior_models import make_posteriors, small_kaem
from tqdm import tqdm

from kaem_ppl.inference import NUTS, ParallelTempering, sample_posterior

RATE, COLD, AGAIN = "effective samples per second, second call", "seconds from cold", "seconds of a second call"
MANY = "many posteriors at once"
RIVAL = "NumPyro NUTS"
NUM_CHAINS, NUM_SAMPLES, NUM_WARMUP, COLD_RUNS, NUM_DATA = 4, 1000, 1000, 3, 128


def by_numpyro(problem):
    """From a key to draws by site, leading axes chains and draws."""
    mcmc = infer.MCMC(
        infer.NUTS(problem.model), num_warmup=NUM_WARMUP, num_samples=NUM_SAMPLES, num_chains=NUM_CHAINS,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip

    def call(key):
        mcmc.run(key, *problem.args)
        return mcmc.get_samples(group_by_chain=True)

    return call


def by_sampler(sampler, problem):
    """The same by a sampler of ours, at the same number of chains and draws."""

    def call(key):
        return sample_posterior(
            key, problem.model, *problem.args, sampler=sampler, num_chains=NUM_CHAINS, num_samples=NUM_SAMPLES,
            num_warmup=NUM_WARMUP, progress_bar=False,
        ).samples  # fmt: skip

    return call


def coordinates(samples):
    """All latents side by side, shape (chains, draws, coordinates)."""
    flat = [np.asarray(value, float).reshape(*value.shape[:2], -1) for _, value in sorted(samples.items())]
    return np.concatenate(flat, axis=-1)


def statistics(draws):
    """Mean and its Monte Carlo error of each coordinate, and the smallest effective size."""
    sizes = np.asarray(array_stats.ess(draws, chain_axis=0, draw_axis=1, method="bulk"))
    return draws.mean((0, 1)), draws.std((0, 1)) / np.sqrt(sizes), float(sizes.min())


def timed(call, *args):
    """What it returns, ready, and its seconds."""
    start = time.perf_counter()
    found = jax.block_until_ready(call(*args))
    return found, time.perf_counter() - start


def measure_posterior(name, problem, rivals, cold_runs):
    """Lines of one posterior: rates, seconds from cold, seconds of a second call."""
    sites = names_of_latents(problem)
    rates, cold, again, last = ({rival: [] for rival in rivals} for _ in range(4))
    for number in range(cold_runs):
        for rival, make in rivals.items():
            jax.clear_caches()
            call = make(problem)
            cold[rival].append(timed(call, jax.random.key(number))[1])
            samples, seconds = timed(call, jax.random.key(100 + number))
            last[rival] = statistics(coordinates({site: samples[site] for site in sites}))
            again[rival].append(seconds)
            rates[rival].append(last[rival][2] / seconds)
    lines = []
    for rival in rivals:
        difference = np.abs(last[rival][0] - last[RIVAL][0]) / np.hypot(last[rival][1], last[RIVAL][1])
        setting = {"posterior": name, "rival": rival, "chains": NUM_CHAINS, "draws": NUM_SAMPLES}
        for question, unit, found in ((RATE, "1 / second", rates), (COLD, "seconds", cold), (AGAIN, "seconds", again)):
            lines.append(
                report(
                    question, setting, found[rival], unit, relative_to=RIVAL,
                    ratios=np.array(found[rival]) / np.array(found[RIVAL]),
                    effective_size=last[rival][2], largest_difference_in_errors=float(difference.max(initial=0)),
                )
            )  # fmt: skip
    return lines


def names_of_latents(problem):
    """The sites that are sampled and not observed."""
    seeded = numpyro.handlers.seed(problem.model, 0)
    sites = numpyro.handlers.trace(seeded).get_trace(*problem.args)
    return [name for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]]


def headlines(lines):
    """Medians over the posteriors, beside their bars."""
    found = []
    for question, bar in ((RATE, {"at_least": 1.5}), (COLD, {"at_most": 1.0}), (AGAIN, {"at_most": 0.2})):
        ratios = [x["ratio"] for x in lines if x["question"] == question and x["setting"]["rival"] == "NUTS"]
        found.append(report(f"{question}: NUTS over NumPyro's", {"posteriors": len(ratios)}, ratios, "ratio", **bar))
    return found


def measure_many(num_data, repetitions):
    """Seconds of all posteriors of a batch, by `plate=` and by NumPyro's NUTS, from the second call on."""
    x = np.random.default_rng(1).uniform(size=(num_data, 16)).astype(np.float32)
    params = initial_params(small_kaem, x[:1])
    model = numpyro.handlers.substitute(small_kaem, data=params)

    def ours(key):
        return sample_posterior(
            key, small_kaem, x, params=params, sampler=NUTS(), num_chains=1, num_samples=200, num_warmup=200,
            plate="data", progress_bar=False,
        ).samples["z"]  # fmt: skip

    def one(key, row):
        mcmc = infer.MCMC(infer.NUTS(model), num_warmup=200, num_samples=200, progress_bar=False)
        mcmc.run(key, row[None])
        return mcmc.get_samples()["z"]

    @jax.jit
    def by_vmap(key):
        return jax.vmap(one)(jax.random.split(key, num_data), x)

    # One program for all data, so that the loop does not compile anew.
    alone = jax.jit(one)

    def by_loop(key, call, number):
        return [call(key, row) for key, row in zip(jax.random.split(key, number), x[:number], strict=True)]

    setting = {"data": num_data, "draws": 200}
    calls = {
        "plate of sample_posterior": ours,
        "vmap of NumPyro NUTS": by_vmap,
        "compiled loop over NumPyro NUTS": partial(by_loop, call=alone, number=8),
        "loop over NumPyro NUTS": partial(by_loop, call=one, number=4),
    }
    scale = {"compiled loop over NumPyro NUTS": num_data / 8, "loop over NumPyro NUTS": num_data / 4}
    first = {name: timed(call, jax.random.key(0))[1] for name, call in calls.items()}
    times = {name: [] for name in calls}
    for number in range(repetitions):
        for name, call in calls.items():
            times[name].append(timed(call, jax.random.key(1 + number))[1] * scale.get(name, 1.0))
    lines = [
        report(MANY, {**setting, "rival": name}, seconds, "seconds", first_call_seconds=first[name])
        for name, seconds in times.items()
    ]
    own = np.array(times["plate of sample_posterior"])
    for name in list(calls)[1:]:
        bar = {"at_least": 10} if name == "loop over NumPyro NUTS" else {}
        lines.append(report(f"{MANY}: {name} over plate", setting, np.array(times[name]) / own, "ratio", **bar))
    return lines


def measure(quick):
    """Every posterior by every rival, then many at once."""
    rivals = {RIVAL: by_numpyro, "NUTS": partial(by_sampler, NUTS())}
    if not quick:
        rivals["ParallelTempering"] = partial(by_sampler, ParallelTempering())
    problems = make_posteriors()
    chosen = list(problems)[:3] if quick else list(problems)
    lines = []
    for name in tqdm(chosen, unit="posterior", disable=None, leave=False):
        lines += measure_posterior(name, problems[name], rivals, 1 if quick else COLD_RUNS)
    return lines + headlines(lines) + measure_many(NUM_DATA, 2 if quick else 5)


def draw(lines):
    """Ratios to NumPyro's NUTS, a panel for each question."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    names = list(dict.fromkeys(line["setting"]["posterior"] for line in lines if "posterior" in line["setting"]))
    figure = Figure(figsize=(11, 1.5 + 0.3 * len(names)), layout="constrained")
    rivals = list(dict.fromkeys(line["setting"]["rival"] for line in lines if "posterior" in line["setting"]))
    for panel, question in zip(figure.subplots(1, 3, sharey=True), (RATE, COLD, AGAIN), strict=True):
        for number, rival in enumerate(name for name in rivals if name != RIVAL):
            found = [x for x in lines if x["question"] == question and x["setting"].get("rival") == rival]
            panel.plot(
                [x["ratio"] for x in found], [names.index(x["setting"]["posterior"]) for x in found], "o",
                color=PALETTE[1 + number], label=rival,
            )  # fmt: skip
        panel.axvline(1, color="#7f7f7f", linewidth=0.8, linestyle="--")
        plain_axis(panel, f"ratio to {RIVAL}", question, yscale="linear")
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    main(measure, draw)
