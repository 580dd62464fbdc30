"""Runs side by side: grouped by protocol, paired on the same episodes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_bench.errors import RecordError
from fewshot_bench.results.record import FILE, read_record
from fewshot_bench.results.statistics import Paired, paired_difference
from fewshot_bench.results.tables import read_table

SIGNIFICANT = 0.05  # of the paired t test behind Group.winner
# What is worth saying of two protocols that have not even their data in common.
ACROSS_DATA = ("dataset", "way", "shot", "query", "unlabelled", "sampling", "episodes")
DIGESTS = {"dataset_digest": "data of other content", "episodes_digest": "other episodes"}


@dataclass(frozen=True)
class Run:
    """A finished run and where it is."""

    folder: Path
    record: dict[str, Any]

    @property
    def label(self) -> str:
        """The method, with the seed where it is not 0."""
        seed = self.record["seed"]
        return self.record["method"] + (f" (seed {seed})" if seed else "")

    def protocol(self) -> dict[str, Any]:
        """Everything that decides whether an accuracy may stand beside this one.

        Options of a data set that begin with ``train_`` are left out: what a method trains on
        is its own affair, and the digest of the test episodes sees the rest.
        """
        record, test, config = self.record, self.record["test"], self.record["config"]
        options = {
            name: value
            for name, value in config["dataset_options"].items()
            if not name.startswith("train_") and name != "split"
        }
        return {
            "dataset": record["dataset"],
            "split": record["split"],
            **options,
            **record["task"],
            "sampling": test["sampling"],
            "within_family": config.get("within_family", False),
            "episode_seed": record["episode_seed"],
            "episodes": test["episodes"],
            "level": test["level"],
            "dataset_digest": record["dataset_digest"],
            "episodes_digest": record["episodes_digest"],
        }

    def scores(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Episode numbers and accuracies, sorted by episode.

        Raises:
            RecordError: they are missing or damaged.
        """
        path = self.folder / "episodes.csv"
        table = read_table(path, ("episode", "accuracy"))
        try:
            episode, accuracy = table["episode"], table["accuracy"]
        except KeyError as error:
            raise RecordError(f"'{path}' has no column {error}.") from error
        unique, first = np.unique(episode, return_index=True)
        if len(unique) != len(episode):
            raise RecordError(f"'{path}' has an episode more than once.")
        return unique, accuracy[first]


@dataclass
class Row:
    """A run in a table; ``paired`` against the group's baseline where there is one."""

    run: Run
    paired: Paired | None = None


@dataclass
class Group:
    """Runs of one protocol, best first.

    Arguments:
        rows: the runs.
        differs: why these cannot stand beside the first group: one phrase per setting.
        baseline: the row that the others are compared with; None: nothing is paired.
        winner: the first row, if the paired t test finds it better than each of the others at
            5 %; else None. All have to be beaten, so the number of runs needs no correction
            (an intersection-union test; Berger, Technometrics 1982).
    """

    rows: list[Row]
    differs: tuple[str, ...] = ()
    baseline: Row | None = None
    winner: Row | None = None


@dataclass
class Comparison:
    """Groups of runs, and what could not be shown and why."""

    groups: list[Group]
    problems: list[str] = field(default_factory=list)


def load_runs(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs in these folders.

    Arguments:
        paths: folders of runs, their ``record.json``, or folders with runs anywhere below.

    Returns:
        The runs, and one line for each that is broken or did not finish; it hides no other.
    """
    runs, problems = [], []
    seen: set[Path] = set()
    for path in paths:
        for folder in _run_folders(path.parent if path.name == FILE else path) or [path]:
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            try:
                record = read_record(folder)
            except RecordError as error:
                problems.append(str(error))
                continue
            if record["status"] == "completed" and record["test"]:
                runs.append(Run(folder, record))
            else:
                why = record["error"] or "it has no result"
                problems.append(f"'{folder}': {record['status']}: {why}")
    return runs, problems


def _run_folders(path: Path) -> list[Path]:
    """Folders with a record, in order; a link to a run counts, a link to more does not (loops)."""
    if (path / FILE).is_file():
        return [path]
    found: list[Path] = []
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError:
        return found
    for entry in entries:
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        inside = Path(entry.path)
        if not entry.is_symlink() or (inside / FILE).is_file():
            found += _run_folders(inside)
    return found


def compare(
    runs: list[Run], baseline: str | None = None, level: float = 0.95, *, ranks: bool = False
) -> Comparison:
    """Group runs by protocol and pair each with the baseline of its group.

    Arguments:
        runs: see :func:`load_runs`.
        baseline: name of a method or id of a run; None: nothing is paired. Of several runs of
            a method it is the one of the lowest seed, the newest of these: never the best.
        level: of the intervals of differences.
        ranks: also do the signed-rank tests, which no table shows but the JSON export holds.
    """
    groups: dict[str, list[Run]] = {}
    protocols: dict[str, dict[str, Any]] = {}
    for run in runs:
        protocol = run.protocol()
        key = repr(sorted(protocol.items()))
        protocols.setdefault(key, protocol)
        groups.setdefault(key, []).append(run)
    result, problems = [], []
    first = next(iter(protocols.values()), {})
    for key, members in groups.items():
        members.sort(key=lambda run: (-run.record["test"]["accuracy"], run.record["id"]))
        group = Group([Row(run) for run in members], _differs(protocols[key], first))
        if baseline is not None:
            problems += _pair(group, baseline, level, ranks)
        group.winner = _winner(group)
        result.append(group)
    return Comparison(result, problems)


def _pair(group: Group, baseline: str, level: float, ranks: bool) -> list[str]:
    """Choose the baseline and fill in ``paired``; returns what could not be paired."""
    chosen = [r for r in group.rows if baseline in (r.run.record["method"], r.run.record["id"])]
    if not chosen:
        return []
    chosen.sort(key=lambda row: row.run.record["id"], reverse=True)
    base = min(chosen, key=lambda row: row.run.record["seed"])
    try:
        reference = base.run.scores()
    except RecordError as error:
        return [f"'{base.run.folder}' has no episodes to pair with ({error})."]
    group.baseline, problems = base, []
    for row in group.rows:
        if row is base:
            continue
        try:
            row.paired = _difference(row.run.scores(), reference, level, ranks)
        except (RecordError, ValueError) as error:
            problems.append(f"'{row.run.folder}' cannot be paired ({error}).")
    return problems


def _difference(a: Any, b: Any, level: float, ranks: bool) -> Paired:
    """Pair two runs by the numbers of their episodes."""
    if not np.array_equal(a[0], b[0]):
        raise ValueError("it has other episodes than the baseline")
    return paired_difference(a[1], b[1], level, ranks=ranks)


def _winner(group: Group) -> Row | None:
    """The first row, if it is better than each of the others."""
    best, *others = group.rows
    if (
        not others
        or best.run.record["test"]["accuracy"] == others[0].run.record["test"]["accuracy"]
    ):
        return None
    try:
        scores = best.run.scores()
        for row in others:
            paired = _difference(scores, row.run.scores(), 0.95, ranks=False)
            if paired.difference <= 0 or paired.p_t is None or paired.p_t >= SIGNIFICANT:
                return None
    except (RecordError, ValueError):
        return None
    return best


def _differs(one: dict[str, Any], first: dict[str, Any]) -> tuple[str, ...]:
    """What sets a protocol apart, in words; a digest only if nothing else tells."""
    missing = object()
    names = [n for n in {**first, **one} if one.get(n, missing) != first.get(n, missing)]
    if "dataset" in names:  # its own options are not what sets them apart
        names = [n for n in names if n in ACROSS_DATA]
    told = [
        f"{name} {one.get(name, 'not given')} instead of {first.get(name, 'not given')}"
        for name in names
        if name not in DIGESTS
    ]
    return tuple(told or [DIGESTS[name] for name in names])
