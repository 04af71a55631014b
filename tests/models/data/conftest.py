"""A folder of data sets for each test."""

import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("KAEM_DATA_DIR", str(tmp_path))
    return tmp_path
