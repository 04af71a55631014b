"""Kill training at random moments and go on: `python kill.py FOLDER NUM_KILLS SEED`, then compare the folders in it.

Modules are imported once, and each run is a fork of this process that starts JAX itself; programs are compiled once, and
found again in a folder.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from kaem_ppl.cli import main
from kaem_ppl.cli.checkpoints import Checkpoints

NUM_EPOCHS, STEPS_PER_EPOCH = 5, 8
SETTINGS = (
    f"--dataset DIGITS --num-train {10 * STEPS_PER_EPOCH} --batch-size 10 --num-latents 2 --hidden 8 --num-basis 5 "
    f"--kernel mala --persistent true --num-steps 2 --num-epochs {NUM_EPOCHS} --checkpoint-minutes 0"
)


def start(words):
    """Run the command in a process of its own."""
    process = os.fork()
    if process:
        return process
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os._exit(main(words))


def finish(words):
    """Run the command to its end, and return how long it took."""
    started = time.perf_counter()
    assert os.waitpid(start(words), 0)[1] == 0, words
    return time.perf_counter() - started


def wait_for_steps(folder, num_steps):
    """Wait until a checkpoint holds so many finished steps."""
    checkpoints = Checkpoints(folder / "checkpoints")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        places = checkpoints.places()
        if places and places[-1].epoch * STEPS_PER_EPOCH + places[-1].step >= num_steps:
            return
        time.sleep(0.002)
    raise TimeoutError(f"{folder} did not come to step {num_steps}")


def kill_and_resume(root, num_kills, seed):
    """Leave an uninterrupted run in `whole`, and as many others that were killed and resumed.

    A run is killed a random time after the checkpoint of a random step, whatever the machine's speed: before the first
    one, while steps run, and while a checkpoint is written. The last steps are left out, so that no run ends before.
    """
    command = ["train", "langevin", *SETTINGS.split(), "--run-dir"]
    # The first one compiles.
    finish([*command, str(root / "compiled")])
    seconds = finish([*command, str(root / "whole")])
    num_steps = NUM_EPOCHS * STEPS_PER_EPOCH
    rng = random.Random(seed)
    for number in range(num_kills):
        folder = root / f"killed-{number}"
        target = rng.randrange(num_steps - 3)
        process = start([*command, str(folder)])
        if target:
            wait_for_steps(folder, target)
        # Nothing is saved in the first seconds, while the model is read and compiled.
        time.sleep(rng.uniform(0, seconds / num_steps if target else 0.2 * seconds))
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        started = (folder / "config.toml").exists()
        kept = " ".join(sorted(path.name for path in folder.glob("checkpoints/0*")))
        print(
            f"{number}: {'killed' if status == signal.SIGKILL else 'too late'}, started {started}, kept {kept}",
            flush=True,
        )
        finish(["train", "--resume", str(folder)] if started else [*command, str(folder)])


if __name__ == "__main__":
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(sys.argv[1]) / "compiled-programs")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    import jax

    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    kill_and_resume(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
