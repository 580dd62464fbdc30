"""Continuing from a run's files: its configuration, its record when it resumes, its weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.config.options import split_dataset
from fewshot_bench.config.resolve import settle
from fewshot_bench.config.schema import SETTINGS, RunConfig
from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.hidden_state import SharedState
from fewshot_bench.engine.weights import load_weights
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError, RecordError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import Method, title_of
from fewshot_bench.results.record import read_table, resume_command
from fewshot_bench.runs.identity import differing, origin_of, paths_of, settings_key, with_paths
from fewshot_bench.runs.prepare import PreparedRun, describe, new_method
from fewshot_bench.utils.files import sweep
from fewshot_bench.utils.generators import global_generators, restore_generators

logger = logging.getLogger(__name__)

# Facts about the machine, which may change the last bits of a sum, and no more.
MACHINE_FACTS = ("cpu", "threads", "python")
MOST_DIFFERENT = 0.01  # of the episodes; more is not rounding that decides between two classes


def recorded_config(registry: Registry, record: Mapping[str, Any]) -> RunConfig:
    """The configuration of a record, with its names and paths as they resolve here and now.

    Names are those of the distributions that the run used. A path was typed relative to the folder
    in which the run was started: its absolute form is used where something is there, else the path
    as typed, as after a move to another machine.

    Raises:
        ConfigError: it is not valid.
    """
    values = RunConfig.from_dict(record["config"]).to_dict()
    origin = {(one["kind"], one["name"]): one["distribution"] for one in record["plugins"]}
    values = as_placed(values, record["inputs"])
    method = values["method"]
    values["method"] = registry.settled("methods", method, origin.get(("methods", method)))
    name, _ = split_dataset(registry, values["dataset"])
    keys = {
        "backbone": ("backbones", values["backbone"]),
        "sampling": ("samplers", values["sampling"]),
        "dataset": ("datasets", name),
    }
    settle(registry, values, {n: origin[key] for n, key in keys.items() if key in origin})
    return RunConfig.from_dict(values)


def as_placed(
    config: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]] | None
) -> dict[str, Any]:
    """A record's configuration with the absolute forms of those of its paths that exist."""
    return with_paths(
        config,
        {
            entry["option"]: (entry["path"], entry["absolute"])
            for entry in inputs or ()
            if entry["path"] and entry["absolute"] and Path(entry["absolute"]).exists()
        },
    )


def resumed_record(
    run: PreparedRun, folder: Path, before: Mapping[str, Any], *, allow_changes: bool
) -> dict[str, Any]:
    """The record of a run that resumes, as it stands before anything more is trained.

    Arguments:
        run: as prepared now.
        folder: of the run; leftovers of a process that was killed are removed.
        before: its record.
        allow_changes: also resume where data, code or versions changed, with a note.

    Raises:
        RecordError: data, code or versions differ from those that the run started with.
    """
    record = describe(run, folder)
    changed = _changed(before, record)
    what = " and ".join(changed)
    if changed and not allow_changes:
        raise RecordError(
            f"'{folder}' was started with different {what}; resuming would mix them. Start over "
            f"(fsb run ... --if-exists fresh), or: {resume_command(folder)} --allow-changes"
        )
    record["notes"] += [note for note in before["notes"] if note not in record["notes"]]
    if changed:
        _note(record, f"the run was interrupted and resumed with different {what}")
    then, now = before["environment"], record["environment"]
    moved = [
        f"{name} {then.get(name)}, then {now[name]}"
        for name in MACHINE_FACTS
        if then.get(name) != now[name]
    ]
    if moved:
        _note(
            record,
            f"the run was interrupted and resumed on another machine ({'; '.join(moved)}): the "
            "last bits of sums may differ from those of one machine",
        )
    for name in ("id", "command", "config"):
        record[name] = before[name]
    typed = {entry["option"]: entry["path"] for entry in before["inputs"] or ()}
    for entry in record["inputs"]:  # as typed at the start, as in the configuration
        entry["path"] = typed.get(entry["option"], entry["path"])
    record["timing"]["interruptions"] = before["timing"].get("interruptions", 0) + 1
    sweep(folder)
    return record


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two records came from besides their settings, where it differs.

    An older record does not say what was read; then that is not compared.
    """
    one, other = origin_of(before), origin_of(now)
    if before["inputs"] is None:
        other = {name: value for name, value in other.items() if name in one}
    return differing(one, other)


def _note(record: dict[str, Any], text: str) -> None:
    logger.info(text)
    if text not in record["notes"]:
        record["notes"].append(text)


def load_trained(run: PreparedRun, folder: Path, before: Mapping[str, Any]) -> list[str]:
    """Load the weights that made a run's result.

    Arguments:
        run: as prepared now; its method gets the weights.
        folder: of the run.
        before: its record.

    Returns:
        Notes for the reader of a new result: what differs from then.

    Raises:
        RecordError: the run is not finished, or its weights are missing or were changed.
        ConfigError: they do not fit.
    """
    if before["status"] == "running":
        raise RecordError(
            f"'{folder}' has no result yet: it is running, or was killed. To finish it: "
            f"{resume_command(folder)}"
        )
    load_weights(run.method, folder, before)
    notes = []
    if before["status"] != "completed":
        reached = (before["training"] or {}).get("steps")
        notes.append(
            f"the weights are those of a run that did not finish ({before['status']} after step "
            f"{reached} of {run.config.steps})"
        )
    if before["weights"] is None:
        notes.append(
            "the run's record is of a fewshot-bench that stored no digest of the weights: whether "
            "the file is the one that the run wrote is not known"
        )
    if different := _different_from(before, describe(run, folder)):
        notes.append(f"different from the run that made the weights: {'; '.join(different)}")
    return notes


def _different_from(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What an evaluation uses that the run did not, and nobody asked for.

    Settings do not count: whoever evaluates a run chooses some of them.
    """
    found = []
    for name, then, today in (
        ("torch", before["environment"].get("torch"), now["environment"]["torch"]),
        ("device", before["device"]["type"], now["device"]["type"]),
    ):
        if then != today:
            found.append(f"{name} ({then} then, {today} now)")
    versions = {(t["kind"], t["name"]): t["version"] for t in before["plugins"]}
    for plugin in now["plugins"]:
        then = versions.get((plugin["kind"], plugin["name"]), plugin["version"])
        if then != plugin["version"]:
            found.append(f"version of {plugin['name']} ({then} then, {plugin['version']} now)")
    settings = ("dataset", "dataset_options", "data_root")
    placed = as_placed(before["config"], before["inputs"])
    same_data = all(placed.get(name) == now["config"].get(name) for name in settings)
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


def compare_repeated(
    folder: Path, before: Mapping[str, Any], target: Path, record: Mapping[str, Any]
) -> str | None:
    """Compare an evaluation that repeats a run's own test with that test, episode by episode.

    Arguments:
        folder, before: of the run (or of an evaluation), and its record.
        target, record: of the evaluation with the same weights.

    Returns:
        A note, if a few episodes have other scores, or if it is another machine; None if there are
        none, or if it is another test.

    Raises:
        PluginError: on the same machine more than one episode in a hundred has another score.
    """
    if _tested(before) != _tested(record) or before["status"] != "completed":
        return None
    then, now = (read_table(path / "episodes.csv")["accuracy"] for path in (folder, target))
    different = int((then != now).sum())
    if not different:
        return None
    note = (
        f"evaluated again with the weights of '{folder}', {different} of the same {len(now)} "
        f"episodes have different scores ({then.mean():.2%} there, {now.mean():.2%} here)"
    )
    machines = [
        (one["device"]["name"], *(one["environment"].get(name) for name in MACHINE_FACTS))
        for one in (before, record)
    ]
    if different > MOST_DIFFERENT * len(now) and machines[0] == machines[1]:
        raise PluginError(
            f"{note}: the method's predictions depend on something outside of its weights, which "
            "the next process does not have."
        )
    return f"{note}: sums may round differently"


def _tested(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What is the same in two records of one test with one set of weights."""
    free = {name: None for name, option in SETTINGS.items() if option.same_scores}
    inputs = [entry for entry in record["inputs"] or () if entry["option"] != "init"]
    return (
        settings_key({**record["config"], **free}, paths_of(inputs)),
        origin_of({**record, "inputs": inputs}),
        *(record[name] for name in ("part", "episodes_digest")),
    )


class WeightsCheck:
    """Checks that a method's weights alone determine its predictions.

    The run's method is built once more before anything is trained. State outside of the weights (a
    plain attribute, a buffer that is not persistent, an attribute of its class, a name of its
    module) is lost with the process: no later evaluation could give the run's number.

    Arguments:
        run: before its training.
    """

    def __init__(self, run: PreparedRun) -> None:
        self._run, self._checked, states = run, False, global_generators()
        try:
            context = run.context.with_config(replace(run.config, init=None))
            self._copy = new_method(context, run.method.task, run.context.device)
        finally:
            restore_generators(states)
        self._outside = SharedState(run.method)

    def check_early(self) -> None:
        """:meth:`check`, at the first call alone, early in a long training."""
        if not self._checked:
            self.check()

    def check(self) -> None:
        """Check that a copy with the same weights predicts what the run's method does.

        Raises:
            PluginError: it does not.
        """
        method, states, self._checked = self._run.method, global_generators(), True
        try:
            self._copy.load_state_dict(method.state_dict())
            source = self._run.validation or self._run.test  # the test's only after training
            episode = source.batch(range(1))
            mine = self._logits(method, episode)
            with self._outside.restored() as changed:
                other = self._logits(self._copy, episode)
        finally:
            restore_generators(states)
        # The same arithmetic on the same numbers; a GPU may sum in another order.
        near = 1e-3 * float(mine.abs().nan_to_num().max())
        if not torch.allclose(mine, other, rtol=0, atol=near, equal_nan=True):
            kept = f"; it changed {', '.join(changed[:3])}" if changed else ""
            raise PluginError(
                f"{title_of(method)}: its weights do not hold all that it learned: a copy with the "
                f"same parameters and buffers predicts something else{kept}. Make what changes in "
                "training a parameter or a persistent buffer, or return it from get_extra_state()."
            )

    def _logits(self, method: Method, episode: Episode) -> Tensor:
        executor = self._run.executor
        plain = Eager(method, precision=executor.precision, task_chunk=executor.task_chunk)
        training = method.training
        method.eval()
        try:
            return plain.predict(episode).logits
        finally:
            method.train(training)
