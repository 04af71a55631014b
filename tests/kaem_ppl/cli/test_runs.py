"""Runs from the command line: every subcommand on every kind of data, killed, resumed, and on several devices."""

import csv
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("grain")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
import kaem_ppl as kp
from kaem_ppl.cli import main
from kaem_ppl.cli.commands.figures import sine_spectrum
from kaem_ppl.cli.storage.checkpoints import Checkpoints
from kaem_ppl.cli.storage.lock import locked
from kaem_ppl.inference import MALA, sample_posterior
from kaem_ppl.saving import load_params

TINY = (
    "--num-latents 2 --num-components 1 --num-basis 5 --batch-size 8 --num-epochs 2 --schedule constant "
    "--checkpoint-minutes 0"
)
SMALL_CHAINS = "--num-data 2 --num-chains 2 --num-samples 20"


def fail(message):
    raise AssertionError(message)


def run(line):
    assert main(line.split()) == 0


def last(folder):
    return Checkpoints(Path(folder) / "checkpoints").load_last(fail)


def rows(folder):
    with (Path(folder) / "history.csv").open() as file:
        return list(csv.DictReader(file))


def assert_equal(first, second):
    for (path, new), old in zip(jax.tree.leaves_with_path(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(new, old, err_msg=jax.tree_util.keystr(path))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAEM_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def write_cifar10(workplace):
    folder = workplace / "data" / "cifar10"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (16, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(16) % 10
        (folder / name).write_bytes(records.tobytes())


def write_sms_spam(workplace):
    folder = workplace / "data" / "sms_spam"
    folder.mkdir(parents=True)
    lines = "".join(f"{'spam' if i % 5 == 0 else 'ham'}\tcall me at {i} for a mat\n" for i in range(40))
    (folder / "SMSSpamCollection").write_text(lines)


def test_power_of_one_sine_mode_stands_at_its_wave_number():
    x = (np.arange(16) + 0.5) / 16
    mode = np.sin(3 * np.pi * x)[:, None] * np.sin(3 * np.pi * x)
    wave_number, power = sine_spectrum(mode[None])
    assert wave_number[np.argmax(power)] == 3
    np.testing.assert_allclose(np.delete(power, 2), 0, atol=1e-20)
    # Noise of variance 1 has power 1 in every mode of an orthonormal transform; 4,000 fields, five standard errors.
    noise = np.random.default_rng(0).normal(size=(4000, 16, 16))
    np.testing.assert_allclose(sine_spectrum(noise)[1], 1, atol=5 * np.sqrt(2 / 4000))


@pytest.mark.slow
def test_a_run_is_trained_resumed_moved_and_looked_at(workplace, capsys):
    train = f"train vanilla --dataset DIGITS --num-train 32 --num-test 20 --hidden 8 --num-particles 20 {TINY}"
    # Pictures change nothing of the training.
    run(f"{train} --num-epochs 4 --sample-every 2 --run-dir whole")
    assert {path.name for path in Path("whole/pictures").iterdir()} == {
        "epoch-000002.npz", "epoch-000002.png", "epoch-000004.npz", "epoch-000004.png", "training.gif"
    }  # fmt: skip
    run(f"{train} --run-dir part")
    assert [row["epoch"] for row in rows("part")] == ["1", "2"]
    run("train --resume part --num-epochs 4")
    assert_equal(last("part").state, last("whole").state)
    assert rows("part") == rows("whole")
    shutil.move("part", "moved")
    assert "resume" not in capsys.readouterr().err

    # A complete run stays as it is, an earlier end is refused, and settings are not rewritten.
    settings = Path("moved/config.toml").read_text()
    run("train --resume moved")
    assert "is complete, with 4 epochs. Give a larger --num-epochs" in capsys.readouterr().out
    assert main(["train", "--resume", "moved", "--num-epochs", "3"]) == 2
    assert "has 4 finished epochs already, and num_epochs is 3" in capsys.readouterr().err
    assert Path("moved/config.toml").read_text() == settings
    # A process that trains it keeps others away.
    with locked(Path("moved")):
        assert main(["train", "--resume", "moved", "--num-epochs", "5"]) == 2
    assert f"moved is being trained by process {os.getpid()}" in capsys.readouterr().err
    # A later end is no change; anything else is, and nothing is changed.
    assert main(["train", "--resume", "moved", "--scale", "0.5"]) == 2
    assert "started with other settings: scale was 0.2 and is 0.5 now" in capsys.readouterr().err
    assert main([*train.split(), "--run-dir", "moved"]) == 2
    assert "moved is not empty: give another --run-dir, or continue it by --resume" in capsys.readouterr().err
    # A damaged checkpoint: the one before it is used, and leads to the same end.
    damaged = Path("moved/checkpoints/000004/notes.json")
    damaged.write_text(damaged.read_text()[:100])
    run("train --resume moved")
    assert "000004 is damaged" in capsys.readouterr().err
    assert_equal(last("moved").state, last("whole").state)

    for checkpoint in ("last", "best"):
        run(f"sample moved --num-samples 5 --checkpoint {checkpoint} --out drawn --force")
    run("sample moved --num-samples 5")
    samples = np.load("drawn/samples.npz")["samples"]
    assert samples.shape == (5, 8, 8, 1)
    assert (samples >= 0).all()
    assert (samples <= 1).all()
    capsys.readouterr()
    for words, message in {
        "sample moved --num-samples 2000000000": "--num-samples is 2,000,000,000, but memory is free for",
        "evaluate moved --num-data 21": "--num-data is 21, but DIGITS has 20 held-out data",
        "evidence moved --num-data 21": "--num-data is 21, but DIGITS has 20 held-out data",
        "diagnose moved --num-temperatures 4": "--num-temperatures belongs to tempering, not to --sampler mala",
    }.items():
        assert main(words.split()) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert message in error
    run("evaluate moved --num-draws 200 --out evaluation")
    with open("evaluation/evaluation.csv") as file:
        assert len(list(csv.DictReader(file))) == 20
    # The classifier is trained once, and kept with the run.
    run("evaluate moved --num-draws 200 --distance --out distances")
    made = Path("moved/classifier.npz").stat().st_mtime_ns
    run("evaluate moved --num-draws 200 --distance --out again")
    assert Path("moved/classifier.npz").stat().st_mtime_ns == made
    assert Path("again/distances.csv").read_text() == Path("distances/distances.csv").read_text()
    assert names("again") == {"evaluation.csv", "distances.csv", "distances.txt", "classes.csv"}
    with open("again/classes.csv") as file:
        for row in csv.DictReader(file):
            assert sum(float(x) for name, x in row.items() if name != "images") == pytest.approx(1, abs=1e-4)
    # Results stay: not even a second call at the same moment replaces them, and --out does so when it is told to.
    assert main(["evaluate", "moved", "--num-draws", "100", "--out", "evaluation"]) == 2
    assert "--out evaluation is not empty: give another folder, or --force" in capsys.readouterr().err
    Path("evaluation/note").write_text("")
    run("evaluate moved --num-draws 100 --out evaluation --force")
    assert [path.name for path in Path("evaluation").iterdir()] == ["evaluation.csv"]
    run(f"diagnose moved --sampler tempering --num-temperatures 4 {SMALL_CHAINS}")
    run(f"evidence moved {SMALL_CHAINS}")
    run("plot moved")
    run("plot moved")
    run("traverse moved --num-latents 2 --num-points 3 --out traversed")
    images = np.load("traversed/traverse.npz")["images"]
    assert images.shape == (2, 3, 8, 8)
    assert (np.diff(images, axis=1) != 0).any((1, 2, 3)).all()
    with open("traversed/effects.csv") as file:
        effects = [float(row["effect"]) for row in csv.DictReader(file)]
    assert effects == sorted(effects, reverse=True)
    run("interpolate moved --num-pairs 2 --num-points 3 --num-steps 20 --out between")
    assert np.load("between/interpolate.npz")["images"].shape == (2, 3, 8, 8)
    run("report moved --out report")
    page = Path("report/report.html").read_text()
    # Samples, history, prior, traversal, and the pictures of results that lie in the run's folder.
    assert page.count("data:image/png;base64,") >= 7
    assert "<title>DIGITS, kaem trained by importance</title>" in page
    assert "kaem evaluate moved --distance" in page
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert main(["interpolate", "moved", "--num-pairs", "11"]) == 2
    assert "--num-pairs is 11, but DIGITS has 20 held-out data here: expected at most 10" in capsys.readouterr().err
    # Damaged results of earlier commands are left out, with a line each.
    Path("moved/results/evaluate-20260101-000000").mkdir()
    damaged = ("results/evaluate-20260101-000000/evaluation.csv", "versions.json")
    for name in damaged:
        Path("moved", name).write_bytes(b"\xff{")
    run("report moved --out again --force")
    lines = capsys.readouterr().err.splitlines()
    assert [sum(name in line and "left out" in line for line in lines) for name in damaged] == [1, 1]
    # Settings that are not those of the checkpoint would describe another model.
    shutil.copytree("moved", "edited")
    Path("edited/config.toml").write_text(settings.replace("scale = 0.2", "scale = 0.3"))
    assert main(["sample", "edited"]) == 2
    assert "edited was started with other settings: scale was 0.2 and is 0.3 now" in capsys.readouterr().err
    Path("moved/classifier.npz").write_bytes(Path("whole/pictures/epoch-000002.npz").read_bytes())
    assert main(["evaluate", "moved", "--distance"]) == 2
    assert "classifier.npz is damaged, or holds something else" in capsys.readouterr().err
    found = {path.name.rsplit("-", 2)[0]: names(path) for path in Path("moved/results").iterdir()}
    assert found["diagnose-tempering"] == {
        "diagnosis.txt", "draws.nc", "posterior.png", "swap_rates.png", "replica_trace.png"
    }  # fmt: skip
    assert found["evidence-tempering"] == {"evidence.txt", "evidence.csv", "estimates.png", "thermodynamic_curve.png"}
    assert found["plot"] == {"history.png", "prior.png"}
    assert found["sample"] == {"samples.npz", "samples.png"}
    assert len(list(Path("moved/results").glob("plot-*"))) == 2
    files = {"config.toml", "versions.json", "history.csv", "checkpoints", "results", "classifier.npz", ".lock"}
    assert names("moved") == files

    # And back to Python.
    opened = kp.open_run("moved")
    assert opened.params.keys() == last("moved").state.params.keys()
    assert opened.data.values.shape == (20, 8, 8, 1)
    assert opened.training_data().values.shape == (32, 8, 8, 1)
    np.testing.assert_array_equal(opened.history["epoch"], [1, 2, 3, 4])
    assert "4 epochs, " in repr(opened)
    draws = sample_posterior(
        jax.random.key(0), opened.model, x=opened.data.values[:2], params=opened.params, sampler=MALA(), plate="data",
        num_chains=2, num_samples=5, num_warmup=5, progress_bar=False,
    )  # fmt: skip
    assert draws.num_samples == 5


def names(folder):
    return {path.name for path in Path(folder).iterdir()}


@pytest.mark.slow
def test_stopped_evidence_goes_on_and_a_disk_that_fills_up_loses_nothing(workplace, capsys, monkeypatch):
    run(
        f"train vanilla --dataset DIGITS --num-train 32 --num-test 20 --hidden 8 --num-particles 20 {TINY} --run-dir run"
    )
    settings = f"evidence run --method smc {SMALL_CHAINS}"
    run(f"{settings} --out whole")
    before = names("run")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("matplotlib.figure.Figure.savefig", full)
        assert main([*settings.split(), "--out", "filled"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"kaem: {workplace} can't be written: No space left on device. Free space, or give a folder elsewhere by --out."
    )
    assert not Path("filled").exists()
    # What was computed is there: no particle moves again.
    monkeypatch.setattr("kaem_ppl.inference.tempering.population._mutate", None)
    run(f"{settings} --out filled")
    assert Path("filled/evidence.csv").read_text() == Path("whole/evidence.csv").read_text()
    assert names("run") == before
    assert not list(Path().glob(".*"))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("number", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive), (signal.SIGTERM, 143)]
)
def test_evidence_that_a_signal_stopped_goes_on(workplace, number, status):
    run(
        f"train vanilla --dataset DIGITS --num-train 32 --num-test 20 --hidden 8 --num-particles 20 {TINY} --run-dir run"
    )
    command = [
        sys.executable,
        "-m",
        "kaem_ppl.cli",
        *["evidence", "run", "--method", "smc", "--num-data", "4"],
        "--out",
    ]
    process = subprocess.Popen([*command, "stopped"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(workplace.glob(".stopped.unfinished/*/*.npz")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == status
    # A line soon after the start, others on the way, and one at the end.
    assert lines[0].startswith("kaem: ")
    assert lines[-1] == "kaem: stopped. Continue by `kaem evidence run --method smc --num-data 4 --out stopped`."
    assert not any("Traceback" in line for line in lines)
    assert not Path("stopped").exists()
    run("evidence run --method smc --num-data 4 --out stopped")
    run("evidence run --method smc --num-data 4 --out whole")
    assert Path("stopped/evidence.csv").read_text() == Path("whole/evidence.csv").read_text()
    assert names(".") == {"data", "run", "stopped", "whole"} or names(".") == {"run", "stopped", "whole"}


@pytest.mark.exhaustive
def test_two_processes_make_two_runs(workplace):
    words = f"train vanilla --dataset DIGITS --num-train 16 --hidden 4 --num-particles 4 {TINY}".split()
    command = [sys.executable, "-m", "kaem_ppl.cli", *words]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert names("runs") == {"digits-importance", "digits-importance-2"}
    # Told of the same folder, one of them makes it and the other says so.
    both = [subprocess.Popen([*command, "--run-dir", "one"], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert any("is being trained by process" in error or "one is not empty" in error for error in errors)
    assert len(rows("one")) == 2


@pytest.mark.exhaustive
def test_colours_texts_fields_and_baselines(workplace, capsys):
    write_cifar10(workplace)
    write_sms_spam(workplace)
    chains = "--num-steps 2 --num-temperatures 2"
    run(f"train thermo --dataset CIFAR10 --hidden 4,4 {chains} {TINY} --run-dir cifar")
    run("sample cifar --num-samples 3 --out cifar-samples")
    assert np.load("cifar-samples/samples.npz")["samples"].shape == (3, 32, 32, 3)
    run(f"train variational --dataset CIFAR10 --size 8 --grey true --hidden 4 --encoder-hidden 4 {TINY} --run-dir grey")
    run("sample grey --num-samples 3 --out grey-samples")
    assert np.load("grey-samples/samples.npz")["samples"].shape == (3, 8, 8, 1)

    texts = "--length 12 --vocabulary-size 60 --width 8 --num-heads 2 --num-layers 1 --num-particles 4"
    run(f"train vanilla --dataset SMS_SPAM {texts} {TINY} --run-dir texts")
    run("sample texts --num-samples 3 --out texts-samples")
    assert len(Path("texts-samples/samples.txt").read_text().splitlines()) == 3
    run("evaluate texts --num-draws 50")

    run(f"train vanilla --dataset DARCY_FLOW --num-train 16 --num-test 4 --size 8 --hidden 4 {TINY} --run-dir fields")
    run("sample fields --num-samples 3 --out fields-samples")
    assert Path("fields-samples/spectra.png").stat().st_size > 1000

    run(f"train variational --kind vae --dataset DIGITS --num-train 16 {TINY} --run-dir vae")
    run("sample vae --num-samples 3")
    run(f"train langevin --kind latent-ebm --num-steps 2 --dataset DIGITS --num-train 16 {TINY} --run-dir ebm")
    run("sample ebm --num-samples 3")
    capsys.readouterr()
    run("evaluate ebm --distance")
    printed = capsys.readouterr().out
    assert "Frechet distance, extrapolated: " in printed
    assert "held-out log-evidence: not defined. A latent-ebm's prior has an unknown normaliser" in printed
    run(f"train variational --kind diffusion --dataset DIGITS --num-train 16 {TINY} --run-dir noise")
    assert list(rows("noise")[0]) == ["epoch", "loss"]
    run("sample noise --num-samples 3 --out from-noise")
    assert np.load("from-noise/samples.npz")["samples"].shape == (3, 8, 8, 1)
    run(
        f"train variational --kind diffusion --dataset CIFAR10 --hidden 4,4 --num-denoising-steps 3 {TINY} "
        "--run-dir colours"
    )
    run("sample colours --num-samples 2")
    capsys.readouterr()
    for command, message in {
        "evidence noise": "A diffusion has a bound on its evidence only",
        "diagnose noise": "noise is a diffusion, which has no latents to draw given data",
        "traverse noise": "noise is a diffusion, which has no latents to move",
    }.items():
        assert main(command.split()) == 2
        assert message in capsys.readouterr().err
    assert main(["evaluate", "fields", "--distance"]) == 2
    assert "--distance needs images with classes, and DARCY_FLOW has none" in capsys.readouterr().err
    assert main(["evidence", "ebm"]) == 2
    assert "unknown normaliser" in capsys.readouterr().err


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_site(workplace, capsys):
    line = f"train vanilla --dataset DIGITS --num-train 32 --hidden 8 --num-particles 20 --learning-rate 1e30 {TINY}"
    assert main([*line.split(), "--run-dir", "broken"]) == 1
    error = capsys.readouterr().err
    # The first step goes far from where its loss is finite; the second finds out.
    assert "The loss stopped being finite in epoch 1, step 2. What is not finite: z, x." in error
    good, broken = (jax.tree.leaves(load_params(f"broken/{name}.npz")) for name in ("last_good", "broken"))
    assert all(np.isfinite(leaf).all() for leaf in good)
    assert max(np.abs(leaf).max() for leaf in broken) > 1e20


@pytest.mark.exhaustive
def test_data_in_a_file_and_epochs_cut_short(workplace, capsys):
    # Oracles: the same training from memory, and training that was not stopped.
    line = f"train vanilla --dataset DIGITS --num-train 48 --hidden 8 --num-particles 20 {TINY} --batch-size 4"
    run(f"{line} --run-dir memory")
    run(f"{line} --stream true --run-dir file")
    (mapped,) = (workplace / "data" / "streamed").iterdir()
    assert np.load(mapped).shape == (48, 8, 8, 1)
    for new, old in zip(jax.tree.leaves(last("file").state), jax.tree.leaves(last("memory").state), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6, rtol=1e-6)
    # Steps 10 of 12 in both epochs are checkpoints: going on from the second one reads the batches left.
    whole = last("file")
    assert [path.name for path in sorted(Path("file/checkpoints").iterdir())] == ["000001", "000001+000010", "000002"]
    shutil.rmtree("file/checkpoints/000002")
    capsys.readouterr()
    run("train --resume file")
    assert "resuming after epoch 2, step 10" in capsys.readouterr().out
    assert_equal(last("file").state, whole.state)
    assert last("file").rows == whole.rows


def test_a_bug_is_not_told_in_one_line(workplace, monkeypatch):
    def raise_another(*_, **__):
        raise ValueError("not one of ours")

    monkeypatch.setattr("kaem_ppl.cli.command_line.resolve", raise_another)
    with pytest.raises(ValueError, match="not one of ours"):
        main(["train", "vanilla", "--dataset", "DIGITS"])


@pytest.mark.exhaustive
def test_a_failed_job_does_not_stop_the_rest(workplace, capfd):
    settings = f"--num-train 16 --hidden 4 --num-particles 4 {TINY}"
    text = f"# two jobs\nMNIST vanilla {settings}  # no such files\n\nDIGITS vanilla {settings}\n"
    (workplace / "jobs.txt").write_text(text)
    assert main(["train-sequential", "jobs.txt"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert "failed, status 2" in lines[-2]
    assert "done" in lines[-1]
    assert len(rows("runs/digits-importance")) == 2
    # Again: nothing is trained a second time.
    assert main(["train-sequential", "jobs.txt"]) == 1
    assert "runs/digits-importance is complete" in capfd.readouterr().out
    assert [path.name for path in Path("runs").iterdir()] == ["digits-importance"]


@pytest.mark.exhaustive
def test_killed_at_random_moments_and_resumed(tmp_path):
    # Oracle: the run that nothing stopped.
    script = Path(__file__).with_name("kill.py")
    output = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "20", "0"], check=True, capture_output=True, text=True
    ).stdout
    assert output.count("killed") == 20, output
    whole = last(tmp_path / "whole")
    for number in range(20):
        resumed = last(tmp_path / f"killed-{number}")
        assert_equal(resumed.state, whole.state)
        assert rows(tmp_path / f"killed-{number}") == rows(tmp_path / "whole")


def train_on(folder, mode, num_devices=1, distributed=()):
    """Start 20 steps of training in processes of their own."""
    settings = (
        f"--dataset DIGITS --num-train 40 --num-latents 2 --hidden 8 --num-basis 5 --batch-size 8 --num-epochs 4 {mode}"
    )
    command = [sys.executable, "-m", "kaem_ppl.cli", "train", *settings.split(), "--run-dir", str(folder)]
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
        "JAX_PLATFORMS": "cpu",
    }
    if not distributed:
        return [subprocess.Popen(command, env=environment)]
    processes = []
    for number in range(2):
        cluster = {"JAX_COORDINATOR_ADDRESS": distributed, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(number)}
        processes.append(subprocess.Popen([*command, "--distributed"], env={**environment, **cluster}))
    return processes


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["vanilla --num-particles 50", "langevin --num-steps 2 --persistent true"])
def test_one_device_eight_devices_and_two_processes(tmp_path, mode):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    starts = {"one": {}, "eight": {"num_devices": 8}, "processes": {"distributed": address}}
    for name, where in starts.items():
        assert [process.wait(300) for process in train_on(tmp_path / name, mode, **where)] == [0] * (
            1 + bool(where.get("distributed"))
        )
    one = last(tmp_path / "one").state
    for name in ("eight", "processes"):
        other = last(tmp_path / name).state
        for (path, new), old in zip(jax.tree.leaves_with_path(other.params), jax.tree.leaves(one.params), strict=True):
            np.testing.assert_allclose(new, old, atol=1e-5, rtol=0, err_msg=f"{name}{jax.tree_util.keystr(path)}")
