"""Whatever stands in a record, a grid, an archive, a split file, metadata or on the command line:
one line and an exit code, and nothing that a terminal would obey.

Each property runs some examples always, and many more with ``-m slow``. What was found stands in
``tests/faults/regressions.py`` as cases of its own.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from made_up_runs import scores_of, write_run

from faults.fault import Said, fsb
from faults.files import noise, zipped
from faults.regressions import GRIDS, RECORDS, SPLITS
from faults.test_faults import OBEYED
from fewshot_bench import grid
from fewshot_bench.config import configure
from fewshot_bench.data.archives import decode, image_members, open_zip, read_member
from fewshot_bench.data.splits import parse_split
from fewshot_bench.errors import DataError, FewshotBenchError

FEW, MANY = 25, 1500
HEALTH = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
HOSTILE = st.sampled_from(
    ["", "../../x", "/etc/passwd", "\x1b[2J", "\u202egnp.exe", "<script>", "=1+1", "$\\frac{",
     "[/red]", "\ud800", "a\nb", "{{7*7}}", "%s%n", "nan", "x" * 300, "\0"]
)  # fmt: skip
TEXTS = st.text(max_size=8) | HOSTILE
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, -1, 1e308, 10**30])
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)


def bounded(count: int) -> Any:
    """The settings of a property: the same examples each time for the few, others for the many."""
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=HEALTH,
        derandomize=count == FEW,
        phases=[Phase.explicit, Phase.generate] if count == FEW else list(Phase),
        database=None,
    )


def check(said: Said) -> None:
    """What holds of every answer."""
    assert "Traceback" not in said.out + said.err
    assert "(--debug shows where)" not in said.err, said.err
    assert not OBEYED.search(said.out + said.err)
    assert said.code in (0, 1, 2)


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
            for name in ("runner.prepare", "predict.prepare", "assembly.load_data"):
                stack.enter_context(mock.patch(f"fewshot_bench.{name}", side_effect=ready))
            check(fsb(*way.split()))
    finally:
        (runs / "one/record.json").write_bytes(written(whole))


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_value_at_any_place_of_a_record(count: int, runs: Path) -> None:
    whole = json.loads((runs / "one/record.json").read_text("utf-8"))
    places = st.sampled_from(paths(whole))

    @bounded(count)
    @given(places, JSON, st.sampled_from(WAYS))
    def holds(path: tuple[Any, ...], value: Any, way: str) -> None:
        meet_record(runs, whole, changed(whole, path, value), way)

    holds()


@pytest.mark.parametrize(("path", "value", "way"), RECORDS)
def test_records_that_were_found(path: str, value: Any, way: str, runs: Path) -> None:
    whole = json.loads((runs / "one/record.json").read_text("utf-8"))
    meet_record(runs, whole, changed(whole, tuple(path.split(".")), value), way)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
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
     "device", "steps", "episodes", "sampling", "runs-dir", "metrics", "observers", "preset"]
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

    with mock.patch("fewshot_bench.grid.run_grid", only_cells):
        check(fsb("compare", "grid.toml"))


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
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
                "existing.run_unless",
                "runner.resume",
                "evaluating.evaluate_run",
                "grid.run_grid",
                "data.locate.fetch",
            ):
                stack.enter_context(mock.patch(f"fewshot_bench.{name}", side_effect=ready))
            check(fsb(*words))

    holds()


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_bytes_in_an_archive(count: int, tmp_path: Path) -> None:
    members = {f"{label}/{i}.png": noise() for label in "ab" for i in range(2)}
    archives = [zipped({**members}), zipped({**members}, zipfile.ZIP_DEFLATED)]
    path = tmp_path / "a.zip"

    @bounded(4 * count)
    @given(st.sampled_from(archives), st.data())
    def holds(whole: bytes, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(whole)) | st.integers(len(whole) - 400, len(whole)))
        gone, put = data.draw(st.integers(0, 8)), data.draw(st.binary(max_size=8))
        path.write_bytes(whole[:at] + put + whole[at + gone :])
        try:
            with open_zip(path, "images") as archive:
                for info in image_members(archive):
                    pixels = decode(read_member(archive, info), info.filename, "L")
                    assert pixels.nbytes <= 50_000_000
        except DataError:
            return

    holds()


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_bytes_in_an_image(count: int) -> None:
    from PIL import Image

    jpeg = io.BytesIO()
    Image.open(io.BytesIO(noise())).save(jpeg, "JPEG")

    @bounded(4 * count)
    @given(st.sampled_from([noise(), jpeg.getvalue()]), st.data())
    def holds(whole: bytes, data: st.DataObject) -> None:
        at, put = data.draw(st.integers(0, len(whole))), data.draw(st.binary(max_size=8))
        bad = whole[:at] + put + whole[at + len(put) :]
        try:
            pixels = decode(bad, "x", "RGB")
        except DataError:
            return
        assert pixels.ndim == 3

    holds()


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_split_file(count: int) -> None:
    @bounded(4 * count)
    @given(st.sampled_from([".toml", ".json", ".csv", ".x"]), JSON | st.text(), st.booleans())
    def holds(suffix: str, value: Any, as_json: bool) -> None:
        text = value if isinstance(value, str) and not as_json else json.dumps(value)
        try:
            lists = parse_split(text, suffix, "s")
        except DataError:
            return
        assert set(lists) == {"train", "validation", "test"}

    holds()


@pytest.mark.parametrize(("suffix", "text"), SPLITS)
def test_split_files_that_were_found(suffix: str, text: str) -> None:
    with pytest.raises(DataError):
        parse_split(text, suffix, "s")


POINTS = st.sampled_from(
    ["[fewshot_bench]", "[fewshot_bench.commands]", "a = json", "b = no.such", "run = json:loads",
     "c = ../x", "= x", "d =", "e = :", "é = json:x"]
)  # fmt: skip


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY // 5, marks=pytest.mark.slow)])
def test_any_metadata_of_a_plugin(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    info = tmp_path / "odd_plugin-1.0.dist-info"

    @bounded(count)
    @given(st.lists(POINTS | TEXTS, max_size=5), TEXTS, TEXTS)
    def holds(points: list[str], name: str, version: str) -> None:
        shutil.rmtree(info, ignore_errors=True)
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_bytes(metadata.encode("utf-8", "replace"))
        (info / "entry_points.txt").write_bytes("\n".join(points).encode("utf-8", "replace"))
        check(fsb("plugins"))
        said = fsb("run", "nearest-centroid", "--way", "x")
        check(said)
        assert "it takes a whole number" in said.err  # nothing else breaks

    holds()


def test_the_properties_can_fail() -> None:
    """The check refuses what it is there to refuse."""
    for said in (
        Said(0, "\x1b[2J", ""), Said(3, "", ""), Said(1, "", "Traceback (most recent call last)"),
        Said(1, "", "error: KeyError: 'x' (--debug shows where)"),
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            check(said)
