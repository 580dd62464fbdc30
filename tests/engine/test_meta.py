"""The path of a GPU, on the stand-in for one that every machine has.

Every built-in method is sampled for, trained and evaluated by the engine's own code on torch's
``meta`` device, which has a GPU's rules (``fewshot_bench/testing/meta_device.py``): nothing is
read, moved or mixed, and the numbers are the CPU's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.engine.executors import CudaGraphs, Eager, Executor
from fewshot_bench.engine.executors.graph import Ahead
from fewshot_bench.engine.training import Plan, Trainer, check_players
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import Losses, Method
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.sampling.few_labels import Labels, training_sources
from fewshot_bench.sampling.open import OpenSampler
from fewshot_bench.testing.captures import (
    CHUNKS,
    TASKS,
    TORCH,
    DeviceCheck,
    evaluate,
    sampler_captures,
    train,
    unlabeled_tasks,
)
from fewshot_bench.testing.meta_device import META, MetaDevice, Violation, as_a_gpu
from fewshot_bench.testing.method_checks import CHECKED, MethodSubject
from fewshot_bench.testing.suites import suite
from fewshot_bench.testing.tiny import separable_images
from tests.engine.meta_graphs import Graph, GraphDevice, as_a_gpu_with_graphs, with_graphs
from tests.engine.toys import Prototypes, source

UNLABELED = replace(CHECKED, unlabeled=2, distractors=1)
UNLABELED_TASKS = replace(CHECKED, shot=1, query=1, unlabeled=2)
SMALL = {"generator_network": "small", "encoder_network": "small"}
OVER = {"relationnet": {"base": "relationnet"}, "protonet": {"base": "protonet"},
        "maml": {"base": "maml", "base_inner_steps": 1}}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "maml": ("maml", {"inner_steps": 2}, CHECKED),
    "maml first order": ("maml", {"inner_steps": 2, "first_order": True}, CHECKED),
    "protonet": ("protonet", {}, CHECKED),
    "relationnet": ("relationnet", {}, CHECKED),
    "nearest-centroid": ("nearest-centroid", {}, CHECKED),
    **{
        f"soft-kmeans {kind}": ("soft-kmeans", {"distractors_are": kind}, UNLABELED)
        for kind in ("ignored", "cluster", "masked")
    },
    "soft-kmeans as its code": (
        "soft-kmeans",
        {"distractors_are": "cluster", "follow": "code"},
        UNLABELED,
    ),
    **{
        f"metagan over {base}, {update}": ("metagan", SMALL | options | {"update": update}, CHECKED)
        for base, options in OVER.items()
        for update in ("alternating", "joint")
    },
}
EXECUTORS: dict[str, Callable[[Method], Executor]] = {
    "eager": Eager,
    "im2col": lambda method: Eager(method, "im2col", strategy="im2col"),
    "batched": lambda method: Eager(method, "batched", strategy="batched"),
    "graph": CudaGraphs,
}
STEPS = 6  # a graph is captured after three, of each turn and each source of tasks
BOUND = 1e-3  # relative, of losses after some steps of Adam in float32


class Hard(MethodSubject):
    """Of images that are mostly noise: with losses near 0 every step would look like any other."""

    def table(self, split: str, device: torch.device | str = "cpu") -> ClassTable:
        images = separable_images(image_shape=self.task.image_shape)
        noise = np.random.default_rng(len(split)).integers(0, 256, images.images.shape)
        mixed = (images.images // 4 + noise * 3 // 4).astype(np.uint8)
        return ClassTable(replace(images, images=mixed), device, self.task.pixel_range)


@cache
def subject_of(case: str) -> MethodSubject:
    name, options, task = CASES[case]
    found = suite(Registry.discover(), name, "methods", **options).subject
    return Hard(found.kind, found.make, task, shapes=())


def losses_of(trainer: Trainer) -> list[dict[str, Tensor]]:
    return [dict(result.losses) for result in trainer._window]


@cache
def on_the_cpu(case: str, steps: int) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
    """Losses of some steps, and logits of test tasks of the method as it is built."""
    subject = subject_of(case)
    method = subject.build()
    losses = []
    if check_players(method):
        others = unlabeled_tasks(subject, "cpu")
        trainer = Trainer(
            method.train(), Eager(method), subject.source("train"), Plan(steps, TASKS),
            unlabeled=others,
        )  # fmt: skip
        for _ in range(steps):
            trainer.advance()
        losses = losses_of(trainer)
    method, tests = subject.build().eval(), subject.source("test")
    logits = [Eager(method).predict(tests.batch(range(first, first + TASKS))).logits
              for first in range(0, CHUNKS * TASKS, TASKS)]  # fmt: skip
    return losses, logits


def watching(plugin: object) -> DeviceCheck:
    check = DeviceCheck(plugin)
    check.device = GraphDevice()
    return check


def made(case: str, executor: str) -> tuple[MethodSubject, DeviceCheck, Executor]:
    """A method with fresh weights, what watches it, and what runs it."""
    subject = subject_of(case)
    method = subject.build()
    return subject, watching(method), EXECUTORS[executor](method)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("case", CASES)
def test_training_waits_for_nothing_and_gives_the_numbers_of_the_cpu(
    case: str, executor: str
) -> None:
    subject, watched, runs = made(case, executor)
    method = runs.method
    steps = STEPS if executor == "graph" else 2 * (1 + method.unlabeled_tasks)
    with with_graphs(watched.device):
        trainer = train(watched, subject, runs, steps)
    assert watched.faults == []
    want, _ = on_the_cpu(case, steps)
    assert (trainer is None) == (not want)
    if trainer is None:
        return
    assert runs.name == executor  # nothing fell back
    got = watched.device.on_host(losses_of(trainer))
    graphs = len(method.turns) * len(trainer.sources) if executor == "graph" else 0
    assert len(trainer._captured) == graphs
    for mine, its in zip(got, want, strict=True):
        assert mine.keys() == its.keys()
        assert max(float(loss.max()) for loss in its.values()) > 100 * BOUND
        for name in its:
            assert torch.allclose(mine[name], its[name], rtol=BOUND, atol=BOUND), (name, its)


@pytest.mark.parametrize("executor", ["eager", "batched", "graph"])
@pytest.mark.parametrize("case", CASES)
def test_evaluation_waits_for_nothing_and_gives_the_numbers_of_the_cpu(
    case: str, executor: str
) -> None:
    subject, watched, runs = made(case, executor)
    with with_graphs(watched.device):
        logits, scores = evaluate(watched, subject, runs)
    assert watched.faults == []
    if isinstance(runs, CudaGraphs):
        assert runs.captures
        assert runs.chunk is not None
        assert runs.chunk._replays == len(scores) - 1
    _, want = on_the_cpu(case, 0)
    for mine, its in zip(watched.device.on_host(logits), want, strict=True):
        assert torch.allclose(mine, its, rtol=BOUND, atol=BOUND)
    assert len(scores) == len(want)
    assert all(row["accuracy"].device == META for row in scores)


# What is drawn from.


def own_frame(seen: Violation) -> tuple[str, int, str]:
    """The innermost that is not torch's."""
    return next(frame for frame in seen.frames if TORCH not in Path(frame[0]).parents)


def indices_equal(device: MetaDevice, mine: Any, its: Any) -> bool:
    """Whether two episodes have the same images, in the same places."""
    got = device.on_host([mine.support.key, mine.query])
    return torch.equal(got[0], its.support.key) and torch.equal(got[1], its.query)


@pytest.mark.parametrize("name", Registry.discover().names("samplers"))
def test_a_sampler_waits_for_nothing_batch_after_batch(name: str) -> None:
    subject = suite(Registry.discover(), name, "samplers").subject
    sampler_captures(subject)
    device, episodes = GraphDevice(), []
    with as_a_gpu_with_graphs(device):
        with device.waits_allowed():
            sampler = subject.build(device=META)
            size = min(TASKS, sampler.length or TASKS)
            drawn = EpisodeSource(sampler)
            drawn.batch(range(size))
            ahead = Ahead(drawn, size, size, META)
        starts = [start for start in (0, size) if start + size <= (sampler.length or 2 * size)]
        episodes += [drawn.batch(range(start, start + size)) for start in starts]
        for i in range(len(starts)):
            if not ahead.holds(i * size):
                ahead.draw(i * size)
            ahead.go_to(i * size)
            episodes.append(ahead.episode())
    assert device.violations == []
    on_cpu = EpisodeSource(subject.build())
    starts = (0, TASKS) * 2 if len(episodes) == 4 else (0, 0)
    assert len(episodes) == len(starts)
    for episode, start in zip(episodes, starts, strict=True):
        want = on_cpu.batch(range(start, start + TASKS))
        assert indices_equal(device, episode, want)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_tasks_with_few_labels_are_drawn_without_a_wait(fraction: float) -> None:
    labels = Labels(fraction=fraction, classes=0.5)
    images = separable_images(image_shape=CHECKED.image_shape)
    device = MetaDevice()

    def sources(place: Any) -> Any:
        return training_sources(ClassTable(images, place), UNLABELED_TASKS, 0, labels)

    with device:
        with device.waits_allowed():
            mine = sources(META)
            for episodes in mine:
                episodes.batch(range(2))
        got = [episodes.batch(range(2, 5)) for episodes in mine]
    assert device.violations == []
    for episode, its in zip(got, sources("cpu"), strict=True):
        assert indices_equal(device, episode, its.batch(range(2, 5)))


def test_mini_batches_are_drawn_without_a_wait() -> None:
    images = separable_images(image_shape=CHECKED.image_shape)
    device = MetaDevice()
    with device:
        with device.waits_allowed():
            mine = BatchSource(ClassTable(images, META), 6, 0)
        got = mine.batch(range(3))
    assert device.violations == []
    want = BatchSource(ClassTable(images), 6, 0).batch(range(3))
    assert torch.equal(device.on_host(got.target), want.target)
    assert torch.equal(device.on_host(got.query), want.query)


def test_a_source_waits_for_its_first_batch_alone() -> None:
    device = MetaDevice()
    with device:
        with device.waits_allowed():
            episodes = source(device="meta")
        episodes.batch(range(2))
        first = len(device.violations)
        episodes.batch(range(2, 4))
    assert first > 0
    assert len(device.violations) == first
    assert {own_frame(seen)[2] for seen in device.violations} == {"check_indices"}


def test_a_plan_says_where_it_ends_without_a_wait() -> None:
    """The end is known from the range that is asked for; numbers on the device are not read."""
    device = MetaDevice()
    table = ClassTable(separable_images(image_shape=CHECKED.image_shape), "cpu")
    length = OpenSampler(table, CHECKED, 0).length
    assert length is not None
    with device:
        with device.waits_allowed():
            images = separable_images(image_shape=CHECKED.image_shape)
            sampler = OpenSampler(ClassTable(images, META), CHECKED, 0)
            EpisodeSource(sampler).batch(range(1))
            behind = torch.arange(length - 1, length + 3, device=META)
        message = f"the open plan of this split and task has {length} episodes; use --episodes"
        with pytest.raises(ConfigError, match=message):
            EpisodeSource(sampler).batch(range(length - 1, length + 1))
        beyond = sampler(behind)  # as they are drawn ahead of what is used
    assert device.violations == []
    classes = device.on_host(beyond.class_ids)
    assert torch.equal(classes, classes[:1].expand(4, -1))


def test_what_is_drawn_ahead_of_a_plans_end_is_not_used() -> None:
    device = GraphDevice()
    with as_a_gpu_with_graphs(device):
        with device.waits_allowed():
            images = separable_images(image_shape=CHECKED.image_shape)
            episodes = EpisodeSource(OpenSampler(ClassTable(images, META), CHECKED, 0))
            episodes.batch(range(1))
            ahead = Ahead(episodes, 1, 1, META)
        length = episodes.sampler.length
        assert length is not None
        ahead.draw(0)
        ahead.go_to(length - 1)
        with pytest.raises(ConfigError, match=f"has {length} episodes"):
            ahead.go_to(length)


# The stand-in itself.


def test_numbers_views_and_writes_in_place_are_the_cpus() -> None:
    def work(x: Tensor) -> list[Tensor]:
        x.requires_grad_()
        y = (x * 2).view(2, 3)
        y[0].add_(1)
        z = y.t().contiguous().sum(0).unsqueeze(1) @ torch.ones(1, 2, device=x.device)
        [gradient] = torch.autograd.grad(z.square().sum(), x)
        return [y.detach(), z.detach(), gradient, x.detach().as_strided((2, 2), (1, 2))]

    want = work(torch.arange(6.0))
    device = MetaDevice()
    with device:
        got = work(torch.arange(6.0, device=META))
    assert all(tensor.device == META for tensor in got)
    for mine, its in zip(device.on_host(got), want, strict=True):
        assert torch.equal(mine, its)
    assert device.violations == []


def test_numbers_are_forgotten_with_their_tensors() -> None:
    device = MetaDevice()
    with device:
        x = torch.arange(6.0, device=META)
        for _ in range(5):
            x = x + 1
        assert len(device._values) == 1
        del x
    assert device._values == device._owners == {}


def test_what_is_read_goes_on_with_its_number() -> None:
    device = MetaDevice()
    with device:
        x = torch.arange(3.0, device=META)
        assert x.tolist() == [0, 1, 2]
        assert float(x.sum()) == 3
        assert x[x > 0].shape == (2,)
        assert (x + torch.ones(3)).cpu().tolist() == [1, 2, 3]
    whats = [seen.what for seen in device.violations]
    assert whats == ["read", "read", "shape", "mixed", "to the host"]
    assert all(own_frame(seen)[0] == __file__ for seen in device.violations)


def test_no_kernel_waits_that_used_to() -> None:
    """torch 2.15 checks probabilities and renormalizes rows without a look at the numbers."""
    device = MetaDevice()
    with device:
        x = torch.ones(3, 4, device=META)
        x.multinomial(2)
        torch.nn.functional.embedding(x.argmax(-1), x, max_norm=1.0)
    assert device.violations == []


def test_operations_on_nan_are_the_same_twice() -> None:
    device, given = MetaDevice(), []
    with device:
        x = torch.ones(2, device=META)
        for _ in range(2):
            with device.recorded() as operations:
                x + float("nan")
                x + torch.tensor(float("nan"))
                torch._foreach_add([x, x], [1.0, float("nan")])
            given.append([operation.given for operation in operations])
    assert len(given[0]) == 3
    assert given[0] == given[1]


def test_autocast_can_be_switched_and_read_as_on_a_gpu() -> None:
    device = MetaDevice()
    kind = META.type
    with as_a_gpu(device):
        x = torch.eye(2, device=META)
        with torch.autocast(kind, torch.bfloat16):
            assert torch.is_autocast_enabled(kind)
            assert torch.get_autocast_dtype(kind) == torch.bfloat16
            with torch.autocast(kind, enabled=False):
                assert not torch.is_autocast_enabled(kind)
            y = x @ x
            assert torch.autocast(kind, enabled=False)(torch.is_autocast_enabled)(kind) is False
        assert not torch.is_autocast_enabled(kind)
        assert torch.amp.is_autocast_available(kind)
        with torch.autocast("cpu"):  # torch's own
            assert torch.is_autocast_enabled("cpu")
    assert device.on_host(y).tolist() == [[1, 0], [0, 1]]
    assert not torch.amp.is_autocast_available(kind)


class Halved(torch.autograd.Function):
    """The identity, with half of its gradient."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor | None:
        return gradient / 2 if gradient.equal(gradient) else None


def test_a_backward_pass_is_seen_where_its_forward_pass_was() -> None:
    device = MetaDevice()
    with device:
        x = torch.ones(3, device=META, requires_grad=True)
        y = x.cumprod(0)
        z = (y * torch.tensor([1.0, 2.0, 3.0])).sum()
        z.register_hook(
            lambda gradient: print(gradient.item()),
        )
        Halved.apply(z).backward()
    text = Path(__file__).read_text("utf-8").splitlines()
    lines = {(seen.call, seen.backward): text[own_frame(seen)[1] - 1].strip()
             for seen in device.violations}  # fmt: skip
    product = "z = (y * torch.tensor([1.0, 2.0, 3.0])).sum()"
    assert lines == {
        ("mul", False): product, ("mul", True): product, ("cumprod", True): "y = x.cumprod(0)",
        # Of code of somebody's own that autograd calls, its own lines.
        ("_local_scalar_dense", False): "lambda gradient: print(gradient.item()),",
        ("equal", False): "return gradient / 2 if gradient.equal(gradient) else None",
    }  # fmt: skip


def test_a_graph_has_no_effect_until_it_is_replayed_and_repeats_what_it_held() -> None:
    device, graph = GraphDevice(), Graph()
    with device:
        x = torch.ones(2, device=META)
        factor = torch.full((), 2.0, device=META)  # on the device: read anew
        with device.graph(graph):
            y = x * factor + 1
            x.copy_(y)
        assert device.on_host(x).tolist() == [1, 1]
        graph.replay()
        assert device.on_host(x).tolist() == device.on_host(y).tolist() == [3, 3]
        factor.fill_(0.0)
        graph.replay()
        assert device.on_host(x).tolist() == [1, 1]


def test_a_graph_holds_numbers_of_python_and_the_comparison_sees_it() -> None:
    """A rate that is no tensor stays what it was: the losses of later steps show it."""

    class Growing(Prototypes):
        def __init__(self) -> None:
            super().__init__()
            self.counter = itertools.count(1)  # an object that the engine does not look into

        def losses(self, episode: Any) -> Losses:
            factor = next(self.counter)
            return Losses({"meta": super().losses(episode).players["meta"] * factor})

    def losses(kind: type[Executor]) -> Tensor:
        torch.manual_seed(0)
        method, device = Growing(), GraphDevice()
        with as_a_gpu_with_graphs(device):
            with device.waits_allowed():
                episodes = source(device="meta")
                episodes.batch(range(2))
                runs = kind(method.to(META).train())
                trainer = Trainer(method, runs, episodes, Plan(STEPS, 2))
            for _ in range(STEPS):
                trainer.advance()
        return torch.stack(device.on_host([r.losses["meta"] for r in trainer._window]))

    eager, held = losses(Eager), losses(CudaGraphs)
    assert torch.allclose(eager[:4], held[:4], rtol=BOUND)
    assert not torch.allclose(eager[4:], held[4:], rtol=0.1)


def test_rates_on_the_device_follow_their_schedule_in_a_graph() -> None:
    """``make_capturable`` is what does that: with rates as numbers the graph would hold one."""

    class Scheduled(Prototypes):
        def players(self) -> Any:
            meta = super().players()["meta"]
            return {"meta": replace(meta, schedule=lambda step, of: 1 - step / of)}

    torch.manual_seed(0)
    method, device = Scheduled(), GraphDevice()
    with as_a_gpu_with_graphs(device):
        with device.waits_allowed():
            episodes = source(device="meta")
            episodes.batch(range(2))
            runs = CudaGraphs(method.to(META).train())
            trainer = Trainer(method, runs, episodes, Plan(STEPS, 2))
        moved = []
        for _ in range(STEPS):
            before = device.on_host(list(method.parameters()))
            trainer.advance()
            after = device.on_host(list(method.parameters()))
            moved.append(max(float((a - b).abs().max())
                             for a, b in zip(before, after, strict=True)))  # fmt: skip
        assert trainer._captured
    assert device.violations == []
    # Adam's steps are about as long as the rate: 1e-2 at first, a sixth of it at last.
    assert moved[-1] < 0.35 * moved[0]


@pytest.mark.parametrize(("steps", "name"), [(1, "eager"), (6, "graph")])
def test_the_engine_that_is_recorded_is_the_one_that_ran(steps: int, name: str) -> None:
    """A training that ends before a graph is captured has not run as one."""
    device = GraphDevice()
    with as_a_gpu_with_graphs(device), device.waits_allowed():
        method = Prototypes().to(META)
        executor = CudaGraphs(method)
        Trainer(method, executor, source(device="meta"), Plan(steps, 4)).run()
    assert executor.name == name
