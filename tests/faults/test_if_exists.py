"""The same configuration again: reused, resumed or run anew; unfinished runs in ``fsb compare``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.config.resolve import configure
from fewshot_bench.config.schema import RunConfig
from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.results.record import read_record, run_lock
from fewshot_bench.results.runs import load_runs
from fewshot_bench.runs import train as runner
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.grid import Entry, Grid, run_grid
from fewshot_bench.runs.train import run_or_reuse
from tests.command_line import InProcess
from tests.faults.broken_off import CONV, Breaking, assert_same

Again = Callable[[RunConfig, str], tuple[Path, list[str], list[int]]]


class Recorded(Breaking):
    """A progress that remembers, of a grid too."""

    def __init__(self, phase: str = "never", done: int = 0) -> None:
        super().__init__(phase, done)
        self.cells: list[str] = []

    def cell(self, number: int, of: int, title: str, seconds_left: float | None) -> None:
        self.cells.append(title)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_cache: Path) -> RunConfig:
    monkeypatch.chdir(tmp_path)
    return configure("protonet", **CONV, cache_dir=str(data_cache))


@pytest.fixture
def again(notes: pytest.LogCaptureFixture) -> Again:
    """Runs a configuration: its folder, notes that name a folder, the steps trained now."""

    def call(config: RunConfig, if_exists: str) -> tuple[Path, list[str], list[int]]:
        notes.clear()
        progress = Recorded()
        record, folder = run_or_reuse(RunContext(config, progress=progress), if_exists)
        assert record["status"] == "completed"
        assert read_record(folder) == record
        return folder, [line for line in notes.messages if "runs/" in line], progress.steps

    return call


def broken(config: RunConfig) -> Path:
    with pytest.raises(KeyboardInterrupt):
        runner.run(RunContext(config, progress=Breaking("train", 2)))
    return sorted(Path("runs").iterdir())[-1]


def test_a_finished_run_is_reused_unless_a_fresh_one_is_wanted(
    config: RunConfig, again: Again
) -> None:
    first, lines, steps = again(config, "resume")
    assert (lines, len(steps)) == ([], 6)
    for how in ("resume", "reuse"):
        found, (line,), steps = again(config, how)
        assert (found, steps) == (first, [])
        assert line.startswith(f"Reusing finished run '{first}'; --if-exists fresh")
    other, lines, steps = again(config, "fresh")
    assert other != first
    assert (lines, len(steps)) == ([], 6)
    assert_same(first, other)


def test_an_interrupted_run_is_resumed(config: RunConfig, again: Again) -> None:
    folder = broken(config)
    found, (line, *_), steps = again(config, "reuse")
    assert found != folder  # only what is finished is reused
    assert line == f"'{folder}' did not finish; to resume it: fsb resume {folder}"
    assert len(steps) == 6
    shutil.rmtree(found)
    found, (line, *_), steps = again(config, "resume")
    assert (found, steps) == (folder, [3, 4, 5, 6])
    assert line.startswith(f"Resuming '{folder}'; use --if-exists fresh")


def test_settings_of_the_machine_are_those_of_now(config: RunConfig) -> None:
    """Where data and cache are, and how often a checkpoint is written, are of this machine."""
    folder = broken(config)
    later = replace(config, checkpoint_every="1", keep_checkpoints=9)
    with pytest.raises(KeyboardInterrupt):
        run_or_reuse(RunContext(later, progress=Breaking("train", 5)), "resume")
    assert len(list((folder / "checkpoints").glob("step-*"))) >= 3


def test_a_run_that_another_process_writes_is_left_to_it(config: RunConfig, again: Again) -> None:
    folder = broken(config)
    with run_lock(folder):
        found, lines, _ = again(config, "resume")
        assert (found != folder, lines) == (True, [])
        with pytest.raises(RecordError, match="another process is writing"):
            runner.resume(folder)
        assert any(f"'{folder}'" in line and "no result" in line for line in load_runs([folder])[1])


def test_wanted_files_are_made(config: RunConfig, again: Again) -> None:
    first, _, _ = again(config, "resume")
    other, _, _ = again(configure("protonet", **CONV, profile=True), "resume")
    assert other != first
    assert (other / "profile.txt").is_file()


def test_with_other_code_it_is_run_again(
    config: RunConfig, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, _ = again(config, "resume")
    monkeypatch.setattr("fewshot_bench.runs.identity.code_digest", lambda _: "0" * 64)
    monkeypatch.setattr("fewshot_bench.runs.prepare.code_digest", lambda _: "0" * 64)
    found, (line,), _ = again(config, "resume")
    assert line == f"'{first}' has different code; this is a new run."
    assert found != first


def test_another_word_is_refused(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="--if-exists: expected one of resume, reuse, fresh"):
        run_or_reuse(RunContext(config), "perhaps")


def test_a_grid_resumes_its_interrupted_cells(
    config: RunConfig, notes: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {**CONV, "cache_dir": config.cache_dir, "runs_dir": "runs"}
    grid = Grid((Entry("protonet", "protonet"), Entry("maml", "maml")), settings)
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, Registry.discover(), Recorded("train", 2))
    (folder,) = Path("runs").iterdir()
    progress = Recorded()
    done, problems = run_grid(grid, Registry.discover(), progress)
    assert not problems
    assert f"protonet, 3-way 1-shot, seed 0: resuming '{folder}'" in notes.messages
    assert progress.steps == [3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    assert [run.record["method"] for _, run in done] == ["protonet", "maml"]
    assert done[0][1].folder == folder


def test_compare_reports_unfinished_runs_and_shows_the_rest(
    config: RunConfig, fsb: InProcess
) -> None:
    folder = broken(config)
    answer = fsb("compare", "runs")
    assert answer.code == 2
    assert "no finished run in 'runs'" in answer.err
    assert f"fsb resume {folder}" in answer.err
    runner.run(RunContext(config))
    answer = fsb("compare", "runs").succeeded()  # nothing that was named is wrong
    assert answer.err.startswith(f"left out: '{folder}' did not finish")
    assert f"fsb resume {folder}" in answer.err
    assert "protonet" in answer.out
    answer = fsb("compare", "runs", folder)  # this one is named
    assert answer.code == 2
    assert f"left out: '{folder}' did not finish" in answer.err
