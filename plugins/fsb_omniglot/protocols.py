"""Which characters train, validate and test: the three splits in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot_bench.data import shuffled
from fewshot_bench.errors import DataError
from fsb_omniglot.archives import BACKGROUND

# The published lists have each character four times, as character/rot000 .. rot270.
VINYALS_SIZES = {"train": 1028, "val": 172, "test": 423}
RANDOM_TRAIN, RANDOM_VALIDATION = 1200, 100
VALIDATION_SHARE = (0.15, 0.20)  # of the background characters, in whole alphabets


@dataclass(frozen=True)
class Characters:
    """All characters (``Alphabet/characterNN``, background first), and what a split may need."""

    names: Sequence[str]
    root: Path
    seed: int


@dataclass(frozen=True)
class Chosen:
    """Indices of the characters of each split; no validation: an empty tuple."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    notes: tuple[str, ...]


def choose(split: str, characters: Characters, validate: bool) -> Chosen:
    """The split of this name.

    Raises:
        DataError: the lists of ``vinyals`` are missing or not the published ones.
    """
    chosen = {"official": _official, "vinyals": _vinyals, "random": _random}[split](characters)
    if validate:
        return chosen
    everything = tuple(sorted(chosen.train + chosen.validation))
    return Chosen(everything, (), chosen.test, ("No validation classes were kept out.",))


def _official(characters: Characters) -> Chosen:
    """Background and evaluation alphabets; whole background alphabets validate."""
    background = characters.names[: BACKGROUND.characters]
    members: dict[str, list[int]] = {}
    for i, name in enumerate(background):
        members.setdefault(name.partition("/")[0], []).append(i)
    least, most = (share * len(background) for share in VALIDATION_SHARE)
    alphabets = list(members)
    validation: list[int] = []
    kept_out: list[str] = []
    for at in shuffled(len(alphabets), "omniglot", "validation alphabets", characters.seed):
        own = members[alphabets[at]]
        if len(validation) + len(own) <= most:
            validation += own
            kept_out.append(alphabets[at])
        if len(validation) >= least:
            break
    held = set(validation)
    return Chosen(
        train=tuple(i for i in range(len(background)) if i not in held),
        validation=tuple(sorted(held)),
        test=tuple(range(len(background), len(characters.names))),
        notes=(f"Validation alphabets, kept out of training: {', '.join(sorted(kept_out))}.",),
    )


def _random(characters: Characters) -> Chosen:
    order = shuffled(len(characters.names), "omniglot", "random split", characters.seed)
    cut = RANDOM_TRAIN - RANDOM_VALIDATION
    return Chosen(
        train=tuple(sorted(order[:cut])),
        validation=tuple(sorted(order[cut:RANDOM_TRAIN])),
        test=tuple(sorted(order[RANDOM_TRAIN:])),
        notes=(
            f"{RANDOM_VALIDATION} of the {RANDOM_TRAIN} random training characters validate; "
            "training and test share alphabets.",
        ),
    )


def _vinyals(characters: Characters) -> Chosen:
    folder = _lists(characters.root)
    number = {name: i for i, name in enumerate(characters.names)}
    chosen: dict[str, tuple[int, ...]] = {}
    for part, size in VINYALS_SIZES.items():
        path = folder / f"{part}.txt"
        try:
            lines = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"cannot read '{path}' ({error}); expected {size * 4} lines."
            ) from error
        listed = {line.rpartition("/")[0] for line in lines}
        unknown = sorted(listed - number.keys())
        if unknown or len(listed) != size or len(lines) != 4 * size:
            raise DataError(
                f"'{path}' has {len(lines)} lines of {len(listed)} characters"
                + (f", among them the unknown '{unknown[0]}'" if unknown else "")
                + f"; expected the published list of {4 * size} lines of {size} characters."
            )
        chosen[part] = tuple(sorted(number[name] for name in listed))
    if len(set().union(*chosen.values())) != sum(VINYALS_SIZES.values()):
        raise DataError(f"the lists in '{folder}' share characters; expected disjoint ones.")
    return Chosen(
        train=chosen["train"],
        validation=chosen["val"],
        test=chosen["test"],
        notes=("Vinyals lists as published by Snell et al.; all parts share alphabets.",),
    )


def _lists(root: Path) -> Path:
    places = [
        root.parent / "splits" / "omniglot_vinyals",
        root / "splits" / "omniglot_vinyals",
        root / "omniglot_vinyals",
    ]
    for place in places:
        if place.is_dir():
            return place
    raise DataError(
        f"--split vinyals needs the lists train.txt, val.txt and test.txt in '{places[0]}' (or in "
        f"'{places[2]}'); put them there, or take --split official."
    )
