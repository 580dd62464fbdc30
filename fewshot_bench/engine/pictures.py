"""What a method draws of one task, kept while it trains. Changes no number of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewshot_bench.disk import replacing
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, blame
from fewshot_bench.method import Method

FOLDER = "pictures"


class Pictures:
    """The pictures of a run: ``task.npz`` and a ``step-N.npz`` for each time it is asked.

    All images are uint8; ``task.npz`` holds ``support`` [way, shot, C, H, W] and ``class_ids``
    [way], the others what :meth:`Method.pictures` gives, by name, [way, k, C, H, W].

    Arguments:
        method: draws.
        episode: whose first task it draws.
        pixel_range: values that stand for byte 0 and byte 255.
        folder: of the run.
    """

    def __init__(
        self, method: Method, episode: Episode, pixel_range: tuple[float, float], folder: Path
    ) -> None:
        self.method, self.episode, self.pixel_range = method, episode, pixel_range
        self.folder = folder / FOLDER

    def keep(self, step: int) -> bool:
        """Draw and write; False if the method draws nothing.

        Raises:
            PluginError: the method raises, or gives something else than images.
        """
        drawn = self._drawn()
        if not drawn:
            return False
        if not (self.folder / "task.npz").exists():
            self.folder.mkdir(exist_ok=True)
            support = self.episode.support.images
            assert support is not None
            self._write(
                "task.npz",
                {
                    "support": self._bytes(support[0]),
                    "class_ids": self.episode.class_ids[0].cpu().numpy(),
                },
            )
        self._write(f"step-{step:08d}.npz", {n: self._bytes(x[0]) for n, x in drawn.items()})
        return True

    @torch.no_grad()
    def _drawn(self) -> dict[str, Tensor]:
        method, who = self.method, f"{type(self.method).__name__}.pictures()"
        was_training = method.training
        method.eval()
        try:
            with blame(who):
                drawn = dict(method.pictures(self.episode.support))
        finally:
            method.train(was_training)
        image = self.episode.query.shape[2:]
        for name, images in drawn.items():
            if images.ndim != 6 or images.shape[3:] != image:
                raise PluginError(
                    f"{who} gave '{name}' of shape {tuple(images.shape)}; "
                    f"[T, way, k, {', '.join(map(str, image))}] is wanted."
                )
        return drawn

    def _bytes(self, images: Tensor) -> npt.NDArray[np.uint8]:
        low, high = self.pixel_range
        scaled = (images.detach().float() - low) * (255 / (high - low))
        return scaled.round().clamp(0, 255).byte().cpu().numpy()

    def _write(self, name: str, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
        with replacing(self.folder / name) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
