"""Model-agnostic meta-learning.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML
2017. The initialization theta of a network is trained so that a few gradient steps on the support
set of a task lead to theta', which classifies the task's queries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from fewshot_bench import Method, Player, Support, Task
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.method import cosine, cross_entropy, title_of, trainable
from fewshot_bench.nn import double_backward, per_task, stop, task_weights
from fsb_maml.presets import PRESETS

Weights = dict[str, Tensor]  # {parameter name: [T, ...]}, a weight set for each task


class Classifier(nn.Module):
    """A backbone and a linear layer on its features: [N, C, H, W] -> [N, outputs + d].

    Logits and features are side by side, so that one pass under the weights of a task gives both.
    """

    def __init__(self, backbone: nn.Module, way: int, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        channels, height, width = backbone.out_shape  # type: ignore[misc]
        self.pooling = pooling
        self.head = nn.Linear(channels if pooling == "mean" else channels * height * width, way)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone(x)
        features = maps.mean((2, 3)) if self.pooling == "mean" else maps.flatten(1)
        return torch.cat([self.head(features), features], dim=1)


class MAML(Method):
    """MAML (Finn et al. 2017), first or second order.

    Raises:
        ConfigError: a number out of range.
    """

    capturable = True
    presets = PRESETS

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
                raise ConfigError(f"--{name}: expected an integer >= 1, got {value}.")
        if inner_lr <= 0:
            raise ConfigError(f"--inner-lr: expected a number > 0, got {inner_lr}.")
        self.net = Classifier(backbone, task.way, pooling)
        # A backbone that was frozen in part stays so in the inner loop.
        self.frozen = {name for name, p in self.net.named_parameters() if not p.requires_grad}
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.test_steps = test_steps or inner_steps
        self.first_order, self.lr, self.anneal = first_order, lr, anneal
        self.gradient = "surrogate" if first_order else "exact"

    def f(self, theta: Weights, images: Tensor) -> tuple[Tensor, Tensor]:
        """f_theta: logits [T, M, outputs] and features [T, M, d] of images [T, M, C, H, W]."""
        both = per_task(self.net, images, theta)
        outputs = self.net.head.out_features
        return both[..., :outputs], both[..., outputs:]

    def adapt(self, support: Support) -> Weights:
        """Algorithm 2, lines 5 to 7: theta'_i of each task i."""
        images, labels = support.labeled()
        return self.descend(
            lambda theta: cross_entropy(self.f(theta, images)[0], labels), len(support.key)
        )

    def descend(self, loss: Callable[[Weights], Tensor], tasks: int) -> Weights:
        """Eq. 1, repeated: theta' = theta - alpha * gradient of a loss of theta.

        Parameters that came frozen with the backbone are not in theta.

        Arguments:
            loss: from theta to the loss of each task [T].
            tasks: T.
        """
        # At test nothing differentiates through the inner loop: its graph is not needed.
        second_order = self.training and not self.first_order
        weights = task_weights(self.net, tasks)
        theta = {name: weight for name, weight in weights.items() if name not in self.frozen}
        for _ in range(self.inner_steps if self.training else self.test_steps):
            # Tasks are independent: the gradient of the sum contains the gradient of each task.
            with double_backward(second_order):
                total = loss(theta).sum()
            gradient = self._gradient(total, theta, create_graph=second_order)
            if not second_order:
                gradient = tuple(stop(g) for g in gradient)
            theta = {
                name: weight - self.inner_lr * g
                for (name, weight), g in zip(theta.items(), gradient, strict=True)
            }
        return theta if self.training else {name: w.detach() for name, w in theta.items()}

    def _gradient(self, loss: Tensor, theta: Weights, *, create_graph: bool) -> tuple[Tensor, ...]:
        """The gradient of the inner loop's loss.

        Raises:
            PluginError: the loss does not depend on a weight.
        """
        found = torch.autograd.grad(
            loss, list(theta.values()), create_graph=create_graph, allow_unused=True
        )
        unused = [name for name, g in zip(theta, found, strict=True) if g is None]
        if unused:
            raise PluginError(
                f"{title_of(self)}: the inner loss does not depend on '{unused[0]}' ({len(unused)} "
                "such weights), which the inner steps are to change. Does the backbone run under "
                "torch.no_grad() or detach its output? To freeze weights, use "
                "requires_grad_(False) or fewshot_bench.nn.Frozen."
            )
        return found

    def predict(self, state: Weights, query: Tensor) -> Tensor:
        """f_theta' of the queries; their cross-entropy, the default losses(), is eq. 2."""
        return self.f(state, query)[0]

    def features(self, state: Weights, images: Tensor) -> Tensor:
        """Features of the last layer's input, under theta'."""
        return self.f(state, images)[1]

    def players(self) -> dict[str, Player]:
        """Algorithm 2, line 10: Adam on theta."""
        schedule = cosine if self.anneal else None
        return {"meta": Player(trainable(self), partial(Adam, lr=self.lr), schedule=schedule)}

    def check_task(self, task: Task) -> None:
        """The last layer has one output for each class of a training task."""
        if task.way != self.task.way:
            raise ConfigError(
                f"maml learns an initialization for {self.task.way} classes (--train-way) and "
                f"cannot be evaluated with --way {task.way}; give both the same number."
            )
