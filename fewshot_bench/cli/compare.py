"""``fsb compare``: what is missing of a grid is run, then shown side by side."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_bench.cli import _dynamic
from fewshot_bench.config.options import dataset_options, flag, load
from fewshot_bench.config.resolve import sampler_options
from fewshot_bench.config.schema import DEFAULT_PLUGINS, SETTINGS
from fewshot_bench.errors import ConfigError, PluginError, RecordError, UnknownName, plugin_errors
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.hooks.single_file import is_file
from fewshot_bench.utils.text import one_line

if TYPE_CHECKING:
    from fewshot_bench.results.comparison import Comparison
    from fewshot_bench.results.runs import Run
    from fewshot_bench.runs.grid import Grid

# What is read by 'fsb figure' and 'fsb report'.
Runs = Annotated[
    list[Path] | None, typer.Argument(help="folders of runs, or folders that hold them")
]
RunsDir = Annotated[Path, typer.Option(help="read if no folder is named")]
# Options of 'fsb compare' and 'fsb report'.
Baseline = Annotated[
    str | None, typer.Option(help="method or run that the others are compared with, paired")
]
INTERVAL = (
    "what the ± is: student, percentile, bca, classes, hierarchical or seeds; unless given, "
    "student with one training seed and hierarchical with several"
)
Interval = Annotated[str | None, typer.Option(help=INTERVAL)]
LEVEL = "confidence level of all intervals; default: that of the records"
Level = Annotated[float | None, typer.Option(help=LEVEL)]
TARGET = "also show the time to this validation accuracy, like 0.95"
Target = Annotated[float | None, typer.Option(help=TARGET)]
EQUAL = (
    "training settings in which all rows have to be the same, as way,steps or all "
    "(docs/compare.md); methods are trained so, runs that are not are refused"
)
Equal = Annotated[list[str] | None, typer.Option(metavar="NAMES", help=EQUAL)]
WHAT = (
    "methods or a file: runs what is missing first; folders of runs, or folders that hold them: "
    "only reads"
)
METAVAR = "[METHOD... | PROTOCOL.toml | RUN_OR_FOLDER...]"
RUNS_DIR = "where runs are written, found again, and read if nothing is named"
SEEDS = "training seeds of each method; the test episodes stay the same"
FORMAT = "terminal, or what 'fsb list exporters' shows"
# Settings that differ between runs, or for which this command has another option.
EXCLUDED = ("seed", "runs_dir", "level")
SEVERAL = ("way", "shot", "query")  # given more than once: a column for each value
FEW = 100  # runs
BOLD: dict[str, Any] = {"bold": True}
STYLES = {"heading": {**BOLD, "underline": True}, "head": BOLD, "bold": BOLD, "dim": {"dim": True}}


def build_command(arguments: Sequence[str], registry: Registry) -> Any:
    """The command, with the options of the data set and the sampler that the arguments name."""

    def options(values: Mapping[str, Any]) -> _dynamic.Parameters:
        words = values.get("what", ())
        if not any(is_file(one) or registry.claims("methods", one) for one in words):
            return []  # nothing is run, so that nothing heavy is imported
        found = dataset_options(registry, values.get("dataset", DEFAULT_PLUGINS["dataset"]))
        default: str = SETTINGS["sampling"].default
        found += sampler_options(registry, values.get("sampling", default))
        return [_dynamic.parameter(option, "Of data set and sampler") for option in found]

    panel, settings = "Runs that are missing", []
    for name in (name for name in SETTINGS if name not in EXCLUDED):
        note = "; may be repeated, a column each" if name in SEVERAL else ""
        one = _dynamic.parameter(SETTINGS[name], panel, note)
        settings.append(one.replace(annotation=list[str] | None) if note else one)
    return _dynamic.build("compare", _compare, registry, arguments, options, more=settings)


def _compare(
    registry: Registry,
    settings: dict[str, Any],
    /,
    what: Annotated[list[str] | None, typer.Argument(metavar=METAVAR, help=WHAT)] = None,
    runs_dir: Annotated[Path, typer.Option(help=RUNS_DIR)] = Path("runs"),
    seeds: Annotated[int, typer.Option(help=SEEDS)] = 1,
    baseline: Baseline = None,
    interval: Interval = None,
    level: Level = None,
    target: Target = None,
    equal: Equal = None,
    format: Annotated[str, typer.Option(help=FORMAT)] = "terminal",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="write to a file")] = None,
) -> None:
    """Compare methods on the same test episodes.

    One table per protocol, one column per setting, with paired differences. Methods, or a file
    with a grid of them, are run where no finished run has the same settings, data, code and
    versions. Exit code 2 if something that was named could not be used or compared.
    """
    if format == "terminal" and output is not None:
        raise ConfigError("-o: expected a format for files, got terminal; give --format markdown.")
    if format != "terminal":
        registry.resolve("exporters", format)
    what = what or []
    shown: dict[str, Any] = {"baseline": baseline, "interval": interval}
    shown |= {"level": level, "target": target, "equal": equal or None}
    found, problems = _found(registry, what, runs_dir, seeds, settings, shown)
    if not found:
        raise none_finished(what[0], problems)
    # On a screen the signed-rank tests of a large table would be waited for.
    ranks = format != "terminal" or len(found) <= FEW
    result = compared(found, problems, ranks=ranks, **shown)
    if format == "terminal":
        _show(result)
    else:
        _export(registry, result, format, output)
    only_read = not what or any(Path(word).is_dir() for word in what)
    report_problems(result, strict=bool(what), may_differ=not only_read)


def _found(
    registry: Registry, what: list[str], runs_dir: Path, seeds: int, settings: Mapping[str, Any],
    shown: dict[str, Any],
) -> tuple[list[Run], list[str]]:  # fmt: skip
    """The runs that are named, trained if missing; ``shown`` gets a file's table options."""
    from fewshot_bench.results.comparison import check
    from fewshot_bench.results.training import equal_names

    methods, files, folders = split_names(what, registry)
    grid = None
    if files:
        from fewshot_bench.runs.grid import read_grid

        grid = read_grid(files[0])
        if settings or seeds != 1:
            raise ConfigError(f"'{files[0]}' holds the settings of its runs; change them in there.")
        shown |= {name: value for name, value in grid.shown.items() if shown[name] is None}
    elif methods:
        from fewshot_bench.runs.grid import Entry, Grid, seeds_of

        if twice := [name for name in methods if methods.count(name) > 1]:
            variants = "a file with [methods.NAME] tables compares its variants"
            raise ConfigError(f"{twice[0]} is named twice; {variants}.")
        named = {SETTINGS[n].option or n if n in SETTINGS else n: v for n, v in settings.items()}
        grid = Grid(tuple(Entry(name, name) for name in methods), named, seeds_of(seeds))
    elif settings or seeds != 1:
        name = next(iter([*settings, "seeds"]))
        typed = SETTINGS[name].flag if name in SETTINGS else flag(name)
        raise ConfigError(f"{typed} is a setting of runs to make; name the methods, too.")
    runs: list[Run] = []
    problems: list[str] = []
    if grid is not None:  # checked before hours of training, not after
        check(shown["level"], shown["interval"], shown["target"])
        grid = replace(grid, equal=equal_names(shown["equal"]))
        known = {name for entry in grid.entries for name in (entry.name, entry.method)}
        if (base := shown["baseline"]) not in (None, *known) and not (runs_dir / base).is_dir():
            raise UnknownName("baseline", base, known, "Give one of them, or the id of a run.")
        runs, problems = _run_missing(grid, runs_dir, registry)
    if folders or grid is None:
        read, unread = finished_runs(folders or [runs_dir], needed=not runs)
        runs, problems = [*runs, *read], [*problems, *unread]
    return runs, problems


def split_names(
    names: Sequence[str], registry: Registry
) -> tuple[list[str], list[Path], list[Path]]:
    """Methods, files of grids, and folders to read.

    UnknownName or RecordError for a name that is none of them, ConfigError for a file and more.
    """
    methods, files, folders = list[str](), list[Path](), list[Path]()
    for name in names:
        path = Path(name)
        if path.suffix == ".toml":
            files.append(path)
            continue
        plain = is_file(name) or not any(mark in name for mark in ("/", "\\"))
        if plain and registry.claims("methods", name):
            methods.append(name)  # ./NAME is a folder of that name
        elif path.exists():
            folders.append(path)
        elif plain:
            hint = "Folders of runs come from: fsb run METHOD."
            raise UnknownName("method or folder", name, registry.names("methods"), hint)
        else:
            raise RecordError(f"there is no '{path}'; run something first: fsb run METHOD")
    if files and len(names) > 1:
        raise ConfigError(f"'{files[0]}' defines the whole comparison; give it alone.")
    return methods, files, folders


def _run_missing(grid: Grid, runs_dir: Path, registry: Registry) -> tuple[list[Run], list[str]]:
    """Run what is missing of a grid: all its runs, and a line for each that failed."""
    from fewshot_bench.cli.progress import Progress
    from fewshot_bench.runs.grid import run_grid

    where = replace(grid, settings={**grid.settings, "runs_dir": str(runs_dir)})
    # Standard output is for the table, whatever a plugin prints.
    with Progress() as progress, redirect_stdout(sys.stderr):
        done, problems = run_grid(where, registry, progress)
    entries = [None if cell.entry == cell.config.method else cell.entry for cell, _ in done]
    return [replace(run, entry=e) for e, (_, run) in zip(entries, done, strict=True)], problems


def finished_runs(
    paths: list[Path], first: str = "something", *, needed: bool = True
) -> tuple[list[Run], list[str]]:
    """As :func:`fewshot_bench.results.runs.load_runs`; unfinished runs are printed, no problems.

    RecordError if a path does not exist or, where one is ``needed``, there is no finished run.
    """
    from fewshot_bench.results.runs import load_runs

    for path in paths:
        if not path.exists():
            raise RecordError(f"there is no '{path}'; run {first} first: fsb run METHOD")
    unfinished: list[str] = []
    found, problems = load_runs(paths, unfinished)
    if not found and needed:
        raise none_finished(paths[0], [*problems, *unfinished])
    if not found:
        return found, [*problems, *unfinished]
    left_out(unfinished)
    return found, problems


def compared(runs: list[Run], problems: list[str], equal: Any = None, **how: Any) -> Comparison:
    """The comparison of these runs, whose ``problems`` begin with those of reading them.

    Raises ConfigError if rows were trained differently in what ``equal`` names, RecordError if
    nothing is left to show. ``how``: see :func:`fewshot_bench.results.comparison.compare`.
    """
    from fewshot_bench.results import comparison
    from fewshot_bench.results.training import equal_names

    names = equal_names(equal)
    result = comparison.compare(runs, **how)
    result.problems[:] = [*problems, *result.problems]
    if not result.tables:
        left_out(result.problems[1:])
        raise RecordError(f"none of the runs can be compared: {result.problems[0]}")
    comparison.refuse_unequal(result, names)
    return result


def report_problems(result: Comparison, strict: bool, may_differ: bool = False) -> None:
    """Print what was left out and what differs in protocol; exit with code 2 if ``strict``."""
    left_out(result.problems)
    mixed = len(result.tables) > 1 and not may_differ
    if strict and mixed:
        reasons = "; ".join(dict.fromkeys(", ".join(t.differs) for t in result.tables[1:]))
        typer.echo(f"mixed protocols, {len(result.tables)} tables: {reasons}", err=True)
    if strict and (result.problems or mixed):
        raise typer.Exit(2)


def none_finished(where: Path | str, problems: list[str]) -> RecordError:
    """The error if no run could be read; further problems are printed."""
    left_out(problems[1:])
    why = problems[0].rstrip(".") if problems else "it holds none"
    return RecordError(f"no finished run in '{where}' ({why}); try: fsb run METHOD")


def left_out(problems: Iterable[str]) -> None:
    """Print what a comparison or a figure does without."""
    for problem in problems:
        typer.echo(f"left out: {one_line(problem)}", err=True)


def _export(registry: Registry, result: Comparison, format: str, output: Path | None) -> None:
    from fewshot_bench.results.record import write_atomically

    title = registry.resolve("exporters", format).title
    with plugin_errors(title):
        text = load(registry, "exporters", format)(result)
    if not isinstance(text, str):
        raise PluginError(f"{title}: expected text, got {type(text).__name__}.")
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text, "give another file with --output")


def _show(result: Comparison) -> None:
    from fewshot_bench.results.formats.terminal import terminal

    def style(text: str, name: str) -> str:
        return typer.style(text, **STYLES[name]) if name else text

    typer.echo(terminal(result, shutil.get_terminal_size().columns, style), nl=False)
