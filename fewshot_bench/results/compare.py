"""Runs side by side: grouped by protocol, paired on the same episodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_bench.errors import RecordError
from fewshot_bench.results.record import FILE, read_record
from fewshot_bench.results.statistics import Paired, paired_difference
from fewshot_bench.results.tables import read_table

# Two accuracies may stand side by side only if all of these agree.
PROTOCOL = {
    "data": ("dataset", "dataset_digest", "split", "dataset_options"),
    "task": ("task",),
    "test episodes": ("sampling", "episode_seed", "episodes", "episodes_digest"),
}


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
        """Everything that decides whether an accuracy may stand beside this one."""
        record, test = self.record, self.record["test"]
        values = {
            **{name: record[name] for name in ("dataset", "dataset_digest", "split", "task")},
            **{name: record[name] for name in ("episode_seed", "episodes_digest")},
            "sampling": test["sampling"],
            "episodes": test["episodes"],
        }
        # Options of training data do not matter here; the digest of the episodes sees the classes.
        options = record["config"]["dataset_options"]
        values["dataset_options"] = {n: v for n, v in options.items() if not n.startswith("train_")}
        return values


@dataclass
class Row:
    """A run in a table; ``paired`` against the group's baseline where there is one."""

    run: Run
    paired: Paired | None = None


@dataclass
class Group:
    """Runs of one protocol, best first."""

    rows: list[Row]
    differs: tuple[str, ...] = ()

    @property
    def baseline(self) -> Row | None:
        """The run that the others are compared with: the one without a difference."""
        plain = [row for row in self.rows if row.paired is None]
        return plain[0] if len(plain) == 1 and len(self.rows) > 1 else None


@dataclass
class Comparison:
    """Groups of runs, and what could not be shown and why."""

    groups: list[Group]
    problems: list[str] = field(default_factory=list)


def load_runs(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs in these folders.

    Arguments:
        paths: folders of runs, or folders that hold them.

    Returns:
        The runs, and one line for each that is broken or did not finish; it hides no other.
    """
    runs, problems = [], []
    seen: set[Path] = set()
    for path in paths:
        inside = sorted(p.parent for p in path.glob(f"*/{FILE}"))
        for folder in [path] if (path / FILE).is_file() or not inside else inside:
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            try:
                record = read_record(folder)
                if record["status"] == "completed" and record["test"]:
                    runs.append(Run(folder, record))
                else:
                    problems.append(f"'{folder}': {record['status']}: {record['error']}")
            except RecordError as error:
                problems.append(str(error))
    return runs, problems


def compare(runs: list[Run], baseline: str | None = None, level: float = 0.95) -> Comparison:
    """Group runs by protocol and pair each with the baseline of its group.

    Arguments:
        runs: see :func:`load_runs`.
        baseline: name of a method or id of a run; None: nothing is paired.
        level: of the intervals of differences.
    """
    groups: list[tuple[dict[str, Any], list[Run]]] = []
    for run in runs:
        protocol = run.protocol()
        for known, members in groups:
            if known == protocol:
                members.append(run)
                break
        else:
            groups.append((protocol, [run]))
    result, problems = [], []
    for protocol, members in groups:
        members.sort(key=lambda run: -run.record["test"]["accuracy"])
        rows = [Row(run) for run in members]
        if baseline is not None:
            problems += _pair(rows, baseline, level)
        differs = _differs(protocol, groups[0][0]) if groups[0][0] is not protocol else ()
        result.append(Group(rows, differs))
    return Comparison(result, problems)


def _pair(rows: list[Row], baseline: str, level: float) -> list[str]:
    """Fill in ``paired``; what could not be paired."""
    chosen = [r.run for r in rows if baseline in (r.run.record["method"], r.run.record["id"])]
    if not chosen:
        return []
    base, problems = chosen[0], []
    try:
        reference = read_table(base.folder / "episodes.csv")["accuracy"]
    except (RecordError, KeyError) as error:
        return [f"'{base.folder}' has no episodes to pair with ({error})."]
    for row in rows:
        if row.run is base:
            continue
        try:
            scores = read_table(row.run.folder / "episodes.csv")["accuracy"]
            row.paired = paired_difference(scores, reference, level)
        except (RecordError, KeyError, ValueError) as error:
            problems.append(f"'{row.run.folder}' cannot be paired ({error}).")
    return problems


def _differs(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, ...]:
    return tuple(word for word, names in PROTOCOL.items() if any(one[n] != other[n] for n in names))
