"""How runs were trained, in what their trainings differ, and ``--equal``, which forbids that.

A :class:`Trait` is one thing in which trainings can differ (training way, steps, backbone ...). Its
name is what ``fsb compare --equal`` takes and what JSON and CSV have. Settings with a ``label`` in
:mod:`fewshot_bench.config.schema` are traits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import PurePath
from typing import Any

from fewshot_bench.config.schema import SETTINGS, RunConfig
from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.hooks.registry import CORE
from fewshot_bench.hooks.single_file import DISTRIBUTION as FILE
from fewshot_bench.results.runs import DIGITS, Run, contents, short

Settings = Mapping[str, Any]
Read = Callable[[Run, Settings], Any]
Texts = Callable[[Sequence[Any]], list[str]]
Group = Sequence[Run]  # the runs of a cell: seeds of one configuration


@dataclass(frozen=True)
class Trait:
    """One thing in which two trainings can differ."""

    name: str  # for --equal, JSON and CSV
    label: str  # head of its column, and in lists of what differs
    settings: tuple[str, ...]  # the fields of RunConfig that decide it
    # (run, the settings that it was trained with) -> a JSON value; None: not recorded, or the
    # training has no such thing. Default: the first of the settings.
    read: Read | None = None
    unit: str = ""  # what follows a value in a sentence: "-way", " steps"
    # Distinct values to texts that distinguish them.
    texts: Texts = lambda values: [_plain(value) for value in values]
    task: bool = False  # whether it is about the shape of the training tasks
    # What values that are the same have in common; None, or where it returns None: all that is
    # recorded of both.
    same: Callable[[Any], Any] | None = None


def _plain(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:,}"
    return "none" if value is None else short(value)


def _summary(run: Run) -> Settings:
    """The record's ``training_summary``; empty in an older record."""
    return run.record.get("training_summary") or {}


def _of_task(name: str) -> Read:
    """A count of the training task; mini-batches have none."""

    def read(run: Run, then: Settings) -> Any:
        batches = _summary(run).get("source") == "batches"
        return None if batches else then.get(f"train_{name}", run.record["train_task"].get(name))

    return read


def codes(run: Run) -> dict[str, str]:
    """The digests of the code of method, backbone and inner methods: ``code of backbone``.

    A plugin may be edited and keep its version. What is of this distribution counts by its version:
    most files of its packages are none of the method's or backbone's. Data, samplers and metrics
    count by what they gave or elsewhere.
    """
    read = {one["option"]: one["sha256"][:DIGITS] for one in run.record.get("inputs") or ()}
    found: dict[str, str] = {}
    for kind, what in (("methods", "code of method"), ("backbones", "code of backbone")):
        for one in run.record["plugins"]:
            own = f"{what} {one['name']}"
            if one["kind"] == kind and one["distribution"] != CORE and own in read:
                inner = kind == "methods" and one["name"] != run.record["method"]
                found[own if inner else what] = read[own]
    return found


def without_path(run: Run, name: Any) -> Any:
    """The name of a plugin of a file without its folder, as ``own.py:Mine``; others as they are."""
    known = {one["name"] for one in run.record["plugins"] if one["distribution"] == FILE}
    return PurePath(name).name if known and PurePath(str(name)).name in known else name


def trained_digest(run: Run) -> str | None:
    """The digest of what was trained and validated on; None of an older record."""
    return _summary(run).get("train_digest")


def _backbone(run: Run, then: Settings) -> Any:
    plugins = run.record["plugins"]
    if plugins and not any(one["kind"] == "backbones" for one in plugins):
        return {"name": "none"}
    if then.get("backbone") is None:
        return None
    options, code = then.get("backbone_options") or {}, codes(run).get("code of backbone")
    found = {"name": without_path(run, then["backbone"]), **contents(run.record, options)}
    return found | ({"code": code} if code else {})


def _augmentation(run: Run, then: Settings) -> Any:
    options = then.get("dataset_options")
    if options is None:
        return None
    own = {name: value for name, value in options.items() if name.startswith("train_")}
    return contents(run.record, own) | ({"pixels": then["pixels"]} if "pixels" in then else {})


def _data(run: Run, then: Settings) -> Any:
    summary, record = _summary(run), run.record
    if not summary and record.get("evaluated_from"):
        return None  # the configuration is about the data of the test
    options = then.get("dataset_options") or {}
    other = {name: value for name, value in options.items() if not name.startswith("train_")}
    counts = {name: summary[name] for name in ("classes", "images")} if summary else {}
    found = {"name": then.get("dataset", record["dataset"]), **contents(record, other), **counts}
    if digest := trained_digest(run):
        return found | {"content": digest[:DIGITS]}
    return found | {"digest": (summary or record)["dataset_digest"][:DIGITS]}  # the data set's own


def _labeled(run: Run, then: Settings) -> Any:
    names = ("labeled_fraction", "labeled_classes", "labeled_seed")
    if any(name not in then for name in names):
        return None
    fraction, classes, seed = (then[name] for name in names)
    part = {"seed": seed} if fraction < 1 or classes < 1 else {}
    count = {"images": summary["labeled_images"]} if (summary := _summary(run)) else {}
    return {"fraction": fraction, "classes": classes, **part, **count}


def _pretraining(run: Run, then: Settings) -> Any:
    if "init" not in then:
        return None
    digest = _summary(run).get("init_digest")
    return {"weights": then["init"]} | ({"content": digest[:DIGITS]} if digest else {})


def _validation(run: Run, then: Settings) -> Any:
    every = then.get("validate_every")
    if every is None:
        return None
    rare = every >= then.get("steps", every + 1)  # there is one at the end in any case
    return {"every": 0 if rare else every, "episodes": then.get("validation_episodes")}


def _skipped(run: Run, then: Settings) -> Any:
    return then.get("skip_spikes") or ("off" if "skip_spikes" in then else None)


def _distinct(values: Sequence[Any], first: str = "name") -> list[str]:
    """Names, with the further entries in which values of one name differ."""
    texts = []
    for value in values:
        same = [other for other in values if other.get(first) == value.get(first)]
        keys = [k for k in value if k != first and any(o.get(k) != value[k] for o in same)]
        if len(keys) > 1:  # what else differs means more than a digest
            keys = [key for key in keys if key not in ("content", "digest")]
        more = ", ".join(f"{key.removeprefix('backbone_')} {_plain(value[key])}" for key in keys)
        name = _plain(value[first]) if first in value else ""
        texts.append(f"{name} ({more})" if name and more else name or more or "none")
    return texts


def _distinct_folders(values: Sequence[Any]) -> list[str]:
    """The names of the folders of the first weights."""
    last = [v | {"weights": v["weights"] and PurePath(v["weights"]).name} for v in values]
    texts = _distinct(last, "weights")
    return texts if len(set(texts)) == len(texts) else _distinct(values, "weights")


def _labels(values: Sequence[Any]) -> list[str]:
    counts = {value.get("images") for value in values}
    if len(counts) == len(values) and None not in counts:
        return [_plain(value["images"]) for value in values]
    return [
        f"{v['fraction']:g} of images, {v['classes']:g} of classes, seed {v['seed']}"
        if "seed" in v
        else "all"
        for v in values
    ]


def _when(values: Sequence[Any]) -> list[str]:
    when = [f"every {v['every']} steps" if v["every"] else "at the end" for v in values]
    if len({value["episodes"] for value in values}) == 1:
        return when
    return [f"{text} ({v['episodes']} episodes)" for text, v in zip(when, values, strict=True)]


# By label: what is read of settings that are more than their values.
_SPECIAL: dict[str, dict[str, Any]] = {
    **{
        name: {"name": name, "read": _of_task(name), "task": True}
        for name in ("way", "shot", "query", "unlabeled", "distractors")
    },
    "within family": {"name": "within-family", "task": True},
    "validated": {
        "name": "validation", "read": _validation, "unit": " (validation)", "texts": _when
    },
    "backbone": {
        "name": "backbone", "more": ["backbone_options"], "read": _backbone, "unit": "",
        "texts": _distinct,
    },
    "augmentation": {
        "name": "augmentation", "more": ["dataset_options"], "read": _augmentation, "unit": "",
        "texts": partial(_distinct, first=""),
    },
    "training data": {
        "name": "data", "more": ["dataset_options"], "read": _data, "unit": " (training data)",
        "texts": _distinct, "same": lambda value: value.get("content"),
    },
    "labeled images": {"name": "labeled", "read": _labeled, "texts": _labels},
    "pretrained": {
        "name": "pretraining", "read": _pretraining, "unit": " (first weights)",
        "texts": _distinct_folders,
        "same": lambda value: value.get("content") or value["weights"],
    },
    "skips spikes over": {"name": "skip-spikes", "read": _skipped, "unit": " (skipped spikes)"},
}  # fmt: skip


def _traits() -> Iterator[Trait]:
    """A trait for each label of settings, in their order, and those that are no settings."""
    labels = dict.fromkeys(option.label for option in SETTINGS.values() if option.label)
    for label in labels:
        options = [option for option in SETTINGS.values() if option.label == label]
        plain = {"name": options[0].flag.removeprefix("--"), "unit": options[0].unit, "more": ()}
        special = {**plain, **_SPECIAL.get(label, {})}
        names = (*(option.name for option in options), *special.pop("more"))
        unit = special.pop("unit")
        yield Trait(
            label=label, settings=names, unit=f" {label}" if unit is None else unit, **special
        )
    yield Trait("source", "trains on", (), lambda run, then: _summary(run).get("source"))
    yield Trait(
        "images", "images seen", (), lambda run, then: _summary(run).get("images_seen"),
        " images seen",
    )  # fmt: skip
    yield Trait(
        "parameters", "parameters", (), lambda run, then: run.record["parameters"], " parameters"
    )


TRAITS = tuple(_traits())
UNTRAINED = ("backbone", "parameters", "pretraining")
BY_NAME = {trait.name: trait for trait in TRAITS}
# The settings that a training is described by; the record has them as they were then.
OF_TRAINING = tuple(dict.fromkeys(name for trait in TRAITS for name in trait.settings))
# Every other setting but the method's own, which distinguish rows of one method.
NOT_TRAINING = {field.name for field in fields(RunConfig)} - {*OF_TRAINING, "method_options"}
_CHANGED_BY_EVAL = ("dataset", "dataset_options", "within_family", "init")


def settings_then(run: Run) -> Settings:
    """The settings that a run's weights were trained with, also by another run."""
    then: dict[str, Any] = run.record["config"] | _summary(run).get("settings", {})
    if run.record.get("evaluated_from") and not _summary(run):  # older, without what eval changes
        return {n: v for n, v in then.items() if n not in _CHANGED_BY_EVAL}
    return then


def training_of(run: Run) -> dict[str, Any] | None:
    """{name of a trait: its JSON value}; None for a method that has nothing to train.

    Weights that were not trained have only the traits of ``UNTRAINED``. ``chosen_step`` is beside
    the traits: the step whose weights validation chose.
    """
    untrained = run.record["training"] is None
    if untrained and not run.record["parameters"]:
        return None
    then = settings_then(run)
    found: dict[str, Any] = dict.fromkeys(BY_NAME)
    for trait in TRAITS:
        if not untrained or trait.name in UNTRAINED:
            value = trait.read(run, then) if trait.read else then.get(trait.settings[0])
            found[trait.name] = value
    return found | {"chosen_step": (run.record["validation"] or {}).get("best_step")}


def trained(group: Group) -> bool:
    return any(run.record["training"] is not None for run in group)


def _values(trait: Trait, runs: Iterable[Run]) -> dict[str, Any]:
    """The distinct known values of these runs, each under what identifies it."""
    each = [(training_of(run) or {}).get(trait.name) for run in runs]
    known = [value for value in each if value is not None]
    return {_key(trait, value, known): value for value in known}


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
    """A trait of each group, in words that distinguish them; ``-``: none; ``?``: not recorded."""
    values = _values(trait, [run for group in groups for run in group])
    among = list(values.values())
    named = dict(zip(values, trait.texts(among), strict=True))
    found = []
    for group in groups:
        own = list(_values(trait, group).values())
        text = " / ".join(dict.fromkeys(named[_key(trait, value, among)] for value in own))
        steps: set[Any] = {(training_of(run) or {}).get("chosen_step") for run in group} - {None}
        if not own:
            text = "-" if all(_summary(run) or not trained([run]) for run in group) else "?"
        elif trait.name == "steps" and steps and steps != set(own):
            chosen = " to ".join(map(str, sorted({min(steps), max(steps)})))
            text += f" ({chosen} chosen)"
        found.append(text)
    return found


def against_words(one: Group, other: Group) -> str:
    """``with other training tasks: 20-way against 5-way; other training: 800 against 300 steps``.

    Empty where the trainings do not differ.
    """
    tasks, rest = list[str](), list[str]()
    if trained(one) != trained(other):
        (steps,) = texts(BY_NAME["steps"], [one if trained(one) else other])
        what = "some" if steps in "-?" else f"{steps} steps"
        rest.append(f"{what} against none" if trained(one) else f"none against {what}")
    for trait in differing([one, other]):
        a, b = texts(trait, [one, other])
        between = trait.unit if trait.unit.startswith("-") else ""
        (tasks if trait.task else rest).append(f"{a}{between} against {b}{trait.unit}")
    parts = [f"other training tasks: {', '.join(tasks)}"] if tasks else []
    parts += [f"other training: {', '.join(rest)}"] if rest else []
    return f"with {'; '.join(parts)}" if parts else ""


# --- --equal: rows whose trainings have to be the same in what is named, or there is no table.

ALL = "all"
ALSO = {"tasks": "task-batch"}  # a second word for a trait


def equal_names(asked: Any) -> tuple[str, ...]:
    """The traits that are named: ``"way,steps"``, ``["way", "steps"]`` or ``"all"``.

    Raises:
        UnknownName: one is no trait of a training.
        ConfigError: no names, or no text.
    """
    several = [asked] if isinstance(asked, str) else asked or ()
    if not isinstance(several, list | tuple) or not all(isinstance(one, str) for one in several):
        raise ConfigError(f'--equal {asked}: expected names, as in "way,steps".')
    words = [word.strip() for word in ",".join(several).split(",")] if several else []
    names = [ALSO.get(word, word).replace("_", "-") for word in words]
    if (asked and not any(names)) or asked == "":
        raise ConfigError(f"--equal: expected names, as in --equal way,steps, or {ALL}.")
    for name in names:
        if name not in (ALL, *BY_NAME):
            known = (*BY_NAME, *ALSO, ALL)
            raise UnknownName("training setting", name, known, "See docs/compare.md for each.")
    return tuple(name for name in BY_NAME if ALL in names or name in names)


def unequal(
    rows: Sequence[tuple[str, Sequence[Run]]], names: Sequence[str]
) -> tuple[str, str] | None:
    """The first of these traits in which rows differ, and how; None where they are equal.

    Of rows that train nothing only ``UNTRAINED`` counts. Mini-batches have no way, shot or query.
    """
    groups = [runs for _, runs in rows]
    older = [
        (name, training_of(run))
        for name, runs in rows
        for run in runs
        if run.record["training"] is not None and not _summary(run)
    ]
    for trait in [trait for trait in TRAITS if trait.name in names]:
        unknown = [name for name, found in older if found and found[trait.name] is None]
        if unknown and len(rows) > 1:
            return trait.name, f"the older record of {unknown[0]} does not have it"
        if trait in differing(groups):
            own = zip((name for name, _ in rows), texts(trait, groups), strict=True)
            values = ", ".join(f"{name} {text}" for name, text in own if text != "-")
            return trait.name, f"the rows' trainings differ in {trait.label}: {values}"
    return None
