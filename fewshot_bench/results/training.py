"""How the runs of rows were trained, and in what their trainings differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fewshot_bench.results.runs import Run
from fewshot_bench.results.traits import BY_NAME, TRAITS, UNTRAINED, Trait

__all__ = [
    "against_words",
    "differing",
    "differing_names",
    "settings_then",
    "texts",
    "trained",
    "training_of",
]


def settings_then(run: Run) -> Mapping[str, Any]:
    """The settings that a run's weights were trained with.

    A run that evaluates another one's weights has the configuration of its test.
    """
    summary = run.record.get("training_summary")
    config: Mapping[str, Any] = run.record["config"]
    if summary is not None:
        return {**config, **summary["settings"]}
    if run.record.get("evaluated_from"):  # an older record, which lost what eval may change
        return {n: v for n, v in config.items() if n not in _CHANGED_BY_EVAL}
    return config


_CHANGED_BY_EVAL = ("dataset", "dataset_options", "within_family", "init")


def training_of(run: Run) -> dict[str, Any] | None:
    """{name of a trait: its JSON value}; None for a method that has nothing to train.

    Of weights that were not trained, only what they are is told (``UNTRAINED``). ``chosen_step``
    is beside the traits: the step whose weights validation chose.
    """
    untrained = run.record["training"] is None
    if untrained and not run.record["parameters"]:
        return None
    then = settings_then(run)
    found = {
        trait.name: None if untrained and trait.name not in UNTRAINED else trait.read(run, then)
        for trait in TRAITS
    }
    return found | {"chosen_step": (run.record["validation"] or {}).get("best_step")}


Group = Sequence[Run]  # the runs of a cell: seeds of one configuration


def _values(trait: Trait, runs: Iterable[Run]) -> dict[str, Any]:
    """The distinct known values of these runs, each under what it is told apart by."""
    each = [found[trait.name] for run in runs if (found := training_of(run)) is not None]
    each = [value for value in each if value is not None]
    return {_key(trait, value, each): value for value in each}


def _key(trait: Trait, value: Any, among: Sequence[Any]) -> str:
    """Equal for values that are the same as far as all of them are recorded."""
    if trait.same is not None and (found := trait.same(value)) is not None:
        return repr(found)
    if isinstance(value, Mapping):  # an older record has fewer entries
        return repr([value[n] for n in sorted(value) if all(n in other for other in among)])
    return repr(value)


def differing(groups: Iterable[Group]) -> list[Trait]:
    """The traits in which the trainings of these groups differ; what is not recorded never does."""
    runs = [run for group in groups for run in group]
    return [trait for trait in TRAITS if len(_values(trait, runs)) > 1]


def differing_names(groups: Sequence[Group]) -> list[str]:
    """The names of :func:`differing`; ``trained`` before them where only some were trained."""
    some = len({trained(group) for group in groups}) > 1
    return ["trained"] * some + [trait.name for trait in differing(groups)]


def texts(trait: Trait, groups: Sequence[Group]) -> list[str]:
    """A trait of each group, in words that tell the groups apart.

    ``-``: it has none; ``?``: the record is older than that.
    """
    values = _values(trait, [run for group in groups for run in group])
    named = dict(zip(values, trait.texts(list(values.values())), strict=True))
    among = list(values.values())
    return [_text(trait, group, named, among) for group in groups]


def _text(trait: Trait, group: Group, named: Mapping[str, str], among: Sequence[Any]) -> str:
    own = list(_values(trait, group).values())
    if not own:
        told = all(run.record.get("training_summary") or not trained([run]) for run in group)
        return "-" if told else "?"
    text = " / ".join(dict.fromkeys(named[_key(trait, value, among)] for value in own))
    if trait.name != "steps":
        return text
    chosen = {found["chosen_step"] for run in group if (found := training_of(run))} - {None}
    if not chosen or chosen == set(own):
        return text
    low, high = min(chosen), max(chosen)
    return f"{text} ({low if low == high else f'{low} to {high}'} chosen)"


def trained(group: Group) -> bool:
    """Whether anything was trained in these runs."""
    return any(run.record["training"] is not None for run in group)


def against_words(one: Group, other: Group) -> str:
    """``with other training tasks: 20-way against 5-way; other training: 800 against 300 steps``.

    Empty where the trainings do not differ.
    """
    tasks: list[str] = []
    rest: list[str] = []
    if trained(one) != trained(other):
        what = _in_short(one if trained(one) else other)
        rest.append(f"{what} against none" if trained(one) else f"none against {what}")
    for trait in differing([one, other]):
        (tasks if trait.task else rest).append(_versus(trait, one, other))
    parts = [f"other training tasks: {', '.join(tasks)}"] if tasks else []
    parts += [f"other training: {', '.join(rest)}"] if rest else []
    return f"with {'; '.join(parts)}" if parts else ""


def _versus(trait: Trait, one: Group, other: Group) -> str:
    a, b = texts(trait, [one, other])
    between = trait.unit if trait.unit.startswith("-") else ""
    return f"{a}{between} against {b}{trait.unit}"


def _in_short(group: Group) -> str:
    """``800 steps``, where the other side has none."""
    (steps,) = texts(BY_NAME["steps"], [group])
    return "some" if steps in "-?" else f"{steps} steps"
