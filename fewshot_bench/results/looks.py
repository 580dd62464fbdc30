"""How often a method was tried on the test split: the best of many is too high by the choice."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fewshot_bench.errors import RecordError
from fewshot_bench.results.labels import settings
from fewshot_bench.results.record.io import FILE, read_record
from fewshot_bench.results.record.part import TEST, part_of
from fewshot_bench.results.runs import Run
from fewshot_bench.results.traits import codes
from fewshot_bench.utils.text import printable_values

# What may be chosen, too, and so sets looks at one test split apart instead of splitting them up.
CHOSEN = ("episodes", "level", "episode_seed")


@dataclass(frozen=True)
class Looks:
    """Test evaluations of one method on one protocol, of all runs that lie together.

    Arguments:
        configurations: how many differ in a setting, or in the seed of their episodes.
        seeds: how many training seeds the most often trained configuration has; they are no looks,
            because all of them are reported.
        evaluations: of all configurations and seeds; the same one again counts once.
        best: the highest accuracy of a configuration, the mean over its seeds.
    """

    configurations: int
    seeds: int
    evaluations: int
    best: float


def looks_at(runs: Sequence[Run]) -> dict[int, Looks]:
    """The looks at the test split that each run is one of: {id(run): looks}.

    Runs of the validation split are no looks, and have none. Runs that lie in the same folders as
    these count too, shown or not.
    """
    shown = [run for run in runs if part_of(run.record) == TEST]
    everything = [*shown, *_beside(shown)]
    by_id = {run.record["id"]: run for run in everything}
    groups: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in everything:
        seeds = groups[_protocol(run)][_configuration(run, by_id)]
        seeds[run.record["seed"]] = run.record["test"]["accuracy"]
    found = {
        key: Looks(
            len(configurations),
            max(map(len, configurations.values())),
            sum(map(len, configurations.values())),
            max(fmean(seeds.values()) for seeds in configurations.values()),
        )
        for key, configurations in groups.items()
    }
    return {id(run): found[_protocol(run)] for run in shown}


def _protocol(run: Run) -> str:
    """One method on one test split and task."""
    protocol = {n: v for n, v in run.protocol().items() if n not in CHOSEN}
    return _text([run.record["method"], run.setting, sorted(protocol.items())])


def _configuration(run: Run, by_id: Mapping[str, Run]) -> str:
    """What was tried: all settings but the seed, and on which stream of episodes.

    An evaluation of a run's weights is of the configuration that trained them. Its record tells
    it; an older one does not, and then the run counts that it came from, through any number of
    evaluations.
    """
    told = run.seedless or run.record.get("training_summary") is not None
    own = settings(run) if told else settings(_trained(run, by_id)) | codes(run)
    return _text([sorted(own.items()), run.record["episode_seed"]])


def _trained(run: Run, by_id: Mapping[str, Run]) -> Run:
    """The run whose weights an evaluation used, as far as it is here."""
    seen: set[str] = set()
    origin = str(run.record.get("evaluated_from"))
    while origin in by_id and origin not in seen:
        seen.add(origin)
        run = by_id[origin]
        origin = str(run.record.get("evaluated_from"))
    return run


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _beside(runs: Iterable[Run]) -> list[Run]:
    """Finished runs with a test result in the folders where these lie, without these."""
    own = {run.folder.resolve() for run in runs}
    found = []
    for parent in sorted({folder.parent for folder in own}):
        for folder in _children(parent):
            if folder in own:
                continue
            try:
                record = printable_values(read_record(folder))
            except RecordError:
                continue
            if record["status"] == "completed" and record["test"] and part_of(record) == TEST:
                found.append(Run(folder, record))
    return found


def _children(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if (path / FILE).is_file())
    except OSError:
        return []
