"""Classify one's own pictures with a trained run: a folder per class is the support set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
from fewshot_bench.runs.evaluate import NOT_AGAIN
from fewshot_bench.runs.prepare import prepare
from fewshot_bench.runs.resume import load_trained, recorded_config

EXPECTED = "a folder per class with PNG or JPEG images in it"
FIXED = {**NOT_AGAIN, "metrics": (), "cache_dir": None, "sampling": f"{CORE}:closed"}


@dataclass(frozen=True)
class Predicted:
    """What a run says of some pictures."""

    classes: tuple[str, ...]
    shot: int  # pictures of a class that were used
    left_out: int  # pictures of the support set that were not
    squashed: int  # pictures of other proportions than the run's
    probabilities: Tensor  # float64 [images, way], the softmax of the logits
    transductive: bool
    notes: list[str]  # on the weights


def classify(
    run: str | Path, support: Path, images: Sequence[Path], *, mode: Resize = "antialias",
    invert: bool = False, device: str = "auto", trust_code: bool = False,
) -> Predicted:  # fmt: skip
    """Learn the classes of a folder with a run's weights, and classify pictures.

    Pictures get the size, the channels and the pixel range of the run's data set, which is read for
    that; those of other proportions are squashed. Ink and paper have to be as there, or ``invert``.

    Arguments:
        support: a folder per class.
        mode: of resizing; see :mod:`fewshot_bench.data.transforms`.
        trust_code: import a file that the run's record names.

    Raises:
        DataError, ConfigError, RecordError: a fault of the pictures, their classes or the run.
    """
    classes = _classes(support)
    shot = min(len(paths) for paths in classes.values())
    folder = Path(run)
    with only_typed((), trust_code):
        record, registry = read_record(folder), Registry.discover()
        config = recorded_config(registry, record)
        config = with_changes(config, registry, {**FIXED, "device": device})
        trained = prepare(RunContext(config, registry), trains=False)
        notes = load_trained(trained, folder, record)
    shape = trained.context.data.splits.test.image_shape
    trained.method.check_task(Task(len(classes), shot, 1, image_shape=shape))
    low, high = trained.context.pixel_range
    colors, squashed = "L" if shape[0] == 1 else "RGB", list[tuple[int, ...]]()

    def read(paths: Sequence[Path]) -> Tensor:
        pictures = [decode_image(read_image(path), str(path), colors) for path in paths]
        _, height, width = shape
        squashed.extend(p.shape for p in pictures if p.shape[1] * width != p.shape[2] * height)
        pixels = np.concatenate([resize(picture[None], shape[1:], mode) for picture in pictures])
        pixels = 255 - pixels if invert else pixels
        return torch.from_numpy(pixels).float().mul_((high - low) / 255).add_(low)

    key = torch.tensor([key_of("predict")])
    stacked = torch.stack([read(paths[:shot]) for paths in classes.values()])
    query = read(images).unsqueeze(0)
    unknown = torch.full(query.shape[:2], -1)
    ids, learned = torch.arange(len(classes))[None], Support(stacked.unsqueeze(0), None, key)
    episode = Episode(learned, query, unknown, ids, key).to(trained.context.device)
    trained.method.eval()
    with trained.executor.running():
        logits = trained.executor.predict(episode).logits[0].double().cpu()
    left_out = sum(len(paths) for paths in classes.values()) - shot * len(classes)
    answer = logits.softmax(-1), trained.method.transductive, notes
    return Predicted(tuple(classes), shot, left_out, len(squashed), *answer)


def _classes(support: Path) -> dict[str, list[Path]]:
    """The pictures of each class, sorted."""
    if not support.is_dir():
        raise DataError(f"there is no folder '{support}'; expected {EXPECTED}.")
    found = {}
    folders = [f for f in support.iterdir() if f.is_dir() and not f.name.startswith(".")]
    for folder in sorted(folders):
        images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise DataError(f"'{folder}' holds no PNG or JPEG image; expected {EXPECTED}.")
        found[folder.name] = sorted(images)
    if len(found) < 2:
        what = f"'{support}' has {len(found)} folders with images in it"
        raise DataError(f"{what}; expected {EXPECTED}, two classes or more.")
    return found
