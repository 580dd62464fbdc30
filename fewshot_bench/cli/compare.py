"""``fsb compare``."""

from __future__ import annotations

import inspect
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_bench.cli.grid import parameters
from fewshot_bench.cli.table import Baseline, Equal, Interval, Level, Target
from fewshot_bench.errors import ConfigError, PluginError, RecordError, UnknownName, blame
from fewshot_bench.utils.text import one_line

if TYPE_CHECKING:
    from fewshot_bench.results.comparison import Comparison
    from fewshot_bench.results.runs import Run
    from fewshot_bench.runs.grid import Grid

# What else is typed is an option of the data set.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}
FEW = 100  # runs
STYLES = {
    "heading": {"bold": True, "underline": True},
    "head": {"bold": True},
    "bold": {"bold": True},
    "dim": {"dim": True},
}


def compare(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[METHOD... | PROTOCOL.toml | RUN_OR_FOLDER...]",
            help="methods or a file: runs what is missing first; folders of runs, or folders that "
            "hold them: only reads",
        ),
    ] = None,
    runs_dir: Annotated[
        Path, typer.Option(help="where runs are written, found again, and read if nothing is named")
    ] = Path("runs"),
    seeds: Annotated[
        int, typer.Option(help="training seeds of each method; the test episodes stay the same")
    ] = 1,
    baseline: Baseline = None,
    interval: Interval = None,
    level: Level = None,
    target: Target = None,
    equal: Equal = None,
    format: Annotated[
        str, typer.Option(help="terminal, or what 'fsb list exporters' shows")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="write to a file")] = None,
    **settings: Any,
) -> None:
    """Show methods and settings side by side, grouped by protocol and paired on the same episodes.

    Methods, or a file with a grid of them, are run where no finished run has the same settings,
    data, code and versions. Exit code 2 if something that was named could not be used or compared.
    """
    if format == "terminal" and output is not None:
        raise ConfigError("-o wants a format for files; give --format markdown, for example.")
    if format != "terminal":
        _exporter(format)
    words = what or []
    # A list of words takes unknown options in, too: what follows the first is the data set's.
    cut = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    what, further = words[:cut], words[cut:]
    shown: dict[str, Any] = {"baseline": baseline, "interval": interval}
    shown |= {"level": level, "target": target, "equal": equal or None}
    found, problems = _found(what, further, runs_dir, seeds, settings, shown)
    if not found:
        raise none_finished(what[0] if what else runs_dir, problems)
    read = not what or any(Path(word).is_dir() for word in what)
    show_runs(
        found,
        problems,
        format=format,
        output=output,
        strict=bool(what),
        may_differ=not read,
        **shown,
    )


def _found(
    what: list[str],
    further: list[str],
    runs_dir: Path,
    seeds: int,
    settings: dict[str, Any],
    shown: dict[str, Any],
) -> tuple[list[Run], list[str]]:
    """The runs that are meant, made if need be; ``shown`` takes what a file says of the table."""
    from fewshot_bench.cli.grid import grid_of, run_missing, split_names
    from fewshot_bench.results.equal import equal_names

    methods, files, folders = split_names(what)
    settings = {name: value for name, value in settings.items() if value is not None}
    grid = None
    if files:
        from fewshot_bench.runs.grid import read_grid

        grid = read_grid(files[0])
        if settings or further or seeds != 1:
            raise ConfigError(f"'{files[0]}' says what is run; change the settings in there.")
        for name, value in grid.shown.items():
            shown[name] = value if shown[name] is None else shown[name]
    elif methods:
        grid = grid_of(methods, settings, seeds, further)
    elif settings or further or seeds != 1:
        typed = next(iter([*(f"--{n.replace('_', '-')}" for n in settings), *further, "--seeds"]))
        raise ConfigError(f"{typed} is about runs to make; name the methods, too.")
    runs: list[Run] = []
    problems: list[str] = []
    if grid is not None:
        _check_first(grid, runs_dir, **shown)
        grid = replace(grid, equal=equal_names(shown["equal"]))
        runs, problems = run_missing(grid, runs_dir)
    if folders or grid is None:
        if not what and not runs_dir.exists():
            raise RecordError(f"there is no '{runs_dir}'; run something first: fsb run METHOD")
        read, unread = finished_runs(folders or [runs_dir])
        runs, problems = [*runs, *read], [*problems, *unread]
    return runs, problems


def finished_runs(paths: list[Path]) -> tuple[list[Run], list[str]]:
    """As :func:`fewshot_bench.results.runs.load_runs`; a run that goes on is told, and no problem.

    Where there is no finished run at all, it is one.
    """
    from fewshot_bench.results.runs import load_runs

    unfinished: list[str] = []
    found, problems = load_runs(paths, unfinished)
    if not found:
        return found, [*problems, *unfinished]
    for line in unfinished:
        _say(line)
    return found, problems


def _check_first(
    grid: Grid,
    runs_dir: Path,
    *,
    baseline: str | None,
    interval: str | None,
    level: float | None,
    target: float | None,
    equal: Any,
) -> None:
    """Raise before hours of training what would be raised after them."""
    from fewshot_bench.results.compare import check
    from fewshot_bench.results.equal import equal_names

    check(level, interval, target)
    equal_names(equal)
    known = {name for entry in grid.entries for name in (entry.name, entry.method)}
    if baseline is not None and baseline not in known and not (runs_dir / baseline).is_dir():
        hint = "Give one of them, or the id of a run."
        raise UnknownName("baseline", baseline, known, hint)


def show_runs(
    runs: list[Run],
    problems: list[str],
    *,
    baseline: str | None = None,
    interval: str | None = None,
    target: float | None = None,
    format: str = "terminal",
    output: Path | None = None,
    level: float | None = None,
    equal: Any = None,
    strict: bool = True,
    may_differ: bool = False,
) -> None:
    """Print a comparison, or write it to a file; what was left out goes to standard error.

    Arguments:
        runs: what to compare.
        problems: a line for each run that could not be read.
        baseline, interval, target, level: see :func:`fewshot_bench.results.compare`.
        equal: see :func:`fewshot_bench.results.equal.equal_names`.
        format: ``terminal`` or the name of an exporter.
        output: a file for anything but ``terminal``; None: standard output.
        strict: exit with code 2 if something was left out or stands apart.
        may_differ: several tables are what was asked for.
    """
    how = {"baseline": baseline, "interval": interval, "target": target, "level": level}
    # On a screen the signed-rank tests of a large table would be waited for.
    result = compared(runs, problems, equal, ranks=format != "terminal" or len(runs) <= FEW, **how)
    if format == "terminal":
        _show(result)
    else:
        _export(result, format, output)
    tell(result, strict, may_differ)


def compared(runs: list[Run], problems: list[str], equal: Any = None, **how: Any) -> Comparison:
    """The comparison of these runs, whose ``problems`` begin with those of reading them.

    Raises:
        ConfigError: rows were trained differently in what ``equal`` names.
        RecordError: nothing is left to show; else as
            :func:`fewshot_bench.results.compare`, which takes ``how``.
    """
    from fewshot_bench.results.compare import compare as compare_runs
    from fewshot_bench.results.equal import equal_names, refuse_unequal

    names = equal_names(equal)
    result = compare_runs(runs, **how)
    result.problems[:] = [*problems, *result.problems]
    if not result.tables:
        for problem in result.problems[1:]:
            _say(problem)
        raise RecordError(f"none of the runs can be compared: {result.problems[0]}")
    refuse_unequal(result, names)
    return result


def tell(result: Comparison, strict: bool, may_differ: bool = False) -> None:
    """Say what was left out and what stands apart; if ``strict``, that is exit code 2."""
    for problem in result.problems:
        _say(problem)
    mixed = len(result.tables) > 1 and not may_differ
    if strict and mixed:
        reasons = "; ".join(dict.fromkeys(", ".join(t.differs) for t in result.tables[1:]))
        typer.echo(f"mixed protocols, {len(result.tables)} tables: {reasons}", err=True)
    if strict and (result.problems or mixed):
        raise typer.Exit(2)


def none_finished(where: Path | str, problems: list[str]) -> RecordError:
    """What to raise if no run could be read; the further problems are told now."""
    for problem in problems[1:]:
        _say(problem)
    why = problems[0].rstrip(".") if problems else "it holds none"
    return RecordError(f"no finished run in '{where}' ({why}); try: fsb run METHOD")


def _say(problem: str) -> None:
    typer.echo(f"left out: {one_line(problem)}", err=True)


def _exporter(format: str) -> Any:
    """What writes this format.

    Raises:
        UnknownName: nothing does.
    """
    from fewshot_bench.hooks.registry import Registry

    return Registry.discover().resolve("exporters", format)


def _export(result: Comparison, format: str, output: Path | None) -> None:
    from fewshot_bench.config.options import load
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.results.tables import write_atomically

    title = _exporter(format).title
    with blame(title):
        text = load(Registry.discover(), "exporters", format)(result)
    if not isinstance(text, str):
        raise PluginError(f"{title} returned {type(text).__name__}; text is wanted.")
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text, "give another file with --output")


def _show(result: Comparison) -> None:
    from fewshot_bench.results.formats.terminal import terminal

    def style(text: str, name: str) -> str:
        return typer.style(text, **STYLES[name]) if name else text

    typer.echo(terminal(result, shutil.get_terminal_size().columns, style), nl=False)


def _signature() -> inspect.Signature:
    """That of :func:`compare` with an option for each setting of all runs."""
    own = inspect.signature(compare, eval_str=True).parameters.values()
    named = [p for p in own if p.kind is not p.VAR_KEYWORD]
    return inspect.Signature([*named, *parameters()], return_annotation=None)


# typer reads either of the two, depending on its version.
_SIGNATURE = _signature()
compare.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
compare.__annotations__ = {p.name: p.annotation for p in _SIGNATURE.parameters.values()}
