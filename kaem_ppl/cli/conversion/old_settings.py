"""The keys of an old settings file, read one by one, and what is to be said of each."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CommandError
from ..settings.parsing import parse_as

_T = TypeVar("_T")


class OldSettings:
    """Values by the key's full name, with a record of those that were read.

    Args:
        file: named in messages.
        values: texts, or lists and tables of a YAML file, by full name.
        title: a full name as the file's format writes it.
    """

    def __init__(self, file: Path, values: Mapping[str, Any], title: Callable[[str], str]) -> None:
        self._file = file
        self._values = values
        self._title = title
        self._taken: set[str] = set()
        self._changes: list[str] = []
        self._others: list[str] = []

    @property
    def remarks(self) -> list[str]:
        """A line for each key that is not taken as it is; changed values come first."""
        return [*self._changes, *self._others]

    def has(self, name: str) -> bool:
        """Whether the file has the key."""
        return name in self._values

    def value(self, name: str) -> Any:
        """The value as it was read, or None where the file lacks it."""
        self._taken.add(name)
        return self._values.get(name)

    def text(self, name: str, default: str = "") -> str:
        """A value as text."""
        value = self.value(name)
        return default if value is None else str(value).strip()

    def whole(self, name: str, default: int) -> int:
        """A value as a whole number."""
        return self._parse(name, int, default)

    def number(self, name: str, default: float) -> float:
        """A value as a finite number."""
        found = self._parse(name, float, default)
        if not math.isfinite(found):
            raise CommandError(f"{self._title(name)} in {self._file} is {found}: expected a finite number.")
        return found

    def flag(self, name: str, default: bool = False) -> bool:
        """A value as true or false."""
        return self._parse(name, bool, default)

    def wholes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A value as a list of whole numbers."""
        return self._parse(name, tuple[int, ...], default)

    def numbers(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """A value as a list of numbers."""
        return self._parse(name, tuple[float, ...], default)

    def choice(self, name: str, meanings: Mapping[str, _T], default: str) -> _T:
        """What a word means here."""
        word = self.text(name, default)
        if word not in meanings:
            raise CommandError(f"{self._title(name)} in {self._file} is {word!r}: expected {', '.join(meanings)}.")
        return meanings[word]

    def changed(self, name: str, text: str) -> None:
        """Remark that a value is not taken as it is."""
        self._changes.append(self._line(name, f"changed; {text}"))

    def check_known(self, known: Mapping[str, str | None]) -> None:
        """Raise where the file has a key that is not among those of the format.

        Raises:
            CommandError: it has.
        """
        for name in self._values:
            if name not in known:
                raise CommandError(f"{self._file} has {self._title(name)}, which is no key of the original settings.")

    def remark_on_the_rest(self, known: Mapping[str, str | None], unused: str) -> None:
        """Remark on every key that was not read: why there is none such here, or that this run has no use for it."""
        for name in self._values:
            if name in self._taken:
                continue
            reason = known[name]
            text = f"not used {unused}" if reason is None else f"no counterpart; {reason}"
            self._others.append(self._line(name, text))

    def _parse(self, name: str, kind: Any, default: Any) -> Any:
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if kind is bool:
            value = str(value).lower()
        return parse_as(f"{self._title(name)} in {self._file}", str(value).strip(), kind)

    def _line(self, name: str, text: str) -> str:
        if not self.has(name):
            return f"{self._title(name)}, which is not given: {text}."
        value = self._values[name]
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        return f"{self._title(name)} = {shown}: {text}."
