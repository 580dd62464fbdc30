"""The reference pages of the command line, from the commands and their options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import typer

from docs._site.docstrings import markdown, text

PREFIXES = {"backbones": "backbone_"}
KINDS = {"methods": "Method", "backbones": "Backbone", "datasets": "Data set"}


def command_line() -> str:
    """Every command with its arguments and options."""
    from fewshot_bench.cli import check, compare, data, evaluate, resume
    from fewshot_bench.cli.main import ORDER, app
    from fewshot_bench.hooks.registry import Registry

    registry = Registry.discover()
    root = typer.main.get_command(app)
    built = {
        "check": check.build_command([], registry),
        "compare": compare.build_command([], registry),
        "eval": evaluate.build_command([], registry),
        "resume": resume.build_command(),
    }
    parts = [
        "# The command line",
        f"{root.help} An error is a line on standard error and an exit code other than 0; "
        "`--debug` shows the traceback, and `fsb --version` prints the version.",
        "`fsb run` has [a separate page](run.md).",
    ]
    for name in ORDER:
        command = built.get(name, root.commands[name])  # type: ignore[attr-defined]
        if name == "data":
            for action, listed in command.commands.items():
                known = action in data.ACTIONS
                sub = data.build_command(action, [], registry) if known else listed
                parts += _command(f"fsb data {action}", sub)
        elif name != "run":
            parts += _command(f"fsb {name}", command)
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"## {name}"
    yield markdown(command.help.replace(r"\[", "["))
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    rows = [(code(p.metavar or p.name.upper()), text(p.help)) for p in arguments]
    if rows:
        yield table("argument", rows)
    if options:
        yield table("option", [_option(p) for p in options])


def _option(option: Any) -> tuple[str, str]:
    words = _help(option)
    if option.show_default and option.default not in (None, False, True):
        words += f" (default {code(str(option.default))})"
    return code("/".join([*option.opts, *option.secondary_opts])), words


def _help(option: Any) -> str:
    """The help text of an option, with its choices."""
    words = " ".join(option.help.replace(r"\[", "[").split())
    choices = (option.metavar or "").split("|")
    return text(f"{words}: {', '.join(choices)}" if len(choices) > 1 else words)


def code(word: str) -> str:
    """Markdown of a word as code, escaped for tables."""
    return f"<code>{word.replace('|', '&#124;')}</code>" if "|" in word else f"`{word}`"


def table(head: str, rows: list[tuple[str, str]]) -> str:
    """A table with two columns; the second has no heading."""
    lines = [f"| {name} | {words.replace('|', '&#124;')} |" for name, words in rows]
    return "\n".join([f"| {head} | |", "|---|---|", *lines])


def run() -> str:
    """``fsb run``: the options of every run, and those of each built-in plugin."""
    from fewshot_bench.cli._dynamic import default_note, parameter
    from fewshot_bench.cli.run import HELP, build_command
    from fewshot_bench.config.options import load, method_options, own_options
    from fewshot_bench.config.resolve import RESERVED
    from fewshot_bench.config.schema import SETTINGS
    from fewshot_bench.hooks.registry import Registry

    def rows(options: Iterable[Any]) -> list[tuple[str, str]]:
        shown = [option for option in options if option.name != "path"]
        infos = [parameter(option).default for option in shown]
        return [
            (code(info.param_decls[0]), _help(info) + text(default_note(option, option.default)))
            for option, info in zip(shown, infos, strict=True)
        ]

    registry = Registry.discover()
    any_method = build_command(next(iter(registry.names("methods"))), [], registry)
    others = [_option(p) for p in any_method.params if p.name in RESERVED and p.name != "help"]
    parts = [
        "# fsb run METHOD",
        f"{HELP} The defaults below are those without a preset, which may set others: "
        "`fsb run METHOD --help` shows the resulting values.",
        "## Every run",
        table("option", rows(SETTINGS.values()) + others),
    ]
    for kind, title in KINDS.items():
        for name in sorted(registry.names(kind)):
            words = (load(registry, kind, name).__doc__ or "").split("\n\n")[0]
            parts += [f"## {title} `{name}`", markdown(words)]
            if kind == "methods":
                options = method_options(registry, name, {})
            else:
                options = own_options(registry, kind, name, PREFIXES.get(kind, ""))
            if listed := rows(options):
                parts.append(table("option", listed))
    return "\n\n".join(parts) + "\n"
