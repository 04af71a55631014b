"""What settings of `kaem train` make of a data set: held-out evidence, distances of images, and seconds.

Each case is a mode and flags, as one writes them on the command line. Evidence is by annealed importance sampling, for
models that have one and up to 500 latents; distances are of as many generated means as there are held-out images, in
the features of a classifier that learnt the labels. Run as `python benchmarks/presets.py MNIST [--only NAME ...]
[--seeds N ...] [--out FILE]`; appends JSON lines, and prints them. `presets.md` beside this file has what was found.
"""

import argparse
import json
import shlex
import time
from pathlib import Path

import jax
import numpy as np

from kaem_ppl.cli.building.data import load_data
from kaem_ppl.cli.building.draws import generate
from kaem_ppl.cli.building.model import build_model, build_optimizer, build_strategy
from kaem_ppl.cli.parser import given_flags, parse_arguments
from kaem_ppl.cli.settings.config import resolve
from kaem_ppl.inference import HMC, AnnealedImportanceSampling, PowerLadder, fit, log_evidence
from kaem_ppl.models import (
    extrapolated_frechet_distance,
    kernel_distance,
    precision_recall,
    train_classifier,
)

# Of thousands of latents the estimate takes longer than the training.
NUM_EVALUATED, LARGEST_LATENT = 32, 500
METHOD = AnnealedImportanceSampling(4, HMC(num_integration_steps=5), PowerLadder(65))
SMALL = "--preset paper --num-latents 16 --num-components 1 --domain -4,4 --reference normal --generator mlp"
MNIST = f"{SMALL} --hidden 400,400 --encoder-hidden 400,400 --num-epochs 30"
MALA = "--kernel mala --persistent true --num-steps 20 --step-size 0.05"
HMC_4 = "--kernel hmc --persistent true --num-steps 4 --step-size 0.05"
AVERAGE = "--average 0.998 --schedule cosine --learning-rate 2e-3"
BETTER = f"--learn-scale one {AVERAGE}"
CONV = f"{SMALL} --generator conv --hidden 64,32,16 --encoder-hidden 16,32,64"
CASES = {
    "MNIST": {
        "paper": "importance --preset paper",
        "best": "langevin",
        "VAE": f"variational --kind vae {MNIST}",
        "KAEM, variational": f"variational {MNIST}",
        "KAEM, MALA": f"langevin {MNIST} {MALA}",
        "VAE, better": f"variational --kind vae {MNIST} {BETTER}",
        "KAEM, HMC, better": f"langevin {MNIST} {HMC_4} {BETTER} --num-epochs 15",
        "KAEM, HMC, average": f"langevin {MNIST} {HMC_4} {AVERAGE} --num-epochs 15",
        "VAE, conv": f"variational --kind vae {CONV} {AVERAGE} --num-epochs 40",
        "VAE, better, 8 latents": f"variational --kind vae {MNIST} {BETTER} --num-latents 8",
        "KAEM, variational, better, 8 latents": f"variational {MNIST} {BETTER} --num-latents 8",
        "KAEM, MALA, better, 8 latents": f"langevin {MNIST} {MALA} {BETTER} --num-latents 8 --num-epochs 20",
        "diffusion": "variational --preset paper --kind diffusion --generator mlp --hidden 400,400 --num-epochs 60",
    },
}


def measure(dataset, name, words, seed, data):
    """Train one case and judge it."""
    train, held_out, classifier = data
    options = parse_arguments(["train", *shlex.split(words), "--dataset", dataset])
    config = resolve(dataset, options.mode, None, given_flags(options), str(seed), options.preset)
    model = build_model(config, train)
    started, times = time.perf_counter(), []
    result = fit(
        jax.random.key(seed), model, {"x": train.values}, strategy=build_strategy(config, model, train),
        optimizer=build_optimizer(config, len(train)), num_epochs=config.training.num_epochs,
        batch_size=config.training.batch_size, average=config.training.average, progress_bar=False,
        callback=lambda *_: times.append(time.perf_counter()),
    )  # fmt: skip
    seconds = time.perf_counter() - started
    number = len(held_out)
    draw = jax.jit(lambda key: generate(key, model, result.params, number))
    images = np.asarray(draw(jax.random.key(1000 + seed))).reshape(held_out.values.shape)
    begun = time.perf_counter()
    jax.block_until_ready(draw(jax.random.key(0)))
    per_sample = (time.perf_counter() - begun) / number
    real, drawn = (classifier.features(x) for x in (held_out.values, np.clip(images, 0, 1)))
    frechet, kernel = extrapolated_frechet_distance(drawn, real), kernel_distance(drawn, real)
    near = precision_recall(real, drawn)
    probabilities = classifier.probabilities(images)
    shares = np.bincount(probabilities.argmax(-1), minlength=classifier.num_classes) / number
    line = {
        "data": dataset, "case": name, "seed": seed, "words": words, "epochs": config.training.num_epochs,
        "parameters": sum(int(np.size(x)) for x in jax.tree.leaves((result.params, result.guide_params))),
        "seconds": seconds, "seconds_of_an_epoch": float(np.median(np.diff(times))), "seconds_of_a_sample": per_sample,
        "frechet": frechet.value, "frechet_std_error": frechet.std_error, "kernel": kernel.value,
        "kernel_std_error": kernel.std_error, "precision": near.precision.value, "recall": near.recall.value,
        "sure": float((probabilities.max(-1) > 0.9).mean()), "rarest": float(shares.min()),
        "loss": float(result.history["loss"][-1]),
    }  # fmt: skip
    size = config.model.num_latents * (config.model.num_components if config.model.layout == "product" else 1)
    if config.model.kind in ("kaem", "vae") and size <= LARGEST_LATENT:
        found = log_evidence(
            jax.random.key(1), model, x=held_out.values[:NUM_EVALUATED], params=result.params, method=METHOD,
            plate="data", num_chains=1, progress_bar=False,
        )  # fmt: skip
        total, error = found.total()
        line |= {"evidence": total / NUM_EVALUATED, "evidence_std_error": error / NUM_EVALUATED}
    return line, images


def load(dataset):
    """Training and held-out data, and a classifier."""
    config = resolve(dataset, "importance", None, {})
    train, held_out = (load_data(config, split, False) for split in ("train", "test"))
    return train, held_out, train_classifier(0, train.values, train.labels)


def main():
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=tuple(CASES))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=Path, help="folder for arrays of generated images")
    options = parser.parse_args()
    data = load(options.dataset)
    for seed in options.seeds:
        for name, words in CASES[options.dataset].items():
            if options.only and name not in options.only:
                continue
            line, images = measure(options.dataset, name, words, seed, data)
            print(json.dumps(line), flush=True)
            if options.out is not None:
                with options.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            if options.images is not None:
                options.images.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(options.images / f"{options.dataset}-{name}-{seed}.npz", samples=images[:64])


if __name__ == "__main__":
    main()
