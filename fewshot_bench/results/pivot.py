"""Which runs share a table, a column and a row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fewshot_bench.results.labels import settings
from fewshot_bench.results.runs import Run, Setting, age

# What is worth saying of two protocols that have not even their data in common.
ACROSS_DATA = ("dataset", "part", "way", "shot", "query", "sampling", "sampler", "episodes")
DIGESTS = {
    "dataset_digest": "data of other content",
    "evaluated_digest": "other classes or images in the evaluated split",
    "sampler_code": "a sampler of other code",
    "unequal": "other numbers of images per class",
    "episodes_digest": "other episodes",
}
# Of a record from before its content was recorded, beside one that has it.
NOT_RECORDED = "which classes and images were evaluated is not recorded of the older run"
# Compared by value in every column; other settings only where someone or something chose them.
BY_VALUE = ("preset", "plugin")  # and the code of plugins
CODE = "code of "
BY_PRESET = "by preset"


@dataclass
class Layout:
    """The runs of one table.

    Arguments:
        protocol: what they share.
        settings: the columns.
        rows: the runs of each row; one per setting and training seed.
        choices: of each row, the settings that were chosen for it.
        differs: why these cannot stand in the first table: one phrase per reason.
    """

    protocol: dict[str, Any]
    settings: list[Setting]
    rows: list[list[Run]]
    choices: list[Mapping[str, Any]]
    differs: tuple[str, ...]


def lay_out(runs: Iterable[Run], *, by_level: bool = True) -> tuple[list[Layout], list[str]]:
    """Part runs into tables, and the runs of each table into rows.

    Arguments:
        runs: in any order; the table of the first one is the first.
        by_level: whether intervals of different levels stand apart.

    Returns:
        The tables, and one line for each run that a newer one of the same replaces.
    """
    tables: dict[str, list[Run]] = {}
    protocols: dict[str, dict[str, Any]] = {}
    for protocol, members in _same_protocol(runs, by_level):
        for layer, part in enumerate(_same_episodes(members)):
            own = protocol | ({"episodes_digest": layer} if layer else {})
            key = repr(sorted(own.items()))
            protocols[key], tables[key] = own, part
    first = next(iter(protocols.values()), {})
    layouts, told = [], []
    for key, members in tables.items():
        rows, choices, replaced = _rows(members)
        told += replaced
        columns = sorted({run.setting for row in rows for run in row})
        differs = _differs(protocols[key], first, members[0], next(iter(tables.values()))[0])
        layouts.append(Layout(protocols[key], columns, rows, choices, differs))
    return layouts, told


def _same_protocol(runs: Iterable[Run], by_level: bool) -> list[tuple[dict[str, Any], list[Run]]]:
    groups: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        protocol = run.protocol()
        if not by_level:
            del protocol["level"]
        groups.setdefault(repr(sorted(protocol.items())), (protocol, []))[1].append(run)
    return list(groups.values())


def _same_episodes(runs: list[Run]) -> list[list[Run]]:
    """Within a setting all runs have the same episodes; others go to a further table.

    The first table gets the episodes that most runs of the setting have.
    """
    layers: list[list[Run]] = []
    by_setting: dict[Setting, list[Run]] = defaultdict(list)
    for run in runs:
        by_setting[run.setting].append(run)
    for members in by_setting.values():
        digests = Counter(run.record["episodes_digest"] for run in members)
        for layer, (digest, _) in enumerate(digests.most_common()):
            if layer == len(layers):
                layers.append([])
            layers[layer] += [run for run in members if run.record["episodes_digest"] == digest]
    return layers


def _differs(one: dict[str, Any], first: dict[str, Any], run: Run, its: Run) -> tuple[str, ...]:
    """What sets a protocol apart, in words; a digest only if nothing else tells.

    Arguments:
        one, first: the two protocols.
        run, its: a run of each, which tell the data sets as they were typed.
    """
    names = _unequal(one, first)
    if "dataset" in names or ("evaluated_digest" in names and _place(run) != _place(its)):
        one = one | {"dataset": run.record["dataset"]}
        first = first | {"dataset": its.record["dataset"]}
        names = _unequal(one, first)
    if all(
        protocol.get("sampler") == protocol.get("sampling") for protocol in (one, first)
    ):  # one word for both
        names = [n for n in names if n != "sampler"]
    older = len({"evaluated_digest" in protocol for protocol in (one, first)}) > 1
    if "dataset" in names or older:  # its own options are not what sets them apart
        names = [n for n in names if n in ACROSS_DATA]
    told = [NOT_RECORDED] * older + [
        f"{name} {one.get(name, 'not given')} instead of {first.get(name, 'not given')}"
        for name in names
        if name not in DIGESTS
    ]
    return tuple(told or [DIGESTS[name] for name in names])


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of what is not the same in two protocols, or in only one of them."""
    missing = object()
    return [n for n in {**other, **one} if one.get(n, missing) != other.get(n, missing)]


def _place(run: Run) -> Any:
    """Where a run's data were, however that was typed; None where the record does not tell."""
    inputs = run.record.get("inputs") or ()
    return next((read["absolute"] for read in inputs if read["option"] == "dataset"), None)


def episodes_differ(one: Run, first: Run) -> tuple[str, ...]:
    """Why two runs cannot be paired, one phrase per reason; empty if they can."""
    own, its = (
        {
            **run.protocol(),
            **run.setting._asdict(),
            "episodes_digest": run.record["episodes_digest"],
        }
        for run in (one, first)
    )
    return _differs(own, its, one, first)


def _rows(runs: list[Run]) -> tuple[list[list[Run]], list[Mapping[str, Any]], list[str]]:
    """Runs of one configuration, with what was chosen for it, and what was replaced."""
    methods: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        methods[run.name].append(run)
    rows: dict[str, list[Run]] = {}
    choices: dict[str, Mapping[str, Any]] = {}
    for method, members in methods.items():
        for run, chosen in zip(members, _chosen(members), strict=True):
            key = f"{method} {sorted(chosen.items())!r}"
            choices[key] = chosen
            rows.setdefault(key, []).append(run)
    told = []
    for key, members in rows.items():
        rows[key], replaced = _newest(members)
        told += replaced
    return list(rows.values()), list(choices.values()), told


def _chosen(runs: list[Run]) -> list[dict[str, str]]:
    """What was chosen for each of the runs of one method.

    A preset may give each column its own step count: what it decided is no difference between
    columns. It is one between runs of the same column, and what a user typed always is one,
    unless the preset of another run of the column says the same.
    """
    each = [settings(run) for run in runs]
    typed = [
        {n for n, source in (run.record["config"].get("sources") or {}).items() if source == "user"}
        for run in runs
    ]
    presets: dict[tuple[Setting, str], set[str]] = defaultdict(set)
    for run, own, given in zip(runs, each, typed, strict=True):
        for name in own.keys() - given:
            presets[run.setting, name].add(repr(own[name]))
    split = {name for (_, name), values in presets.items() if len(values) > 1} | set(BY_VALUE)
    names = list(dict.fromkeys(name for own in each for name in own))  # an old record has fewer
    split |= {name for name in names if name.startswith(CODE)}
    result = []
    for run, own, given in zip(runs, each, typed, strict=True):
        by_value = split | {
            name for name in given if repr(own.get(name)) not in presets[run.setting, name]
        }
        shown = by_value & own.keys()
        result.append({name: repr(own[name]) if name in shown else BY_PRESET for name in names})
    return result


def _newest(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """One run per setting and seed, and a line for each that a newer one replaces."""
    kept: dict[tuple[Setting, int], Run] = {}
    told = []
    for run in sorted(runs, key=age, reverse=True):
        seed = run.record["seed"]
        newer = kept.setdefault((run.setting, 0 if run.seedless else seed), run)
        if newer is not run and newer.record["seed"] == seed:
            told.append(
                f"'{run.folder}' is {run.record['method']} of seed {seed} on {run.setting} again; "
                f"the newer '{newer.record['id']}' counts."
            )
    return sorted(kept.values(), key=lambda run: (run.setting, run.record["seed"])), told
