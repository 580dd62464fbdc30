"""Check the episodes of an evaluation, before it, against what their sampler declares."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.sampling.base import EpisodeSource, Indices, check_indices, episode_ids

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DrawnEpisodes:
    """Digest and composition of E episodes."""

    digest: str  # hex sha256 of their classes, images and targets, in order
    class_ids: Counts  # [E, way]
    support: Counts  # number of images of each class [E, way]
    query: Counts
    unlabeled: Counts

    def counts(self) -> dict[str, list[int]]:
        """The minimum and maximum number of images of a class in an episode, for each part."""
        parts = {"support": self.support, "query": self.query, "unlabeled": self.unlabeled}
        return {name: [int(part.min()), int(part.max())] for name, part in parts.items()}


def draw_episodes(
    source: EpisodeSource, episodes: int, title: str, chunk: int = 256
) -> DrawnEpisodes:
    """Draw and check the first episodes of an evaluation, ``chunk`` at a time.

    PluginError if one is invalid, or not what the sampler with this ``title`` declares.
    """
    sampler, table = source.sampler, source.table
    if sampler.sampling not in ("closed", "open"):
        raise PluginError(
            f"{title}: expected sampling to be one of closed, open, got {sampler.sampling!r}."
        )
    sha = hashlib.sha256()
    parts: dict[str, list[Tensor]] = {}
    used = torch.zeros(len(table.images), dtype=torch.int64, device=table.device)
    for start in range(0, episodes, chunk):
        ids = range(start, min(start + chunk, episodes))
        sampler.require(ids)
        with plugin_errors(title):
            indices = sampler(episode_ids(ids, table.device))
        try:
            check_indices(indices, table, sampler.task)
        except PluginError as error:
            raise PluginError(f"{title}: {error}.") from error
        if sampler.within_family:
            group = torch.repeat_interleave(table.group_count)
            family = torch.repeat_interleave(table.family_count)[group][indices.class_ids]
            if bool((family != family[:, :1]).any()):
                raise PluginError(
                    f"{title} draws classes of several families in one episode: it ignores "
                    "--within-family."
                )
        sha.update(indices.rows().cpu().numpy().astype("<i8").tobytes())
        for name, values in _composition(indices, table).items():
            parts.setdefault(name, []).append(values)
        if sampler.sampling == "open":
            # For each image, that of its group's first class with the same drawing unrotated.
            images = indices.images().flatten()
            class_of = torch.repeat_interleave(table.class_count)[images]
            first = table.group_start[torch.repeat_interleave(table.group_count)[class_of]]
            drawings = table.class_start[first] + images - table.class_start[class_of]
            used.index_add_(0, drawings, torch.ones_like(drawings))
    if bool((used > 1).any()):
        raise PluginError(
            f'{title} declares sampling = "open", but uses {int((used > 1).sum())} images more '
            f"than once in {episodes} episodes, so the interval would not cover new images. "
            'Declare "closed".'
        )
    whole = {name: torch.cat(values).cpu().numpy() for name, values in parts.items()}
    return DrawnEpisodes(sha.hexdigest(), **whole)


def check_redrawn(drawn: DrawnEpisodes, class_ids: Counts, query: Counts, title: str) -> None:
    """Raise PluginError unless the evaluated episodes are those that were checked before.

    ``class_ids``, ``query``: [E, way], classes and numbers of their queries as evaluated.
    """
    if not np.array_equal(drawn.class_ids, class_ids) or not np.array_equal(drawn.query, query):
        raise PluginError(
            f"{title} returned different episodes when they were drawn again; an episode has to "
            "be a function of the seed and its number only."
        )


def _composition(indices: Indices, table: ClassTable) -> dict[str, Tensor]:
    """The fields of :class:`DrawnEpisodes` for some episodes."""
    ids = indices.class_ids
    query = torch.zeros_like(ids, dtype=torch.int64)
    query.scatter_add_(1, indices.target, torch.ones_like(indices.target))
    unlabeled = torch.zeros_like(query)
    if indices.unlabeled is not None:
        class_of = torch.repeat_interleave(table.class_count)[indices.unlabeled]
        unlabeled = (class_of.unsqueeze(-1) == ids.unsqueeze(1)).sum(1)
    support = torch.full_like(query, indices.support.shape[2])
    return {"class_ids": ids, "support": support, "query": query, "unlabeled": unlabeled}
