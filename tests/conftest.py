"""Fixtures for all tests."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from tests import command_line
from tests.dist_info import write_dist_info
from tests.left_behind import changes, state
from tests.patience import PATIENCE

# Before torch is imported, here and in the commands that the tests start: two processes that each
# want all cores for every operation are many times slower than two that want one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What somebody has set for commands of their own: tests of what is printed or loaded set their own.
for variable in ("FSB_PLUGINS", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
    os.environ.pop(variable, None)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SECONDS = Path(__file__).with_name("seconds.json")
# Seconds of one core. CI has more time than whoever waits for the suite.
SLOW, LONG, VERY_LONG = (0.4, 2.0, 8.0) if os.environ.get("CI") else (0.4, 0.5, 3.0)
FOUND = pytest.StashKey[dict[str, object]]()  # the state of the process before a test
# The same examples in every run; a slow machine is no fault of a property.
hypothesis.settings.register_profile(
    "same",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Random is the order; random numbers are those of the last run (pytest_runtest_setup)."""
    config.option.randomly_reset_seed = False
    if not hasattr(config, "workerinput"):
        # Nor is there anything in a cache or a style sheet of the user's; the workers inherit this.
        folder = tempfile.mkdtemp(prefix="fewshot-bench-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["XDG_CACHE_HOME"] = folder
        os.environ["MPLCONFIGDIR"] = f"{folder}/matplotlib"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long, as recorded in tests/seconds.json by ``tests/seconds.py``.

    A test of 0.4 seconds is slow. A long case is exhaustive, but for the shortest case of its
    test; so is every test that takes very long. What is exhaustive is slow as well.
    """
    seconds = json.loads(SECONDS.read_text("utf-8"))
    shortest: dict[str, float] = {}
    for item in items:
        test = item.nodeid.partition("[")[0]
        taken = seconds.get(item.nodeid, 0.0)
        shortest[test] = min(taken, shortest.get(test, taken))
    for item in items:
        taken = seconds.get(item.nodeid, 0.0)
        others = taken > shortest[item.nodeid.partition("[")[0]]
        if taken >= VERY_LONG or (taken >= LONG and others):
            item.add_marker("exhaustive")
        if taken >= SLOW or item.get_closest_marker("exhaustive"):
            item.add_marker("slow")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Print the seed of the order at once: a run that hangs has one, too."""
    if not hasattr(session.config, "workerinput") and (line := order(session.config)):
        print(line, flush=True)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print it at the end again, where failures are read."""
    if line := order(config):
        terminalreporter.write_line(line)


def order(config: pytest.Config) -> str:
    """How to have this order again; empty where it is that of the files."""
    if not config.pluginmanager.hasplugin("randomly") or not config.option.randomly_reorganize:
        return ""
    return f"random order: --randomly-seed={config.option.randomly_seed}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Numbers that a test draws without a generator are its own, whatever ran before it."""
    seed = zlib.crc32(item.nodeid.encode())
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Remember what the tests after this one will find."""
    item.stash[FOUND] = state()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test that leaves anything of the process changed: another order, another result."""
    result = yield
    left = changes(item.stash[FOUND], state())
    if left:
        pytest.fail(f"it leaves behind: {left}", pytrace=False)
    return result


@pytest.fixture(scope="session")
def fsb() -> command_line.InProcess:
    """The command line in this process: ``fsb("run", "maml", at=tmp_path).out``.

    For every test that does not need a process of its own; starting one takes seconds.
    """
    return command_line.fsb


@pytest.fixture(scope="session")
def fsb_process() -> command_line.Process:
    """The command line in a process of its own; ``fsb_process.start(...)`` does not wait for it.

    For signals, closed pipes, cold starts, and modules that cannot be imported.
    """
    return command_line.fsb_process


@pytest.fixture
def notes(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the package logs in a test, notes and warnings: ``notes.messages``."""
    caplog.set_level("INFO", "fewshot_bench")
    return caplog


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
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"], timeout=1e3 * PATIENCE
        )
        yield Patient(started)
        started.close()


class Patient:
    """A browser whose pages wait for a busy machine."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def new_page(self, **settings: Any) -> Any:
        """A page of its own."""
        page = self.browser.new_page(**settings)
        page.set_default_timeout(1e3 * PATIENCE)
        return page
