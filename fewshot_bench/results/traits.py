"""In what trainings can differ: a list, complete.

A :class:`Trait` is one such thing (training way, steps, backbone ...). Its name is what
``fsb compare --equal`` takes and what JSON and CSV have. ``TRAITS`` and ``NOT_TRAINING`` together
name every setting of a run: a test refuses one that is in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fewshot_bench.hooks.registry import CORE
from fewshot_bench.hooks.single_file import DISTRIBUTION as FILE
from fewshot_bench.results.runs import Run

Texts = Callable[[Sequence[Any]], list[str]]


@dataclass(frozen=True)
class Trait:
    """One thing in which two trainings can differ.

    Arguments:
        name: for ``--equal``, JSON and CSV.
        head: of its column, and in lists of what differs.
        settings: the fields of :class:`fewshot_bench.config.resolve.RunConfig` that decide it.
        read: (run, the settings that it was trained with) -> a JSON value; None: not recorded, or
            the training has no such thing.
        unit: what follows a value in a sentence: ``-way``, `` steps``.
        texts: distinct values to texts that tell them apart.
        task: whether it is about the shape of the training tasks.
        same: what values that are the same have in common; None, or where it returns None: all
            that is recorded of both.
    """

    name: str
    head: str
    settings: tuple[str, ...]
    read: Callable[[Run, Mapping[str, Any]], Any]
    unit: str = ""
    texts: Texts = lambda values: [_plain(value) for value in values]
    task: bool = False
    same: Callable[[Any], Any] | None = None


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _setting(name: str) -> Callable[[Run, Mapping[str, Any]], Any]:
    return lambda run, then: then.get(name)


def _of_task(name: str) -> Callable[[Run, Mapping[str, Any]], Any]:
    """A count of the training task; mini-batches have none."""

    def read(run: Run, then: Mapping[str, Any]) -> Any:
        if source_of(run) == "batches":
            return None
        return then.get(f"train_{name}", run.record["train_task"].get(name))

    return read


def source_of(run: Run) -> str | None:
    """``episodes`` or ``batches``; None where the record does not tell."""
    summary = run.record.get("training_summary")
    return summary["source"] if summary else None


def _summary(name: str) -> Callable[[Run, Mapping[str, Any]], Any]:
    return lambda run, then: (run.record.get("training_summary") or {}).get(name)


def contents(run: Run, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with files by what is in them, as far as the record has a digest of it."""
    read = {one.get("option"): one for one in run.record.get("inputs") or ()}
    return {
        name: f"file {read[name]['sha256'][:8]}" if value and name in read else value
        for name, value in options.items()
    }


def codes(run: Run) -> dict[str, str]:
    """The digests of the code of method, backbone and inner methods: ``code of backbone``.

    Of a plugin its version may stay, or it may have none, while its code is edited. What is of
    this distribution counts by its version: a digest of theirs is one of all files of a package and
    of what these import, most of which are none of the method's or backbone's. Data, samplers and
    metrics count by what they gave or elsewhere.
    """
    read = {one.get("option"): one["sha256"] for one in run.record.get("inputs") or ()}
    found: dict[str, str] = {}
    for kind in ("methods", "backbones"):
        for one in run.record["plugins"]:
            what = f"code of {kind[:-1]}"
            own = one.get("kind") == kind and one.get("distribution") != CORE
            digest = read.get(f"{what} {one.get('name')}") if own else None
            if digest is not None:
                inner = kind == "methods" and one["name"] != run.record["method"]
                found[f"{what} {one['name']}" if inner else what] = digest[:8]
    return found


def without_path(run: Run, name: Any) -> Any:
    """The name of a plugin of a file without its folder, as ``own.py:Mine``; others as they are."""
    known = {one["name"] for one in run.record["plugins"] if one.get("distribution") == FILE}
    return PurePath(name).name if known and PurePath(str(name)).name in known else name


def _backbone(run: Run, then: Mapping[str, Any]) -> Any:
    plugins = run.record["plugins"]
    if plugins and not any(one.get("kind") == "backbones" for one in plugins):
        return {"name": "none"}
    if then.get("backbone") is None:
        return None
    options = contents(run, then.get("backbone_options") or {})
    code = codes(run).get("code of backbone")
    own = {"code": code} if code else {}
    return {"name": without_path(run, then["backbone"]), **options, **own}


def _augmentation(run: Run, then: Mapping[str, Any]) -> Any:
    options = then.get("dataset_options")
    if options is None:
        return None
    own = {name: value for name, value in options.items() if name.startswith("train_")}
    own = contents(run, own)
    return own | ({"pixels": then["pixels"]} if "pixels" in then else {})


def _data(run: Run, then: Mapping[str, Any]) -> Any:
    summary, record = run.record.get("training_summary"), run.record
    if summary is None and record.get("evaluated_from"):
        return None  # the configuration is about the data of the test
    options = then.get("dataset_options") or {}
    other = {name: value for name, value in options.items() if not name.startswith("train_")}
    counts = {name: summary[name] for name in ("classes", "images")} if summary else {}
    found = {"name": then.get("dataset", record["dataset"]), **contents(run, other), **counts}
    if digest := trained_digest(run):
        return found | {"content": digest[:8]}
    return found | {"digest": (summary or record)["dataset_digest"][:8]}  # as the data set has it


def trained_digest(run: Run) -> str | None:
    """The digest of what was trained and validated on; None of an older record."""
    return (run.record.get("training_summary") or {}).get("train_digest")


def _labeled(run: Run, then: Mapping[str, Any]) -> Any:
    names = ("labeled_fraction", "labeled_classes", "labeled_seed")
    if any(name not in then for name in names):
        return None
    fraction, classes, seed = (then[name] for name in names)
    part = {"seed": seed} if fraction < 1 or classes < 1 else {}
    summary = run.record.get("training_summary")
    count = {"images": summary["labeled_images"]} if summary else {}
    return {"fraction": fraction, "classes": classes, **part, **count}


def _pretraining(run: Run, then: Mapping[str, Any]) -> Any:
    if "init" not in then:
        return None
    digest = (run.record.get("training_summary") or {}).get("init_digest")
    return {"weights": then["init"], **({"content": digest[:8]} if digest else {})}


def _validation(run: Run, then: Mapping[str, Any]) -> Any:
    every = then.get("validate_every")
    if every is None:
        return None
    if every >= then.get("steps", every + 1):  # there is one at the end in any case
        every = 0
    return {"every": every, "episodes": then.get("validation_episodes")}


def _apart(values: Sequence[Any], first: str = "name") -> list[str]:
    """Names, with the further entries in which values of one name differ."""
    texts = []
    for value in values:
        same = [other for other in values if other.get(first) == value.get(first)]
        keys = [k for k in value if k != first and any(o.get(k) != value[k] for o in same)]
        if len(keys) > 1:  # what else differs says more than a digest
            keys = [key for key in keys if key not in ("content", "digest")]
        told = ", ".join(f"{key.removeprefix('backbone_')} {_plain(value[key])}" for key in keys)
        name = _plain(value.get(first)) if first in value else ""
        texts.append(f"{name} ({told})" if name and told else name or told or "none")
    return texts


def _last_parts(values: Sequence[Any]) -> list[str]:
    """The names of the folders whose weights were the first ones."""
    short = [v | {"weights": v["weights"] and PurePath(v["weights"]).name} for v in values]
    texts = _apart(short, "weights")
    if len(set(texts)) == len(texts):
        return texts
    return _apart(values, "weights")


def _labels(values: Sequence[Any]) -> list[str]:
    counts = [value.get("images") for value in values]
    if len(set(counts)) == len(counts) and None not in counts:
        return [_plain(count) for count in counts]
    return [
        f"{v['fraction']:g} of images, {v['classes']:g} of classes, seed {v['seed']}"
        if "seed" in v
        else "all"
        for v in values
    ]


def _when(values: Sequence[Any]) -> list[str]:
    several = len({value["episodes"] for value in values}) > 1
    return [
        (f"every {v['every']} steps" if v["every"] else "at the end")
        + (f" ({v['episodes']} episodes)" if several else "")
        for v in values
    ]


def _options(values: Sequence[Any]) -> list[str]:
    return _apart([{"": "", **value} for value in values], "")


TRAITS: tuple[Trait, ...] = (
    Trait("source", "trains on", (), lambda run, then: source_of(run)),
    Trait("way", "way", ("train_way",), _of_task("way"), "-way", task=True),
    Trait("shot", "shot", ("train_shot",), _of_task("shot"), "-shot", task=True),
    Trait("query", "query", ("train_query",), _of_task("query"), " queries a class", task=True),
    Trait("unlabeled", "unlabeled", ("train_unlabeled",), _of_task("unlabeled"),
          " unlabeled images a class", task=True),
    Trait("distractors", "distractors", ("train_distractors",), _of_task("distractors"),
          " distractors", task=True),
    Trait("within-family", "within family", ("within_family",), _setting("within_family"),
          " (classes of one family)", task=True),
    Trait("task-batch", "tasks a step", ("task_batch",), _setting("task_batch"), " tasks a step"),
    Trait("steps", "steps", ("steps",), _setting("steps"), " steps"),
    Trait("images", "images seen", (), _summary("images_seen"), " images seen"),
    Trait("validation", "validated", ("validate_every", "validation_episodes"), _validation,
          " (validation)", _when),
    Trait("backbone", "backbone", ("backbone", "backbone_options"), _backbone, "", _apart),
    Trait("parameters", "parameters", (), lambda run, then: run.record["parameters"],
          " parameters"),
    Trait("preset", "preset", ("preset",), _setting("preset"), " (preset)"),
    Trait("augmentation", "augmentation", ("pixels", "dataset_options"), _augmentation, "",
          _options),
    Trait("data", "training data", ("dataset", "dataset_options"), _data, " (training data)",
          _apart, same=lambda v: v.get("content")),
    Trait("labeled", "labeled images",
          ("labeled_fraction", "labeled_classes", "labeled_seed"), _labeled,
          " labeled images", _labels),
    Trait("pretraining", "pretrained", ("init",), _pretraining,
          " (first weights)", _last_parts, same=lambda v: v.get("content") or v["weights"]),
    Trait("precision", "precision", ("precision",), _setting("precision")),
    Trait("skip-spikes", "skips spikes over", ("skip_spikes",),
          lambda run, then: then.get("skip_spikes") or ("off" if "skip_spikes" in then else None),
          " (skipped spikes)"),
)  # fmt: skip
UNTRAINED = ("backbone", "parameters", "pretraining")
BY_NAME = {trait.name: trait for trait in TRAITS}
# The settings that a training is described by; the record keeps them as they were then.
OF_TRAINING = tuple(dict.fromkeys(name for trait in TRAITS for name in trait.settings))
# Every other setting of a run, and why it is no difference of training between rows.
NOT_TRAINING = {
    "method": "what is compared",
    "method_options": "the method's own; rows of one method are told apart by them",
    "way": "of the test", "shot": "of the test", "query": "of the test",
    "unlabeled": "of the test", "distractors": "of the test", "episodes": "of the test",
    "sampling": "of the test", "sampling_options": "of the test", "allow_overlap": "marked",
    "episode_seed": "of the test", "level": "of the interval",
    "metrics": "of the test",
    "seed": "what training seeds are for",
    "device": "gives the same numbers, and the times name it",
    "engine": "gives the same numbers", "task_chunk": "gives the same numbers",
    "detect_anomaly": "looks on", "profile": "looks on", "pictures": "looks on",
    "observers": "look on",
    "checkpoint_every": "where and when files are written",
    "keep_checkpoints": "where and when files are written",
    "runs_dir": "where files are", "data_root": "where files are", "cache_dir": "where files are",
    "sources": "who chose a setting, not which",
}  # fmt: skip
