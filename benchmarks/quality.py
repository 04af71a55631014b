"""What a learnt prior gains: KAEM by each strategy, a Gaussian prior and a VAE, one decoder and as many epochs for all.

Digits, and without `--quick` MNIST and CIFAR-10 from `KAEM_DATA_DIR`, at most 5,000 images to train on; a data set
without its files is left out. Two numbers for each model, on held-out data:
- log-evidence, by annealed importance sampling for every model, in nats for each image, and what it is above the VAE's,
  image by image;
- the Frechet distance of Gaussians fitted to features of generated means and of held-out images, extrapolated to
  infinitely many of them, the features being the last hidden layer of a small convolutional network that learnt the
  labels. The same distance of real training images is the floor.

Values are one for each seed of the training, whose models take turns.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import numpyro.distributions as dist
import optax
from measure import main, report
from sampling import draw_images
from tqdm import tqdm
from training_step import make_guide

import kaem_ppl as kp
from kaem_ppl.inference import (
    HMC,
    MALA,
    AdaptedLadder,
    AnnealedImportanceSampling,
    ImportanceMLE,
    LangevinMLE,
    PathwiseImportanceMLE,
    PowerLadder,
    ThermodynamicMLE,
    VariationalMLE,
    fit,
    log_evidence,
)
from kaem_ppl.models import (
    ConvEncoder,
    ConvGenerator,
    Encoder,
    GaussianModel,
    Generator,
    MLPEncoder,
    MLPGenerator,
    ProductKAEM,
    extrapolated_frechet_distance,
    load_dataset,
    to_unit_interval,
    train_classifier,
)

EVIDENCE, DISTANCE, SECONDS = "held-out log-evidence", "Frechet distance to held-out images", "training"
VAE = "VAE"
LARGEST_TRAINING_SET = 5_000


@dataclass(frozen=True)
class Problem:
    """A data set and all that is the same for every model of it.

    Attributes:
        data: its name.
        num_latents: Q.
        decoder: the generator.
        encoder: of the strategies that need one.
        scale: of the likelihood.
        image_shape: of a datum as the models see it.
        num_epochs: of training, by batches of 100.
        num_particles: draws of the importance strategies.
        num_evaluated: held-out images whose evidence is estimated.
        num_seeds: trainings of each model.
    """

    data: str
    num_latents: int
    decoder: Generator
    encoder: Encoder
    scale: float
    image_shape: tuple[int, ...]
    num_epochs: int
    num_particles: int
    num_evaluated: int
    num_seeds: int


def make_problems(quick):
    """The data sets and their settings."""
    digits = Problem(
        "DIGITS", 8, MLPGenerator((8, 128, 128, 64), output=jax.nn.sigmoid), MLPEncoder((64, 128, 128, 8)), 0.2, (64,),
        num_epochs=10 if quick else 60, num_particles=500, num_evaluated=32 if quick else 128,
        num_seeds=1 if quick else 7,
    )  # fmt: skip
    if quick:
        return [digits]
    mnist = Problem(
        "MNIST", 16, MLPGenerator((16, 400, 400, 784), output=jax.nn.sigmoid), MLPEncoder((784, 400, 400, 16)), 0.2,
        (784,), num_epochs=20, num_particles=1000, num_evaluated=64, num_seeds=1,
    )  # fmt: skip
    shape = (32, 32, 3)
    cifar = Problem(
        "CIFAR10", 81, ConvGenerator(81, shape), ConvEncoder(shape, 81), 0.3, shape, num_epochs=10, num_particles=100,
        num_evaluated=32, num_seeds=1,
    )  # fmt: skip
    return [digits, mnist, cifar]


def make_runs(problem, quick):
    """Model and strategy by name, the rival first."""
    gaussian = GaussianModel(problem.num_latents, problem.decoder, problem.scale)
    tilted = ProductKAEM(
        (problem.num_latents, 1), problem.decoder, kp.RBF(20), (-4.0, 4.0), dist.Normal(0.0, 1.0), problem.scale
    )
    importance = ImportanceMLE(problem.num_particles, ess_threshold=0)
    langevin = LangevinMLE(MALA(), 20)
    runs = {
        VAE: (gaussian, VariationalMLE(make_guide(problem.encoder, (problem.num_latents,)))),
        "Gaussian prior, importance": (gaussian, importance),
        "KAEM, importance": (tilted, importance),
    }
    if quick:
        return runs
    return runs | {
        "KAEM, Langevin": (tilted, langevin),
        "KAEM, variational": (tilted, VariationalMLE(make_guide(problem.encoder, (problem.num_latents, 1)))),
        "Gaussian prior, Langevin": (gaussian, langevin),
        "KAEM, thermodynamic": (tilted, ThermodynamicMLE(MALA(), AdaptedLadder(4), 10)),
        "KAEM, pathwise importance": (tilted, PathwiseImportanceMLE(problem.num_particles)),
    }


def load_images(problem):
    """Training and held-out images in [0, 1], each with labels."""
    parts = []
    for split in ("train", "test"):
        found = load_dataset(problem.data, split, progress_bar=False)
        found = found.take(slice(LARGEST_TRAINING_SET))
        parts.append((to_unit_interval(found.values), found.labels))
    return parts


def measure_problem(problem, quick):
    """Both numbers and the time of training, for every model."""
    (train, labels), (held_out, held_out_labels) = load_images(problem)
    classifier = train_classifier(0, train, labels)
    accuracy = float(np.mean(classifier.probabilities(held_out).argmax(-1) == held_out_labels))
    features = classifier.features
    real = features(held_out)
    x, x_held_out = (images.reshape(-1, *problem.image_shape) for images in (train, held_out))
    # No step size to adapt, and one gradient a step: both compile sooner.
    kernel = MALA(step_size=0.05) if quick else HMC(num_integration_steps=5)
    method = AnnealedImportanceSampling(8, kernel, PowerLadder(257 if quick else 129))
    weigh = partial(log_evidence, jax.random.key(1), method=method, plate="data", num_chains=4, progress_bar=False)
    runs = make_runs(problem, quick)
    found = {name: {"evidence": [], "distance": [], "seconds": [], "std_error": [], "trusted": []} for name in runs}
    turns = [(seed, name) for seed in range(problem.num_seeds) for name in runs]
    for seed, name in tqdm(turns, desc=problem.data, unit="training", disable=None, leave=False):
        (model, strategy), row, epochs = runs[name], found[name], []
        result = fit(
            jax.random.key(seed), model, x, strategy=strategy, optimizer=optax.adam(2e-3), batch_size=100,
            num_epochs=problem.num_epochs, progress_bar=False,
            callback=lambda *_, epochs=epochs: epochs.append(time.perf_counter()),
        )  # fmt: skip
        evidence = weigh(model, x_held_out[: problem.num_evaluated], params=result.params)
        # Not as one program: a prior whose parameters are known is tabulated by what has been compiled for its evidence.
        images = draw_images.__wrapped__(model, len(train), result.params, jax.random.key(1000 + seed))
        row["evidence"].append(evidence.value)
        row["std_error"].append(evidence.total()[1] / problem.num_evaluated)
        row["trusted"].append(float(np.mean(evidence.is_trustworthy)))
        row["distance"].append(extrapolated_frechet_distance(features(images.reshape(train.shape)), real).value)
        row["seconds"].append(np.median(np.diff(epochs)))
    floor = extrapolated_frechet_distance(features(train), real).value
    return _report(problem, found, accuracy, floor)


def _report(problem, found, accuracy, floor):
    lines = []
    for name, row in found.items():
        setting = {
            "data": problem.data, "latents": problem.num_latents, "epochs": problem.num_epochs, "rival": name,
        }  # fmt: skip
        evidence, rival = np.stack(row["evidence"]), np.stack(found[VAE]["evidence"])
        above = (evidence - rival).mean(0)
        lines.append(
            report(
                EVIDENCE, setting, evidence.mean(-1), "nats / image", relative_to=VAE, above_rival=float(above.mean()),
                above_rival_std_error=float(above.std(ddof=1) / np.sqrt(len(above))),
                std_error=float(np.mean(row["std_error"])), trusted=float(np.mean(row["trusted"])),
                images=problem.num_evaluated,
            )
        )  # fmt: skip
        for question, key, unit, more in (
            (DISTANCE, "distance", "squared features", {"of_training_images": floor, "classifier_accuracy": accuracy}),
            (SECONDS, "seconds", "seconds / epoch", {}),
        ):
            values, rivals = np.array(row[key]), np.array(found[VAE][key])
            lines.append(report(question, setting, values, unit, relative_to=VAE, ratios=values / rivals, **more))
    return lines


def measure(quick):
    """Every data set whose files are there."""
    lines = []
    for problem in make_problems(quick):
        try:
            lines += measure_problem(problem, quick)
        except FileNotFoundError as error:
            print(f"{problem.data} is left out: {error}", file=sys.stderr)
    return lines


def draw(lines):
    """One row for each data set: log-evidence above the VAE's, and the Frechet distance with its floor."""
    from matplotlib.figure import Figure
    from plots import PALETTE, plain_axis

    names = list(dict.fromkeys(line["setting"]["data"] for line in lines))
    figure = Figure(figsize=(10, 0.6 + 2.6 * len(names)), layout="constrained")
    for name, (left, right) in zip(names, figure.subplots(len(names), 2, squeeze=False), strict=True):
        evidence, distance = (
            [line for line in lines if line["question"] == question and line["setting"]["data"] == name]
            for question in (EVIDENCE, DISTANCE)
        )
        labels = [line["setting"]["rival"] for line in evidence]
        place = np.arange(len(labels))
        left.errorbar(
            [line["above_rival"] for line in evidence], place, fmt="o", color=PALETTE[1],
            xerr=[line["above_rival_std_error"] for line in evidence],
        )  # fmt: skip
        left.axvline(0, color="#7f7f7f", linewidth=0.8, linestyle="--")
        setting = evidence[0]["setting"]
        title = f"{name}: {setting['latents']} latents, {setting['epochs']} epochs"
        plain_axis(
            left, "nats for an image above the VAE, with standard error", title, xscale="linear", yscale="linear"
        )
        values = np.array([line["value"] for line in distance])
        low, high = np.array([line["quartiles"] for line in distance]).T
        right.errorbar(values, place, xerr=(values - low, high - values), fmt="o", color=PALETTE[2])
        floor = distance[0]["of_training_images"]
        right.axvline(floor, color="#7f7f7f", linewidth=0.8, linestyle="--", label="training images")
        accuracy = distance[0]["classifier_accuracy"]
        plain_axis(
            right, "Frechet distance to held-out images", f"{name}: classifier's accuracy {accuracy:.0%}",
            yscale="linear",
        )  # fmt: skip
        right.legend(frameon=False, fontsize=8)
        for panel, shown in ((left, labels), (right, [""] * len(labels))):
            panel.set_yticks(place, shown)
            panel.set_ylim(len(labels) - 0.5, -0.5)
    return figure


if __name__ == "__main__":
    main(measure, draw)
