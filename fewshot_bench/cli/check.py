"""``fsb check NAME``."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from fewshot_bench.cli import _dynamic
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry

if TYPE_CHECKING:
    from fewshot_bench.testing.checks import Outcome

NAME = "a method, data set, backbone, sampler, metric or observer; or FILE.py:NAME"
SHAPE = "images that a method or backbone is tried on, as 3,84,84; may be repeated"
MARKS = {"passed": "ok", "failed": "FAILED", "not claimed": "not claimed", "note": "note"}
COLORS = {"passed": "green", "failed": "red", "not claimed": "yellow", "note": "cyan"}


def build_command(arguments: Sequence[str], registry: Registry) -> Any:
    from fewshot_bench.testing.suites import find, options_for

    def options(values: Mapping[str, Any]) -> _dynamic.Parameters:
        if "name" not in values:
            return []
        item = find(registry, values["name"], values.get("kind"))
        found = options_for(registry, item, values["name"], values)
        return _dynamic.with_defaults(found, "Of this plugin")

    return _dynamic.build("check", _check, registry, arguments, options, "name")


def _check(
    registry: Registry,
    options: Mapping[str, Any],
    /,
    name: Annotated[str, typer.Argument(help=NAME, metavar="NAME", show_default=False)],
    kind: Annotated[
        str | None, typer.Option(help="methods, datasets, ...: where several have the name")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="id of a check; may be repeated", metavar="ID")
    ] = None,
    data_root: Annotated[str | None, typer.Option(help="folder of a data set's files")] = None,
    image_shape: Annotated[list[str] | None, typer.Option(help=SHAPE, metavar="C,H,W")] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False,
) -> None:
    """Run the conformance suite on a plugin.

    Exit code 1 if a check fails. A capability that is not declared is reported as not claimed.
    Options of the method, backbone or data set may follow: fsb check maml --first-order.
    """
    from fewshot_bench.testing.checks import run_checks
    from fewshot_bench.testing.suites import find, options_for, suite

    out, outcomes = sys.stdout, []
    with redirect_stdout(sys.stderr):  # standard output is for results
        item, shapes = find(registry, name, kind), [_shape(text) for text in image_shape or ()]
        if shapes and item.kind not in ("methods", "backbones"):
            raise ConfigError(f"--image-shape is for methods and backbones, not {item.title}.")
        known = {option.name: option for option in options_for(registry, item, name, options)}
        own = {n: known[n].check(value) for n, value in options.items()}
        found = suite(registry, name, kind, data_root=data_root, image_shapes=shapes or None, **own)
        width = max(len(check.id) for check in found.checks)
        for outcome in run_checks(found.checks, found.subject, only or ()):
            outcomes.append(outcome)
            if not json:
                _show(outcome, width, out)
    if json:
        names = ("id", "sentence", "status", "message")
        checks = [{n: getattr(outcome, n) for n in names} for outcome in outcomes]
        typer.echo(json_.dumps({"checked": found.title, "checks": checks}, indent=1))
    else:
        counts = {mark: sum(o.status == mark for o in outcomes) for mark in MARKS}
        listed = ", ".join(f"{count} {mark}" for mark, count in counts.items() if count)
        typer.echo(f"{found.title}: {listed}.")
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _shape(text: str) -> tuple[int, int, int]:
    try:
        channels, height, width = (int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        channels = height = width = 0
    if min(channels, height, width) < 1:
        raise ConfigError(f"--image-shape: expected C,H,W such as 3,84,84, got {text!r}.")
    return channels, height, width


def _show(outcome: Outcome, width: int, out: TextIO) -> None:
    """Print the line of an outcome, and its message below."""
    mark = f"{MARKS[outcome.status]:<11}"
    if out.isatty():
        mark = typer.style(mark, fg=COLORS[outcome.status])
    line = f"{outcome.id:<{width}}  {mark}  "
    text = outcome.message if outcome.status in ("note", "not claimed") else outcome.sentence
    print(line + text, file=out, flush=True)
    if outcome.status == "failed":
        print(f"{'':<{width}}  {'':<11}  -> {outcome.message}", file=out, flush=True)
