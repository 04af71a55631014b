"""Settings: presets that are complete, what may be said wrongly, and the words that are used then."""

import pytest

from kaem_ppl.cli import main
from kaem_ppl.cli.building.model import build_strategy
from kaem_ppl.cli.parser import given_flags, parse_arguments
from kaem_ppl.cli.settings.config import differences, flags, parse_config, resolve
from kaem_ppl.cli.settings.tables import STRATEGIES
from kaem_ppl.models import DATASETS


@pytest.mark.parametrize("dataset", DATASETS)
def test_presets_survive_being_written_and_read(dataset):
    for mode in STRATEGIES:
        config = resolve(dataset, mode, None, {})
        assert parse_config(config.to_toml(), "text") == config


def test_presets_are_those_of_the_table():
    mnist, cifar10, darcy = (resolve(x, "thermo", None, {}) for x in ("MNIST", "CIFAR10", "DARCY_FLOW"))
    assert (mnist.model.num_components, mnist.model.num_latents, mnist.model.hidden) == (40, 81, (162,))
    assert (cifar10.model.layout, cifar10.model.basis, cifar10.model.domain) == ("mixture", "Fourier", (-1.5, 1.5))
    assert cifar10.strategy.power == (1.0, 8.0)
    assert (darcy.model.reference, darcy.model.num_basis, darcy.training.num_epochs) == ("lognormal", 30, 500)


def test_a_file_goes_over_the_preset_and_a_flag_over_both(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('dataset = "DIGITS"\nmode = "vanilla"\nseed = 3\n[training]\nnum_epochs = 7\nbatch_size = 50\n')
    config = resolve(None, None, file, {"batch-size": "25", "hidden": "8,9", "clip-norm": "none"}, None)
    assert (config.seed, config.training.num_epochs, config.training.batch_size) == (3, 7, 25)
    assert config.model.hidden == (8, 9)
    assert config.training.clip_norm is None
    assert config.model.domain == (-3.0, 3.0)
    assert resolve(None, None, file, {}, "4").seed == 4


def test_negative_values_need_no_equals_sign(tmp_path):
    options = parse_arguments(["train", "vanilla", "--dataset", "DIGITS", "--domain", "-3,3"])
    assert resolve(options.dataset, options.mode, None, given_flags(options)).model.domain == (-3.0, 3.0)
    # The reference implementation's name of the mode.
    assert resolve("DIGITS", "vanilla", None, {}) == resolve("DIGITS", "importance", None, {})


def test_the_version_and_the_exit_status_are_printed(capsys):
    for word, expected in (("--version", "kaem-ppl 0."), ("--help", "143 by SIGTERM")):
        with pytest.raises(SystemExit) as stop:
            main([word])
        assert stop.value.code == 0
        assert expected in capsys.readouterr().out


def test_the_metropolis_adjusted_kernel_adapts_from_the_given_step_size():
    model, dataset = None, None
    for mode in ("langevin", "thermo"):
        config = resolve("DIGITS", mode, None, {"kernel": "mala", "step-size": "0.003"})
        strategy = build_strategy(config, model, dataset)
        assert strategy.kernel.adapts
        assert strategy.initial_step_size == 0.003
        assert build_strategy(resolve("DIGITS", mode, None, {}), model, dataset).kernel.step_size == 0.01


def test_a_flag_s_name_means_one_thing():
    # Law: settings of one name have one type and one meaning, or a flag for all of them would not be clear.
    for name, places in flags().items():
        assert len({(setting.type, setting.metadata["help"]) for _, setting in places}) == 1, name


def test_what_differs():
    old = resolve("DIGITS", "vanilla", None, {})
    new = resolve("DIGITS", "vanilla", None, {"scale": "0.3", "num-epochs": "9"}, "1")
    assert differences(old, old) == []
    assert differences(old, new, ("num_epochs",)) == [("seed", 0, 1), ("scale", 0.2, 0.3)]


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
    "train vanilla --dataset DIGITS --seed x": "--seed is 'x': expected a whole number",
    "train vanilla --dataset DIGITS --config none.toml": "none.toml does not exist: expected a TOML file",
    "train vanilla --dataset DIGITS --num-basis 1": "--num-basis is 1, but num_grid=1 for RBF: expected at least 2",
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
}


@pytest.mark.parametrize("line", WRONG)
def test_one_line_says_what_is_wrong(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAEM_DATA_DIR", str(tmp_path))
    assert main(line.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert WRONG[line] in output.err
    # And no run is left behind.
    assert not any((tmp_path / "runs").glob("*"))


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


@pytest.mark.parametrize(
    "command", ["", "train", "train-sequential", "data", "sample", "evaluate", "diagnose", "evidence", "plot"]
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "usage: kaem" in text
    assert command != "train" or all(f"--{name}" in text for name in flags())


WRONG_JOBS = {
    "DIGITS": "line 1 is 'DIGITS': expected DATASET MODE",
    "# nothing\n": "has no job",
    "DIGITS vanilla\nDIGTS vanilla": "line 2 is 'DIGTS vanilla': expected DATASET MODE",
    "DIGITS vanilla --scale 0": "line 1: --scale is 0.0: expected more than 0",
    "DIGITS vanilla --resume x": "line 1: --resume and --distributed have no meaning here",
}


@pytest.mark.parametrize("text", WRONG_JOBS)
def test_one_line_says_what_is_wrong_with_jobs(text, tmp_path, capsys):
    file = tmp_path / "jobs.txt"
    file.write_text(text)
    assert main(["train-sequential", str(file)]) == 2
    assert WRONG_JOBS[text] in capsys.readouterr().err
