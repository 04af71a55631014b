"""Densities fitted to samples: error against a kernel estimate, coverage of their bands, and what a fit costs.

The fifteen normal mixtures of Marron and Wand (1992), a thousand samples, fifty seeds. The rival is the Gaussian kernel
with Sheather and Jones' bandwidth ("solve the equation", 1991), binned as in R's `bw.SJ`. Beside it stands the program of
R's package `logspline`, where `KAEM_LOGSPLINE` names its sources (see `logspline.py`); without them its lines are missing.
"""

import time

import jax
import jax.numpy as jnp
import logspline
import numpy as np
from measure import main, report
from tqdm import tqdm

import kaem_ppl as kp

NUM_SAMPLES, NUM_SEEDS = 1000, 50
RIVAL = "kernel"
ERRORS = ("squared error", "divergence")
# Weight, mean and standard deviation of each component.
MARRON_WAND = {
    "Gaussian": [(1, 0, 1)],
    "skewed unimodal": [(1 / 5, 0, 1), (1 / 5, 1 / 2, 2 / 3), (3 / 5, 13 / 12, 5 / 9)],
    "strongly skewed": [(1 / 8, 3 * ((2 / 3) ** i - 1), (2 / 3) ** i) for i in range(8)],
    "kurtotic unimodal": [(2 / 3, 0, 1), (1 / 3, 0, 1 / 10)],
    "outlier": [(1 / 10, 0, 1), (9 / 10, 0, 1 / 10)],
    "bimodal": [(1 / 2, -1, 2 / 3), (1 / 2, 1, 2 / 3)],
    "separated bimodal": [(1 / 2, -3 / 2, 1 / 2), (1 / 2, 3 / 2, 1 / 2)],
    "asymmetric bimodal": [(3 / 4, 0, 1), (1 / 4, 3 / 2, 1 / 3)],
    "trimodal": [(9 / 20, -6 / 5, 3 / 5), (9 / 20, 6 / 5, 3 / 5), (1 / 10, 0, 1 / 4)],
    "claw": [(1 / 2, 0, 1), *((1 / 10, i / 2 - 1, 1 / 10) for i in range(5))],
    "double claw": [(49 / 100, -1, 2 / 3), (49 / 100, 1, 2 / 3)] + [(1 / 350, (i - 3) / 2, 1 / 100) for i in range(7)],
    "asymmetric claw": [(1 / 2, 0, 1), *((2 ** (1 - i) / 31, i + 1 / 2, 2**-i / 10) for i in range(-2, 3))],
    "asymmetric double claw": [(46 / 100, 2 * i - 1, 2 / 3) for i in range(2)]
    + [(1 / 300, -i / 2, 1 / 100) for i in range(1, 4)]
    + [(7 / 300, i / 2, 7 / 100) for i in range(1, 4)],
    "smooth comb": [(2 ** (5 - i) / 63, (65 - 96 / 2**i) / 21, (32 / 63) / 2**i) for i in range(6)],
    "discrete comb": [(2 / 7, (12 * i - 15) / 7, 2 / 7) for i in range(3)]
    + [(1 / 21, 2 * i / 7, 1 / 21) for i in range(8, 11)],
}


def draw(name, seeds):
    """Samples, one column for each seed, shape (n, number of seeds)."""
    weights, means, scales = (np.asarray(x, float) for x in zip(*MARRON_WAND[name], strict=True))
    columns = []
    for seed in seeds:
        rng = np.random.default_rng((list(MARRON_WAND).index(name), seed))
        chosen = rng.choice(len(weights), size=NUM_SAMPLES, p=weights / weights.sum())
        columns.append(means[chosen] + scales[chosen] * rng.standard_normal(NUM_SAMPLES))
    return np.stack(columns, axis=1).astype(np.float32)


def density(name, z):
    """The true density at points."""
    z = np.asarray(z)[..., None]
    weights, means, scales = (np.asarray(x, float) for x in zip(*MARRON_WAND[name], strict=True))
    return np.sum(weights * np.exp(-0.5 * ((z - means) / scales) ** 2) / (scales * np.sqrt(2 * np.pi)), axis=-1)


def quadrature(name):
    """Nodes and weights of an integral over the line, dense where components are narrow."""
    marks = [np.linspace(-6, 6, 1001)] + [
        mean + scale * np.linspace(-6, 6, 301) for _, mean, scale in MARRON_WAND[name]
    ]
    edges = np.unique(np.clip(np.concatenate(marks), -6, 6))
    nodes, weights = np.polynomial.legendre.leggauss(2)
    half = 0.5 * np.diff(edges)[:, None]
    return (edges[:-1, None] + half + half * nodes).reshape(-1), (half * weights).reshape(-1)


def quantiles(name, probabilities):
    """Points of the density with given mass below."""
    z, weights = quadrature(name)
    return np.interp(probabilities, np.cumsum(weights * density(name, z)), z)


def sheather_jones(samples, num_bins=1000):
    """Bandwidth that solves Sheather and Jones' equation (1991, eq. 12), by bisection."""
    x = np.sort(np.asarray(samples, float))
    number = len(x)
    scale = min(x.std(ddof=1), np.subtract(*np.percentile(x, [75, 25])) / 1.349)
    width = 1.01 * (x[-1] - x[0]) / num_bins
    counts = np.bincount(((x - x[0]) / width).astype(int), minlength=num_bins).astype(float)
    pairs = np.correlate(counts, counts, "full")[len(counts) - 1 :]
    pairs[0] = 0.5 * np.sum(counts * (counts - 1))
    lags = width * np.arange(len(pairs))

    def functional(h, polynomial, at_zero, order):
        d = (lags / h) ** 2
        terms = np.where(d < 1000, np.exp(-0.5 * d) * np.polyval(polynomial, d), 0.0)
        total = 2 * np.sum(terms * pairs) + number * at_zero
        return total / (number * (number - 1) * h**order * np.sqrt(2 * np.pi))

    fourth = lambda h: functional(h, (1, -6, 3), 3, 5)  # noqa: E731
    sixth = functional(1.23 * scale * number ** (-1 / 9), (1, -15, 45, -15), -15, 7)
    factor = 1.357 * (fourth(1.24 * scale * number ** (-1 / 7)) / -sixth) ** (1 / 7)
    constant = 1 / (2 * np.sqrt(np.pi) * number)
    low, high = 0.01 * scale * number**-0.2, 2 * scale * number**-0.2
    for _ in range(40):
        h = 0.5 * (low + high)
        low, high = (h, high) if (constant / fourth(factor * h ** (5 / 7))) ** 0.2 > h else (low, h)
    return 0.5 * (low + high)


def kernel_log_density(samples, bandwidth, z):
    """Of the Gaussian kernel estimate."""
    pieces = []
    for piece in np.array_split(z, -(-len(z) // 2000)):
        exponent = -0.5 * ((piece[:, None] - samples) / bandwidth) ** 2
        peak = exponent.max(axis=1)
        pieces.append(peak + np.log(np.exp(exponent - peak[:, None]).sum(axis=1)))
    return np.concatenate(pieces) - np.log(len(samples) * bandwidth * np.sqrt(2 * np.pi))


def errors(name, log_density):
    """Integrated squared error and Kullback-Leibler divergence from the truth, of log-densities at the nodes, by column."""
    z, weights = quadrature(name)
    truth = density(name, z)[:, None]
    squared = weights @ (np.exp(log_density) - truth) ** 2
    log_truth = np.log(np.where(truth > 0, truth, 1.0))
    return squared, weights @ np.where(truth > 0, truth * (log_truth - log_density), 0.0)


def compare(name, seeds):
    """Mean errors by estimator, (squared, divergence) each, and the coverage of the fit's bands, (20,)."""
    samples, (z, _) = draw(name, seeds), quadrature(name)
    fitted = kp.KANTilted.fit(samples)
    ours = np.asarray(fitted.density.log_prob(jnp.asarray(z, jnp.float32)[:, None]), float)
    kernel = np.stack([kernel_log_density(x, sheather_jones(x), z) for x in samples.T.astype(float)], axis=1)
    points = quantiles(name, (np.arange(20) + 0.5) / 20)
    low, high = (np.asarray(x) for x in fitted.band(jnp.asarray(points, jnp.float32)[:, None]))
    truth = density(name, points)[:, None]
    covered = np.mean((low <= truth) & (truth <= high), axis=1)
    found = {"fit": ours, RIVAL: kernel}
    if logspline.is_available():
        splines = [logspline.log_density(x, z) for x in samples.T.astype(float)]
        failed = sum(x is None for x in splines)
        if failed:
            raise RuntimeError(f"logspline reports failure for {failed} of {len(splines)} samples of {name!r}")
        found["logspline"] = np.stack(splines, axis=1)
    return {estimator: [np.mean(x) for x in errors(name, x)] for estimator, x in found.items()}, covered


def measure(quick):
    """Lines of all densities, what is said of them together, and the time of a bank."""
    seeds = range(10 if quick else NUM_SEEDS)
    lines, errors_of = [], {}
    for name in tqdm(MARRON_WAND, unit="density", disable=None):
        found, covered = compare(name, seeds)
        setting = {"density": name, "samples": NUM_SAMPLES, "seeds": len(seeds)}
        for estimator, values in found.items():
            for what, value, kernel, unit in zip(ERRORS, values, found[RIVAL], ("", "nats"), strict=True):
                errors_of.setdefault((what, estimator), []).append(value)
                if estimator == RIVAL:
                    continue
                of = {**setting, "rival": estimator} if estimator != "fit" else setting
                line = report(f"{what} of a fit", of, value, unit, relative_to=RIVAL, ratios=[value / kernel])
                lines.append(line)
        lines.append(report("coverage of 95 % bands at 20 quantiles", setting, covered, "share"))
    for what, rival in errors_of:
        if rival == "fit":
            continue
        setting = {"samples": NUM_SAMPLES, "seeds": len(seeds)} | ({} if rival == RIVAL else {"rival": rival})
        ratios = np.divide(errors_of[what, "fit"], errors_of[what, rival])
        typical, worst = ({"at_most": 0.8}, {"at_most": 1.2}) if rival == RIVAL else ({}, {})
        lines.append(report(f"{what}, over the densities", setting, ratios, "ratio", relative_to=rival, **typical))
        lines.append(report(f"{what}, worst density", setting, max(ratios), "ratio", relative_to=rival, **worst))
    lines.append(measure_time())
    return lines


def measure_time():
    """Seconds of fitting 81 densities to 10,000 samples each, after compilation."""
    samples = np.random.default_rng(0).gumbel(size=(10_000, 81)).astype(np.float32)
    seconds = []
    for shift in range(6):
        start = time.perf_counter()
        jax.block_until_ready(kp.KANTilted.fit(samples + shift).density.energy.coef)
        seconds.append(time.perf_counter() - start)
    setting = {"densities": 81, "samples": 10_000}
    return report("time of a bank's fit", setting, seconds[1:], "s", first_call_seconds=seconds[0], at_most=2.0)


def plot(lines):
    """Ratios of both errors by density."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    panel = figure.subplots()
    names = list(MARRON_WAND)
    for colour, what in zip(PALETTE[1:], ERRORS, strict=False):
        for rival, mark in ((None, "o"), ("logspline", "x")):
            found = [
                line
                for line in lines
                if line["question"] == f"{what} of a fit" and line["setting"].get("rival") == rival
            ]
            if not found:
                continue
            places = [names.index(line["setting"]["density"]) for line in found]
            label = what if rival is None else f"{what} of {rival}"
            panel.plot([line["ratio"] for line in found], places, mark, color=colour, label=label)
    panel.axvline(1, color="#7f7f7f", linewidth=0.8, linestyle="--")
    panel.legend(frameon=False, fontsize=8)
    plain_axis(panel, "error relative to the kernel estimate's", "fitted densities", yscale="linear")
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.set_xticks([0.03, 0.1, 0.3, 1, 3], ["0.03", "0.1", "0.3", "1", "3"])
    panel.invert_yaxis()
    return figure


if __name__ == "__main__":
    main(measure, plot)
