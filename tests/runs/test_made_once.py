"""A command discovers plugins once, configures a run once, and reads each data set once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsb_glyphs.glyphs import Glyphs

import fewshot_bench
from fewshot_bench.config.resolve import Draft
from fewshot_bench.hooks.registry import Registry
from tests.command_line import InProcess
from tests.faults.broken_off import SMALL, command

ONCE = {"discover": 1, "complete": 1, "load": 1}
SETTINGS = SMALL | {"image_size": 16}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often plugins were discovered, a configuration completed, and glyphs read."""
    found: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **named: Any) -> Any:
            found[name] += 1
            return function(*arguments, **named)

        return count

    discover = Registry.discover
    monkeypatch.setattr(Registry, "discover", staticmethod(counted("discover", discover)))
    for kind, name in ((Draft, "complete"), (Glyphs, "load")):
        monkeypatch.setattr(kind, name, counted(name, getattr(kind, name)))
    return found


@pytest.fixture
def finished(tmp_path: Path, fsb: InProcess) -> Path:
    """A finished run."""
    words = command("nearest-centroid", SETTINGS)
    answer = fsb(*words, "--json", "--cache-dir=cache", at=tmp_path).succeeded()
    return Path("runs") / json.loads(answer.out)["id"]


@pytest.mark.parametrize("if_exists", ["fresh", "resume"])
def test_run(if_exists: str, tmp_path: Path, counts: Counter[str], fsb: InProcess) -> None:
    words = command("protonet", SETTINGS | {"if_exists": if_exists})
    fsb(*words, "--cache-dir=cache", at=tmp_path).succeeded()
    assert counts == ONCE


@pytest.mark.parametrize("if_exists", ["resume", "reuse"])
def test_run_that_is_reused(
    if_exists: str, finished: Path, tmp_path: Path, counts: Counter[str], fsb: InProcess
) -> None:
    counts.clear()
    words = command("nearest-centroid", SETTINGS | {"if_exists": if_exists})
    answer = fsb(*words, "--cache-dir=cache", at=tmp_path).succeeded()
    assert f"Reusing finished run '{finished}'" in answer.err
    assert counts == ONCE


def test_run_from_python(tmp_path: Path, data_cache: Path, counts: Counter[str]) -> None:
    places = {"runs_dir": str(tmp_path), "cache_dir": str(data_cache)}
    fewshot_bench.run("protonet", **SETTINGS, **places)
    assert counts == ONCE


def test_compare(tmp_path: Path, counts: Counter[str], fsb: InProcess) -> None:
    words = command("nearest-centroid", SETTINGS | {"cache_dir": "cache"})[2:]
    for _ in range(2):  # the second time everything is reused
        counts.clear()
        fsb("compare", "nearest-centroid", "protonet", *words, at=tmp_path).succeeded()
        assert counts == {"discover": 1, "complete": 2, "load": 1}
    counts.clear()
    fsb("compare", "runs", at=tmp_path).succeeded()
    assert counts == {"discover": 1}


def test_eval(finished: Path, tmp_path: Path, counts: Counter[str], fsb: InProcess) -> None:
    counts.clear()
    fsb("eval", finished, "--episodes=5", "--cache-dir=cache", at=tmp_path).succeeded()
    assert counts == ONCE
    counts.clear()
    other = ("--glyph-seed=3", "--cache-dir=cache")
    fsb("eval", finished, "--episodes=5", *other, at=tmp_path).succeeded()
    assert counts["discover"] == counts["complete"] == 1
    assert counts["load"] <= 2  # the data of the evaluation and of the run


def test_resume(
    tmp_path: Path, counts: Counter[str], monkeypatch: pytest.MonkeyPatch, fsb: InProcess
) -> None:
    words = command("protonet", SETTINGS | {"cache_dir": "cache"})
    with monkeypatch.context() as patched:
        patched.setattr("fewshot_bench.runs.train.test", interrupt)
        assert fsb(*words, at=tmp_path).code == 130
    (folder,) = (tmp_path / "runs").iterdir()
    counts.clear()
    fsb("resume", folder, "--cache-dir=cache", at=tmp_path).succeeded()
    assert counts == ONCE


def interrupt(*_: Any) -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt
