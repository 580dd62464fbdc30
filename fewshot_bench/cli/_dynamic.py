"""Commands whose options depend on what is typed: on the method, the data set, the finished run.

There is one parser, typer's. A command is built from the options known so far, and the arguments
are parsed leniently with it, until they call for no further option; then once more, strictly.
"""

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import typer

from fewshot_bench.config.options import Option, flag, load, options_of
from fewshot_bench.errors import ConfigError, FewshotBenchError
from fewshot_bench.hooks.registry import Registry

Parameters = list[inspect.Parameter]


def parameter(option: Option, panel: str = "Options", note: str = "") -> inspect.Parameter:
    """An option for typer: text, which the configuration checks as it checks Python's values.

    What is not typed is None: its value is then decided elsewhere. ``panel`` is its heading in
    ``--help``, ``note`` is appended to its help.
    """
    annotation: Any = str
    plain = option.type.__origin__ if hasattr(option.type, "__metadata__") else option.type
    metavar: str | None = "|".join(option.choices) or f"<{getattr(plain, '__name__', 'text')}>"
    flags = [option.flag]
    if option.repeated:
        annotation, metavar = list[str], "<name>"
    elif option.items:
        annotation = tuple[(str,) * option.items]  # type: ignore[misc]
        metavar = " ".join([f"<{typing.get_args(plain)[0].__name__}>"] * option.items)
    elif plain is bool:  # also an optional one: None is its third value
        annotation, metavar = bool, None
        flags = [f"{option.flag}/--no-{option.flag[2:]}"]
    elif option.file:
        metavar = "<path>"
    text = option.help + ("; may be repeated" if option.repeated else "") + note
    info = typer.Option(
        None, *flags, help=text.replace("[", r"\["), metavar=metavar, show_default=False,
        rich_help_panel=panel,
    )  # fmt: skip
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation | None
    )


def default_note(option: Option, value: Any) -> str:
    """The default as ``--help`` shows it; empty where the help text has it already."""
    if option.repeated or "default" in option.help or value == "":
        return ""
    if value is None:
        return f" (default: {flag(option.follows)})" if option.follows else " (default none)"
    value = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    return f" (default {' '.join(map(str, value)) if option.items else value})"


def with_defaults(options: Iterable[Option], panel: str) -> Parameters:
    """Options whose defaults are those of their plugin."""
    return [parameter(o, panel, default_note(o, o.default)) for o in options]


def own_parameters(function: Callable[..., Any]) -> Parameters:
    """The parameters that a command's function has for typer: those that can be named."""
    found = inspect.signature(function, eval_str=True).parameters.values()
    return [p for p in found if p.kind not in (p.POSITIONAL_ONLY, p.VAR_KEYWORD)]


def build(
    name: str, function: Callable[..., Any], registry: Registry, arguments: Sequence[str],
    options: Callable[[Mapping[str, Any]], Parameters], argument: str = "",
    more: Sequence[inspect.Parameter] = (),
) -> Any:  # fmt: skip
    """The command of a function (registry, values of options, /, its own parameters).

    It has ``more`` options in any case; for those of ``argument`` see :func:`settled`.
    """
    own = own_parameters(function)
    names = {p.name for p in own}

    def command(**values: Any) -> None:
        others = {n: v for n, v in values.items() if n not in names and v != []}
        function(registry, others, **{n: v for n, v in values.items() if n in names})

    parameters = settled(arguments, [*own, *more], options, argument)
    return make_command(name, command, parameters, function.__doc__ or "")


def make_command(
    name: str, function: Callable[..., Any], parameters: Parameters, help: str, epilog: str = ""
) -> Any:
    """The command of these parameters; ``function`` gets those that were typed."""

    def command(**values: Any) -> None:
        function(**{name: value for name, value in values.items() if value is not None})

    keywords = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters]
    command.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in keywords}
    app = typer.Typer(add_completion=False)
    paragraphs = inspect.cleandoc(help).split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(name, help=text.replace("[", r"\["), epilog=epilog)(command)
    return typer.main.get_command(app)


def scan(parameters: Parameters, arguments: Sequence[str]) -> dict[str, Any]:
    """The values of these parameters among the arguments; everything else is ignored."""
    command = make_command("scan", lambda **_: None, parameters, "")
    lenient = ("resilient_parsing", "ignore_unknown_options", "allow_extra_args")
    found = command.make_context("scan", [*arguments], **dict.fromkeys(lenient, True)).params
    return {name: value for name, value in found.items() if value is not None and value != []}


def settled(
    arguments: Sequence[str], fixed: Parameters, options: Callable[[Mapping[str, Any]], Parameters],
    argument: str = "", first: Sequence[inspect.Parameter] = (),
) -> Parameters:  # fmt: skip
    """All parameters that the arguments call for.

    Arguments:
        fixed: parameters of the command in any case.
        options: the parameters that values call for; asked until the answer stays the same.
        argument: that decides the options; ConfigError for an option of its own in front of it.
        first: further parameters of the first parse alone, where most lines have them.
    """
    known, tried = [*first, *fixed], []
    while True:
        values = scan(known, arguments)
        if str(named := values.get(argument, "")).startswith("-"):
            raise ConfigError(f"expected {argument.upper()} first, then options, got '{named}'.")
        for name, value in values.items():  # else the next flag is taken for a value
            if isinstance(value, tuple) and any(str(one).startswith("--") for one in value):
                what = f"expected {len(value)} values, got {value[0]!r} alone"
                raise ConfigError(f"{flag(name)}: {what}.")
        wanted = [*options(values), *fixed]
        names = [p.name for p in wanted]
        if names == [p.name for p in known]:
            return wanted
        if names in tried:  # with the options known, the line cannot be parsed: say so with them
            return max(known, wanted, key=len)
        tried.append(names)
        known = wanted


def unknown_option(typed: str, command: Any, registry: Registry) -> str:
    """The message for an option that a command does not have, but maybe an installed plugin."""
    word = typed.partition("=")[0]
    known = [f for p in command.params for f in (*p.opts, *p.secondary_opts) if f.startswith("--")]
    nearest = "--" + word.lstrip("-")

    def near(cutoff: float) -> str | None:
        return next(iter(difflib.get_close_matches(nearest, known, 1, cutoff)), None)

    # A typing error first: only then is it worth importing every plugin.
    if close := near(0.85):
        return f"no option '{word}'; did you mean '{close}'?"
    if owner := next(_owners(registry, word), None):
        return f"no option '{word}' here; it belongs to {owner}."
    return f"no option '{word}'" + (f"; did you mean '{close}'?" if (close := near(0.6)) else ".")


def _owners(registry: Registry, word: str) -> Iterator[str]:
    prefixes = {"methods": "", "backbones": "backbone_", "datasets": "", "samplers": "sampling_"}
    for kind, prefix in prefixes.items():
        for name in registry.names(kind):
            try:
                options = options_of(load(registry, kind, name), prefix)
            except FewshotBenchError:
                continue  # a broken plugin has its row in 'fsb plugins'
            if word in {option.flag for option in options}:
                yield f"{kind[:-1]} {name}"
