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

    A method becomes one by having these three methods; it needs to import nothing from here.

    A base that learns a task by gradient steps (MAML) descends ``inner_loss``; one that has no
    inner loop (ProtoNet, Relation Network) learns from the labeled support set as ever and leaves
    ``inner_loss`` alone: MetaGAN then has its GAN terms in the outer loss only, as the paper's
    MetaGAN with a Relation Network has.
    """

    def become_discriminator(self, outputs: int) -> None:
        """Get ready to tell real from fake. Called once, before training.

        Real against fake is logsumexp(class logits) - fake logit. Class logits that have no zero
        point of their own (distances) get a learned one here.

        Arguments:
            outputs: outputs wanted behind those of the classes: 1 with ``--head extra``, which is
                the fake logit; 0 with ``--head logsumexp``, where that is fixed at 0.
        """

    def adapt(self, support: Support, inner_loss: InnerLoss | None = None) -> State:
        """Learn each task.

        Arguments:
            support: see :class:`fewshot_bench.episode.Support`. In an unlabeled task each image
                stands there as a class of its own, and ``inner_loss`` knows that it is none.
            inner_loss: from a state (halfway through learning) to the loss [T] whose gradient
                makes the next step; None: the base's own.
        """

    def discriminate(self, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [T, M, way + outputs] and features [T, M, d] of images [T, M, C, H, W].

        Features are what feature matching compares.
        """


def as_discriminator(base: Any, outputs: int) -> Any:
    """The base (a Method that is a :class:`DiscriminatorBase`), ready to be a discriminator.

    Raises:
        ConfigError: it is no method, or lacks a part of :class:`DiscriminatorBase`.
    """
    if isinstance(base, Method) and isinstance(base, DiscriminatorBase):
        base.become_discriminator(outputs)
        return base
    name = base if isinstance(base, str) else type(base).__name__
    wanted = ("become_discriminator", "adapt", "discriminate")
    missing = [part for part in wanted if not hasattr(base, part)]
    raise ConfigError(
        f"metagan cannot wrap '{name}', which lacks {' and '.join(missing)}; see 'a base of your "
        "own' in its README. Give --base maml, --base relationnet or --base protonet."
    )


def support_images(support: Support) -> Tensor:
    """The support set [T, M, C, H, W], with or without its labels."""
    if support.images is not None:
        return support.labeled()[0]
    assert support.unlabeled is not None, "a task without images"
    return support.unlabeled
