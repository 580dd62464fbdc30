"""The conformance suites: which checks each kind of plugin gets, and how they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from fewshot_bench.data.images import Dataset
from fewshot_bench.engine.evaluation import Metric
from fewshot_bench.engine.observer import Observer
from fewshot_bench.episode import Task
from fewshot_bench.method import Method
from fewshot_bench.sampling.base import Sampler
from fewshot_bench.testing.backbone_checks import BACKBONE, SHAPES, BackboneSubject
from fewshot_bench.testing.captures import CHECKS as CAPTURES
from fewshot_bench.testing.checks import Check, Outcome, checks_of, perform_all
from fewshot_bench.testing.dataset_checks import DATASET, DatasetSubject
from fewshot_bench.testing.method_claims import CLAIMS
from fewshot_bench.testing.method_contract import CONTRACT
from fewshot_bench.testing.method_declarations import DECLARATIONS
from fewshot_bench.testing.part_checks import (
    METRIC,
    OBSERVER,
    SAMPLER,
    MetricSubject,
    ObserverSubject,
    SamplerSubject,
)
from fewshot_bench.testing.precision import CHECKS as PRECISION
from fewshot_bench.testing.subject import CHECKED, RGB, Make, MethodSubject, Shape

# {kind of plugin: its checks, in order}
SUITES: dict[str, tuple[Check, ...]] = {
    "methods": (
        *checks_of([*CONTRACT, *DECLARATIONS, *CLAIMS]),
        CAPTURES["methods"],
        PRECISION["methods"],
    ),
    "datasets": checks_of(DATASET),
    "backbones": (*checks_of(BACKBONE), PRECISION["backbones"]),
    "samplers": (*checks_of(SAMPLER), CAPTURES["samplers"]),
    "metrics": checks_of(METRIC),
    "observers": checks_of(OBSERVER),
}


def check_method(
    kind: type[Method],
    make: Make | None = None,
    *,
    task: Task = CHECKED,
    image_shapes: Sequence[Shape] | None = None,
    only: Sequence[str] = (),
) -> list[Outcome]:
    """Run the conformance suite on a method.

    Arguments:
        kind: the class.
        make: from a task and a backbone (left out if the class wants none) to the method, for
            settings other than the defaults.
        task: the tiny episodes that it is checked on.
        image_shapes: further shapes (C, H, W) of images; None: RGB, beside the task of the default.
        only: ids of checks; default: all.

    Raises:
        UnknownName: no such check.
    """
    if image_shapes is None:
        image_shapes = (RGB,) if task == CHECKED else ()
    subject = MethodSubject(kind, make, task, shapes=tuple(image_shapes))
    return list(perform_all(SUITES["methods"], subject, only))


def check_dataset(
    make: Callable[[], Dataset], root: Path | None = None, *, only: Sequence[str] = ()
) -> list[Outcome]:
    """Run the suite on a data set; ``root``: the folder of its files. See :func:`check_method`."""
    return list(perform_all(SUITES["datasets"], DatasetSubject(make, root), only))


def check_backbone(
    factory: Callable[[Shape], nn.Module],
    *,
    image_shapes: Sequence[Shape] = SHAPES,
    only: Sequence[str] = (),
) -> list[Outcome]:
    """Run the suite on a backbone's factory. See :func:`check_method`.

    Arguments:
        image_shapes: (C, H, W) of the images that it is tried on; it may refuse some of them with a
            :class:`fewshot_bench.errors.ConfigError`.
    """
    subject = BackboneSubject(factory, tuple(image_shapes))
    return list(perform_all(SUITES["backbones"], subject, only))


def check_sampler(kind: type[Sampler], *, only: Sequence[str] = ()) -> list[Outcome]:
    """Run the suite on a sampler's class. See :func:`check_method`."""
    return list(perform_all(SUITES["samplers"], SamplerSubject(kind), only))


def check_metric(metric: Metric, *, only: Sequence[str] = ()) -> list[Outcome]:
    """Run the suite on a metric. See :func:`check_method`."""
    return list(perform_all(SUITES["metrics"], MetricSubject(metric), only))


def check_observer(kind: type[Observer], *, only: Sequence[str] = ()) -> list[Outcome]:
    """Run the suite on an observer's class. See :func:`check_method`."""
    return list(perform_all(SUITES["observers"], ObserverSubject(kind), only))
