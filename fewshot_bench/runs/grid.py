"""A grid of runs: methods x settings x training seeds.

A run counts for a cell if it is the same (:mod:`fewshot_bench.runs.identity`) and is not repeated;
one that did not finish is resumed.
"""

import difflib
import itertools
import logging
import statistics
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from fewshot_bench.config.options import flag, load, option_name
from fewshot_bench.config.resolve import REPEATED, configure
from fewshot_bench.config.schema import FOLLOWERS, SETTINGS, RunConfig
from fewshot_bench.engine.training import check_players
from fewshot_bench.errors import ConfigError, FewshotBenchError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.results.record import read_record
from fewshot_bench.results.runs import Run
from fewshot_bench.results.training import BY_NAME, unequal
from fewshot_bench.runs.context import Progress, RunContext
from fewshot_bench.runs.identity import RunIndex, resumable, settings_key
from fewshot_bench.runs.prepare import describe, method_task, new_method, prepare
from fewshot_bench.runs.train import resume, run

logger = logging.getLogger(__name__)

# Options of 'fsb compare' about the table, which a grid file may hold, and their types there.
SHOWN = {
    "baseline": (str,), "interval": (str,), "target": (int, float), "level": (int, float),
    "equal": (str, list),
}  # fmt: skip
_MISSING = object()
NO_BACKBONE = {"backbone": "none"}  # the trait of a method without a backbone
# Settings of a run that a grid has in another form.
ELSEWHERE = {
    "seed": "give seeds = [3], a list of training seeds",
    "runs_dir": "give --runs-dir on the command line",
}


@dataclass(frozen=True)
class Entry:
    """A row of a grid."""

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """What is to be compared."""

    entries: tuple[Entry, ...]  # the rows
    settings: Mapping[str, Any]  # of all runs; a list makes a column of each of its values
    seeds: tuple[int, ...] = (0,)  # of training; the test episodes are the same for all
    shown: Mapping[str, Any] = field(default_factory=dict)  # options in a file: SHOWN
    equal: tuple[str, ...] = ()  # traits of training in which the rows of a column are equal


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    entry: str
    config: RunConfig
    column: str  # such as "5-way 1-shot"

    @property
    def title(self) -> str:
        return f"{self.entry}, {self.column}, seed {self.config.seed}"

    @property
    def place(self) -> tuple[str, str]:
        return self.entry, self.column


class GridProgress(Progress, Protocol):
    """Shows a grid while it is run."""

    def cell(self, number: int, of: int, title: str, seconds_left: float | None) -> None:
        """A run of the grid starts; the time that it and the later ones take, if known."""


def read_grid(path: Path) -> Grid:
    """The grid of a file such as ``benchmarks/protocols/*.toml``; keys: docs/compare.md."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"'{path}' cannot be read: {error}.") from error
    methods = content.pop("methods", None)
    if not isinstance(methods, dict) or not methods:
        raise ConfigError(f"'{path}': expected a table [methods.NAME] for each method, found none.")
    entries = []
    for name, table in methods.items():
        if not isinstance(table, dict):
            raise ConfigError(f"'{path}': methods.{name}: expected a table: [methods.{name}]")
        own = {option_name(key): value for key, value in table.items()}
        if not isinstance(method := own.pop("method", name), str):
            raise ConfigError(f"'{path}': methods.{name}.method: expected a name, got {method}.")
        entries.append(Entry(name, method, own))
    settings = {option_name(key): value for key, value in content.items()}
    for name, instead in ELSEWHERE.items():
        if name in settings or any(name in entry.settings for entry in entries):
            raise ConfigError(f"'{path}': {name.replace('_', '-')} is no key of a grid; {instead}.")
    for name, value in settings.items():
        if isinstance(value, dict):
            raise ConfigError(f"'{path}': unknown table [{name}]; settings are at the top level.")
    shown = {name: settings.pop(name) for name in SHOWN if name in settings}
    for name, value in shown.items():
        if type(value) not in SHOWN[name]:
            raise ConfigError(f"'{path}': {name} = {value} is of the wrong type.")
    seeds = seeds_of(settings.pop("seeds", 1))
    for name in settings.keys() - SETTINGS.keys():
        if near := difflib.get_close_matches(name, (*SHOWN, "seeds", "methods"), 1, 0.8):
            raise ConfigError(f"'{path}': unknown setting '{name}'; did you mean '{near[0]}'?")
    return Grid(tuple(entries), settings, seeds, shown)


def seeds_of(seeds: Any) -> tuple[int, ...]:
    """Training seeds 0, 1, ... for a number; those of a list as they are."""
    listed = list(range(seeds)) if type(seeds) is int else seeds
    whole = isinstance(listed, list) and all(type(seed) is int for seed in listed)
    if not whole or not listed or len(set(listed)) != len(listed):
        raise ConfigError(f"seeds: expected an integer >= 1 or a list of seeds, got {seeds}.")
    return tuple(listed)


def cells_of(grid: Grid, registry: Registry) -> list[Cell]:
    """Every run of a grid, complete; all settings of the first seed come before the next seed.

    A row that sets an axis of the grid itself is in the columns of that value alone. A backbone for
    all rows applies to methods with one, if there are any.

    Raises:
        ConfigError: an impossible method, setting or value, or two runs that are the same.
    """
    # The settings of REPEATED are lists themselves.
    axes = {n: v for n, v in grid.settings.items() if isinstance(v, list) and n not in REPEATED}
    for name, values in axes.items():
        if not values:
            raise ConfigError(f"{name}: expected at least one value, got [].")
        for entry in grid.entries:
            if (own := entry.settings.get(name, values[0])) not in values:
                what = f"expected one of {values}, the values of all rows, got {own}"
                raise ConfigError(f"'{entry.name}': {name}: {what}.")
    fixed = {name: value for name, value in grid.settings.items() if name not in axes}
    names = {entry.method: registry.settled("methods", entry.method) for entry in grid.entries}
    networks = {m: load(registry, "methods", name).wants_backbone for m, name in names.items()}
    without = {n: v for n, v in fixed.items() if n != "backbone" or not any(networks.values())}
    cells: list[Cell] = []
    seen: dict[str, str] = {}
    planned: _Planned | None = None  # of all columns, which share their data
    for seed in grid.seeds:
        for point in itertools.product(*axes.values()):
            column = dict(zip(axes, point, strict=True))
            drafts = []
            for entry in grid.entries:
                # A row that chose another value of an axis is not in this column.
                if any(entry.settings.get(name, value) != value for name, value in column.items()):
                    continue
                common = fixed if networks[entry.method] else without
                settings = {**common, **column, **entry.settings, "seed": seed}
                config = configure(entry.method, registry, **settings)
                drafts.append(Row(entry.name, entry.method, settings, config=config))
            if grid.equal:
                planned = planned or _Planned(registry, drafts[0].config)
                drafts = equalized(drafts, grid.equal, planned)
            more = [n for n in column if len(axes[n]) > 1 and n not in ("way", "shot")]
            varied = [f"{n} {column[n]}" for n in more]
            for draft in drafts:
                config, key = draft.config, settings_key(draft.config.to_dict())
                if key in seen:
                    raise ConfigError(f"'{seen[key]}' and '{draft.name}' have the same settings.")
                seen[key] = draft.name
                title = ", ".join([f"{config.way}-way {config.shot}-shot", *varied])
                cells.append(Cell(draft.name, config, title))
    return cells


@dataclass(frozen=True)
class Row(Entry):
    """A row before settings are equalized: with what was typed for it, and what that gives."""

    config: RunConfig = field(kw_only=True)


class _Planned:
    """Facts about drafts before they run; reads the data and builds the methods."""

    def __init__(self, registry: Registry, config: RunConfig) -> None:
        self.registry, self.context = registry, RunContext(config, registry)
        self._trains: dict[str, bool] = {}

    def trains(self, draft: Row) -> bool:
        """Whether the method has anything to train; its training episodes need not be possible."""
        key = settings_key(draft.config.to_dict())
        if key not in self._trains:
            context = self.context.with_config(draft.config)
            method = new_method(context, method_task(context), torch.device("cpu"))
            self._trains[key] = bool(check_players(method))
        return self._trains[key]

    def run(self, draft: Row) -> Run:
        """The run that the draft would become, as far as its record is about training."""
        config = replace(draft.config, observers=(), metrics=(), device="cpu")
        record = describe(prepare(self.context.with_config(config)), Path("planned"))
        record["training"] = {"steps": config.steps} if self.trains(draft) else None
        return Run(Path("planned"), record)

    def fields(self, name: str, config: RunConfig) -> dict[str, Any]:
        """The settings that make a trait, one by one, as they are typed."""
        if name == "backbone" and not load(self.registry, "methods", config.method).wants_backbone:
            return NO_BACKBONE
        found: dict[str, Any] = {}
        for setting in BY_NAME[name].settings:
            value = getattr(config, setting)
            if setting == "dataset_options":
                own = name == "augmentation"  # its options, or the others: what the data are
                found |= {n: v for n, v in value.items() if n.startswith("train_") == own}
            else:
                found |= value if setting == "backbone_options" else {setting: value}
        return found


def equalized(drafts: list[Row], names: Sequence[str], planned: _Planned) -> list[Row]:
    """The rows of one column, equal in these traits (``equal_names``).

    Where rows differ, the value that the user typed counts for all; for the counts of the training
    task, else the evaluation's; anything else is a ConfigError: no row's own value is better.
    """
    for name in (name for name in BY_NAME if name in names and BY_NAME[name].settings):
        drafts = _settle(name, drafts, planned)
    why = unequal([(draft.name, [planned.run(draft)]) for draft in drafts], names)
    if why is not None:
        raise ConfigError(f"--equal {why[0]}: {why[1]}; no option sets it, so nothing was run.")
    return drafts


def _settle(name: str, drafts: list[Row], planned: _Planned) -> list[Row]:
    """The rows, equal in one trait: one of its settings after the other."""
    settled: set[str] = set()
    while True:
        each = [planned.fields(name, draft.config) for draft in drafts]
        rows = [(d, f) for d, f in zip(drafts, each, strict=True) if planned.trains(d)]
        keys = dict.fromkeys(key for _, fields in rows for key in fields)
        differing = (k for k in keys if len({repr(f.get(k, _MISSING)) for _, f in rows}) > 1)
        field = next(differing, None)
        if field is None or all(fields == each[0] for fields in each):
            return drafts
        typed = {repr(f.get(field)): f.get(field) for d, f in rows if field in d.settings}
        if len(typed) > 1 or field in settled or not (typed or field in FOLLOWERS):
            raise ConfigError(_refusal(name, field, rows))
        settled.add(field)
        leader = rows[0][0].config
        value = next(iter(typed.values())) if typed else getattr(leader, FOLLOWERS[field])
        for draft, fields in rows:
            if fields.get(field) != value and fields != NO_BACKBONE:
                now = {**draft.settings, field: value}
                config = configure(draft.method, planned.registry, **now)
                drafts[drafts.index(draft)] = replace(draft, settings=now, config=config)


def _refusal(name: str, field: str, rows: Sequence[tuple[Row, Mapping[str, Any]]]) -> str:
    values = []
    for draft, fields in rows:
        source = "typed" if field in draft.settings else draft.config.sources.get(field, "default")
        values.append(f"{draft.name} {fields.get(field, 'no such option')} ({source})")
    key = flag(field).lstrip("-")
    advice = f"choose one for all rows: --{key} VALUE, or {key} = VALUE at the top of a file"
    if any(field in draft.settings for draft, _ in rows):
        advice = f"give {key} once, for all rows"
    return f"--equal {name}: rows differ in {key}: {', '.join(values)}; {advice}."


def run_grid(
    grid: Grid, registry: Registry, progress: GridProgress
) -> tuple[list[tuple[Cell, Run]], list[str]]:
    """Run what is missing; returns every cell with its run, and a line for each that failed."""
    cells = cells_of(grid, registry)
    first = RunContext(cells[0].config, registry, progress)
    contexts = [first.with_config(cell.config) for cell in cells]
    index = RunIndex([Path(cells[0].config.runs_dir)])
    done: dict[int, Run] = {}  # by the position of the cell
    missing: dict[int, Path | None] = {}  # the same; what did not finish
    eta, problems = Eta(), []
    for place, cell in enumerate(cells):
        found = index.find(contexts[place])
        if found.finished is not None:
            done[place] = found.finished
            training = found.finished.record["training"]
            eta.add(cell, training["seconds"] if training else 0.0)
            logger.info(f"{cell.title}: reusing finished run '{found.finished.folder}'")
            continue
        missing[place] = found.unfinished
        if found.unfinished is None and found.near is not None:
            logger.info(f"{cell.title}: {found.near}; running it again")
    for i, (place, folder) in enumerate(missing.items()):
        cell, context = cells[place], contexts[place]
        row = [run for p, run in done.items() if cells[p].place == cell.place]
        if any(run.seedless for run in row):
            logger.info(f"{cell.title}: nothing is trained, so the seed changes nothing")
            continue
        left = eta.seconds([cells[later] for later in [*missing][i:]])
        progress.cell(i + 1, len(missing), cell.title, left)
        began = time.monotonic()
        try:
            if folder is not None:
                logger.info(f"{cell.title}: resuming '{folder}'")
                resume(folder, context, trust_code=True, **resumable(cell.config))
            else:
                folder = Path(cell.config.runs_dir) / run(context)["id"]
        except FewshotBenchError as error:
            problems.append(f"{cell.title}: {error}")
            continue
        done[place] = Run(folder, read_record(folder))
        eta.add(cell, time.monotonic() - began)
    return [(cells[place], done[place]) for place in sorted(done)], problems


class Eta:
    def __init__(self) -> None:
        self._took: dict[tuple[str, str], list[float]] = {}  # by row and column

    def add(self, cell: Cell, seconds: float) -> None:
        self._took.setdefault(cell.place, []).append(seconds)

    def seconds(self, cells: Sequence[Cell]) -> float | None:
        """Seconds for these cells; None where nothing is known.

        A cell takes what its row took in its column, else in others; one of a new row the average.
        """
        known = []
        for cell in cells:
            row = [s for (entry, _), own in self._took.items() if entry == cell.entry for s in own]
            if same := self._took.get(cell.place, row):
                known.append(statistics.mean(same))
        return sum(known) / len(known) * len(cells) if known else None
