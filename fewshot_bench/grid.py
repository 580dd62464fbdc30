"""A grid of runs: methods x settings x training seeds. What is there already is not run again.

A finished run stands for a cell of the grid if it has the same configuration, data, code, plugin
and torch versions and kind of device. Where it was written and who watched do not matter.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fewshot_bench import assembly
from fewshot_bench.config import RunConfig, configure
from fewshot_bench.engine.observer import Progress
from fewshot_bench.errors import ConfigError, FewshotBenchError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.options import load
from fewshot_bench.results.environment import code_digest, torch_version
from fewshot_bench.results.record import read_record
from fewshot_bench.results.runs import Run, load_runs
from fewshot_bench.runner import run

# Settings that leave a run's numbers alone.
ASIDE = (
    "runs_dir", "data_root", "cache_dir", "device", "sources", "profile", "pictures", "observers",
)  # fmt: skip
SHOWN = ("baseline", "interval", "target", "level")  # keys of a file that are about the table
NO_AXES = ("metrics", "observers")  # settings that are lists themselves


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
    """

    entries: tuple[Entry, ...]
    settings: Mapping[str, Any]
    seeds: tuple[int, ...] = (0,)
    shown: Mapping[str, Any] = field(default_factory=dict)


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
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read: {error}.") from error
    methods = content.pop("methods", None)
    if not isinstance(methods, dict) or not methods:
        raise ConfigError(f"'{path}' has no [methods.NAME] table: what is to be compared?")
    entries = []
    for name, table in methods.items():
        if not isinstance(table, dict):
            raise ConfigError(f"'{path}': methods.{name} has to be a table: [methods.{name}]")
        own = _underscored(table)
        entries.append(Entry(name, own.pop("method", name), own))
    settings = _underscored(content)
    for name, value in settings.items():
        if isinstance(value, dict):
            raise ConfigError(f"'{path}': there is no table [{name}]; settings stand at the top.")
    shown = {name: settings.pop(name) for name in SHOWN if name in settings}
    if "level" in shown:
        settings["level"] = shown["level"]
    return Grid(tuple(entries), settings, seeds_of(settings.pop("seeds", 1)), shown)


def _underscored(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in table.items()}


def seeds_of(seeds: Any) -> tuple[int, ...]:
    """Training seeds 0, 1, ... for a number; those of a list as they are.

    Raises:
        ConfigError: none, twice the same, or no integers.
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = list(range(seeds))
    whole = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
    if not whole or not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds {seeds}: give a number of at least 1, or a list of seeds.")
    return tuple(seeds)


def cells_of(grid: Grid, registry: Registry) -> list[Cell]:
    """Every run of a grid, complete; all settings of the first seed come before the next seed.

    Raises:
        ConfigError: a method, setting or value that cannot be, or two runs that are the same.
    """
    axes = {n: v for n, v in grid.settings.items() if isinstance(v, list) and n not in NO_AXES}
    for name, values in axes.items():
        if not values:
            raise ConfigError(f"{name} = []: give at least one value.")
    fixed = {name: value for name, value in grid.settings.items() if name not in axes}
    cells, seen = [], set()
    for seed in grid.seeds:
        for point in itertools.product(*axes.values()):
            column = dict(zip(axes, point, strict=True))
            for entry in grid.entries:
                settings = {**fixed, **column, **entry.settings, "seed": seed}
                config = configure(entry.method, registry, **settings)
                key = json.dumps(plain(config), sort_keys=True)
                if key in seen:
                    raise ConfigError(f"'{entry.name}' is in the grid twice with the same settings")
                seen.add(key)
                told = {n: v for n, v in column.items() if len(axes[n]) > 1}
                cells.append(Cell(entry.name, config, _column(config, told)))
    return cells


def _column(config: RunConfig, values: Mapping[str, Any]) -> str:
    """What sets the column apart, in words."""
    others = [f"{n} {v}" for n, v in values.items() if n not in ("way", "shot")]
    return ", ".join([f"{config.way}-way {config.shot}-shot", *others])


def plain(config: RunConfig) -> dict[str, Any]:
    """The part of a configuration that decides numbers, as JSON gives it back."""
    settings = {name: value for name, value in config.to_dict().items() if name not in ASIDE}
    back: dict[str, Any] = json.loads(json.dumps(settings))
    return back


class Finished:
    """The finished runs of a folder, found again by what they are.

    Arguments:
        runs_dir: where they are.
        registry: what is installed now.
    """

    def __init__(self, runs_dir: Path, registry: Registry) -> None:
        self.registry = registry
        self.runs = load_runs([runs_dir])[0] if runs_dir.is_dir() else []
        self._digests: dict[str, str] = {}

    def find(self, cell: Cell) -> tuple[Run | None, str | None]:
        """The newest run that stands for a cell; and a line where one nearly does."""
        settings, origin = plain(cell.config), self._origin(cell.config)
        near: tuple[Run, list[str]] | None = None
        for candidate in sorted(self.runs, key=lambda r: r.record["id"].rsplit("-", 2)[1:]):
            record = candidate.record
            own = {n: v for n, v in record["config"].items() if n not in ASIDE}
            if own != settings or "evaluated_from" in record:
                continue
            theirs = origin_of(record)
            other = [name for name, value in origin.items() if theirs[name] != value]
            if near is None or not other or near[1]:
                near = candidate, other
        if near is None:
            return None, None
        found, other = near
        if not other:
            return found, None
        return None, f"{cell.title}: '{found.folder}' is of other {' and '.join(other)}"

    def seconds(self, method: str) -> float | None:
        """Median seconds that training of a method took."""
        known = sorted(
            candidate.record["training"]["seconds"]
            for candidate in self.runs
            if candidate.record["method"] == method and candidate.record["training"]
        )
        return known[len(known) // 2] if known else None

    def _origin(self, config: RunConfig) -> dict[str, Any]:
        """What ``origin_of`` would say of a run that were started now."""
        backbone = load(self.registry, "methods", config.method).wants_backbone
        things = assembly.named_things(config, self.registry, backbone)
        data = repr((config.dataset, sorted(config.dataset_options.items())))
        if data not in self._digests:
            self._digests[data] = assembly.load_data(config, self.registry).splits.digest
        return {
            "data": self._digests[data],
            "plugin versions": _versions(things),
            "code": code_digest(assembly.modules_of(things, self.registry)),
            "torch": torch_version(),
            "device": assembly.pick_device(config.device).type,
        }


def origin_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run came from besides its settings."""
    return {
        "data": record["dataset_digest"],
        "plugin versions": _versions(record["plugins"]),
        "code": record["environment"].get("code"),
        "torch": record["environment"].get("torch"),
        "device": record["device"]["type"],
    }


def _versions(things: Sequence[Mapping[str, str]]) -> list[tuple[str, ...]]:
    names = ("kind", "name", "distribution", "version")
    return sorted(
        tuple(thing[n] for n in names) for thing in things if thing["kind"] != "observers"
    )


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
    finished = Finished(Path(cells[0].config.runs_dir), registry)
    there: list[tuple[Cell, Run]] = []
    missing = []
    for cell in cells:
        found, line = finished.find(cell)
        if found is not None:
            there.append((cell, found))
            progress.message(f"{cell.title}: there already, in '{found.folder}'")
        else:
            missing.append(cell)
            if line is not None:
                progress.message(f"{line}; it is run again")
    problems = []
    for i, cell in enumerate(missing):
        left = [finished.seconds(other.config.method) for other in missing[i:]]
        known = [seconds for seconds in left if seconds is not None]
        estimate = sum(known) / len(known) * len(left) if known else None
        progress.cell(i + 1, len(missing), cell.title, estimate)
        try:
            folder = Path(cell.config.runs_dir) / run(cell.config, progress)["id"]
        except FewshotBenchError as error:
            problems.append(f"{cell.title}: {error}")
            continue
        done = Run(folder, read_record(folder))
        finished.runs.append(done)
        there.append((cell, done))
    order = {id(cell): i for i, cell in enumerate(cells)}
    return sorted(there, key=lambda pair: order[id(pair[0])]), problems
