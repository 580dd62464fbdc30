"""Methods, backbones, data sets and samplers by name, built with their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewshot_bench.config.options import arguments_of, load, options_of, split_dataset
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.hooks.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from fewshot_bench.data.images import Dataset
    from fewshot_bench.data.table import ClassTable
    from fewshot_bench.episode import Task
    from fewshot_bench.method import Method
    from fewshot_bench.sampling.base import Sampler


def build_method(
    registry: Registry,
    name: str,
    options: Mapping[str, Any],
    task: Task,
    backbone: nn.Module | None,
    prefix: str = "",
) -> Method:
    """The method with these (flat, complete) options; inner methods get task and backbone too."""
    factory = load(registry, "methods", name)
    values = {}
    for option in options_of(factory, prefix):
        if option.name not in options:  # decided by the method around this one
            continue
        value = options[option.name]
        if option.method:
            value = build_method(registry, value, options, task, backbone, option.name + "_")
        values[option.name.removeprefix(prefix)] = value
    arguments = (task, backbone) if factory.wants_backbone else (task,)
    method: Method = _make(registry, "methods", name, *arguments, **values)
    method._title = registry.resolve("methods", name).title
    return method


def build_backbone(
    registry: Registry, name: str, options: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> nn.Module:
    """The backbone for images of this shape; PluginError if it has no ``out_shape``."""
    values = {n.removeprefix("backbone_"): v for n, v in options.items()}
    backbone: nn.Module = _make(registry, "backbones", name, image_shape, **values)
    if not hasattr(backbone, "out_shape"):
        raise PluginError(
            f"{registry.resolve('backbones', name).title} has no out_shape (c, h, w); its factory "
            "has to set it on the module that it returns."
        )
    backbone._title = registry.resolve("backbones", name).title  # type: ignore[assignment]
    return backbone


def build_dataset(registry: Registry, name: str, options: Mapping[str, Any]) -> Dataset:
    """The data set with these options."""
    registered, path = split_dataset(registry, name)
    values = dict(options) if path is None else {**options, "path": path}
    dataset: Dataset = _make(registry, "datasets", registered, **values)
    return dataset


def build_sampler(
    registry: Registry,
    name: str,
    options: Mapping[str, Any],
    table: ClassTable,
    task: Task,
    seed: int,
    *,
    within_family: bool,
) -> Sampler:
    """The sampler over a split with these options."""
    values = {n.removeprefix("sampling_"): v for n, v in options.items()}
    values["within_family"] = within_family
    sampler: Sampler = _make(registry, "samplers", name, table, task, seed, **values)
    return sampler


def _make(registry: Registry, kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    """Call what stands behind a name; what it raises names the plugin."""
    factory = load(registry, kind, name)
    with plugin_errors(f"{registry.resolve(kind, name).title}, built with these settings,"):
        return factory(*arguments, **arguments_of(factory, options))
