"""Find classes that took part in training or validation, by the content of their images.

A run stores a fingerprint of each image that trained or selected its weights (``seen.npz``), and
every evaluation of these weights looks its images up: names prove nothing.

A fingerprint is 64 bits of BLAKE2b over the pixels as the network gets them, after a quarter turn
that a fixed rule chooses: an image and its rotations have one. Negatives are looked up too. Copies
that were resized differently, re-encoded, mirrored, cropped or changed in a single pixel are not
found; where most class names are equal, a note asks whether they are copies.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.utils.files import replacing
from fewshot_bench.utils.inputs import content_of

SEEN_FILE = "seen.npz"
PARTS = TRAINING, VALIDATION = "training", "validation"
# A class took part if this share of its images did, or this many. Fewer are a coincidence: the
# straight line and the circle are characters of several real alphabets.
SHARE, MANY = 0.1, 10
MOST_NAMES = 5  # in a message
MOST_BYTES = 2**30  # of a list of images, unpacked; ImageNet's 1.3 million need some 20 million
_TEXTS = ("names", "parts", "runs", "unknown")

Fingerprints = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class SeenImages:
    """The images that took part in making some weights.

    Labels have a class, ``training`` or ``validation``, and the id of the run in which it took
    part; empty: the current run.
    """

    images: Fingerprints  # uint64 [M], distinct, sorted
    label: npt.NDArray[np.int64]  # [M], index of the label of each; of equal images the first one's
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None  # (C, H, W) of the images
    unknown: tuple[str, ...] = ()  # sentences on images that took part and are not known

    def __add__(self, other: SeenImages) -> SeenImages:
        """The union; an image in both has the label of the first."""
        images = np.concatenate([self.images, other.images])
        label = np.concatenate([self.label, other.label + len(self.names)])
        unique, first = np.unique(images, return_index=True)
        labels = self.names + other.names, self.parts + other.parts, self.runs + other.runs
        unknown = tuple(dict.fromkeys(self.unknown + other.unknown))
        shape = self.image_shape or other.image_shape
        return SeenImages(unique, label[first], *labels, shape, unknown)


NO_IMAGES = SeenImages(np.empty(0, np.uint64), np.empty(0, np.int64))


def seen_images(labeled: LabeledImages, part: str) -> SeenImages:
    """These images, as taking part in ``training`` or ``validation``."""
    classes = len(labeled.counts)
    prints, label = fingerprints(labeled.images), np.repeat(np.arange(classes), labeled.counts)
    parts, runs = (part,) * classes, ("",) * classes
    own = SeenImages(prints, label, labeled.class_names, parts, runs, labeled.image_shape)
    return own + NO_IMAGES  # sorted and distinct


def unknown_images(sentence: str) -> SeenImages:
    """No known images, and a sentence on why."""
    return replace(NO_IMAGES, unknown=(sentence,))


def fingerprints(images: npt.NDArray[np.uint8], *, inverted: bool = False) -> Fingerprints:
    """Fingerprints of images uint8 [M, C, H, W], uint64 [M]; ``inverted``: of their negatives.

    The probability that any two different images of a million have the same one is 3e-8. Images
    that are not square are not turned.
    """
    found = np.empty(len(images), np.uint64)
    for start in range(0, len(images), 2048):  # turned images are copies
        chunk = np.ascontiguousarray(images[start : start + 2048])
        chunk = np.invert(chunk) if inverted else chunk  # of bytes: 255 - chunk
        out, turn = found[start : start + 2048], _turns(chunk)
        for turns in np.unique(turn).tolist():
            turned = np.rot90(chunk[turn == turns], turns, axes=(2, 3))
            key = repr(turned.shape[1:]).encode()
            rows = np.ascontiguousarray(turned).reshape(len(turned), -1)
            raw = [hashlib.blake2b(row.data, digest_size=8, key=key).digest() for row in rows]
            out[turn == turns] = np.frombuffer(b"".join(raw), "<u8")
    return found


def _turns(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Quarter turns of each image, [M], that minimize a projection; sums of integers are exact."""
    count, channels, height, width = images.shape
    if height != width:
        return np.zeros(count, np.intp)
    # Some 1024 pixels decide, on a grid that quarter turns map onto itself.
    step = max(1, int(np.ceil(height * np.sqrt(channels / 1024))))
    at = np.arange((height - 1) % step // 2, height, step) if step > 1 else np.arange(height)
    at = np.union1d(at, height - 1 - at)
    grid = images[:, :, at[:, None], at].reshape(count, -1).astype(np.float64)
    # Fixed integers below 2**28, so that sums over 10**5 pixels are exact in float64.
    mixed = np.arange(1, grid.shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    weights = (mixed >> np.uint64(36)).astype(np.float64).reshape(channels, len(at), len(at))
    # Turning an image is the same as turning the weights back.
    turned = [np.rot90(weights, -k, axes=(1, 2)).ravel() for k in range(4)]
    return (grid @ np.stack(turned, 1)).argmin(1)


def find_overlap(
    test: LabeledImages, seen: SeenImages, split: str = "test", *, parts: Sequence[str] = PARTS
) -> dict[str, Any]:
    """The record's ``overlap``: the classes of a split that took part in one of ``parts``."""
    label = _labels(fingerprints(test.images), seen, parts)
    if len(seen.images):
        # One data set may show ink as light on dark, another as dark on light.
        negatives = _labels(fingerprints(test.images, inverted=True), seen, parts)
        label = np.where(label < 0, negatives, label)
    found = []
    ends = np.cumsum(test.counts)
    for name, count, end in zip(test.class_names, test.counts.tolist(), ends, strict=True):
        own = label[end - count : end]
        own = own[own >= 0]
        if len(own) > SHARE * count or len(own) >= MANY:
            most = int(np.bincount(own).argmax())
            one = {"class": name, "as": seen.names[most], "part": seen.parts[most]}
            found.append(one | {"run": seen.runs[most] or None, "images": len(own), "of": count})
    labels = zip(seen.names, seen.parts, strict=True)
    part_of = {name: part for name, part in labels if part in parts}
    as_seen = {one["class"] for one in found}
    equal = same_names([name for name in test.class_names if name not in as_seen], part_of)
    return {
        "split": split,
        "classes": len(found),
        "of": len(test.counts),
        "images": int((label >= 0).sum()),
        **{part: sum(one["part"] == part for one in found) for part in PARTS},
        "found": found,
        "same_names": [{"class": n, "as": o, "part": part_of[o]} for n, o in equal.items()],
        "unknown": list(seen.unknown),
    }


def _labels(images: Fingerprints, seen: SeenImages, parts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The label in ``seen`` of each image, [M]; -1: it took part in none of ``parts``."""
    if not len(seen.images):
        return np.full(len(images), -1)
    at = np.minimum(np.searchsorted(seen.images, images), len(seen.images) - 1)
    label = np.where(seen.images[at] == images, seen.label[at], -1)
    counts = np.array([part in parts for part in seen.parts], bool)
    return np.where((label >= 0) & counts[label], label, -1)


# Words that number a class or say that it is one. Not complete: a note asks, and refuses nothing.
GENERIC = frozenset({
    "alphabet", "category", "char", "character", "class", "cls", "digit", "family", "glyph",
    "group", "id", "image", "img", "item", "label", "letter", "number", "object", "part", "sample",
    "set", "split", "symbol", "test", "train", "training", "type", "val", "validation",
})  # fmt: skip
SHORTEST = 3  # letters of a meaningful word in ASCII
IDENTIFIER = 6  # digits of a number that is a name (WordNet's n01532829)


def same_names(names: Sequence[str], others: Iterable[str]) -> Mapping[str, str]:
    """From names with a meaning to equal ones among the others, if most names have one."""
    known = {words: other for other in others if _meaningful(words := _words(other))}
    found = {name: known[words] for name in names if (words := _words(name)) in known}
    return found if 2 * len(found) > len(names) else {}


def _words(name: str) -> tuple[str, ...]:
    plain = re.sub(r"/rot[0-9]+$", "", name.casefold())
    return tuple(one.lstrip("0") or "0" for one in re.findall(r"[^\W\d_]+|[0-9]+", plain))


def _meaningful(words: tuple[str, ...]) -> bool:
    """Whether a name with these words says what the class is, or only numbers it."""
    return any(
        len(word) >= IDENTIFIER
        if word.isdigit()
        else word not in GENERIC and (len(word) >= SHORTEST or not word.isascii())
        for word in words
    )


def overlap_summary(overlap: dict[str, Any]) -> str:
    """``2 of the 20 test classes took part in training: 'a', 'b' (as 'c', 3 of 20 images)``."""
    runs = sorted({one["run"] for one in overlap["found"] if one["run"]})
    of_runs = f" of {', '.join(map(repr, runs))}" if runs else ""
    names = []
    for one in overlap["found"][:MOST_NAMES]:
        details = [f"as '{one['as']}'"] if one["as"] != one["class"] else []
        if one["images"] < one["of"]:
            details.append(f"{one['images']} of {one['of']} images")
        names.append(f"'{one['class']}'" + (f" ({', '.join(details)})" if details else ""))
    if more := overlap["classes"] - len(names):
        names.append(f"{more} more")
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    took = f"{overlap['classes']} of the {overlap['of']} {overlap['split']} classes took part in"
    return f"{took} {_parts(overlap['found'])}{of_runs}, by the content of their images: {listed}"


def _parts(classes: Sequence[Mapping[str, Any]]) -> str:
    present = {one["part"] for one in classes}
    return " and ".join(part for part in PARTS if part in present)


def overlap_notes(overlap: dict[str, Any]) -> list[str]:
    """Sentences for the record's notes: classes, single images, names, and what is not known."""
    notes = [overlap_summary(overlap)] if overlap["classes"] else []
    single = overlap["images"] - sum(one["images"] for one in overlap["found"])
    if single:
        images, are = ("image", "is") if single == 1 else ("images", "are")
        which = f"{single} single {images} of the {overlap['split']} split {are} identical to one"
        notes.append(f"{which} of training or validation (under {SHARE:.0%} of a class)")
    if equal := overlap["same_names"]:
        have = "have names" if len(equal) > 1 else "has the name"
        those = f"classes that took part in {_parts(equal)} (with different content)"
        notes.append(
            f"{len(equal)} of the {overlap['of']} {overlap['split']} classes {have} of {those}, "
            f"such as '{equal[0]['class']}': are these copies of the same images?"
        )
    return notes + overlap["unknown"]


def check_shape(shape: tuple[int, int, int], seen: SeenImages, dataset: str) -> None:
    """Raise ConfigError unless images have the shape of those that the weights were trained on."""
    if seen.image_shape is not None and shape != seen.image_shape:
        found, expected = ("x".join(map(str, one)) for one in (shape, seen.image_shape))
        gives = f"--dataset {dataset} gives images of {found} (channels x height x width)"
        use = "Use options of the data set that give this shape (--image-size, --color, ...)."
        raise ConfigError(f"{gives}; the run was trained on {expected}. {use}")


def write_seen(folder: Path, seen: SeenImages) -> dict[str, Any]:
    """Write ``folder/seen.npz``; returns the record's ``seen``; ConfigError if it cannot."""
    path = folder / SEEN_FILE
    texts: dict[str, Any] = {name: np.array(getattr(seen, name), dtype=str) for name in _TEXTS}
    label, shape = seen.label.astype(np.int32), np.array(seen.image_shape or (0, 0, 0))
    try:
        with replacing(path) as file:
            np.savez_compressed(file, images=seen.images, label=label, image_shape=shape, **texts)
    except OSError as error:
        problem = f"cannot write '{path}' ({error.strerror})"
        raise ConfigError(f"{problem}; name another folder with --runs-dir.") from error
    return {"file": SEEN_FILE, **vars(content_of(path))}


def read_seen(folder: Path, record: Mapping[str, Any] | None) -> SeenImages:
    """The content of a run's ``seen.npz``: images that took part in the run in ``folder``.

    RecordError if it is missing, damaged, or not the one of the ``record`` (None: there is none).
    """
    path, again = folder / SEEN_FILE, "Put the file back, or run it again."
    if not path.is_file():
        what = f"'{folder}' has no {SEEN_FILE}, the list of images that took part in its weights"
        raise RecordError(f"{what}. {again}")
    if record and (not record["seen"] or content_of(path).sha256 != record["seen"]["sha256"]):
        what = f"'{path}' is not the file that the run wrote, or is damaged: its sha256 is not the"
        so = "one in the record, so the classes that trained the run are not known"
        raise RecordError(f"{what} {so}. {again}")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"it unpacks to over {MOST_BYTES} bytes")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
        names, parts, runs, unknown = (tuple(map(str, arrays[name].tolist())) for name in _TEXTS)
        channels, height, width = map(int, arrays["image_shape"])
        images, label = arrays["images"].astype(np.uint64), arrays["label"].astype(np.int64)
        fits = images.ndim == 1 and images.shape == label.shape
        fits &= len(names) == len(parts) == len(runs)
        if not fits or (len(label) and not 0 <= label.min() <= label.max() < len(names)):
            raise ValueError("its parts do not fit together")
        if (images[1:] <= images[:-1]).any():
            raise ValueError("its fingerprints are not sorted")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        so = "so the classes that trained the run are not known. Run it again."
        raise RecordError(f"'{path}' is damaged ({error}), {so}") from error
    shape = (channels, height, width) if channels else None
    runs = tuple(run or folder.absolute().name for run in runs)
    return SeenImages(images, label, names, parts, runs, shape, unknown)
