"""``fsb run METHOD``: a command for each method, built when it is named."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from functools import partial
from typing import Any

import typer
from typer.core import TyperGroup

from fewshot_bench.config.names import option_name
from fewshot_bench.errors import ConfigError, FewshotBenchError

PANELS = ("Run", "Method", "Backbone", "Data set", "Sampler")


class Methods(TyperGroup):
    """One sub-command per method; its options depend on what is named in the line."""

    def list_commands(self, ctx: Any) -> list[str]:
        from fewshot_bench.hooks.registry import Registry

        return [
            name if len(claims) == 1 else f"{item.distribution}:{name}"
            for name, claims in Registry.discover().names("methods").items()
            for item in claims
        ]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """For the list of methods only: no options, so that nothing heavy is imported."""
        from fewshot_bench.hooks.registry import Registry

        item = Registry.discover().resolve("methods", cmd_name)
        stub = typer.Typer()
        stub.command(help=f"from {item.distribution} {item.version}")(lambda: None)
        return typer.main.get_command(stub)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, Any, list[str]]:
        from fewshot_bench.hooks.registry import Registry

        name, rest = args[0], args[1:]
        if name.startswith("-"):
            raise ConfigError(
                f"fsb run: the method comes first, then its options: fsb run METHOD {name} ...; "
                "'fsb list methods' shows the methods."
            )
        return name, build_command(name, rest, Registry.discover()), rest


app = typer.Typer(
    cls=Methods,
    help="Train a method, choose its weights by validation, test once, and write a record.",
    no_args_is_help=True,
    subcommand_metavar="METHOD [OPTIONS]",
    # An option in front of the method reaches resolve_command, which knows what to say.
    context_settings={"ignore_unknown_options": True},
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
            yield option_name(name), value if equals else following


def build_command(name: str, args: list[str], registry: Any) -> Any:
    """The command of a method, with the options that these arguments call for."""
    from fewshot_bench.config.options import backbone_options, dataset_options, load, method_options
    from fewshot_bench.config.resolve import CORE, configure
    from fewshot_bench.config.schema import sampler_options

    said = dict(typed(args))
    kind = load(registry, "methods", name)
    deciding = {"dataset", "backbone", "preset", "way", "shot", "query", "sampling"}
    chosen = {n: v for n, v in said.items() if n in deciding and v}
    nested = {o.name for o in method_options(registry, name, said) if o.method}
    chosen |= {n: v for n, v in said.items() if n in nested}
    config = configure(name, registry, **chosen)
    effective = {
        **config.to_dict(),
        **config.method_options,
        **config.backbone_options,
        **config.dataset_options,
        **config.sampling_options,
    }
    spaces: list[Sequence[Any]] = [
        CORE,
        method_options(registry, name, config.method_options),
        backbone_options(registry, config.backbone) if kind.wants_backbone else [],
        dataset_options(registry, config.dataset),
        sampler_options(registry, config.sampling),
    ]
    presets = f"settings by name: {', '.join(kind.preset_names())}"
    spaces[0] = [
        replace(option, help=presets) if option.name == "preset" else option
        for option in CORE
        if option.name != "backbone" or kind.wants_backbone
    ]
    for option in (option for space in spaces for option in space if option.items):
        _count_values(option, args)
    parameters = [
        parameter(option, panel, shown(option, effective.get(option.name)))
        for panel, options in zip(PANELS, spaces, strict=True)
        for option in options
    ]
    parameters += extras()
    known = [flag for p in parameters for flag in p.default.param_decls[0].split("/")]
    _refuse(name, args, known, registry)

    def command(**values: Any) -> None:
        _run(name, {n: v for n, v in values.items() if v is not None})

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    text = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    text += f" Defaults shown are those of --preset {config.preset}."
    more = "With another --dataset, --backbone or inner method, --help shows the options of that."
    single = typer.Typer(add_completion=False)
    single.command(name, help=text.replace("[", r"\["), epilog=more)(command)
    return typer.main.get_command(single)


def _count_values(option: Any, args: list[str]) -> None:
    """Tell of too few values behind an option that takes several; typer would take the next flag.

    Raises:
        ConfigError: there are too few.
    """
    if option.flag in args:
        behind = args[args.index(option.flag) + 1 :][: option.items]
        if len(behind) < option.items or any(word.startswith("--") for word in behind):
            raise ConfigError(f"{option.flag}: it takes {option.items} numbers.")


def parameter(option: Any, panel: str, default: str = "") -> inspect.Parameter:
    """One option as typer wants it: words, which the configuration checks as it does Python's.

    What is not typed stays None: something else decides.

    Arguments:
        option: a :class:`fewshot_bench.config.options.Option`.
        panel: where ``--help`` shows it.
        default: what ``--help`` says of its default.
    """
    annotation: Any = str
    metavar: str | None = f"<{option.type.__name__}>"
    flags = option.flag
    if option.items:
        annotation = tuple[(str,) * option.items]  # type: ignore[misc]
        metavar = " ".join([f"<{option.type.__name__}>"] * option.items)
    elif option.type is bool:  # also an optional one: to leave it out is its third value
        annotation, metavar = bool, None
        flags += f"/--no-{option.flag[2:]}"
    text = option.help + (f" ({', '.join(option.choices)})" if option.choices else "") + default
    info = typer.Option(
        None,
        flags,
        help=text.replace("[", r"\["),
        metavar=metavar,
        show_default=False,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation | None
    )


def shown(option: Any, default: Any) -> str:
    """What ``--help`` says of a default; nothing where the option's own help says it."""
    if default is None:
        return "" if "default" in option.help else " (default none)"
    if option.items:
        default = " ".join(map(str, default))
    elif option.type is bool:
        default = "on" if default else "off"
    return f" (default {default})" if default != "" else ""


def extras() -> list[inspect.Parameter]:
    """The options that are no settings of a run."""

    def option(name: str, annotation: Any, default: Any, flag: str, text: str) -> inspect.Parameter:
        info = typer.Option(default, flag, help=text, rich_help_panel="Run")
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation
        )

    return [
        option("metric", list[str] | None, None, "--metric", "a further score; may be repeated"),
        option("with_", list[str] | None, None, "--with", "an observer; may be repeated"),
        option(
            "if_exists", str, "resume", "--if-exists",
            "a run with the same settings, data, code and versions: resume (go on with it, or show "
            "it if it is finished), reuse (only show one that is finished) or fresh (run again)",
        ),
        option("json", bool, False, "--json", "print the record and nothing else"),
    ]  # fmt: skip


def _refuse(name: str, args: list[str], known: list[str], registry: Any) -> None:
    """Tell of an option that this run does not have: the nearest one, or what does have it.

    Raises:
        ConfigError: there is such an option.
    """
    for argument in args:
        flag = argument.partition("=")[0]
        dashes = len(flag) - len(flag.lstrip("-"))
        if (
            flag in ("--help", *known)
            or dashes not in (1, 2)
            or not flag[dashes : dashes + 1].isalpha()
        ):
            continue
        message = f"fsb run {name}: no option '{flag}'"
        near = partial(difflib.get_close_matches, "--" + flag[dashes:], known, 1)
        # A slip of the fingers first: only then is it worth importing every plugin.
        if close := near(0.85):
            message += f"; did you mean '{close[0]}'?"
        elif owner := next(_owners(registry, flag), None):
            message += f" here; it belongs to {owner}."
        elif close := near(0.6):
            message += f"; did you mean '{close[0]}'?"
        else:
            message += "."
        raise ConfigError(f"{message} See 'fsb run {name} --help'.")


def _owners(registry: Any, flag: str) -> Iterator[str]:
    """What, of all that is installed, has an option that is typed so."""
    from fewshot_bench.config.options import load, options_of

    prefixes = {"methods": "", "backbones": "backbone_", "datasets": "", "samplers": "sampling_"}
    for kind, prefix in prefixes.items():
        for name in registry.names(kind):
            try:
                options = options_of(load(registry, kind, name), prefix)
            except FewshotBenchError:
                continue  # a broken plugin has its row in 'fsb plugins'
            if flag in {option.flag for option in options}:
                yield f"{kind[:-1]} {name}"


def _run(name: str, settings: dict[str, Any]) -> None:
    as_json, if_exists = settings.pop("json"), settings.pop("if_exists")
    from fewshot_bench.cli.progress import Progress
    from fewshot_bench.cli.summary import show_record
    from fewshot_bench.config.resolve import configure
    from fewshot_bench.runs.existing import run_unless

    config = configure(name, **settings)
    # Whatever a plugin prints, standard output holds the record alone.
    with Progress() as progress, redirect_stdout(sys.stderr) if as_json else nullcontext():
        record, folder = run_unless(config, if_exists, progress)
    show_record(record, folder, as_json=as_json)
