"""The same configuration again: shown, gone on with, or run anew; and what ``fsb compare`` makes of
runs without an end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.config.resolve import configure
from fewshot_bench.config.schema import RunConfig
from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.results.record.io import held, read_record
from fewshot_bench.results.runs import load_runs
from fewshot_bench.runs import train as runner
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.grid import Entry, Grid, run_grid
from fewshot_bench.runs.train import run_or_reuse
from tests.faults.broken_off import CONV, Breaking, assert_same, fsb


class Heard(Breaking):
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


def broken(config: RunConfig) -> Path:
    with pytest.raises(KeyboardInterrupt):
        runner.run(RunContext(config, progress=Breaking("train", 2)))
    return sorted(Path("runs").iterdir())[-1]


def again(config: RunConfig, if_exists: str) -> tuple[Path, list[str], list[int]]:
    heard = Heard()
    record, folder = run_or_reuse(RunContext(config, progress=heard), if_exists)
    assert record["status"] == "completed"
    assert read_record(folder) == record
    return folder, [line for line in heard.lines if "runs/" in line], heard.steps


def test_a_finished_run_is_shown_unless_a_fresh_one_is_wanted(config: RunConfig) -> None:
    first, told, steps = again(config, "resume")
    assert (told, len(steps)) == ([], 6)
    for how in ("resume", "reuse"):
        found, (line,), steps = again(config, how)
        assert (found, steps) == (first, [])
        assert line == f"there already, in '{first}'; --if-exists fresh runs it again"
    other, told, steps = again(config, "fresh")
    assert other != first
    assert (told, len(steps)) == ([], 6)
    assert_same(first, other)


def test_an_interrupted_run_is_gone_on_with(config: RunConfig) -> None:
    folder = broken(config)
    found, (line, *_), steps = again(config, "reuse")
    assert found != folder  # reuse shows what is finished
    assert line == f"'{folder}' did not finish; this goes on with it: fsb resume {folder}"
    assert len(steps) == 6
    shutil.rmtree(found)
    found, (line, *_), steps = again(config, "resume")
    assert (found, steps) == (folder, [3, 4, 5, 6])
    assert line == f"going on with '{folder}'; --if-exists fresh begins another run"


def test_what_is_typed_now_counts_where_a_run_goes_on(config: RunConfig) -> None:
    """Where data and cache are, and how often a checkpoint is written, are of this machine."""
    folder = broken(config)
    later = replace(config, checkpoint_every="1", keep_checkpoints=9)
    with pytest.raises(KeyboardInterrupt):
        run_or_reuse(RunContext(later, progress=Breaking("train", 5)), "resume")
    assert len(list((folder / "checkpoints").glob("step-*"))) >= 3


def test_a_run_that_another_process_writes_is_left_to_it(config: RunConfig) -> None:
    folder = broken(config)
    with held(folder):
        found, told, _ = again(config, "resume")
        assert (found != folder, told) == (True, [])
        with pytest.raises(RecordError, match="another process is writing"):
            runner.resume(folder)
        assert f"'{folder}' goes on; it has no result yet" in load_runs([folder])[1]


def test_what_somebody_wants_to_see_is_made(config: RunConfig) -> None:
    first, _, _ = again(config, "resume")
    other, _, _ = again(configure("protonet", **CONV, profile=True), "resume")
    assert other != first
    assert (other / "profile.txt").is_file()


def test_other_code_is_told_and_run(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, _ = again(config, "resume")
    monkeypatch.setattr("fewshot_bench.runs.identity.code_digest", lambda _: "0" * 64)
    monkeypatch.setattr("fewshot_bench.runs.prepare.code_digest", lambda _: "0" * 64)
    found, (line,), _ = again(config, "resume")
    assert line == f"'{first}' is of other code; this is a new run"
    assert found != first


def test_a_word_that_is_none_of_them_is_told(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="it is one of resume, reuse, fresh"):
        run_or_reuse(RunContext(config), "perhaps")


def test_a_grid_goes_on_with_its_broken_cells(config: RunConfig) -> None:
    settings: dict[str, Any] = {**CONV, "cache_dir": config.cache_dir, "runs_dir": "runs"}
    grid = Grid((Entry("protonet", "protonet"), Entry("maml", "maml")), settings)
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, Registry.discover(), Heard("train", 2))
    (folder,) = Path("runs").iterdir()
    heard = Heard()
    done, problems = run_grid(grid, Registry.discover(), heard)
    assert not problems
    assert f"protonet, 3-way 1-shot, seed 0: goes on in '{folder}'" in heard.lines
    assert heard.steps == [3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    assert [run.record["method"] for _, run in done] == ["protonet", "maml"]
    assert done[0][1].folder == folder


def test_compare_tells_of_runs_without_an_end_and_shows_the_rest(
    config: RunConfig, tmp_path: Path
) -> None:
    folder = broken(config)
    line = f"left out: '{folder}' did not finish; go on with it: fsb resume {folder}"
    said = fsb("compare", "runs", at=tmp_path, code=2)
    assert f"no finished run in 'runs' ({line.removeprefix('left out: ')})" in said
    runner.run(RunContext(config))
    said = fsb("compare", "runs", at=tmp_path)  # nothing that was named is wrong
    assert said.splitlines()[0] == line
    assert "protonet" in said
    assert line in fsb("compare", "runs", str(folder), at=tmp_path, code=2)  # this one is named
