"""The demo: train a KAEM on handwritten digits and save results: `python -m kaem_ppl.cli.demo`."""

import argparse
import csv
import gc
import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
import optax
from numpyro import handlers
from numpyro.infer import Predictive

from .. import RBF, kan_prior
from ..inference import ImportanceMLE, ImportanceSampling, LogEvidence, fit, log_evidence
from ..models import Dataset, Digits, MLPGenerator, ProductKAEM, split_digits
from ..models.data.digits import IMAGE_SHAPE
from ..plots import plot_images, plot_prior
from ..saving import save_params

NUM_LATENTS = 8
# Prior draws for the log-evidence of each held-out image.
NUM_EVIDENCE_DRAWS = 200_000
NUM_SAMPLES = 1000
BATCH_SIZE = 100
# What the demo leaves behind.
PARAMETERS, _NOTES = "parameters.npz", "demo.json"
PRIOR = {"basis": RBF(20), "domain": (-3.0, 3.0), "reference": dist.Normal(0, 1)}


def digits_model() -> ProductKAEM:
    """Eight independent latents, a decoder 8-256-256-64, and Gaussian noise of 0.2 on grey levels in [0, 1]."""
    generator = MLPGenerator((NUM_LATENTS, 256, 256, 64), activation=jax.nn.gelu, output=jax.nn.sigmoid)
    return ProductKAEM((NUM_LATENTS, 1), generator, scale=0.2, **PRIOR)


def is_demo(folder: Path) -> bool:
    """Whether a folder is one that the demo left."""
    return (folder / _NOTES).is_file() and (folder / PARAMETERS).is_file()


def held_out_digits(split: str) -> Dataset:
    """The digits of a split, `train` or `test`, as the demo's model observes them, shape (num_data, 64)."""
    train, test = split_digits()
    return Dataset(np.asarray((train if split == "train" else test).images))


def run(out: Path, num_epochs: int, num_particles: int, seed: int) -> None:
    """Train, evaluate and sample; write the results into `out`.

    Args:
        out: folder, created if it is missing.
        num_epochs: passes through the 1,500 training images.
        num_particles: prior draws of each step.
        seed: random seed; the split of the data is always the same.
    """
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = split_digits()
    model = digits_model()
    fit_key, evidence_key, sample_key = jax.random.split(jax.random.key(seed), 3)

    num_steps = num_epochs * -(-len(train.images) // BATCH_SIZE)
    params, history, *_ = fit(
        fit_key,
        model,
        train.images,
        # Plain weights have less variance than resampled ones, and cost less.
        strategy=ImportanceMLE(num_particles=num_particles, ess_threshold=0),
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, num_steps)),
        num_epochs=num_epochs,
        batch_size=BATCH_SIZE,
    )
    save_params(out / PARAMETERS, params)
    history.write_csv(out / "history.csv")
    notes = {"version": metadata.version("kaem-ppl"), "epochs": num_epochs, "particles": num_particles, "seed": seed}
    (out / _NOTES).write_text(json.dumps(notes) + "\n", encoding="utf-8")

    evidence = log_evidence(
        evidence_key, model, held_out.images, params=params, method=ImportanceSampling(NUM_EVIDENCE_DRAWS), plate="data",
        num_chains=1, progress_bar=False,
    )  # fmt: skip
    write_posterior_check(out / "posterior_check.csv", held_out, evidence)
    # One program: operations one by one would take a second to compile.
    generate = jax.jit(lambda key: Predictive(model, params=params, num_samples=1)(key, size=NUM_SAMPLES)["mean"][0])
    samples = np.asarray(generate(sample_key))
    plot_images(samples.reshape(-1, *IMAGE_SHAPE), held_out.images.reshape(-1, *IMAGE_SHAPE)).savefig(
        out / "samples.png", dpi=150
    )
    with handlers.substitute(data=params):
        prior = kan_prior("prior", (NUM_LATENTS, 1), **PRIOR)
    plot_prior(prior).savefig(out / "prior.png", dpi=150)

    # Over images: their evidences differ far more than each estimate errs.
    standard_error = evidence.value.std(ddof=1) / np.sqrt(len(evidence.value))
    effective = np.median(evidence.summary["effective_sample_size"])
    confident, rarest = score_samples(train, samples)
    print(f"held-out log-evidence: {evidence.value.mean():.2f} +- {standard_error:.2f} nats per image")
    print(f"effective sample size, median over images: {effective:.0f} of {NUM_EVIDENCE_DRAWS:,} draws")
    print(f"samples an SVM is over 90 % sure of: {confident:.1%}; share of the rarest digit: {rarest:.1%}")
    print(f"{time.perf_counter() - start:.0f} s; results in {out}/")


def write_posterior_check(path: Path, held_out: Digits, evidence: LogEvidence) -> None:
    """One line per held-out image: its digit, log-evidence in nats, standard error, and effective sample size."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "digit", "log_evidence", "std_error", "effective_sample_size"])
        columns = (evidence.value, evidence.std_error, evidence.summary["effective_sample_size"])
        writer.writerows(zip(range(len(held_out.labels)), held_out.labels, *columns, strict=True))


def score_samples(train: Digits, samples: np.ndarray) -> tuple[float, float]:
    """How recognisable and how varied generated digits are, by a support vector machine.

    Args:
        train: training data of the classifier.
        samples: generated images, shape (num_samples, 64).

    Returns:
        The share of samples that it gives a probability over 0.9, and the share of the digit it sees least often.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    # Probabilities by Platt scaling on cross-validated decision values.
    settings: dict[str, Any] = {"C": 10, "gamma": 0.2}
    platt: dict[str, Any] = {"ensemble": False}
    classifier = CalibratedClassifierCV(SVC(**settings), **platt).fit(train.images, train.labels)
    probabilities = classifier.predict_proba(samples)
    shares = np.bincount(probabilities.argmax(axis=1), minlength=10) / len(samples)
    return float((probabilities.max(axis=1) > 0.9).mean()), float(shares.min())


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m kaem_ppl.cli.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder for the results")
    parser.add_argument("--epochs", type=int, default=200, help="passes through the training images")
    parser.add_argument("--particles", type=int, default=2000, help="prior draws of each step")
    parser.add_argument("--seed", type=int, default=0, help="random seed; the split of the data stays")
    options = parser.parse_args(arguments)
    run(options.out, options.epochs, options.particles, options.seed)


if __name__ == "__main__":
    # Tracing allocates millions of live objects: garbage collection takes a sixth of the time outside training.
    gc.disable()
    main()
