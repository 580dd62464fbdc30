"""A folder in which the commands of the documentation run, with images and runs."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

import fewshot_bench
from fewshot_bench.config.resolve import Draft
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.runs.grid import Grid, cells_of
from tests.command_line import fsb
from tests.dist_info import write_dist_info

# Options added to a command that trains, and to one that trains on glyphs.
SMALL = shlex.split("--steps 2 --task-batch 2 --query 2 --episodes 12 --validation-episodes 2")
FEW_GLYPHS = shlex.split("--train-classes 24 --validation-classes 6 --test-classes 8")
PILOTS = {"PILOT_A": "protonet", "PILOT_B": "maml"}


def draw_runs(folder: Path, cache: Path) -> None:
    """Two small runs in ``runs/``, on the same episodes, each named as a pilot."""
    for pilot, method in PILOTS.items():
        with chdir(folder):  # so that the record has the relative path 'runs'
            record = fewshot_bench.run(
                method, dataset="glyphs", train_classes=24, validation_classes=6, test_classes=8,
                way=5, shot=1, query=2, steps=2, task_batch=2, episodes=12,
                validation_episodes=2, cache_dir=str(cache),
            )  # fmt: skip
        (folder / "runs" / record["id"]).rename(folder / "runs" / pilot)


def draw_pictures(folder: Path, classes: int, each: int) -> None:
    """A folder per class, each with similar images of bars."""
    rng = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"class {number}").mkdir(parents=True)
        pattern = rng.integers(0, 200, (6, 6), dtype=np.uint8)
        for i in range(each):
            drawn = pattern + rng.integers(0, 50, (6, 6), dtype=np.uint8)
            picture = Image.fromarray(np.kron(drawn, np.ones((5, 5), np.uint8)))
            picture.save(folder / f"class {number}" / f"{i}.png")


def furnish(folder: Path, runs: Path) -> None:
    """Create the files that the pages assume."""
    shutil.copytree(runs / "runs", folder / "runs")
    draw_pictures(folder / "my-pictures", classes=20, each=6)
    draw_pictures(folder / "my-classes", classes=3, each=2)
    shutil.copy(folder / "my-classes/class 0/0.png", folder / "picture.png")


def install(distribution: Path, folder: Path) -> None:
    """Install a distribution into ``folder``, as ``pip install`` does."""
    project = tomllib.loads((distribution / "pyproject.toml").read_text("utf-8"))["project"]
    ((package, module),) = project["entry-points"]["fewshot_bench"].items()
    shutil.copytree(distribution / module, folder / module)
    points = f"[fewshot_bench]\n{package} = {module}\n"
    write_dist_info(folder, project["name"], project["version"], points)


def placed(code: str) -> str:
    """The code with the id of an existing run."""
    return re.sub(r"\bruns/(<id>|ID\b)", "runs/PILOT_A", code)


def small(words: list[str]) -> list[str]:
    """The command with options that make it fast; the last of repeated options is used."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words[1:]))
    makes_runs = words[0] == "run" or (words[0] == "compare" and names and names[0][:4] != "runs")
    if words[0] == "eval":
        return [*words, "--episodes", "3"]
    if not makes_runs or "--help" in words:
        return words
    return [*words, *SMALL, *([] if "--dataset" in words else FEW_GLYPHS)]


def run_command(command: str) -> None:
    """Run a command in this process and assert that it succeeds."""
    words = shlex.split(placed(command))[1:]
    fsb(*small(words)).succeeded()


def parse_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command and configure the runs that it would make, without running them."""

    def only_configure(draft: Draft, settings: Any, **_: Any) -> None:
        draft.complete(settings)

    def only_cells(grid: Grid, runs_dir: Path, registry: Registry) -> None:
        assert cells_of(grid, registry)
        raise typer.Exit

    def stop(*_: Any) -> None:
        raise typer.Exit

    monkeypatch.setattr("fewshot_bench.cli.run._run", only_configure)
    monkeypatch.setattr("fewshot_bench.cli.compare._run_missing", only_cells)
    monkeypatch.setattr("fewshot_bench.runs.build.find_dataset", stop)
    fsb(*shlex.split(command)[1:]).succeeded()


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Make the modules of a folder importable inside a block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
