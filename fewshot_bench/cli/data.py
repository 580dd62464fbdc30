"""``fsb data``: list data sets, fetch, check and show them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from fewshot_bench.cli import _dynamic
from fewshot_bench.cli.run import registry_of
from fewshot_bench.config.options import dataset_options
from fewshot_bench.errors import ConfigError, DataError, FewshotBenchError, UnknownName
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.utils.text import printable

if TYPE_CHECKING:
    from fewshot_bench.data.images import Dataset, LabeledImages, Splits

NAME = "name of a data set; folder:PATH for your own images"
Name = Annotated[str, typer.Argument(help=NAME, metavar="NAME", show_default=False)]
Root = Annotated[str | None, typer.Option(help="folder of the data's files")]
Cache = Annotated[str | None, typer.Option(help="folder for decoded images")]
PARTS = ("train", "validation", "test")


class DataCommands(TyperGroup):
    """Commands over one data set take its options (--split, --image-size, ...), too."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in ACTIONS:
            return super().resolve_command(ctx, args)
        return args[0], build_command(args[0], args[1:], registry_of(ctx)), args[1:]


app = typer.Typer(
    cls=DataCommands, no_args_is_help=True, help="List, prepare, verify and show data sets."
)


class Chosen(NamedTuple):
    """A data set with its options, and where its files are."""

    name: str
    dataset: Dataset
    root: Path | None
    cache: Path

    def load(self) -> Splits:
        return self.dataset.load(self.root, self.cache)


def build_command(action: str, arguments: Sequence[str], registry: Registry) -> Any:
    function = ACTIONS[action]
    own = _dynamic.own_parameters(function)

    def options(values: Mapping[str, Any]) -> _dynamic.Parameters:
        found = dataset_options(registry, values["name"]) if "name" in values else []
        return _dynamic.with_defaults(found, "Data set")

    def command(*, name: str, **values: Any) -> None:
        from fewshot_bench.runs.build import find_dataset

        places = [values.pop(place, None) for place in ("data_root", "cache_dir")]
        further = {p.name: values.pop(p.name) for p in own if p.name in values}
        space = {option.name: option for option in dataset_options(registry, name)}
        chosen = {n: space[n].check(value) for n, value in values.items()}
        function(Chosen(name, *find_dataset(registry, name, chosen, *places)), **further)

    fixed = [*_dynamic.own_parameters(_choose_by), *own]
    parameters = _dynamic.settled(arguments, fixed, options, "name")
    return _dynamic.make_command(action, command, parameters, function.__doc__ or "")


def _choose_by(name: Name, data_root: Root = None, cache_dir: Cache = None) -> None:
    """What the commands over one data set have in common."""


@app.command("list")
def list_(data_root: Root = None, cache_dir: Cache = None) -> None:
    """List every data set: its splits, and where its files were found."""
    from rich.table import Column, Table

    from fewshot_bench.cli._console import screen
    from fewshot_bench.data.download import locate

    registry = Registry.discover()
    table = Table("data set", "splits", Column("files", overflow="fold"), "from")
    for _, item in registry.typed("datasets"):
        try:
            kind = item.load()
            splits, files = ", ".join(kind.splits), "none needed"
            if kind.needs_files:
                find = registry.locate_dataset
                files = str(locate(item.name, data_root, find, cache_dir=cache_dir))
        except DataError:
            files = f"not found; type: fsb data prepare {item.name}"
        except FewshotBenchError as error:
            splits, files = "-", str(error)
        cells = item.name, splits, files, f"{item.distribution} {item.version}"
        table.add_row(*map(printable, cells))
    screen().print(table)


def prepare(chosen: Chosen, /) -> None:
    """Fetch the files if need be, check them, and decode them into the cache."""
    start = time.perf_counter()
    splits, origin = chosen.load(), f", from '{chosen.root}'" if chosen.root else ""
    ready = f"{chosen.name}: ready in {time.perf_counter() - start:.1f} s{origin}"
    typer.echo(f"{ready}, content {splits.digest[:16]}..")
    for part in PARTS:
        typer.echo(f"  {part}: {_size(getattr(splits, part))}")
    for note in splits.notes:
        typer.echo(f"  {note}")
    typer.echo(f"  License: {splits.license}. Source: {splits.source}")


def _size(images: LabeledImages | None) -> str:
    if images is None:
        return "none"
    fewest, most = int(images.counts.min()), int(images.counts.max())
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"{len(images.counts)} classes of {each} images {tuple(images.image_shape)}"


def verify(chosen: Chosen, /) -> None:
    """Read every file and compare it with its known digest."""
    typer.echo(chosen.dataset.verify(chosen.root))


def show(
    chosen: Chosen,
    /,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file")] = Path("episode.png"),
    part: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    way: Annotated[int, typer.Option(help="classes")] = 5,
    shot: Annotated[int, typer.Option(help="support images per class")] = 5,
    query: Annotated[int, typer.Option(help="query images per class")] = 15,
    seed: Annotated[int, typer.Option(help="seed of the episodes")] = 0,
    episode: Annotated[int, typer.Option(help="number of the episode, from 0")] = 0,
) -> None:
    """Draw one episode as a PNG: support beside queries, a row per class."""
    from fewshot_bench.data.sheet import episode_sheet
    from fewshot_bench.data.table import ClassTable
    from fewshot_bench.episode import Task
    from fewshot_bench.rng import key_of
    from fewshot_bench.sampling.base import ClosedSampler, EpisodeSource

    if part not in PARTS:
        raise UnknownName("part", part, PARTS)
    if episode < 0:
        raise ConfigError(f"--episode: expected an integer >= 0, got {episode}.")
    images = getattr(chosen.load(), part)
    if images is None:
        raise ConfigError(f"--part {part}: '{chosen.name}' as chosen has no such part.")
    table = ClassTable(images)
    # The same stream of episodes as in a run, so that any of its episodes can be shown.
    sampler = ClosedSampler(table, Task(way, shot, query), key_of(part, seed))
    batch = EpisodeSource(sampler).batch(range(episode, episode + 1))
    sheet = episode_sheet(batch, table.class_names, table.pixel_range)
    sheet = sheet.convert("L" if table.image_shape[0] == 1 else "RGB")
    try:
        sheet.save(output, "PNG", optimize=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write '{output}' ({error}); give another file with -o."
        ) from None
    typer.echo(f"wrote '{output}': episode {episode} of the {part} split of {chosen.name}")


ACTIONS = {"prepare": prepare, "verify": verify, "show": show}
for _name, _function in ACTIONS.items():  # for the list of commands; calls are built anew
    app.command(_name, help=_function.__doc__)(lambda: None)
