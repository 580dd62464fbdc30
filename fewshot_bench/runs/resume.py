"""Taking up a run again: one that was broken off, or the weights of one that ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.runs import build
from fewshot_bench.runs.identity import differing, origin_of, paths_of, settings_key
from fewshot_bench.config.presets import placed
from fewshot_bench.utils.files import sweep
from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.engine.outside import Outside
from fewshot_bench.engine.checkpointing.state import random_states, set_random_states
from fewshot_bench.engine.weights import load_weights
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, RecordError
from fewshot_bench.utils.inputs import check_weights
from fewshot_bench.method import Method, title_of
from fewshot_bench.runs.context import Parts, describe
from fewshot_bench.results.record.io import resume_command
from fewshot_bench.results.tables import read_table

# Of the machine; they may change the last bits of a sum, and no more.
MACHINE = ("cpu", "threads", "python")
# Settings that do not change the score of an episode.
ANSWERED_ALIKE = ("init", "metrics", "level", "engine", "task_chunk", "allow_overlap")
MOST_OTHER = 0.01  # of the episodes: more cannot be a last digit that decides between two classes


def taken_up(
    parts: Parts, folder: Path, before: dict[str, Any], *, allow_changes: bool
) -> dict[str, Any]:
    """The record of a run that goes on, as it stands before anything more is trained.

    Arguments:
        parts: of the run, as they are now.
        folder: of the run; leftovers of a process that was killed are removed.
        before: its record.
        allow_changes: go on also if the result will be of more than one origin, with a note.

    Raises:
        RecordError: data, code or versions are others than those that the run began with.
    """
    record = describe(parts, folder)
    other = changed(before, record)
    what = " and ".join(other)
    if other and not allow_changes:
        raise RecordError(
            f"'{folder}' was begun with other {what}: its result would be of both. Run it again "
            f"(fsb run ... --if-exists fresh), or: {resume_command(folder)} --allow-changes"
        )
    record["notes"] += [note for note in before["notes"] if note not in record["notes"]]
    if other:
        _note(parts, record, f"the run was interrupted and went on with other {what}")
    then, now = before["environment"], record["environment"]
    moved = [f"{name} {then.get(name)}, then {now[name]}" for name in MACHINE
             if then.get(name) != now[name]]  # fmt: skip
    if moved:
        _note(
            parts,
            record,
            f"the run was interrupted and went on elsewhere ({'; '.join(moved)}): the last bits of "
            "sums may be others than on one machine",
        )
    for name in ("id", "command", "config"):
        record[name] = before[name]
    typed = {entry["option"]: entry["path"] for entry in before["inputs"] or ()}
    for entry in record["inputs"]:  # with the configuration, which is as it was typed, too
        entry["path"] = typed.get(entry["option"], entry["path"])
    record["timing"]["interruptions"] = before["timing"].get("interruptions", 0) + 1
    sweep(folder)
    return record


def finished(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a run that has an end, with which there is nothing to go on.

    Raises:
        RecordError: its weights are not those that it tells of.
    """
    if record["weights"] is not None:  # older ones had none to check
        check_weights(folder, record)
    return record


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two records came from besides their settings, where it is not the same.

    An older record does not tell what was read; then nothing is said of that.
    """
    one, other = origin_of(before), origin_of(now)
    if before["inputs"] is None:
        other = {name: value for name, value in other.items() if name in one}
    return differing(one, other)


def _note(parts: Parts, record: dict[str, Any], text: str) -> None:
    parts.progress.message(text)
    if text not in record["notes"]:
        record["notes"].append(text)


def load_trained(parts: Parts, folder: Path, before: Mapping[str, Any]) -> list[str]:
    """Put the weights that made a run's result into its method, as it is built now.

    Arguments:
        parts: of the run, as they are now.
        folder: of the run.
        before: its record.

    Returns:
        Sentences that a reader of a new result has to know: what is other than it was.

    Raises:
        RecordError: the run goes on or was killed, or its weights are missing or were changed.
        ConfigError: they do not fit.
    """
    if before["status"] == "running":
        raise RecordError(
            f"'{folder}' has no result yet: it goes on, or was killed. To end it: "
            f"{resume_command(folder)}"
        )
    load_weights(parts.method, folder, before)
    notes = []
    if before["status"] != "completed":
        reached = (before["training"] or {}).get("steps")
        notes.append(
            f"the weights are those of a run that did not finish ({before['status']} after step "
            f"{reached} of {parts.config.steps})"
        )
    if before["weights"] is None:
        notes.append(
            "the run's record is of a fewshot-bench that kept no digest of the weights: whether "
            "the file is the one that the run wrote is not known"
        )
    if other := _other_than_in(before, describe(parts, folder)):
        notes.append(f"other than in the run whose weights these are: {'; '.join(other)}")
    return notes


def _other_than_in(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What an evaluation does with a run's weights that the run did not, and nobody asked for.

    Settings are not among it: who evaluates a run chooses some of them. What both name counts.
    """
    found = []
    for name, then, today in (
        ("torch", before["environment"].get("torch"), now["environment"]["torch"]),
        ("device", before["device"]["type"], now["device"]["type"]),
    ):
        if then != today:
            found.append(f"{name} ({then} then, {today} now)")
    versions = {(t["kind"], t["name"]): t["version"] for t in before["plugins"]}
    for thing in now["plugins"]:
        then = versions.get((thing["kind"], thing["name"]), thing["version"])
        if then != thing["version"]:
            found.append(f"version of {thing['name']} ({then} then, {thing['version']} now)")
    settings = ("dataset", "dataset_options", "data_root")
    meant = placed(before["config"], before["inputs"])
    same_data = all(meant.get(name) == now["config"].get(name) for name in settings)
    read = {entry["option"]: entry for entry in before["inputs"] or ()}
    for entry in now["inputs"]:
        then = read.get(entry["option"])
        if then is None or then["sha256"] == entry["sha256"]:
            continue
        if entry["option"] == "dataset":
            found += ["images, classes or split of the data"] if same_data else []
        elif entry["option"].startswith("code "):
            found.append(entry["option"])
        elif entry["absolute"] == then["absolute"]:
            found.append(f"content of '{entry['path']}'")
    return found


def held_against(
    folder: Path, before: Mapping[str, Any], target: Path, record: Mapping[str, Any]
) -> str | None:
    """Hold an evaluation that repeats a run's own test against that test, episode by episode.

    Arguments:
        folder, before: of the run (or of an evaluation), and its record.
        target, record: of the evaluation, whose weights are the same.

    Returns:
        A sentence, if a few episodes have other scores, or if it is another machine; None if there
        are none, or if it is another test.

    Raises:
        PluginError: on the same machine more than one episode in a hundred has another score.
    """
    if _asked(before) != _asked(record) or before["status"] != "completed":
        return None
    then, now = (read_table(path / "episodes.csv")["accuracy"] for path in (folder, target))
    other = int((then != now).sum())
    if not other:
        return None
    told = (
        f"evaluated again with the weights of '{folder}', {other} of the same {len(now)} episodes "
        f"have other scores ({then.mean():.2%} there, {now.mean():.2%} here)"
    )
    machines = [
        (one["device"]["name"], *(one["environment"].get(name) for name in MACHINE))
        for one in (before, record)
    ]
    if other > MOST_OTHER * len(now) and machines[0] == machines[1]:
        raise PluginError(
            f"{told}: what the method answers depends on something outside of its weights, which "
            "the next process does not have."
        )
    return f"{told}: sums may round otherwise"


def _asked(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What has to be the same in two records of one test with one set of weights."""
    free = dict.fromkeys(ANSWERED_ALIKE)
    inputs = [entry for entry in record["inputs"] or () if entry["option"] != "init"]
    return (
        settings_key({**record["config"], **free}, paths_of(inputs)),
        origin_of({**record, "inputs": inputs}),
        *(record[name] for name in ("part", "episodes_digest")),
    )


class Twin:
    """The run's method, built once more before anything is trained, to hold the weights against.

    What a method keeps elsewhere than in its weights (a plain attribute, a buffer that is not
    persistent, an attribute of its class, a name of its module) is lost with the process: no later
    evaluation could give the run's number.

    Arguments:
        parts: of the run.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts, self._looked, states = parts, False, random_states()
        try:
            config = replace(parts.config, init=None)
            self._twin = build.build(config, parts.registry, parts.method.task, parts.device)
        finally:
            set_random_states(states)
        self._outside = Outside(parts.method)

    def first_look(self) -> None:
        """The same as :meth:`check`, once: soon enough to lose little of a long training."""
        if not self._looked:
            self.check()

    def check(self) -> None:
        """See that the weights, read into the twin, predict what the run's method does.

        Raises:
            PluginError: they do not.
        """
        method, states, self._looked = self._parts.method, random_states(), True
        try:
            self._twin.load_state_dict(method.state_dict())
            source = self._parts.validation or self._parts.test  # the test's only after training
            episode = source.batch(range(1))
            mine = self._logits(method, episode)
            with self._outside.restored() as changed:
                other = self._logits(self._twin, episode)
        finally:
            set_random_states(states)
        # The same arithmetic on the same numbers; a GPU may sum in another order.
        near = 1e-3 * float(mine.abs().nan_to_num().max())
        if not torch.allclose(mine, other, rtol=0, atol=near, equal_nan=True):
            kept = f"; it changed {', '.join(changed[:3])}" if changed else ""
            raise PluginError(
                f"{title_of(method)}: its weights do not hold all that it learned: a copy with the "
                f"same parameters and buffers predicts something else{kept}. Make what changes in "
                "training a parameter or a persistent buffer, or give it in get_extra_state()."
            )

    def _logits(self, method: Method, episode: Episode) -> Tensor:
        lowering = self._parts.lowering
        plain = Eager(method, precision=lowering.precision, task_chunk=lowering.task_chunk)
        training = method.training
        method.eval()
        try:
            return plain.predict(episode).logits
        finally:
            method.train(training)
