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
from kaem_ppl.cli.storage.checkpoints import Checkpoints

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Checkpoints are taken after 10 steps and after 15, where an epoch ends.
NUM_EPOCHS, STEPS_PER_EPOCH = 12, 15
MOMENTS = [epoch * STEPS_PER_EPOCH + step for epoch in range(NUM_EPOCHS) for step in (10, 15)]
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


def finish(process):
    """Wait for the end of a run, which must be a good one."""
    assert os.waitpid(process, 0)[1] == 0


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

    A run is killed a random time after a random checkpoint, whatever the machine's speed: before the first one, while
    steps run, and while a checkpoint is written. The last four are left out, so that no run ends before.
    """
    command = ["train", "langevin", *SETTINGS.split(), "--run-dir"]
    # The first one compiles.
    finish(start([*command, str(root / "compiled")]))
    process, began = start([*command, str(root / "whole")]), time.monotonic()
    wait_for_steps(root / "whole", 1)
    before_first = time.monotonic() - began
    finish(process)
    between = (time.monotonic() - began - before_first) / len(MOMENTS)
    rng = random.Random(seed)
    for number in range(num_kills):
        folder, moment = root / f"killed-{number}", rng.choice([0, *MOMENTS[:-4]])
        process = start([*command, str(folder)])
        if moment:
            wait_for_steps(folder, moment)
        time.sleep(rng.uniform(0, between if moment else before_first))
        chosen = SIGNALS[number % len(SIGNALS)]
        os.kill(process, chosen)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        # By the exit status of the command, or by the signal before it was listening.
        died = status in (-chosen, 128 + chosen)
        started = (folder / "config.toml").exists()
        kept = " ".join(sorted(path.name for path in folder.glob("checkpoints/*")))
        print(
            f"{number}: {'killed' if died else 'too late'} by {chosen.name}, started {started}, kept {kept}",
            flush=True,
        )
        finish(start(["train", "--resume", str(folder)] if started else [*command, str(folder)]))


if __name__ == "__main__":
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(sys.argv[1]) / "compiled-programs")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    import jax

    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    kill_and_resume(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
