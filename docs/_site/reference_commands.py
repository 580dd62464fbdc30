"""The pages on the command line, from what ``--help`` is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import typer

from docs._site.docstrings import markdown, text

PREFIXES = {"backbones": "backbone_"}
KINDS = {"methods": "Method", "backbones": "Backbone", "datasets": "Data set"}


def command_line() -> str:
    """Every command with its arguments and options."""
    from fewshot_bench.cli.main import app

    root = typer.main.get_command(app)
    parts = [
        "# The command line",
        f"{root.help} An error is a line on standard error and an exit code other than 0; "
        "`--debug` shows where it came from, and `fsb --version` tells the version.",
        "`fsb run` has [a page of its own](run.md).",
    ]
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]
        if name != "run":
            parts += _command(f"fsb {name}", command)
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    if hasattr(command, "commands"):
        for inner, sub in sorted(command.commands.items()):
            yield from _command(f"{name} {inner}", sub)
        return
    yield f"## {name}"
    yield markdown(command.help)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    rows = [(code(p.metavar or p.name.upper()), text(p.help)) for p in arguments]
    if rows:
        yield table("argument", rows)
    if options:
        yield table("option", [_option(p) for p in options])


def _option(option: Any) -> tuple[str, str]:
    said = text(" ".join(option.help.replace(r"\[", "[").split()))
    if option.show_default and option.default not in (None, False, True):
        said += f" (default {code(str(option.default))})"
    return code("/".join([*option.opts, *option.secondary_opts])), said


def code(word: str) -> str:
    """As code that may stand in a table."""
    return f"<code>{word.replace('|', '&#124;')}</code>" if "|" in word else f"`{word}`"


def table(head: str, rows: list[tuple[str, str]]) -> str:
    """Two columns; the second has no head."""
    lines = [f"| {name} | {said.replace('|', '&#124;')} |" for name, said in rows]
    return "\n".join([f"| {head} | |", "|---|---|", *lines])


def run() -> str:
    """``fsb run``: the options of every run, and those of each built-in plugin."""
    from fewshot_bench.cli.run import app, extras, parameter, shown
    from fewshot_bench.config.options import load, method_options, own_options
    from fewshot_bench.config.schema import CORE
    from fewshot_bench.hooks.registry import Registry

    def rows(options: Iterable[Any], more: Iterable[Any] = ()) -> list[tuple[str, str]]:
        found = [parameter(o, "", shown(o, o.default)) for o in options if o.name != "path"]
        infos = [p.default for p in (*found, *more)]
        return [(code(i.param_decls[0]), text(i.help.replace(r"\[", "["))) for i in infos]

    registry = Registry.discover()
    parts = [
        "# fsb run METHOD",
        f"{app.info.help} The defaults below are those before a preset, which may set others: "
        "`fsb run METHOD --help` shows what holds.",
        "## Every run",
        table("option", rows(CORE, extras())),
    ]
    for kind, title in KINDS.items():
        for name in sorted(registry.names(kind)):
            said = (load(registry, kind, name).__doc__ or "").split("\n\n")[0]
            parts += [f"## {title} `{name}`", markdown(said)]
            if kind == "methods":
                options = method_options(registry, name, {})
            else:
                options = own_options(registry, kind, name, PREFIXES.get(kind, ""))
            if listed := rows(options):
                parts.append(table("option", listed))
    return "\n\n".join(parts) + "\n"
