"""The suite of what stands behind a name: ``fsb check NAME`` and the pytest plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from fewshot_bench.config.options import (
    backbone_options,
    dataset_options,
    load,
    method_options,
    split_dataset,
)
from fewshot_bench.config.resolve import configure, sampler_options
from fewshot_bench.data.download import locate
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, PluginError, UnknownName
from fewshot_bench.hooks.registry import Registered, Registry
from fewshot_bench.method import Method
from fewshot_bench.runs.build import build_backbone, build_dataset, build_method
from fewshot_bench.testing.backbone_checks import SHAPES, BackboneSubject
from fewshot_bench.testing.checks import Check
from fewshot_bench.testing.dataset_checks import DatasetSubject
from fewshot_bench.testing.part_checks import (
    MetricSubject,
    ObserverSubject,
    SamplerSubject,
)
from fewshot_bench.testing.subject import CHECKED, MethodSubject, Shape
from fewshot_bench.testing.suites import SUITES


@dataclass(frozen=True)
class Suite:
    """What is checked, and by which checks.

    Arguments:
        title: what it is and where it came from.
        checks: of its kind.
        subject: what they take.
    """

    title: str
    checks: tuple[Check, ...]
    subject: Any


def find(registry: Registry, name: str, kind: str | None = None) -> Registered:
    """What a name stands for, of whichever kind.

    Raises:
        UnknownName: nothing that can be checked has this name.
        ConfigError: things of several kinds have it.
    """
    kinds = [kind] if kind else list(SUITES)
    if kind and kind not in SUITES:
        raise UnknownName("kind to check", kind, SUITES)
    found = [k for k in kinds if registry.claims(k, _head(registry, k, name))]
    if name.partition(":")[0].endswith(".py") and not kind:
        found = [_kind_of_file(registry, name)]
    if len(found) > 1:
        raise ConfigError(
            f"'{name}' is a {' and a '.join(k[:-1] for k in found)}; give --kind {found[0]}."
        )
    if not found:
        if kind:
            return registry.resolve(kind, name)
        for k in kinds:  # a broken plugin has more to say than that there is no such name
            try:
                registry.resolve(k, name)
            except UnknownName:
                continue
        known = [n for k in kinds for n in registry.names(k)]
        raise UnknownName("plugin object", name, known, "'fsb plugins' shows what is installed.")
    return registry.resolve(found[0], _head(registry, found[0], name))


def _head(registry: Registry, kind: str, name: str) -> str:
    """A data set's name without the path behind it."""
    return split_dataset(registry, name)[0] if kind == "datasets" else name


def _kind_of_file(registry: Registry, name: str) -> str:
    """What a class in a file is; a function has to be told apart with --kind."""
    from fewshot_bench.data.images import Dataset
    from fewshot_bench.engine.observer import Observer
    from fewshot_bench.sampling.base import Sampler

    bases = {"methods": Method, "datasets": Dataset, "samplers": Sampler, "observers": Observer}
    try:
        loaded = registry.resolve("methods", name).load()
    except PluginError as error:  # of which kind it is meant to be is not known
        raise PluginError(str(error).removeprefix("method ")) from error
    for kind, base in bases.items():
        if isinstance(loaded, type) and issubclass(loaded, base):
            return kind
    raise ConfigError(f"'{name}' is a function; give --kind backbones or --kind metrics.")


def options_for(registry: Registry, item: Registered, name: str, said: Mapping[str, Any]) -> Any:
    """The options that may be typed behind ``fsb check NAME``."""
    if item.kind == "methods":
        return method_options(registry, name, said)
    if item.kind == "datasets":
        return dataset_options(registry, name)
    if item.kind == "samplers":
        return sampler_options(registry, name)
    return backbone_options(registry, name) if item.kind == "backbones" else []


def suite(
    registry: Registry,
    name: str,
    kind: str | None = None,
    *,
    data_root: str | None = None,
    image_shapes: Sequence[Shape] | None = None,
    **options: Any,
) -> Suite:
    """The checks of what a name stands for.

    Arguments:
        name: as ``fsb list`` shows it, ``distribution:name`` or ``PATH.py:NAME``.
        kind: where several kinds have the name.
        data_root: the folder of a data set's files.
        image_shapes: of the images that a method or backbone is tried on; None: gray and RGB ones.
        options: of the method (default: those of its preset ``quick``), backbone, data set or
            sampler.

    Raises:
        FewshotBenchError: see :func:`find`; or an option that does not exist.
    """
    shapes = None if image_shapes is None else tuple(image_shapes)
    item = find(registry, name, kind)
    make: Any = load(registry, item.kind, _head(registry, item.kind, name))
    if item.kind == "methods":
        subject: Any = _method(registry, name, make, options, shapes)
    elif item.kind == "datasets":
        subject = _dataset(registry, name, options, data_root)
    elif item.kind == "backbones":
        subject = BackboneSubject(
            partial(build_backbone, registry, name, {**_defaults(registry, name), **options}),
            shapes or SHAPES,
        )
    elif item.kind == "samplers":
        subject = SamplerSubject(make, {n.removeprefix("sampling_"): v for n, v in options.items()})
    else:
        kinds = {"metrics": MetricSubject, "observers": ObserverSubject}
        subject = kinds[item.kind](make)
    return Suite(item.title, SUITES[item.kind], subject)


def _method(
    registry: Registry,
    name: str,
    kind: type[Method],
    options: Any,
    shapes: tuple[Shape, ...] | None,
) -> MethodSubject:
    settings = configure(name, registry, **options).method_options

    def make(task: Task, backbone: nn.Module | None = None) -> Method:
        return build_method(registry, name, settings, task, backbone)

    if shapes is None:
        return MethodSubject(kind, make, CHECKED)
    return MethodSubject(kind, make, replace(CHECKED, image_shape=shapes[0]), shapes=shapes)


def _defaults(registry: Registry, name: str) -> dict[str, Any]:
    return {option.name: option.default for option in backbone_options(registry, name)}


def _dataset(registry: Registry, name: str, options: Any, data_root: str | None) -> DatasetSubject:
    make = partial(build_dataset, registry, name, options)
    root: Path | None = None
    if make().needs_files:
        item = registry.resolve("datasets", _head(registry, "datasets", name))
        root = locate(item.name, data_root, registry.locate_dataset)
    return DatasetSubject(make, root)
