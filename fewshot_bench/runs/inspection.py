"""What a run looks at before its numbers count, and says in its record and on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fewshot_bench.runs import build
from fewshot_bench.engine.inspection import (
    compare_modes,
    inspect_test,
    inspect_trained,
    inspect_training,
    left_random,
    untrained,
)
from fewshot_bench.engine.memory import within_memory
from fewshot_bench.episode import Episode
from fewshot_bench.method import Method
from fewshot_bench.runs.context import Parts
from fewshot_bench.sampling.base import EpisodeSource

COMPARED = 16  # tasks, in both modes
TWO = range(2)  # tasks: one of them may influence the other


def before_training(parts: Parts, record: dict[str, Any]) -> None:
    """Look at losses and predictions of two tasks, before hours are spent on them.

    Raises:
        PluginError: see :mod:`fewshot_bench.engine.inspection`.
    """
    lowering, tested = parts.lowering, _tested(parts)
    within_memory(lowering, tested, lambda task: inspect_test(lowering, task))
    found = within_memory(
        lowering,
        parts.train.batch(TWO),
        lambda task: inspect_training(lowering, task, tested),
        prefix="--train-",
    )
    _tell(parts, record, found)


def after_training(parts: Parts, record: dict[str, Any]) -> None:
    """See :func:`before_training`; hold evaluation mode against training mode; and say what of
    the weights is still random.
    """
    if isinstance(others := parts.validation or parts.train, EpisodeSource):
        tasks = others.batch(range(COMPARED))
        _tell(parts, record, compare_modes(parts.lowering, tasks))
    tested = _tested(parts)
    inspect_trained(parts.lowering, parts.train.batch(range(1)), tested)
    if (other := _of_another_seed(parts)) is not None:
        _tell(parts, record, left_random(parts.lowering, _built(parts), other, tested))


def before_test(parts: Parts, record: dict[str, Any]) -> None:
    """Look at the predictions of two tasks once more, with the weights that are tested."""
    lowering, two = parts.lowering, parts.test.batch(_two(parts.test))
    found = within_memory(lowering, two, lambda task: inspect_test(lowering, task))
    _tell(parts, record, found)


def without_training(parts: Parts, record: dict[str, Any]) -> None:
    """Say that nothing trains, and whether the weights are random ones."""
    _tell(parts, record, untrained(parts.method, _of_another_seed(parts)))


def _of_another_seed(parts: Parts) -> Method | None:
    """The same method of another seed, which tells what in it is random; None: --init decides."""
    return None if parts.config.init else _built(parts, seed=parts.config.seed + 1)


def _built(parts: Parts, **changes: Any) -> Method:
    """The method as it is before any training."""
    config = replace(parts.config, **changes)
    return build.build(config, parts.registry, parts.method.task, torch.device("cpu"))


def _tested(parts: Parts) -> Episode:
    """Two tasks to learn and to classify: no test tasks where there are others."""
    source = parts.validation or parts.test
    return source.batch(_two(source))


def _two(source: EpisodeSource) -> range:
    """The first two episodes, or the one that an open plan has."""
    return TWO if source.sampler.length != 1 else range(1)


def _tell(parts: Parts, record: dict[str, Any], notes: Sequence[str]) -> None:
    """Into the record, and what is new on the screen."""
    for line in notes:
        if line not in record["notes"]:
            record["notes"].append(line)
            parts.progress.message(line)
