"""Finished runs: found in folders, their protocol and their scores."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fewshot_bench.errors import RecordError
from fewshot_bench.results.protocol import sampler_protocol
from fewshot_bench.results.record.io import FILE, is_held, read_record, resume_command
from fewshot_bench.results.record.part import part_of, with_result
from fewshot_bench.results.tables import read_table
from fewshot_bench.utils.text import printable_values

Array = npt.NDArray[np.float64]
STAMP = re.compile(r"\d{8}T\d{6}(-[0-9a-f]{4})?$")  # of new_run_folder
GOING = ("running", "interrupted")  # status of a run that has an end before it


class Setting(NamedTuple):
    """What a column of a table stands for: the task, but for its query count."""

    way: int
    shot: int
    unlabeled: int = 0
    distractors: int = 0

    def __str__(self) -> str:
        text = f"{self.way}-way {self.shot}-shot"
        text += f", {self.unlabeled} unlabeled" if self.unlabeled else ""
        return text + (f", {self.distractors} distractors" if self.distractors else "")


@dataclass(frozen=True)
class Run:
    """A finished run and where it is.

    Arguments:
        folder: of the run.
        record: its record.
        entry: what a grid calls it, where that is not the method's name.
    """

    folder: Path
    record: dict[str, Any]
    entry: str | None = None

    @property
    def name(self) -> str:
        """What it is called where nothing else tells it apart."""
        return self.entry or str(self.record["method"])

    @property
    def setting(self) -> Setting:
        """Way, shot and unlabeled images of the test task."""
        return Setting(*(self.record["task"][name] for name in Setting._fields))

    @property
    def seedless(self) -> bool:
        """Whether the seed changes nothing: no parameters, no training."""
        return self.record["training"] is None and not self.record["parameters"]

    def protocol(self) -> dict[str, Any]:
        """Everything but the setting that decides whether accuracies may share a table.

        Options of a data set that begin with ``train_`` are left out: what a method trains on
        is its own affair, and the digest of the test episodes sees the rest. So are those that
        name a file, such as a split file, as far as the content of the evaluated split is known:
        that is what the file came to. ``dataset`` is the plain name then, without a path. Of an
        older record the text as typed counts, and the digest that the data set has for itself; a
        split may be none of it.
        """
        record, test, config = self.record, self.record["test"], self.record["config"]
        evaluated = record.get("evaluated_digest")
        files = {one["option"] for one in record.get("inputs") or ()} if evaluated else set()
        options = {
            name: value
            for name, value in config["dataset_options"].items()
            if not name.startswith("train_") and name != "split" and name not in files
        }
        return {
            "dataset": _data_set(record) if evaluated else record["dataset"],
            "split": record["split"],
            "part": part_of(record),
            **options,
            "query": record["task"]["query"],
            "sampling": test["sampling"],
            **sampler_protocol(record),
            "within_family": config.get("within_family", False),
            "episode_seed": record["episode_seed"],
            "episodes": test["episodes"],
            "level": test["level"],
            **(
                {"evaluated_digest": evaluated}
                if evaluated
                else {"dataset_digest": record["dataset_digest"]}
            ),
        }

    def scores(self) -> tuple[Array, Array]:
        """Episode numbers and accuracies, sorted by episode.

        Raises:
            RecordError: they are missing or damaged.
        """
        return self._column("accuracy")

    def clusters(self) -> npt.NDArray[np.int64]:
        """The classes of each episode [episodes, way], sorted by episode, for ``class_interval``.

        Classes that share images, as the rotations of a character do, have one number.

        Raises:
            RecordError: they are missing or damaged.
        """
        way = self.record["task"]["way"]
        path = self.folder / "episodes.csv"
        kind = "group" if "group_0" in read_table(path, ("group_0",)) else "class"
        return np.stack([self._column(f"{kind}_{c}")[1] for c in range(way)], 1).astype(np.int64)

    def _column(self, name: str) -> tuple[Array, Array]:
        path = self.folder / "episodes.csv"
        table = read_table(path, ("episode", name))
        try:
            episode, values = table["episode"], table[name]
        except KeyError as error:
            raise RecordError(f"'{path}' has no column {error}.") from error
        if (episode[1:] > episode[:-1]).all():
            return episode, values
        unique, first = np.unique(episode, return_index=True)
        if len(unique) != len(episode):
            raise RecordError(f"'{path}' has an episode more than once.")
        return unique, values[first]

    def checked_scores(self) -> tuple[Array, Array]:
        """The same as :meth:`scores`, all there and those that the record tells of.

        Raises:
            RecordError: they are not.
        """
        episode, accuracy = self.scores()
        path, test = self.folder / "episodes.csv", self.record["test"]
        if len(episode) != test["episodes"]:
            raise RecordError(
                f"'{path}' has {len(episode)} episodes, its record {test['episodes']}; "
                "it may be cut off."
            )
        if not abs(float(accuracy.mean()) - test["accuracy"]) < 1e-6:
            raise RecordError(f"'{path}' does not hold the accuracies that its record tells of.")
        return episode, accuracy


def _data_set(record: Mapping[str, Any]) -> str:
    """The name of the data set's plugin: ``folder`` of ``folder:PATH``."""
    named = (one.get("name") for one in record["plugins"] if one.get("kind") == "datasets")
    return str(next(named, record["dataset"]))


def age(run: Run) -> tuple[str, str]:
    """Sorts runs from the oldest to the newest, by the time in their ids."""
    run_id = run.record["id"]
    stamp = STAMP.search(run_id)
    return (stamp[0] if stamp else "", run_id)


def load_runs(
    paths: Iterable[Path], unfinished: list[str] | None = None
) -> tuple[list[Run], list[str]]:
    """The finished runs in these folders.

    Arguments:
        paths: folders of runs, their ``record.json``, or folders with runs anywhere below.
        unfinished: takes the lines on runs that go on or can be gone on with and that were not
            named themselves; default: they are with the problems.

    Returns:
        The runs, and one line for each that is broken or did not finish; it hides no other.
    """
    runs, problems, paths = [], [], list(paths)
    themselves = {(path.parent if path.name == FILE else path).resolve() for path in paths}
    seen: set[Path] = set()
    named: set[Path] = set()
    for path in paths:
        if path.resolve() in named:
            problems.append(f"'{path}' is named twice; it counts once.")
        named.add(path.resolve())
        for folder in run_folders(path.parent if path.name == FILE else path) or [path]:
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            try:
                record = printable_values(with_result(read_record(folder)))
            except RecordError as error:
                problems.append(str(error))
                continue
            if record["status"] == "completed" and record["test"]:
                runs.append(Run(folder, record))
                continue
            line = _why(folder, record)
            found_below = folder.resolve() not in themselves
            if unfinished is not None and found_below and record["status"] in GOING:
                unfinished.append(line)
            else:
                problems.append(line)
    return runs, problems


def _why(folder: Path, record: dict[str, Any]) -> str:
    """Why a run has no result, in a line."""
    if record["status"] in GOING:
        if is_held(folder):
            return f"'{folder}' goes on; it has no result yet"
        return f"'{folder}' did not finish; go on with it: {resume_command(folder)}"
    return f"'{folder}': {record['status']}: {record['error'] or 'it has no result'}"


def run_folders(path: Path) -> list[Path]:
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
            found += run_folders(inside)
    return found
