"""Whatever stands in a record, a grid or on the command line (files: ``test_fuzzing_files.py``):
one line and an exit code, and nothing that a terminal would obey.

Each property runs some examples always, and many more with ``-m exhaustive``. What was found are
cases of their own in ``tests/faults/regressions.py``.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fewshot_bench.config.resolve import configure
from fewshot_bench.errors import FewshotBenchError
from fewshot_bench.runs import grid
from tests.command_line import Answer, fsb
from tests.faults.fuzzing import FEW, JSON, MANY, TEXTS, bounded, check
from tests.faults.regressions import GRIDS, RECORDS
from tests.results.made_up_runs import scores_of, write_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    config = configure("nearest-centroid", cache_dir=str(tmp_path / "cache")).to_dict()
    for i, name in enumerate(("one", "two")):
        made = write_run(tmp_path / "runs", name, scores_of(i), config=config)
        made.rename(tmp_path / "runs" / name)
    return tmp_path / "runs"


def paths(value: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inside = value.items() if isinstance(value, dict) else []
    inside = enumerate(value) if isinstance(value, list) else inside
    return [so_far, *(p for key, item in inside for p in paths(item, (*so_far, key)))]


def changed(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The value with something else at a place."""
    if not path:
        return value
    copy = dict(record) if isinstance(record, dict) else list(record)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


def written(record: Any) -> bytes:
    """JSON as Python writes it, NaN and halves of characters too."""
    return json.dumps(record).encode("utf-8", "surrogatepass")


WAYS = (
    "compare runs", "compare runs --baseline one --interval classes", "compare runs --format csv",
    "compare runs --format json", "compare runs --format latex", "compare runs --format markdown",
    "report runs -o page --no-pictures", "plan runs/one runs/two", "figure forest runs -o x.svg "
    "--baseline one", "figure settings runs -o x.svg", "figure steps runs -o x.svg",
    "figure confusion runs -o x.svg", "eval runs/one", "predict runs/one page x.png",
)  # fmt: skip


def meet_record(runs: Path, whole: dict[str, Any], record: Any, way: str) -> None:
    """Put a record into a run, and type something that reads it."""
    (runs / "one/record.json").write_bytes(written(record))
    ready = FewshotBenchError("this can be run")
    try:
        with ExitStack() as stack:
            for name in ("evaluate.prepare", "predict.prepare", "context.RunContext.load_data"):
                stack.enter_context(mock.patch(f"fewshot_bench.runs.{name}", side_effect=ready))
            check(fsb(*way.split()))
    finally:
        (runs / "one/record.json").write_bytes(written(whole))


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_any_value_at_any_place_of_a_record(count: int, runs: Path) -> None:
    whole = json.loads((runs / "one/record.json").read_text("utf-8"))
    places = st.sampled_from(paths(whole))

    @bounded(count)
    @given(places, JSON, st.sampled_from(WAYS))
    def holds(path: tuple[Any, ...], value: Any, way: str) -> None:
        meet_record(runs, whole, changed(whole, path, value), way)

    holds()


@pytest.mark.parametrize("name", configure("nearest-centroid").to_dict())
def test_any_kind_of_value_of_a_setting(name: str, runs: Path) -> None:
    """What reads the settings of a record, with each kind of value that JSON has."""
    whole = json.loads((runs / "one/record.json").read_text("utf-8"))
    for value in (None, True, -1, 0.5, "x", [1], {"a": 1}):
        record = changed(whole, ("config", name), value)
        for way in ("compare runs", "report runs -o page --no-pictures"):
            meet_record(runs, whole, record, way)


@pytest.mark.parametrize(("path", "value", "way"), RECORDS)
def test_records_that_were_found(path: str, value: Any, way: str, runs: Path) -> None:
    whole = json.loads((runs / "one/record.json").read_text("utf-8"))
    meet_record(runs, whole, changed(whole, tuple(path.split(".")), value), way)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_any_bytes_in_the_tables_of_a_run(count: int, runs: Path) -> None:
    whole = (runs / "one/episodes.csv").read_bytes()

    @bounded(count)
    @given(st.integers(0, len(whole)), st.integers(0, 40), st.binary(max_size=8))
    @example(0, len(whole), b"")
    @example(0, 0, b'"' + b"x" * 200_000)
    def holds(at: int, gone: int, put: bytes) -> None:
        (runs / "one/episodes.csv").write_bytes(whole[:at] + put + whole[at + gone :])
        check(fsb("compare", "runs"))

    holds()


KEYS = st.sampled_from(
    ["way", "shot", "seeds", "level", "baseline", "interval", "target", "dataset", "backbone",
     "device", "steps", "episodes", "sampling", "runs-dir", "metric", "with", "preset"]
)  # fmt: skip


def toml(value: Any) -> str:
    """A value of a TOML file."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return str(value)
    return "''" if value is None else json.dumps(value)


def meet_grid(text: str, folder: Path) -> None:
    """Compare what a file says; nothing is run, because a run would go on for long."""
    (folder / "grid.toml").write_bytes(text.encode("utf-8", "surrogatepass"))

    def only_cells(found: grid.Grid, registry: Any, *_: Any) -> Any:
        grid.cells_of(found, registry)
        raise FewshotBenchError("the grid can be run")

    with mock.patch("fewshot_bench.runs.grid.run_grid", only_cells):
        check(fsb("compare", "grid.toml"))


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_any_grid(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    @bounded(count)
    @given(st.dictionaries(KEYS | TEXTS, JSON, max_size=4), st.dictionaries(KEYS, JSON, max_size=2))
    def holds(top: dict[str, Any], method: dict[str, Any]) -> None:
        lines = [f"{json.dumps(name)} = {toml(value)}" for name, value in top.items()]
        lines += ["[methods.maml]", *(f"{name} = {toml(value)}" for name, value in method.items())]
        meet_grid("\n".join(lines), tmp_path)

    holds()

    @bounded(count)
    @given(st.text(max_size=40))
    def garbage(text: str) -> None:
        meet_grid(text, tmp_path)

    garbage()


@pytest.mark.parametrize("text", GRIDS)
def test_grids_that_were_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    meet_grid(text, tmp_path)


WORDS = st.sampled_from(
    ["run", "compare", "eval", "plan", "report", "figure", "list", "plugins", "data", "show", "new",
     "check", "predict", "prepare", "verify", "protonet", "nearest-centroid", "glyphs", "folder:x",
     "--way", "--shot", "--lr", "--format", "-o", "--json", "--metric", "--with", "--dataset",
     "--backbone", "--runs-dir", "--trace", "--kind", "5", "-1", "1e9", "none", "forest",
     "omniglot", "--help", "--version",
     "--level=2", "--episodes=3", "--", "--no-pictures", "--seeds=0"]
)  # fmt: skip


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_any_words_on_the_command_line(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    @bounded(count)
    @given(st.lists(WORDS | TEXTS.filter(lambda text: "\0" not in text), max_size=6))
    def holds(words: list[str]) -> None:
        ready = FewshotBenchError("this can be run")
        with ExitStack() as stack:
            for name in (
                "runs.train.run_or_reuse",
                "runs.train.resume",
                "runs.evaluate.evaluate_run",
                "runs.grid.run_grid",
                "data.download.fetch_folder",
            ):
                stack.enter_context(mock.patch(f"fewshot_bench.{name}", side_effect=ready))
            check(fsb(*words))

    holds()


def test_the_properties_can_fail() -> None:
    """The check refuses what it is there to refuse."""
    for said in (
        Answer(0, "\x1b[2J", ""), Answer(3, "", ""), Answer(1, "", "Traceback (most recent ..."),
        Answer(1, "", "error: KeyError: 'x' (--debug shows where)"),
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            check(said)
