"""The episodes of an evaluation as they are drawn, held against what their sampler declares.

A declaration may be false, and a plugin's sampler may draw what no heading expects: unequal
numbers of queries, the same image again in an "open" plan, classes of several families. So every
episode is drawn once before the evaluation, and looked at.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.errors import PluginError, blame
from fewshot_bench.sampling.base import EpisodeSource, Indices, check_indices, numbers

CHUNK = 256  # episodes at a time
SAMPLINGS = ("closed", "open")
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """E episodes.

    Arguments:
        digest: hex sha256 of their classes, images and targets, in order.
        class_ids: [E, way].
        support, query, unlabeled: images of each class [E, way].
        distractors: unlabeled images of other classes [E].
    """

    digest: str
    class_ids: Counts
    support: Counts
    query: Counts
    unlabeled: Counts
    distractors: Counts

    def counts(self) -> dict[str, list[int]]:
        """The least and the most images of a class in an episode, part by part."""
        return {
            name: [int(values.min()), int(values.max())]
            for name in ("support", "query", "unlabeled")
            for values in (getattr(self, name),)
        }


def draw(source: EpisodeSource, episodes: int, title: str, chunk: int = CHUNK) -> Drawn:
    """Draw the first episodes and look at them.

    Arguments:
        source: of the evaluation.
        episodes: how many.
        title: how a message names the sampler.
        chunk: episodes at a time; does not change a number.

    Raises:
        PluginError: an episode is none, or not what the sampler declares.
    """
    sampler, table = source.sampler, source.table
    if sampler.sampling not in SAMPLINGS:
        raise PluginError(
            f"{title}: sampling = {sampler.sampling!r}; it is one of {', '.join(SAMPLINGS)}."
        )
    sha = hashlib.sha256()
    parts: dict[str, list[Tensor]] = {}
    used = torch.zeros(len(table.images), dtype=torch.int64, device=table.device)
    for start in range(0, episodes, chunk):
        ids = range(start, min(start + chunk, episodes))
        sampler.require(ids)
        with blame(title):
            indices = sampler(numbers(ids, table.device))
        _check(indices, source, title)
        sha.update(indices.rows().cpu().numpy().astype("<i8").tobytes())
        for name, values in _counts(indices, table).items():
            parts.setdefault(name, []).append(values)
        if sampler.sampling == "open":
            places = _drawings(indices.images().flatten(), table)
            used.index_add_(0, places, torch.ones_like(places))
    if bool((used > 1).any()):
        raise PluginError(
            f'{title} declares sampling = "open", but uses {int((used > 1).sum())} images again in '
            f'{episodes} episodes; the interval would not cover new images. Declare "closed".'
        )
    whole = {name: torch.cat(values).cpu().numpy() for name, values in parts.items()}
    return Drawn(sha.hexdigest(), **whole)


def agree(drawn: Drawn, class_ids: Counts, query: Counts, title: str) -> None:
    """Hold the episodes that were evaluated against those that were looked at.

    Arguments:
        drawn: what was looked at.
        class_ids, query: [E, way], classes and their queries as they were evaluated.
        title: how a message names the sampler.

    Raises:
        PluginError: they are others.
    """
    if not np.array_equal(drawn.class_ids, class_ids) or not np.array_equal(drawn.query, query):
        raise PluginError(
            f"{title} gave other episodes when they were drawn again: an episode has to be a "
            "function of the seed and its number alone."
        )


def _check(indices: Indices, source: EpisodeSource, title: str) -> None:
    """Every episode is one: of its task's shape, its own classes, and of one family if asked."""
    sampler, table = source.sampler, source.table
    way = sampler.task.way
    if not bool(((indices.target >= 0) & (indices.target < way)).all()):
        raise PluginError(f"{title}: a target is not in [0, {way}).")
    if bool((indices.class_ids.sort(dim=1).values.diff(dim=1) == 0).any()):
        raise PluginError(f"{title} gave one class two places in an episode.")
    try:
        check_indices(indices, table, sampler.task)
    except PluginError as error:
        raise PluginError(f"{title}: {error}.") from error
    if sampler.within_family:
        group = torch.repeat_interleave(table.group_count)
        family = torch.repeat_interleave(table.family_count)[group]
        own = family[indices.class_ids]
        if bool((own != own[:, :1]).any()):
            raise PluginError(
                f"{title} draws classes of several families into one episode: it passes over "
                "--within-family."
            )


def _counts(indices: Indices, table: ClassTable) -> dict[str, Tensor]:
    """The members of :class:`Drawn` for some episodes."""
    ids = indices.class_ids
    tasks, way = ids.shape
    query = torch.zeros(tasks, way, dtype=torch.int64, device=ids.device)
    query.scatter_add_(1, indices.target, torch.ones_like(indices.target))
    unlabeled = torch.zeros_like(query)
    others = torch.zeros(tasks, dtype=torch.int64, device=ids.device)
    if indices.unlabeled is not None:
        of_image = torch.repeat_interleave(table.class_count)
        belongs = of_image[indices.unlabeled].unsqueeze(-1) == ids.unsqueeze(1)
        unlabeled = belongs.sum(1)
        others = (~belongs.any(-1)).sum(1)
    return {
        "class_ids": ids,
        "support": torch.full_like(query, indices.support.shape[2]),
        "query": query,
        "unlabeled": unlabeled,
        "distractors": others,
    }


def _drawings(images: Tensor, table: ClassTable) -> Tensor:
    """Of each image the first of those that are the same drawing, turned: an image of its group."""
    of_class = torch.repeat_interleave(table.class_count)[images]
    of_group = torch.repeat_interleave(table.group_count)[of_class]
    return table.class_start[table.group_start[of_group]] + images - table.class_start[of_class]
