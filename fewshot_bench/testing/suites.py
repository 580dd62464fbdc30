"""The conformance suites: the checks of each kind of plugin, and how they are run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from fewshot_bench.config import options as config_options
from fewshot_bench.config.resolve import configure, sampler_options
from fewshot_bench.data.download import locate
from fewshot_bench.data.images import Dataset
from fewshot_bench.engine.evaluation import Metric
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, PluginError, UnknownName
from fewshot_bench.hooks.lifecycle import is_observer
from fewshot_bench.hooks.registry import Registered, Registry
from fewshot_bench.method import Method
from fewshot_bench.runs.build import build_backbone, build_dataset, build_method
from fewshot_bench.sampling.base import Sampler
from fewshot_bench.testing import component_checks as components
from fewshot_bench.testing import method_checks as methods
from fewshot_bench.testing.captures import method_captures, sampler_captures
from fewshot_bench.testing.checks import Check, Outcome, check_of, run_checks
from fewshot_bench.testing.method_checks import CHECKED, Make, MethodSubject, Shape

# {kind of plugin: its checks, in order}
SUITES: dict[str, tuple[Check, ...]] = {
    "methods": (
        *map(check_of, methods.METHOD_CHECKS),
        check_of(method_captures, "captures"),
        check_of(methods.precision),
    ),
    "datasets": tuple(map(check_of, components.DATASET_CHECKS)),
    "backbones": tuple(map(check_of, components.BACKBONE_CHECKS)),
    "samplers": (*map(check_of, components.SAMPLER_CHECKS), check_of(sampler_captures, "captures")),
    "metrics": tuple(map(check_of, components.METRIC_CHECKS)),
    "observers": tuple(map(check_of, components.OBSERVER_CHECKS)),
}


def check_method(
    kind: type[Method], make: Make | None = None, *, task: Task = CHECKED,
    image_shapes: Sequence[Shape] | None = None, only: Sequence[str] = (),
) -> list[Outcome]:  # fmt: skip
    """Run the conformance suite on a method.

    Arguments:
        kind: the class.
        make: builds the method from a task and a backbone (left out if the class wants none), for
            settings other than the defaults.
        task: of the tiny episodes that it is checked on.
        image_shapes: further shapes (C, H, W) of images; None: RGB, beside the default task.
        only: ids of checks, or UnknownName; default: all.
    """
    if image_shapes is None:
        image_shapes = (methods.RGB,) if task == CHECKED else ()
    return _outcomes("methods", MethodSubject(kind, make, task, shapes=tuple(image_shapes)), only)


def check_dataset(
    make: Callable[[], Dataset], root: Path | None = None, *, only: Sequence[str] = ()
) -> list[Outcome]:
    """Run the suite on a data set; ``root``: the folder of its files. See :func:`check_method`."""
    return _outcomes("datasets", components.DatasetSubject(make, root), only)


def check_backbone(
    factory: Callable[[Shape], nn.Module], *,
    image_shapes: Sequence[Shape] = components.SHAPES, only: Sequence[str] = (),
) -> list[Outcome]:  # fmt: skip
    """Run the suite on a backbone's factory. See :func:`check_method`.

    It may refuse some of the ``image_shapes`` (C, H, W) with a ConfigError.
    """
    return _outcomes("backbones", components.BackboneSubject(factory, tuple(image_shapes)), only)


def check_sampler(kind: type[Sampler], *, only: Sequence[str] = ()) -> list[Outcome]:
    """Run the suite on a sampler's class. See :func:`check_method`."""
    return _outcomes("samplers", components.SamplerSubject(kind), only)


def check_metric(metric: Metric, *, only: Sequence[str] = ()) -> list[Outcome]:
    """Run the suite on a metric. See :func:`check_method`."""
    return _outcomes("metrics", metric, only)


def check_observer(observer: Any, *, only: Sequence[str] = ()) -> list[Outcome]:
    """Run the suite on an observer: a class, an instance or a module. See :func:`check_method`."""
    return _outcomes("observers", observer, only)


def _outcomes(kind: str, subject: Any, only: Sequence[str]) -> list[Outcome]:
    return list(run_checks(SUITES[kind], subject, only))


@dataclass(frozen=True)
class Suite:
    title: str  # what it is and where it comes from
    checks: tuple[Check, ...]  # of its kind
    subject: Any  # the argument of the checks

    def run(self, only: Sequence[str] = ()) -> list[Outcome]:
        return list(run_checks(self.checks, self.subject, only))


def find(registry: Registry, name: str, kind: str | None = None) -> Registered:
    """The registered object of a name; ConfigError if it is ambiguous, or UnknownName."""
    if kind:
        if kind not in SUITES:
            raise UnknownName("kind to check", kind, SUITES)
        return registry.resolve(kind, _bare(registry, kind, name))
    found = [k for k in SUITES if registry.claims(k, _bare(registry, k, name))]
    if name.partition(":")[0].endswith(".py"):
        found = [_kind_in_file(registry, name)]
    if len(found) > 1:
        raise ConfigError(
            f"'{name}' is a {' and a '.join(k[:-1] for k in found)}; give --kind {found[0]}."
        )
    for k in found or SUITES:  # the error of a broken plugin explains more than "no such name"
        try:
            return registry.resolve(k, _bare(registry, k, name))
        except UnknownName:
            continue
    known = [n for k in SUITES for n in registry.names(k)]
    raise UnknownName("plugin object", name, known, "'fsb plugins' shows what is installed.")


def _bare(registry: Registry, kind: str, name: str) -> str:
    """A data set's name without the path after it."""
    return config_options.split_dataset(registry, name)[0] if kind == "datasets" else name


def _kind_in_file(registry: Registry, name: str) -> str:
    """The kind of a class in a file; that of a function cannot be known."""
    bases = {"methods": Method, "datasets": Dataset, "samplers": Sampler}
    try:
        loaded = registry.resolve("methods", name).load()
    except PluginError as error:  # its kind is not known
        raise PluginError(str(error).removeprefix("method ")) from error
    for kind, base in bases.items():
        if isinstance(loaded, type) and issubclass(loaded, base):
            return kind
    if is_observer(loaded):
        return "observers"
    raise ConfigError(f"'{name}' is a function; give --kind backbones or --kind metrics.")


def options_for(registry: Registry, item: Registered, name: str, typed: Mapping[str, Any]) -> Any:
    """The options of ``fsb check NAME``; ``typed``: those that were given."""
    options: dict[str, Callable[[Registry, str], Any]] = {
        "methods": partial(config_options.method_options, chosen=typed),
        "datasets": config_options.dataset_options,
        "samplers": sampler_options,
        "backbones": config_options.backbone_options,
    }
    return options[item.kind](registry, name) if item.kind in options else []


def suite(
    registry: Registry, name: str, kind: str | None = None, *, data_root: str | None = None,
    image_shapes: Sequence[Shape] | None = None, **options: Any,
) -> Suite:  # fmt: skip
    """The checks of a registered object. Raises as :func:`find`, and for an unknown option.

    Arguments:
        name: as ``fsb list`` shows it, ``distribution:name`` or ``PATH.py:NAME``.
        kind: where the name is ambiguous.
        data_root: the folder of a data set's files.
        image_shapes: of images that a method or backbone is tried on; None: gray and RGB ones.
        options: of the object; default: those of a method's preset ``quick``.
    """
    item = find(registry, name, kind)
    subject: Any = config_options.load(registry, item.kind, _bare(registry, item.kind, name))
    if item.kind == "methods":
        settings = configure(name, registry, **options).method_options

        def make(task: Task, backbone: nn.Module | None = None) -> Method:
            return build_method(registry, name, settings, task, backbone)

        subject = MethodSubject(subject, make)
        if image_shapes is not None:
            task = replace(CHECKED, image_shape=image_shapes[0])
            subject = replace(subject, task=task, shapes=tuple(image_shapes))
    elif item.kind == "datasets":
        dataset = partial(build_dataset, registry, name, options)
        files = dataset().needs_files
        root = locate(item.name, data_root, registry.locate_dataset) if files else None
        subject = components.DatasetSubject(dataset, root)
    elif item.kind == "backbones":
        known = config_options.backbone_options(registry, name)
        settings = {option.name: option.default for option in known} | options
        factory = partial(build_backbone, registry, name, settings)
        subject = components.BackboneSubject(factory, tuple(image_shapes or components.SHAPES))
    elif item.kind == "samplers":
        own = {option.removeprefix("sampling_"): value for option, value in options.items()}
        subject = components.SamplerSubject(subject, own)
    return Suite(item.title, SUITES[item.kind], subject)
