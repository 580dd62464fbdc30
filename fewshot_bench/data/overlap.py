"""Test classes that took part in training or validation, found by the content of their images.

Names prove nothing: a class may be renamed, copied to another folder or come with another data set.
So a run stores a number of each image that trained or chose its weights (``seen.npz``), and every
evaluation of these weights looks its test images up. See :mod:`fewshot_bench.data.fingerprints`
for what counts as the same image, and for what cannot be found. Where most names are equal and the
content is other, a note asks (:mod:`fewshot_bench.data.same_names`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_bench.data.fingerprints import Fingerprints, fingerprints
from fewshot_bench.data.images import LabeledImages
from fewshot_bench.data.same_names import same_names
from fewshot_bench.errors import ConfigError, DataError, RecordError
from fewshot_bench.utils.files import replacing
from fewshot_bench.utils.inputs import content_of

FILE = "seen.npz"
TRAINING, VALIDATION = "training", "validation"
# A class took part if more of its images did than this share, or this many. Below that it is a
# coincidence: the straight line and the circle are characters of several real alphabets.
SHARE, MANY = 0.1, 10
MOST_NAMES = 5  # in a message
MOST_BYTES = 2**30  # of a list; ImageNet's 1.3 million images take some 20 million


@dataclass(frozen=True)
class Seen:
    """The images that took part in making some weights.

    Arguments:
        images: uint64 [M], the fingerprint of each, sorted; of several alike the first.
        label: int64 [M], which of the labels below each belongs to.
        names: of each label the class's name.
        parts: of each label ``training`` or ``validation``.
        runs: of each label the id of the run in which it took part; empty: the run at hand.
        image_shape: (C, H, W) of the images; None where there are none.
        unknown: sentences on what took part and cannot be known.
    """

    images: Fingerprints
    label: npt.NDArray[np.int64]
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    unknown: tuple[str, ...] = ()

    def of_run(self, run: str) -> Seen:
        """The same, as another run sees it: what took part in the run at hand did so in this."""
        return replace(self, runs=tuple(one or run for one in self.runs))

    def __add__(self, other: Seen) -> Seen:
        """Both; an image that is in both is told as the first has it."""
        images = np.concatenate([self.images, other.images])
        label = np.concatenate([self.label, other.label + len(self.names)])
        unique, first = np.unique(images, return_index=True)
        return Seen(
            unique,
            label[first],
            self.names + other.names,
            self.parts + other.parts,
            self.runs + other.runs,
            self.image_shape or other.image_shape,
            tuple(dict.fromkeys(self.unknown + other.unknown)),
        )


NOTHING = Seen(np.empty(0, np.uint64), np.empty(0, np.int64))


def seen_in(images: LabeledImages, part: str) -> Seen:
    """What takes part if these images do.

    Arguments:
        images: of a split.
        part: ``training`` or ``validation``.
    """
    classes = len(images.counts)
    own = Seen(
        fingerprints(images.images),
        np.repeat(np.arange(classes), images.counts),
        images.class_names,
        (part,) * classes,
        ("",) * classes,
        images.image_shape,
    )
    return own + NOTHING  # sorted, each once


def unknown(sentence: str) -> Seen:
    """Nothing that can be looked up, and a sentence on why."""
    return replace(NOTHING, unknown=(sentence,))


def overlap_of(
    test: LabeledImages, seen: Seen, split: str = "test", *, parts: Sequence[str] | None = None
) -> dict[str, Any]:
    """Which classes of a split took part, as the record's ``overlap`` holds it.

    Arguments:
        test: the images of the split.
        seen: what took part.
        split: what it is called.
        parts: only these parts of it; default: all.
    """
    label = _labels(fingerprints(test.images), seen, parts)
    if len(seen.images):
        # A loader may show ink as light on dark where the files have it dark on light.
        negatives = _labels(fingerprints(test.images, inverted=True), seen, parts)
        label = np.where(label < 0, negatives, label)
    found = label >= 0
    classes = []
    ends = np.cumsum(test.counts)
    for name, count, end in zip(test.class_names, test.counts.tolist(), ends, strict=True):
        own = slice(end - count, end)
        images = int(found[own].sum())
        if images > SHARE * count or images >= MANY:
            most = int(np.bincount(label[own][found[own]]).argmax())
            classes.append(
                {
                    "class": name,
                    "as": seen.names[most],
                    "part": seen.parts[most],
                    "run": seen.runs[most] or None,
                    "images": images,
                    "of": count,
                }
            )
    return {
        "split": split,
        "classes": len(classes),
        "of": len(test.counts),
        "images": int(found.sum()),
        TRAINING: sum(one["part"] == TRAINING for one in classes),
        VALIDATION: sum(one["part"] == VALIDATION for one in classes),
        "found": classes,
        "same_names": _same_names(test, seen, parts, {one["class"] for one in classes}),
        "unknown": list(seen.unknown),
    }


def _same_names(
    test: LabeledImages, seen: Seen, parts: Sequence[str] | None, found: set[str]
) -> list[dict[str, Any]]:
    """Classes of a split that bear names of ones that took part, while their content is other."""
    labels = zip(seen.names, seen.parts, strict=True)
    part_of = {name: part for name, part in labels if parts is None or part in parts}
    alike = same_names([name for name in test.class_names if name not in found], part_of)
    return [{"class": name, "as": other, "part": part_of[other]} for name, other in alike.items()]


def _labels(
    numbers: Fingerprints, seen: Seen, parts: Sequence[str] | None
) -> npt.NDArray[np.int64]:
    """Which label of ``seen`` each image has, [M]; -1: it took no part, or in none of ``parts``."""
    if not len(seen.images):
        return np.full(len(numbers), -1)
    at = np.minimum(np.searchsorted(seen.images, numbers), len(seen.images) - 1)
    label = np.where(seen.images[at] == numbers, seen.label[at], -1)
    if parts is not None:
        counts = np.array([part in parts for part in seen.parts], bool)
        label[(label >= 0) & ~counts[label]] = -1
    return label


def refuse(overlap: dict[str, Any]) -> None:
    """Raise what a user has to know of classes that took part.

    Raises:
        DataError: there is one.
    """
    if not overlap["classes"]:
        return
    raise DataError(
        f"{words(overlap)}: the result would not be one on new classes. Give another split "
        "or other data, or --allow-overlap, which marks the result wherever it is shown."
    )


def words(overlap: dict[str, Any]) -> str:
    """``2 of the 20 test classes took part in training: 'a', 'b' (as 'c', 3 of 20 images)``."""
    parts = [part for part in (TRAINING, VALIDATION) if overlap[part]]
    runs = sorted({one["run"] for one in overlap["found"] if one["run"]})
    of_runs = f" of {', '.join(map(repr, runs))}" if runs else ""
    names = [_named(one) for one in overlap["found"][:MOST_NAMES]]
    more = overlap["classes"] - len(names)
    names += [f"{more} more"] if more else []
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    return (
        f"{overlap['classes']} of the {overlap['of']} {overlap['split']} classes took part in "
        f"{' and '.join(parts)}{of_runs}, by the content of their images: {listed}"
    )


def _named(one: dict[str, Any]) -> str:
    said = [f"as '{one['as']}'"] if one["as"] != one["class"] else []
    if one["images"] < one["of"]:
        said.append(f"{one['images']} of {one['of']} images")
    return f"'{one['class']}'" + (f" ({', '.join(said)})" if said else "")


def notes(overlap: dict[str, Any]) -> list[str]:
    """Sentences for the record's notes: classes, single images, names, and what is not known."""
    told = [words(overlap)] if overlap["classes"] else []
    single = overlap["images"] - sum(one["images"] for one in overlap["found"])
    if single:
        told.append(
            f"{single} single image{'s' * (single != 1)} of the {overlap['split']} split "
            f"{'are' if single != 1 else 'is'} identical to one of training or validation "
            f"(under {SHARE:.0%} of a class)"
        )
    if overlap["same_names"]:
        told.append(_names_words(overlap))
    return told + overlap["unknown"]


def _names_words(overlap: dict[str, Any]) -> str:
    """What a reader should ask about classes whose names took part and whose content did not."""
    alike = overlap["same_names"]
    parts = [part for part in (TRAINING, VALIDATION) if any(one["part"] == part for one in alike)]
    bear = "bear names" if len(alike) > 1 else "bears the name"
    return (
        f"{len(alike)} of the {overlap['of']} {overlap['split']} classes {bear} of classes that "
        f"took part in {' and '.join(parts)} (of other content), such as '{alike[0]['class']}': "
        "are these other copies of the same images?"
    )


def check_shape(shape: tuple[int, int, int], seen: Seen, dataset: str) -> None:
    """Hold images to be tested against those that the weights were trained on.

    Raises:
        ConfigError: they are of another size or number of channels.
    """
    if seen.image_shape is not None and shape != seen.image_shape:
        found, wanted = ("x".join(map(str, one)) for one in (shape, seen.image_shape))
        raise ConfigError(
            f"--dataset {dataset} gives images of {found} (channels x height x width); the run was "
            f"trained on {wanted}. Give the options of the data set that make them so "
            "(--image-size, --color, ...)."
        )


def write_seen(folder: Path, seen: Seen) -> dict[str, Any]:
    """Write ``folder/seen.npz``.

    Returns:
        The record's ``seen``: ``file``, ``sha256`` and ``bytes``.

    Raises:
        ConfigError: the disk is full, or the folder cannot be written.
    """
    texts = {
        name: np.array(getattr(seen, name), dtype=str)
        for name in ("names", "parts", "runs", "unknown")
    }
    arrays: dict[str, Any] = {
        "images": seen.images,
        "label": seen.label.astype(np.int32),
        "image_shape": np.array(seen.image_shape or (0, 0, 0)),
        **texts,
    }
    try:
        with replacing(folder / FILE) as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise ConfigError(
            f"cannot write '{folder / FILE}' ({error.strerror}); give another folder with "
            "--runs-dir."
        ) from error
    content = content_of(folder / FILE)
    return {"file": FILE, "sha256": content.sha256, "bytes": content.bytes}


def read_seen(folder: Path, record: Mapping[str, Any] | None) -> Seen | None:
    """What a run's ``seen.npz`` holds; None where there is none, as of an older run.

    Arguments:
        folder: of the run.
        record: the run's; an older one does not tell which file is its own. None: there is none.

    Raises:
        RecordError: it is missing, another than the run wrote, or damaged.
    """
    path, written = folder / FILE, (record or {}).get("seen")
    if not path.is_file():
        if written is not None:
            raise RecordError(
                f"'{folder}' has no {FILE}, which lists the images that took part in its weights. "
                "Put the file back, or run it again."
            )
        return None
    if written is not None and content_of(path).sha256 != written["sha256"]:
        raise RecordError(
            f"'{path}' is not the file that the run wrote, or is damaged: its sha256 is another "
            "than in the record, and which classes trained the run cannot be told. Put the file "
            "back, or run it again."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"it unpacks to over {MOST_BYTES} bytes")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
        texts = {
            name: tuple(map(str, arrays[name].tolist()))
            for name in ("names", "parts", "runs", "unknown")
        }
        channels, height, width = map(int, arrays["image_shape"])
        images = arrays["images"].astype(np.uint64)
        label = arrays["label"].astype(np.int64)
        sizes = {len(texts[name]) for name in ("names", "parts", "runs")}
        fits = images.ndim == 1 and images.shape == label.shape and len(sizes) == 1
        if not fits or (len(label) and not 0 <= label.min() <= label.max() < sizes.pop()):
            raise ValueError("its parts do not belong together")
        if (images[1:] <= images[:-1]).any():
            raise ValueError("its numbers are not sorted")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise RecordError(
            f"'{path}' is damaged ({error}): which classes trained the run cannot be told. "
            "Run it again."
        ) from error
    return Seen(
        images, label, texts["names"], texts["parts"], texts["runs"],
        (channels, height, width) if channels else None, texts["unknown"],
    )  # fmt: skip
