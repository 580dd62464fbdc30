"""How a few-shot classifier becomes the discriminator of a GAN: one adapter for each base.

An adapter is a class of functions whose first argument is the base; it holds nothing. Parameters
that it adds are registered in the base, so that checkpoints and copies have them. A method that
has these functions as methods of its own is its own adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from fewshot_bench import Method, Support
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import State

if TYPE_CHECKING:
    from fsb_maml.maml import MAML
    from fsb_protonet.protonet import ProtoNet
    from fsb_relationnet.relationnet import RelationNet

InnerLoss = Callable[[State], Tensor]
PARTS = ("become_discriminator", "adapt", "discriminate")


class Discriminator(Protocol):
    """What MetaGAN needs of a base: methods of its own, or of an adapter (then ``self`` is the
    base).

    A base that learns a task by gradient steps (MAML) descends ``inner_loss``; one without an
    inner loop (ProtoNet, Relation Network) ignores it: MetaGAN then has its GAN terms in the outer
    loss only, as the paper's MetaGAN with a Relation Network has.
    """

    def become_discriminator(self, outputs: int) -> None:
        """Prepare to separate real from fake. Called once, before training.

        Real against fake is logsumexp(class logits) - fake logit. Class logits without a zero
        point of their own (distances) get a learned one here.

        Arguments:
            outputs: further outputs after those of the classes: 1 with ``--head extra``, the fake
                logit; 0 with ``--head logsumexp``, where it is fixed at 0.
        """

    def adapt(self, support: Support, inner_loss: InnerLoss) -> State:
        """Learn each task.

        Arguments:
            support: in an unlabeled task each image is a class of its own, and ``inner_loss`` has
                no supervised term.
            inner_loss: from a state (in the middle of learning) to the loss [T] whose gradient
                is the next step.
        """

    def discriminate(self, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [T, M, way + outputs] and features [T, M, d] of images [T, M, C, H, W].

        Feature matching compares the features.
        """


ADAPTERS: dict[str, Any] = {}  # {"module:Class" of the base: its adapter}


def adapter(base: str) -> Callable[[type], type]:
    """Register the adapter of a base and its subclasses: ``@adapter("my_package.method:Mine")``."""

    def register(kind: type) -> type:
        ADAPTERS[base] = kind
        return kind

    return register


def adapter_of(base: Any) -> Any:
    """The class whose functions make a discriminator of this base; see :class:`Discriminator`.

    Raises:
        ConfigError: it is no method, or lacks something and has no adapter.
    """
    for kind in type(base).__mro__:
        if found := ADAPTERS.get(f"{kind.__module__}:{kind.__qualname__}"):
            return found
    missing = [part for part in PARTS if not hasattr(base, part)]
    if isinstance(base, Method) and not missing:
        return type(base)
    name = base if isinstance(base, str) else type(base).__name__
    raise ConfigError(
        f"--base: metagan cannot wrap '{name}', which lacks {' and '.join(missing)} (see 'a base "
        "of your own' in docs/howto/gan.md); give maml, relationnet or protonet."
    )


@adapter("fsb_maml.maml:MAML")
class OverMAML:
    """MAML's logits have a zero point of their own; a further output is one of the last layer."""

    @staticmethod
    def become_discriminator(base: MAML, outputs: int) -> None:
        head = base.net.head
        if outputs:
            base.net.head = nn.Linear(head.in_features, head.out_features + outputs)

    @staticmethod
    def adapt(base: MAML, support: Support, inner_loss: InnerLoss) -> State:
        return base.descend(inner_loss, len(support.key))

    @staticmethod
    def discriminate(base: MAML, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
        return base.f(state, images)


@adapter("fsb_relationnet.relationnet:RelationNet")
class OverRelationNet:
    """Relations are logits as they are (eq. 10); a further output is linear in f(x)."""

    @staticmethod
    def become_discriminator(base: RelationNet, outputs: int) -> None:
        if outputs:
            base.fake = _linear(base, outputs)

    @staticmethod
    def adapt(base: RelationNet, support: Support, inner_loss: InnerLoss) -> State:
        return base.adapt(support)

    @staticmethod
    def discriminate(base: RelationNet, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = base.embed(images)
        logits, features = base.relations(state, maps), maps.flatten(2)
        return _with_fake(base, logits, features), features


@adapter("fsb_protonet.protonet:ProtoNet")
class OverProtoNet:
    """Distances have no zero point: logsumexp(-d) is so negative that everything is fake.

    Logits become s (m - d), with a learned scale s, at first 1, which is the softmax of Snell et
    al. 2017, and a learned threshold m for the mean over the features of a squared difference, at
    first 0.5, about that of an untrained network between classes. A further output is linear in
    the embedding.
    """

    @staticmethod
    def become_discriminator(base: ProtoNet, outputs: int) -> None:
        base.log_scale = nn.Parameter(torch.zeros(()))
        base.threshold = nn.Parameter(torch.full((), 0.5))
        if outputs:
            base.fake = _linear(base, outputs)

    @staticmethod
    def adapt(base: ProtoNet, support: Support, inner_loss: InnerLoss) -> State:
        return base.adapt(support)

    @staticmethod
    def discriminate(base: Any, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
        features = base.embed(images)
        s, m = base.log_scale.exp(), base.threshold * features.shape[-1]
        logits = s * (m - base.distances(features, state))
        return _with_fake(base, logits, features), features


@adapter("fsb_protonet.soft_kmeans:SoftKMeans")
class OverSoftKMeans(OverProtoNet):
    """As over a ProtoNet, without the distractors' center."""

    @staticmethod
    def discriminate(base: Any, state: State, images: Tensor) -> tuple[Tensor, Tensor]:
        return OverProtoNet.discriminate(base, base.of_classes(state), images)


def _linear(base: Method, outputs: int) -> nn.Linear:
    shape: Any = base.backbone.out_shape
    return nn.Linear(math.prod(shape), outputs)


def _with_fake(base: Method, logits: Tensor, features: Tensor) -> Tensor:
    """The class logits, and the fake logit where there is one."""
    fake = getattr(base, "fake", None)
    return logits if fake is None else torch.cat([logits, fake(features)], dim=-1)
