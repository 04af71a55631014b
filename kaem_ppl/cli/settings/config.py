"""All settings of a run: combined from preset, file and flags, compared with each other, written and read."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models import DATASETS, DarcyFlow, PennTreebank, SMSSpam
from ..errors import CommandError
from .parsing import check_choice, check_seed, parse_as, parse_flag, parse_tables, read_text, to_toml
from .tables import (
    MODE_ALIASES,
    MODES_OF_KIND,
    STRATEGIES,
    TABLES,
    DataSettings,
    ModelSettings,
    StrategySettings,
    TrainingSettings,
)

PRESETS = Path(__file__).parent.parent / "presets"
PRESET_NAMES = ("best", "paper")


@dataclass(frozen=True)
class Config:
    """All settings of a run.

    Attributes:
        dataset: name in `DATASETS`.
        mode: training strategy, a name in `STRATEGIES`.
        seed: random seed.
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
    strategy: StrategySettings
    training: TrainingSettings

    def __post_init__(self) -> None:
        check_choice("dataset", self.dataset, tuple(DATASETS))
        check_choice("mode", self.mode, tuple(STRATEGIES))
        check_seed("seed", self.seed)
        domain = self.model.domain
        if len(domain) != 2 or not domain[0] < domain[1]:
            raise CommandError(f"domain is {list(domain)}: expected two numbers in order.")
        if self.mode not in MODES_OF_KIND[self.model.kind]:
            expected = " or ".join(MODES_OF_KIND[self.model.kind])
            raise CommandError(f"mode is {self.mode!r}, but a {self.model.kind} is trained by {expected}.")

    def to_toml(self) -> str:
        """The settings as a file that `read_config` reads."""
        tables = {"data": self.data, "model": self.model, self.mode: self.strategy, "training": self.training}
        lines = [f"dataset = {to_toml(self.dataset)}", f"mode = {to_toml(self.mode)}", f"seed = {self.seed}"]
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{key} = {to_toml(x)}" for key, x in dataclasses.asdict(table).items())]
        return "\n".join(lines) + "\n"


def flags() -> dict[str, list[tuple[str, dataclasses.Field]]]:
    """By the flag's name without dashes, the tables that have such a setting, and the setting there."""
    found: dict[str, list[tuple[str, dataclasses.Field]]] = {}
    for table, settings in TABLES.items():
        for setting in dataclasses.fields(settings):
            found.setdefault(setting.name.replace("_", "-"), []).append((table, setting))
    return found


def resolve(
    dataset: str | None,
    mode: str | None,
    file: Path | None,
    given: Mapping[str, str],
    seed: str | None = None,
    preset: str = "best",
) -> Config:
    """Combine a preset, a file that overrides it, and flags that override both.

    Args:
        dataset: name of the data set; None takes the file's.
        mode: of training; None takes the file's.
        file: TOML, or None.
        given: values of flags, as they were written, by the flag's name without dashes.
        seed: as it was written, or None.
        preset: `best`, the best settings that are known here, or `paper`, the papers'; a data set that has one
            of the two takes that.

    Raises:
        CommandError: something is missing, unknown, or of another type or value than expected.
    """
    from_file = {} if file is None else parse_tables(read_text(file), str(file))
    dataset = from_file.get("dataset") if dataset is None else dataset
    mode = from_file.get("mode") if mode is None else mode
    if mode is None:
        raise CommandError(f"The mode of training is missing: expected one of {', '.join(STRATEGIES)}.")
    name: str = MODE_ALIASES.get(mode, mode)
    check_choice("mode", name, tuple(STRATEGIES))
    if dataset is None:
        raise CommandError(f"--dataset is missing: expected one of {', '.join(DATASETS)}.")
    check_choice("--dataset", dataset, tuple(DATASETS))
    from_preset = read_preset(dataset, preset)
    used = ("data", "model", name, "training")
    tables = {table: {**from_preset.get(table, {}), **from_file.get(table, {})} for table in used}
    known = flags()
    for flag, text in given.items():
        places = [(table, setting) for table, setting in known[flag] if table in used]
        if not places:
            owners = " and ".join(table for table, _ in known[flag])
            own = ", ".join(f"--{x}" for x, places in known.items() if name in [table for table, _ in places])
            raise CommandError(f"--{flag} belongs to {owners}, not to {name}, which has {own}.")
        if setting_of_others(flag, dataset):
            raise CommandError(
                f"--{flag} concerns {setting_of_others(flag, dataset)}, and {dataset} has none: leave it out."
            )
        for table, setting in places:
            tables[table][setting.name] = parse_flag(f"--{flag}", text, setting)
    number = from_file.get("seed", 0) if seed is None else check_seed("--seed", parse_as("--seed", seed, int))
    return _make(dataset, name, number, tables)


def read_preset(dataset: str, preset: str) -> dict[str, Any]:
    """Tables of a preset, `best` or `paper`; of a data set that has one of the two, that one."""
    check_choice("--preset", preset, PRESET_NAMES)
    best, paper = (folder / f"{dataset.lower()}.toml" for folder in (PRESETS, PRESETS / "paper"))
    order = (best, paper) if preset == "best" else (paper, best)
    file = next(path for path in order if path.is_file())
    return parse_tables(read_text(file), str(file))


def setting_of_others(flag: str, dataset: str) -> str:
    """What a flag of the data concerns where the data set has nothing of that kind; else nothing."""
    source = DATASETS[dataset]
    is_text, is_field = isinstance(source, SMSSpam | PennTreebank), isinstance(source, DarcyFlow)
    if flag in ("length", "vocabulary-size") and not is_text:
        return "texts"
    if flag == "permeability" and not is_field:
        return "fields"
    if is_text:
        return "images" if flag in ("grey", "size", "sample-every") else ""
    return "images" if flag == "grey" and is_field else ""


def read_config(file: Path) -> Config:
    """Read a file of `Config.to_toml`.

    Raises:
        CommandError: the file is missing, or something in it is unknown, or of another type or value than expected.
    """
    return parse_config(read_text(file), str(file))


def parse_config(text: str, source: str) -> Config:
    """Parse a text of `Config.to_toml`; `source` names it in messages. Raises as `read_config` does."""
    tables = parse_tables(text, source)
    missing = [name for name in ("dataset", "mode") if name not in tables]
    if missing:
        raise CommandError(f"{source} lacks {missing[0]}.")
    mode: str = tables["mode"]
    mode = MODE_ALIASES.get(mode, mode)
    check_choice(f"mode in {source}", mode, tuple(STRATEGIES))
    return _make(tables["dataset"], mode, tables.get("seed", 0), tables)


def _make(dataset: str, mode: str, seed: int, tables: Mapping[str, Mapping[str, Any]]) -> Config:
    data, model, strategy, training = (TABLES[x](**tables.get(x, {})) for x in ("data", "model", mode, "training"))
    return Config(dataset, mode, seed, data, model, strategy, training)


def differences(old: Config, new: Config, ignored: tuple[str, ...] = ()) -> list[tuple[str, Any, Any]]:
    """Names of settings that differ, each with its old and its new value."""
    if (old.dataset, old.mode) != (new.dataset, new.mode):
        return [("dataset and mode", f"{old.dataset} {old.mode}", f"{new.dataset} {new.mode}")]
    found: list[tuple[str, Any, Any]] = [] if old.seed == new.seed else [("seed", old.seed, new.seed)]
    for table in ("data", "model", "strategy", "training"):
        before, after = (dataclasses.asdict(getattr(config, table)) for config in (old, new))
        found += [(key, x, after[key]) for key, x in before.items() if x != after[key] and key not in ignored]
    return found
