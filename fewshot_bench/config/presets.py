"""What is chosen where nobody typed: presets, and names that keep their meaning.

A default such as a sampler's name means the one of the distribution that chose it, also when
another plugin claims the name: to install something must not change or break what did not name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot_bench.config.options import load, options_of, split_dataset
from fewshot_bench.config.schema import OPTIONS
from fewshot_bench.errors import ConfigError, FewshotBenchError, PluginError, UnknownName
from fewshot_bench.hooks.registry import Registry


def preset_of(
    registry: Registry, method: str, values: Mapping[str, Any], *, needed: bool
) -> dict[str, Any]:
    """The settings of ``values["preset"]`` for this method, data set and task.

    Arguments:
        needed: there has to be such a preset; else none means no settings.

    Raises:
        UnknownName: the method has none of this name.
        PluginError: its ``presets`` raises or returns something else than settings.
    """
    from fewshot_bench.episode import Task  # imports torch

    kind = load(registry, "methods", method)
    dataset, _ = split_dataset(registry, values["dataset"])
    task = Task(values["way"], values["shot"], values["query"])
    dataset = registry.resolve("datasets", dataset).name  # a preset knows no distributions
    title = registry.resolve("methods", method).title
    what = f"presets('{values['preset']}', '{dataset}', ...) of {title}"
    try:
        preset = kind.presets(values["preset"], dataset, task)
    except FewshotBenchError:
        raise
    except Exception as error:
        raise PluginError(f"{what} raised {type(error).__name__}: {error}.") from error
    if preset is None and needed:
        known = [n for n in kind.preset_names() if kind.presets(n, dataset, task) is not None]
        hint = f"These are for {method} on {dataset}, {task.way}-way {task.shot}-shot."
        if values["preset"] in kind.preset_names():
            hint += f" '{values['preset']}' is there for another --dataset, --way or --shot."
        raise UnknownName("preset", values["preset"], known, hint)
    if not isinstance(preset, Mapping | None):
        got = type(preset).__name__
        raise PluginError(f"{what} returned {got}; a dictionary or None is wanted.")
    settings = dict(preset or {})
    author = registry.resolve("methods", method).distribution
    for option in options_of(kind):
        if option.method and option.name in settings:
            inner = settings[option.name]
            settings[option.name] = registry.settled("methods", inner, author)
    return settings


def settle(registry: Registry, values: dict[str, Any], choosers: Mapping[str, str]) -> None:
    """Let the names of backbone, sampler and data set mean the same everywhere; changes ``values``.

    Arguments:
        choosers: {setting: the distribution whose default it is}, of those that nobody typed.
    """
    for setting, kind in (("backbone", "backbones"), ("sampling", "samplers")):
        if values[setting] is not None:
            values[setting] = registry.settled(kind, values[setting], choosers.get(setting))
    name, path = split_dataset(registry, values["dataset"])
    name = registry.settled("datasets", name, choosers.get("dataset"))
    values["dataset"] = name if path is None else f"{name}:{path}"


# What is taken for granted of a record's configuration; the options hold the rest against theirs.
_TYPES: dict[str, Any] = {
    "method": str,
    "dataset": str,
    "backbone": str | None,
    "sampling": str,
    "metrics": list | tuple,
    "observers": list | tuple,
    "method_options": dict,
    "backbone_options": dict,
    "dataset_options": dict,
    "sampling_options": dict,
    "sources": dict,
}


def refuse_wrong_types(config: Mapping[str, Any], names: Iterable[str] = tuple(_TYPES)) -> None:
    """Hold these settings of a record's configuration against their types.

    Raises:
        ConfigError: one is missing, or of another type.
    """
    for name in names:
        value = config.get(name, ...)
        words = value if isinstance(value, list | tuple) else ()
        if not isinstance(value, _TYPES[name]) or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"the record's configuration: '{name}' is of the wrong type.")


def with_paths(config: Mapping[str, Any], paths: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """The configuration of a record with other texts for some of its paths.

    Arguments:
        config: of the record.
        paths: {option: (as it stands there, what is put in its place)}; of ``dataset`` it is what
            stands behind the colon, or the ``data_root``.
    """
    values = dict(config)
    for name, (typed, other) in paths.items():
        if name == "dataset":
            if str(values["dataset"]).endswith(f":{typed}"):
                values["dataset"] = values["dataset"].removesuffix(typed) + other
            elif values.get("data_root") == typed:
                values["data_root"] = other
        elif values.get(name) == typed:
            values[name] = other
        else:
            for group in OPTIONS:
                options = values.get(group)
                if isinstance(options, Mapping) and options.get(name) == typed:
                    values[group] = {**options, name: other}
    return values


def placed(config: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """The configuration of a record with its paths as they can be found from any folder.

    A path was typed as seen from the folder in which the run was started. Its absolute form is
    used where something is there; else the path as typed, as after a move to another machine.

    Arguments:
        config: of the record.
        inputs: of the record; None in older ones.
    """
    return with_paths(
        config,
        {
            entry["option"]: (entry["path"], entry["absolute"])
            for entry in inputs or ()
            if entry["path"] and entry["absolute"] and Path(entry["absolute"]).exists()
        },
    )


def as_recorded(registry: Registry, record: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a record: its names those of the distributions that it ran with.

    Its paths are those that can be found from here; see :func:`placed`.
    """
    config, things = record["config"], record["plugins"]
    origin = {(thing["kind"], thing["name"]): thing["distribution"] for thing in things}
    refuse_wrong_types(config, ("method", "dataset", "backbone", "sampling"))
    values = placed(config, record["inputs"])
    method = values["method"]
    values["method"] = registry.settled("methods", method, origin.get(("methods", method)))
    name, _ = split_dataset(registry, values["dataset"])
    chosen = {
        "backbone": ("backbones", values["backbone"]),
        "sampling": ("samplers", values["sampling"]),
        "dataset": ("datasets", name),
    }
    known = {setting: origin[key] for setting, key in chosen.items() if key in origin}
    settle(registry, values, known)
    return values
