"""``fsb data``: which data sets there are, fetching, checking and looking at them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_bench.errors import ConfigError, FewshotBenchError, UnknownName
from fewshot_bench.utils.text import printable

if TYPE_CHECKING:
    from fewshot_bench.config.options import Option
    from fewshot_bench.data.images import Dataset, LabeledImages, Splits
    from fewshot_bench.hooks.registry import Registry

app = typer.Typer(no_args_is_help=True, help="List, prepare, verify and show data sets.")

# What follows the named options are the data set's own (--split, --image-size, ...).
_OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}
Name = Annotated[str, typer.Argument(help="name of a data set; folder:PATH for your own images")]
Root = Annotated[str | None, typer.Option(help="folder of the data's files")]
Cache = Annotated[str | None, typer.Option(help="folder for decoded images")]
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class _Chosen:
    """A data set with its options, and where its files are."""

    dataset: Dataset
    root: Path | None
    cache: Path

    def load(self) -> Splits:
        return self.dataset.load(self.root, self.cache)


@app.command("list")
def list_(data_root: Root = None, cache_dir: Cache = None) -> None:
    """Every data set: its splits, and where its files were found."""
    from rich.table import Column, Table

    from fewshot_bench.cli.screen import Screen
    from fewshot_bench.hooks.registry import Registry

    registry = Registry.discover()
    table = Table("data set", "splits", Column("files", overflow="fold"), "from")
    for name, offers in sorted(registry.names("datasets").items()):
        for offer in offers:
            try:
                kind = offer.load()
                splits = ", ".join(kind.splits)
                files = "none needed"
                if kind.needs_files:
                    files = _found(registry, name, data_root, cache_dir)
            except FewshotBenchError as error:
                splits, files = "-", str(error)
            source = f"{offer.distribution} {offer.version}"
            table.add_row(*map(printable, (name, splits, files, source)))
    Screen().print(table)


def _found(registry: Registry, name: str, data_root: str | None, cache_dir: str | None) -> str:
    from fewshot_bench.data.locate import locate
    from fewshot_bench.errors import DataError

    try:
        return str(locate(name, data_root, registry.locate_dataset, cache_dir=cache_dir))
    except DataError:
        return f"not found; type: fsb data prepare {name}"


@app.command(context_settings=_OPEN)
def prepare(
    context: typer.Context, name: Name, data_root: Root = None, cache_dir: Cache = None
) -> None:
    """Fetch the files if need be, check them, and decode them into the cache."""
    start = time.perf_counter()
    chosen = _choose(name, context, data_root, cache_dir)
    splits = chosen.load()
    typer.echo(
        f"{name}: ready in {time.perf_counter() - start:.1f} s"
        + (f", from '{chosen.root}'" if chosen.root else "")
        + f", content {splits.digest[:16]}.."
    )
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


@app.command(context_settings=_OPEN)
def verify(
    context: typer.Context, name: Name, data_root: Root = None, cache_dir: Cache = None
) -> None:
    """Read every file and hold it against what is known."""
    chosen = _choose(name, context, data_root, cache_dir)
    typer.echo(chosen.dataset.verify(chosen.root))


@app.command(context_settings=_OPEN)
def show(
    context: typer.Context,
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file")] = Path("episode.png"),
    part: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    way: Annotated[int, typer.Option(help="classes")] = 5,
    shot: Annotated[int, typer.Option(help="support images per class")] = 5,
    query: Annotated[int, typer.Option(help="query images per class")] = 15,
    seed: Annotated[int, typer.Option(help="seed of the episodes")] = 0,
    episode: Annotated[int, typer.Option(help="number of the episode, from 0")] = 0,
    data_root: Root = None,
    cache_dir: Cache = None,
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
        raise ConfigError(f"--episode {episode}: it has to be at least 0.")
    images = getattr(_choose(name, context, data_root, cache_dir).load(), part)
    if images is None:
        raise ConfigError(f"--part {part}: '{name}' as chosen has no such part.")
    table = ClassTable(images)
    # The same stream of episodes as in a run, so that any of its episodes can be looked at.
    sampler = ClosedSampler(table, Task(way, shot, query), key_of(part, seed))
    batch = EpisodeSource(sampler).batch(range(episode, episode + 1))
    sheet = episode_sheet(batch, table.class_names, table.pixel_range)
    try:
        sheet.convert("L" if table.image_shape[0] == 1 else "RGB").save(
            output, "PNG", optimize=True
        )
    except OSError as error:
        raise ConfigError(
            f"cannot write '{output}' ({error}); give another file with -o."
        ) from None
    typer.echo(f"wrote '{output}': episode {episode} of the {part} split of {name}")


def _choose(
    name: str, context: typer.Context, data_root: str | None, cache_dir: str | None
) -> _Chosen:
    """The data set of this name with the options typed behind it; its files are fetched."""
    from fewshot_bench.config.options import dataset_options, split_dataset
    from fewshot_bench.data.cache import cache_root
    from fewshot_bench.data.locate import locate
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.runs.objects import build_dataset

    registry = Registry.discover()
    head, _ = split_dataset(registry, name)
    registered = registry.resolve("datasets", head)
    space = dataset_options(registry, name)
    options = parse(context.args, space, f"data set {name}", flags_of(context))
    dataset = build_dataset(registry, name, options)
    root = None
    if dataset.needs_files:
        root = locate(
            registered.name, data_root, registry.locate_dataset, dataset.download, cache_dir
        )
    return _Chosen(dataset, root, cache_root(cache_dir) / registered.name)


def flags_of(context: typer.Context) -> list[str]:
    """The flags that a command has of itself."""
    return [flag for p in context.command.params for flag in p.opts if flag.startswith("--")]


def parse(
    arguments: Sequence[str], options: Sequence[Option], owner: str, also: Sequence[str] = ()
) -> dict[str, Any]:
    """``--image-size 28 --no-train-rotations`` as {option name: value}.

    Arguments:
        arguments: as typed.
        options: what they may be.
        owner: whose options these are, for the message.
        also: flags that the command itself has, which may have been meant.

    Raises:
        ConfigError: an option that ``owner`` does not have, or a value that it cannot take.
    """
    known = {option.flag: option for option in options}
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        negative = flag.startswith("--no-") and flag not in known
        option = known.get("--" + flag.removeprefix("--no-") if negative else flag)
        if option is None or (negative and option.type is not bool):
            raise UnknownName(f"option of {owner}", flag, [*known, *also])
        if option.type is bool:
            values[option.name] = not negative
            continue
        if not equals:
            if not rest:
                raise ConfigError(f"{flag}: a value has to follow.")
            value = rest.pop(0)
        values[option.name] = option.check(value)
    return values
