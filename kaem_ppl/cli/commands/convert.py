"""`kaem convert`: settings of an earlier KAEM program as settings of this one, with a remark on each key that differs."""

import sys
from pathlib import Path
from typing import Any

from ..conversion import jax, julia
from ..errors import CommandError
from ..messages import print_result
from ..settings.config import Config, parse_config
from ..settings.parsing import read_text, to_toml

_FORMATS = (".ini", ".yaml", ".yml")


def convert(file: Path, dataset: str | None, mode: str | None, out: Path | None, force: bool) -> None:
    """Write the settings to a file or to standard output, and the remarks to standard error.

    Args:
        file: INI of the Julia program or YAML of the JAX one, by its ending.
        dataset: name here; None takes the file's.
        mode: `vanilla` or `thermo`; None takes `thermo` where the file has temperatures.
        out: file to write; None prints.
        force: whether to replace it.

    Raises:
        CommandError: a file is missing, is of another format, has unknown keys or values, or is there already.
    """
    if out is not None and out.exists() and not force:
        raise CommandError(f"{out} exists: give another --out, or --force to replace it.")
    config, remarks = convert_settings(file, dataset, mode)
    for remark in remarks:
        print(remark, file=sys.stderr)
    if out is None:
        print_result(config.to_toml().rstrip())
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(config.to_toml(), encoding="utf-8")
    print_result(f"settings in {out}; train by `kaem train --config {out}`")


def convert_settings(file: Path, dataset: str | None = None, mode: str | None = None) -> tuple[Config, list[str]]:
    """The settings, and a line for each key that has no counterpart, is not used, or has another value here."""
    ending = file.suffix.lower()
    if ending not in _FORMATS:
        raise CommandError(f"{file} ends in {ending!r}: expected one of {', '.join(_FORMATS)}.")
    text = read_text(file, f"{ending} file with settings of an earlier program")
    seed = 0
    if ending == ".ini":
        old = julia.read_ini(file, text)
        name, mode, tables = julia.convert(old, dataset, mode)
    else:
        old = jax.read_yaml(file, text)
        name, mode, tables, seed = jax.convert(old, dataset, mode)
    # What `kaem train` would refuse is refused here.
    return parse_config(_to_toml(name, mode, seed, tables), f"what {file} becomes"), old.remarks


def _to_toml(dataset: str, mode: str, seed: int, tables: dict[str, dict[str, Any]]) -> str:
    lines = [f"dataset = {to_toml(dataset)}", f"mode = {to_toml(mode)}", f"seed = {seed}"]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {to_toml(value)}" for key, value in table.items())]
    return "\n".join(lines)
