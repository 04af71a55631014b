"""Parse and check single values: from the words of a flag or a TOML file to the type and range of a setting, and back.

Hand-written, because the messages name the flag or the key as the user wrote it; Python reads TOML but does not write it.
"""

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from ..errors import CommandError
from .tables import TABLES

# "No value", in files and flags.
_NONE = "none"
# Keys are 32 bits wide: a larger seed would repeat the numbers of a smaller one.
MAX_SEED = 2**32 - 1
# Sizes and numbers of steps are counted in 32 bits.
MAX_COUNT = 2**31 - 1


def read_text(file: Path, kind: str = "TOML file with settings") -> str:
    """The content of a settings file.

    Args:
        file: to read.
        kind: what is expected, for messages.

    Raises:
        CommandError: it does not exist, is a folder, is not text, or can't be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CommandError(f"{file} does not exist: expected a {kind}.") from None
    except IsADirectoryError:
        raise CommandError(f"{file} is a folder: expected a {kind}.") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is no text: expected a {kind}. {error}.") from None
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}.") from None


def parse_tables(text: str, source: str) -> dict[str, Any]:
    """Checked values by table, and `dataset`, `mode` and `seed`.

    Args:
        text: TOML.
        source: named in messages.

    Raises:
        CommandError: it is not TOML, or something in it is unknown, or of another type or value than expected.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"{source} is not TOML: {error}.") from None
    tables: dict[str, Any] = {}
    for name, value in content.items():
        if name in ("dataset", "mode"):
            tables[name] = check_type(f"{name} in {source}", value, str)
        elif name == "seed":
            tables[name] = check_seed(f"seed in {source}", check_type(f"seed in {source}", value, int))
        elif name not in TABLES:
            expected = ", ".join(("dataset", "mode", "seed", *(f"[{table}]" for table in TABLES)))
            raise CommandError(f"{source} has {name!r}: expected {expected}.")
        elif not isinstance(value, dict):
            raise CommandError(f"{source} has {name} = {value!r}: expected a table, [{name}].")
        else:
            tables[name] = _check_table(source, name, value)
    return tables


def _check_table(source: str, table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    settings = {setting.name: setting for setting in dataclasses.fields(TABLES[table])}
    for key in values:
        if key not in settings:
            raise CommandError(f"{source} has {key!r} in [{table}]: expected one of {', '.join(settings)}.")
    return {key: _check(f"{key} in {source}", value, settings[key]) for key, value in values.items()}


def parse_flag(name: str, text: str, setting: dataclasses.Field) -> Any:
    """The value of a flag, checked.

    Raises:
        CommandError: it is of another type or value than expected.
    """
    kinds = _kinds(setting.type)
    if type(None) in kinds and text == _NONE:
        return None
    return _check(name, parse_as(name, text, kinds[0]), setting)


def parse_as(name: str, text: str, kind: Any) -> Any:
    """A value of a type, from its text.

    Raises:
        CommandError: the text is not such a value.
    """
    element = get_args(kind)
    if element:
        # Nothing at all is a list without elements.
        return tuple(parse_as(name, part.strip(), element[0]) for part in text.split(",")) if text.strip() else ()
    if kind is bool:
        if text not in ("true", "false"):
            raise CommandError(f"{name} is {text!r}: expected true or false.")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        raise CommandError(f"{name} is {text!r}: expected {_describe_type(kind)}.") from None


def check_seed(name: str, seed: int) -> int:
    """Return a seed that fits into 32 bits.

    Raises:
        CommandError: it does not.
    """
    if not 0 <= seed <= MAX_SEED:
        raise CommandError(f"{name} is {seed}: expected 0 to {MAX_SEED}.")
    return seed


def _check(name: str, value: Any, setting: dataclasses.Field) -> Any:
    """A value of the right type and in its range."""
    kinds = _kinds(setting.type)
    if type(None) in kinds and (value is None or value == _NONE):
        return None
    value = check_type(name, value, kinds[0])
    limits = setting.metadata
    if limits["choices"]:
        check_choice(name, value, limits["choices"])
    for x in value if isinstance(value, tuple) else (value,):
        if isinstance(x, float) and not math.isfinite(x):
            raise CommandError(f"{name} is {x}: expected a finite number.")
        if limits["least"] is not None and not x >= limits["least"]:
            raise CommandError(f"{name} is {x}: expected at least {limits['least']}.")
        if limits["above"] is not None and not x > limits["above"]:
            raise CommandError(f"{name} is {x}: expected more than {limits['above']}.")
        if limits["below"] is not None and not x < limits["below"]:
            raise CommandError(f"{name} is {x}: expected less than {limits['below']}.")
        most = MAX_COUNT if limits["most"] is None and isinstance(x, int) else limits["most"]
        if most is not None and not x <= most:
            raise CommandError(f"{name} is {x}: expected at most {most}.")
    return value


def check_type(name: str, value: Any, kind: Any) -> Any:
    """A value as the type, where it is one.

    Raises:
        CommandError: it is not.
    """
    element = get_args(kind)
    if element and isinstance(value, list | tuple):
        return tuple(check_type(name, x, element[0]) for x in value)
    if kind is float and type(value) is int:
        value = float(value)
    if element or type(value) is not kind:
        raise CommandError(f"{name} is {value!r}: expected {_describe_type(kind)}.")
    return value


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise where a value is none of the choices.

    Raises:
        CommandError: it is not.
    """
    if value not in choices:
        raise CommandError(f"{name} is {value!r}: expected one of {', '.join(choices)}.")


def to_toml(value: Any) -> str:
    """A value of a setting as TOML."""
    if value is None:
        return f'"{_NONE}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(to_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _describe_type(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    return words[kind] if kind in words else f"a list of {'whole numbers' if int in get_args(kind) else 'numbers'}"
