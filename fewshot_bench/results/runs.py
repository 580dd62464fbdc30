"""Finished runs: found in folders, with their protocol, scores and command."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fewshot_bench.config.options import flag
from fewshot_bench.config.resolve import REPEATED
from fewshot_bench.config.schema import OPTION_FIELDS
from fewshot_bench.errors import RecordError
from fewshot_bench.hooks.registry import CORE
from fewshot_bench.results.record import (
    RECORD,
    VALIDATION,
    folder_of,
    is_locked,
    read_record,
    read_table,
    resume_command,
    with_result,
)
from fewshot_bench.utils.text import printable_values

Array = npt.NDArray[np.float64]
STAMP = re.compile(r"\d{8}T\d{6}(-[0-9a-f]{4})?$")  # of new_run_folder
UNFINISHED = ("running", "interrupted")  # status of a run that can still be finished
DIGITS = 8  # of a digest, in sentences


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
    """A finished run and where it is."""

    folder: Path
    record: dict[str, Any]
    entry: str | None = None  # what a grid calls it, where that is not the method's name

    @property
    def name(self) -> str:
        """What it is called where nothing else is needed to distinguish it."""
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

        Options of a data set that begin with ``train_`` are left out: the digest of the test
        episodes sees what they do to them. So are those that name a file, because the digest of the
        evaluated split sees its content. ``dataset`` is the name without a path.
        """
        record, test, config = self.record, self.record["test"], self.record["config"]
        files = digests(record)
        options = {
            name: value
            for name, value in config["dataset_options"].items()
            if not name.startswith("train_") and name != "split" and name not in files
        }
        named = (one["name"] for one in record["plugins"] if one["kind"] == "datasets")
        return {
            "dataset": next(named, record["dataset"]),
            "split": record["split"],
            "part": record["part"],
            **options,
            "query": record["task"]["query"],
            "sampling": test["sampling"],
            **sampler_protocol(record),
            "within_family": config["within_family"],
            "episode_seed": record["episode_seed"],
            "episodes": test["episodes"],
            "level": test["level"],
            "evaluated_digest": record["evaluated_digest"],
        }

    def columns(self, file: str, key: str, name: str) -> tuple[Array, Array]:
        """Two columns of a table, sorted by the first; RecordError: missing or damaged."""
        path = self.folder / file
        table = read_table(path, (key, name))
        if missing := [column for column in (key, name) if column not in table]:
            raise RecordError(f"'{path}' lacks data: it has no column '{missing[0]}'.")
        order = np.argsort(table[key], kind="stable")
        return table[key][order], table[name][order]

    def scores(self) -> tuple[Array, Array]:
        """Episode numbers and accuracies, sorted by episode; RecordError: missing or damaged."""
        episode, accuracy = self.columns("episodes.csv", "episode", "accuracy")
        if (episode[1:] == episode[:-1]).any():
            raise RecordError(f"'{self.folder}/episodes.csv' has an episode more than once.")
        return episode, accuracy

    def clusters(self) -> npt.NDArray[np.int64]:
        """The classes of each episode [episodes, way], sorted by episode, for ``class_interval``.

        Classes that share images, as the rotations of a character do, have one number.
        """
        file = "episodes.csv"
        kind = "group" if "group_0" in read_table(self.folder / file, ("group_0",)) else "class"
        names = [f"{kind}_{c}" for c in range(self.record["task"]["way"])]
        return np.stack([self.columns(file, "episode", n)[1] for n in names], 1).astype(np.int64)

    def checked_scores(self) -> tuple[Array, Array]:
        """:meth:`scores`; also raises if they are not complete or have not the record's mean."""
        episode, accuracy = self.scores()
        path, test = self.folder / "episodes.csv", self.record["test"]
        if len(episode) != test["episodes"]:
            raise RecordError(
                f"'{path}' has {len(episode)} episodes, its record {test['episodes']}; "
                "it may be cut off."
            )
        if not abs(float(accuracy.mean()) - test["accuracy"]) < 1e-6:
            raise RecordError(f"'{path}' does not hold the accuracies of its record.")
        return episode, accuracy


def age(run: Run) -> tuple[str, str]:
    """Sorts runs from the oldest to the newest, by the time in their ids."""
    run_id = run.record["id"]
    stamp = STAMP.search(run_id)
    return (stamp[0] if stamp else "", run_id)


def load_runs(
    paths: Iterable[Path], unfinished: list[str] | None = None
) -> tuple[list[Run], list[str]]:
    """The finished runs in these folders, and a line for each that is broken or did not finish.

    Arguments:
        paths: folders of runs, their ``record.json``, or folders with runs anywhere below.
        unfinished: receives the lines on runs that are running or can be resumed and that were not
            named themselves; default: they are with the problems.
    """
    runs, problems, paths = [], [], list(paths)
    themselves = {folder_of(path).resolve() for path in paths}
    seen, named = set[Path](), set[Path]()
    for path in paths:
        if path.resolve() in named:
            problems.append(f"'{path}' is named twice; it counts once.")
        named.add(path.resolve())
        for folder in run_folders(folder_of(path)) or [path]:
            at = folder.resolve()
            if at in seen:
                continue
            seen.add(at)
            try:
                record = printable_values(with_result(read_record(folder)))
            except RecordError as error:
                problems.append(str(error))
                continue
            if record["status"] == "completed" and record["test"]:
                runs.append(Run(folder, record))
            elif unfinished is None or at in themselves or record["status"] not in UNFINISHED:
                problems.append(_why(folder, record))
            else:
                unfinished.append(_why(folder, record))
    return runs, problems


def _why(folder: Path, record: dict[str, Any]) -> str:
    """Why a run has no result, in a line."""
    if record["status"] not in UNFINISHED:
        return f"'{folder}': {record['status']}: {record['error'] or 'it has no result'}"
    if is_locked(folder):
        return f"'{folder}' is still running; it has no result yet"
    return f"'{folder}' did not finish; to resume it: {resume_command(folder)}"


def run_folders(path: Path) -> list[Path]:
    """Folders with a record, in order; a link to a run counts, a link to more does not (loops)."""
    if (path / RECORD).is_file():
        return [path]
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError:
        return []
    found: list[Path] = []
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            inside = Path(entry.path)
            if not entry.is_symlink() or (inside / RECORD).is_file():
                found += run_folders(inside)
    return found


# --- The protocol in words: which sampler drew the episodes, and what they are.


def short(value: Any) -> str:
    """A value in a name or a sentence."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def digests(record: Mapping[str, Any]) -> dict[str, str]:
    """{what a run read, by its option: the beginning of the digest of its content}."""
    return {one["option"]: one["sha256"][:DIGITS] for one in record["inputs"]}


def contents(
    record: Mapping[str, Any], options: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Options with files by what is in them: one path can hold other content in every run."""
    read = digests(record)
    return {
        name: f"file {read[prefix + name]}" if value and prefix + name in read else value
        for name, value in options.items()
    }


def sampler_protocol(record: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a run's protocol that are about its sampler.

    ``sampler`` is its name, of a plugin with distribution and version, and its options, files by
    their content; ``sampler_code`` the digest of a plugin's code; ``unequal`` the parts of an
    episode that have other numbers of images per class than the task.
    """
    sampler, own = record["sampler"], record["task"]
    words, code = str(sampler["name"]), None
    if sampler["distribution"] != CORE:
        words += f" of {sampler['distribution']} {sampler['version']}".rstrip()
        code = sampler["code"][:DIGITS]
    given = contents(record, sampler["options"], "sampling_")
    words += f" ({', '.join(f'{n} {short(value)}' for n, value in given.items())})" if given else ""
    unequal = [part for part in ("query", "unlabeled") if sampler[part] != [own[part]] * 2]
    return {"sampler": words, "sampler_code": code, "unequal": " and ".join(unequal)}


def query_words(protocol: Mapping[str, Any]) -> str:
    """``15 queries per class``, where it is so; else what is so."""
    words, unequal = f"{protocol['query']} queries per class", protocol["unequal"]
    if "query" in unequal:
        words += " on average, of unequal classes"
    return words + (", unlabeled images of unequal classes" if "unlabeled" in unequal else "")


def sampler_words(protocol: Mapping[str, Any]) -> str:
    """`` drawn by dirichlet of fsb-dirichlet 1.0 (alpha 0.5)``; empty for a sampler of the core."""
    if protocol["sampler"] == protocol["sampling"] and protocol["sampler_code"] is None:
        return ""
    code = f", code {protocol['sampler_code']}" if protocol["sampler_code"] else ""
    return f" drawn by {protocol['sampler']}{code}"


def part_words(protocol: Mapping[str, Any]) -> str:
    """``, validation split``; empty for the test split."""
    return ", validation split" if protocol["part"] == VALIDATION else ""


def evaluated_words(protocol: Mapping[str, Any]) -> str:
    """What sets an evaluation apart from one of closed test episodes; empty where nothing does."""
    return part_words(protocol) + sampler_words(protocol)


# --- The command that repeats a run.

LOCAL = ("runs_dir", "cache_dir")  # where files are written changes no number


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a record's ``config``, options of plugins beside the others."""
    flat = {name: value for name, value in config.items() if name not in OPTION_FIELDS}
    return flat | {n: value for group in OPTION_FIELDS for n, value in config[group].items()}


def command_of(record: Mapping[str, Any]) -> str:
    """``fsb run maml --dataset omniglot --seed 2``: what was chosen; the rest are defaults.

    That of a run that evaluates another one's weights is the line that was typed.
    """
    if record["evaluated_from"]:
        program, *rest = shlex.split(record["command"]) or ["fsb"]
        return shlex.join(["fsb" if Path(program).name == "fsb" else program, *rest])
    config, values = record["config"], flat_settings(record["config"])
    words = ["fsb", "run", str(record["method"])]
    for name, source in config["sources"].items():
        if source != "user" or name not in values or name in LOCAL:
            continue
        typed, value = flag(name), values[name]
        if isinstance(value, bool):
            words.append(typed if value else f"--no-{typed[2:]}")
        elif isinstance(value, list | tuple):
            words += [typed, *map(str, value)]
        else:
            words += [typed, "none" if value is None else str(value)]
    for option, names in REPEATED.items():
        words += [word for name in config[names] for word in (flag(option), str(name))]
    return shlex.join(words)
