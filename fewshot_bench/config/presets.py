"""Presets of methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewshot_bench.config.options import load, options_of, split_dataset
from fewshot_bench.errors import PluginError, UnknownName
from fewshot_bench.hooks.registry import Registry


def preset_of(
    registry: Registry, method: str, values: Mapping[str, Any], *, needed: bool
) -> dict[str, Any]:
    """The settings of ``values["preset"]`` for this method, data set and task.

    Arguments:
        needed: there has to be such a preset; else none means no settings.

    Raises:
        UnknownName: the method has none of this name for this data set and task.
        PluginError: the method's ``presets`` are malformed.
    """
    from fewshot_bench.episode import Task  # imports torch
    from fewshot_bench.method import preset_settings

    kind, item = load(registry, "methods", method), registry.resolve("methods", method)
    dataset, _ = split_dataset(registry, values["dataset"])
    data = load(registry, "datasets", dataset)
    task = Task(values["way"], values["shot"], values["query"])
    name = values["preset"]
    try:
        settings = preset_settings(kind, name, data, task)
        known = [n for n in kind.presets if preset_settings(kind, n, data, task) is not None]
    except Exception as error:
        raise PluginError(f"{item.title}: preset '{name}': {error}.") from error
    if settings is None and needed:
        hint = f"These are for {method} on {dataset}, {task.way}-way {task.shot}-shot."
        if name in kind.presets:
            hint += f" '{name}' exists for another --dataset, --way or --shot."
        raise UnknownName("preset", name, known, hint)
    settings = settings or {}
    for option in options_of(kind):
        if option.method and option.name in settings:
            inner = settings[option.name]
            settings[option.name] = registry.settled("methods", inner, item.distribution)
    return settings
