"""Equal training settings for the rows of a grid: ``--equal``, before anything runs.

Where rows differ in a setting that is named, the value that the user typed counts for all of them;
for the counts of the training task, else the evaluation's; anything else is refused, because no
row's own value is better than another's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fewshot_bench.config.options import flag, load
from fewshot_bench.config.resolve import configure
from fewshot_bench.config.schema import FOLLOWERS, RunConfig
from fewshot_bench.engine.training import check_players
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.results.runs import Run
from fewshot_bench.results.training import BY_NAME, unequal
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.identity import settings_key
from fewshot_bench.runs.prepare import describe, method_task, new_method, prepare

NO_BACKBONE = {"backbone": "none"}  # the trait of a method without a backbone


@dataclass(frozen=True)
class Draft:
    """A run of a grid before settings are equalized.

    Arguments:
        name: of its row.
        method: of its row.
        settings: all that was typed for it.
        config: the configuration from these settings.
    """

    name: str
    method: str
    settings: Mapping[str, Any]
    config: RunConfig


def equalized(drafts: Sequence[Draft], names: Sequence[str], registry: Registry) -> list[RunConfig]:
    """The configurations of the rows of one column, equal in these traits of training.

    Arguments:
        drafts: the rows.
        names: of traits; see :func:`fewshot_bench.results.training.equal_names`.
        registry: what is installed.

    Raises:
        ConfigError: rows differ in one of them, and nothing says which value counts.
    """
    planned = _Planned(registry, drafts[0].config)
    drafts = list(drafts)
    for name in (name for name in BY_NAME if name in names and BY_NAME[name].settings):
        settled: set[str] = set()
        while (field := _first_differing(drafts, name, registry, planned)) is not None:
            if field in settled:
                raise ConfigError(_refusal(name, field, drafts, registry, planned))
            settled.add(field)
            value = _value(name, field, drafts, registry, planned)
            drafts = [
                _with(name, draft, field, value, registry) if planned.trains(draft) else draft
                for draft in drafts
            ]
    why = unequal([(draft.name, [planned.run(draft)]) for draft in drafts], names)
    if why is not None:
        raise ConfigError(f"--equal {why[0]}: {why[1]}; no option sets it, so nothing was run.")
    return [draft.config for draft in drafts]


class _Planned:
    """Facts about drafts before they run; reads the data and builds the methods."""

    def __init__(self, registry: Registry, config: RunConfig) -> None:
        self.context = RunContext(config, registry)
        self._trains: dict[str, bool] = {}

    def trains(self, draft: Draft) -> bool:
        """Whether the method has anything to train; its training episodes need not be possible."""
        key = settings_key(draft.config.to_dict())
        if key not in self._trains:
            context = self.context.with_config(draft.config)
            method = new_method(context, method_task(context), torch.device("cpu"))
            self._trains[key] = bool(check_players(method))
        return self._trains[key]

    def run(self, draft: Draft) -> Run:
        """The run that the draft would become, as far as its record is about training."""
        config = replace(draft.config, observers=(), metrics=(), device="cpu")
        record = describe(prepare(self.context.with_config(config)), Path("planned"))
        record["training"] = {"steps": config.steps} if self.trains(draft) else None
        return Run(Path("planned"), record)


def _fields(name: str, config: RunConfig, registry: Registry) -> dict[str, Any]:
    """The settings that make a trait, one by one, as they are typed."""
    found: dict[str, Any] = {}
    for setting in BY_NAME[name].settings:
        value = getattr(config, setting)
        if setting == "dataset_options":
            own = name == "augmentation"  # its options, or the others, which say what the data are
            found |= {n: v for n, v in value.items() if n.startswith("train_") == own}
        elif setting == "backbone_options":
            found |= value
        else:
            found[setting] = value
    if name == "backbone" and not load(registry, "methods", config.method).wants_backbone:
        return NO_BACKBONE
    return found


def _first_differing(
    drafts: Sequence[Draft], name: str, registry: Registry, planned: _Planned
) -> str | None:
    each = [_fields(name, draft.config, registry) for draft in drafts]
    if all(fields == each[0] for fields in each):
        return None
    each = [f for f, draft in zip(each, drafts, strict=True) if planned.trains(draft)]
    keys = dict.fromkeys(key for fields in each for key in fields)
    missing = object()
    return next(
        (
            key
            for key in keys
            if any(f.get(key, missing) != each[0].get(key, missing) for f in each)
        ),
        None,
    )


def _value(
    name: str, field: str, drafts: Sequence[Draft], registry: Registry, planned: _Planned
) -> Any:
    """Which value counts for all rows.

    Raises:
        ConfigError: nothing says so.
    """
    rows = [draft for draft in drafts if planned.trains(draft)]
    typed = [_fields(name, d.config, registry).get(field) for d in rows if field in d.settings]
    distinct = {repr(value): value for value in typed}
    if len(distinct) == 1:
        return typed[0]
    if not distinct and field in FOLLOWERS:
        return getattr(rows[0].config, FOLLOWERS[field])
    raise ConfigError(_refusal(name, field, drafts, registry, planned))


def _refusal(
    name: str, field: str, drafts: Iterable[Draft], registry: Registry, planned: _Planned
) -> str:
    rows = [draft for draft in drafts if planned.trains(draft)]
    values = []
    for draft in rows:
        source = "typed" if field in draft.settings else draft.config.sources.get(field, "default")
        value = _fields(name, draft.config, registry).get(field, "no such option")
        values.append(f"{draft.name} {value} ({source})")
    key = flag(field).lstrip("-")
    advice = f"choose one for all rows: --{key} VALUE, or {key} = VALUE at the top of a file"
    if any(field in draft.settings for draft in rows):
        advice = f"give {key} once, for all rows"
    return f"--equal {name}: rows differ in {key}: {', '.join(values)}; {advice}."


def _with(name: str, draft: Draft, field: str, value: Any, registry: Registry) -> Draft:
    """The draft with another value of a setting; unchanged without a backbone to choose."""
    fields = _fields(name, draft.config, registry)
    if fields.get(field) == value or fields == NO_BACKBONE:
        return draft
    settings = {**draft.settings, field: value}
    return replace(draft, settings=settings, config=configure(draft.method, registry, **settings))
