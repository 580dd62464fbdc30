"""Class-disjoint splits: at random, or from a file.

A split file lists the classes of ``train``, ``validation`` (optional) and ``test``:

* TOML: ``train = ["cat", "dog"]`` and so on;
* JSON: the same as an object;
* CSV: a header ``class,split``, then a line for each class.
"""

import csv
import io
import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot_bench.data.images import SPLITS, LabeledImages
from fewshot_bench.errors import ConfigError, DataError
from fewshot_bench.rng import key_of, permutation

_ALIASES = {"val": "validation", "valid": "validation"}
_FORMATS = (
    'TOML or JSON with train, validation, test = [class, ...], or CSV with the header "class,split"'
)

ClassLists = dict[str, tuple[str, ...]]  # the classes of each split of SPLITS


def select_classes(labeled: LabeledImages, classes: Iterable[int]) -> LabeledImages:
    """The images of some classes (indices), in their order in ``labeled``."""
    chosen = np.array(sorted(set(classes)), np.int64)
    images: slice | np.ndarray
    if len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1:  # a range: no copy
        ends = np.cumsum(labeled.counts)
        images = slice(ends[chosen[0]] - labeled.counts[chosen[0]], ends[chosen[-1]])
    else:
        images = np.isin(np.repeat(np.arange(len(labeled.counts)), labeled.counts), chosen)
    names = tuple(labeled.class_names[i] for i in chosen)
    own = {name: getattr(labeled, name)[chosen] for name in ("counts", "groups", "families")}
    pixels, order = labeled.images[images], labeled.order[images]
    return replace(labeled, images=pixels, class_names=names, order=order, **own)


def shuffled(n: int, *key: int | str) -> list[int]:
    """A permutation of 0..n-1, determined by the key."""
    return permutation(torch.tensor(key_of(*key)), "split", n).tolist()


def random_splits(
    classes: Sequence[str], fractions: tuple[float, float], seed: int,
    together: Iterable[Iterable[str]] = (),
) -> ClassLists:  # fmt: skip
    """Disjoint random splits of these classes, whose order does not matter.

    Arguments:
        fractions: of the classes for validation and test; the others are for training.
        together: bundles of classes that stay in one split.

    Raises:
        ConfigError: the fractions leave no class for training or test.
    """
    bundle_of = {name: frozenset([name]) for name in classes}
    for names in together:
        bundle = frozenset().union(*(bundle_of[name] for name in names))
        bundle_of.update(dict.fromkeys(bundle, bundle))
    bundles = sorted({tuple(sorted(bundle)) for bundle in bundle_of.values()})
    shares = zip(("validation", "test"), fractions, strict=True)
    sizes = {split: round(share * len(classes)) for split, share in shares}
    chosen: dict[str, list[str]] = {split: [] for split in SPLITS}
    for i in shuffled(len(bundles), "split by seed", seed):
        fits = (s for s in ("test", "validation") if len(chosen[s]) + len(bundles[i]) <= sizes[s])
        chosen[next(fits, "train")] += bundles[i]
    if not chosen["train"] or not chosen["test"]:
        used = f"fractions of {fractions[0]:g} for validation and {fractions[1]:g} for test"
        what = f"leave no class of {len(classes)} for training or test"
        raise ConfigError(f"{used} {what}; use others, or a split file.")
    return {split: tuple(sorted(names)) for split, names in chosen.items()}


def read_split_file(path: Path) -> ClassLists:
    """The classes of each split.

    Raises:
        DataError: the file cannot be read or has none of the formats, an unknown split, a class
            twice, or no class for training or test.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the split file '{path}' ({reason}).") from error
    return parse_split(text, path.suffix.lower(), str(path))


def parse_split(text: str, suffix: str, name: str) -> ClassLists:
    """See :func:`read_split_file`; ``suffix``, such as ``".toml"``, is the format."""
    where = f"split file '{name}'"
    if suffix not in _PARSERS:
        raise DataError(f"{where}: expected a name that ends in .toml, .json or .csv.")
    try:
        pairs = list(_PARSERS[suffix](text))
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{where} ({error}); expected {_FORMATS}.") from error
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    split_of: dict[str, str] = {}
    for label, split in pairs:
        split = _ALIASES.get(split, split)
        if split not in lists:
            raise DataError(f"{where}: unknown split '{split}'; expected {', '.join(SPLITS)}.")
        if label in split_of:
            twice = f"class '{label}' is in {split_of[label]} and again in {split}"
            raise DataError(f"{where}: {twice}; each class belongs to one split.")
        split_of[label] = split
        lists[split].append(label)
    for split in ("train", "test"):
        if not lists[split]:
            raise DataError(f"{where} has no class in {split}; expected {_FORMATS}.")
    return {split: tuple(labels) for split, labels in lists.items()}


def _pairs(table: Any) -> Iterable[tuple[str, str]]:
    if not isinstance(table, dict):
        raise ValueError("not a table of splits")
    for split, labels in table.items():
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"'{split}' is not a list of class names")
        yield from ((label, split) for label in labels)


def _csv_pairs(text: str) -> Iterable[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if not {"class", "split"} <= set(rows.fieldnames or ()):
        raise ValueError("the first line has no columns 'class' and 'split'")
    for row in rows:
        if row["class"] is None or row["split"] is None:
            raise ValueError(f"line {rows.line_num} is too short")
        yield row["class"], row["split"].strip()


_PARSERS = {
    ".toml": lambda text: _pairs(tomllib.loads(text)),
    ".json": lambda text: _pairs(json.loads(text)),
    ".csv": _csv_pairs,
}


def check_lists(lists: ClassLists, known: Iterable[str], name: str) -> None:
    """Raise DataError unless the data have all classes of a split file."""
    known = set(known)
    unknown = [label for labels in lists.values() for label in labels if label not in known]
    if unknown:
        more = f" ({len(unknown)} such classes)" if len(unknown) > 1 else ""
        theirs = f"{', '.join(sorted(known)[:5])}, ... ({len(known)} in all)"
        missing = f"the data have no class '{unknown[0]}'{more}"
        raise DataError(f"split file '{name}': {missing}; they have {theirs}.")
