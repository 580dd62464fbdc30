"""Presets of methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewshot_bench.config.options import load, options_of, split_dataset
from fewshot_bench.errors import FewshotBenchError, PluginError, UnknownName
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
