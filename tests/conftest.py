"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fsb_data() -> Path:
    """The folder of the shared data. Under CI a missing one is a failure, elsewhere a skip."""
    folder = os.environ.get("FSB_DATA", "")
    if folder and Path(folder).is_dir():
        return Path(folder)
    message = f"FSB_DATA ('{folder}') is not a folder: the real data are missing"
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder shared by the tests of a session, empty at its start."""
    return tmp_path_factory.mktemp("data-cache")
