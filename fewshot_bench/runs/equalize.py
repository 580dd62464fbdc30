"""Equal training settings for the rows of a grid: ``--equal``, before anything runs.

Where rows differ, the value that the user typed counts for all; for the counts of the training
task, else the evaluation's; anything else is refused: no row's own value is better than another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_MISSING = object()
NO_BACKBONE = {"backbone": "none"}  # the trait of a method without a backbone


@dataclass(frozen=True)
class Draft:
    """A row of a grid before settings are equalized: what was typed for it, and what that gives."""

    name: str
    method: str
    settings: Mapping[str, Any]
    config: RunConfig


def equalized(drafts: Sequence[Draft], names: Sequence[str], registry: Registry) -> list[RunConfig]:
    """The configurations of the rows of one column, equal in these traits (``equal_names``).

    Raises:
        ConfigError: rows differ in one of them, and nothing says which value counts.
    """
    planned = _Planned(registry, drafts[0].config)
    drafts = list(drafts)
    for name in (name for name in BY_NAME if name in names and BY_NAME[name].settings):
        drafts = _settle(name, drafts, planned)
    why = unequal([(draft.name, [planned.run(draft)]) for draft in drafts], names)
    if why is not None:
        raise ConfigError(f"--equal {why[0]}: {why[1]}; no option sets it, so nothing was run.")
    return [draft.config for draft in drafts]


class _Planned:
    """Facts about drafts before they run; reads the data and builds the methods."""

    def __init__(self, registry: Registry, config: RunConfig) -> None:
        self.registry, self.context = registry, RunContext(config, registry)
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

    def fields(self, name: str, config: RunConfig) -> dict[str, Any]:
        """The settings that make a trait, one by one, as they are typed."""
        if name == "backbone" and not load(self.registry, "methods", config.method).wants_backbone:
            return NO_BACKBONE
        found: dict[str, Any] = {}
        for setting in BY_NAME[name].settings:
            value = getattr(config, setting)
            if setting == "dataset_options":
                own = name == "augmentation"  # its options, or the others: what the data are
                found |= {n: v for n, v in value.items() if n.startswith("train_") == own}
            else:
                found |= value if setting == "backbone_options" else {setting: value}
        return found


def _settle(name: str, drafts: list[Draft], planned: _Planned) -> list[Draft]:
    """The rows, equal in one trait: one of its settings after the other."""
    settled: set[str] = set()
    while True:
        each = [planned.fields(name, draft.config) for draft in drafts]
        rows = [(d, f) for d, f in zip(drafts, each, strict=True) if planned.trains(d)]
        keys = dict.fromkeys(key for _, fields in rows for key in fields)
        differing = (k for k in keys if len({repr(f.get(k, _MISSING)) for _, f in rows}) > 1)
        field = next(differing, None)
        if field is None or all(fields == each[0] for fields in each):
            return drafts
        typed = {repr(f.get(field)): f.get(field) for d, f in rows if field in d.settings}
        if len(typed) > 1 or field in settled or not (typed or field in FOLLOWERS):
            raise ConfigError(_refusal(name, field, rows))
        settled.add(field)
        value = next(iter(typed.values()), None)
        if not typed:
            value = getattr(rows[0][0].config, FOLLOWERS[field])
        for draft, fields in rows:
            if fields.get(field) != value and fields != NO_BACKBONE:
                typed_now = {**draft.settings, field: value}
                config = configure(draft.method, planned.registry, **typed_now)
                changed = replace(draft, settings=typed_now, config=config)
                drafts[drafts.index(draft)] = changed


def _refusal(name: str, field: str, rows: Sequence[tuple[Draft, Mapping[str, Any]]]) -> str:
    values = []
    for draft, fields in rows:
        source = "typed" if field in draft.settings else draft.config.sources.get(field, "default")
        values.append(f"{draft.name} {fields.get(field, 'no such option')} ({source})")
    key = flag(field).lstrip("-")
    advice = f"choose one for all rows: --{key} VALUE, or {key} = VALUE at the top of a file"
    if any(field in draft.settings for draft, _ in rows):
        advice = f"give {key} once, for all rows"
    return f"--equal {name}: rows differ in {key}: {', '.join(values)}; {advice}."
