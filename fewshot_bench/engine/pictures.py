"""What a method draws, kept and judged while it trains. Changes no number of the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewshot_bench.engine.quality import Quality, measure
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.method import Method, title_of
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.utils.files import replacing

FOLDER, JUDGED = "pictures", "quality.jsonl"
TASKS = 24  # so many are judged; the first is shown


class Pictures:
    """The pictures of a run: ``task.npz`` and a ``step-N.npz`` for each time it is asked.

    All images are uint8; ``task.npz`` holds ``support`` [way, shot, C, H, W] and ``class_ids``
    [way], the others what :meth:`Method.pictures` gives, by name, [way, k, C, H, W].
    ``quality.jsonl`` has a line for each time and name, with lists of one number per task: the
    fields of :class:`fewshot_bench.engine.quality.Quality`.

    Arguments:
        method: draws.
        episode: tasks that it draws; all are judged, the first is kept.
        pixel_range: values that stand for byte 0 and byte 255.
        folder: of the run.
    """

    def __init__(
        self, method: Method, episode: Episode, pixel_range: tuple[float, float], folder: Path
    ) -> None:
        self.method, self.episode, self.pixel_range = method, episode, pixel_range
        self.folder = folder / FOLDER
        self.judged: dict[tuple[int, str], str] = {}  # lines of the file, by step and name
        if (self.folder / JUDGED).is_file():  # of a run that is taken up again
            for line in (self.folder / JUDGED).read_text("utf-8").splitlines():
                one = json.loads(line)
                self.judged[one["step"], one["name"]] = line

    def keep(self, step: int) -> bool:
        """Draw, judge and write; False if the method draws nothing.

        Raises:
            PluginError: the method raises, or gives something else than images or features.
        """
        drawn, quality = self._drawn()
        if not drawn:
            return False
        if not (self.folder / "task.npz").exists():
            self.folder.mkdir(exist_ok=True)
            support = self.episode.support.images
            self._write(
                "task.npz",
                {
                    "support": self._bytes(support[0]),
                    "class_ids": self.episode.class_ids[0].cpu().numpy(),
                },
            )
        self._write(f"step-{step:08d}.npz", {n: self._bytes(x[0]) for n, x in drawn.items()})
        for name, judged in quality.items():
            numbers = {n: v.tolist() for n, v in vars(judged).items()}
            # A run that goes on from a checkpoint comes by the same step again.
            self.judged[step, name] = json.dumps({"step": step, "name": name} | numbers)
        if self.judged:
            lines = "".join(f"{line}\n" for _, line in sorted(self.judged.items()))
            with replacing(self.folder / JUDGED) as file:
                file.write(lines.encode())
        return True

    @torch.no_grad()
    def _drawn(self) -> tuple[dict[str, Tensor], dict[str, Quality]]:
        method, who = self.method, title_of(self.method)
        was_training = method.training
        method.eval()
        try:
            with plugin_errors(f"{who}.pictures()"):
                drawn = dict(method.pictures(self.episode.support))
            self._check(drawn)
            with plugin_errors(f"{who}.features()"):
                judged = {n: measure(method, self.episode, x) for n, x in drawn.items()}
        finally:
            method.train(was_training)
        return drawn, {name: one for name, one in judged.items() if one is not None}

    def _check(self, drawn: Mapping[str, Tensor]) -> None:
        image = self.episode.query.shape[2:]
        for name, images in drawn.items():
            if images.ndim != 6 or images.shape[3:] != image:
                raise PluginError(
                    f"{title_of(self.method)}.pictures() gave '{name}' of shape "
                    f"{tuple(images.shape)}; [T, way, k, {', '.join(map(str, image))}] is wanted."
                )

    def _bytes(self, images: Tensor) -> npt.NDArray[np.uint8]:
        low, high = self.pixel_range
        scaled = (images.detach().float() - low) * (255 / (high - low))
        return scaled.round().clamp(0, 255).byte().cpu().numpy()

    def _write(self, name: str, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
        with replacing(self.folder / name) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def begin(
    method: Method,
    validation: EpisodeSource | None,
    test: EpisodeSource,
    folder: Path,
    tell: Callable[[str], None],
) -> Pictures | None:
    """Keep the pictures from before training; what keeps further ones, None if none are drawn.

    Arguments:
        validation: where the tasks come from; ``test`` without it: nothing is chosen by them.
        folder: of the run.
        tell: takes a line for the user.
    """
    source = validation or test
    count = min(TASKS, source.sampler.length or TASKS)
    pictures = Pictures(method, source.batch(range(count)), source.table.pixel_range, folder)
    if not pictures.keep(0):
        tell(f"--pictures: {title_of(method)} draws none")
        return None
    if validation is None:
        tell("--pictures: without validation classes, they are of test tasks")
    return pictures
