"""Model-agnostic meta-learning.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML
2017. The initialization theta of a network is trained so that a few gradient steps on the support
set of a task make theta', which classifies the task's queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from fewshot_bench.engine.schedules import cosine
from fewshot_bench.episode import Support, Task
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.method import Method, Player, cross_entropy, title_of, trainable
from fewshot_bench.nn import double_backward, per_task, stop, task_weights
from fsb_maml.presets import PRESETS, preset

Weights = dict[str, Tensor]  # {parameter name: [T, ...]}, a weight set for each task
InnerLoss = Callable[[Weights], Tensor]  # the loss of each task at its weights: [T]


class Classifier(nn.Module):
    """A backbone and a linear layer on its features: [N, C, H, W] -> [N, outputs + d].

    Logits and features leave side by side, because one pass under the weights of a task has to
    give both.
    """

    def __init__(self, backbone: nn.Module, outputs: int, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        channels, height, width = backbone.out_shape  # type: ignore[misc]
        self.pooling = pooling
        self.head = nn.Linear(channels if pooling == "mean" else channels * height * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone(x)
        features = maps.mean((2, 3)) if self.pooling == "mean" else maps.flatten(1)
        return torch.cat([self.head(features), features], dim=1)


class MAML(Method):
    """MAML (Finn et al. 2017), first or second order.

    It can serve as the base of a method that changes what the inner loop descends: ``adapt`` takes
    an inner loss, ``discriminate`` gives logits and features under a task's weights, and
    ``become_discriminator`` widens the classifier.

    Raises:
        ConfigError: a number out of range.
    """

    capturable = True

    def __init__(
        self,
        task: Task,
        backbone: nn.Module,
        *,
        inner_lr: Annotated[
            float,
            "alpha, the rate of the inner steps (Finn et al. 2017, eq. 1), on the mean loss of the "
            "support images; the authors' code sums over classes, so its 0.4 is 2.0 here",
        ] = 0.1,
        inner_steps: Annotated[int, "inner steps in training"] = 5,
        test_steps: Annotated[int | None, "inner steps at test; none: as in training"] = None,
        first_order: Annotated[bool, "constant inner gradients (Finn et al. 2017, 5.2)"] = False,
        pooling: Annotated[
            Literal["mean", "flatten"], "how feature maps become a vector for the last layer"
        ] = "mean",
        lr: Annotated[float, "beta, Adam's rate for theta"] = 1e-3,
        anneal: Annotated[bool, "let beta fall to 0 along a cosine"] = False,
    ) -> None:
        super().__init__(task)
        for name, value in (("inner-steps", inner_steps), ("test-steps", test_steps)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}: it has to be at least 1.")
        if inner_lr <= 0:
            raise ConfigError(f"--inner-lr {inner_lr}: it has to be above 0.")
        self.net = Classifier(backbone, task.way, pooling)
        # Whoever freezes part of a backbone wants it as it is, in the inner loop too.
        self.frozen = {name for name, p in self.net.named_parameters() if not p.requires_grad}
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.test_steps = test_steps or inner_steps
        self.first_order, self.lr, self.anneal = first_order, lr, anneal
        self.gradient = "surrogate" if first_order else "exact"

    def check_task(self, task: Task) -> None:
        """The last layer has one output for each class of a training task."""
        if task.way != self.task.way:
            raise ConfigError(
                f"maml learns an initialization for {self.task.way} classes (--train-way) and "
                f"cannot be evaluated with --way {task.way}; give the two the same number."
            )

    def discriminate(self, theta: Weights, images: Tensor) -> tuple[Tensor, Tensor]:
        """f_theta: logits [T, M, outputs] and features [T, M, d] of images [T, M, C, H, W]."""
        both = per_task(self.net, images, theta)
        outputs = self.net.head.out_features
        return both[..., :outputs], both[..., outputs:]

    def adapt(self, support: Support, inner_loss: InnerLoss | None = None) -> Weights:
        """Algorithm 2, lines 5 to 7: theta'_i for each task i, by steps on its support set.

        Parameters that came frozen with the backbone are not in theta.

        Arguments:
            support: see :class:`fewshot_bench.episode.Support`.
            inner_loss: what the steps descend; None: the cross-entropy of the support set.
        """
        if inner_loss is None:
            images, labels = support.labeled()

            def inner_loss(theta: Weights) -> Tensor:
                return cross_entropy(self.discriminate(theta, images)[0], labels)

        # At test nothing is differentiated through the inner loop: no graph of it is kept.
        second_order = self.training and not self.first_order
        weights = task_weights(self.net, len(support.key))
        theta = {name: weight for name, weight in weights.items() if name not in self.frozen}
        for _ in range(self.inner_steps if self.training else self.test_steps):
            # Tasks are independent, so the gradient of the sum holds that of each (eq. 1).
            with double_backward(second_order):
                loss = inner_loss(theta).sum()
            gradient = self._gradient(loss, theta, create_graph=second_order)
            if not second_order:
                gradient = tuple(stop(g) for g in gradient)
            theta = {
                name: weight - self.inner_lr * g
                for (name, weight), g in zip(theta.items(), gradient, strict=True)
            }
        return theta if self.training else {name: w.detach() for name, w in theta.items()}

    def _gradient(self, loss: Tensor, theta: Weights, *, create_graph: bool) -> tuple[Tensor, ...]:
        """That of the inner loss by each of the weights.

        Raises:
            PluginError: the loss does not depend on one of them.
        """
        found = torch.autograd.grad(
            loss, list(theta.values()), create_graph=create_graph, allow_unused=True
        )
        unused = [name for name, g in zip(theta, found, strict=True) if g is None]
        if unused:
            raise PluginError(
                f"{title_of(self)}: the inner loss does not depend on '{unused[0]}' ({len(unused)} "
                "such weights), which the inner steps are to change. Does the backbone run under "
                "torch.no_grad() or detach what it gives? What is not to move is frozen with "
                "requires_grad_(False) or fewshot_bench.nn.Frozen."
            )
        return found

    def predict(self, state: Weights, query: Tensor) -> Tensor:
        """f_theta' of the queries; the default losses() then are eq. 2's."""
        return self.discriminate(state, query)[0]

    def become_discriminator(self, outputs: int) -> None:
        """Give the last layer further outputs behind those of the classes; its logits have a zero
        point of their own."""
        head = self.net.head
        if outputs:
            self.net.head = nn.Linear(head.in_features, head.out_features + outputs)

    def players(self) -> dict[str, Player]:
        """Algorithm 2, line 10: Adam on theta."""
        schedule = cosine if self.anneal else None
        return {"meta": Player(trainable(self), partial(Adam, lr=self.lr), schedule=schedule)}

    @classmethod
    def preset_names(cls) -> Sequence[str]:
        return PRESETS

    @classmethod
    def presets(cls, name: str, dataset: str, task: Task) -> Mapping[str, Any] | None:
        return preset(name, dataset, task)
