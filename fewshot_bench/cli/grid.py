"""What ``fsb compare`` has to run before it can show it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_bench.cli.run import parameter
from fewshot_bench.config.resolve import CORE, DEFAULTS
from fewshot_bench.errors import ConfigError, RecordError, UnknownName
from fewshot_bench.hooks.single_file import is_file

if TYPE_CHECKING:
    from fewshot_bench.results.runs import Run
    from fewshot_bench.runs.grid import Grid

# Settings of 'fsb run' that 'fsb compare' takes too, for all methods; the rest is for a file.
COMMON = (
    "dataset", "backbone", "preset", "unlabeled", "distractors", "train_way", "train_shot",
    "train_query", "train_unlabeled", "train_distractors", "labeled_fraction",
    "labeled_classes", "labeled_seed", "task_batch", "steps", "validate_every",
    "validation_episodes", "episodes", "sampling", "within_family", "pixels", "episode_seed",
    "device", "engine", "precision", "pictures", "data_root", "cache_dir",
)  # fmt: skip
SEVERAL = ("way", "shot", "query")  # may be given more than once: a column for each value


def parameters() -> list[inspect.Parameter]:
    """Options for ``COMMON`` and ``SEVERAL``."""
    core = {option.name: option for option in CORE}
    panel = "Runs that are missing"
    found = [parameter(core[name], panel) for name in COMMON]
    for name in SEVERAL:
        option = parameter(replace(core[name], help=f"{core[name].help}; may be repeated"), panel)
        found.append(option.replace(annotation=list[str] | None))
    return found


def split_names(names: Sequence[str]) -> tuple[list[str], list[Path], list[Path]]:
    """Methods, files of grids, and folders to read.

    Raises:
        RecordError: a word that is none of them, with the nearest method.
        ConfigError: a file together with something else.
    """
    from fewshot_bench.hooks.registry import Registry

    methods: list[str] = []
    files: list[Path] = []
    folders: list[Path] = []
    registry: Registry | None = None
    for name in names:
        path = Path(name)
        if path.suffix == ".toml":
            files.append(path)
            continue
        plain = is_file(name) or not any(mark in name for mark in ("/", "\\"))
        if plain:
            registry = registry or Registry.discover()
            if registry.claims("methods", name):
                methods.append(name)  # ./NAME is a folder of that name
                continue
        if not path.exists():
            known = registry.names("methods") if registry else {}
            if plain:
                hint = "Folders of runs come from: fsb run METHOD."
                raise UnknownName("method or folder", name, known, hint)
            raise RecordError(f"there is no '{path}'; run something first: fsb run METHOD")
        folders.append(path)
    if files and len(names) > 1:
        raise ConfigError(f"'{files[0]}' says all that is compared; give it alone.")
    return methods, files, folders


def grid_of(
    methods: Sequence[str], settings: Mapping[str, Any], seeds: int, further: Sequence[str]
) -> Grid:
    """The grid that was typed.

    Arguments:
        methods: the rows.
        settings: of all.
        seeds: how many.
        further: what else was typed: options of the data set and of the sampler.

    Raises:
        ConfigError: a method twice, or an option that this command does not have.
    """
    from fewshot_bench.cli.data import parse
    from fewshot_bench.config.options import dataset_options
    from fewshot_bench.config.schema import sampler_options
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.runs.grid import Entry, Grid, seeds_of

    twice = next((name for name in methods if list(methods).count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"{twice} is named twice; a file with [methods.NAME] tables compares its variants."
        )
    own: dict[str, Any] = {}
    if further:
        dataset = settings.get("dataset", DEFAULTS["dataset"])
        registry = Registry.discover()
        options = dataset_options(registry, dataset)
        options += sampler_options(registry, settings.get("sampling", DEFAULTS["sampling"]))
        also = [f"--{name.replace('_', '-')}" for name in (*COMMON, *SEVERAL)]
        own = parse(
            further, options, f"fsb compare with {dataset} (a method's are for a file)", also
        )
    entries = tuple(Entry(name, name) for name in methods)
    return Grid(entries, {**settings, **own}, seeds_of(seeds))


def run_missing(grid: Grid, runs_dir: Path) -> tuple[list[Run], list[str]]:
    """Run what is missing of a grid.

    Returns:
        All its runs, and a line for each that failed.
    """
    from fewshot_bench.cli.progress import Progress
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.runs.grid import run_grid

    where = replace(grid, settings={**grid.settings, "runs_dir": str(runs_dir)})
    # Standard output is for the table, whatever a plugin prints.
    with Progress() as progress, redirect_stdout(sys.stderr):
        done, problems = run_grid(where, Registry.discover(), progress)
    named = [
        run if cell.entry == cell.config.method else replace(run, entry=cell.entry)
        for cell, run in done
    ]
    return named, problems
