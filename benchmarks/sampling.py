"""What drawing images costs: a KAEM by exact inverse transform beside a VAE, a latent EBM and NUTS, one decoder for all.

Deconvolutions 64-32-16 to 32 x 32 x 3 decode all latents. Everything from parameters to images counts: a KAEM's table
of masses is built anew in each call. Energies have coefficients of standard deviation 1, so that the densities are far
from their normal reference, as learnt ones are.

NUTS, left out by `--quick`, draws from the product prior one after another, after 200 steps of warm-up (BlackJAX);
Langevin is the latent EBM's own sampler, from a normal draw. Both approximate what the KAEM draws exactly.
"""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from measure import compare, initial_params, main, ratio, report
from numpyro import handlers

import kaem_ppl as kp
from kaem_ppl.models import (
    ConvGenerator,
    GaussianModel,
    LatentEBM,
    MixtureKAEM,
    MLPGenerator,
    ProductKAEM,
    sample_langevin_prior,
)

QUESTION = "drawing images"
NUM_COMPONENTS, SCALE, NUM_WARMUP = 40, 0.3, 200
PRIOR = {"basis": kp.RBF(20), "domain": (-3.0, 3.0), "reference": dist.Normal(0.0, 1.0), "scale": SCALE}
SHAPE, CHANNELS = (32, 32, 3), (64, 32, 16)
PRODUCT, MIXTURE = "KAEM, product", f"KAEM, mixture of {NUM_COMPONENTS}"
HEADLINE_BATCH, HEADLINE_LATENTS, BAR = 128, 81, 1.1
# Seconds for each draw grow without bound.
MOST_NUTS_DRAWS = 512


def make_models(num_latents, generator):
    """Models by name, with the same decoder."""
    return {
        "VAE": GaussianModel(num_latents, generator, SCALE),
        PRODUCT: ProductKAEM((num_latents, 1), generator, **PRIOR),
        MIXTURE: MixtureKAEM((num_latents, NUM_COMPONENTS), generator, **PRIOR),
        "latent EBM": LatentEBM(num_latents, MLPGenerator((num_latents, 200, 200, 1)), generator, SCALE),
    }


def learnt_like(params):
    """The same parameters, with energies as large as learnt ones."""
    if "prior$params" not in params:
        return params
    prior = params["prior$params"]
    return params | {"prior$params": prior | {"coef": jax.random.normal(jax.random.key(2), prior["coef"].shape)}}


@partial(jax.jit, static_argnums=(0, 1))
def draw_images(model, size, params, key):
    """Means of the images, by running the model."""
    with handlers.trace() as sites, handlers.seed(rng_seed=key), handlers.substitute(data=params):
        model(size=size)
    return sites["mean"]["value"]


@partial(jax.jit, static_argnums=0)
def decode(model, params, z):
    """Means of the images of given latents."""
    with handlers.substitute(data=params):
        return model.generator("generator")(z)


@partial(jax.jit, static_argnums=(0, 1, 2))
def draw_langevin(model, size, num_steps, params, key):
    """Means of the images whose latents are short-run Langevin chains."""
    return decode(model, params, sample_langevin_prior(key, model, params, num_draws=size, num_steps=num_steps))


@partial(jax.jit, static_argnums=(0, 1))
def draw_nuts(model, size, params, key):
    """Means of the images whose latents are the states of one NUTS chain on the prior of a product."""
    with handlers.trace() as sites, handlers.seed(rng_seed=key), handlers.substitute(data=params):
        model(size=1)
    prior = sites["z"]["fn"].base_dist
    prior = prior.base_dist if isinstance(prior, dist.ExpandedDistribution) else prior

    def log_density(z):
        # A chain needs no normaliser.
        return jnp.sum(prior.energy(z) + prior.reference.log_prob(z))

    warmup_key, key = jax.random.split(key)
    warmup = blackjax.window_adaptation(blackjax.nuts, log_density)
    (state, tuning), _ = warmup.run(warmup_key, jnp.zeros(prior.batch_shape), num_steps=NUM_WARMUP)
    step = blackjax.nuts(log_density, **tuning).step

    def move(state, key):
        state, _ = step(key, state)
        return state, state.position

    _, z = jax.lax.scan(move, state, jax.random.split(key, size))
    return decode(model, params, z.sum(-1))


def make_rivals(num_latents, batch, num_steps, layouts, with_nuts):
    """Calls by name, KAEMs in these layouts of their latents."""
    models = make_models(num_latents, ConvGenerator(num_latents, SHAPE, CHANNELS))
    key = jax.random.key(3)
    params = {name: learnt_like(initial_params(model, jnp.zeros((1, *SHAPE)))) for name, model in models.items()}
    rivals = {name: partial(draw_images, models[name], batch, params[name], key) for name in ("VAE", *layouts)} | {
        f"latent EBM, {steps} Langevin steps": partial(
            draw_langevin, models["latent EBM"], batch, steps, params["latent EBM"], key
        )
        for steps in num_steps
    }
    if with_nuts and batch <= MOST_NUTS_DRAWS:
        rivals["NUTS on the product prior"] = partial(draw_nuts, models[PRODUCT], batch, params[PRODUCT], key)
    return rivals


def measure(quick):
    """Seconds of all rivals over batches and latents; the headline setting with more repetitions."""
    batches = (128,) if quick else (1, 8, 32, 128, 512, 4096)
    settings = [(batch, HEADLINE_LATENTS) for batch in batches]
    settings += [(HEADLINE_BATCH, num_latents) for num_latents in (() if quick else (10, 30, 100))]
    num_steps, layouts = ((60,), (PRODUCT,)) if quick else ((10, 60), (PRODUCT, MIXTURE))
    lines = []
    for batch, num_latents in settings:
        is_headline = (batch, num_latents) == (HEADLINE_BATCH, HEADLINE_LATENTS)
        setting = {"batch": batch, "latents": num_latents, "generator": "deconvolutions 64-32-16"}
        rivals = make_rivals(num_latents, batch, num_steps, layouts, with_nuts=not quick)
        new, times = compare(QUESTION, setting, rivals, "VAE", 7 if quick or not is_headline else 41)
        lines += new
        if is_headline:
            lines += [
                report(
                    f"sampling: {name} / VAE", setting, ratio(times, name, "VAE"), "ratio", relative_to="VAE", at_most=BAR
                )
                for name in layouts
            ]  # fmt: skip
    return lines


def draw(lines):
    """Ratios to the VAE against batch and latents."""
    from matplotlib.figure import Figure
    from plots import PALETTE, ratio_axis

    lines = [line for line in lines if line["question"] == QUESTION]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(line["setting"]["rival"] for line in lines))
    panels = (
        (left, "batch", {"latents": HEADLINE_LATENTS}, f"{HEADLINE_LATENTS} latents"),
        (right, "latents", {"batch": HEADLINE_BATCH}, f"batch {HEADLINE_BATCH}"),
    )
    for panel, axis, fixed, title in panels:
        for colour, name in zip(PALETTE, names, strict=False):
            chosen = sorted(
                (line["setting"][axis], line["ratio"], *line["ratio_quartiles"])
                for line in lines
                if line["setting"]["rival"] == name and fixed.items() <= line["setting"].items()
            )
            x, y, low, high = np.array(chosen).reshape(-1, 4).T
            panel.errorbar(x, y, yerr=(y - low, high - y), marker="o", markersize=4, color=colour, label=name)
        ratio_axis(panel, axis if axis == "latents" else "images in a batch", title)
    left.set_ylabel("time / time of the VAE")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    main(measure, draw)
