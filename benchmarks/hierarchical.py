"""Effective samples per second of a hierarchical model by blocks, beside joint NUTS, cold and warm.

2,000 groups with a mean and a spread in common, normal or Poisson observations. Each run is a process of its own without a
cache of compiled programs: its first call is cold, with reading and compilation, its second warm. Rivals take turns, and
ratios are of one round. Of the globals the smaller effective size counts, of the locals the median.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
from measure import main, report
from tqdm import tqdm

RIVALS = ("blocks", "joint NUTS", "NumPyro's NUTS")
FAMILIES = ("normal", "Poisson")
BAR = 2.0


def make_model(family, num_groups):
    """A model and its data: the spread between groups is 0.7; five counts in a group are their sum."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    rng = np.random.default_rng(0)
    theta = 1 + 0.7 * rng.normal(size=num_groups)
    y = rng.poisson(5 * np.exp(theta)) if family == "Poisson" else theta + rng.normal(size=num_groups)

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 2))
        tau = numpyro.sample("tau", dist.HalfNormal(1))
        with numpyro.plate("data", len(y)):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            law = dist.Poisson(5 * jnp.exp(theta)) if family == "Poisson" else dist.Normal(theta, 1)
            numpyro.sample("y", law, obs=y)

    return model, jnp.asarray(y) if family == "Poisson" else jnp.asarray(y, float)


def make_draw(rival, model, y, num_steps):
    """From a seed to draws by site, (4, num_steps, ...)."""
    import jax
    from numpyro import infer

    from kaem_ppl.inference import NUTS, sample_posterior

    if rival == "NumPyro's NUTS":
        chains = infer.MCMC(
            infer.NUTS(model), num_warmup=num_steps, num_samples=num_steps, num_chains=4, chain_method="vectorized",
            progress_bar=False,
        )  # fmt: skip

        def draw(seed):
            chains.run(jax.random.key(seed), y)
            return chains.get_samples(group_by_chain=True)

        return draw
    how = {"plate": "data"} if rival == "blocks" else {"sampler": NUTS()}
    settings = {"num_chains": 4, "num_warmup": num_steps, "num_samples": num_steps, "progress_bar": False}
    return lambda seed: sample_posterior(seed, model, y, **how, **settings).samples


def run_once(rival, family, num_groups, num_steps, seed):
    """Print seconds of a cold and a warm call, and effective samples per second of each."""
    import jax
    from arviz_stats.base import array_stats

    model, y = make_model(family, num_groups)
    draw = make_draw(rival, model, y, num_steps)
    found = {}
    for number, call in enumerate(("cold", "warm")):
        start = time.perf_counter()
        samples = jax.block_until_ready(draw(2 * seed + number))
        seconds = time.perf_counter() - start
        sizes = {
            name: np.asarray(array_stats.ess(np.asarray(x, float), chain_axis=0, draw_axis=1, method="bulk"))
            for name, x in samples.items()
        }
        found[call] = {
            "seconds": seconds,
            "globals": float(min(sizes["mu"], sizes["tau"])) / seconds,
            "locals": float(np.median(sizes["theta"])) / seconds,
        }
    print(json.dumps(found))


def measure(quick):
    """Every family, call and kind of latent."""
    num_groups, num_steps, rounds = (200, 200, 2) if quick else (2000, 1000, 3)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    lines = []
    for family in FAMILIES:
        found = {rival: [] for rival in RIVALS}
        for number in tqdm(range(rounds), desc=family, disable=None, leave=False):
            for rival in RIVALS:
                arguments = ["--one", rival, family, str(num_groups), str(num_steps), str(number)]
                done = subprocess.run(
                    [sys.executable, __file__, *arguments], env=environment, check=True, capture_output=True, text=True
                )
                found[rival].append(json.loads(done.stdout.splitlines()[-1]))
        for call in ("cold", "warm"):
            for kind in ("globals", "locals"):
                rates = {rival: np.array([run[call][kind] for run in runs]) for rival, runs in found.items()}
                setting = {"family": family, "groups": num_groups, "steps": num_steps, "call": call, "latents": kind}
                for rival in RIVALS:
                    seconds = float(np.median([run[call]["seconds"] for run in found[rival]]))
                    lines.append(
                        report(
                            "effective samples per second", {**setting, "rival": rival}, rates[rival], "1 / second",
                            relative_to=RIVALS[1], ratios=rates[rival] / rates[RIVALS[1]], seconds=seconds,
                        )
                    )  # fmt: skip
                if kind == "globals":
                    lines.append(
                        report(
                            f"blocks to joint NUTS, effective samples of the globals per second, {family}, {call}", setting,
                            rates["blocks"] / rates[RIVALS[1]], "ratio", relative_to=RIVALS[1], at_least=BAR,
                        )
                    )  # fmt: skip
    return lines


def draw(lines):
    """Ratios to joint NUTS."""
    from matplotlib.figure import Figure
    from plots import PALETTE, ratio_axis

    lines = [line for line in lines if "rival" in line["setting"] and line["setting"]["rival"] != RIVALS[1]]
    places = list(dict.fromkeys((line["setting"]["family"], line["setting"]["call"]) for line in lines))
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, kind in zip(panels, ("globals", "locals"), strict=True):
        for colour, rival in zip(PALETTE[1:], (RIVALS[0], RIVALS[2]), strict=False):
            chosen = {
                (line["setting"]["family"], line["setting"]["call"]): line["ratio"]
                for line in lines
                if (line["setting"]["rival"], line["setting"]["latents"]) == (rival, kind)
            }
            panel.plot([places.index(x) for x in chosen], list(chosen.values()), "o", color=colour, label=rival)
        ratio_axis(panel, "", kind)
        panel.set(xscale="linear")
        panel.set_xticks(range(len(places)), ["\n".join(place) for place in places], fontsize=8)
    panels[0].set_ylabel("effective samples per second, to joint NUTS")
    panels[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        rival, family, *numbers = sys.argv[2:]
        run_once(rival, family, *map(int, numbers))
    else:
        main(measure, draw)
