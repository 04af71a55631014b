"""What one step of training costs: each strategy of a KAEM beside a VAE and a latent EBM, one decoder for all.

A step is a strategy's loss and gradient and an update by Adam. Three decoders: Kolmogorov-Arnold functions 8-17-64, as for
digits; a perceptron 16-400-400-784, as for MNIST; and deconvolutions 64-32-16 to 32 x 32 x 3, of which latents and batch
are varied too. Encoders mirror them. Importance draws as many latents as the batch has data. Chains take unadjusted
Langevin steps, the latent EBM's two chains, on the posterior and on the prior, as many each as the KAEM's one. Generator
gradients and an update, at given latents, are the floor of a Langevin step: that many derivatives of the likelihood, and
one of the parameters. The larger the decoder, the less the latent EBM's second chain and its energy weigh beside them.

The time of a thermodynamic step against the number of temperatures is fitted by a line; its slope is counted in
Langevin steps of training, of as many moves. With `--quick` there is the perceptron alone, and neither chains nor a ladder,
which take long to compile.
"""

from dataclasses import dataclass
from functools import cache, cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from measure import compare, initial_params, main, ratio, report
from numpyro import handlers
from sampling import CHANNELS, HEADLINE_BATCH, HEADLINE_LATENTS, MIXTURE, PRODUCT, SHAPE, learnt_like, make_models

from kaem_ppl.inference import (
    ULA,
    AdaptedLadder,
    ContrastiveMLE,
    ImportanceMLE,
    LangevinMLE,
    Strategy,
    ThermodynamicMLE,
    VariationalMLE,
)
from kaem_ppl.inference.model.training_model import read_training_model
from kaem_ppl.models import (
    AmortizedGuide,
    ConvEncoder,
    ConvGenerator,
    Encoder,
    Generator,
    KANGenerator,
    MLPEncoder,
    MLPGenerator,
    sample_langevin_prior,
)

STEP, LADDER = "a training step", "a thermodynamic training step"
KERNEL, OPTIMIZER = ULA(1e-3), optax.adam(1e-3)
FLOOR, UPDATE, LAYOUTS = "generator gradients", f"{PRODUCT}, an update", (PRODUCT, MIXTURE)


@dataclass(frozen=True)
class Decoder:
    """What all rivals share, and its mirror.

    Attributes:
        name: in settings and plots.
        num_latents: Q.
        shape: of a datum.
        generator: from latents to data.
        encoder: from data to latents.
    """

    name: str
    num_latents: int
    shape: tuple[int, ...]
    generator: Generator
    encoder: Encoder

    def make_data(self, batch):
        """Noise: times do not depend on the images."""
        return jax.random.uniform(jax.random.key(0), (batch, *self.shape))

    @cached_property
    def models(self):
        """Models by name."""
        return make_models(self.num_latents, self.generator)


DIGITS = Decoder(
    "functions 8-17-64", 8, (64,), KANGenerator((8, 17, 64), output=jax.nn.sigmoid), MLPEncoder((64, 17, 8))
)
MNIST = Decoder(
    "perceptron 16-400-400-784", 16, (784,), MLPGenerator((16, 400, 400, 784), output=jax.nn.sigmoid),
    MLPEncoder((784, 400, 400, 16)),
)  # fmt: skip


def deconvolutions(num_latents):
    """Of colour images."""
    return Decoder(
        "deconvolutions 64-32-16", num_latents, SHAPE, ConvGenerator(num_latents, SHAPE, CHANNELS),
        ConvEncoder(SHAPE, num_latents, CHANNELS[::-1]),
    )  # fmt: skip


@cache
def first_params(decoder, name):
    """Parameters that all steps of a model start from."""
    return learnt_like(initial_params(decoder.models[name], decoder.make_data(1)))


@dataclass(frozen=True)
class JointMLE:
    """An update at given latents of a product KAEM: what is left of a Langevin step without its chain."""

    num_latents: int

    def init(self, key, plate_model, params, data):
        """Return no state."""
        return ()

    def loss(self, key, plate_model, params, state, batch):
        """The negative log-joint; see `Strategy.loss`."""
        latents = {"z": jnp.zeros((len(batch), self.num_latents, 1))}
        log_likelihood, log_prior = plate_model.log_densities(params, batch, latents)
        return -(log_likelihood + log_prior).mean(), ({}, state)


def make_guide(encoder, shape):
    """A normal guide by an encoder, for latents of this shape."""
    return AmortizedGuide(encoder, shape, dist.constraints.real)


def make_contrastive(model, posterior):
    """Training of the latent EBM, with as many steps on the prior as on the posterior."""

    def sample_prior(key, params, num_draws):
        return sample_langevin_prior(key, model, params, num_draws=num_draws, num_steps=posterior.num_steps)

    return ContrastiveMLE(model.log_prior, sample_prior, posterior)


def make_step(decoder, name, strategy, x):
    """A compiled step of a model from its first parameters; its result is not kept, so that each call does the same."""
    guide, model, of_model = getattr(strategy, "guide", None), decoder.models[name], first_params(decoder, name)
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


def generator_gradients(decoder, x, num_steps):
    """`num_steps` gradients of the likelihood in the latents, one after another."""
    model, params = decoder.models["VAE"], first_params(decoder, "VAE")

    @jax.jit
    def run(params, z, x):
        def log_likelihood(z):
            with handlers.substitute(data=params):
                mean = model.generator("generator")(z)
            return -0.5 / model.scale**2 * jnp.sum(jnp.square(x - mean))

        def step(z, _):
            return z + KERNEL.step_size * jax.grad(log_likelihood)(z), None

        return jax.lax.scan(step, z, None, length=num_steps)[0]

    z = jax.random.normal(jax.random.key(2), (len(x), model.num_latents))
    return partial(run, params, z, x)


def make_rivals(decoder, batch, num_steps, layouts, with_update):
    """Calls by name, KAEMs in these layouts of their latents; chains where `num_steps` is not 0."""
    x, encoder = decoder.make_data(batch), decoder.encoder
    strategies: dict[str, tuple[str, Strategy]] = {
        "VAE": ("VAE", VariationalMLE(make_guide(encoder, (decoder.num_latents,))))
    }
    strategies |= {f"{layout}, importance": (layout, ImportanceMLE(batch)) for layout in layouts}
    if num_steps:
        langevin, chains, ebm = LangevinMLE(KERNEL, num_steps), f"{num_steps} Langevin steps", "latent EBM"
        strategies[f"{ebm}, {chains}"] = ebm, make_contrastive(decoder.models[ebm], langevin)
        strategies |= {f"{layout}, {chains}": (layout, langevin) for layout in layouts}
    if with_update:
        strategies[UPDATE] = PRODUCT, JointMLE(decoder.num_latents)
    if layouts == LAYOUTS:
        strategies[f"{PRODUCT}, variational"] = (PRODUCT, VariationalMLE(make_guide(encoder, (decoder.num_latents, 1))))
    rivals = {name: make_step(decoder, model, strategy, x) for name, (model, strategy) in strategies.items()}
    return rivals | ({f"{num_steps} {FLOOR}": generator_gradients(decoder, x, num_steps)} if num_steps else {})


def measure_strategies(decoder, batch, num_steps, layouts, repetitions, is_headline, with_update=False):
    """All rivals of one decoder and batch."""
    setting = {"generator": decoder.name, "latents": decoder.num_latents, "batch": batch}
    lines, times = compare(
        STEP, setting, make_rivals(decoder, batch, num_steps, layouts, with_update), "VAE", repetitions
    )
    if not is_headline:
        return lines
    chains = f"{num_steps} Langevin steps"
    if with_update:
        floor = times[f"{num_steps} {FLOOR}"] + times[UPDATE]
        lines.append(
            report(
                f"training, {decoder.name}: {PRODUCT}, {chains} / {num_steps} {FLOOR} and an update", setting,
                times[f"{PRODUCT}, {chains}"] / floor, "ratio", relative_to=f"{num_steps} {FLOOR} and an update",
                at_most=1.3,
            )
        )  # fmt: skip
    for layout in layouts:
        bars = [(f"{layout}, importance", "VAE", 1.1)]
        bars += [(f"{layout}, {chains}", f"latent EBM, {chains}", 0.8)] if num_steps else []
        for name, rival, at_most in bars:
            ratios = ratio(times, name, rival)
            lines.append(
                report(
                    f"training, {decoder.name}: {name} / {rival}", setting, ratios, "ratio", relative_to=rival,
                    at_most=at_most,
                )
            )  # fmt: skip
    return lines


def measure_ladder(decoder, batch, num_temperatures, num_steps):
    """Thermodynamic steps of a product KAEM over numbers of temperatures, and the line through them."""
    x = decoder.make_data(batch)
    setting = {
        "model": PRODUCT,
        "generator": decoder.name,
        "latents": decoder.num_latents,
        "batch": batch,
        "moves": num_steps,
    }
    langevin = f"{num_steps} Langevin steps"
    rivals = {langevin: make_step(decoder, PRODUCT, LangevinMLE(KERNEL, num_steps), x)}
    rivals |= {
        str(r): make_step(decoder, PRODUCT, ThermodynamicMLE(KERNEL, AdaptedLadder(r), num_steps), x)
        for r in num_temperatures
    }
    lines, times = compare(LADDER, setting, rivals, langevin, 15)
    temperatures = np.asarray(num_temperatures)
    seconds = np.stack([times[str(r)] for r in num_temperatures], axis=-1)
    slopes = np.array([np.polyfit(temperatures, row, 1)[0] for row in seconds])
    medians = np.median(seconds, axis=0)
    # One minus the fraction of the variance that the line leaves over.
    r_squared = np.corrcoef(temperatures, medians)[0, 1] ** 2
    lines += [
        report(
            f"training: a thermodynamic step of {r} temperatures / {r} Langevin steps", setting,
            times[str(r)] / (r * times[langevin]), "ratio", relative_to=f"{langevin} x {r}", at_most=1.1,
        )
        for r in num_temperatures
    ]  # fmt: skip
    setting = setting | {"temperatures": list(num_temperatures)}
    return [
        *lines,
        report(
            "training: a thermodynamic step's slope in temperatures / a Langevin step", setting,
            slopes / times[langevin], "ratio", relative_to=langevin, at_most=1.1,
        ),
        report("training: R^2 of a thermodynamic step's time in temperatures", setting, r_squared, "R^2", at_least=0.99),
    ]  # fmt: skip


def measure(quick):
    """Strategies over decoders, latents and batches, then the ladder."""
    if quick:
        return measure_strategies(MNIST, HEADLINE_BATCH, 0, (PRODUCT,), 31, True)
    headline = deconvolutions(HEADLINE_LATENTS)
    lines = measure_strategies(headline, HEADLINE_BATCH, 20, LAYOUTS, 31, True, with_update=True)
    for decoder in (DIGITS, MNIST):
        lines += measure_strategies(decoder, HEADLINE_BATCH, 20, (PRODUCT,), 31, True, with_update=True)
    for num_latents, batch in ((10, 128), (30, 128), (100, 128), (81, 32), (81, 512)):
        lines += measure_strategies(deconvolutions(num_latents), batch, 20, (PRODUCT,), 7, False)
    return lines + measure_ladder(headline, HEADLINE_BATCH, (2, 4, 8, 12, 16, 20), 5)


def draw(lines):
    """Ratios to the VAE against batch and latents; seconds of a thermodynamic step against temperatures."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    ladder = [line for line in lines if line["question"] == LADDER]
    figure = Figure(figsize=(12 if ladder else 7, 6 if ladder else 4), layout="constrained")
    left, *right = figure.subplots(1, 2 if ladder else 1, width_ratios=(3, 2) if ladder else None, squeeze=False)[0]
    steps = [line for line in lines if line["question"] == STEP]
    names = list(dict.fromkeys(line["setting"]["rival"] for line in steps))
    settings = list(dict.fromkeys(_place(line) for line in steps))
    # Settings of one rival are shifted, so that they do not overlap.
    shifts = np.linspace(-0.3, 0.3, len(settings)) if len(settings) > 1 else np.zeros(1)
    for colour, place, shift in zip(PALETTE, settings, shifts, strict=False):
        chosen = {
            line["setting"]["rival"]: (line["ratio"], *line["ratio_quartiles"])
            for line in steps
            if _place(line) == place
        }
        middle, low, high = np.array(list(chosen.values())).T
        left.errorbar(
            middle, [names.index(name) + shift for name in chosen], xerr=(middle - low, high - middle), fmt="o",
            markersize=5, color=colour, label=place,
        )  # fmt: skip
    plain_axis(left, "time / time of a VAE's step", STEP, yscale="linear")
    left.set_yticks(np.arange(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.axvline(1, color="#7f7f7f", linewidth=0.8, linestyle="--")
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3 if ladder else 1,
        frameon=False,
        fontsize=8,
    )
    for panel in right:
        _draw_ladder(panel, *ladder)
    return figure


def _draw_ladder(panel, langevin, *ladder):
    """Milliseconds against temperatures, and the line."""
    from plots import PALETTE, plain_axis

    x = np.array([int(line["setting"]["rival"]) for line in ladder])
    y = 1e3 * np.array([line["value"] for line in ladder])
    low, high = 1e3 * np.array([line["quartiles"] for line in ladder]).T
    slope, start = np.polyfit(x, y, 1)
    panel.errorbar(x, y, yerr=(y - low, high - y), fmt="o", color=PALETTE[0], label="measured, with quartiles")
    panel.plot(x, start + slope * x, color=PALETTE[1], label=f"line, {slope:.3g} ms a temperature")
    panel.plot(
        x, 1e3 * langevin["value"] * x, color=PALETTE[2], linestyle="--", label="a Langevin training step each"
    )  # fmt: skip
    setting = langevin["setting"]
    title = f"{LADDER}\n{setting['model']}, {setting['moves']} moves\n{_place(langevin)}"
    plain_axis(panel, "temperatures", title, xscale="linear", yscale="linear")
    panel.set_ylabel("milliseconds")
    panel.legend(frameon=False, fontsize=8, loc="upper left")


def _place(line):
    setting = line["setting"]
    return f"{setting['generator']}, {setting['latents']} latents, batch {setting['batch']}"


if __name__ == "__main__":
    main(measure, draw)
