"""What a command knows about a run: registry, configuration, device and data, each made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from fewshot_bench.config.options import Option, load, method_options, own_options, split_dataset
from fewshot_bench.config.resolve import sampler_options
from fewshot_bench.config.schema import OPTION_FIELDS, SETTINGS, RunConfig
from fewshot_bench.data.cache import cache_folder
from fewshot_bench.data.images import Dataset, Splits, SplitsContent, content_of_splits
from fewshot_bench.episode import Task
from fewshot_bench.errors import PluginError, RecordError, plugin_errors
from fewshot_bench.hooks.registry import Registered, Registry
from fewshot_bench.method import Method
from fewshot_bench.results.record.code import OWN, code_of
from fewshot_bench.runs.build import find_dataset
from fewshot_bench.utils.devices import pick_device
from fewshot_bench.utils.inputs import WEIGHTS, InputFile, content_of

PIXEL_RANGES = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0)}
COUNTS = ("way", "shot", "query", "unlabeled", "distractors")  # of a task


class Progress(Protocol):
    """What shows a run while it goes on; here, nothing."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """A part of the run begins that has ``total`` units of work, or goes on after ``done``."""
        return

    def update(self, done: int, **numbers: float) -> None:
        """So many units are done, of ``tasks`` each; numbers to show beside them."""
        return

    def message(self, text: str) -> None:
        """A line that stays."""
        return


class Silent(Progress):
    pass


@dataclass
class Data:
    """The splits of a data set, and where they came from."""

    splits: Splits
    dataset: Dataset
    root: Path | None = None  # the folder in which its files were found

    @cached_property
    def content(self) -> SplitsContent:
        """Every class, with digests; reads all pixels."""
        return content_of_splits(self.splits)


class RunContext:
    """A configuration with everything that it names; data are read at first use."""

    def __init__(
        self, config: RunConfig, registry: Registry | None = None, progress: Progress | None = None
    ) -> None:
        self.config = config
        self.registry = registry or Registry.discover()
        self.progress: Progress = progress or Silent()
        self._loaded: dict[str, Data] = {}  # shared by the contexts of a command

    def with_config(self, config: RunConfig) -> RunContext:
        """The context of another run of the same command; data are shared."""
        other = RunContext(config, self.registry, self.progress)
        other._loaded = self._loaded
        return other

    @cached_property
    def device(self) -> torch.device:
        return pick_device(self.config.device)

    @cached_property
    def method_class(self) -> type[Method]:
        kind: type[Method] = load(self.registry, "methods", self.config.method)
        return kind

    @property
    def train_task(self) -> Task:
        return Task(*(getattr(self.config, f"train_{name}") for name in COUNTS))

    @property
    def eval_task(self) -> Task:
        return Task(*(getattr(self.config, name) for name in COUNTS))

    @property
    def pixel_range(self) -> tuple[float, float]:
        """What byte 0 and byte 255 become."""
        return PIXEL_RANGES[self.config.pixels]

    @property
    def data(self) -> Data:
        """The data set, read once per command; downloaded if it is not on this machine."""
        return self.load_data()

    def load_data(self, *, download: bool = True) -> Data:
        """See ``data``; ``download``: fetch the files if they are not on this machine."""
        config = self.config
        options = sorted(config.dataset_options.items())
        key = repr((config.dataset, options, config.data_root, config.cache_dir))
        if key not in self._loaded:
            self._loaded[key] = self._read_data(download)
        return self._loaded[key]

    def _read_data(self, download: bool) -> Data:
        config, registry = self.config, self.registry
        item = registry.resolve("datasets", split_dataset(registry, config.dataset)[0])
        chosen = config.dataset, config.dataset_options, config.data_root, config.cache_dir
        dataset, root, own = find_dataset(registry, *chosen, download=download)
        cache = cache_folder(own, code_of(item.source).sha256, root)
        with plugin_errors(f"{item.title}: load()"):
            splits = dataset.load(root, cache)
        if not isinstance(splits, Splits):
            wrong = f"expected fewshot_bench.Splits, got {type(splits).__name__}"
            raise PluginError(f"{item.title}: load(): {wrong}.")
        return Data(splits, dataset, root)

    @cached_property
    def plugins(self) -> list[Registered]:
        """Every plugin object that the configuration names; the method first."""
        config, registry = self.config, self.registry
        dataset = split_dataset(registry, config.dataset)[0]
        named = [("methods", config.method), ("datasets", dataset), ("samplers", config.sampling)]
        if self.method_class.wants_backbone and config.backbone:
            named.append(("backbones", config.backbone))
        inner = method_options(registry, config.method, config.method_options)
        named += [("methods", config.method_options[o.name]) for o in inner if o.method]
        named += [("metrics", name) for name in config.metrics]
        named += [("observers", name) for name in config.observers]
        return [registry.resolve(kind, name) for kind, name in named]

    @property
    def sources(self) -> set[str]:
        """The modules and files of plugins that decide the numbers."""
        return {plugin.source for plugin in self.plugins if plugin.kind != "observers"}

    @cached_property
    def input_files(self) -> dict[str, InputFile]:
        """Every path in the configuration whose content counts, by option.

        Not that in ``--dataset folder:PATH``: its images count there.
        """
        config, registry = self.config, self.registry
        options: list[Option] = [*SETTINGS.values()]
        options += method_options(registry, config.method, config.method_options)
        if self.method_class.wants_backbone:
            options += own_options(registry, "backbones", config.backbone, "backbone_")
        options += own_options(registry, "datasets", split_dataset(registry, config.dataset)[0])
        options += sampler_options(registry, config.sampling)
        values: dict[str, Any] = {name: getattr(config, name) for name in SETTINGS}
        for field in OPTION_FIELDS:
            values |= getattr(config, field)
        named = {option.name: values.get(option.name) for option in options if option.file}
        return {name: InputFile(value) for name, value in named.items() if value is not None}

    @cached_property
    def inputs(self) -> list[dict[str, Any]]:
        """The record's ``inputs``: everything that the run reads, with its content's digest.

        DataError for a file that cannot be read, RecordError for an ``--init`` without weights.
        """
        found: list[dict[str, Any]] = []

        def add(option: str, path: str | None, absolute: Path | None, content: Any) -> None:
            where = absolute and str(absolute)
            size = {"sha256": content.sha256, "bytes": content.bytes}
            found.append({"option": option, "path": path, "absolute": where, **size})

        for name, path in self.input_files.items():
            file = path.path / WEIGHTS if name == "init" else path.path
            if name == "init" and not file.is_file():
                raise RecordError(f"--init: expected a run's folder, '{path}' has no {WEIGHTS}.")
            add(name, str(path), path.path, content_of(file))
        _, typed = split_dataset(self.registry, self.config.dataset)
        root = self.data.root if typed is None else InputFile(typed).path
        root = None if root is None else root.absolute()
        add("dataset", typed or self.config.data_root, root, self.data.content)
        code = code_of(OWN)
        add("code of fewshot-bench", OWN, code.path, code)
        for plugin in self.plugins:
            if plugin.kind != "observers" and plugin.source.partition(".")[0] != OWN:
                code = code_of(plugin.source)
                add(f"code of {plugin.kind[:-1]} {plugin.name}", plugin.source, code.path, code)
        return found


def contents_of(inputs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Digests of a record's ``inputs``, but of code, for which there is one digest in all."""
    nouns = {"dataset": "images, classes or split"}
    return {
        nouns.get(name, f"content of --{name.replace('_', '-')}"): one["sha256"]
        for one in inputs
        if not (name := one["option"]).startswith("code ")
    }
