"""The gradients of a training step in float32, against the same in float64."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot_bench.engine.executors.choice import choose
from fewshot_bench.engine.executors.threads import TaskThreads
from fewshot_bench.engine.players import check_players
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.method import Method
from fewshot_bench.nn import Conv2d, TaskBatchNorm, per_task
from fewshot_bench.rng import fold, key_of, permutation, uniform
from fewshot_bench.testing.backbone_checks import BackboneSubject
from fewshot_bench.testing.checks import Check, Fault, NotClaimed, checks_of
from fewshot_bench.testing.decisions import Recorded, Replayed
from fewshot_bench.testing.subject import MethodSubject

ALLOWED = 1e-4
BATCHES = 3  # of which one may have a jump that is neither a ReLU's nor of max-pooling
IMAGES = 30  # of a backbone alone


def precision_error(method: Method, episode: Episode, engine: str = "auto") -> dict[str, float]:
    """How far each player's float32 gradient is from the float64 one.

    Two copies of the method in training mode, one of each type, take the gradient of the batch as
    the training loop does. Where a ReLU or max-pooling is undecided but for rounding, the second
    decides as the first did (:mod:`fewshot_bench.testing.decisions`).

    Arguments:
        method: in float32.
        episode: a batch of tasks, whose images are numbers that float32 has exactly.
        engine: one of ``fewshot_bench.engine.executors.choice.ENGINES``.

    Returns:
        {player: norm of the difference over the norm of the float64 gradient}.
    """
    recorded = Recorded()
    rough = _gradients(method, episode.to(torch.float32), engine, recorded)
    exact = _gradients(method, episode.to(torch.float64), engine, Replayed(recorded.decisions))
    return {name: _off(rough[name], exact[name]) for name in exact}


def _gradients(
    method: Method, episode: Episode, engine: str, mode: TorchDispatchMode
) -> dict[str, Tensor]:
    """The mean gradient of each player over tasks, in the type of the episode: [parameters]."""
    own = copy.deepcopy(method).to(episode.query.dtype).train()
    players = check_players(own)
    lowering = choose(engine, own, episode.query.device)
    parts = [episode]
    if isinstance(lowering, TaskThreads):  # a mode is of one thread
        lowering.hold(1)
        parts = [episode.tasks(t, t + 1) for t in range(len(episode))]
    with lowering.running(), mode:
        each = [lowering.gradients(part, players, tuple(players)).gradients for part in parts]
    return {name: torch.stack([_joined(one[name]) for one in each]).mean(0) for name in each[0]}


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def _off(rough: Tensor, exact: Tensor) -> float:
    miss, size = float((rough - exact).norm()), float(exact.norm())
    return miss / size if size else miss


class _Network(nn.Module):
    """What is common in backbones: convolutions, normalization, max-pooling, ReLU."""

    def __init__(self, image_shape: tuple[int, int, int], channels: int = 8) -> None:
        super().__init__()
        inputs, height, width = image_shape
        blocks: list[nn.Module] = []
        for _ in range(2):
            blocks += [Conv2d(inputs, channels, 3, padding=1), TaskBatchNorm(channels)]
            blocks += [nn.MaxPool2d(2), nn.ReLU()]
            inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.out_shape = (channels, height // 4, width // 4)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # Channels-last by its strides, for one channel too.
        return self.blocks(x.contiguous().view(n, c, h * w).mT.contiguous().mT.view(n, c, h, w))


def _drawn(key: Tensor, tag: str, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Pictures [T, count, *shape] of black squares on white, as characters are: mostly paper."""
    channels, height, width = shape
    coarse = uniform(key, tag, (count, 1, -(-height // 4), -(-width // 4))) < 0.2
    fine = coarse.repeat_interleave(4, -2).repeat_interleave(4, -1)[..., :height, :width]
    return fine.to(torch.float32).expand(-1, -1, channels, -1, -1).contiguous()


def _episode(task: Task, seed: int, labeled: bool, tasks: int = 2) -> Episode:
    """Tasks of drawn pictures, whose classes have nothing in common: only gradients matter."""
    key = fold(torch.arange(tasks), key_of("precision", seed))
    shots = _drawn(key, "support", task.way * task.shot, task.image_shape)
    labels = torch.arange(task.way).repeat_interleave(task.query)
    order = permutation(key, "order", len(labels))
    others = task.unlabeled * task.classes
    return Episode(
        support=Support(  # mini-batches have none
            shots.unflatten(1, (task.way, task.shot)) if labeled else None,
            _drawn(key, "unlabeled", others, task.image_shape) if others and labeled else None,
            key,
        ),
        query=_drawn(key, "query", len(labels), task.image_shape),
        target=labels[order],
        class_ids=torch.arange(tasks * task.way).unflatten(0, (tasks, task.way)),
        key=key,
    )


def of_method(subject: MethodSubject) -> None:
    """A training step's gradients in float32 are those of float64, on pictures of characters."""
    large = replace(subject.task, shot=5, query=15, image_shape=(1, 28, 28))
    try:
        method = _built(subject, large)
        errors = [precision_error(method, _shown(subject, large, 0))]
        task = large
    except (PluginError, ConfigError, RuntimeError, ValueError):
        # It is made for the tiny images alone.
        method, errors, task = subject.build(), [], subject.task
    if not method.players():
        raise NotClaimed("nothing trains")
    for seed in range(len(errors), BATCHES):
        errors.append(precision_error(method, _shown(subject, task, seed)))
    _require({name: [each[name] for each in errors] for name in errors[0]})


def _built(subject: MethodSubject, task: Task) -> Method:
    if subject.kind.source == "batches":
        task = replace(task, way=subject.training_task.way)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = (_Network(task.image_shape),) if subject.kind.wants_backbone else ()
        return (subject.make or subject.kind)(task, *network)


def _shown(subject: MethodSubject, task: Task, seed: int) -> Episode:
    return _episode(task, seed, labeled=subject.kind.source == "episodes")


def of_backbone(subject: BackboneSubject) -> None:
    """Gradients in float32 are those of float64, on pictures of characters."""
    net = subject.build(subject.shape).train()
    if not any(p.requires_grad for p in net.parameters()):
        raise NotClaimed("nothing trains")
    errors = []
    for seed in range(BATCHES):
        key = torch.tensor([key_of("precision", seed)])
        images = _drawn(key, "images", IMAGES, subject.shape)
        recorded = Recorded()
        rough = _gradient(net, images, recorded)
        exact = _gradient(net, images.to(torch.float64), Replayed(recorded.decisions))
        errors.append(_off(rough, exact))
    _require({"": errors})


def _gradient(net: nn.Module, images: Tensor, mode: TorchDispatchMode) -> Tensor:
    """Of a copy in the images' type: its maps, and the gradient of a sum of them."""
    own = copy.deepcopy(net).to(images.dtype)
    weights = [p for p in own.parameters() if p.requires_grad]
    with mode:
        maps = per_task(own, images)
        gradients = torch.autograd.grad(maps.sin().sum(), weights)
    return _joined([maps.detach(), *gradients])


def _require(errors: dict[str, list[float]]) -> None:
    for name, each in errors.items():
        error = statistics.median(each)
        if not error <= ALLOWED:
            of = f" of player '{name}'" if name else ""
            raise Fault(
                f"the float32 gradient{of} is off by {error:.1e} of the float64 one (median of "
                f"{len(each)} batches; at most {ALLOWED:g} is allowed). Normalize with "
                "fewshot_bench.nn.TaskBatchNorm; sum many numbers with torch.sum and not by a "
                "loop; subtract a mean before squaring."
            )


def _check(function: Callable[[Any], None]) -> Check:
    (check,) = checks_of([function])
    return replace(check, id="precision")


CHECKS = {"methods": _check(of_method), "backbones": _check(of_backbone)}  # by kind of plugin
