"""Class-disjoint splits: by seed, or from a file.

A split file names the classes of ``train``, ``validation`` (may be missing) and ``test``:

* TOML: ``train = ["cat", "dog"]`` and so on;
* JSON: the same as one object;
* CSV: a header ``class,split``, then a line for each class.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.errors import ConfigError, DataError
from fewshot_bench.rng import key_of, permutation

SPLITS = ("train", "validation", "test")
_ALIASES = {"val": "validation", "valid": "validation"}
_FORMATS = (
    'TOML or JSON with train, validation, test = [class, ...], or CSV with the header "class,split"'
)

ClassLists = dict[str, tuple[str, ...]]  # split: its classes; every split of SPLITS is a key


def take(labeled: LabeledImages, classes: Iterable[int]) -> LabeledImages:
    """The images of some classes (indices), in the order in which they were."""
    chosen = np.array(sorted(set(classes)), np.int64)
    starts = np.cumsum(labeled.counts) - labeled.counts
    if len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1:  # a range: no copy
        first, last = chosen[0], chosen[-1]
        of_image: Any = slice(starts[first], starts[last] + labeled.counts[last])
    else:
        of_image = np.isin(np.repeat(np.arange(len(labeled.counts)), labeled.counts), chosen)
    return LabeledImages(
        images=labeled.images[of_image],
        counts=labeled.counts[chosen],
        class_names=tuple(labeled.class_names[i] for i in chosen),
        groups=labeled.groups[chosen],
        families=labeled.families[chosen],
        family_names=labeled.family_names,
        order=labeled.order[of_image],
    )


def shuffled(n: int, *key: int | str) -> list[int]:
    """The permutation of 0..n-1 that belongs to this key."""
    return permutation(torch.tensor(key_of(*key)), "split", n).tolist()


def by_seed(
    classes: Sequence[str],
    fractions: tuple[float, float],
    seed: int,
    together: Iterable[Iterable[str]] = (),
) -> ClassLists:
    """Disjoint random splits of these classes.

    Arguments:
        classes: all of them; their order does not matter.
        fractions: of the classes that validate and that test; the rest trains.
        seed: another seed, other splits.
        together: bundles of classes that stay in one split.

    Raises:
        ConfigError: fractions that leave no class to train or to test on.
    """
    part = {name: frozenset([name]) for name in classes}
    for names in together:
        bundle = frozenset().union(*(part[name] for name in names))
        part.update(dict.fromkeys(bundle, bundle))
    bundles = sorted({tuple(sorted(bundle)) for bundle in part.values()})
    wanted = {
        split: round(share * len(classes))
        for split, share in zip(("validation", "test"), fractions, strict=True)
    }
    chosen: dict[str, list[str]] = {split: [] for split in SPLITS}
    for i in shuffled(len(bundles), "split by seed", seed):
        fits = (s for s in ("test", "validation") if len(chosen[s]) + len(bundles[i]) <= wanted[s])
        chosen[next(fits, "train")] += bundles[i]
    if not chosen["train"] or not chosen["test"]:
        raise ConfigError(
            f"{len(classes)} classes split by {fractions[0]:g} for validation and {fractions[1]:g} "
            "for the test leave none to train or to test on; give other fractions or a split file."
        )
    return {split: tuple(sorted(names)) for split, names in chosen.items()}


def read_split_file(path: Path) -> ClassLists:
    """The classes of each split.

    Raises:
        DataError: no such file, not one of the formats, an unknown split, or a class that is
            listed twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read the split file '{path}' ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read the split file '{path}' ({error}).") from error
    return parse_split(text, path.suffix.lower(), str(path))


def parse_split(text: str, suffix: str, name: str) -> ClassLists:
    """See :func:`read_split_file`; ``suffix`` (``".toml"``, ``".json"``, ``".csv"``) is the format.

    Raises:
        DataError: see there.
    """
    try:
        pairs = list(_PARSERS[suffix](text))
    except KeyError:
        raise DataError(
            f"split file '{name}': the ending has to be .toml, .json or .csv."
        ) from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"split file '{name}' ({error}); expected {_FORMATS}.") from error
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    seen: dict[str, str] = {}
    for label, split in pairs:
        split = _ALIASES.get(split, split)
        if split not in lists:
            raise DataError(
                f"split file '{name}': unknown split '{split}'; known: {', '.join(SPLITS)}."
            )
        if label in seen:
            raise DataError(
                f"split file '{name}': class '{label}' is in {seen[label]} and again in {split}; "
                "each class belongs to one split."
            )
        seen[label] = split
        lists[split].append(label)
    for split in ("train", "test"):
        if not lists[split]:
            raise DataError(f"split file '{name}' has no class in {split}; expected {_FORMATS}.")
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
    """Hold the classes of a split file against those that the data have.

    Raises:
        DataError: a class that the data do not have.
    """
    known = set(known)
    unknown = [label for labels in lists.values() for label in labels if label not in known]
    if unknown:
        raise DataError(
            f"split file '{name}': the data have no class '{unknown[0]}'"
            + (f" ({len(unknown)} such classes)" if len(unknown) > 1 else "")
            + f"; they have {', '.join(sorted(known)[:5])}, ... ({len(known)} in all)."
        )
