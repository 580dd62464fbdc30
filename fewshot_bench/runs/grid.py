"""A grid of runs: methods x settings x training seeds. What is there already is not run again.

A run stands for a cell of the grid if it is :mod:`alike <fewshot_bench.runs.identity>`; one that did not
finish is gone on with.
"""

from __future__ import annotations

import difflib
import itertools
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fewshot_bench.runs.identity import Alike, of_here, settings_key
from fewshot_bench.config.resolve import DEFAULTS, RunConfig, configure, wants_backbone
from fewshot_bench.engine.observer import Progress
from fewshot_bench.runs.equalize import Draft, equalized
from fewshot_bench.errors import ConfigError, FewshotBenchError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.config.names import FIELDS, option_name
from fewshot_bench.runs.eta import Pace
from fewshot_bench.results.record.io import read_record
from fewshot_bench.results.runs import Run
from fewshot_bench.runs.train import resume, run

SHOWN = {
    "baseline": (str,), "interval": (str,), "target": (int, float), "level": (int, float),
    "equal": (str, list),
}  # fmt: skip
NO_AXES = tuple(FIELDS)  # settings that are lists themselves


# Settings of a run that a grid has another way to say.
NOT_HERE = {
    "seed": "give seeds = [3], a list of training seeds",
    "runs_dir": "give --runs-dir on the command line",
}


@dataclass(frozen=True)
class Entry:
    """A row of the grid: a method under a name, with settings of its own."""

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """What is to be compared.

    Arguments:
        entries: the rows.
        settings: of all runs; a list makes a column of each of its values.
        seeds: of training; the test episodes are the same for all.
        shown: options of ``fsb compare`` that a file may hold: ``SHOWN``.
        equal: traits of training in which the rows of a column have to be the same.
    """

    entries: tuple[Entry, ...]
    settings: Mapping[str, Any]
    seeds: tuple[int, ...] = (0,)
    shown: Mapping[str, Any] = field(default_factory=dict)
    equal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    entry: str
    config: RunConfig
    column: str

    @property
    def title(self) -> str:
        """``maml, 5-way 1-shot, seed 0``."""
        return f"{self.entry}, {self.column}, seed {self.config.seed}"


class GridProgress(Progress, Protocol):
    """What shows a grid while it goes on."""

    def cell(self, number: int, of: int, title: str, seconds_left: float | None) -> None:
        """A run of the grid begins; what it and the later ones will take, if that is known."""


def read_grid(path: Path) -> Grid:
    """The grid of a file such as ``benchmarks/protocols/*.toml``; docs/compare.md tells its keys.

    Raises:
        ConfigError: no such file, no TOML, or no methods in it.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"'{path}' cannot be read: {error}.") from error
    methods = content.pop("methods", None)
    if not isinstance(methods, dict) or not methods:
        raise ConfigError(f"'{path}' has no [methods.NAME] table: what is to be compared?")
    entries = []
    for name, table in methods.items():
        if not isinstance(table, dict):
            raise ConfigError(f"'{path}': methods.{name} has to be a table: [methods.{name}]")
        if not isinstance(method := (own := _underscored(table)).pop("method", name), str):
            raise ConfigError(f"'{path}': methods.{name}: method = {method} is no name.")
        entries.append(Entry(name, method, own))
    settings = _underscored(content)
    for name, instead in NOT_HERE.items():
        if name in settings or any(name in entry.settings for entry in entries):
            raise ConfigError(f"'{path}': {name.replace('_', '-')} cannot stand here; {instead}.")
    for name, value in settings.items():
        if isinstance(value, dict):
            raise ConfigError(f"'{path}': there is no table [{name}]; settings stand at the top.")
    shown = {name: settings.pop(name) for name in SHOWN if name in settings}
    for name, value in shown.items():
        if type(value) not in SHOWN[name]:
            raise ConfigError(f"'{path}': {name} = {value} is of the wrong type.")
    seeds = seeds_of(settings.pop("seeds", 1))
    for name in settings.keys() - DEFAULTS.keys():
        if near := difflib.get_close_matches(name, (*SHOWN, "seeds", "methods"), 1, 0.8):
            raise ConfigError(f"'{path}': no setting '{name}'; did you mean '{near[0]}'?")
    return Grid(tuple(entries), settings, seeds, shown)


def _underscored(table: Mapping[str, Any]) -> dict[str, Any]:
    return {option_name(name): value for name, value in table.items()}


def seeds_of(seeds: Any) -> tuple[int, ...]:
    """Training seeds 0, 1, ... for a number; those of a list as they are.

    Raises:
        ConfigError: none, twice the same, or no integers.
    """
    listed = list(range(seeds)) if type(seeds) is int else seeds
    whole = isinstance(listed, list) and all(type(seed) is int for seed in listed)
    if not whole or not listed or len(set(listed)) != len(listed):
        raise ConfigError(f"seeds {seeds}: give a number of at least 1, or a list of seeds.")
    return tuple(listed)


def cells_of(grid: Grid, registry: Registry) -> list[Cell]:
    """Every run of a grid, complete; all settings of the first seed come before the next seed.

    A row that sets an axis of the grid itself is in the columns of that value alone. A backbone
    for all rows is not for those whose method has none to choose, as long as some row has one.

    Raises:
        ConfigError: a method, setting or value that cannot be, or two runs that are the same.
    """
    axes = {n: v for n, v in grid.settings.items() if isinstance(v, list) and n not in NO_AXES}
    for name, values in axes.items():
        if not values:
            raise ConfigError(f"{name} = []: give at least one value.")
        for entry in grid.entries:
            if (own := entry.settings.get(name, values[0])) not in values:
                raise ConfigError(f"'{entry.name}': {name} = {own} is none of {name} = {values}.")
    fixed = {name: value for name, value in grid.settings.items() if name not in axes}
    networks = {entry.method: wants_backbone(registry, entry.method) for entry in grid.entries}
    without = dict(fixed)
    if any(networks.values()):
        without.pop("backbone", None)
    cells: list[Cell] = []
    seen: dict[str, str] = {}
    for seed in grid.seeds:
        for point in itertools.product(*axes.values()):
            column = dict(zip(axes, point, strict=True))
            drafts = [
                _draft(
                    entry,
                    {
                        **(fixed if networks[entry.method] else without),
                        **column,
                        **entry.settings,
                        "seed": seed,
                    },
                    registry,
                )
                for entry in grid.entries
                # A row that chose another value of an axis is not in this column.
                if all(entry.settings.get(name, value) == value for name, value in column.items())
            ]
            configs = [draft.config for draft in drafts]
            if grid.equal:
                configs = equalized(drafts, grid.equal, registry)
            told = {n: v for n, v in column.items() if len(axes[n]) > 1}
            for draft, config in zip(drafts, configs, strict=True):
                key = settings_key(config.to_dict())
                if key in seen:
                    raise ConfigError(f"'{seen[key]}' and '{draft.name}' have the same settings.")
                seen[key] = draft.name
                cells.append(Cell(draft.name, config, _column(config, told)))
    return cells


def _draft(entry: Entry, settings: Mapping[str, Any], registry: Registry) -> Draft:
    config = configure(entry.method, registry, **settings)
    return Draft(entry.name, entry.method, settings, config)


def _column(config: RunConfig, values: Mapping[str, Any]) -> str:
    """What sets the column apart, in words."""
    others = [f"{n} {v}" for n, v in values.items() if n not in ("way", "shot")]
    return ", ".join([f"{config.way}-way {config.shot}-shot", *others])


def run_grid(
    grid: Grid, registry: Registry, progress: GridProgress
) -> tuple[list[tuple[Cell, Run]], list[str]]:
    """Run what is missing, one after the other.

    Returns:
        Every cell with its run, and one line for each cell that failed; it stops no other.

    Raises:
        ConfigError: see :func:`cells_of`; nothing has been run then.
    """
    cells = cells_of(grid, registry)
    alike = Alike([Path(cells[0].config.runs_dir)], registry)
    done: dict[int, Run] = {}  # by the position of the cell
    broken: dict[int, Path] = {}  # runs to go on with
    missing, pace = [], Pace()
    for place, cell in enumerate(cells):
        found = alike.find(cell.config)
        if found.finished is not None:
            done[place] = found.finished
            training = found.finished.record["training"]
            pace.note(cell, training["seconds"] if training else 0.0)
            progress.message(f"{cell.title}: there already, in '{found.finished.folder}'")
            continue
        missing.append(place)
        if found.unfinished is not None:
            broken[place] = found.unfinished
        elif found.nearly is not None:
            progress.message(f"{cell.title}: {found.nearly}; it is run again")
    problems = []
    for i, place in enumerate(missing):
        cell = cells[place]
        if any(_seedless_twin(cells[p], cell, run) for p, run in done.items()):
            progress.message(f"{cell.title}: nothing is trained, so the seed changes nothing")
            continue
        left = pace.left([cells[later] for later in missing[i:]])
        progress.cell(i + 1, len(missing), cell.title, left)
        began = time.monotonic()
        try:
            if place in broken:
                folder = broken[place]
                progress.message(f"{cell.title}: goes on in '{folder}'")
                resume(folder, progress, trust_code=True, **of_here(cell.config))
            else:
                folder = Path(cell.config.runs_dir) / run(cell.config, progress)["id"]
        except FewshotBenchError as error:
            problems.append(f"{cell.title}: {error}")
            continue
        done[place] = Run(folder, read_record(folder))
        pace.note(cell, time.monotonic() - began)
    return [(cells[place], done[place]) for place in sorted(done)], problems


def _seedless_twin(one: Cell, cell: Cell, run: Run) -> bool:
    """Whether a run of another seed stands for this cell too."""
    return run.seedless and (one.entry, one.column) == (cell.entry, cell.column)
