"""The settings of a run: read from presets, files and flags, checked, and written down again."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from ..models import DATASETS
from .errors import CommandError

PRESETS = Path(__file__).parent / "presets"
BASES = ("RBF", "BSpline", "Fourier", "Chebyshev", "RSWAF", "Morlet")
# How "no value" is written, in files and flags.
_NONE = "none"


def _setting(default, text, *, choices=None, least=None, above=None, most=None):
    limits = {"choices": choices, "least": least, "above": above, "most": most}
    return field(default=default, metadata={"help": text, **limits})


@dataclass(frozen=True)
class DataSettings:
    """What is made of the files of a data set; settings that do not concern it are not looked at."""

    num_train: int | None = _setting(None, "random data to train on; none takes all", least=1)
    num_test: int | None = _setting(None, "random data to test on; none takes all", least=1)
    size: int | None = _setting(None, "height and width that images are resized to, or fields solved at", least=1)
    grey: bool = _setting(False, "whether colours are turned into grey levels")
    stream: bool = _setting(False, "whether batches are read from a file, not from the device's memory")
    length: int = _setting(500, "tokens of a text", least=1)
    vocabulary_size: int = _setting(500, "tokens to tell apart", least=2)
    permeability: str = _setting("threshold", "of the medium that flows pass", choices=("threshold", "lognormal"))


@dataclass(frozen=True)
class ModelSettings:
    """Prior, generator and likelihood."""

    kind: str = _setting("kaem", "kaem, or a baseline", choices=("kaem", "vae", "latent-ebm"))
    layout: str = _setting("product", "of a KAEM's latent", choices=("product", "mixture"))
    num_latents: int = _setting(81, "Q, inputs of the generator", least=1)
    num_components: int = _setting(40, "P, latents or mixture components of each input", least=1)
    basis: str = _setting("RBF", "of the prior's energies", choices=BASES)
    num_basis: int = _setting(20, "points of the grid, frequencies, or degree", least=1)
    domain: tuple[float, ...] = _setting((-1.2, 1.2), "where the energies are learnt")
    reference: str = _setting(
        "uniform", "what the prior tilts: flat on the domain, or the standard one",
        choices=("uniform", "normal", "lognormal"),
    )  # fmt: skip
    generator: str = _setting("kan", "from latents to data", choices=("kan", "mlp", "conv", "sequence"))
    hidden: tuple[int, ...] = _setting((162,), "units of hidden layers, or channels of maps", least=1)
    width: int = _setting(512, "numbers that describe a position of a sequence", least=1)
    num_heads: int = _setting(8, "attention heads", least=1)
    num_layers: int = _setting(2, "attention blocks", least=1)
    scale: float = _setting(0.2, "standard deviation of data around the generator's output", above=0)
    energy_hidden: tuple[int, ...] = _setting((200, 200), "hidden layers of a latent-ebm's energy", least=1)
    encoder_hidden: tuple[int, ...] = _setting((256, 256), "hidden layers of the encoder", least=1)


@dataclass(frozen=True)
class VanillaSettings:
    """Importance sampling: `ImportanceMLE`."""

    num_particles: int = _setting(100, "prior draws of each step", least=1)
    ess_threshold: float = _setting(0.0, "resample where the effective size falls below this fraction", least=0, most=1)
    resampler: str = _setting("residual", "how to resample", choices=("residual", "systematic", "stratified"))


@dataclass(frozen=True)
class LangevinSettings:
    """Markov chains: `LangevinMLE`."""

    kernel: str = _setting("ula", "unadjusted or Metropolis-adjusted Langevin", choices=("ula", "mala"))
    step_size: float = _setting(0.01, "of the kernel; mala adapts it from there", above=0)
    num_steps: int = _setting(40, "steps of each visit to a datum", least=1)
    persistent: bool = _setting(False, "whether chains go on from visit to visit, or start from the prior")


@dataclass(frozen=True)
class ThermoSettings(LangevinSettings):
    """Tempered populations: `ThermodynamicMLE`."""

    num_temperatures: int = _setting(5, "replicas of each datum", least=2)
    power: tuple[float, ...] = _setting(
        (), "p of the ladder (k / N)^p; two numbers, to swing between; empty adapts it", above=0
    )
    power_period: int = _setting(10, "epochs in which the power swings from one to the other and back", least=1)
    objective: str = _setting("fisher", "what is climbed", choices=("fisher", "thermodynamic", "steppingstone"))

    def __post_init__(self):
        if len(self.power) > 2 or sorted(self.power) != list(self.power):
            raise CommandError(f"power is {list(self.power)}: expected none, one, or two numbers in order.")


@dataclass(frozen=True)
class VariationalSettings:
    """An encoder: `VariationalMLE`."""

    num_draws: int = _setting(1, "draws of the encoder for each datum", least=1)


@dataclass(frozen=True)
class TrainingSettings:
    """Optimiser and checkpoints."""

    num_epochs: int = _setting(20, "passes through the data", least=1)
    batch_size: int = _setting(100, "data of each step", least=1)
    learning_rate: float = _setting(1e-3, "of Adam", above=0)
    schedule: str = _setting("constant", "of the learning rate", choices=("constant", "cosine"))
    clip_norm: float | None = _setting(None, "largest norm of a gradient; none does not clip", above=0)
    checkpoint_minutes: float = _setting(1.0, "from one checkpoint to the next, inside epochs too", least=0)
    keep_checkpoints: int = _setting(3, "checkpoints kept beside the best", least=1)


STRATEGIES = {
    "vanilla": VanillaSettings,
    "langevin": LangevinSettings,
    "thermo": ThermoSettings,
    "variational": VariationalSettings,
}
_TABLES = {"data": DataSettings, "model": ModelSettings, "training": TrainingSettings, **STRATEGIES}
# Strategies that fit a model.
_MODES_OF = {"kaem": tuple(STRATEGIES), "vae": ("variational",), "latent-ebm": ("langevin",)}


@dataclass(frozen=True)
class Config:
    """All settings of a run.

    Attributes:
        dataset: name in `DATASETS`.
        mode: how it is trained.
        seed: of all that is random.
        data: of the data.
        model: of the model.
        strategy: of the mode.
        training: of the optimiser.
    """

    dataset: str
    mode: str
    seed: int
    data: DataSettings
    model: ModelSettings
    strategy: VanillaSettings | LangevinSettings | VariationalSettings
    training: TrainingSettings

    def __post_init__(self):
        _check_choice("dataset", self.dataset, tuple(DATASETS))
        _check_choice("mode", self.mode, tuple(STRATEGIES))
        if self.seed < 0:
            raise CommandError(f"seed is {self.seed}: expected 0 or more.")
        domain = self.model.domain
        if len(domain) != 2 or not domain[0] < domain[1]:
            raise CommandError(f"domain is {list(domain)}: expected two numbers in order.")
        if self.mode not in _MODES_OF[self.model.kind]:
            expected = " or ".join(_MODES_OF[self.model.kind])
            raise CommandError(f"mode is {self.mode!r}, but a {self.model.kind} is trained by {expected}.")

    def to_toml(self) -> str:
        """The settings as a file that `read_config` reads."""
        tables = {"data": self.data, "model": self.model, self.mode: self.strategy, "training": self.training}
        lines = [f"dataset = {_to_toml(self.dataset)}", f"mode = {_to_toml(self.mode)}", f"seed = {self.seed}"]
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{key} = {_to_toml(x)}" for key, x in dataclasses.asdict(table).items())]
        return "\n".join(lines) + "\n"


def flags() -> dict[str, list[tuple[str, dataclasses.Field]]]:
    """By the flag's name without dashes, tables that have such a setting, and the setting there."""
    found: dict[str, list[tuple[str, dataclasses.Field]]] = {}
    for table, settings in _TABLES.items():
        for setting in dataclasses.fields(settings):
            name = "model" if (table, setting.name) == ("model", "kind") else setting.name.replace("_", "-")
            found.setdefault(name, []).append((table, setting))
    return found


def resolve(
    dataset: str | None, mode: str | None, file: Path | None, given: Mapping[str, str], seed: str | None = None
) -> Config:
    """Put a preset, a file over it, and flags over both together.

    Args:
        dataset: name of the data set; None takes the file's.
        mode: of training; None takes the file's.
        file: TOML, or None.
        given: values of flags, as they were written, by the flag's name without dashes.
        seed: as it was written, or None.

    Raises:
        CommandError: something is missing, unknown, or of another type or value than expected.
    """
    from_file = {} if file is None else _read_tables(file)
    dataset, mode = dataset or from_file.get("dataset"), mode or from_file.get("mode")
    if mode is None:
        raise CommandError(f"The mode of training is missing: expected one of {', '.join(STRATEGIES)}.")
    _check_choice("mode", mode, tuple(STRATEGIES))
    if dataset is None:
        raise CommandError(f"--dataset is missing: expected one of {', '.join(DATASETS)}.")
    _check_choice("--dataset", dataset, tuple(DATASETS))
    preset = _read_tables(PRESETS / f"{dataset.lower()}.toml")
    used = ("data", "model", mode, "training")
    tables = {name: {**preset.get(name, {}), **from_file.get(name, {})} for name in used}
    known = flags()
    for flag, text in given.items():
        places = [(table, setting) for table, setting in known[flag] if table in used]
        if not places:
            owners = " and ".join(table for table, _ in known[flag])
            own = ", ".join(f"--{name}" for name, places in known.items() if mode in [table for table, _ in places])
            raise CommandError(f"--{flag} belongs to {owners}, not to {mode}, which has {own}.")
        for table, setting in places:
            tables[table][setting.name] = _parse(f"--{flag}", text, setting)
    seed = from_file.get("seed", 0) if seed is None else _parse_as("--seed", seed, int)
    settings = {name: _TABLES[name](**values) for name, values in tables.items()}
    return Config(dataset, mode, seed, settings["data"], settings["model"], settings[mode], settings["training"])


def read_config(file: Path) -> Config:
    """Read what `Config.to_toml` wrote.

    Raises:
        CommandError: the file is missing, or something in it is unknown, or of another type or value than expected.
    """
    return parse_config(_read(file), str(file))


def parse_config(text: str, source: str) -> Config:
    """Parse what `Config.to_toml` made; `source` names it in messages. Raises as `read_config` does."""
    tables = _parse_tables(text, source)
    missing = [name for name in ("dataset", "mode") if name not in tables]
    if missing:
        raise CommandError(f"{source} lacks {missing[0]}.")
    mode = tables["mode"]
    _check_choice(f"mode in {source}", mode, tuple(STRATEGIES))
    data, model, strategy, training = (_TABLES[x](**tables.get(x, {})) for x in ("data", "model", mode, "training"))
    return Config(tables["dataset"], mode, tables.get("seed", 0), data, model, strategy, training)


def differences(old: Config, new: Config, ignored: tuple[str, ...] = ()) -> list[tuple[str, Any, Any]]:
    """Names of settings that differ, each with its old and its new value."""
    if (old.dataset, old.mode) != (new.dataset, new.mode):
        return [("dataset and mode", f"{old.dataset} {old.mode}", f"{new.dataset} {new.mode}")]
    found = [] if old.seed == new.seed else [("seed", old.seed, new.seed)]
    for table in ("data", "model", "strategy", "training"):
        before, after = (dataclasses.asdict(getattr(config, table)) for config in (old, new))
        found += [(key, x, after[key]) for key, x in before.items() if x != after[key] and key not in ignored]
    return found


def _read(file):
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CommandError(f"{file} does not exist: expected a TOML file with settings.") from None
    except IsADirectoryError:
        raise CommandError(f"{file} is a folder: expected a TOML file with settings.") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not TOML: {error}.") from None


def _read_tables(file):
    return _parse_tables(_read(file), str(file))


def _parse_tables(text, file):
    """Checked values by table, and `dataset`, `mode` and `seed`."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"{file} is not TOML: {error}.") from None
    tables = {}
    for name, value in content.items():
        if name in ("dataset", "mode", "seed"):
            tables[name] = _check_type(f"{name} in {file}", value, int if name == "seed" else str)
        elif name not in _TABLES:
            expected = ", ".join(("dataset", "mode", "seed", *(f"[{table}]" for table in _TABLES)))
            raise CommandError(f"{file} has {name!r}: expected {expected}.")
        elif not isinstance(value, dict):
            raise CommandError(f"{file} has {name} = {value!r}: expected a table, [{name}].")
        else:
            tables[name] = _check_table(file, name, value)
    return tables


def _check_table(file, table, values):
    settings = {setting.name: setting for setting in dataclasses.fields(_TABLES[table])}
    for key in values:
        if key not in settings:
            raise CommandError(f"{file} has {key!r} in [{table}]: expected one of {', '.join(settings)}.")
    return {key: _check(f"{key} in {file}", value, settings[key]) for key, value in values.items()}


def _parse(name, text, setting):
    kinds = _kinds(setting.type)
    if type(None) in kinds and text == _NONE:
        return None
    return _check(name, _parse_as(name, text, kinds[0]), setting)


def _parse_as(name, text, kind):
    element = get_args(kind)
    if element:
        return tuple(_parse_as(name, part, element[0]) for part in text.split(",") if part.strip())
    if kind is bool:
        if text not in ("true", "false"):
            raise CommandError(f"{name} is {text!r}: expected true or false.")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        raise CommandError(f"{name} is {text!r}: expected {_in_words(kind)}.") from None


def _check(name, value, setting):
    """A value of the right type and in its range."""
    kinds = _kinds(setting.type)
    if type(None) in kinds and (value is None or value == _NONE):
        return None
    value = _check_type(name, value, kinds[0])
    limits = setting.metadata
    if limits["choices"]:
        _check_choice(name, value, limits["choices"])
    for x in value if isinstance(value, tuple) else (value,):
        if limits["least"] is not None and not x >= limits["least"]:
            raise CommandError(f"{name} is {x}: expected at least {limits['least']}.")
        if limits["above"] is not None and not x > limits["above"]:
            raise CommandError(f"{name} is {x}: expected more than {limits['above']}.")
        if limits["most"] is not None and not x <= limits["most"]:
            raise CommandError(f"{name} is {x}: expected at most {limits['most']}.")
    return value


def _check_type(name, value, kind):
    element = get_args(kind)
    if element and isinstance(value, list | tuple):
        return tuple(_check_type(name, x, element[0]) for x in value)
    if kind is float and type(value) is int:
        value = float(value)
    if element or type(value) is not kind:
        raise CommandError(f"{name} is {value!r}: expected {_in_words(kind)}.")
    return value


def _check_choice(name, value, choices):
    if value not in choices:
        raise CommandError(f"{name} is {value!r}: expected one of {', '.join(choices)}.")


def _kinds(annotation):
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _in_words(kind):
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    return words[kind] if kind in words else f"a list of {'whole numbers' if int in get_args(kind) else 'numbers'}"


def _to_toml(value):
    if value is None:
        return f'"{_NONE}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_to_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
