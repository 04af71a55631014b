"""The search for settings: what it leaves, that it goes on, and that its best settings train."""

import json
from pathlib import Path

import pytest

pytest.importorskip("optuna")
pytest.importorskip("grain")
pytest.importorskip("sklearn")
from kaem_ppl.cli import main
from kaem_ppl.cli.commands.tune import _suggest
from kaem_ppl.cli.settings.config import read_config, resolve

TINY = (
    "--dataset DIGITS --num-train 600 --hidden 8 --encoder-hidden 8 --num-latents 2 --num-epochs 2 --num-particles 20"
)


class Choices:
    """Stands for a trial: the last of every list, and the upper end of every range."""

    def suggest_categorical(self, name, choices):
        return choices[-1]

    def suggest_float(self, name, low, high, log):
        return high


def test_what_is_given_is_not_searched():
    given = {"scale": "0.3", "num-particles": "20", "kernel": "hmc"}
    mode, file, flags = _suggest(Choices(), given)
    assert (mode, file) == ("langevin", None)
    # Particles belong to another mode; the kernel is kept, and has its number of steps.
    assert flags == {
        "scale": "0.3", "learn-scale": "one", "learning-rate": "0.01", "schedule": "cosine", "average": "0.998",
        "kernel": "hmc", "persistent": "true", "num-steps": "4", "step-size": "0.05",
    }  # fmt: skip
    config = resolve("DIGITS", mode, file, flags)
    assert (config.model.scale, config.strategy.kernel, config.training.average) == (0.3, "hmc", 0.998)


@pytest.mark.exhaustive
def test_a_search_goes_on_and_its_best_settings_train(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(f"tune {TINY} --run-dir search --trials 1".split()) == 0
    assert main(f"tune {TINY} --run-dir search --trials 2".split()) == 0
    lines = [json.loads(line) for line in Path("search/trials.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines] == [0, 1]
    best = min((line for line in lines if line["state"] == "complete"), key=lambda line: line["value"])
    config = read_config(Path("search/best.toml"))
    assert (config.mode, config.model.hidden) == (best["mode"], (8,))
    assert config.training.learning_rate == pytest.approx(best["learning-rate"])
    assert main(["train", "--config", "search/best.toml", "--num-train", "100", "--run-dir", "trained"]) == 0
    capsys.readouterr()
    assert main(f"tune {TINY} --num-train 500 --run-dir few".split()) == 2
    assert "A search holds back 15% of the data, 75: expected at least 80" in capsys.readouterr().err
