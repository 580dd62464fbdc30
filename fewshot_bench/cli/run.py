"""``fsb run METHOD``: a command for each method, built when it is named."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from fewshot_bench.errors import UnknownName

PANELS = ("Run", "Method", "Backbone", "Data set")


class Methods(TyperGroup):
    """One sub-command per method; its options depend on the method, backbone and data set."""

    def list_commands(self, ctx: Any) -> list[str]:
        from fewshot_bench.hooks.registry import Registry

        return list(Registry.discover().names("methods"))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """For the list of methods only: no options, so that nothing heavy is imported."""
        from fewshot_bench.hooks.registry import Registry

        item = Registry.discover().resolve("methods", cmd_name)
        stub = typer.Typer()
        stub.command(help=f"from {item.distribution} {item.version}")(lambda: None)
        return typer.main.get_command(stub)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, Any, list[str]]:
        from fewshot_bench.hooks.registry import Registry

        registry = Registry.discover()
        name, rest = args[0], args[1:]
        if name.startswith("-"):
            raise UnknownName("method", name, registry.names("methods"), "It comes before options.")
        return name, build_command(name, rest, registry), rest


app = typer.Typer(
    cls=Methods,
    help="Train a method, choose its weights by validation, test once, and write a record.",
    no_args_is_help=True,
    subcommand_metavar="METHOD [OPTIONS]",
)


@app.callback()
def methods() -> None:
    """Train a method, choose its weights by validation, test once, and write a record."""


def typed(args: list[str]) -> Iterator[tuple[str, str]]:
    """The ``--name value`` pairs of a command line, before it is parsed."""
    for i, argument in enumerate(args):
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            following = args[i + 1] if i + 1 < len(args) else ""
            yield name.replace("-", "_"), value if equals else following


def build_command(name: str, args: list[str], registry: Any) -> Any:
    """The command of a method, with the options that these arguments call for."""
    from fewshot_bench.config import CORE, configure
    from fewshot_bench.options import backbone_options, dataset_options, load, method_options

    said = dict(typed(args))
    kind = load(registry, "methods", name)
    deciding = {"dataset", "backbone", "preset", "way", "shot"}
    chosen = {n: v for n, v in said.items() if n in deciding and v}
    nested = {o.name for o in method_options(registry, name, said) if o.method}
    chosen |= {n: v for n, v in said.items() if n in nested}
    config = configure(name, registry, **chosen)
    effective = {
        **config.to_dict(),
        **config.method_options,
        **config.backbone_options,
        **config.dataset_options,
    }
    spaces = [
        CORE,
        method_options(registry, name, said),
        backbone_options(registry, config.backbone) if kind.wants_backbone else [],
        dataset_options(registry, config.dataset),
    ]
    parameters = [
        _parameter(option, effective.get(option.name), panel)
        for panel, options in zip(PANELS, spaces, strict=True)
        for option in options
    ]
    parameters += _extras()
    known = [p.default.param_decls[0].split("/")[0] for p in parameters]
    _refuse(name, args, known)

    def command(**values: Any) -> None:
        _run(name, {n: v for n, v in values.items() if v is not None})

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    text = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    single = typer.Typer(add_completion=False)
    single.command(name, help=f"{text} Defaults shown are those of --preset {config.preset}.")(
        command
    )
    return typer.main.get_command(single)


def _parameter(option: Any, default: Any, panel: str) -> inspect.Parameter:
    """One option as typer wants it. What is not typed stays None: the configuration decides."""
    annotation: Any = option.type
    flags = option.flag
    if option.items:
        annotation = tuple[(option.type,) * option.items]  # type: ignore[misc]
        default = " ".join(map(str, default or ()))
    elif option.optional:
        annotation = str  # "none" is a value too; the configuration checks the rest
    elif option.type is bool:
        flags += f"/--no-{option.flag[2:]}"
        default = "on" if default else "off"
    choices = f" ({', '.join(option.choices)})" if option.choices else ""
    shown = "none" if default is None else str(default)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(
            None,
            flags,
            help=f"{option.help}{choices} (default {shown})".replace("[", r"\["),
            show_default=False,
            rich_help_panel=panel,
        ),
        annotation=annotation | None,
    )


def _extras() -> list[inspect.Parameter]:
    def option(name: str, annotation: Any, default: Any, flag: str, text: str) -> inspect.Parameter:
        info = typer.Option(default, flag, help=text, rich_help_panel="Run")
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation
        )

    return [
        option("metrics", list[str] | None, None, "--metric", "a further score; may be repeated"),
        option("observers", list[str] | None, None, "--with", "an observer; may be repeated"),
        option("json", bool, False, "--json", "print the record and nothing else"),
    ]  # fmt: skip


def _refuse(name: str, args: list[str], known: list[str]) -> None:
    """Tell of an option that the method does not have, with the nearest one."""
    for argument in args:
        flag = argument.partition("=")[0]
        positive = "--" + flag.removeprefix("--no-")
        if flag.startswith("--") and flag not in ("--help", *known) and positive not in known:
            near = difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
            raise UnknownName(
                "option", flag, near, f"'fsb run {name} --help' shows all of {name}'s."
            )


def _run(name: str, settings: dict[str, Any]) -> None:
    as_json = settings.pop("json")
    from fewshot_bench.cli.progress import Progress
    from fewshot_bench.cli.summary import show_record
    from fewshot_bench.config import configure
    from fewshot_bench.runner import run

    config = configure(name, **settings)
    with Progress() as progress:
        record = run(config, progress)
    show_record(record, config.runs_dir, as_json=as_json)
