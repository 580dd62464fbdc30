"""Which classes took part in making a run's weights, and whether some of them are tested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot_bench.runs.build import load_data
from fewshot_bench.config.resolve import RunConfig
from fewshot_bench.data.images import LabeledImages, Splits
from fewshot_bench.data.overlap import (
    NOTHING,
    TRAINING,
    VALIDATION,
    Seen,
    overlap_of,
    read_seen,
    refuse,
    seen_in,
    unknown,
)
from fewshot_bench.errors import FewshotBenchError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.config.names import flag as option_flag
from fewshot_bench.results.record.io import FILE as RECORD
from fewshot_bench.results.record.io import read_record
from fewshot_bench.runs.inputs import file_options

# Words in the name of an option without a file that brings weights trained elsewhere.
PRETRAINED = ("weights", "pretrained")


def seen_by(config: RunConfig, registry: Registry, splits: Splits, *, trains: bool) -> Seen:
    """What takes part in a run: its training and validation splits, and what its init has seen.

    Arguments:
        config: of the run.
        registry: what is installed.
        splits: its data.
        trains: whether anything is trained; if not, the training split takes no part.
    """
    seen = seen_in(splits.train, TRAINING) if trains else NOTHING
    if splits.validation is not None:
        seen += seen_in(splits.validation, VALIDATION)
    if seen.image_shape is None:
        seen = replace(seen, image_shape=splits.test.image_shape)
    if config.init:
        seen += seen_by_init(Path(config.init))
    for sentence in _brought(config, registry):
        seen += unknown(sentence)
    return seen


def _brought(config: RunConfig, registry: Registry) -> Iterator[str]:
    """A sentence on each option of method and backbone that brings what others trained, or may.

    Any file can hold weights, whatever its option is called; a word can only be told by that.
    """
    files = file_options(config, registry)
    for name, value in {**config.method_options, **config.backbone_options}.items():
        flag = option_flag(name)
        if name in files:
            yield f"which classes took part in making the file of {flag} is not known"
        elif value and isinstance(value, bool | str) and any(word in name for word in PRETRAINED):
            yield f"which classes trained the weights of {flag} is not known"


def seen_by_init(folder: Path) -> Seen:
    """What the weights of another run have seen.

    Raises:
        RecordError: its ``seen.npz`` is damaged, or is not the one that the run there wrote.
    """
    folder = folder if folder.is_dir() else folder.parent
    record = read_record(folder) if (folder / RECORD).is_file() else None
    found = read_seen(folder, record)
    if found is None:
        return unknown(f"which classes trained the weights of --init {folder} is not known")
    if record is None:
        found += unknown(
            f"whether the list of what trained the weights of --init {folder} is theirs is not "
            "known: there is no record"
        )
    return found.of_run(folder.absolute().name)


def seen_by_run(
    folder: Path, config: RunConfig, registry: Registry, record: Mapping[str, Any]
) -> Seen:
    """What a finished run has seen; of an older one without ``seen.npz``, by its data.

    Arguments:
        folder: of the run.
        config: of the run, as its record has it.
        registry: what is installed.
        record: of the run.

    Raises:
        RecordError: its ``seen.npz`` is missing, damaged, or not the one that it wrote.
    """
    found = read_seen(folder, record)
    if found is None:
        try:
            splits = load_data(replace(config, cache_dir=None), registry, download=False).splits
            if splits.digest != record["dataset_digest"]:
                raise FewshotBenchError("other data")
            found = seen_by(config, registry, splits, trains=True)
        except (FewshotBenchError, OSError):
            found = unknown("which classes trained the run is not known: it has no seen.npz")
    return found.of_run(folder.absolute().name)


def checked(test: LabeledImages, seen: Seen, split: str, *, allowed: bool) -> dict[str, Any]:
    """The record's ``overlap`` for a split.

    Arguments:
        test: the split that is evaluated.
        seen: what took part.
        split: ``test`` or ``validation``; the validation split may have chosen the weights.
        allowed: whether classes that took part may be evaluated.

    Raises:
        DataError: there are some, and they may not.
    """
    overlap = overlap_of(test, seen, split, parts=None if split == "test" else (TRAINING,))
    if not allowed:
        refuse(overlap)
    return overlap
