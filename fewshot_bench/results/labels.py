"""Names that tell the runs and the rows of one table apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from fewshot_bench.hooks.registry import CORE
from fewshot_bench.results.runs import Run
from fewshot_bench.results.training import settings_then
from fewshot_bench.results.traits import codes, contents, trained_digest, without_path

# Settings of a configuration that do not change what was trained.
ASIDE = {
    "method", "dataset", "sources", "given", "runs_dir", "data_root", "cache_dir", "device",
    "metrics", "observers", "episodes", "level", "sampling", "episode_seed", "way", "shot", "query",
    "unlabeled", "distractors", "within_family", "profile", "detect_anomaly", "pictures", "engine",
    "task_chunk", "seed", "checkpoint_every", "keep_checkpoints", "allow_overlap",
    "sampling_options",
}  # fmt: skip
MOST = 3  # settings in a label; more would be a table of their own


def labels(runs: Sequence[Run]) -> list[str]:
    """One name per run: its method, and in brackets what sets it apart from its like.

    Runs of one method, or of one entry of a grid, get the settings in which they differ, or,
    where none does, the last part of their id.
    """
    told = [{"seed": run.record["seed"], **settings(run)} for run in runs]
    return _told_apart(runs, told, told)


def row_names(rows: Sequence[Sequence[Run]], choices: Sequence[Mapping[str, Any]]) -> list[str]:
    """One name per row of a table: ``maml``, ``maml (steps 200)``, ``maml (seed 2)``.

    Arguments:
        rows: the runs of each row, of one configuration; several seeds, several settings.
        choices: what was chosen for each row; the names in which they differ tell rows apart.
    """
    seeds = [sorted({run.record["seed"] for run in row}) for row in rows]
    alone = [
        {"seed": own[0]} if len(own) == 1 and not row[0].seedless else {}
        for row, own in zip(rows, seeds, strict=True)
    ]
    values = [{**one, **_common(row)} for one, row in zip(alone, rows, strict=True)]
    keys = [{**one, **chosen} for one, chosen in zip(alone, choices, strict=True)]
    return _told_apart([row[0] for row in rows], keys, values)


def seeds_of(row: Sequence[Run]) -> str:
    """``3 seeds``; ``2 to 3 seeds`` where the settings have different numbers; else empty."""
    settings_of = [run.setting for run in row]
    counts = sorted({settings_of.count(setting) for setting in settings_of})
    if counts[-1] == 1:
        return ""
    return f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seeds"


def _common(row: Sequence[Run]) -> dict[str, Any]:
    """The settings of a row's runs; what a preset gives each column its own has no one value."""
    each = [settings(run) for run in row]
    return {
        name: value if all(one.get(name) == value for one in each) else "by preset"
        for name, value in each[0].items()
    }


def settings(run: Run) -> dict[str, Any]:
    """What was trained: every setting that decides it under its plain name, but the seed.

    Of a run that evaluates another one's weights, the settings that these were trained with.
    """
    then = settings_then(run)
    flat: dict[str, Any] = {**codes(run), "trained_on": trained_on(run)}
    flat |= {"train_within_family": then["within_family"]} if "within_family" in then else {}
    for key, value in (run.record["config"] | then).items():
        if isinstance(value, dict):
            own = key.endswith("_options") and key not in ASIDE
            flat |= _options(run, key, value) if own else {}
        elif key not in ASIDE:
            flat[key] = without_path(run, value)
    digest = (run.record.get("training_summary") or {}).get("init_digest")
    if digest and flat.get("init"):  # by content: a path may have had others, or have moved
        flat["init"] = digest[:6]
    plugin = run.record["plugin"]
    return flat | {"plugin": f"{plugin.get('distribution')} {plugin.get('version')}"}


def _options(run: Run, key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with files by content; those of the data set by what was read with them."""
    found = {name: without_path(run, value) for name, value in contents(run, options).items()}
    digest = trained_digest(run)
    if key != "dataset_options" or not (digest or run.seedless):
        return found
    read = f"data {digest[:6]}" if digest else "none"
    return {name: value if value == options[name] else read for name, value in found.items()}


def trained_on(run: Run) -> str:
    """The data set of the training, and which content of it; where it was does not count.

    Of an older record, the last part of the path, and the digest that the data set has for itself.
    """
    if run.seedless:
        return "nothing"
    text = str(settings_then(run).get("dataset", run.record["dataset"]))
    name, colon, path = text.removeprefix(f"{CORE}:").partition(":")
    if digest := trained_digest(run):
        return f"{PurePath(name).name} {digest[:6]}"
    summary = run.record.get("training_summary") or run.record
    return f"{PurePath(path).name if colon else name} {summary['dataset_digest'][:6]}"


def _told_apart(
    runs: Sequence[Run], keys: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Names with the ``values`` of those ``keys`` in which runs of one name differ."""
    names = [
        run.name + (f" (seed {one['seed']})" if one.get("seed") else "")
        for run, one in zip(runs, keys, strict=True)
    ]
    for name in {run.name for run in runs}:
        alike = [i for i, run in enumerate(runs) if run.name == name]
        if len(alike) < 2:
            continue
        differ = list(dict.fromkeys(key for i in alike for key in keys[i]))
        differ = [key for key in differ if len({repr(keys[i].get(key)) for i in alike}) > 1]
        for i in alike:
            shown = [key for key in differ[:MOST] if key in values[i]]
            words = ", ".join(f"{key} {_short(values[i][key])}" for key in shown)
            names[i] = f"{name} ({words})" if words else name
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [
        f"{name} {run.record['id'].rsplit('-', 1)[-1]}" if name in repeated else name
        for name, run in zip(names, runs, strict=True)
    ]


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
