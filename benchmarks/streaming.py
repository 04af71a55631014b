"""Training on images that stay in a file: the memory it takes, and its speed beside training on the same images in memory.

100,000 images of 64 x 64 x 3 bytes, 1.2 GB, in a file that exists for the measurement. The model is a small one, a dense
generator 8-64-12288 and 100 shared draws for a batch of 100: a larger one hides more of the reading. Memory is the
highest of a process of its own, that of the same run on 1,000 images taken off; times are of 25 steps, from runs in turn.
"""

import contextlib
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from measure import main, report

from kaem_ppl.inference import ImportanceMLE, fit
from kaem_ppl.models import MLPGenerator, to_unit_interval
from kaem_ppl.plot_style import MAIN

SHAPE, BATCH, NUM_LATENTS, NUM_PARTICLES, NUM_FEW = (64, 64, 3), 100, 8, 100, 1000
STEPS_TIMED, NUM_TIMES, ROUNDS = 25, 6, 3
MEMORY, SPEED = "memory that streaming takes", "speed of streaming"
AT_MOST_MB, AT_LEAST = 300, 0.8


def model(x):
    """Normal latents, a dense generator, Gaussian noise."""
    decode = MLPGenerator((NUM_LATENTS, 64, int(np.prod(SHAPE))), output=jax.nn.sigmoid)("generator")
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([NUM_LATENTS]).to_event(1))
        levels = to_unit_interval(x).reshape(len(x), -1)
        numpyro.sample("x", dist.Normal(decode(z), 0.3).to_event(1), obs=levels)


def write_images(path, num_images):
    """Images of random bytes, written without holding them all."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (num_images, *SHAPE)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(num_images // NUM_FEW):
            file.write(rng.integers(0, 256, (NUM_FEW, *SHAPE), dtype=np.uint8).tobytes())


class Enough(Exception):  # noqa: N818 - no error
    """What is wanted has been measured."""


def train(images, num_times=None):
    """Seconds of every `STEPS_TIMED` steps of an epoch, or of the first so many, without those that compile."""
    times = []

    def record(state, row):
        times.append(time.perf_counter())
        if len(times) == num_times:
            raise Enough

    with contextlib.suppress(Enough):
        fit(
            jax.random.key(0), model, images, strategy=ImportanceMLE(NUM_PARTICLES, ess_threshold=0), num_epochs=1,
            batch_size=BATCH, callback=record, callback_every=STEPS_TIMED, progress_bar=False,
        )  # fmt: skip
    return np.diff(times)


def peak_memory(path):
    """Bytes that a process held at most, after one epoch from a file."""
    train(np.load(path, mmap_mode="r"))
    if sys.platform == "linux":
        # `ru_maxrss` would have what the parent held when this process was started.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(status["VmHWM"].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def seconds_in_turn(path):
    """Seconds of `STEPS_TIMED` steps, from memory and from the file."""
    mapped = np.load(path, mmap_mode="r")
    images = np.array(mapped)
    rounds = [(train(images, NUM_TIMES), train(mapped, NUM_TIMES)) for _ in range(ROUNDS)]
    return tuple(np.concatenate(times) for times in zip(*rounds, strict=True))


def in_new_process(function, argument):
    """The function's result, from a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (argument,))


def measure(quick):
    """Lines of memory and of speed."""
    num_images = 20 * NUM_FEW if quick else 100 * NUM_FEW
    setting = {"images": num_images, "shape": list(SHAPE), "batch": BATCH, "particles": NUM_PARTICLES}
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder) / "few.npy", Path(folder) / "many.npy"
        write_images(few, NUM_FEW)
        write_images(many, num_images)
        peaks = {name: in_new_process(peak_memory, path) / 1e6 for name, path in (("few", few), ("many", many))}
        in_memory, streamed = in_new_process(seconds_in_turn, many)
    return [
        report(
            MEMORY, setting, peaks["many"] - peaks["few"], "MB", relative_to=f"{NUM_FEW} images", at_most=AT_MOST_MB,
            peak_mb=peaks["many"], peak_mb_of_few=peaks["few"], file_mb=num_images * np.prod(SHAPE) / 1e6,
        ),
        report(
            SPEED, setting, np.median(in_memory) / streamed, "ratio", relative_to="in memory", at_least=AT_LEAST,
            images_per_second=BATCH * STEPS_TIMED / float(np.median(streamed)),
            images_per_second_in_memory=BATCH * STEPS_TIMED / float(np.median(in_memory)),
        ),
    ]  # fmt: skip


def draw(lines):
    """Peak memory of both runs, and the speed of both."""
    from matplotlib.figure import Figure

    found = {line["question"]: line for line in lines}
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    memory, speed = found[MEMORY], found[SPEED]
    names = [f"{NUM_FEW:,}", f"{memory['setting']['images']:,}"]
    left.bar(names, [memory["peak_mb_of_few"], memory["peak_mb"]], width=0.5, color=MAIN)
    left.set_xlabel("images in the file")
    left.set_ylabel("highest memory (MB)")
    right.bar(
        ["in memory", "from the file"],
        [speed["images_per_second_in_memory"], speed["images_per_second"]],
        width=0.5,
        color=MAIN,
    )
    right.set_ylabel("images per second")
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main(measure, draw)
