"""``fsb run METHOD``: a command for each method, built when it is named."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fewshot_bench.cli import _dynamic, commands
from fewshot_bench.config.resolve import Draft
from fewshot_bench.config.schema import SETTINGS
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry

HELP = """Train a method and test it.

Validation chooses the weights, the test split is evaluated once, and a record is written."""
JSON = "print the record and nothing else"


class Methods(TyperGroup):
    """One sub-command per method; its options depend on what is named on the line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, _ in registry_of(ctx).typed("methods")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """For the list of methods only: without options, so that nothing heavy is imported."""
        item = registry_of(ctx).resolve("methods", cmd_name)
        return commands.stub(f"from {item.distribution} {item.version}")

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, Any, list[str]]:
        name, rest = args[0], args[1:]
        if name.startswith("-"):
            first = f"expected METHOD first, then its options: fsb run METHOD {name} ..."
            raise ConfigError(f"fsb run: {first}; 'fsb list methods' shows the methods.")
        return name, build_command(name, rest, registry_of(ctx)), rest


def registry_of(ctx: Any) -> Registry:
    """The registry of the command line, discovered once."""
    root = ctx.find_root()
    root.obj = root.obj or Registry.discover()
    return root.obj


app = typer.Typer(
    cls=Methods,
    help=HELP,
    no_args_is_help=True,
    subcommand_metavar="METHOD [OPTIONS]",
    # An option before the method reaches resolve_command, which says where it belongs.
    context_settings={"ignore_unknown_options": True},
)


def build_command(name: str, arguments: Sequence[str], registry: Registry) -> Any:
    """The command of a method, with the options that these arguments call for."""
    drafts: list[Draft] = []

    def options(values: Mapping[str, Any]) -> _dynamic.Parameters:
        settings = {n: v for n, v in values.items() if n not in ("json", "if_exists")}
        draft = Draft(name, registry, settings)
        drafts.append(draft)
        note, defaults = _dynamic.default_note, draft.defaults
        return [
            _dynamic.parameter(option, panel, note(option, defaults[option.name]))
            for panel, group in draft.options.items()
            for option in group
        ]

    def command(*, json: bool = False, if_exists: str = "resume", **settings: Any) -> None:
        _run(drafts[-1], settings, json=json, if_exists=if_exists)

    every_run = [_dynamic.parameter(option) for option in SETTINGS.values()]
    own = _dynamic.own_parameters(_own)
    parameters = _dynamic.settled(arguments, own, options, first=every_run)
    kind, preset = drafts[-1].kind, drafts[-1].defaults["preset"]
    option = next(one.default for one in parameters if one.name == "preset")
    option.help = f"settings by name: {', '.join(kind.presets)} (default {preset})"
    text = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    text += f" Defaults shown are those of --preset {preset}."
    more = "With another --dataset, --backbone or inner method, --help shows the options of that."
    return _dynamic.make_command(name, command, parameters, text, epilog=more)


def _own(
    *,
    if_exists: Annotated[
        str,
        typer.Option(
            help="for a run with the same settings, data, code and versions: resume (resume it, or "
            "reuse it if it is finished), reuse (only a finished one) or fresh (run again)",
            rich_help_panel="Run",
        ),
    ] = "resume",
    json: Annotated[bool, typer.Option("--json", help=JSON, rich_help_panel="Run")] = False,
) -> None:
    """Options that are no settings."""


def _run(draft: Draft, settings: Mapping[str, Any], *, json: bool, if_exists: str) -> None:
    from fewshot_bench.cli.summary import show_run
    from fewshot_bench.runs.context import RunContext
    from fewshot_bench.runs.train import run_or_reuse

    config, registry = draft.complete(settings), draft.registry
    show_run(lambda shown: run_or_reuse(RunContext(config, registry, shown), if_exists), json)
