"""``fsb new NAME``."""

from pathlib import Path
from typing import Annotated

import typer


def new(
    name: Annotated[str, typer.Argument(help="of the plugin", metavar="NAME", show_default=False)],
    kind: Annotated[
        str, typer.Option(help="method, dataset, backbone, sampler, metric or observer")
    ] = "method",
    into: Annotated[Path, typer.Option(help="the folder in which its folder is made")] = Path(),
) -> None:
    """Write a complete plugin to start from.

    It is a distribution with an entry point, an algorithm of ten to twenty lines to replace, a
    test that runs the conformance suite, a README and a CI workflow. Nothing is overwritten.
    """
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.hooks.scaffold import derive, new_plugin

    registry = Registry.discover()
    written = new_plugin(name, kind, into, registry)
    for path in written:
        typer.echo(path)
    names = derive(name, kind, registry)
    option = f" --kind {names['kinds']}" if kind != "method" else ""
    install = f"pip install -e {into / names['distribution']}"
    typer.echo(f"Next: {install}; fsb check {names['name']}{option}")
