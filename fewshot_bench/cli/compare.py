"""``fsb compare``."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_bench.cli.grid import parameters
from fewshot_bench.errors import ConfigError, PluginError, RecordError, blame

if TYPE_CHECKING:
    from fewshot_bench.results.comparison import Comparison
    from fewshot_bench.results.runs import Run

# What else is typed is an option of the data set.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}
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
    baseline: Annotated[
        str | None, typer.Option(help="method or run that the others are compared with, paired")
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option(
            help="what the ± is: student, percentile, bca, classes, hierarchical or seeds; unless "
            "given, student with one training seed and hierarchical with several",
        ),
    ] = None,
    level: Annotated[
        float | None, typer.Option(help="of all intervals; unless given, that of the records")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="also show the time to this validation accuracy, like 0.95")
    ] = None,
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
    # A list of words takes unknown options in, too: what follows the first is the data set's.
    words = what or []
    cut = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    what, further = words[:cut], words[cut:]
    shown: dict[str, Any] = {"baseline": baseline, "interval": interval}
    shown |= {"level": level, "target": target}
    found, problems = _found(what, further, runs_dir, seeds, settings, shown)
    if not found:
        for problem in problems[1:]:
            _say(problem)
        where = [*what, runs_dir][0]
        why = problems[0].rstrip(".") if problems else "it holds none"
        raise RecordError(f"no finished run in '{where}' ({why}); try: fsb run METHOD")
    show_runs(found, problems, format=format, output=output, strict=bool(what), **shown)


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
    from fewshot_bench.results.runs import load_runs

    methods, files, folders = split_names(what)
    settings = {name: value for name, value in settings.items() if value is not None}
    if shown["level"] is not None and (methods or files):
        settings["level"] = shown["level"]
    grid = None
    if files:
        from fewshot_bench.grid import read_grid

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
    runs, problems = run_missing(grid, runs_dir) if grid else ([], [])
    if folders or grid is None:
        if not what and not runs_dir.exists():
            raise RecordError(f"there is no '{runs_dir}'; run something first: fsb run METHOD")
        read, unread = load_runs(folders or [runs_dir])
        runs, problems = [*runs, *read], [*problems, *unread]
    return runs, problems


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
    strict: bool = True,
) -> None:
    """Print a comparison, or write it to a file; what was left out goes to standard error.

    Arguments:
        runs: what to compare.
        problems: a line for each run that could not be read.
        baseline, interval, target, level: see :func:`fewshot_bench.results.compare.compare`.
        format: ``terminal`` or the name of an exporter.
        output: a file for anything but ``terminal``; None: standard output.
        strict: exit with code 2 if something was left out or stands apart.
    """
    from fewshot_bench.results.compare import compare as compare_runs

    if format == "terminal" and output is not None:
        raise ConfigError("-o wants a format for files; give --format markdown, for example.")
    result = compare_runs(
        runs, baseline, level, interval=interval, target=target, ranks=format != "terminal"
    )
    told = [*problems, *result.problems]
    if not result.tables:
        for problem in told[1:]:
            _say(problem)
        raise RecordError(f"none of the runs can be compared: {told[0]}")
    result.problems[:] = told
    if format == "terminal":
        _show(result)
    else:
        _export(result, format, output)
    for problem in told:
        _say(problem)
    if strict and len(result.tables) > 1:
        reasons = "; ".join(dict.fromkeys(", ".join(t.differs) for t in result.tables[1:]))
        typer.echo(f"mixed protocols, {len(result.tables)} tables: {reasons}", err=True)
    if strict and (told or len(result.tables) > 1):
        raise typer.Exit(2)


def _say(problem: str) -> None:
    typer.echo(f"left out: {' '.join(problem.split())}", err=True)


def _export(result: Comparison, format: str, output: Path | None) -> None:
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.options import load
    from fewshot_bench.results.tables import write_atomically

    registry = Registry.discover()
    title = registry.resolve("exporters", format).title
    with blame(title):
        text = load(registry, "exporters", format)(result)
    if not isinstance(text, str):
        raise PluginError(f"{title} returned {type(text).__name__}; text is wanted.")
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text, "give another file with --output")


def _show(result: Comparison) -> None:
    from fewshot_bench.results.exporters.terminal import terminal

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
