"""The contract of a few-shot method: what an author subclasses and returns.

A method is an ``nn.Module`` that can learn a task from a support set (:meth:`Method.adapt`),
classify queries with what it learned (:meth:`Method.predict`), and say what it wants to minimize
(:meth:`Method.losses`). It never sees an optimizer, a device, a loop or a file. Nearest centroid
is five lines; a GAN has two players.

Hyper-parameters are keyword-only arguments of ``__init__`` with the paper's value as default.
Annotated as ``Annotated[float, "one sentence of help"]`` they become options of ``fsb run``; one
annotated with ``Method`` takes the name of another method, whose options appear with a prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.nn.norm import uses_batch_statistics

State = Any  # a pytree of tensors, each of shape [T, ...]


class Without(tuple[str, ...]):
    """Options of an inner method that the outer one decides, and that are therefore not offered.

    ``base: Annotated[Method, "help", Without(["lr"])]`` leaves out ``--base-lr``.
    """


@dataclass(frozen=True)
class Player:
    """Parameters that move together to make one loss smaller.

    Arguments:
        parameters: {name: parameter}; no parameter belongs to two players.
        optimizer: from a list of parameters to an optimizer.
        schedule: (step counted from 0, number of steps) -> factor of the learning rate.
        clip: largest norm of the player's gradient, or None.
        ema: decay of an exponential moving average of the parameters that is used at validation
            and test in their place, or None.
        reduction: how per-task losses become one: their mean or their sum.
    """

    parameters: Mapping[str, nn.Parameter]
    optimizer: Callable[[Iterable[Tensor]], Optimizer] = field(
        default_factory=lambda: partial(Adam, lr=1e-3)
    )
    schedule: Callable[[int, int], float] | None = None
    clip: float | None = None
    ema: float | None = None
    reduction: Literal["mean", "sum"] = "mean"


@dataclass(frozen=True)
class Losses:
    """What one batch of episodes costs each player.

    Arguments:
        players: {player: [T] loss of each task}. The loop reduces over tasks and differentiates
            each with respect to that player's own parameters only.
        log: {name: [T] number to show and record}; detached by the loop.
        buffers: {buffer name: [T, ...] what each task would make of it}; the loop stores the mean.
            For buffers of the method's own: running statistics of
            :class:`fewshot_bench.nn.TaskBatchNorm` are collected around ``losses`` by the engine.
    """

    players: Mapping[str, Tensor]
    log: Mapping[str, Tensor] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


class Method(nn.Module):
    """Base class of few-shot methods.

    What changes in training is a parameter, a registered buffer, or what ``get_extra_state()`` and
    ``set_extra_state()`` of ``nn.Module`` give and take (tensors, numbers, words, lists and
    dictionaries): checkpoints hold these.

    Class attributes, each a declaration that the engine goes by:

    * ``source``: what it trains on: ``"episodes"``, or ``"batches"``, labeled mini-batches over
      all training classes (see :mod:`fewshot_bench.sampling.batches`), for pretrained baselines;
      the ``way`` of its training task is then the number of training classes.
    * ``turns``: which players move together; each turn gets a fresh batch of episodes.
    * ``gradient``: ``"exact"``, or ``"surrogate"`` if a term is stopped (see :func:`nn.stop`).
    * ``batchable``: tasks do not influence each other, so a batch may be split anywhere.
    * ``class_equivariant``: relabeling the classes relabels the predictions and no more.
    * ``capturable``: fixed shapes and no host sync, so that a CUDA graph can hold a step
      (``fsb check`` holds it to that on any machine, and names the line).
    * ``autocast``: losses stay finite and useful under bf16 autocast.
    * ``embeds``: ``adapt`` and ``predict`` see images through the method's own ``embed`` alone
      (from images [T, M, C, H, W] to features [T, M, ...]), which lets an evaluation embed every
      image once, however many episodes it is in.
    * ``trains``: False for a method that leaves its parameters as they are (a pretrained or a
      random backbone, and nothing to learn above it): ``players()`` is then empty.
    * ``unlabeled_tasks``: ``losses`` also takes tasks without any label (``episode.kind`` is
      ``"unlabeled"``; ``support.images`` and ``target`` are None), for ``--labeled-classes``.
    """

    source: ClassVar[Literal["episodes", "batches"]] = "episodes"
    turns: tuple[tuple[str, ...], ...] = (("meta",),)
    gradient: Literal["exact", "surrogate"] = "exact"
    batchable: ClassVar[bool] = True
    class_equivariant: ClassVar[bool] = False
    capturable: ClassVar[bool] = False
    autocast: ClassVar[bool] = False
    embeds: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    unlabeled_tasks: ClassVar[bool] = False
    _title: str = ""  # what it was named and who installed it; for messages

    def __init__(self, task: Task, backbone: nn.Module | None = None) -> None:
        """Arguments:
        task: the training task.
        backbone: from images [N, C, H, W] to feature maps [N, c, h, w], with ``out_shape``
            (c, h, w); None for a method that wants none (``wants_backbone = False``).
        """
        super().__init__()
        self.task = task
        self.backbone = backbone

    wants_backbone: ClassVar[bool] = True

    @property
    def transductive(self) -> bool:
        """Whether a query's prediction depends on the other queries of its task."""
        return uses_batch_statistics(self)

    def check_task(self, task: Task) -> None:
        """Raise ConfigError if the method, as built, cannot be evaluated on such a task."""

    def adapt(self, support: Support) -> State:
        """Learn each task: a pytree of tensors [T, ...]. Gradients are enabled at test too."""
        raise NotImplementedError

    def predict(self, state: State, query: Tensor) -> Tensor:
        """Logits [T, Q, way] of all queries [T, Q, C, H, W] of each task."""
        raise NotImplementedError

    def losses(self, episode: Episode) -> Losses:
        """Per-task losses of each player. Default: the query cross-entropy of what was learned."""
        logits = self.predict(self.adapt(episode.support), episode.query)
        assert episode.target is not None
        return Losses(
            players={"meta": cross_entropy(logits, episode.target)},
            log={"accuracy": accuracy(logits, episode.target)},
        )

    def pictures(self, support: Support) -> Mapping[str, Tensor]:
        """Images by name, each [T, way, k, C, H, W], that the method makes up for these tasks.

        To be looked at, and for nothing else: ``--pictures`` asks for them at each validation, in
        evaluation mode and without gradients. Noise is keyed by ``support.key``, so that the
        same task shows the training and not the draw. Default: none.
        """
        return {}

    def features(self, state: State, images: Tensor) -> Tensor | None:
        """Features [T, M, d] of images [T, M, C, H, W] for a method that has learned the tasks.

        In their space ``--pictures`` compares what the method draws with real images
        (:mod:`fewshot_bench.engine.quality`). Default: None, which stands for the pixels.
        """
        return None

    def players(self) -> dict[str, Player]:
        """Who trains what; empty if nothing does. Default: ``meta`` trains all with Adam."""
        parameters = trainable(self) if self.trains else {}
        return {"meta": Player(parameters)} if parameters else {}

    @classmethod
    def presets(cls, name: str, dataset: str, task: Task) -> Mapping[str, Any] | None:
        """Settings of the preset ``name`` (``quick``, ``paper``, ...), or None if there is none.

        Keys are hyper-parameters of the method and options of ``fsb run`` with underscores
        (``steps``, ``task_batch``, ``train_way``, ``backbone``, ...).
        """
        return {} if name == "quick" else None

    @classmethod
    def preset_names(cls) -> Sequence[str]:
        """Names that :meth:`presets` knows for some data set and task."""
        return ("quick",)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module that require gradients."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the images of each task: [T, Q, way] and [T, Q] (or [Q]) -> [T]."""
    target = target.expand(logits.shape[:2])
    return F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(1)


cross_entropy.higher_is_better = False  # type: ignore[attr-defined]


@torch.no_grad()
def title_of(method: Method) -> str:
    """How a message names a method: ``method 'x' of its-distribution 1.0: X``."""
    return f"{method._title}: {type(method).__name__}".removeprefix(": ")


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Fraction of queries that are classified correctly: [T, Q, way] and [T, Q] -> [T]."""
    return (logits.argmax(-1) == target).to(logits.dtype).mean(-1)
