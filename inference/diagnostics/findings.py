"""What a diagnosis collects: numbers of the run, checks, and warnings."""

from typing import Any


class Findings:
    """Collects numbers, checks and warnings."""

    def __init__(self) -> None:
        self.run: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.checks: dict[str, bool] = {}

    def check(self, name: str, is_passed: bool, warning: str, *, is_cause: bool = False) -> None:
        """Note a check, and a warning where it failed; one that is the likely cause of others comes before them."""
        self.checks[name] = self.checks.get(name, True) and bool(is_passed)
        if not is_passed:
            self.warnings.insert(0 if is_cause else len(self.warnings), warning)


def array_stats() -> Any:
    """ArviZ's statistics of arrays, imported where they are needed; annotated as tuples of arrays, they return one."""
    from arviz_stats.base.array import array_stats

    return array_stats
