"""The suites of data sets, backbones, samplers, metrics and observers: right and wrong ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewshot_bench import hookimpl
from fewshot_bench.data.images import Dataset, Splits
from fewshot_bench.method import accuracy
from fewshot_bench.sampling.base import ClosedSampler
from fewshot_bench.sampling.open import OpenSampler
from fewshot_bench.testing import (
    SUITES,
    Outcome,
    TinyBackbone,
    check_backbone,
    check_dataset,
    check_metric,
    check_observer,
    check_sampler,
    separable_images,
)
from tests.testing.wrong_methods import canceling


class Patterns(Dataset):
    """Made-up images with everything that a data set has to say."""

    needs_files = False

    def load(self, root: Path | None, cache: Path) -> Splits:
        parts = [separable_images(seed=seed) for seed in range(3)]
        return Splits(*parts, digest="0" * 64, license="CC0-1.0", source="made up")


def changed(**settings: Any) -> type[Dataset]:
    """Patterns with other splits; a value may be a function of those."""

    class Changed(Patterns):
        def load(self, root: Path | None, cache: Path) -> Splits:
            splits = super().load(root, cache)
            return replace(splits, **{n: v(splits) if callable(v) else v for n, v in
                                      settings.items()})  # fmt: skip

    return Changed


class Restless(Patterns):
    loads = 0

    def load(self, root: Path | None, cache: Path) -> Splits:
        Restless.loads += 1
        return replace(super().load(root, cache), digest=f"{Restless.loads:064x}")


class Careless(Patterns):
    needs_files = True

    def verify(self, root: Path | None) -> str:
        return ""


def doubled(splits: Splits) -> Any:
    return replace(splits.train, class_names=("same",) * len(splits.train.counts))


def black(splits: Splits) -> Any:
    return replace(splits.test, images=np.zeros_like(splits.test.images))


def single(splits: Splits) -> Any:
    return replace(
        splits.test, images=splits.test.images[:12], counts=splits.test.counts[:1],
        class_names=splits.test.class_names[:1], groups=np.arange(1), families=np.zeros(1, int),
    )  # fmt: skip


WRONG_DATASETS: dict[str, type[Dataset]] = {
    "disjoint": changed(test=lambda splits: splits.train),
    "class-names": changed(train=doubled),
    "digest": Restless,
    "license": changed(license=" "),
    "source": changed(source=""),
    "images": changed(test=black),
    "episodes": changed(test=single),
    "verify": Careless,
}


def backbone(shape: tuple[int, int, int]) -> nn.Module:
    return TinyBackbone(shape)


def with_(net: nn.Module, out_shape: tuple[int, int, int] | None) -> nn.Module:
    net.out_shape = out_shape  # type: ignore[assignment]
    return net


def linear(shape: tuple[int, int, int], norm: nn.Module) -> nn.Module:
    flat = [nn.Flatten(), nn.Linear(math.prod(shape), 4), norm, nn.Unflatten(1, (4, 1, 1))]
    return with_(nn.Sequential(*flat), (4, 1, 1))


BUILDS = itertools.count()  # unlike an address, it never comes again


def random_build(shape: tuple[int, int, int]) -> nn.Module:
    net = linear(shape, nn.Identity())
    net.register_buffer("own", torch.tensor(float(next(BUILDS))))
    return net


class Infinite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


class Canceling(nn.Module):
    """Takes a variance as the difference of two large numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return canceling(x)


def unused(shape: tuple[int, int, int]) -> nn.Module:
    net = linear(shape, nn.Identity())
    net.idle = nn.Parameter(torch.zeros(2))
    return net


WRONG_BACKBONES: dict[str, Callable[[tuple[int, int, int]], nn.Module]] = {
    "out-shape": lambda shape: with_(TinyBackbone(shape), (1, 2, 3)),
    "finite": lambda shape: linear(shape, Infinite()),
    "builds-alike": random_build,
    "keeps-nothing": lambda shape: linear(shape, nn.Dropout(0.5)),
    "independent-tasks": lambda shape: linear(shape, nn.BatchNorm1d(4)),
    "trains": unused,
    "precision": lambda shape: linear(shape, Canceling()),
}


class Repeating(ClosedSampler):
    def __call__(self, ids: Tensor) -> Any:
        indices = super().__call__(ids)
        query = torch.cat([indices.support[:, 0, :1], indices.query[:, 1:]], dim=1)
        return replace(indices, query=query)


class Drawing(ClosedSampler):
    def __call__(self, ids: Tensor) -> Any:
        return super().__call__(ids + torch.randint(1000, (1,)))


class Seedless(ClosedSampler):
    def __init__(self, table: Any, task: Any, seed: int, **more: Any) -> None:
        super().__init__(table, task, 0, **more)


class HalfOpen(OpenSampler):
    def __call__(self, ids: Tensor) -> Any:
        return super().__call__(ids // 2)


class Reading(ClosedSampler):
    def __call__(self, ids: Tensor) -> Any:
        return super().__call__(ids % (int(ids.max()) + 1))


class AnyFamily(ClosedSampler):
    def __init__(self, table: Any, task: Any, seed: int, *, within_family: bool = False) -> None:
        super().__init__(table, task, seed)


WRONG_SAMPLERS = {
    "valid": Repeating,
    "pure": Drawing,
    "seeded": Seedless,
    "used-once": HalfOpen,
    "families": AnyFamily,
    "captures": Reading,
}


def in_place(logits: Tensor, target: Tensor) -> Tensor:
    return accuracy(logits.mul_(2), target)


def directed(logits: Tensor, target: Tensor) -> Tensor:
    return accuracy(logits, target)


directed.higher_is_better = "yes"  # type: ignore[attr-defined]


WRONG_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "one-score-per-task": lambda logits, target: accuracy(logits, target).mean(),
    "tasks-apart": lambda logits, target: accuracy(logits, target) - logits.mean(),
    "set-of-queries": lambda logits, target: logits[:, 0, 0],
    "logits-kept": in_place,
    "direction-declared": directed,
}


class Quiet:
    @hookimpl
    def run_started(self) -> None: ...


class Needy(Quiet):
    def __init__(self, folder: str) -> None: ...


class Scribbler:
    @hookimpl
    def run_finished(self, record: Mapping[str, Any]) -> None:
        record["notes"].append("seen")


WRONG_OBSERVERS = {"follows-a-run": Needy, "changes-nothing": Scribbler}
KINDS: dict[str, tuple[Callable[..., list[Outcome]], Any, dict[str, Any]]] = {
    "datasets": (check_dataset, Patterns, WRONG_DATASETS),
    "backbones": (check_backbone, backbone, WRONG_BACKBONES),
    "samplers": (check_sampler, OpenSampler, WRONG_SAMPLERS),
    "metrics": (check_metric, accuracy, WRONG_METRICS),
    "observers": (check_observer, Quiet, WRONG_OBSERVERS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_one_passes_every_check(kind: str) -> None:
    check, right, wrong = KINDS[kind]
    outcomes = check(right)
    assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []
    assert [o.id for o in outcomes] == [c.id for c in SUITES[kind]] == list(wrong)


@pytest.mark.parametrize(
    ("kind", "check"), [(kind, check) for kind, (_, _, wrong) in KINDS.items() for check in wrong]
)
def test_a_check_catches_its_wrong_one(kind: str, check: str) -> None:
    run, _, wrong = KINDS[kind]
    (found,) = run(wrong[check], only=[check])
    assert found.status == "failed", found
    assert len(found.message) > 20


def test_what_needs_no_files_verifies_none() -> None:
    (found,) = check_dataset(Patterns, only=["verify"])
    assert (found.status, found.message) == ("not claimed", "needs_files = False")
