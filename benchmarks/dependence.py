"""Joint densities fitted to draws: independent, Gaussian copula, D-vine, and, where they are installed, two rivals.

A banana, a normal of correlated variables, and (mu, log tau) of the eight schools, drawn by NUTS; 4,000 draws to fit and
4,000 others, five seeds. The marginals are the same tilted densities for all but the flow. Two numbers: mean log-density of
the others less that of the truth, which is known for all three, and the squared energy distance (Szekely and Rizzo 2013,
unbiased) between 2,000 draws of the fit and 2,000 of the others, in standard deviations. The rivals are flowjax's masked
autoregressive flow of rational quadratic splines, and pyvinecopulib's vine of kernel estimates (Nagler and Czado 2016);
neither is a dependency: the summary lacks those that can't be imported.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from measure import main, report
from posterior_models import eight_groups
from tqdm import tqdm

import kaem_ppl as kp
from kaem_ppl.inference import NUTS, sample_posterior

NUM_DRAWS, NUM_COMPARED = 4000, 2000
# The constants of the fit were chosen on seeds 0 to 4.
SEEDS = range(100, 105)
LOSS, DISTANCE, SECONDS = "held-out log-density below the truth's", "energy distance to held-out draws", "time of a fit"
GAUSSIAN = "gaussian"
NORMAL = dist.MultivariateNormal(
    jnp.array([1.0, -2.0, 0.0]), jnp.array([[1.0, 1.2, -0.15], [1.2, 4.0, 0.1], [-0.15, 0.1, 0.25]])
)
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.float32)
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32)


def draw_banana(seed):
    """x standard normal, and y = x^2 / 2 and noise of half a unit."""
    rng = np.random.default_rng((0, seed))
    x, noise = rng.standard_normal((2, 2 * NUM_DRAWS))
    return np.stack([x, 0.5 * x**2 + 0.5 * noise], axis=1)


def log_banana(x):
    """Its log-density."""
    return _log_normal(x[:, 0], 0.0, 1.0) + _log_normal(x[:, 1], 0.5 * x[:, 0] ** 2, 0.5)


def draw_normal(seed):
    """Three variables, correlations 0.6, -0.3 and 0.1."""
    return np.asarray(NORMAL.sample(jax.random.key(seed), (2 * NUM_DRAWS,)), float)


def log_normal(x):
    """Its log-density."""
    return np.asarray(NORMAL.log_prob(jnp.asarray(x, jnp.float32)), float)


def draw_schools(seed):
    """mu and log tau, from four chains the draws to fit, and from four others the rest; every second draw."""
    samples = sample_posterior(
        jax.random.key(seed), eight_groups, EFFECTS, ERRORS, sampler=NUTS(), num_chains=8, num_samples=2000,
        num_warmup=1000, progress_bar=False,
    ).samples  # fmt: skip
    both = np.stack([np.asarray(samples["mu"], float), np.log(np.asarray(samples["tau"], float))], axis=-1)
    return both[:, ::2].reshape(-1, 2)


def log_schools(x):
    """The posterior log-density of both, the effects integrated out; its constant by the trapezoid rule."""
    mu, log_tau = np.linspace(-25, 35, 601), np.linspace(-14, 7, 1051)
    grid = _unnormalised_schools(mu[:, None], log_tau)
    constant = np.log(np.trapezoid(np.trapezoid(np.exp(grid), log_tau, axis=1), mu))
    return _unnormalised_schools(x[:, 0], x[:, 1]) - constant


def _unnormalised_schools(mu, log_tau):
    mu, tau = np.asarray(mu)[..., None], np.exp(np.asarray(log_tau))[..., None]
    likelihood = _log_normal(EFFECTS, mu, np.sqrt(ERRORS**2 + tau**2)).sum(-1)
    return likelihood + _log_normal(mu, 0.0, 5.0)[..., 0] + (np.log(tau) - np.log1p((tau / 5) ** 2))[..., 0]


def _log_normal(x, mean, scale):
    return -0.5 * ((x - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


LAWS = {
    "banana": (draw_banana, log_banana),
    "correlated normal": (draw_normal, log_normal),
    "eight schools' (mu, log tau)": (draw_schools, log_schools),
}


def fit_ours(kind):
    """From draws and a seed to the log-density and draws of `prior_from`."""

    def fit(draws, seed):
        prior = kp.prior_from({"x": draws.astype(np.float32)}, dependence=kind)
        jax.block_until_ready(jax.tree.leaves(prior))
        return prior.log_prob, lambda: prior.sample(jax.random.key(1000 + seed), (NUM_COMPARED,))

    return fit


def fit_flow(draws, seed):
    """The same by flowjax, at its defaults, on standardised draws."""
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train import fit_to_data

    mean, scale = draws.mean(0), draws.std(0)
    standardise = lambda x: jnp.asarray((np.asarray(x) - mean) / scale, jnp.float32)  # noqa: E731
    keys = jax.random.split(jax.random.key(seed))
    flow = masked_autoregressive_flow(
        keys[0], base_dist=Normal(jnp.zeros(draws.shape[1])), transformer=RationalQuadraticSpline(knots=8, interval=4)
    )
    flow, _ = fit_to_data(keys[1], flow, standardise(draws), show_progress=False)
    log_density = lambda x: flow.log_prob(standardise(x)) - np.log(scale).sum()  # noqa: E731
    return log_density, lambda: mean + scale * np.asarray(flow.sample(jax.random.key(1000 + seed), (NUM_COMPARED,)))


def fit_kernel_vine(draws, seed):
    """The same by pyvinecopulib's nonparametric vine, with our marginals."""
    import pyvinecopulib

    prior = kp.prior_from({"x": draws.astype(np.float32)}, dependence="independent")
    uniforms = lambda x: np.clip(dist.Normal().cdf(prior.whiten(jnp.asarray(x, jnp.float32))), 1e-6, 1 - 1e-6)  # noqa: E731
    controls = pyvinecopulib.FitControlsVinecop(family_set=[pyvinecopulib.families.tll], num_threads=1)
    vine = pyvinecopulib.Vinecop.from_data(np.asarray(uniforms(draws), float), controls=controls)

    def log_density(x):
        own = np.asarray(prior.log_prob(jnp.asarray(x, jnp.float32)), float)
        return own + np.log(vine.pdf(np.asarray(uniforms(x), float)))

    def draw():
        u = vine.sample(NUM_COMPARED, seeds=[1000 + seed])
        return prior.unwhiten(dist.Normal().icdf(jnp.asarray(u, jnp.float32)))

    return log_density, draw


def make_ways():
    """Every way of fitting that can be imported, by name; and the rivals that can't."""
    ways = {kind: fit_ours(kind) for kind in ("independent", GAUSSIAN, "vine")}
    missing = []
    for name, package, fit in (("flowjax", "flowjax", fit_flow), ("pyvinecopulib", "pyvinecopulib", fit_kernel_vine)):
        try:
            __import__(package)
        except ImportError:
            missing.append(name)
        else:
            ways[name] = fit
    return ways, missing


def energy_distance(first, second):
    """Squared, unbiased, of two sets of draws in the second's standard deviations."""
    scale = second.std(0)
    x, y = first / scale, second / scale

    def mean_distance(a, b, pairs):
        return sum(np.sqrt(((row - b) ** 2).sum(-1)).sum() for row in a) / pairs

    own = mean_distance(x, x, len(x) * (len(x) - 1)) + mean_distance(y, y, len(y) * (len(y) - 1))
    return 2 * mean_distance(x, y, len(x) * len(y)) - own


def compare(law, ways, seeds):
    """Loss, distance and seconds of each way, one number for each seed; the truth's own distance under its name."""
    draw, log_truth = LAWS[law]
    found = {name: ([], [], []) for name in ways}
    for seed in tqdm(seeds, desc=law, unit="seed", disable=None, leave=False):
        draws = draw(seed)
        train, held_out = draws[:NUM_DRAWS], draws[NUM_DRAWS:]
        truth = log_truth(held_out)
        for name, fit in ways.items():
            start = time.perf_counter()
            log_density, sample = fit(train, seed)
            seconds = time.perf_counter() - start
            own = np.asarray(log_density(jnp.asarray(held_out, jnp.float32)), float)
            distance = energy_distance(np.asarray(sample(), float), held_out[:NUM_COMPARED])
            for values, value in zip(found[name], (np.mean(truth - own), distance, seconds), strict=True):
                values.append(value)
    return found


def measure(quick):
    """Lines of all laws and ways."""
    ways, missing = make_ways()
    for name in missing:
        print(f"{name} can't be imported, and is left out.", file=sys.stderr)
    lines, seeds = [], SEEDS[: 2 if quick else None]
    for law in LAWS:
        found = compare(law, ways, seeds)
        for name, columns in found.items():
            setting = {"law": law, "draws": NUM_DRAWS, "seeds": len(seeds), "rival": name}
            for question, values, unit in zip(
                (LOSS, DISTANCE, SECONDS), columns, ("nats", "squared energy distance", "seconds"), strict=True
            ):
                # The first fit of a law is compiled: the time of those after it is told.
                kept = values[1:] if question == SECONDS else values
                lines.append(
                    report(
                        question, setting, kept, unit, mean=float(np.mean(kept)), first=float(values[0]),
                        std_error=float(np.std(kept, ddof=1) / np.sqrt(len(kept))) if len(kept) > 1 else None,
                    )
                )  # fmt: skip
    print(table(lines), file=sys.stderr)
    return lines


def table(lines):
    """Means and standard errors of all as Markdown, a row for each law and way."""
    cells = {(line["setting"]["law"], line["setting"]["rival"], line["question"]): line for line in lines}
    rows = [f"| law | way | {LOSS}, nats | {DISTANCE} | {SECONDS}, s | first fit, s |", "|" + "---|" * 6]
    for law, name in dict.fromkeys(key[:2] for key in cells):
        loss, distance, seconds = (cells[law, name, question] for question in (LOSS, DISTANCE, SECONDS))
        numbers = [f"{x['mean']:.4f} ± {x['std_error'] or np.nan:.4f}" for x in (loss, distance)]
        rows.append(f"| {law} | {name} | {' | '.join(numbers)} | {seconds['mean']:.2f} | {seconds['first']:.2f} |")
    return "\n".join(rows)


def plot(lines):
    """Losses and distances by law and way."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    laws = list(LAWS)
    ways = list(dict.fromkeys(line["setting"]["rival"] for line in lines))
    for panel, question in zip(figure.subplots(1, 2, sharey=True), (LOSS, DISTANCE), strict=True):
        for number, (colour, name) in enumerate(zip(PALETTE, ways, strict=False)):
            found = [x for x in lines if x["question"] == question and x["setting"]["rival"] == name]
            places = [laws.index(x["setting"]["law"]) + 0.12 * (number - len(ways) / 2) for x in found]
            errors = [2 * (x["std_error"] or 0) for x in found]
            panel.errorbar([x["mean"] for x in found], places, xerr=errors, fmt="o", color=colour, label=name)
        panel.set_yticks(range(len(laws)), laws, fontsize=8)
        panel.invert_yaxis()
        plain_axis(panel, question, "", xscale="linear", yscale="linear")
    panel.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main(measure, plot)
