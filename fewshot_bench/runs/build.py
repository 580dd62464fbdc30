"""Methods, backbones, data sets and samplers by name, built with their options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fewshot_bench.config.options import arguments_of, load, options_of, split_dataset
from fewshot_bench.data.cache import cache_root
from fewshot_bench.data.download import locate
from fewshot_bench.data.images import Dataset
from fewshot_bench.episode import Task
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import Method


def build_method(
    registry: Registry, name: str, options: Mapping[str, Any], task: Task,
    backbone: nn.Module | None, prefix: str = "",
) -> Method:  # fmt: skip
    """The method with these (flat, complete) options; inner methods get task and backbone too."""
    factory, values = load(registry, "methods", name), {}
    own = (option for option in options_of(factory, prefix) if option.name in options)
    for option in own:  # the method around this one decides others
        value = options[option.name]
        if option.method:
            value = build_method(registry, value, options, task, backbone, option.name + "_")
        values[option.name.removeprefix(prefix)] = value
    arguments = (task, backbone) if factory.wants_backbone else (task,)
    method: Method = build(registry, "methods", name, values, *arguments)
    method._title = registry.resolve("methods", name).title
    return method


def build_backbone(
    registry: Registry, name: str, options: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> nn.Module:
    """The backbone for images of this shape; PluginError if it has no ``out_shape``."""
    backbone: Any = build(registry, "backbones", name, options, image_shape, prefix="backbone_")
    title = registry.resolve("backbones", name).title
    if not hasattr(backbone, "out_shape"):
        advice = "its factory has to set it on the module that it returns"
        raise PluginError(f"{title} has no out_shape (c, h, w); {advice}.")
    backbone._title = title
    return backbone


def build_dataset(registry: Registry, name: str, options: Mapping[str, Any]) -> Dataset:
    registered, path = split_dataset(registry, name)
    typed = {} if path is None else {"path": path}
    return build(registry, "datasets", registered, {**options, **typed})


def find_dataset(
    registry: Registry, name: str, options: Mapping[str, Any], data_root: str | None,
    cache_dir: str | None, *, download: bool = True,
) -> tuple[Dataset, Path | None, Path]:  # fmt: skip
    """A data set, the folder of its files (None: it needs none) and its cache folder.

    ``download``: fetch the files if they are not on this machine.
    """
    registered = registry.resolve("datasets", split_dataset(registry, name)[0]).name
    dataset, root = build_dataset(registry, name, options), None
    if dataset.needs_files:
        fetch = dataset.download if download else None
        root = locate(registered, data_root, registry.locate_dataset, fetch, cache_dir)
    return dataset, root, cache_root(cache_dir) / registered


def build(
    registry: Registry, kind: str, name: str, options: Mapping[str, Any], *arguments: Any,
    prefix: str = "",
) -> Any:  # fmt: skip
    """Call what stands behind a name with its options; what it raises names the plugin."""
    factory = load(registry, kind, name)
    values = {option.removeprefix(prefix): value for option, value in options.items()}
    with plugin_errors(f"{registry.resolve(kind, name).title}, built with these settings,"):
        return factory(*arguments, **arguments_of(factory, values))
