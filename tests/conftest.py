"""Fixtures for all tests."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dist_info import write_dist_info

# Before torch is imported, here and in the commands that the tests start: two processes that each
# want all cores for every operation are many times slower than two that want one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


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


@pytest.fixture
def fake_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """Install a made-up distribution: ``fake_distribution("name", "module", "its source")``.

    Returns the folder that holds all of a test's distributions, for PYTHONPATH.
    """
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def install(name: str, module: str, source: str, version: str = "1.0") -> Path:
        write_dist_info(site, name, version, f"[fewshot_bench]\n{module} = {module}\n")
        (site / f"{module}.py").write_text(source, "utf-8")
        importlib.invalidate_caches()
        return site

    yield install
    for imported in set(sys.modules) - before:
        if (site / f"{imported}.py").exists():
            del sys.modules[imported]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium. Under CI a missing one is a failure, elsewhere a skip."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        message = f"none of {', '.join(CHROMIUM)} is installed"
        if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Debian's Chromium has no sandbox where the tests run as root in a container.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()
