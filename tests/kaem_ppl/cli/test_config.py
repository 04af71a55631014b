"""Settings: presets that are complete, files and flags that go over them, and help."""

import pytest

from kaem_ppl.cli import main
from kaem_ppl.cli.building.model import build_strategy
from kaem_ppl.cli.parser import given_flags, parse_arguments
from kaem_ppl.cli.settings.config import PRESET_NAMES, differences, flags, parse_config, resolve
from kaem_ppl.cli.settings.tables import STRATEGIES
from kaem_ppl.models import DATASETS


@pytest.mark.parametrize("dataset", DATASETS)
def test_presets_survive_being_written_and_read(dataset):
    for mode in STRATEGIES:
        for preset in PRESET_NAMES:
            config = resolve(dataset, mode, None, {}, preset=preset)
            assert parse_config(config.to_toml(), "text") == config


def test_presets_of_the_papers_are_those_of_the_table():
    mnist, cifar10, darcy = (resolve(x, "thermo", None, {}, preset="paper") for x in ("MNIST", "CIFAR10", "DARCY_FLOW"))
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


@pytest.mark.parametrize(
    "command",
    [
        "",
        "train",
        "train-sequential",
        "tune",
        "convert",
        "data",
        "sample",
        "evaluate",
        "diagnose",
        "evidence",
        "plot",
        "report",
        "traverse",
        "interpolate",
    ],
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "usage: kaem" in text
    assert command != "train" or all(f"--{name}" in text for name in flags())
