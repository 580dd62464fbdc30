"""How runs were trained, in what their trainings differ, and ``--equal``, which forbids that.

A :class:`Trait` is one thing in which trainings can differ (training way, steps, backbone ...). Its
name is what ``fsb compare --equal`` takes and what JSON and CSV have. Settings with a ``label`` in
:mod:`fewshot_bench.config.schema` are traits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import PurePath
from typing import Any

from fewshot_bench.config.schema import SETTINGS, RunConfig
from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.hooks.registry import CORE
from fewshot_bench.hooks.single_file import DISTRIBUTION as FILE
from fewshot_bench.results.runs import DIGITS, Run, contents, digests, short

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
    # (run, the settings that it was trained with) -> a JSON value; None: the training has no such
    # thing. Default: the first of the settings.
    read: Read | None = None
    unit: str = ""  # what follows a value in a sentence: "-way", " steps"
    # Distinct values to texts that distinguish them.
    texts: Texts = lambda values: [_plain(value) for value in values]
    task: bool = False  # whether it is about the shape of the training tasks
    # What values that are the same have in common. Default: all entries that both have.
    same: Callable[[Any], Any] | None = None


def _plain(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:,}"
    return "none" if value is None else short(value)


def _summary(run: Run) -> Settings:
    """The record's ``training_summary``; empty for a method without parameters."""
    return run.record["training_summary"] or {}


def _of_task(name: str) -> Read:
    """A count of the training task; mini-batches have none."""

    def read(run: Run, then: Settings) -> Any:
        return None if _summary(run)["source"] == "batches" else then[f"train_{name}"]

    return read


def codes(run: Run) -> dict[str, str]:
    """The digests of the code of method, backbone and inner methods: ``code of backbone``.

    A plugin may be edited and keep its version. What is of this distribution counts by its version:
    most files of its packages are none of the method's or backbone's.
    """
    read, found = digests(run.record), dict[str, str]()
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
    """The digest of what was trained and validated on; None without parameters."""
    return _summary(run).get("train_digest")


def _backbone(run: Run, then: Settings) -> Any:
    if not any(one["kind"] == "backbones" for one in run.record["plugins"]):
        return {"name": "none"}
    options, code = contents(run.record, then["backbone_options"]), codes(run)
    found = {"name": without_path(run, then["backbone"]), **options}
    return found | ({"code": code["code of backbone"]} if "code of backbone" in code else {})


def _data_options(run: Run, then: Settings, *, of_training: bool) -> dict[str, Any]:
    """The options of the data set that are about training images alone, or all others."""
    options = then["dataset_options"].items()
    own = {n: value for n, value in options if n.startswith("train_") == of_training}
    return contents(run.record, own)


def _data(run: Run, then: Settings) -> Any:
    counts = {name: _summary(run)[name] for name in ("classes", "images")}
    options = _data_options(run, then, of_training=False)
    content = {"content": _summary(run)["train_digest"][:DIGITS]}
    return {"name": then["dataset"], **options, **counts, **content}


def _labeled(run: Run, then: Settings) -> Any:
    fraction, classes = then["labeled_fraction"], then["labeled_classes"]
    seed = {"seed": then["labeled_seed"]} if fraction < 1 or classes < 1 else {}
    images = {"images": _summary(run)["labeled_images"]}
    return {"fraction": fraction, "classes": classes, **seed, **images}


def _pretraining(run: Run, then: Settings) -> Any:
    digest = _summary(run)["init_digest"]
    return {"weights": then["init"]} | ({"content": digest[:DIGITS]} if digest else {})


def _validation(run: Run, then: Settings) -> Any:
    every = then["validate_every"]
    rare = every >= then["steps"]  # there is one at the end in any case
    return {"every": 0 if rare else every, "episodes": then["validation_episodes"]}


def _distinct(values: Sequence[Any], first: str = "name") -> list[str]:
    """Names, with the further entries in which values of one name differ."""
    texts = []
    for value in values:
        same = [other for other in values if other.get(first) == value.get(first)]
        keys = [k for k in value if k != first and any(o.get(k) != value[k] for o in same)]
        if len(keys) > 1:  # what else differs means more than a digest
            keys = [key for key in keys if key != "content"]
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
    if len({value["images"] for value in values}) == len(values):
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
        "name": "augmentation", "more": ["dataset_options"], "unit": "",
        "read": lambda run, then: _data_options(run, then, of_training=True)
        | {"pixels": then["pixels"]},
        "texts": partial(_distinct, first=""),
    },
    "training data": {
        "name": "data", "more": ["dataset_options"], "read": _data, "unit": " (training data)",
        "texts": _distinct, "same": lambda value: value["content"],
    },
    "labeled images": {"name": "labeled", "read": _labeled, "texts": _labels},
    "pretrained": {
        "name": "pretraining", "read": _pretraining, "unit": " (first weights)",
        "texts": _distinct_folders,
        "same": lambda value: value.get("content") or value["weights"],
    },
    "skips spikes over": {
        "name": "skip-spikes", "read": lambda run, then: then["skip_spikes"] or "off",
        "unit": " (skipped spikes)",
    },
}  # fmt: skip


def _traits() -> Iterator[Trait]:
    """A trait for each label of settings, in their order, and those that are no settings."""
    labels = dict.fromkeys(option.label for option in SETTINGS.values() if option.label)
    for label in labels:
        options = [option for option in SETTINGS.values() if option.label == label]
        unit = f" {label}" if options[0].unit is None else options[0].unit
        plain = {"name": options[0].flag.removeprefix("--"), "unit": unit, "more": ()}
        special = {**plain, **_SPECIAL.get(label, {})}
        names = (*(option.name for option in options), *special.pop("more"))
        yield Trait(label=label, settings=names, **special)
    yield Trait("source", "trains on", (), lambda run, then: _summary(run)["source"])
    yield Trait(
        "images", "images seen", (), lambda run, then: _summary(run)["images_seen"], " images seen"
    )
    yield Trait(
        "parameters", "parameters", (), lambda run, then: run.record["parameters"], " parameters"
    )


TRAITS = tuple(_traits())
UNTRAINED = ("backbone", "parameters", "pretraining")  # what weights that were not trained have
BY_NAME = {trait.name: trait for trait in TRAITS}
# The settings that a training is described by; the record has them as they were then.
OF_TRAINING = tuple(dict.fromkeys(name for trait in TRAITS for name in trait.settings))
# Every other setting but the method's own, which distinguish rows of one method.
NOT_TRAINING = {field.name for field in fields(RunConfig)} - {*OF_TRAINING, "method_options"}


def settings_then(run: Run) -> Settings:
    """Training settings of a run's weights, also of those from another run."""
    return {**run.record["config"], **_summary(run).get("settings", {})}


def training_of(run: Run) -> dict[str, Any] | None:
    """{trait: its JSON value}, and the ``chosen_step`` of validation; None: nothing to train."""
    if not _summary(run):
        return None
    return {t.name: _value(t, run) for t in TRAITS} | {"chosen_step": _chosen_step(run)}


def _value(trait: Trait, run: Run) -> Any:
    """The trait's JSON value; None where nothing was trained, or the training has no such thing."""
    if not _summary(run) or not (trained([run]) or trait.name in UNTRAINED):
        return None
    then = settings_then(run)
    return trait.read(run, then) if trait.read else then[trait.settings[0]]


def _chosen_step(run: Run) -> Any:
    return (run.record["validation"] or {}).get("best_step")


def trained(group: Group) -> bool:
    return any(run.record["training"] is not None for run in group)


def _values(trait: Trait, runs: Iterable[Run]) -> dict[str, Any]:
    """The distinct values of these runs, without None, each under what identifies it."""
    values = [value for run in runs if (value := _value(trait, run)) is not None]
    return {_key(trait, value, values): value for value in values}


def _key(trait: Trait, value: Any, among: Sequence[Any]) -> str:
    """Equal for values that are the same in what identifies them."""
    if trait.same is not None:
        return repr(trait.same(value))
    if isinstance(value, Mapping):  # other backbones and data sets have other options
        return repr([value[n] for n in sorted(value) if all(n in other for other in among)])
    return repr(value)


def differing(groups: Iterable[Group]) -> list[Trait]:
    """The traits in which the trainings of these groups differ; one without a value never does."""
    runs = [run for group in groups for run in group]
    return [trait for trait in TRAITS if len(_values(trait, runs)) > 1]


def differing_names(groups: Sequence[Group]) -> list[str]:
    """The names of :func:`differing`; ``trained`` before them where only some were trained."""
    some = len({trained(group) for group in groups}) > 1
    return ["trained"] * some + [trait.name for trait in differing(groups)]


def texts(trait: Trait, groups: Sequence[Group]) -> list[str]:
    """A trait of each group, in words that distinguish them; ``-``: none."""
    values = _values(trait, [run for group in groups for run in group])
    among = list(values.values())
    named = dict(zip(values, trait.texts(among), strict=True))
    found = []
    for group in groups:
        own = list(_values(trait, group).values())
        text = " / ".join(dict.fromkeys(named[_key(trait, value, among)] for value in own))
        steps: set[Any] = {_chosen_step(run) for run in group if _summary(run)} - {None}
        if trait.name == "steps" and own and steps and steps != set(own):
            chosen = " to ".join(map(str, sorted({min(steps), max(steps)})))
            text += f" ({chosen} chosen)"
        found.append(text or "-")
    return found


def against_words(one: Group, other: Group) -> str:
    """``with other training tasks: 20-way against 5-way; other training: 800 against 300 steps``.

    Empty where the trainings do not differ.
    """
    tasks, rest = list[str](), list[str]()
    if trained(one) != trained(other):
        (steps,) = texts(BY_NAME["steps"], [one if trained(one) else other])
        pair = [f"{steps} steps", "none"]
        rest.append(" against ".join(pair if trained(one) else pair[::-1]))
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

    UnknownName: one is no trait of a training. ConfigError: no names, or no text.
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
    for trait in [trait for trait in differing(groups) if trait.name in names]:
        own = zip((name for name, _ in rows), texts(trait, groups), strict=True)
        values = ", ".join(f"{name} {text}" for name, text in own if text != "-")
        return trait.name, f"the rows' trainings differ in {trait.label}: {values}"
    return None
