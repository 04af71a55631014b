"""What one step of training costs: each strategy of a KAEM beside a VAE and a latent EBM, one decoder for all.

A step is a strategy's loss and gradient and an update by Adam. Deconvolutions 64-32-16 to 32 x 32 x 3 decode; encoders
mirror them. Importance draws as many latents as the batch has data. Chains take unadjusted Langevin steps, the latent
EBM's two chains, on the posterior and on the prior, as many each as the KAEM's one. Generator gradients are the floor
of a Langevin step: that many derivatives of the likelihood, unrolled, and nothing else.

The time of a thermodynamic step against the number of temperatures is fitted by a line; its slope is counted in
Langevin steps of training, of as many moves. With `--quick` it is that of the VAE's Gaussian prior, which compiles
sooner, and only the product layout is measured.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from measure import compare, initial_params, main, ratio, report
from numpyro import handlers
from sampling import CHANNELS, MIXTURE, PRODUCT, SHAPE, learnt_like, make_models

from kaem_ppl.inference import (
    ULA,
    AdaptedLadder,
    ImportanceMLE,
    LangevinMLE,
    Strategy,
    ThermodynamicMLE,
    VariationalMLE,
)
from kaem_ppl.inference.training_model import read_training_model
from kaem_ppl.models import ConvEncoder, LatentEBM, sample_langevin_prior

STEP, LADDER = "a training step", "a thermodynamic training step"
KERNEL, OPTIMIZER = ULA(1e-3), optax.adam(1e-3)
HEADLINE_LATENTS, HEADLINE_BATCH = 81, 128
FLOOR, LAYOUTS = "generator gradients", (PRODUCT, MIXTURE)


@dataclass(frozen=True)
class ContrastiveMLE:
    """Chains on the posterior and as long ones on the prior (Pang et al. 2020, arXiv 2006.08205, eq. 6 and 7)."""

    model: LatentEBM
    posterior: LangevinMLE

    def init(self, key, plate_model, params, data):
        """Put a chain on each datum's posterior."""
        return self.posterior.init(key, plate_model, params, data)

    def loss(self, key, plate_model, params, state, batch):
        """The contrast of posterior and prior; see `Strategy.loss`."""
        posterior_key, prior_key = jax.random.split(key)
        loss, (metrics, state) = self.posterior.loss(posterior_key, plate_model, params, state, batch)
        z = sample_langevin_prior(
            prior_key, self.model, jax.lax.stop_gradient(params), num_draws=len(batch),
            num_steps=self.posterior.num_steps,
        )  # fmt: skip
        return loss + self.model.log_prior(params, jax.lax.stop_gradient(z)).mean(), (metrics, state)


def make_guide(encoder, num_summands):
    """A guide by an encoder, for latents of shape (Q, P) where `num_summands` is P, of (Q,) where it is None."""

    def guide(x):
        loc, scale = encoder("encoder")(x)
        if num_summands is not None:
            loc, scale = (jnp.broadcast_to(v[..., None], (*v.shape, num_summands)) for v in (loc, scale))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(loc.ndim - 1))

    return guide


def make_step(model, strategy, x):
    """A compiled step from parameters as initialised; its result is not kept, so that each call does the same."""
    guide = getattr(strategy, "guide", None)
    of_model = learnt_like(initial_params(model, x[:1]))
    params = of_model | ({} if guide is None else initial_params(guide, x[:1]))
    plate_model = read_training_model(jax.random.key(1), model, x, "data", of_model)
    state = strategy.init(jax.random.key(2), plate_model, params, x)

    @jax.jit
    def step(params, optimizer_state, state, key, x):
        def loss(params):
            return strategy.loss(key, plate_model, params, state, x)

        (value, (_, new_state)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, optimizer_state = OPTIMIZER.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state, new_state, value

    return partial(step, params, OPTIMIZER.init(params), state, jax.random.key(3), x)


def generator_gradients(model, x, num_steps):
    """`num_steps` gradients of the likelihood in the latents, one after another, unrolled in one program."""
    params = initial_params(model, x[:1])

    @jax.jit
    def run(params, z, x):
        def log_likelihood(z):
            with handlers.substitute(data=params):
                mean = model.generator("generator")(z)
            return -0.5 / model.scale**2 * jnp.sum(jnp.square(x - mean))

        for _ in range(num_steps):
            z = z + KERNEL.step_size * jax.grad(log_likelihood)(z)
        return z

    z = jax.random.normal(jax.random.key(2), (len(x), model.num_latents))
    return partial(run, params, z, x)


def make_images(batch):
    """Noise: nothing here depends on what the images show."""
    return jax.random.uniform(jax.random.key(0), (batch, *SHAPE))


def make_rivals(num_latents, batch, num_steps, layouts):
    """Calls by name, KAEMs in these layouts of their latents."""
    models, x = make_models(num_latents), make_images(batch)
    encoder, langevin = ConvEncoder(SHAPE, num_latents, CHANNELS[::-1]), LangevinMLE(KERNEL, num_steps)
    chains, ebm = f"{num_steps} Langevin steps", models["latent EBM"]
    strategies: dict[str, tuple[Any, Strategy]] = {
        "VAE": (models["VAE"], VariationalMLE(make_guide(encoder, None))),
        f"latent EBM, {chains}": (ebm, ContrastiveMLE(ebm, langevin)),
    }
    for layout in layouts:
        strategies |= {
            f"{layout}, importance": (models[layout], ImportanceMLE(batch)),
            f"{layout}, {chains}": (models[layout], langevin),
        }
    if layouts == LAYOUTS:
        strategies[f"{PRODUCT}, variational"] = (models[PRODUCT], VariationalMLE(make_guide(encoder, 1)))
    rivals = {name: make_step(model, strategy, x) for name, (model, strategy) in strategies.items()}
    return rivals | {f"{num_steps} {FLOOR}": generator_gradients(models["VAE"], x, num_steps)}


def measure_strategies(settings, num_steps, layouts):
    """All rivals over latents and batches."""
    lines = []
    for num_latents, batch in settings:
        setting = {"latents": num_latents, "batch": batch, "generator": "deconvolutions 64-32-16"}
        is_headline = (num_latents, batch) == (HEADLINE_LATENTS, HEADLINE_BATCH)
        rivals = make_rivals(num_latents, batch, num_steps, layouts)
        new, times = compare(STEP, setting, rivals, "VAE", 15 if is_headline else 7)
        lines += new
        if not is_headline:
            continue
        chains = f"{num_steps} Langevin steps"
        for layout in layouts:
            for name, rival, at_most in (
                (f"{layout}, importance", "VAE", 1.1), (f"{layout}, {chains}", f"latent EBM, {chains}", 0.8),
            ):  # fmt: skip
                ratios = ratio(times, name, rival)
                lines.append(
                    report(f"training: {name} / {rival}", setting, ratios, "ratio", relative_to=rival, at_most=at_most)
                )
    return lines


def measure_ladder(name, num_latents, batch, num_temperatures, num_steps):
    """Thermodynamic steps of a model over numbers of temperatures, and the line through them."""
    model, x = make_models(num_latents)[name], make_images(batch)
    setting = {"model": name, "latents": num_latents, "batch": batch, "moves": num_steps}
    langevin = f"{num_steps} Langevin steps"
    rivals = {langevin: make_step(model, LangevinMLE(KERNEL, num_steps), x)}
    rivals |= {
        str(r): make_step(model, ThermodynamicMLE(KERNEL, AdaptedLadder(r), num_steps), x) for r in num_temperatures
    }
    lines, times = compare(LADDER, setting, rivals, langevin, 7)
    temperatures = np.asarray(num_temperatures)
    seconds = np.stack([times[str(r)] for r in num_temperatures], axis=-1)
    slopes = np.array([np.polyfit(temperatures, row, 1)[0] for row in seconds])
    medians = np.median(seconds, axis=0)
    # One minus the fraction of the variance that the line leaves over.
    r_squared = np.corrcoef(temperatures, medians)[0, 1] ** 2
    setting |= {"temperatures": list(num_temperatures)}
    return [
        *lines,
        report(
            "training: a thermodynamic step's slope in temperatures / a Langevin step", setting,
            slopes / times[langevin], "ratio", relative_to=langevin, at_most=1.1,
        ),
        report("training: R^2 of a thermodynamic step's time in temperatures", setting, r_squared, "R^2", at_least=0.99),
    ]  # fmt: skip


def measure(quick):
    """Strategies over latents and batches, then the ladder."""
    headline = (HEADLINE_LATENTS, HEADLINE_BATCH)
    if quick:
        return measure_strategies([headline], 2, (PRODUCT,)) + measure_ladder(
            "VAE", HEADLINE_LATENTS, 32, (2, 6, 10), 2
        )
    settings = [headline, (10, 128), (30, 128), (100, 128), (81, 32), (81, 512)]
    return measure_strategies(settings, 20, LAYOUTS) + measure_ladder(
        PRODUCT, HEADLINE_LATENTS, 128, (2, 4, 8, 12, 16, 20), 5
    )


def draw(lines):
    """Ratios to the VAE against batch and latents; seconds of a thermodynamic step against temperatures."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    steps = [line for line in lines if line["question"] == STEP]
    names = list(dict.fromkeys(line["setting"]["rival"] for line in steps))
    settings = sorted({(line["setting"]["latents"], line["setting"]["batch"]) for line in steps})
    for colour, place in zip(PALETTE, settings, strict=False):
        chosen = {
            line["setting"]["rival"]: (line["ratio"], *line["ratio_quartiles"])
            for line in steps
            if (line["setting"]["latents"], line["setting"]["batch"]) == place
        }
        middle, low, high = np.array([chosen[name] for name in names]).T
        left.errorbar(
            middle, np.arange(len(names)), xerr=(middle - low, high - middle), fmt="o", markersize=5, color=colour,
            label=f"{place[0]} latents, batch {place[1]}",
        )  # fmt: skip
    plain_axis(left, "time / time of a VAE's step", STEP, yscale="linear")
    left.set_yticks(np.arange(len(names)), names)
    left.invert_yaxis()
    left.axvline(1, color="#7f7f7f", linewidth=0.8, linestyle="--")
    left.legend(frameon=False, fontsize=8)

    ladder = [line for line in lines if line["question"] == LADDER]
    langevin, *ladder = ladder
    x = np.array([int(line["setting"]["rival"]) for line in ladder])
    y = 1e3 * np.array([line["value"] for line in ladder])
    low, high = 1e3 * np.array([line["quartiles"] for line in ladder]).T
    slope, start = np.polyfit(x, y, 1)
    right.errorbar(x, y, yerr=(y - low, high - y), fmt="o", color=PALETTE[0], label="measured, with quartiles")
    right.plot(x, start + slope * x, color=PALETTE[1], label=f"line, {slope:.3g} ms a temperature")
    right.plot(
        x, 1e3 * langevin["value"] * x, color=PALETTE[2], linestyle="--", label="a Langevin training step each"
    )  # fmt: skip
    place = langevin["setting"]
    title = f"{LADDER}\n{place['model']}, {place['latents']} latents, batch {place['batch']}, {place['moves']} moves"
    plain_axis(right, "temperatures", title, xscale="linear", yscale="linear")
    right.set_ylabel("milliseconds")
    right.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


if __name__ == "__main__":
    main(measure, draw)
