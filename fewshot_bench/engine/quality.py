"""How near what a method draws is to real images, in the space in which the method sees them.

Per task, of drawn images beside as many held-out real ones of the same classes, both against the
other real queries of the task (the reference):

* precision and recall: Kynkäänniemi, Karras, Laine, Lehtinen and Aila, "Improved Precision and
  Recall Metric for Assessing Generative Models", NeurIPS 2019, eqs. 1 and 2;
* distance: to the nearest image of the reference, over that of a held-out real image. A copy of
  the reference has 0, one more real image 1 on average, what is off the manifold more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method

NEIGHBORS = 3  # k of Kynkäänniemi et al. 2019


@dataclass(frozen=True)
class Quality:
    """Each [T]; ``real_*`` are those of the held-out real images, what a perfect generator has."""

    precision: Tensor
    recall: Tensor
    distance: Tensor
    real_precision: Tensor
    real_recall: Tensor


def inside(points: Tensor, manifold: Tensor) -> Tensor:
    """Share of points [T, M, d] in a ball around any point of the manifold [T, R, d]: [T].

    A ball reaches to the k-th nearest neighbor of its center, k = 3 (fewer where there are not
    as many): eq. 1.
    """
    own = torch.cdist(manifold, manifold)
    k = min(NEIGHBORS, manifold.shape[1] - 1)
    radius = own.kthvalue(k + 1, dim=2).values  # the nearest of all is the center itself
    near = torch.cdist(points, manifold) <= radius.unsqueeze(1)
    return near.any(2).to(points.dtype).mean(1)


def nearest(points: Tensor, reference: Tensor) -> Tensor:
    """Mean distance of points [T, M, d] to the nearest of the reference [T, R, d]: [T]."""
    return torch.cdist(points, reference).amin(2).mean(1)


def held_out(episode: Episode, count: int) -> tuple[Tensor, Tensor]:
    """Positions [T, way * count] of ``count`` queries of each class, and those of the others."""
    way = episode.class_ids.shape[1]
    by_class = episode.target.argsort(dim=1, stable=True).unflatten(1, (way, -1))
    return by_class[..., :count].flatten(1), by_class[..., count:].flatten(1)


def chosen(features: Tensor, positions: Tensor) -> Tensor:
    """Rows [T, M, d] of features [T, Q, d] at positions [T, M]."""
    return features.gather(1, positions.unsqueeze(2).expand(-1, -1, features.shape[2]))


def measure(method: Method, episode: Episode, drawn: Tensor) -> Quality | None:
    """Judge images [T, way, k, C, H, W] that the method drew for these labeled tasks.

    None where there are too few queries: two a class, and a reference of two, are needed.

    Raises:
        PluginError: ``features`` gives something else than [T, M, d].
    """
    way, count = drawn.shape[1:3]
    per_class = episode.query.shape[1] // way
    count = min(count, per_class // 2)  # at least half of the queries are the reference
    if count < 1 or way * (per_class - count) < 2:
        return None
    with torch.enable_grad():
        state = method.adapt(episode.support)
    real = features_of(method, state, episode.query)
    fake = features_of(method, state, drawn[:, :, :count].flatten(1, 2))
    positions, others = held_out(episode, count)
    real_ones, reference = chosen(real, positions), chosen(real, others)
    return Quality(
        inside(fake, reference),
        inside(reference, fake),
        nearest(fake, reference) / nearest(real_ones, reference),
        inside(real_ones, reference),
        inside(reference, real_ones),
    )


def features_of(method: Method, state: object, images: Tensor) -> Tensor:
    """What the method sees of images [T, M, C, H, W]: [T, M, d]; their pixels if it does not say.

    Raises:
        PluginError: see :func:`measure`.
    """
    features = method.features(state, images)
    if features is None:
        return images.flatten(2)
    if features.ndim != 3 or features.shape[:2] != images.shape[:2]:
        raise PluginError(
            f"{type(method).__name__}.features() gave shape {tuple(features.shape)}; "
            f"[{images.shape[0]}, {images.shape[1]}, d] is wanted."
        )
    return features.detach().float()
