"""Continuing from a run's files: its configuration, its record when it resumes, its weights."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot_bench.config.options import split_dataset
from fewshot_bench.config.resolve import KIND_OF, settle
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
    """
    values = RunConfig.from_dict(record["config"]).to_dict()
    values = as_placed(values, record["inputs"])
    origin = {(one["kind"], one["name"]): one["distribution"] for one in record["plugins"]}
    method, (name, _) = values["method"], split_dataset(registry, values["dataset"])
    values["method"] = registry.settled("methods", method, origin.get(("methods", method)))
    keys = {n: (kind, values[n]) for n, kind in KIND_OF.items()} | {"dataset": ("datasets", name)}
    settle(registry, values, {n: origin[key] for n, key in keys.items() if key in origin})
    return RunConfig.from_dict(values)


def as_placed(config: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A record's configuration with the absolute forms of those of its paths that exist."""
    placed = [e for e in inputs if e["path"] and e["absolute"] and Path(e["absolute"]).exists()]
    return with_paths(config, {e["option"]: (e["path"], e["absolute"]) for e in placed})


def resumed_record(
    run: PreparedRun, folder: Path, before: Mapping[str, Any], *, allow_changes: bool
) -> dict[str, Any]:
    """The record of a run that resumes, as it stands before anything more is trained.

    Leftovers of a killed process are removed. RecordError for changes that are not allowed.
    """
    record = describe(run, folder)
    what = " and ".join(differing(origin_of(before), origin_of(record)))
    if what and not allow_changes:
        started = f"'{folder}' was started with different {what}; resuming would mix them"
        fresh, how = "fsb run ... --if-exists fresh", resume_command(folder)
        raise RecordError(f"{started}. Start over ({fresh}), or: {how} --allow-changes")
    record["notes"] += [note for note in before["notes"] if note not in record["notes"]]
    if what:
        add_notes(record, f"the run was interrupted and resumed with different {what}")
    then, now = before["environment"], record["environment"]
    moved = [f"{n} {then[n]}, then {now[n]}" for n in MACHINE_FACTS if then[n] != now[n]]
    if moved:
        where = f"the run was interrupted and resumed on another machine ({'; '.join(moved)})"
        add_notes(record, f"{where}: the last bits of sums may differ from those of one machine")
    record |= {name: before[name] for name in ("id", "command", "config")}
    typed = {entry["option"]: entry["path"] for entry in before["inputs"]}
    for entry in record["inputs"]:  # as typed at the start, as in the configuration
        entry["path"] = typed.get(entry["option"], entry["path"])
    record["timing"]["interruptions"] = before["timing"]["interruptions"] + 1
    sweep(folder)
    return record


def add_notes(record: dict[str, Any], *notes: str) -> None:
    """Add notes to the record, and show those that are new."""
    for note in notes:
        if note not in record["notes"]:
            record["notes"].append(note)
            logger.info(note)


def load_trained(run: PreparedRun, folder: Path, before: Mapping[str, Any]) -> list[str]:
    """Load the weights that made a run's result; returns notes on what differs from then.

    RecordError if there is no result, or the weights were changed; ConfigError if they do not fit.
    """
    if before["status"] == "running":
        why = f"'{folder}' has no result yet: it is running, or was killed"
        raise RecordError(f"{why}. To finish it: {resume_command(folder)}")
    load_weights(run.method, folder, before)
    notes = []
    if before["status"] != "completed":
        reached = (before["training"] or {}).get("steps")
        after = f"{before['status']} after step {reached} of {run.config.steps}"
        notes.append(f"the weights are those of a run that did not finish ({after})")
    if different := _different_from(before, describe(run, folder)):
        notes.append(f"different from the run that made the weights: {'; '.join(different)}")
    return notes


def _different_from(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences between a run and its evaluation, other than in settings."""
    both = before, now
    pairs: list[tuple[Any, ...]] = [
        ("torch", *(record["environment"]["torch"] for record in both)),
        ("device", *(record["device"]["type"] for record in both)),
    ]
    versions = {(t["kind"], t["name"]): t["version"] for t in before["plugins"]}
    for plugin in now["plugins"]:
        then = versions.get((plugin["kind"], plugin["name"]), plugin["version"])
        pairs.append((f"version of {plugin['name']}", then, plugin["version"]))
    found = [f"{name} ({then} then, {here} now)" for name, then, here in pairs if then != here]
    settings = ("dataset", "dataset_options", "data_root")
    placed = as_placed(before["config"], before["inputs"])
    same_data = all(placed.get(name) == now["config"][name] for name in settings)
    read = {entry["option"]: entry for entry in before["inputs"]}
    for entry in now["inputs"]:
        then = read.get(entry["option"], entry)
        if then["sha256"] == entry["sha256"]:
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
    """A note, if an evaluation repeats a run's own test and episodes have other scores.

    PluginError if on the same machine more than one episode in a hundred has.
    """
    if _tested(before) != _tested(record) or before["status"] != "completed":
        return None
    then, now = (read_table(path / "episodes.csv")["accuracy"] for path in (folder, target))
    different = int((then != now).sum())
    if not different:
        return None
    again = f"evaluated again with the weights of '{folder}'"
    means = f"{then.mean():.2%} there, {now.mean():.2%} here"
    episodes = f"{different} of the same {len(now)} episodes"
    note = f"{again}, {episodes} have different scores ({means})"
    one, other = (
        (r["device"]["name"], *map(r["environment"].get, MACHINE_FACTS)) for r in (before, record)
    )
    if different > MOST_DIFFERENT * len(now) and one == other:
        outside = "the method's predictions depend on something outside of its weights"
        raise PluginError(f"{note}: {outside}, which the next process does not have.")
    return f"{note}: sums may round differently"


def _tested(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What is the same in two records of one test with one set of weights."""
    free = {name: None for name, option in SETTINGS.items() if option.same_scores}
    inputs = [entry for entry in record["inputs"] if entry["option"] != "init"]
    return (
        settings_key({**record["config"], **free}, paths_of(inputs)),
        origin_of({**record, "inputs": inputs}),
        *(record[name] for name in ("part", "episodes_digest")),
    )


class WeightsCheck:
    """Checks that a method's weights alone determine its predictions.

    State outside of them (a plain attribute, a buffer that is not persistent, an attribute of its
    class, a name of its module) is lost with the process: no later evaluation could give the run's
    number. So the method is built once more before anything is trained.
    """

    def __init__(self, run: PreparedRun) -> None:
        self._run, self.checked, states = run, False, global_generators()
        try:
            context = run.context.with_config(replace(run.config, init=None))
            self._copy = new_method(context, run.method.task, run.context.device)
        finally:
            restore_generators(states)
        self._outside = SharedState(run.method)

    def check(self) -> None:
        """Raise PluginError unless a copy with the same weights predicts what the method does."""
        method, states, self.checked = self._run.method, global_generators(), True
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
        executor, training = self._run.executor, method.training
        plain = Eager(method, precision=executor.precision, task_chunk=executor.task_chunk)
        method.eval()
        try:
            return plain.predict(episode).logits
        finally:
            method.train(training)
