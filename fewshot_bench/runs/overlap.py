"""The images that took part in making a run's weights, and the test classes among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot_bench.config.options import flag
from fewshot_bench.config.schema import RunConfig
from fewshot_bench.data import overlap as overlaps
from fewshot_bench.data.overlap import NO_IMAGES, TRAINING, VALIDATION, SeenImages, unknown_images
from fewshot_bench.errors import FewshotBenchError
from fewshot_bench.results.record import RECORD, read_record
from fewshot_bench.runs.context import RunContext

# Words in the name of an option without a file that brings weights trained elsewhere.
PRETRAINED = ("weights", "pretrained")


def seen_by(context: RunContext, *, trains: bool) -> SeenImages:
    """What takes part in a run: its splits (the first if it trains) and what its init saw."""
    splits, config = context.data.splits, context.config
    seen = overlaps.seen_images(splits.train, TRAINING) if trains else NO_IMAGES
    if splits.validation is not None:
        seen += overlaps.seen_images(splits.validation, VALIDATION)
    if seen.image_shape is None:
        seen = replace(seen, image_shape=splits.test.image_shape)
    if config.init:
        seen += _seen_by_init(Path(config.init))
    for sentence in _pretrained(context):
        seen += unknown_images(sentence)
    return seen


def _pretrained(context: RunContext) -> Iterator[str]:
    """A sentence on each option of method and backbone that brings, or may bring, trained weights.

    Any file can hold weights, whatever its option is called; a name of weights shows in that.
    """
    config = context.config
    for name, value in {**config.method_options, **config.backbone_options}.items():
        if name in context.input_files:
            yield f"which classes took part in making the file of {flag(name)} is not known"
        elif value and isinstance(value, bool | str) and any(word in name for word in PRETRAINED):
            yield f"which classes trained the weights of {flag(name)} is not known"


def _seen_by_init(folder: Path) -> SeenImages:
    """What the weights of another run have seen."""
    folder = folder if folder.is_dir() else folder.parent
    record = read_record(folder) if (folder / RECORD).is_file() else None
    found = overlaps.read_seen(folder, record)
    if found is None:
        return unknown_images(f"which classes trained the weights of --init {folder} is not known")
    if record is None:
        what = f"the list of classes that trained the weights of --init {folder}"
        found += unknown_images(f"whether {what} is theirs is not known: there is no record")
    return found.of_run(folder.absolute().name)


def seen_by_run(
    context: RunContext, folder: Path, config: RunConfig, record: Mapping[str, Any]
) -> SeenImages:
    """What a finished run has seen; without ``seen.npz`` in its record, by its data."""
    found = overlaps.read_seen(folder, record)
    if found is None:
        then = context.with_config(replace(config, cache_dir=None))
        try:
            if then.load_data(download=False).splits.digest != record["dataset_digest"]:
                raise FewshotBenchError("other data")
            found = seen_by(then, trains=True)
        except (FewshotBenchError, OSError):
            found = unknown_images("which classes trained the run is not known: it has no seen.npz")
    return found.of_run(folder.absolute().name)
