"""What MetaGAN asks of the method that it wraps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fewshot_bench.episode import Support
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Method, State

InnerLoss = Callable[[State], Tensor]


@runtime_checkable
class DiscriminatorBase(Protocol):
    """A few-shot classifier that can serve as the discriminator of a GAN.

    A base that learns a task by gradient steps (MAML) descends ``inner_loss``; one that has no
    inner loop (ProtoNet, Relation Network) learns from the labelled support set as ever and leaves
    ``inner_loss`` alone: MetaGAN then has its GAN terms in the outer loss only, as the paper's
    MetaGAN with a Relation Network has.
    """

    def adapt(self, support: Support, inner_loss: InnerLoss | None = None) -> State:
        """Learn each task.

        Arguments:
            support: see :class:`fewshot_bench.episode.Support`.
            inner_loss: from a state (halfway through learning) to the loss [T] whose gradient
                makes the next step; None: the base's own.
        """

    def discriminate(self, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [T, M, way + added outputs] and features [T, M, d] of images [T, M, C, H, W]."""

    def add_outputs(self, count: int) -> None:
        """Give the classifier further outputs behind those of its classes. Called once, at most."""


def as_discriminator(base: Any) -> Any:
    """The base (a Method that is a :class:`DiscriminatorBase`), if MetaGAN can wrap it.

    Raises:
        ConfigError: it is no method, or lacks a part of :class:`DiscriminatorBase`.
    """
    if isinstance(base, Method) and isinstance(base, DiscriminatorBase):
        return base
    name = base if isinstance(base, str) else type(base).__name__
    raise ConfigError(
        f"metagan cannot wrap '{name}': a base is a method with adapt(support, inner_loss), "
        "discriminate(state, images) and add_outputs(count). Give --base maml."
    )
