"""Images that a method generates, saved and measured while it trains. Changes no number of the run.

Per task, generated images beside as many held-out real ones of the same classes, both against the
other real queries of the task (the reference), in the space in which the method sees them:

* precision and recall: Kynkäänniemi, Karras, Laine, Lehtinen and Aila, "Improved Precision and
  Recall Metric for Assessing Generative Models", NeurIPS 2019, eqs. 1 and 2;
* distance: to the nearest image of the reference, over that of a held-out real image. A copy of
  the reference has 0, one more real image 1 on average, what is off the manifold more.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.method import Method, title_of
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.utils.files import replacing

logger = logging.getLogger(__name__)

FOLDER, QUALITY = "pictures", "quality.jsonl"
TASKS = 24  # number of tasks that are measured; the first is saved
NEIGHBORS = 3  # k of Kynkäänniemi et al. 2019


class Pictures:
    """The pictures of a run: ``task.npz`` and a ``step-N.npz`` for each call of :meth:`save`.

    All images are uint8; ``task.npz`` holds ``support`` [way, shot, C, H, W] and ``class_ids``
    [way], the others what :meth:`Method.pictures` gives, by name, [way, k, C, H, W].
    ``quality.jsonl`` has a line for each time and name, with lists of one number per task: the
    fields of :class:`Quality`. All tasks of ``episode`` are measured, the first is saved;
    ``pixel_range``: values that stand for byte 0 and byte 255; ``folder``: of the run.
    """

    def __init__(
        self, method: Method, episode: Episode, pixel_range: tuple[float, float], folder: Path
    ) -> None:
        self.method, self.episode, self.pixel_range = method, episode, pixel_range
        self.folder = folder / FOLDER
        self.quality: dict[tuple[int, str], str] = {}  # lines of the file, by step and name
        if (self.folder / QUALITY).is_file():  # of a run that is resumed
            for line in (self.folder / QUALITY).read_text("utf-8").splitlines():
                one = json.loads(line)
                self.quality[one["step"], one["name"]] = line

    def save(self, step: int) -> bool:
        """Generate, measure and write; False if the method generates nothing.

        PluginError if it raises, or gives something else than images or features.
        """
        generated, quality = self._generated()
        if not generated:
            return False
        if not (self.folder / "task.npz").exists():
            self.folder.mkdir(exist_ok=True)
            support = self._bytes(self.episode.support.images[0])
            class_ids = self.episode.class_ids[0].cpu().numpy()
            self._write("task.npz", support=support, class_ids=class_ids)
        self._write(f"step-{step:08d}.npz", **{n: self._bytes(x[0]) for n, x in generated.items()})
        for name, measured in quality.items():
            numbers = {n: v.tolist() for n, v in vars(measured).items()}
            # A resumed run repeats the steps after its checkpoint.
            self.quality[step, name] = json.dumps({"step": step, "name": name} | numbers)
        if self.quality:
            lines = "".join(f"{line}\n" for _, line in sorted(self.quality.items()))
            with replacing(self.folder / QUALITY) as file:
                file.write(lines.encode())
        return True

    @torch.no_grad()
    def _generated(self) -> tuple[dict[str, Tensor], dict[str, Quality]]:
        method, title = self.method, title_of(self.method)
        image = self.episode.query.shape[2:]
        was_training = method.training
        method.eval()
        try:
            with plugin_errors(f"{title}.pictures()"):
                generated = dict(method.pictures(self.episode.support))
            for name, images in generated.items():
                if images.ndim != 6 or images.shape[3:] != image:
                    raise PluginError(
                        f"{title}.pictures(): expected shape [T, way, k, "
                        f"{', '.join(map(str, image))}] for '{name}', got {tuple(images.shape)}."
                    )
            with plugin_errors(f"{title}.features()"):
                measured = {n: measure(method, self.episode, x) for n, x in generated.items()}
        finally:
            method.train(was_training)
        return generated, {name: one for name, one in measured.items() if one is not None}

    def _bytes(self, images: Tensor) -> npt.NDArray[np.uint8]:
        low, high = self.pixel_range
        scaled = (images.detach().float() - low) * (255 / (high - low))
        return scaled.round().clamp(0, 255).byte().cpu().numpy()

    def _write(self, file_name: str, /, **arrays: npt.NDArray[Any]) -> None:
        with replacing(self.folder / file_name) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def start_pictures(
    method: Method, validation: EpisodeSource | None, test: EpisodeSource, folder: Path
) -> Pictures | None:
    """Save the pictures from before training; what saves further ones, None if there are none."""
    source = validation or test  # nothing is chosen by them
    count = min(TASKS, source.sampler.length or TASKS)
    pictures = Pictures(method, source.batch(range(count)), source.table.pixel_range, folder)
    if not pictures.save(0):
        logger.warning("--pictures: %s generates none", title_of(method))
        return None
    if validation is None:
        logger.info("--pictures: without validation classes, they are of test tasks")
    return pictures


@dataclass(frozen=True)
class Quality:
    """Each [T]; ``real_*`` are those of the held-out real images, what a perfect generator has."""

    precision: Tensor
    recall: Tensor
    distance: Tensor
    real_precision: Tensor
    real_recall: Tensor


def inside(points: Tensor, manifold: Tensor) -> Tensor:
    """Share of points [T, M, d] in a ball around any point of the manifold [T, R, d]: [T] (eq. 1).

    A ball reaches to the k-th nearest neighbor of its center, k = 3, or fewer.
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


def measure(method: Method, episode: Episode, generated: Tensor) -> Quality | None:
    """Judge images [T, way, k, C, H, W] that the method generated for these labeled tasks.

    None where there are too few queries: two a class, and a reference of two, are needed.
    """
    way, count = generated.shape[1:3]
    per_class = episode.query.shape[1] // way
    count = min(count, per_class // 2)  # at least half of the queries are the reference
    if count < 1 or way * (per_class - count) < 2:
        return None
    with torch.enable_grad():
        state = method.adapt(episode.support)
    real = _features_of(method, state, episode.query)
    fake = _features_of(method, state, generated[:, :, :count].flatten(1, 2))
    real_ones, reference = (
        real.gather(1, positions.unsqueeze(2).expand(-1, -1, real.shape[2]))
        for positions in held_out(episode, count)
    )
    return Quality(
        inside(fake, reference),
        inside(reference, fake),
        nearest(fake, reference) / nearest(real_ones, reference),
        inside(real_ones, reference),
        inside(reference, real_ones),
    )


def _features_of(method: Method, state: object, images: Tensor) -> Tensor:
    """What the method sees of images [T, M, C, H, W]: [T, M, d] (else PluginError), or pixels."""
    features = method.features(state, images)
    if features is None:
        return images.flatten(2)
    if features.ndim != 3 or features.shape[:2] != images.shape[:2]:
        raise PluginError(
            f"{type(method).__name__}.features(): expected shape [{images.shape[0]}, "
            f"{images.shape[1]}, d], got {tuple(features.shape)}."
        )
    return features.detach().float()
