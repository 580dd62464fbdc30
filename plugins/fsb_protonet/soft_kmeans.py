"""Semi-supervised prototypical networks.

Ren, Triantafillou, Ravi, Snell, Swersky, Tenenbaum, Larochelle and Zemel, "Meta-Learning for
Semi-Supervised Few-Shot Classification", ICLR 2018. The prototypes of a ProtoNet are the start of
a soft k-means of the task, which takes one step with the task's unlabeled images.

Symbols as in the paper: ``h`` the embedding, ``p`` prototypes, ``z`` assignments of unlabeled
images, ``m`` masks; a tilde (``_u``, here) marks what belongs to unlabeled images, and refined
prototypes are ``p_r``.

The authors' code differs from the paper's equations. The equations are the default, because they
are what is described and cited; ``--follow code`` does what led to the published figures. The
README has the differences side by side.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from fewshot_bench import Episode, Losses, Player, Support, Task
from fewshot_bench.method import State, accuracy, cross_entropy, trainable
from fewshot_bench.nn import stop
from fsb_protonet.protonet import ProtoNet

HIDDEN = 20  # of the network that predicts masks, as in the authors' code
FIRST_RADIUS = 100.0  # of the cluster of distractors, as in the authors' code
EMPTY_RADIUS = 1e5  # its radius there in a task without unlabeled images


class SoftKMeans(ProtoNet):
    """ProtoNet whose prototypes are refined by unlabeled images (Ren et al. 2018).

    Without unlabeled images it is ProtoNet (but for the code's ``cluster``, whose distances are
    halved and whose training has a distractor's logit even then), so training and test may have
    different numbers of them (``--train-unlabeled``, ``--unlabeled``).
    """

    def __init__(
        self,
        task: Task,
        backbone: nn.Module,
        *,
        distractors_are: Annotated[
            Literal["ignored", "cluster", "masked"],
            "unlabeled images of other classes: nothing of their own (section 3.1.1), a cluster "
            "at the origin (3.1.2), or masked by their distance (3.1.3)",
        ] = "cluster",
        follow: Annotated[
            Literal["paper", "code"],
            "the equations as printed, or what the authors' code does in their place: assignments "
            "without a gradient (3.1.1), halved distances, a distractors' center that moves, and "
            "its logit of queries (3.1.2), the mask applied twice (3.1.3)",
        ] = "paper",
        **options: Any,
    ) -> None:
        super().__init__(task, backbone, **options)
        self.distractors_are, self.as_code = distractors_are, follow == "code"
        self.code_cluster = self.as_code and distractors_are == "cluster"
        # Of a squared distance in the cluster's densities; the other variants have none.
        self.shrink = 0.5 if self.code_cluster else 1.0
        if self.as_code and distractors_are == "ignored":
            self.gradient = "surrogate"
        if distractors_are == "cluster":
            self.log_radius = nn.Parameter(torch.tensor(math.log(FIRST_RADIUS)))
        if distractors_are == "masked":
            last = nn.Linear(HIDDEN, 2)
            # The statistics change the masks of an untrained network a little only.
            nn.init.normal_(last.weight, std=0.01)
            self.mask = nn.Sequential(nn.Linear(5, HIDDEN), nn.Tanh(), last)
            self.gradient = "surrogate"

    def adapt(self, support: Support) -> State:
        """p_r [T, way, d]: the step of soft k-means from the prototypes p.

        In the code's cluster variant [T, way + 1, d]: the last one is the distractors' center,
        which moves from the origin to the mean of the unlabeled images, weighted by z.
        """
        p = super().adapt(support)
        origin = torch.zeros_like(p[:, :1])
        if support.unlabeled is None:
            return torch.cat([p, origin], dim=1) if self.code_cluster else p
        h_u = self.embedded(support.unlabeled)
        d_u = self.distances(h_u, p)
        if self.distractors_are == "cluster":
            z_u, z_0 = self.beside_distractors(h_u, d_u)
        else:
            z_u = torch.softmax(-d_u, dim=-1)
        if self.distractors_are == "masked":
            m = self.masks(d_u)
            z_u = z_u * m.square() if self.as_code else z_u * m
        if self.distractors_are == "ignored" and self.as_code:
            z_u = stop(z_u)
        p_r = refined(p, support.images.shape[2], h_u, z_u)
        return torch.cat([p_r, refined(origin, 0, h_u, z_0)], dim=1) if self.code_cluster else p_r

    def beside_distractors(self, h_u: Tensor, d_u: Tensor) -> tuple[Tensor, Tensor]:
        """z of the classes [T, U, way] and of one more cluster [T, U, 1].

        z_jc is proportional to exp(-d(h_j, p_c) / r_c^2 - A(r_c)), A(r) = log(2 pi) / 2 + log r,
        with r = 1 for the classes, and for the distractors p = 0 and r learned.
        """
        d_0 = h_u.square().sum(-1, keepdim=True)
        z = torch.softmax(self.densities(d_u, d_0, self.log_radius), dim=-1)
        return z[..., :-1], z[..., -1:]

    def densities(self, d: Tensor, d_0: Tensor, log_r: Tensor) -> Tensor:
        """Logits of the classes, then of the distractors, without the terms that all share.

        Arguments:
            d: [T, M, way], squared distances from the prototypes.
            d_0: [T, M, 1], from the distractors' center.
            log_r: logarithm of the distractors' radius.

        Returns:
            [T, M, way + 1].
        """
        of_distractors = -d_0 * (-2 * log_r).exp()
        return torch.cat([-self.shrink * d, self.shrink * of_distractors - log_r], dim=-1)

    def of_classes(self, state: State) -> Tensor:
        """The classes' prototypes [T, way, d] in the state."""
        return state[:, :-1] if self.code_cluster else state

    def predict(self, state: State, query: Tensor) -> Tensor:
        """By distance alone, as in a ProtoNet."""
        return self.shrink * super().predict(self.of_classes(state), query)

    def losses(self, episode: Episode) -> Losses:
        """The query cross-entropy; in the code's cluster variant with the distractors' logit."""
        if not self.code_cluster:
            return super().losses(episode)
        centers, h = self.adapt(episode.support), self.embed(episode.query)
        unlabeled = episode.support.unlabeled is not None
        log_r = self.log_radius if unlabeled else h.new_full((), math.log(EMPTY_RADIUS))
        d = self.distances(h, centers)
        logits = self.densities(d[..., :-1], d[..., -1:], log_r)
        right = accuracy(logits[..., :-1], episode.target)
        return Losses({"meta": cross_entropy(logits, episode.target)}, {"accuracy": right})

    def players(self) -> dict[str, Player]:
        """The player of a ProtoNet; none where the loss depends on no trainable parameter.

        That is so over a frozen backbone where training tasks have no unlabeled images, which
        radius and masks are about.
        """
        own = ("log_radius", "mask.")
        useful = [name for name in trainable(self) if not name.startswith(own)]
        return super().players() if self.task.unlabeled or useful else {}

    def masks(self, d_u: Tensor) -> Tensor:
        """m_jc = sigmoid(-gamma_c (d_jc - beta_c)) of normalized distances: [T, U, way].

        Threshold beta_c and slope gamma_c come from a network of the statistics of the distances
        to p_c, which are constants to the gradient. As in the authors' code, beta and gamma are
        exponentials.
        """
        d = d_u / d_u.mean(1, keepdim=True).clamp_min(1e-12)
        beta, gamma = self.mask(stop(statistics(d))).exp().unsqueeze(1).unbind(-1)
        return torch.sigmoid(-gamma * (d - beta))


def refined(p: Tensor, shot: int, h_u: Tensor, z_u: Tensor) -> Tensor:
    """Means of the labeled images, of weight 1, and of the unlabeled ones, of weight z.

    Arguments:
        p: [T, way, d], means of ``shot`` labeled images each.
        h_u: [T, U, d].
        z_u: [T, U, way].

    Returns:
        [T, way, d]; 0 where no image has any weight.
    """
    weight = shot + z_u.sum(1).unsqueeze(-1)
    weight = torch.where(weight == 0, 1.0, weight)
    return (shot * p + z_u.transpose(1, 2) @ h_u) / weight


def statistics(d: Tensor) -> Tensor:
    """Least, greatest, variance, skewness and excess kurtosis of each class's distances.

    Distances [T, U, way] of mean 1 over U -> [T, way, 5]. Where all are equal, the variance
    divides as 1.
    """
    centered = d - d.mean(1, keepdim=True)
    variance = centered.square().mean(1)
    spread = torch.where(variance > 0, variance, 1.0)
    skewness = centered.pow(3).mean(1) / spread.pow(1.5)
    kurtosis = centered.pow(4).mean(1) / spread.square() - 3
    return torch.stack([d.amin(1), d.amax(1), variance, skewness, kurtosis], dim=-1)
