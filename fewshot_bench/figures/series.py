"""Runs gathered into what is drawn as one: the seeds of one method, configured alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from fewshot_bench.errors import RecordError
from fewshot_bench.figures import Ask
from fewshot_bench.figures.style import Floats
from fewshot_bench.results.compare import Run
from fewshot_bench.results.labels import labels, settings
from fewshot_bench.results.protocol import evaluated_words
from fewshot_bench.results.runs import age
from fewshot_bench.results.tables import read_table

Value = TypeVar("Value")


@dataclass(frozen=True)
class Series:
    """Runs that differ in their training seed alone.

    Arguments:
        label: what a legend says.
        runs: by seed.
    """

    label: str
    runs: list[Run]

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.runs)


def gather(runs: Sequence[Run], ask: Ask) -> list[Series]:
    """The series in these runs, in the order in which they first come.

    A run that repeats another (settings and seed) is left out: the newest counts.
    """
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        seeds = found.setdefault(_configuration(run), {})
        seed, twin = run.record["seed"], seeds.get(run.record["seed"])
        if twin is not None:
            older, newer = sorted((twin, run), key=age)
            ask.lacks(older, f"is repeated by '{newer.folder.name}', which is newer")
            run = newer
        seeds[seed] = run
    chosen = [[seeds[seed] for seed in sorted(seeds)] for seeds in found.values()]
    return [Series(label, runs) for label, runs in zip(_labels(chosen), chosen, strict=True)]


def _configuration(run: Run) -> str:
    """Everything but the seed that a run's numbers depend on."""
    trained = sorted(settings(run).items(), key=str)
    return repr((run.record["method"], trained, setting(run), _data(run)))


def setting(run: Run) -> tuple[int, int]:
    """(way, shot) of the test episodes."""
    return run.record["task"]["way"], run.record["task"]["shot"]


def _data(run: Run) -> str:
    """What was evaluated: by content, which split of it if not the test's, by which sampler."""
    protocol = run.protocol()
    return f"{protocol['dataset']} {_content(run)}{evaluated_words(protocol)}"


def _content(run: Run) -> str:
    """The digest of what was evaluated; of an older record, that of the data set."""
    return str(run.record.get("evaluated_digest") or run.record["dataset_digest"])


def in_words(run: Run) -> str:
    """``5-way 1-shot``."""
    way, shot = setting(run)
    return f"{way}-way {shot}-shot"


def unseeded(runs: Iterable[Run]) -> list[Run]:
    """The same runs as if all were of seed 0: for names that do not tell the seed."""
    return [replace(run, record=run.record | {"seed": 0}) for run in runs]


def _labels(chosen: Sequence[Sequence[Run]]) -> list[str]:
    """A name for each series: the method, what sets it apart, and its setting where they differ."""
    first = [runs[0] for runs in chosen]
    names = apart(unseeded(first))
    for i, runs in enumerate(chosen):
        if len(runs) > 1:
            names[i] += f", {len(runs)} seeds"
        elif runs[0].record["seed"]:
            names[i] += f", seed {runs[0].record['seed']}"
    return names


def apart(runs: Sequence[Run]) -> list[str]:
    """One name per run; the method's settings are told among runs of one task only."""
    groups: dict[tuple[str, tuple[int, int]], list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault((_data(run), setting(run)), []).append(i)
    names = [""] * len(runs)
    for members in groups.values():
        for i, name in zip(members, labels([runs[i] for i in members]), strict=True):
            names[i] = name
    several = len({setting(run) for run in runs}) > 1
    for i, (run, data) in enumerate(zip(runs, data_names(runs), strict=True)):
        names[i] += f", {in_words(run)}" if several else ""
        names[i] += f", {data}" if data else ""
    return names


def data_names(runs: Sequence[Run]) -> list[str]:
    """What tells the data of these runs apart; empty where all have the same.

    It is :func:`short_data` of the first run that has them, and where that is one for several
    contents (another split of the same folder) the beginning of the digest, too.
    """
    first = {_data(run): run for run in reversed(runs)}
    if len(first) == 1:
        return [""] * len(runs)
    short = {data: short_data(run) for data, run in first.items()}
    counts = Counter(short.values())
    names = {
        data: f"{name} {_content(first[data])[:6]}" if counts[name] > 1 else name
        for data, name in short.items()
    }
    return [names[_data(run)] for run in runs]


def short_data(run: Run) -> str:
    """The data set, of a path its last part; with the split and sampler where they are others."""
    name, colon, path = str(run.record["dataset"]).partition(":")
    short = path.rstrip("/").rpartition("/")[2] if colon else name
    return short + evaluated_words(run.protocol())


def tables(
    series: Sequence[Series], ask: Ask, read: Callable[[Run], Value]
) -> list[tuple[Series, list[Value]]]:
    """What ``read`` makes of each run; one that raises RecordError is left out and told."""
    kept = []
    for one in series:
        runs, values = [], []
        for run in one.runs:
            try:
                values.append(read(run))
            except RecordError as error:
                ask.lacks(run, f"({error})")
                continue
            runs.append(run)
        if runs:
            kept.append((Series(one.label, runs), values))
    return kept


def table_of(run: Run, name: str, *needed: str) -> dict[str, Floats]:
    """A table of a run.

    Raises:
        RecordError: it is missing, empty, damaged, or lacks a column.
    """
    path = run.folder / name
    if not path.is_file():
        trained = run.record["training"] is not None
        raise RecordError(f"it has no {name}" if trained else "it trained nothing")
    table = read_table(path)
    for column in needed:
        if column not in table:
            raise RecordError(f"its {name} has no column '{column}'")
    if not len(next(iter(table.values()), ())):
        raise RecordError(f"its {name} is empty")
    return table


def over_seeds(values: Sequence[Floats]) -> tuple[Floats, Floats, Floats]:
    """Mean, smallest and largest over the seeds: [seeds][points] -> three of [points]."""
    stacked = np.stack(values)
    return stacked.mean(0), stacked.min(0), stacked.max(0)


def common_steps(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, list[Floats]]:
    """The steps that all curves (steps, values) have, and each curve's values there."""
    steps = curves[0][0]
    for other, _ in curves[1:]:
        steps = np.intersect1d(steps, other)
    return steps, [values[np.searchsorted(at, steps)] for at, values in curves]


def stretches(*columns: Floats, most: int = 50) -> list[list[Floats]]:
    """Columns of one length cut into at most ``most`` stretches of neighbors."""
    parts = min(most, len(columns[0]))
    return [list(np.array_split(column, parts)) for column in columns]


def span_words(series: Sequence[Series], one: str) -> str:
    """What a caption says of bands: over seeds where there are several, else ``one``."""
    several = any(s.seeds > 1 for s in series)
    words = "Several seeds: mean over the training seeds, band from the lowest to the highest."
    single = any(s.seeds == 1 for s in series)
    return " ".join(([words] if several else []) + ([one] if single and one else []))


def devices(series: Sequence[Series]) -> list[Any]:
    """The devices that the runs were on, each once."""
    return list(dict.fromkeys(r.record["device"]["name"] for s in series for r in s.runs))
