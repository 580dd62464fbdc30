"""The command ``fsb``."""

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from fewshot_bench import errors
from fewshot_bench.cli import (
    check,
    commands,
    compare,
    data,
    evaluate,
    figure,
    listing,
    new,
    plan,
    predict,
    report,
    resume,
    run,
)
from fewshot_bench.cli._console import print_error, show_log
from fewshot_bench.cli._dynamic import unknown_option
from fewshot_bench.cli._heap import keep_freed_memory
from fewshot_bench.cli.run import registry_of
from fewshot_bench.errors import FewshotBenchError
from fewshot_bench.hooks.discovery import distribution_of
from fewshot_bench.utils.text import one_line

# typer carries its own copy of click; its base exception is reached through a public name.
CLICK_ERROR = typer.BadParameter.__mro__[2]
# Of the list of commands: the order in which one uses them.
ORDER = (
    "run", "compare", "report", "figure", "eval", "resume", "predict", "plan", "data", "list",
    "plugins", "new", "check",
)  # fmt: skip
GROUPS = ("run", "data")
TRAINING = ("run", "compare", "resume", "eval", "predict")  # commands that train or evaluate
# Commands with options of what is typed, built from their arguments: how, and what they call.
DYNAMIC: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "eval": (evaluate.build_command, evaluate._evaluate),
    "resume": (resume.build_command, resume._resume),
    "compare": (compare.build_command, compare._compare),
    "check": (check.build_command, check._check),
}


class Commands(TyperGroup):
    """The built-in commands, and those of plugins: listed by name, imported when called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*ORDER, *commands.offered(self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """For the list of commands: of a plugin's, no more than its name and origin."""
        if cmd_name in self.commands:
            return super().get_command(ctx, cmd_name)
        point = commands.offered(self.commands).get(cmd_name)
        return point and commands.stub(f"from {distribution_of(point)[0]}")

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, rest = args[0], args[1:]
        if name == "resume":  # needs no plugin before the record is read
            return name, resume.build_command(), rest
        if name in DYNAMIC:
            return name, DYNAMIC[name][0](rest, registry_of(ctx)), rest
        if name not in self.commands and (point := commands.resolve(name)) is not None:
            return name, commands.load(point, name), rest
        return super().resolve_command(ctx, args)


HELP = "Few-shot learning methods on the same episodes, with honest intervals and step times."
plain: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None}
app = typer.Typer(cls=Commands, help=HELP, no_args_is_help=True, **plain)


for _name, (_, _function) in DYNAMIC.items():  # entries of the list of commands
    app.command(_name, help=(_function.__doc__ or "").partition("\n\n")[0])(lambda: None)
app.add_typer(run.app, name="run")
app.command("report")(report.report)
app.command("figure", help=figure.HELP)(figure.figure)
app.command("predict")(predict.predict)
app.command("plan")(plan.plan)
app.add_typer(data.app, name="data")
app.command("list")(listing.list_names)
app.command("plugins")(listing.plugins)
app.command("new")(new.new)


def _version(show: bool) -> None:
    if show:
        import fewshot_bench

        typer.echo(f"fewshot-bench {fewshot_bench.__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks of errors")] = False,
) -> None:
    if ctx.invoked_subcommand in TRAINING:
        keep_freed_memory()


def main() -> NoReturn:
    """Run the command line; every error is one line on standard error, and an exit code."""
    # The profiler's own log; read when torch is imported.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    # --debug may stand anywhere on the line.
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    show_log()
    warnings.showwarning = _warn
    warnings.filterwarnings("default", category=errors.InterfaceDeprecation)  # else it is hidden
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed; what is said goes nowhere
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has no ± gets a ?
            stream.reconfigure(errors="replace")
    try:
        command = typer.main.get_command(app)
        code = command.main(args=sys.argv[1:], prog_name="fsb", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (| head): keep Python from complaining again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        code = 130
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        code = explain(error)
    sys.exit(code if isinstance(code, int) else 0)


def _warn(
    message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """A warning in one line; with a line of code where that is the plugin's own."""
    if issubclass(category, errors.InterfaceDeprecation):
        _say(f"deprecated: {message} ({filename}, line {lineno})")
    else:
        kind = "warning" if category is errors.PluginWarning else category.__name__
        _say(f"{kind}: {message}")


def explain(error: Exception) -> int:
    """One line on what went wrong; the exit code."""
    if isinstance(error, FewshotBenchError):
        command = isinstance(error, errors.Stopped)  # a command to type: as it is
        print_error(str(error) if command else one_line(f"error: {error}"))
        return error.exit_code
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error, file=sys.stderr)  # the help page, as it is
        return 2
    if isinstance(error, CLICK_ERROR):
        context = getattr(error, "ctx", None)
        words = sys.argv[1:]
        deep = 2 if words and words[0] in GROUPS else 1  # where the parser lost the command
        typed = " ".join(["fsb", *(word for word in words[:deep] if not word.startswith("-"))])
        where = context.command_path if context else typed
        message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
        if context is not None and (option := getattr(error, "option_name", None)):
            typed = next((word for word in sys.argv if word.startswith(option)), option)
            message = f"{where}: {unknown_option(typed, context.command, registry_of(context))}"
        message = message if message.endswith((".", "?")) else message + "."
        _say(f"error: {message} See '{where} --help'.")
        return 2
    if isinstance(error, OSError) and error.strerror:
        where = f"'{error.filename}'" if error.filename else "a file"
        _say(f"error: cannot use {where} ({error.strerror}); --debug shows where.")
    elif errors.is_out_of_memory(error):
        _say("error: there is not enough memory; ask for less at a time (--debug shows where).")
    else:
        _say(f"error: {type(error).__name__}: {error} (--debug shows where)")
        return 1
    return 2


def _say(text: str) -> None:
    print_error(one_line(text))
