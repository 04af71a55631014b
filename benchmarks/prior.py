"""The prior itself: how exact its integrals are for a number of panels, and what a table of masses costs.

Energies of 20 radial basis functions on (-3, 3), coefficients of standard deviation 1, over a normal reference. The
truth is known from `scipy.integrate.quad` in double precision, of the same functions written out in NumPy. The rivals:
- `scipy.integrate.quad`, latent by latent, for normalisers;
- a cumulative Gauss-Legendre rule: a running sum of as many weights as the panels have nodes, read between nodes by
  interpolation, for distribution functions and draws;
- drawing from every component of a mixture and choosing one.

A few draws have no rival but the machine: they are held against a product of two matrices of 2048 x 2048.
"""

import dataclasses
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.integrate
import scipy.special
from measure import compare, interleave, main, ratio, report

import kaem_ppl as kp
from kaem_ppl.distributions.bank import add_tails
from kaem_ppl.quadrature import DEGREE, evaluate, log_total
from kaem_ppl.quadrature.table import quantile, tabulate, tails
from kaem_ppl.reference import log_outside

LOW, HIGH = DOMAIN = (-3.0, 3.0)
REFERENCE = dist.Normal(0.0, 1.0)
NUM_NODES = DEGREE + 1
NUM_DRAWS, MANY_DRAWS = 128, 10_000
ERROR = "error of the prior's integrals"
BY_PANELS, BY_LATENTS, BY_COMPONENTS = (
    f"a table and {NUM_DRAWS} draws of each latent, by {what}" for what in ("panels", "latents", "components")
)
NORMALISERS = "normalisers of all latents"
TABLE, RUNNING_SUM, SCIPY = "table of masses", "cumulative Gauss rule", "scipy.integrate.quad"
COLLAPSED, CHOSEN = "components collapsed into one table", "every component drawn, one chosen"


def make_energy(batch_shape):
    """A bank of energies as large as learnt ones."""
    energy = kp.UnivariateKAN.init(jax.random.key(0), batch_shape, basis=kp.RBF(20), domain=DOMAIN)
    coefficients = np.random.default_rng(1).normal(size=energy.coef.shape)
    return dataclasses.replace(energy, coef=jnp.asarray(coefficients, energy.coef.dtype))


def table_of(energy, num_panels):
    """Table of masses and log-normalisers by equal panels."""
    log_tails = log_outside(REFERENCE, *energy.domain)
    ends = tuple(energy(x) for x in energy.domain)
    edges = jnp.linspace(*energy.domain, num_panels + 1)
    log_density = lambda z: energy.at_points(z.reshape(-1), REFERENCE.log_prob(z.reshape(-1)))  # noqa: E731
    panels, shape, _ = evaluate(lambda z: log_density(z).reshape(*z.shape[:2], -1), edges[:, None])
    edges = jnp.broadcast_to(edges[:, None], (num_panels + 1, len(energy.coef)))
    table = tabulate(edges, panels.peak, shape, ends, log_tails)
    return table, log_total(panels, add_tails(ends, log_tails))


def running_sum_of(energy, num_panels):
    """Nodes, the running sum of a Gauss-Legendre rule at them over the whole, and log-normalisers."""
    nodes, weights = np.polynomial.legendre.leggauss(NUM_NODES * num_panels)
    nodes = jnp.asarray(0.5 * (LOW + HIGH) + 0.5 * (HIGH - LOW) * nodes)
    masses = 0.5 * (HIGH - LOW) * jnp.asarray(weights) * jnp.exp(energy.outer(nodes) + REFERENCE.log_prob(nodes))
    left, right = (
        jnp.exp(energy(x) + mass) for x, mass in zip(energy.domain, log_outside(REFERENCE, *energy.domain), strict=True)
    )
    total = left + masses.sum(-1) + right
    return nodes, (left[:, None] + jnp.cumsum(masses, axis=-1)) / total[:, None], jnp.log(total)


def truth_of(energy, points):
    """Normalisers (Q,) and distribution functions (Q, S) at increasing points, by SciPy."""
    edges = np.array([LOW, *points, HIGH])
    normalisers, below = [], []
    for log_density, left, right in _written_out(energy):
        pieces = [_integrate(log_density, a, b, 1e-13) for a, b in pairwise(edges)]
        normaliser = left + sum(pieces) + right
        normalisers.append(np.log(normaliser))
        below.append((left + np.cumsum(pieces)[:-1]) / normaliser)
    return np.array(normalisers), np.array(below)


def _integrate(log_density, low, high, tolerance):
    return scipy.integrate.quad(lambda z: np.exp(log_density(z)), low, high, epsabs=0, epsrel=tolerance, limit=200)[0]


def _written_out(energy):
    """Of each latent exp(f) pi_0 in logarithms as a NumPy function of a number, and its masses left and right."""
    coef, base, grid = (np.asarray(x, float) for x in (energy.coef, energy.base_weight, energy.grid))
    width = float(energy.width) * (grid[1] - grid[0])

    def one(coef, base):
        def f(z):
            return base * z * scipy.special.expit(z) + coef @ np.exp(-0.5 * ((z - grid) / width) ** 2)

        tail = scipy.special.ndtr(LOW)
        return lambda z: f(z) - 0.5 * z * z - 0.5 * np.log(2 * np.pi), np.exp(f(LOW)) * tail, np.exp(f(HIGH)) * tail

    return [one(*latent) for latent in zip(coef, base, strict=True)]


def measure_errors(num_latents, panels, precisions):
    """Largest errors over the latents."""
    points = np.linspace(LOW, HIGH, 42)[1:-1]
    lines = []
    for precision in precisions:
        with jax.enable_x64(precision == "float64"):
            energy = make_energy((num_latents,))
            log_z, cdf = truth_of(energy, points)
            for num_panels in panels:
                table, values = jax.jit(table_of, static_argnums=1)(energy, num_panels)
                below, _ = tails(table, jnp.broadcast_to(jnp.asarray(points), cdf.shape))
                nodes, sums, rival_values = running_sum_of(energy, num_panels)
                rival_below = jax.vmap(lambda sums, nodes=nodes: jnp.interp(jnp.asarray(points), nodes, sums))(sums)
                for quantity, unit, found, rival, truth in (
                    ("log Z", "nats", values, rival_values, log_z), ("CDF", "probability", below, rival_below, cdf),
                ):  # fmt: skip
                    error, rival_error = (np.abs(np.asarray(x, float) - truth).max() for x in (found, rival))
                    setting = {"latents": num_latents, "panels": num_panels, "precision": precision}
                    for name, value in ((TABLE, error), (RUNNING_SUM, rival_error)):
                        lines.append(
                            report(
                                ERROR, {**setting, "quantity": quantity, "rival": name}, value, unit,
                                relative_to=RUNNING_SUM, ratios=[value / max(rival_error, 1e-17)],
                            )
                        )  # fmt: skip
    return lines


@partial(jax.jit, static_argnums=1)
def draw_by_table(energy, num_panels, u):
    """Draws inside the domain by a table of so many panels."""
    return quantile(table_of(energy, num_panels)[0], u, 1 - u)


@partial(jax.jit, static_argnums=1)
def draw_by_running_sum(energy, num_panels, u):
    """Draws inside the domain by interpolation of the running sum."""
    nodes, sums, _ = running_sum_of(energy, num_panels)
    return jax.vmap(lambda u, sums: jnp.interp(u, sums, nodes))(u, sums)


@jax.jit
def draw_exactly(energy, key):
    """Draws as a user makes them."""
    return kp.KANTilted(energy, REFERENCE).sample(key, (NUM_DRAWS,))


@partial(jax.jit, static_argnums=0)
def draw_collapsed(num_draws, logits, energy, key):
    """Draws from a mixture by one table for each latent."""
    return kp.KANTiltedMixture(logits, energy, REFERENCE).sample(key, (num_draws,))


@partial(jax.jit, static_argnums=0)
def draw_and_choose(num_draws, logits, energy, key):
    """Draws from every component, of which one is chosen."""
    draw_key, choice_key = jax.random.split(key)
    choice = jax.random.categorical(choice_key, logits, shape=(num_draws, logits.shape[0]))
    draws = kp.KANTilted(energy, REFERENCE).sample(draw_key, (num_draws,))
    return jnp.take_along_axis(draws, choice[..., None], axis=-1)[..., 0]


@jax.jit
def normalise(energy):
    """Log-normalisers as a user reads them."""
    return kp.KANTilted(energy, REFERENCE).log_normalizer


def normalise_by_scipy(functions):
    """Log-normalisers, latent by latent, to single precision."""
    return [np.log(left + _integrate(f, LOW, HIGH, 1e-6) + right) for f, left, right in functions]


def measure_times(panels, latents, components):
    """Each sweep with its rival."""
    key, lines = jax.random.key(2), []
    energy, u = make_energy((81,)), jax.random.uniform(key, (81, NUM_DRAWS))
    for number in panels:
        rivals = {
            TABLE: partial(draw_by_table, energy, number, u),
            RUNNING_SUM: partial(draw_by_running_sum, energy, number, u),
        }
        lines += compare(BY_PANELS, {"latents": 81, "panels": number}, rivals, RUNNING_SUM, 7)[0]
    for number in latents:
        energy, u = make_energy((number,)), jax.random.uniform(key, (number, NUM_DRAWS))
        num_panels = energy.basis.num_panels
        rivals = {
            TABLE: partial(draw_exactly, energy, key),
            RUNNING_SUM: partial(draw_by_running_sum, energy, num_panels, u),
        }
        lines += compare(BY_LATENTS, {"latents": number, "panels": num_panels}, rivals, RUNNING_SUM, 7)[0]
        rivals = {TABLE: partial(normalise, energy), SCIPY: partial(normalise_by_scipy, _written_out(energy))}
        lines += compare(NORMALISERS, {"latents": number, "panels": num_panels}, rivals, SCIPY, 7)[0]
    for number in components:
        energy, logits = make_energy((81, number)), jax.random.normal(key, (81, number))
        rivals = {
            COLLAPSED: partial(draw_collapsed, NUM_DRAWS, logits, energy, key),
            CHOSEN: partial(draw_and_choose, NUM_DRAWS, logits, energy, key),
        }
        lines += compare(BY_COMPONENTS, {"latents": 81, "components": number}, rivals, CHOSEN, 7)[0]
    return lines


def measure_mixture():
    """A mixture of 40 beside one density, beside drawing every component, and beside a product of matrices."""
    key, square = jax.random.key(2), jax.random.normal(jax.random.key(3), (2048, 2048))
    mixture, single = (
        (jax.random.normal(key, (81, number)), make_energy((81, number)), key) for number in (40, 1)
    )  # fmt: skip
    product = jax.jit(jnp.matmul)
    few, many, one, chosen = f"{NUM_DRAWS} draws", f"{MANY_DRAWS} draws", "one component", CHOSEN
    times, _ = interleave(
        {
            "product": partial(product, square, square),
            few: partial(draw_collapsed, NUM_DRAWS, *mixture),
            many: partial(draw_collapsed, MANY_DRAWS, *mixture),
            one: partial(draw_collapsed, MANY_DRAWS, *single),
        },
        41,
    )
    slow, _ = interleave(
        {many: partial(draw_collapsed, MANY_DRAWS, *mixture), chosen: partial(draw_and_choose, MANY_DRAWS, *mixture)}, 7
    )
    setting = {"latents": 81, "components": 40}
    return [
        report(
            f"prior: {few} / a product of 2048 x 2048 matrices", setting, ratio(times, few, "product"), "ratio",
            relative_to="product", at_most=4 / 84, milliseconds=1e3 * float(np.median(times[few])),
        ),
        report(
            f"prior: {many}, 40 components / 1", setting, ratio(times, many, one), "ratio", relative_to=one, at_most=1.3
        ),
        report(
            f"prior: {many}, {CHOSEN} / {COLLAPSED}", setting, ratio(slow, chosen, many), "ratio",
            relative_to=COLLAPSED, at_least=15,
        ),
    ]  # fmt: skip


def measure(quick):
    """Errors first, then times."""
    if quick:
        return measure_errors(4, (5, 20), ("float32",)) + measure_times((20,), (), ())
    panels = (1, 2, 5, 10, 20, 40, 80)
    errors = measure_errors(16, panels, ("float64", "float32"))
    return errors + measure_times(panels, (1, 10, 81, 300), (1, 4, 10, 40, 100)) + measure_mixture()


def draw(lines):
    """Errors against panels; times against panels, latents and components."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    num_rows = 1 + any(line["question"] in (BY_LATENTS, BY_COMPONENTS) for line in lines)
    figure = Figure(figsize=(10, 4 * num_rows), layout="constrained")
    errors, *times = figure.subplots(num_rows, 2).flat
    styles = {"float64": "-", "float32": "--"}
    colours = dict(zip((("log Z", TABLE), ("CDF", TABLE), ("log Z", RUNNING_SUM), ("CDF", RUNNING_SUM)),
                       PALETTE, strict=False))  # fmt: skip
    for (quantity, name), colour in colours.items():
        for precision, style in styles.items():
            wanted = {"quantity": quantity, "rival": name, "precision": precision}
            x, y = _curve(lines, ERROR, "panels", wanted)
            if not len(x):
                continue
            label = f"{quantity}, {name}, {precision}"
            errors.plot(x, np.maximum(y, 1e-17), style, color=colour, marker="o", markersize=3, label=label)
    plain_axis(errors, "panels (15 nodes each)", "largest error over the latents")
    errors.set_ylabel("nats (log Z), probability (CDF)")
    errors.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(-0.1, -0.14), ncols=2)

    sweeps = (
        ("panels", f"81 latents: a table and {NUM_DRAWS} draws of each", {BY_PANELS: (TABLE, RUNNING_SUM)}),
        ("latents", f"normalisers; a table and {NUM_DRAWS} draws of each",
         {BY_LATENTS: (TABLE, RUNNING_SUM), NORMALISERS: (TABLE, SCIPY)}),
        ("components", f"81 latents: a table and {NUM_DRAWS} draws of each", {BY_COMPONENTS: (COLLAPSED, CHOSEN)}),
    )  # fmt: skip
    for panel, (axis, title, questions) in zip(times, sweeps, strict=False):
        pairs = [(question, name) for question, names in questions.items() for name in names]
        for colour, (question, name) in zip(PALETTE, pairs, strict=False):
            x, y = _curve(lines, question, axis, {"rival": name})
            label = f"normalisers, {name}" if question == NORMALISERS else f"draws, {name}"
            panel.plot(x, 1e3 * y, marker="o", markersize=4, color=colour, label=label)
        plain_axis(panel, axis, title)
        panel.set_ylabel("milliseconds")
        panel.legend(frameon=False, fontsize=8)
    return figure


def _curve(lines, question, axis, wanted):
    """Values against a setting, of the lines that have the wanted settings."""
    points = sorted(
        (line["setting"][axis], line["value"])
        for line in lines
        if line["question"] == question and wanted.items() <= line["setting"].items()
    )
    return np.array(points).reshape(-1, 2).T


if __name__ == "__main__":
    main(measure, draw)
