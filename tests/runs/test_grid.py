"""Grids of runs: what is run, what is found again, and what is logged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.errors import ConfigError, Diverged, FewshotBenchError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.results.record.code import code_digest
from fewshot_bench.results.runs import Run
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.grid import (
    Cell,
    Entry,
    Eta,
    Grid,
    cells_of,
    read_grid,
    run_grid,
    seeds_of,
)
from fewshot_bench.runs.identity import RunIndex

TINY: dict[str, Any] = {
    "dataset": "glyphs",
    "train_classes": 8,
    "validation_classes": 0,
    "test_classes": 8,
    "way": 3,
    "query": 2,
    "episodes": 4,
    "steps": 1,
    "task_batch": 1,
    "train_way": 3,
    "train_query": 2,
}


def test_a_row_of_one_column(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(
        "shot = [1, 5]\n[methods.maml]\n[methods.longer]\nmethod='maml'\nshot=5\nsteps=9"
    )
    cells = cells_of(read_grid(file), Registry.discover())
    assert [cell.title for cell in cells] == [
        "maml, 5-way 1-shot, seed 0",
        "maml, 5-way 5-shot, seed 0",
        "longer, 5-way 5-shot, seed 0",
    ]


class Recorded:
    """A progress that remembers the runs that were started."""

    def __init__(self) -> None:
        self.cells: list[tuple[int, int, str, float | None]] = []

    def cell(self, number: int, of: int, title: str, seconds_left: float | None) -> None:
        self.cells.append((number, of, title, seconds_left))

    def phase(self, name: str, total: int, done: int = 0) -> None:
        pass

    def update(self, done: int, **numbers: float) -> None:
        pass


def grid(runs: Path, *methods: str, **settings: Any) -> Grid:
    seeds = settings.pop("seeds", (0,))
    entries = tuple(Entry(name, name) for name in methods)
    return Grid(entries, {**TINY, "runs_dir": str(runs), **settings}, seeds)


def run_all(wanted: Grid) -> tuple[list[tuple[Cell, Run]], list[str], Recorded]:
    progress = Recorded()
    done, problems = run_grid(wanted, Registry.discover(), progress)
    return done, problems, progress


def test_every_combination_is_run_once_and_then_found_again(
    tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    wanted = grid(tmp_path, "nearest-centroid", "protonet", shot=[1, 2], seeds=(0, 3))
    done, problems, progress = run_all(wanted)
    assert not problems
    titles = [cell.title for cell, _ in done]
    # What trains nothing has no seeds.
    assert titles == [
        f"{method}, 3-way {shot}-shot, seed {seed}"
        for seed, methods in ((0, ("nearest-centroid", "protonet")), (3, ("protonet",)))
        for shot in (1, 2)
        for method in methods
    ]
    assert [title for _, _, title, _ in progress.cells] == titles
    assert progress.cells[0][3] is None  # nothing is known yet
    assert progress.cells[-1][3] is not None
    for cell, run in done:
        assert (run.record["method"], run.record["seed"]) == (cell.entry, cell.config.seed)
        assert run.record["task"]["shot"] == cell.config.shot
    # The seed is of the training alone: all runs of a setting share their episodes.
    digests = {(run.record["task"]["shot"], run.record["episodes_digest"]) for _, run in done}
    assert len(digests) == 2

    notes.clear()
    again, problems, progress = run_all(wanted)
    assert not problems
    assert not progress.cells
    assert notes.text.count("reusing finished run") == 6
    assert notes.text.count("nothing is trained") == 2
    assert [run.record["id"] for _, run in again] == [run.record["id"] for _, run in done]

    _, _, progress = run_all(grid(tmp_path, "protonet", shot=[1, 2], seeds=(0, 1)))
    assert [title for _, _, title, _ in progress.cells] == [
        f"protonet, 3-way {shot}-shot, seed 1" for shot in (1, 2)
    ]


def test_a_backbone_for_all_is_not_for_rows_without_a_network() -> None:
    registry, rows = Registry.discover(), (Entry("floor", "nearest-centroid"), Entry("p", "maml"))
    floor, trained = cells_of(Grid(rows, {"backbone": "conv4-strided"}), registry)
    (alone,) = cells_of(Grid(rows[:1], {}), registry)
    assert floor.config == alone.config
    assert trained.config.backbone == "conv4-strided"
    refused = "--backbone: nearest-centroid uses no backbone"
    for wrong in (
        Grid(rows[:1], {"backbone": "conv4"}),
        Grid((Entry("floor", "nearest-centroid", {"backbone": "conv4"}), rows[1]), {}),
        Grid(rows, {"backbone": ["conv4", "conv4-strided"]}),
    ):
        with pytest.raises(ConfigError, match=refused):
            cells_of(wrong, registry)


def test_time_left_is_estimated_from_finished_runs() -> None:
    wanted = Grid((Entry("a", "nearest-centroid"), Entry("b", "maml")), {"shot": [1, 5]})
    first, second, third, fourth = cells_of(wanted, Registry.discover())
    eta = Eta()
    assert eta.seconds([first, second, third, fourth]) is None
    eta.add(first, 2.0)
    assert eta.seconds([second, third, fourth]) == 6.0  # nothing is known of b
    eta.add(second, 100.0)
    assert eta.seconds([third, fourth]) == 102.0
    eta.add(third, 8.0)
    assert eta.seconds([first, third, fourth]) == 110.0  # each as in its own column


def changed(folder: Path, **changes: Any) -> None:
    path = folder / "record.json"
    record = json.loads(path.read_text("utf-8"))
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            record[outer][inner] = value
        else:
            record[outer] = value
    path.write_text(json.dumps(record), "utf-8")


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"environment__code": "0" * 64}, "code"),
        ({"environment__torch": "1.0"}, "torch"),
        ({"dataset_digest": "0" * 64}, "data"),
        ({"device__type": "cuda"}, "device"),
        ({"plugins": []}, "plugin versions"),
        ({"evaluated_from": "another"}, None),
        ({"status": "interrupted"}, None),
        ({"config__way": 4}, None),
    ],
)
def test_a_run_of_another_origin_is_not_taken(
    tmp_path: Path, change: dict[str, Any], differs: str | None, notes: pytest.LogCaptureFixture
) -> None:
    wanted = grid(tmp_path, "nearest-centroid", shot=1)
    ((_, run),), _, _ = run_all(wanted)
    changed(run.folder, **change)
    _, _, progress = run_all(wanted)
    assert len(progress.cells) == 1
    again = [line for line in notes.messages if "running it again" in line]
    assert [f"has different {differs}" in line for line in again] == [True] * bool(differs)


def test_the_newest_run_counts(tmp_path: Path) -> None:
    wanted = grid(tmp_path, "nearest-centroid", shot=1)
    ((cell, run),), _, _ = run_all(wanted)
    later = run.folder.with_name("nearest-centroid-glyphs-3w1s-29991231T000000-0000")
    shutil.copytree(run.folder, later)
    changed(later, id=later.name)
    found = RunIndex([tmp_path]).find(RunContext(cell.config))
    assert found.near is None
    assert found.finished is not None
    assert found.finished.folder == later


def test_a_cell_that_fails_stops_no_other(tmp_path: Path, monkeypatch: Any) -> None:
    from fewshot_bench.runs import grid as module

    real = module.run

    def run(context: RunContext) -> Any:
        if context.config.shot == 1:
            raise Diverged(7, "meta")
        return real(context)

    monkeypatch.setattr(module, "run", run)
    done, problems, _ = run_all(grid(tmp_path, "nearest-centroid", shot=[1, 2]))
    assert [cell.config.shot for cell, _ in done] == [2]
    (problem,) = problems
    assert problem.startswith("nearest-centroid, 3-way 1-shot, seed 0: step 7: the loss")


FILE = """
seeds = [0, 2]
dataset = "glyphs"
way = 5
shot = [1, 5]
baseline = "maml"
target = 0.9
level = 0.9

[methods.maml]
[methods.slow-maml]
method = "maml"
inner-lr = 0.01
"""


def test_a_file_holds_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(FILE, "utf-8")
    wanted = read_grid(path)
    assert "level" not in wanted.settings  # of the table alone
    assert wanted.entries == (Entry("maml", "maml"), Entry("slow-maml", "maml", {"inner_lr": 0.01}))
    assert wanted.seeds == (0, 2)
    assert wanted.shown == {"baseline": "maml", "target": 0.9, "level": 0.9}
    cells = cells_of(wanted, Registry.discover())
    assert len(cells) == 8
    assert [cell.config.method_options["inner_lr"] for cell in cells[:2]] != [0.01, 0.01]
    assert cells[1].config.method_options["inner_lr"] == 0.01
    assert {cell.column for cell in cells} == {"5-way 1-shot", "5-way 5-shot"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = ", "cannot be read"),
        ('baselin = "maml"\n[methods.maml]', "did you mean 'baseline'"),
        ("way = 5", r"expected a table \[methods.NAME\]"),
        ("methods = 3", r"expected a table \[methods.NAME\]"),
        ("[methods]\nmaml = 3", "methods.maml: expected a table"),
        ("[methods.maml]\n[maml]\nx = 1", r"unknown table \[maml\]"),
        ("seeds = 0\n[methods.maml]", "seeds: expected an integer >= 1 or a list .*, got 0"),
        ("seeds = [1, 1]\n[methods.maml]", r"list of seeds, got \[1, 1\]"),
        ("seeds = true\n[methods.maml]", "list of seeds, got True"),
        ("shot = []\n[methods.maml]", "shot: expected at least one value"),
        ("shot = [1, 5]\n[methods.maml]\nshot = 2", r"'maml': shot: expected .*\[1, 5\].*, got 2"),
        ("shto = 5\n[methods.maml]", "did you mean 'shot'"),
        ("[methods.mmal]", "did you mean 'maml'"),
        (
            '[methods.maml]\n[methods.again]\nmethod = "maml"',
            "and 'again' have the same settings",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        cells_of(read_grid(path), Registry.discover())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FewshotBenchError, match="cannot be read"):
        read_grid(tmp_path / "none.toml")


def test_seeds() -> None:
    assert seeds_of(3) == (0, 1, 2)
    assert seeds_of([5, 1]) == (5, 1)


def test_the_code_of_a_process_is_that_which_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module, file = tmp_path / "begun_with.py", tmp_path / "own.py"
    module.write_text("x = 1")
    file.write_text("import begun_with")
    before, of_file = code_digest(["begun_with"]), code_digest([str(file)])
    module.write_text("x = 2")  # this process has imported it, and goes on with that
    assert code_digest(["begun_with"]) == before
    assert code_digest([str(file)]) == of_file
    file.write_text("import begun_with  # other text")  # a file that is typed is imported anew
    assert code_digest([str(file)]) != of_file


def test_the_code_is_that_of_the_package_and_the_plugins() -> None:
    assert code_digest(["fsb_maml"]) == code_digest(["fsb_maml"])
    assert len({code_digest([]), code_digest(["fsb_maml"]), code_digest(["fsb_protonet"])}) == 3
