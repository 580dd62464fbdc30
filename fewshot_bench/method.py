"""The contract of a few-shot method: what an author subclasses and returns.

A method is an ``nn.Module`` that learns a task from a support set (:meth:`Method.adapt`),
classifies queries with the result (:meth:`Method.predict`), and defines the loss that it minimizes
(:meth:`Method.losses`). It never sees an optimizer, a device, a loop or a file.

Hyper-parameters are keyword-only arguments of ``__init__`` with the paper's value as default: they
are options of ``fsb run`` (:mod:`fewshot_bench.config.options`).
"""

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from fewshot_bench.episode import Episode, Support, Task, UnlabeledEpisode
from fewshot_bench.nn.norm import uses_batch_statistics

State = Any  # a pytree of tensors, each of shape [T, ...]


class Without(tuple[str, ...]):
    """Options of an inner method that the outer one decides: they are not offered.

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
class Preset:
    """Settings of a preset, and the data sets and tasks that they are for.

    ``presets["paper"]`` may be several of these: all that match apply, later ones override
    earlier ones. Where none matches, the preset does not exist.

    Arguments:
        settings: hyper-parameters of the method and options of ``fsb run`` with underscores
            (``steps``, ``train_way``, ...); a value may be a function of the :class:`Task`.
        family: the data set's ``family``; None: any.
        protocol: a protocol that the data set declares, whose options are added; None: any.
        way, shot: numbers that match, such as ``(5, 20)`` or ``range(2, 20)``; None: any.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    family: str | None = None
    protocol: str | None = None
    way: Container[int] | None = None
    shot: Container[int] | None = None

    def matches(self, dataset: Any, task: Task) -> bool:
        """Whether it is for this data set (its class) and task."""
        return (
            self.family in (None, dataset.family)
            and (self.protocol is None or self.protocol in dataset.protocols)
            and (self.way is None or task.way in self.way)
            and (self.shot is None or task.shot in self.shot)
        )


@dataclass(frozen=True)
class Losses:
    """The losses of one batch of episodes.

    Arguments:
        players: {player: [T] loss of each task}. The loop reduces over tasks and differentiates
            each with respect to that player's own parameters only.
        log: {name: [T] number to show and record}; detached by the loop.
        buffers: {buffer name: [T, ...] its new value of each task}; the loop stores the mean. For
            the method's own buffers: the engine collects the running statistics of
            :class:`fewshot_bench.nn.TaskBatchNorm` around ``losses``.
    """

    players: Mapping[str, Tensor]
    log: Mapping[str, Tensor] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


class Method(nn.Module):
    """Base class of few-shot methods.

    Whatever changes in training is a parameter, a registered buffer, or the value of
    ``get_extra_state()`` of ``nn.Module`` (tensors, numbers, strings, lists and dictionaries):
    checkpoints contain these.

    Class attributes, each a declaration that the engine relies on:

    * ``source``: ``"episodes"``, or ``"batches"``: it trains on labeled mini-batches over all
      training classes (see :mod:`fewshot_bench.sampling.batches`), for pretrained baselines;
      the ``way`` of its training task is then the number of training classes.
    * ``turns``: which players move together; each turn gets a fresh batch of episodes.
    * ``gradient``: ``"exact"``, or ``"surrogate"`` if a term is stopped (see :func:`nn.stop`).
    * ``batchable``: tasks do not influence each other, so a batch may be split anywhere.
    * ``class_equivariant``: relabeling the classes only relabels the predictions.
    * ``capturable``: fixed shapes and no host sync, so that a CUDA graph can hold a step
      (``fsb check`` verifies that on any machine, and names the line).
    * ``autocast``: losses stay finite and useful under bf16 autocast.
    * ``embeds``: it has a method ``embed`` (from images [T, M, C, H, W] to features [T, M, ...]),
      and ``adapt`` and ``predict`` see images through :meth:`embedded` alone. An evaluation may
      then embed every image once, however many episodes it is in.
    * ``trains``: False for a method that never changes its parameters: ``players()`` is empty.
    * ``unlabeled_tasks``: it also trains on tasks without labels, by ``unlabeled_losses``, for
      ``--labeled-classes``.
    * ``wants_backbone``: False for a method without a backbone.
    * ``presets``: {name: :class:`Preset`, or several}; ``quick`` is the default of ``fsb run``.
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
    wants_backbone: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Preset | Sequence[Preset]]] = {"quick": Preset()}
    features_given = False  # set by an evaluation that embeds every image once
    _title: str = ""  # its name and distribution, for messages

    def __init__(self, task: Task, backbone: nn.Module | None = None) -> None:
        """Arguments:
        task: the training task.
        backbone: from images [N, C, H, W] to feature maps [N, c, h, w], with ``out_shape``
            (c, h, w); None with ``wants_backbone = False``.
        """
        super().__init__()
        self.task = task
        self.backbone: nn.Module = backbone  # type: ignore[assignment]

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

    def embedded(self, images: Tensor) -> Tensor:
        """Features [T, M, ...] of images [T, M, C, H, W]: what the method's ``embed`` gives.

        An evaluation that embeds every image once (``features_given``) gives features in place of
        the images of support and query, which this returns as they are.
        """
        return images if self.features_given else cast(Tensor, self.embed(images))  # type: ignore[operator]

    def losses(self, episode: Episode) -> Losses:
        """Per-task losses of each player. Default: the query cross-entropy after adapting."""
        logits = self.predict(self.adapt(episode.support), episode.query)
        return Losses(
            players={"meta": cross_entropy(logits, episode.target)},
            log={"accuracy": accuracy(logits, episode.target)},
        )

    def unlabeled_losses(self, episode: UnlabeledEpisode) -> Losses:
        """As :meth:`losses`, of tasks without labels; called where ``unlabeled_tasks`` is True."""
        raise NotImplementedError(f"{type(self).__name__} defines no unlabeled_losses")

    def pictures(self, support: Support) -> Mapping[str, Tensor]:
        """Images by name, each [T, way, k, C, H, W], that the method generates for these tasks.

        ``--pictures`` saves them at each validation, in evaluation mode and without gradients.
        Noise keyed by ``support.key`` makes pictures of one task comparable. Default: none.
        """
        return {}

    def features(self, state: State, images: Tensor) -> Tensor | None:
        """Features [T, M, d] of images [T, M, C, H, W] after adapting; default: None, the pixels.

        In their space ``--pictures`` compares generated with real images.
        """
        return None

    def players(self) -> dict[str, Player]:
        """The players; empty if nothing trains. Default: ``meta`` trains everything with Adam."""
        parameters = trainable(self) if self.trains else {}
        return {"meta": Player(parameters)} if parameters else {}


def presets_of(method: type[Method]) -> dict[str, tuple[Preset, ...]]:
    """The presets that a method declares, by name; TypeError if they are something else."""
    declared: Any = method.presets
    found = {}
    for name, entries in declared.items() if isinstance(declared, Mapping) else [("", declared)]:
        several = [entries] if isinstance(entries, Preset) else entries
        whole = isinstance(several, list | tuple)
        if not whole or not all(isinstance(entry, Preset) for entry in several):
            at = f"presets['{name}']" if name else "presets"
            expected = "expected {name: fewshot_bench.Preset, or a list of them}"
            raise TypeError(f"{at}: {expected}, found {type(entries).__name__}")
        found[name] = tuple(several)
    return found


def preset_settings(
    method: type[Method], name: str, dataset: Any, task: Task
) -> dict[str, Any] | None:
    """The settings of a preset for a data set (its class) and a task; None: there is none."""
    matching = [p for p in presets_of(method).get(name, ()) if p.matches(dataset, task)]
    if not matching:
        return None
    settings: dict[str, Any] = {}
    for preset in matching:
        if preset.protocol is not None:
            settings |= dataset.protocols[preset.protocol]
        settings |= preset.settings
    return {name: value(task) if callable(value) else value for name, value in settings.items()}


def halving(every: int) -> Callable[[int, int], float] | None:
    """A schedule: half the rate after every so many steps; None (a constant rate) for 0."""
    return (lambda step, steps: 0.5 ** (step // every)) if every else None


def cosine(step: int, steps: int) -> float:
    """A schedule: half a cosine wave from 1 to 0 (Loshchilov and Hutter 2017)."""
    return 0.5 + 0.5 * math.cos(math.pi * step / steps)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module that require gradients."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the images of each task: [T, Q, way] and [T, Q] (or [Q]) -> [T]."""
    target = target.expand(logits.shape[:2])
    return F.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(1)


cross_entropy.higher_is_better = False  # type: ignore[attr-defined]


def losses_call(episode: Episode | UnlabeledEpisode) -> str:
    """Name of the method's function that gives the losses of these tasks."""
    return "losses" if isinstance(episode, Episode) else "unlabeled_losses"


def title_of(method: Method) -> str:
    """The method in a message: ``method 'x' of its-distribution 1.0: X``."""
    return f"{method._title}: {type(method).__name__}".removeprefix(": ")


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Fraction of queries that are classified correctly: [T, Q, way] and [T, Q] -> [T]."""
    return (logits.argmax(-1) == target).to(logits.dtype).mean(-1)
