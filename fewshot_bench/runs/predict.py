"""Classify one's own pictures with a trained run: a folder per class is the support set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewshot_bench.config.resolve import with_changes
from fewshot_bench.data.decode import IMAGE_SUFFIXES, decode_image, read_image
from fewshot_bench.data.transforms import Resize, resize
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.errors import DataError
from fewshot_bench.hooks.registry import CORE, Registry
from fewshot_bench.hooks.single_file import only_typed
from fewshot_bench.results.record import read_record
from fewshot_bench.rng import key_of
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import PreparedRun, prepare
from fewshot_bench.runs.resume import load_trained, recorded_config

EXPECTED = "a folder per class with PNG or JPEG images in it"


@dataclass(frozen=True)
class Predicted:
    """What a run says of some pictures.

    Arguments:
        classes: names of the support set's folders, sorted.
        shot: pictures of a class that were used.
        left_out: pictures of the support set that were not, because a class has fewer.
        squashed: pictures that had other proportions than the run's.
        probabilities: float64 [images, way], the softmax of the logits.
        transductive: whether the pictures were looked at together.
        notes: sentences on the weights that a reader has to know.
    """

    classes: tuple[str, ...]
    shot: int
    left_out: int
    squashed: int
    probabilities: Tensor
    transductive: bool
    notes: tuple[str, ...] = ()


def classify(
    run: str | Path,
    support: Path,
    images: Sequence[Path],
    *,
    mode: Resize = "antialias",
    invert: bool = False,
    device: str = "auto",
    trust_code: bool = False,
) -> Predicted:
    """Learn the classes of a folder with a run's weights, and classify pictures.

    Pictures get the size, the channels and the pixel range of the run's data set, which is read for
    that; those of other proportions are squashed. Ink and paper have to be as there.

    Arguments:
        run: the folder of a run.
        support: a folder per class.
        images: what is classified.
        mode: of resizing; see :mod:`fewshot_bench.data.transforms`.
        invert: exchange black and white.
        device: see ``fsb run --device``.
        trust_code: import a file that the run's record names.

    Raises:
        DataError: a folder or picture is missing or no picture.
        ConfigError: the method cannot learn so many classes.
        RecordError: there is no such run, or its weights are missing.
    """
    classes = _classes(support)
    shot = min(len(paths) for paths in classes.values())
    with only_typed((), trust_code):
        trained, notes = _trained(Path(run), device)
    shape = trained.context.data.splits.test.image_shape
    trained.method.check_task(Task(len(classes), shot, 1, image_shape=shape))
    low, high = trained.context.pixel_range
    squashed: list[Path] = []

    def read(paths: Sequence[Path]) -> Tensor:
        pictures = [_picture(path, shape) for path in paths]
        squashed.extend(
            path
            for path, picture in zip(paths, pictures, strict=True)
            if picture.shape[2] * shape[2] != picture.shape[3] * shape[1]
        )
        pixels = np.concatenate([resize(picture, shape[1:], mode) for picture in pictures])
        pixels = 255 - pixels if invert else pixels
        return torch.from_numpy(pixels).float().mul_((high - low) / 255).add_(low)

    key = torch.tensor([key_of("predict")])
    stacked = torch.stack([read(paths[:shot]) for paths in classes.values()])
    query = read(images).unsqueeze(0)
    unknown = torch.full(query.shape[:2], -1)
    episode = Episode(
        Support(stacked.unsqueeze(0), None, key), query, unknown,
        torch.arange(len(classes))[None], key,
    ).to(trained.context.device)  # fmt: skip
    trained.method.eval()
    with trained.executor.running():
        logits = trained.executor.predict(episode).logits[0].double().cpu()
    left_out = sum(len(paths) for paths in classes.values()) - shot * len(classes)
    probabilities, together = logits.softmax(-1), trained.method.transductive
    return Predicted(
        tuple(classes), shot, left_out, len(squashed), probabilities, together, tuple(notes)
    )


def _trained(folder: Path, device: str) -> tuple[PreparedRun, list[str]]:
    """The run with its weights, and notes on them."""
    record, registry = read_record(folder), Registry.discover()
    config = with_changes(
        recorded_config(registry, record),
        registry,
        {
            "init": None, "observers": (), "metrics": (), "profile": False, "pictures": False,
            "device": device, "cache_dir": None, "sampling": f"{CORE}:closed",
        },
    )  # fmt: skip
    run = prepare(RunContext(config, registry), trains=False)
    return run, load_trained(run, folder, record)


def _classes(support: Path) -> dict[str, list[Path]]:
    """The pictures of each class, sorted.

    Raises:
        DataError: no such folder, or a class without a picture.
    """
    if not support.is_dir():
        raise DataError(f"there is no folder '{support}'; expected {EXPECTED}.")
    found = {}
    for folder in sorted(path for path in support.iterdir() if path.is_dir()):
        if folder.name.startswith("."):
            continue
        found[folder.name] = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES
        )
        if not found[folder.name]:
            raise DataError(f"'{folder}' holds no PNG or JPEG image; expected {EXPECTED}.")
    if len(found) < 2:
        raise DataError(
            f"'{support}' has {len(found)} folders with images in it; expected {EXPECTED}, two "
            "classes or more."
        )
    return found


def _picture(path: Path, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """A picture in its own size with the run's channels, as bytes [1, C, H, W].

    Raises:
        DataError: it cannot be read, or is no picture.
    """
    return decode_image(read_image(path), str(path), "L" if shape[0] == 1 else "RGB")[None]
