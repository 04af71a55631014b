"""The numbers in how-to/choose.md: bases and references by what they lose, samplers by where they end. Prints tables.

`python docs/measure_choices.py` takes three minutes on two cores.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.reparam import LocScaleReparam

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    MALA,
    NUTS,
    EllipticalSlice,
    ImportanceSampling,
    ParallelTempering,
    TemperedSMC,
    diagnose,
    sample_posterior,
)

NUM_SAMPLES = 2000
EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def divergence(truth, density):
    """KL(truth || density) in nats, by 20,000 quantiles of a normal mixture's components."""
    weights, locs, scales = truth
    u = (np.arange(20_000) + 0.5) / 20_000
    parts = jax.vmap(lambda loc, scale: dist.Normal(loc, scale).icdf(u))(jnp.array(locs), jnp.array(scales))
    log_p = jax.scipy.special.logsumexp(
        jnp.log(jnp.array(weights))[:, None, None]
        + jax.vmap(lambda loc, scale: dist.Normal(loc, scale).log_prob(parts))(jnp.array(locs), jnp.array(scales)),
        axis=0,
    )
    return float((jnp.array(weights)[:, None] * (log_p - density.log_prob(parts))).sum() / len(u))


def bases():
    """What each basis loses of a smooth density and of one with a narrow peak."""
    truths = {
        "two broad modes": ([0.5, 0.5], [-1.2, 1.0], [0.6, 0.5]),
        "a narrow peak": ([0.8, 0.2], [0.0, 0.5], [1.0, 0.07]),
    }
    families = [kp.BSpline(3, num_grid=60), kp.RBF(20), kp.RBF(50), kp.Fourier(20)]
    families += [kp.Chebyshev(20), kp.RSWAF(20), kp.Morlet(20)]
    rng = np.random.default_rng(0)
    print("| basis | " + " | ".join(truths) + " | seconds |\n|---|---|---|---|")
    draws = {}
    for name, (weights, locs, scales) in truths.items():
        component = rng.choice(len(weights), NUM_SAMPLES, p=weights)
        draws[name] = rng.normal(np.array(locs)[component], np.array(scales)[component])
    for basis in families:
        start = time.perf_counter()
        losses = [divergence(truths[name], kp.KANTilted.fit(x, basis=basis).density) for name, x in draws.items()]
        print(
            f"| {basis} | " + " | ".join(f"{loss:.4f}" for loss in losses) + f" | {time.perf_counter() - start:.1f} |"
        )


def references():
    """Held-out log-density of heavy-tailed and of positive data by the reference."""
    rng = np.random.default_rng(1)
    student, lognormal = rng.standard_t(3, 2 * NUM_SAMPLES), rng.lognormal(size=2 * NUM_SAMPLES)
    choices = [
        ("Student, 3 degrees of freedom", student, "moments", {}),
        ("Student, 3 degrees of freedom", student, "StudentT(3)", {"reference": dist.StudentT(3.0)}),
        ("Student, 3 degrees of freedom", student, "Cauchy(0, 1)", {"reference": dist.Cauchy(0.0, 1.0)}),
        ("log-normal", lognormal, "moments", {}),
        ("log-normal", lognormal, "moments, support=(0, None)", {"support": (0, None)}),
        ("log-normal", lognormal, "LogNormal(0, 1)", {"reference": dist.LogNormal(0.0, 1.0)}),
    ]
    print("| data | reference | held-out log-density, nats |\n|---|---|---|")
    for name, x, label, settings in choices:
        density = kp.KANTilted.fit(x[:NUM_SAMPLES], **settings).density
        held_out = density.log_prob(jnp.asarray(x[NUM_SAMPLES:], jnp.float32))
        print(f"| {name} | {label} | {float(held_out.mean()):.3f} |")


def two_modes(y):
    """Modes at -1.4 and 1.4, with masses 0.19 and 0.81."""
    z = numpyro.sample("z", dist.Normal(0.25, 0.7))
    numpyro.sample("y", dist.Normal(z**2, 0.2), obs=y)


@numpyro.handlers.reparam(config={"theta": LocScaleReparam(0)})
def eight_schools(y):
    """Non-centred."""
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, ERRORS), obs=y)


def samplers():
    """Where each sampler ends on two posteriors, and whether `diagnose` minds."""
    grid = jnp.linspace(-4, 4, 100_001)
    p = jnp.exp(dist.Normal(0.25, 0.7).log_prob(grid) + dist.Normal(grid**2, 0.2).log_prob(2.0))
    exact = float((p * (grid > 0)).sum() / p.sum())
    print(f"| sampler | mass on the right (exactly {exact:.2f}) | failed | mean of tau | smallest ESS a second |")
    print("|---|---|---|---|---|")
    for sampler in (NUTS(), HMC(), MALA(), EllipticalSlice(), ImportanceSampling(), TemperedSMC(), ParallelTempering()):
        settings = {"sampler": sampler, "progress_bar": False}
        modes = sample_posterior(jax.random.key(0), two_modes, 2.0, **settings)
        schools = sample_posterior(jax.random.key(1), eight_schools, EFFECTS, **settings)
        table = diagnose(schools).table
        mass = float((modes.samples["z"] > 0).mean())
        verdict = "; ".join(name for name, passed in diagnose(modes).checks.items() if not passed) or "nothing"
        print(
            f"| `{type(sampler).__name__}` | {mass:.2f} | {verdict} | {float(schools.samples['tau'].mean()):.1f} "
            f"| {float(table['ess_per_second'].min()):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    bases()
    references()
    samplers()
