"""Which runs share a table, a column and a row; and names that distinguish runs and rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fewshot_bench.hooks.registry import CORE
from fewshot_bench.results.runs import Run, Setting, age, contents, short
from fewshot_bench.results.training import (
    NOT_TRAINING,
    codes,
    settings_then,
    trained_digest,
    without_path,
)

# What is worth saying of two protocols that have not even their data in common.
ACROSS_DATA = ("dataset", "part", "way", "shot", "query", "sampling", "sampler", "episodes")
DIGESTS = {
    "evaluated_digest": "other classes or images in the evaluated split",
    "sampler_code": "a sampler of other code",
    "unequal": "other numbers of images per class",
    "episodes_digest": "other episodes",
}
# Compared by value in every column; other settings only where someone or something chose them.
BY_VALUE = ("preset", "plugin")  # and the code of plugins
CODE = "code of "
BY_PRESET = "by preset"
# Settings that do not change what was trained, or that `settings` reads elsewhere.
ASIDE = NOT_TRAINING | {"dataset", "within_family"}
MOST = 3  # settings in a name; more would be a table of their own


@dataclass
class Layout:
    """The runs of one table."""

    protocol: dict[str, Any]  # what they share
    settings: list[Setting]  # the columns
    rows: list[list[Run]]  # the runs of each row; one per setting and training seed
    names: list[str]  # of the rows
    differs: tuple[str, ...]  # why these cannot be in the first table: a phrase per reason


def lay_out(runs: Iterable[Run], *, by_level: bool = True) -> tuple[list[Layout], list[str]]:
    """Part runs into tables, that of the first run first, and the runs of each table into rows.

    With ``by_level`` intervals of different levels are in separate tables. The second value
    has a line for each run that a newer one of the same replaces.
    """
    groups: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        protocol = {n: v for n, v in run.protocol().items() if by_level or n != "level"}
        groups.setdefault(repr(sorted(protocol.items())), (protocol, []))[1].append(run)
    tables = [
        (protocol | ({"episodes_digest": layer} if layer else {}), part)
        for protocol, members in groups.values()
        for layer, part in enumerate(_same_episodes(members))
    ]
    layouts, problems = list[Layout](), list[str]()
    for protocol, members in tables:
        rows, choices, replaced = _rows(members)
        problems += replaced
        columns = sorted({run.setting for row in rows for run in row})
        differs = _differs(protocol, tables[0][0], members[0], tables[0][1][0])
        layouts.append(Layout(protocol, columns, rows, _row_names(rows, choices), differs))
    return layouts, problems


def _same_episodes(runs: list[Run]) -> list[list[Run]]:
    """Within a setting of a table all runs have the same episodes, those of most runs first."""
    parts: dict[Setting, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        parts[run.setting][run.record["episodes_digest"]].append(run)
    layers: dict[int, list[Run]] = defaultdict(list)
    for of_digest in parts.values():
        for layer, part in enumerate(sorted(of_digest.values(), key=len, reverse=True)):
            layers[layer] += part
    return list(layers.values())


def _differs(one: dict[str, Any], first: dict[str, Any], run: Run, its: Run) -> tuple[str, ...]:
    """What sets protocol ``one``, of ``run``, apart; a digest only if nothing else does."""

    if one["dataset"] != first["dataset"] or (
        one["evaluated_digest"] != first["evaluated_digest"] and _place(run) != _place(its)
    ):
        one = one | {"dataset": run.record["dataset"]}
        first = first | {"dataset": its.record["dataset"]}
    missing = object()
    names = [n for n in {**first, **one} if one.get(n, missing) != first.get(n, missing)]
    if all(protocol["sampler"] == protocol["sampling"] for protocol in (one, first)):
        names = [n for n in names if n != "sampler"]  # one word for both
    if "dataset" in names:  # its own options are not what sets them apart
        names = [n for n in names if n in ACROSS_DATA]
    reasons = [
        f"{name} {one.get(name, 'not given')} instead of {first.get(name, 'not given')}"
        for name in names
        if name not in DIGESTS
    ]
    return tuple(reasons or [DIGESTS[name] for name in names])


def _place(run: Run) -> Any:
    """Where a run's data were, however that was typed; None of a data set without a path."""
    inputs = run.record["inputs"]
    return next((read["absolute"] for read in inputs if read["option"] == "dataset"), None)


def episodes_differ(one: Run, first: Run) -> tuple[str, ...]:
    """Why two runs cannot be paired, one phrase per reason; empty if they can."""
    own, its = (
        run.protocol() | run.setting._asdict() | {"episodes_digest": run.record["episodes_digest"]}
        for run in (one, first)
    )
    return _differs(own, its, one, first)


def _rows(runs: list[Run]) -> tuple[list[list[Run]], list[Mapping[str, Any]], list[str]]:
    """Runs of one configuration, with what was chosen for it, and what was replaced."""
    methods: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        methods[run.name].append(run)
    rows: dict[str, tuple[Mapping[str, Any], list[Run]]] = {}
    for method, members in methods.items():
        for run, chosen in zip(members, _chosen(members), strict=True):
            key = f"{method} {sorted(chosen.items())!r}"
            rows.setdefault(key, (chosen, []))[1].append(run)
    newest = [_newest(members) for _, members in rows.values()]
    replaced = [line for _, lines in newest for line in lines]
    return [members for members, _ in newest], [chosen for chosen, _ in rows.values()], replaced


def _chosen(runs: list[Run]) -> list[dict[str, str]]:
    """What was chosen for each of the runs of one method.

    What a preset decided, such as a step count, may differ between columns, but not between runs
    of one column. What a user typed is a difference unless another run's preset says the same.
    """
    each = [
        (settings(run), {n for n, by in run.record["config"]["sources"].items() if by == "user"})
        for run in runs
    ]
    presets: dict[tuple[Setting, str], set[str]] = defaultdict(set)
    for run, (own, typed) in zip(runs, each, strict=True):
        for name in own.keys() - typed:
            presets[run.setting, name].add(repr(own[name]))
    names = list(dict.fromkeys(name for own, _ in each for name in own))
    split = {name for (_, name), values in presets.items() if len(values) > 1}
    split |= {*BY_VALUE, *(name for name in names if name.startswith(CODE))}
    result = []
    for run, (own, typed) in zip(runs, each, strict=True):
        shown = split | {n for n in typed if repr(own.get(n)) not in presets[run.setting, n]}
        shown &= own.keys()
        result.append({name: repr(own[name]) if name in shown else BY_PRESET for name in names})
    return result


def _newest(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """One run per setting and seed, and a line for each that a newer one replaces."""
    newest, lines = dict[tuple[Setting, int], Run](), []
    for run in sorted(runs, key=age, reverse=True):
        seed = run.record["seed"]
        newer = newest.setdefault((run.setting, 0 if run.seedless else seed), run)
        if newer is not run and newer.record["seed"] == seed:
            lines.append(
                f"'{run.folder}' duplicates {run.record['method']} of seed {seed} on "
                f"{run.setting}; using the newer '{newer.record['id']}'."
            )
    return sorted(newest.values(), key=lambda run: (run.setting, run.record["seed"])), lines


# --- Names of runs and of rows.


def labels(runs: Sequence[Run]) -> list[str]:
    """One name per run: its method or entry of a grid, and in brackets the settings in which it
    differs from its like; where none does, the last part of its id."""
    values = [{"seed": run.record["seed"], **settings(run)} for run in runs]
    return _distinguished(runs, values, values)


def _row_names(rows: Sequence[Sequence[Run]], choices: Sequence[Mapping[str, Any]]) -> list[str]:
    """One name per row of a table: ``maml``, ``maml (steps 200)``, ``maml (seed 2)``.

    ``choices`` are what was chosen for each row; the names in which they differ distinguish rows.
    """
    keys, values = [], []
    for row, chosen in zip(rows, choices, strict=True):
        seeds = {run.record["seed"] for run in row}
        alone = {"seed": row[0].record["seed"]} if len(seeds) == 1 and not row[0].seedless else {}
        # What a preset gives each column its own has no one value.
        first, *others = [settings(run) for run in row]
        common = {
            name: value if all(one.get(name) == value for one in others) else BY_PRESET
            for name, value in first.items()
        }
        keys.append({**alone, **chosen})
        values.append(alone | common)
    return _distinguished([row[0] for row in rows], keys, values)


def seeds_of(row: Sequence[Run]) -> str:
    """``3 seeds``; ``2 to 3 seeds`` where the settings have different numbers; else empty."""
    counts = sorted(set(Counter(run.setting for run in row).values()))
    if counts[-1] == 1:
        return ""
    return f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seeds"


def settings(run: Run) -> dict[str, Any]:
    """What was trained, also by another run: every setting that decides it, but the seed."""
    then, plugin, digest = settings_then(run), run.record["plugin"], trained_digest(run)
    data = PurePath(str(then["dataset"]).removeprefix(f"{CORE}:").partition(":")[0]).name
    flat: dict[str, Any] = {
        **codes(run),
        "trained_on": f"{data} {digest[:6]}" if digest else "nothing",
        "train_within_family": then["within_family"],
    }
    for key, value in (run.record["config"] | then).items():
        if isinstance(value, dict):
            own = key.endswith("_options") and key not in ASIDE
            flat |= _options(run, key, value) if own else {}
        elif key not in ASIDE:
            flat[key] = without_path(run, value)
    if digest := (run.record["training_summary"] or {}).get("init_digest"):
        flat["init"] = digest[:6]  # by content: a path may have had others, or have moved
    return flat | {"plugin": f"{plugin['distribution']} {plugin['version']}"}


def _options(run: Run, key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with files by content; those of the data set by what was read with them."""
    read = contents(run.record, options)
    found = {name: without_path(run, value) for name, value in read.items()}
    if key != "dataset_options":
        return found
    digest = trained_digest(run)
    what = f"data {digest[:6]}" if digest else "none"
    return {name: value if value == options[name] else what for name, value in found.items()}


def _distinguished(
    runs: Sequence[Run], keys: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Names with the ``values`` of those ``keys`` in which runs of one name differ."""
    names = [
        run.name + (f" (seed {one['seed']})" if one.get("seed") else "")
        for run, one in zip(runs, keys, strict=True)
    ]
    for name, count in Counter(run.name for run in runs).items():
        if count < 2:
            continue
        same = [i for i, run in enumerate(runs) if run.name == name]
        differ = list(dict.fromkeys(key for i in same for key in keys[i]))
        differ = [key for key in differ if len({repr(keys[i].get(key)) for i in same}) > 1]
        for i in same:
            shown = [key for key in differ[:MOST] if key in values[i]]
            words = ", ".join(f"{key} {short(values[i][key])}" for key in shown)
            names[i] = f"{name} ({words})" if words else name
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [
        f"{name} {run.record['id'].rsplit('-', 1)[-1]}" if name in repeated else name
        for name, run in zip(names, runs, strict=True)
    ]
