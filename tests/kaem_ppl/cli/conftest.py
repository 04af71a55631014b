"""Commands without their lines of progress, which come where there is no terminal."""

import pytest


@pytest.fixture(autouse=True)
def _no_progress_lines(monkeypatch):
    monkeypatch.setattr("kaem_ppl.progress.FIRST_LINE_SECONDS", 1000)
