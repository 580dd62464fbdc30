"""Runs grouped into what is drawn as one: the training seeds of one configuration."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple, TypeVar

import numpy as np

from fewshot_bench.errors import RecordError
from fewshot_bench.figures import NothingToDraw, Request
from fewshot_bench.figures.style import Floats
from fewshot_bench.results.layout import labels, settings
from fewshot_bench.results.record import read_table
from fewshot_bench.results.runs import Run, Setting, age, evaluated_words

Value = TypeVar("Value")


class Series(NamedTuple):
    """Runs that differ only in their training seed, sorted by it."""

    label: str  # for the legend
    runs: list[Run]


def gather(runs: Sequence[Run], request: Request) -> list[Series]:
    """The series of these runs, in order of first appearance.

    Of duplicate runs (same settings and seed) the newest is used.
    """
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        trained = sorted(settings(run).items(), key=str)
        seeds = found.setdefault(repr((run.record["method"], trained, _place(run))), {})
        seed, newest = run.record["seed"], run
        if seed in seeds:
            older, newest = sorted((seeds[seed], run), key=age)
            request.leave_out(older, f"is a duplicate; using the newer '{newest.folder.name}'")
        seeds[seed] = newest
    chosen = [[seeds[seed] for seed in sorted(seeds)] for seeds in found.values()]
    names = run_names(without_seed(runs[0] for runs in chosen))
    for i, own in enumerate(chosen):
        seed = own[0].record["seed"]
        names[i] += f", {len(own)} seeds" if len(own) > 1 else f", seed {seed}" if seed else ""
    return [Series(name, own) for name, own in zip(names, chosen, strict=True)]


def without_seed(runs: Iterable[Run]) -> list[Run]:
    """The runs with seed 0, for names without a seed."""
    return [replace(run, record=run.record | {"seed": 0}) for run in runs]


def run_names(runs: Sequence[Run]) -> list[str]:
    """A unique name per run: method, differing settings, and differing task and data."""
    groups: dict[object, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(_place(run), []).append(i)
    named = {
        i: name
        for members in groups.values()
        for i, name in zip(members, labels([runs[i] for i in members]), strict=True)
    }
    several = len({run.setting[:2] for run in runs}) > 1
    return [
        ", ".join(filter(None, (named[i], str(Setting(*run.setting[:2])) if several else "", data)))
        for i, (run, data) in enumerate(zip(runs, data_names(runs), strict=True))
    ]


def data_names(runs: Sequence[Run]) -> list[str]:
    """A name per run that distinguishes the data; empty if all have the same data.

    Where :func:`short_data` is the same for several contents (another split of one folder), the
    beginning of the digest is added.
    """
    first = {_data(run): run for run in reversed(runs)}
    if len(first) == 1:
        return [""] * len(runs)
    counts = Counter(map(short_data, first.values()))
    names = {
        data: name + (f" {run.record['evaluated_digest'][:6]}" if counts[name] > 1 else "")
        for data, run in first.items()
        for name in [short_data(run)]
    }
    return [names[_data(run)] for run in runs]


def short_data(run: Run) -> str:
    """The data set (the last part of a path), with the split and sampler if they are unusual."""
    name, colon, path = str(run.record["dataset"]).partition(":")
    short = path.rstrip("/").rpartition("/")[2] if colon else name
    return short + evaluated_words(run.protocol())


def _place(run: Run) -> tuple[str, tuple[int, int]]:
    return _data(run), run.setting[:2]


def _data(run: Run) -> str:
    """What was evaluated: the data by content, the split if it is not the test's, the sampler."""
    protocol = run.protocol()
    return f"{protocol['dataset']} {protocol['evaluated_digest']}{evaluated_words(protocol)}"


def read_all(
    runs: Iterable[Run], request: Request, read: Callable[[Run], Value]
) -> list[tuple[Run, Value]]:
    """What ``read`` returns for each run for which it does not raise RecordError, if any."""
    found = []
    for run in runs:
        try:
            found.append((run, read(run)))
        except RecordError as error:
            request.leave_out(run, f"({error})")
    if not found:
        raise NothingToDraw
    return found


def read_series(
    runs: Sequence[Run], request: Request, read: Callable[[Run], Value]
) -> list[tuple[Series, list[Value]]]:
    """The same for each series of these runs; one without readable runs is left out."""
    shown = gather(runs, request)
    read_ones = read_all([run for one in shown for run in one.runs], request, read)
    values = {run.folder: value for run, value in read_ones}
    found = [Series(one.label, [run for run in one.runs if run.folder in values]) for one in shown]
    return [(one, [values[run.folder] for run in one.runs]) for one in found if one.runs]


def table_of(run: Run, name: str, *required: str) -> dict[str, Floats]:
    """A table of a run; RecordError if it is missing, empty, damaged, or lacks a column."""
    path = run.folder / name
    if not path.is_file():
        trained = run.record["training"] is not None
        raise RecordError(f"it has no {name}" if trained else "it trained nothing")
    table = read_table(path)
    for column in required:
        if column not in table:
            raise RecordError(f"its {name} has no column '{column}'")
    if not len(next(iter(table.values()), ())):
        raise RecordError(f"its {name} is empty")
    return table


def common_steps(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, list[Floats]]:
    """The steps that all curves (steps, values) have, and each curve's values there."""
    steps = reduce(np.intersect1d, [at for at, _ in curves])
    return steps, [values[np.searchsorted(at, steps)] for at, values in curves]


def range_text(series: Sequence[Series], single: str = "") -> str:
    """What bands show: the range over seeds; ``single`` of series with one seed."""
    several = "Several seeds: mean over the training seeds, band from the lowest to the highest."
    counts = {len(one.runs) for one in series}
    texts = (several if max(counts) > 1 else "", single if 1 in counts else "")
    return " ".join(filter(None, texts))


def device_names(series: Sequence[Series]) -> list[str]:
    """The devices of the runs, without duplicates."""
    return list(dict.fromkeys(r.record["device"]["name"] for s in series for r in s.runs))
