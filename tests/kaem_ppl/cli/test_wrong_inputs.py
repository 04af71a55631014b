"""Wrong words on the command line: each is answered in one line with exit status 2, and nothing is changed."""
# ruff: noqa: E501 - a line of the list is a line of the file

import pytest

from kaem_ppl.cli import main
from kaem_ppl.cli.settings.config import resolve

WRONG = {
    "train": "mode of training is missing: expected one of importance, langevin",
    "train fast --dataset DIGITS": "mode is 'fast': expected one of importance",
    "train vanilla": "--dataset is missing: expected one of DIGITS, MNIST",
    "train vanilla --dataset MNITS": "--dataset is 'MNITS': expected one of DIGITS, MNIST",
    "train vanilla --dataset DIGITS --epochs 3": "unrecognized arguments: --epochs 3. See `kaem --help`",
    "train vanilla --dataset DIGITS --num-epochs many": "--num-epochs is 'many': expected a whole number",
    "train vanilla --dataset DIGITS --num-epochs 0": "--num-epochs is 0: expected at least 1",
    "train vanilla --dataset DIGITS --scale 0": "--scale is 0.0: expected more than 0",
    "train vanilla --dataset DIGITS --grey yes": "--grey is 'yes': expected true or false",
    "train vanilla --dataset DIGITS --hidden 8,x": "--hidden is 'x': expected a whole number",
    "train vanilla --dataset DIGITS --domain 1,0": "domain is [1.0, 0.0]: expected two numbers in order",
    "train vanilla --dataset DIGITS --basis Haar": "--basis is 'Haar': expected one of RBF",
    "train vanilla --dataset DIGITS --num-temperatures 4": "--num-temperatures belongs to thermo, not to importance",
    "train thermo --dataset DIGITS --power 3,1": "power is [3.0, 1.0]: expected none, one, or two numbers",
    "train vanilla --dataset DIGITS --kind vae": "mode is 'importance', but a vae is trained by variational",
    "train vanilla --dataset DIGITS --kind diffusion": "mode is 'importance', but a diffusion is trained by variational",
    "train variational --dataset MNIST --kind diffusion --num-denoising-steps 0": "--num-denoising-steps is 0: expected at least 1",
    "train variational --dataset DIGITS --kind diffusion --generator kan": "generator is 'kan', and a diffusion has none of it",
    "train vanilla --dataset DIGITS --sample-every 0": "--sample-every is 0: expected at least 1",
    "train vanilla --dataset SMS_SPAM --sample-every 2": "--sample-every concerns images, and SMS_SPAM has none",
    "train vanilla --dataset DIGITS --average 1": "--average is 1.0: expected less than 1",
    "train vanilla --dataset DIGITS --learn-scale channel": "--learn-scale is 'channel': expected one of no, one, channels",
    "train vanilla --dataset DIGITS --preset mine": "argument --preset: invalid choice: 'mine'",
    "train vanilla --dataset DIGITS --seed x": "--seed is 'x': expected a whole number",
    "train vanilla --dataset DIGITS --config none.toml": "none.toml does not exist: expected a TOML file",
    "train vanilla --dataset DIGITS --num-basis 1": "--num-basis is 1 for RBF: expected at least 2 grid points",
    "train vanilla --dataset DIGITS --generator sequence": "generator is 'sequence', and DIGITS has no texts",
    "train vanilla --dataset DIGITS --num-train 5000": "--num-train is 5000, but DIGITS has 1500 train data",
    "train vanilla --dataset DIGITS --num-train 50": "batch_size is 100, but there are only 50 training examples",
    "train --resume nowhere": "nowhere is not the folder of a run: expected one with a config.toml",
    "train --resume nowhere --config x.toml": "--config and --resume exclude each other",
    "train vanilla --dataset MNIST": "is missing: download it by `kaem data MNIST`",
    "train vanilla --dataset DIGITS --domain -3,-4": "domain is [-3.0, -4.0]: expected two numbers in order",
    "train vanilla --dataset DIGITS --domain -3,inf": "--domain is inf: expected a finite number",
    "train vanilla --dataset DIGITS --scale nan": "--scale is nan: expected a finite number",
    "train vanilla --dataset DIGITS --seed 4294967296": "--seed is 4294967296: expected 0 to 4294967295",
    "train vanilla --dataset DIGITS --seed -1": "--seed is -1: expected 0 to 4294967295",
    "sample nowhere --seed 9223372036854775808": "--seed is 9223372036854775808: expected 0 to 4294967295",
    "train-sequential jobs.txt": "jobs.txt can't be read: expected a text file of lines DATASET MODE",
    "sample nowhere": "nowhere is not the folder of a run",
    "sample nowhere --num-samples none": "argument --num-samples: invalid whole number value: 'none'",
    "evidence nowhere --method magic": "invalid choice: 'magic' (choose from",
    "data MNITS": "invalid choice: 'MNITS' (choose from",
    "fly": "invalid choice: 'fly' (choose from",
    "": "the following arguments are required: COMMAND",
    "train vanilla --dataset DIGITS --learning-rate 0": "--learning-rate is 0.0: expected more than 0.",
    "train vanilla --dataset DIGITS --learning-rate -1": "--learning-rate is -1.0: expected more than 0.",
    "train vanilla --dataset DIGITS --learning-rate inf": "--learning-rate is inf: expected a finite number.",
    "train vanilla --dataset DIGITS --learning-rate nan": "--learning-rate is nan: expected a finite number.",
    "train vanilla --dataset DIGITS --learning-rate fast": "--learning-rate is 'fast': expected a number.",
    "train vanilla --dataset DIGITS --learning-rate 1e30 --num-epochs 0": "--num-epochs is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --batch-size 0": "--batch-size is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --batch-size 1.5": "--batch-size is '1.5': expected a whole number.",
    "train vanilla --dataset DIGITS --batch-size 5000": "batch_size is 5000, but there are only 1500 training examples.",
    "train vanilla --dataset DIGITS --num-latents 0": "--num-latents is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --num-latents -2": "--num-latents is -2: expected at least 1.",
    "train vanilla --dataset DIGITS --num-components 0": "--num-components is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --num-basis 0": "--num-basis is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --num-grid 20": "unrecognized arguments: --num-grid 20.",
    "train vanilla --dataset DIGITS --model vae": "unrecognized arguments: --model vae.",
    "train vanilla --dataset DIGITS --kind gan": "--kind is 'gan': expected one of kaem",
    "train vanilla --dataset DIGITS --layout stack": "--layout is 'stack': expected one of product",
    "train vanilla --dataset DIGITS --reference cauchy": "--reference is 'cauchy': expected one of uniform",
    "train vanilla --dataset DIGITS --generator cnn": "--generator is 'cnn': expected one of kan",
    "train vanilla --dataset DIGITS --hidden 0": "--hidden is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --hidden 8,-1": "--hidden is -1: expected at least 1.",
    "train vanilla --dataset DIGITS --domain 1": "domain is [1.0]: expected two numbers in order.",
    "train vanilla --dataset DIGITS --domain 0,1,2": "domain is [0.0, 1.0, 2.0]: expected two numbers in order.",
    "train vanilla --dataset DIGITS --domain a,b": "--domain is 'a': expected a number.",
    "train vanilla --dataset DIGITS --domain": "argument --domain: expected one argument.",
    "train vanilla --dataset DIGITS --scale": "argument --scale: expected one argument.",
    "train vanilla --dataset DIGITS --schedule step": "--schedule is 'step': expected one of constant",
    "train vanilla --dataset DIGITS --clip-norm 0": "--clip-norm is 0.0: expected more than 0.",
    "train vanilla --dataset DIGITS --clip-norm x": "--clip-norm is 'x': expected a number.",
    "train vanilla --dataset DIGITS --checkpoint-minutes -1": "--checkpoint-minutes is -1.0: expected at least 0.",
    "train vanilla --dataset DIGITS --keep-checkpoints 0": "--keep-checkpoints is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --num-particles 0": "--num-particles is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --ess-threshold 2": "--ess-threshold is 2.0: expected at most 1.",
    "train vanilla --dataset DIGITS --ess-threshold -0.1": "--ess-threshold is -0.1: expected at least 0.",
    "train vanilla --dataset DIGITS --resampler multinomial": "--resampler is 'multinomial': expected one of residual",
    "train vanilla --dataset DIGITS --step-size 0.1": "--step-size belongs to langevin and thermo, not to importance, which has --num-partic",
    "train vanilla --dataset DIGITS --kernel mala": "--kernel belongs to langevin and thermo, not to importance, which has --num-particles",
    "train vanilla --dataset DIGITS --persistent true": "--persistent belongs to langevin and thermo, not to importance, which has --num-parti",
    "train vanilla --dataset DIGITS --num-draws 3": "--num-draws belongs to variational, not to importance, which has --num-particles, --e",
    "train vanilla --dataset SMS_SPAM --length 0": "--length is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --size 0": "--size is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --size 8.5": "--size is '8.5': expected a whole number.",
    "train vanilla --dataset DIGITS --stream maybe": "--stream is 'maybe': expected true or false.",
    "train vanilla --dataset DARCY_FLOW --permeability high": "--permeability is 'high': expected one of threshold",
    "train vanilla --dataset DIGITS --num-train 0": "--num-train is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --num-test -4": "--num-test is -4: expected at least 1.",
    "train vanilla --dataset DIGITS --seed 1e3": "--seed is '1e3': expected a whole number.",
    "train vanilla --dataset DIGITS --seed": "argument --seed: expected one argument.",
    "train vanilla --dataset DIGITS --seed 9223372036854775808": "--seed is 9223372036854775808: expected 0 to 4294967295.",
    "train vanilla --dataset DIGITS --config adir": "adir is a folder: expected a TOML file with settings.",
    "train vanilla --dataset DIGITS --config afile": "afile is not TOML: Expected '=' after a key in a key/value pair (at end of document).",
    "train vanilla --dataset DIGITS --run-dir adir": "adir is not empty: give another --run-dir, or continue it by --resume.",
    "train vanilla --dataset DIGITS --run-dir afile": "afile is a file: give another --run-dir.",
    "train vanilla --dataset DIGITS --run-dir afile/x": "afile/x can't be created: Not a directory.",
    "train vanilla --dataset DIGITS --distributed": "--distributed needs --run-dir: the same folder for all processes.",
    "train vanilla --dataset DIGITS --resume": "argument --resume: expected one argument.",
    "train vanilla --dataset DIGITS extra": "unrecognized arguments: extra.",
    "train vanilla --dataset DIGITS --basis Fourier --num-basis 0": "--num-basis is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --basis BSpline --num-basis 1": "--num-basis is 1 for BSpline: expected at least 2 grid points.",
    "train vanilla --dataset DIGITS --encoder-hidden 0": "--encoder-hidden is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --energy-hidden x": "--energy-hidden is 'x': expected a whole number.",
    "train vanilla --dataset DIGITS --width 0": "--width is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --num-heads 0": "--num-heads is 0: expected at least 1.",
    "train vanilla --dataset DIGITS --num-layers 0": "--num-layers is 0: expected at least 1.",
    "train langevin --dataset DIGITS --kernel nuts": "--kernel is 'nuts': expected one of ula",
    "train langevin --dataset DIGITS --step-size 0": "--step-size is 0.0: expected more than 0.",
    "train langevin --dataset DIGITS --num-steps 0": "--num-steps is 0: expected at least 1.",
    "train langevin --dataset DIGITS --num-particles 5": "--num-particles belongs to importance, not to langevin, which has --kernel, --step-si",
    "train thermo --dataset DIGITS --num-temperatures 1": "--num-temperatures is 1: expected at least 2.",
    "train thermo --dataset DIGITS --power 0": "--power is 0.0: expected more than 0.",
    "train thermo --dataset DIGITS --power 1,2,3": "power is [1.0, 2.0, 3.0]: expected none, one, or two numbers in order.",
    "train thermo --dataset DIGITS --power-period 0": "--power-period is 0: expected at least 1.",
    "train thermo --dataset DIGITS --objective elbo": "--objective is 'elbo': expected one of fisher",
    "train variational --dataset DIGITS --num-draws 0": "--num-draws is 0: expected at least 1.",
    "train variational --dataset DIGITS --kind latent-ebm": "mode is 'variational', but a latent-ebm is trained by langevin.",
    "train langevin --kind vae --dataset DIGITS": "mode is 'langevin', but a vae is trained by variational.",
    "train --resume run --run-dir other": "--run-dir and --resume exclude each other: a run keeps its own.",
    "train --resume bad": "dataset in bad/config.toml is 3: expected a string.",
    "train --resume run --learning-rate x": "--learning-rate is 'x': expected a number.",
    "train --resume afile": "afile is not the folder of a run: expected one with a config.toml in it.",
    "train vanilla --dataset CIFAR10": "is missing: download it by `kaem data CIFAR10`",
    "train vanilla --dataset SMS_SPAM --size 8": "--size concerns images, and SMS_SPAM has none",
    "train vanilla --dataset SVHN": "is missing: download it by `kaem data SVHN`",
    "train vanilla --dataset digits": "--dataset is 'digits': expected one of DIGITS",
    "sample": "the following arguments are required: RUN.",
    "sample run": "run has no checkpoint: continue it by `kaem train --resume run`.",
    "sample run --num-samples 0": "argument --num-samples: 0 is too small: expected at least 1.",
    "sample run --num-samples -5": "argument --num-samples: -5 is too small: expected at least 1.",
    "sample run --num-samples 1.5": "argument --num-samples: invalid whole number value: '1.5'.",
    "sample run --checkpoint first": "argument --checkpoint: invalid choice: 'first' (choose from 'last'",
    "sample run --out afile": "--out afile is a file: give a folder.",
    "sample run --out adir": "--out adir is not empty: give another folder, or --force to replace what is in it.",
    "sample run --out run --force": "--out run is the folder of a run: give another folder.",
    "sample run --force": "--force belongs to --out: without it results are never replaced",
    "sample run --out": "argument --out: expected one argument.",
    "sample bad": "dataset in bad/config.toml is 3: expected a string.",
    "sample afile": "afile is not the folder of a run: expected one with a config.toml in it.",
    "sample run extra": "unrecognized arguments: extra.",
    "sample run --seed x": "argument --seed: invalid whole number value: 'x'.",
    "sample run --seed -1": "--seed is -1: expected 0 to 4294967295.",
    "sample run --seed 4294967296": "--seed is 4294967296: expected 0 to 4294967295.",
    "sample run --method smc": "unrecognized arguments: --method smc.",
    "evaluate run --num-draws 0": "argument --num-draws: 0 is too small: expected at least 1.",
    "evaluate run --num-draws many": "argument --num-draws: invalid whole number value: 'many'.",
    "evaluate run --num-data 0": "argument --num-data: 0 is too small: expected at least 1.",
    "evaluate nowhere": "nowhere is not the folder of a run: expected one with a config.toml in it.",
    "evaluate run": "run has no checkpoint: continue it by `kaem train --resume run`.",
    "diagnose run --sampler hmc": "argument --sampler: invalid choice: 'hmc' (choose from 'mala'",
    "diagnose run --num-chains 0": "argument --num-chains: 0 is too small: expected at least 1.",
    "diagnose run --num-samples 0": "argument --num-samples: 0 is too small: expected at least 1.",
    "diagnose run --num-temperatures 0": "argument --num-temperatures: 0 is too small: expected at least 1.",
    "diagnose run --num-data x": "argument --num-data: invalid whole number value: 'x'.",
    "diagnose nowhere": "nowhere is not the folder of a run: expected one with a config.toml in it.",
    "evidence run --method nested": "argument --method: invalid choice: 'nested' (choose from 'tempering'",
    "evidence run --num-chains x": "argument --num-chains: invalid whole number value: 'x'.",
    "evidence run --num-samples -1": "argument --num-samples: -1 is too small: expected at least 1.",
    "evidence run --out adir": "--out adir is not empty: give another folder, or --force to replace what is in it.",
    "evidence": "the following arguments are required: RUN.",
    "plot": "the following arguments are required: RUN.",
    "plot nowhere": "nowhere is not the folder of a run: expected one with a config.toml in it.",
    "traverse run --num-latents 0": "argument --num-latents: 0 is too small: expected at least 1.",
    "traverse run --num-points 1": "argument --num-points: 1 is too small: expected at least 2.",
    "traverse run": "run has no checkpoint: continue it by `kaem train --resume run`.",
    "interpolate run --num-pairs x": "argument --num-pairs: invalid whole number value: 'x'.",
    "interpolate run --num-steps 0": "argument --num-steps: 0 is too small: expected at least 1.",
    "interpolate nowhere": "nowhere is not the folder of a run: expected one with a config.toml in it.",
    "plot run --num-samples 3": "unrecognized arguments: --num-samples 3.",
    "plot run --out adir": "--out adir is not empty: give another folder, or --force to replace what is in it.",
    "data": "the following arguments are required: DATASET.",
    "data digits": "argument DATASET: invalid choice: 'digits' (choose from 'DIGITS'",
    "data MNIST CIFAR10": "unrecognized arguments: CIFAR10.",
    "data DIGITS --force": "unrecognized arguments: --force.",
    "train-sequential": "the following arguments are required: FILE.",
    "train-sequential adir": "adir can't be read: expected a text file of lines DATASET MODE. [Errno 21] Is a direc",
    "train-sequential afile": "afile, line 1 is 'x': expected DATASET MODE, one of DIGITS, MNIST, FASHION_MNIST, CIF",
    "train-sequential nowhere.txt --epochs 3": "unrecognized arguments: --epochs 3.",
    "--verson": "the following arguments are required: COMMAND.",
    "Train": "argument COMMAND: invalid choice: 'Train' (choose from 'train'",
    "train-seq x": "argument COMMAND: invalid choice: 'train-seq' (choose from 'train'",
    "help": "argument COMMAND: invalid choice: 'help' (choose from 'train'",
    "train vanilla --dataset DIGITS --data-dir x": "unrecognized arguments: --data-dir x.",
    "train --resume run importance --dataset MNIST": "is missing: download it by `kaem data MNIST`",
    "evidence run --num-temperatures 1": "--num-temperatures is 1: expected at least 2",
    "evidence run --method smc --num-temperatures 4": "--num-temperatures belongs to tempering, not to --method smc",
    "diagnose run --num-temperatures 4": "--num-temperatures belongs to tempering, not to --sampler mala",
    "evidence run --num-samples 3": "--num-samples is 3: expected at least 4",
    "diagnose run --num-samples 3": "--num-samples is 3: expected at least 4",
    "train vanilla --dataset DIGITS --vocabulary-size 100": "--vocabulary-size concerns texts, and DIGITS has none",
    "train vanilla --dataset DIGITS --length 20": "--length concerns texts, and DIGITS has none",
    "train vanilla --dataset DIGITS --permeability lognormal": "--permeability concerns fields, and DIGITS has none",
    "train vanilla --dataset DARCY_FLOW --grey true": "--grey concerns images, and DARCY_FLOW has none",
    "train vanilla --dataset DIGITS --hidden ,": "--hidden is '': expected a whole number",
    "train vanilla --dataset DIGITS --num-test 5000": "--num-test is 5000, but DIGITS has 297 test data",
    "train vanilla --dataset DIGITS --num-latents 1000000000000": "--num-latents is 1000000000000: expected at most 2147483647.",
    "train vanilla --dataset DIGITS --hidden 8,1000000000000": "--hidden is 1000000000000: expected at most 2147483647.",
    "evaluate run --num-draws 10000000000": "argument --num-draws: 10000000000 is too large: expected at most 2147483647.",
    "train vanilla --dataset DIGITS --config circle": "circle can't be read: Too many levels of symbolic links.",
    "sample run --out circle": "--out circle is a link that leads nowhere: give a folder.",
    "sample run --out . --force": "--out . is the folder that you are in, or around it: give another folder.",
    "sample run --out / --force": "--out / is the folder that you are in, or around it: give another folder.",
    "sample run --out nest --force": "--out nest holds folders, such as inside, which no results do: give another folder.",
    "sample run --out run/pictures --force": "--out run/pictures belongs to the run around it: give another folder.",
    "sample file": "file/checkpoints is not a folder: expected that of a run's checkpoints.",
    "tune --dataset DIGITS --run-dir run": "run holds something else, such as ",
    "tune --dataset DIGITS --run-dir new --batch-size 1400": "batch_size is 1400, but a search trains on 1275 data",
}


def snapshot(folder):
    """Files with their content, and folders, but for those that hold runs and nothing else."""
    paths = [path for path in folder.rglob("*") if path.name not in ("runs", ".lock")]
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else None for path in paths}


@pytest.mark.parametrize("line", WRONG)
def test_one_line_says_what_is_wrong(line, tmp_path, monkeypatch, capsys):
    if line.startswith("tune"):
        pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAEM_DATA_DIR", str(tmp_path))
    for folder in ("run", "bad", "adir", "empty", "file", "nest/inside", "run/pictures"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("run", "file"):
        (tmp_path / folder / "config.toml").write_text(resolve("DIGITS", "importance", None, {}).to_toml())
    (tmp_path / "run" / "pictures" / "epoch-000001.png").write_text("")
    (tmp_path / "file" / "checkpoints").write_text("")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "bad" / "config.toml").write_text("dataset = 3")
    (tmp_path / "adir" / "x").write_text("")
    (tmp_path / "afile").write_text("x")
    before = snapshot(tmp_path)
    assert main(line.split()) == 2
    output = capsys.readouterr()
    # A run without a checkpoint says that it starts from the beginning.
    assert output.out == "" or line.startswith("train --resume run")
    assert output.err.count("\n") == 1
    assert output.err.startswith("kaem: ")
    assert WRONG[line] in output.err
    # Nothing is lost, and nothing is left behind.
    assert snapshot(tmp_path) == before


WRONG_FILES = {
    "num_epochs = 3": "has 'num_epochs': expected dataset, mode, seed, [data]",
    "[training]\nepochs = 3": "has 'epochs' in [training]: expected one of num_epochs",
    "[training]\nnum_epochs = 'x'": "num_epochs in mine.toml is 'x': expected a whole number",
    "[training]\nnum_epochs = true": "num_epochs in mine.toml is True: expected a whole number",
    "[model]\nhidden = 3": "hidden in mine.toml is 3: expected a list of whole numbers",
    "[model]\nhidden = [1.5]": "hidden in mine.toml is 1.5: expected a whole number",
    "training = 3": "has training = 3: expected a table, [training]",
    "[training": "mine.toml is not TOML",
    "seed = 0.5": "seed in mine.toml is 0.5: expected a whole number",
    "seed = 4294967296": "seed in mine.toml is 4294967296: expected 0 to 4294967295",
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_one_line_says_what_is_wrong_in_a_file(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(text)
    assert main(["train", "vanilla", "--dataset", "DIGITS", "--config", "mine.toml"]) == 2
    error = capsys.readouterr().err
    assert WRONG_FILES[text] in error
    assert error.count("\n") == 1


WRONG_JOBS = {
    "DIGITS": "line 1 is 'DIGITS': expected DATASET MODE",
    "# nothing\n": "has no job",
    "DIGITS vanilla\nDIGTS vanilla": "line 2 is 'DIGTS vanilla': expected DATASET MODE",
    "DIGITS vanilla --scale 0": "line 1: --scale is 0.0: expected more than 0",
    "DIGITS vanilla --resume x": "line 1: --resume and --distributed have no meaning here",
    "DIGITS vanilla 'unclosed": "line 1: No closing quotation",
    "DIGITS vanilla --vocabulary-size 100": "line 1: --vocabulary-size concerns texts, and DIGITS has none",
}


@pytest.mark.parametrize("text", WRONG_JOBS)
def test_one_line_says_what_is_wrong_with_jobs(text, tmp_path, capsys):
    file = tmp_path / "jobs.txt"
    file.write_text(text)
    assert main(["train-sequential", str(file)]) == 2
    assert WRONG_JOBS[text] in capsys.readouterr().err


def test_the_list_is_long():
    assert len(WRONG) + len(WRONG_FILES) + len(WRONG_JOBS) >= 120
