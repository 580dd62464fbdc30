"""Embed-once evaluation: each image of a split passes the network once, not once an episode.

It needs a method that sees images through its ``embed`` alone, and features that do not depend on
the other images of a batch (normalization by running statistics). Episodes are then gathered from
a table of features. Scores are those of the direct way up to the rounding of other batch sizes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.errors import PluginError
from fewshot_bench.nn import replica, uses_batch_statistics
from fewshot_bench.sampling.base import EpisodeSource

TOLERANCE = 1e-2  # of the largest logit: other batch sizes round differently, bf16 coarsely


@dataclass
class FeatureTable:
    """What a method sees of each image of a split, in place of the images.

    Arguments:
        features: [images, ...].
    """

    features: Tensor

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.features.device

    def gather(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """Features at these positions: [*indices.shape, ...]."""
        chosen = self.features.index_select(0, indices.flatten())
        return chosen.unflatten(0, indices.shape)


def pays(lowering: Eager, source: EpisodeSource, episodes: int) -> bool:
    """Whether the method allows it, and so many episodes hold more images than there are."""
    method, task = lowering.method, source.sampler.task
    if not method.embeds or uses_batch_statistics(method):
        return False
    images = task.way * (task.shot + task.query)
    return episodes * images > len(source.table.images)


def embed_once(lowering: Eager, source: EpisodeSource) -> tuple[Eager, EpisodeSource]:
    """The method without its network, and episodes of features.

    Arguments:
        lowering: in evaluation mode, inside its ``running()`` block.
        source: of episodes of images.
    """
    table = source.table
    features = lowering.embed(
        lambda positions: table.gather(positions, source.dtype), len(table.images), table.device
    )
    method = replica(lowering.method)
    # An attribute of the object hides the method of its class.
    object.__setattr__(method, "embed", lambda features: features)
    of_features = copy.copy(source)
    of_features.table = FeatureTable(features)  # type: ignore[assignment]
    return Eager(method, precision=lowering.precision), of_features


def check_same(direct: Tensor, embedded: Tensor, name: str) -> None:
    """Hold logits of both ways against each other.

    Raises:
        PluginError: they differ by more than rounding.
    """
    off = float((direct - embedded).abs().max())
    if not off <= TOLERANCE * float(direct.abs().max().clamp_min(1)):
        raise PluginError(
            f"{name} declares embeds = True, but its predictions differ by {off:.3g} when every "
            "image is embedded once: adapt() or predict() sees images without embed()."
        )
