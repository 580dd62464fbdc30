"""What a record holds. docs/record.md is made from this, and records are checked against it."""

# ruff: noqa: E501
from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 1

_NONE = type(None)


@dataclass(frozen=True)
class Entry:
    """One key of a record: its JSON types, what it means, and what an object there has to hold.

    ``since_first`` False: records written before the key existed lack it; it reads as null there.
    """

    types: tuple[type, ...]
    meaning: str
    members: tuple[str, ...] = ()
    since_first: bool = True


_T = Entry
_TASK = ("way", "shot", "query", "unlabeled", "distractors")

SCHEMA: dict[str, Entry] = {
    "schema_version": _T((int,), "version of this schema; grows when a key changes its meaning"),
    "status": _T((str,), "`completed`, `failed` (a loss was not finite, a plugin raised), `interrupted`, or `running`: it goes on, or its process was killed"),
    "id": _T((str,), "name of the run's folder"),
    "command": _T((str,), "the command line or script that started it"),
    "method": _T((str,), "name of the method"),
    "dataset": _T((str,), "name of the data set, with its path where it has one"),
    "dataset_digest": _T((str,), "sha256 of the data's content, as the data set has it; for some, such as `folder`, over all files, however they are split"),
    "evaluated_digest": _T((str, _NONE), "sha256 over the images, classes, groups and families of the split that was evaluated, and of nothing else; null in older records", since_first=False),
    "dataset_license": _T((str,), "license of the data"),
    "dataset_source": _T((str,), "where the data come from"),
    "split": _T((str, _NONE), "name of the split into training, validation and test classes"),
    "train_task": _T((dict,), "`way`, `shot`, `query`, `unlabeled`, `distractors` of training episodes", _TASK),
    "task": _T((dict,), "the same of validation and test episodes", _TASK),
    "seed": _T((int,), "of initialization and training episodes"),
    "episode_seed": _T((int,), "of validation and test episodes"),
    "preset": _T((str,), "settings by name; `config.sources` says what they decided"),
    "config": _T((dict,), "every setting, complete", ("dataset_options",)),
    "parameters": _T((int,), "how many numbers the method has"),
    "plugin": _T((dict,), "`distribution` and `version` that the method came from"),
    "plugins": _T((list,), "the same of everything that the run names: `kind`, `name`, `distribution`, `version`"),
    "environment": _T((dict,), "versions, processor, threads, commit; `code`: sha256 of the source that made the numbers"),
    "device": _T((dict,), "`type` (`cpu`, `cuda`) and `name`; of a GPU `memory_bytes`, `compute_capability`, `cudnn` and, as far as nvidia-smi says when the run begins, `driver`, `clock_mhz`, `max_clock_mhz`, `memory_clock_mhz`, `power_limit_w`", ("type", "name")),
    "episodes_digest": _T((str, _NONE), "sha256 of the test episodes' classes, images and targets, in order"),
    "part": _T((str, _NONE), "which split was evaluated: `test`, or `validation` (`fsb eval --part validation`), and then the result is in `validation` and `test` is null", since_first=False),
    "sampler": _T((dict, _NONE), "what drew the episodes: `name`, `distribution`, `version`, `options`, `code` (sha256 of its source), `sampling` (as it declares), and what was drawn: `support`, `query` and `unlabeled`, each [least, most] images of a class in an episode", since_first=False),
    "overlap": _T((dict, _NONE), "classes evaluated that took part in training or validation, by the content of their images ([below](#classes-that-took-part)): `classes` of the `of` classes of the `split`, by what they took part in (`training`, `validation`), `images` that are identical, `found` (of each class `class`, `as` what, in which `part` of which `run`, `images` of `of`), `same_names` (classes of other content that bear names of such ones, if most do: `class`, `as`, `part`; older records lack it), `unknown` (sentences on what cannot be known); null: not looked for", since_first=False),
    "test": _T((dict, _NONE), "`accuracy`, `half_width`, `level`, `interval` [low, high], `episodes`, `per_episode_sd` (fractions), `transductive`, `sampling` (`closed`, `open`), `metrics`, `class_use` (how evenly classes fill the episodes: `classes` of the split, `used`, `effective` number, the share `top_share` of the `top` most used, a quarter of all, `uneven`; older records lack it)", ("accuracy", "half_width", "level", "interval", "episodes", "per_episode_sd", "transductive", "sampling", "metrics")),
    "validation": _T((dict, _NONE), "`best_step` and the `accuracy` there; of a method that trains nothing, and of `fsb eval --part validation`, all that `test` has; null without a validation split"),
    "training": _T((dict, _NONE), "`steps`, `seconds` and `warmup_seconds` (of all processes that took part, without what was lost with a killed one), `engine`, `chunks` (calls that a batch of tasks was run in, one after the other), `skipped_steps` (of `--skip-spikes`); null if nothing was trained"),
    "training_summary": _T((dict, _NONE), "what was trained on, also by a run that evaluates another one's weights: `source` (`episodes`, `batches`), `settings` (those of `config` that are about training, as they were then), `dataset_digest`, `train_digest` (as `evaluated_digest`, of the training and validation splits), `init_digest` (sha256 of the weights of `--init`), `classes` and `images` of the training split, `labeled_images`, `turns` (batches of a step), `images_per_task`, `images_seen` (steps x turns x tasks x images of a task; 0 if nothing was trained); null if the method has no parameters, and in older records", since_first=False),
    "timing": _T((dict,), "`step_ms` {`median`, `p95`}, `tasks_per_s`, `phases` (median ms of `sample`, `forward_backward`, `optimizer`), `warmup_steps`, `adapt_ms` and `predict_ms` (median per test task, over the first `timed_episodes`), `memory_estimate_bytes` (of a step, before the run), `peak_memory_bytes` (GPU: allocated; CPU: resident size of the process), `flops_per_step`, `flops_per_s`, `interruptions` (how often the run was resumed; the first steps after that are warm-up, too), `clocks` (which of these are `device events` and which readings of the `host clock`)", ("step_ms", "tasks_per_s", "adapt_ms", "predict_ms")),
    "inputs": _T((list, _NONE), "what the run read, one object each: `option` (`init`, `dataset`, an option that takes a file, or `code of ...`), `path` as it was typed, `absolute`, `sha256` of the content and its `bytes`; of `dataset`, the content is the images, classes and splits that were loaded; null in older records", since_first=False),
    "weights": _T((dict, _NONE), "the file with the weights that made the result: `file`, `sha256`, `bytes`, `tensors` (how many); every finished run has one, and what loads it checks the digest; null before there are any, and in older records", ("file", "sha256"), since_first=False),
    "seen": _T((dict, _NONE), "the file with the images that took part in making the weights: `file`, `sha256`, `bytes`; what looks classes up in it checks the digest; null in older records", ("file", "sha256"), since_first=False),
    "notes": _T((list,), "sentences that a reader of the result has to know"),
    "error": _T((str, _NONE), "what went wrong"),
}  # fmt: skip


def markdown() -> str:
    """The table of docs/record.md."""
    names = {str: "text", int: "integer", dict: "object", list: "list", _NONE: "null"}
    lines = ["| key | type | meaning |", "|---|---|---|"]
    for key, entry in SCHEMA.items():
        types = " or ".join(names[t] for t in entry.types)
        lines.append(f"| `{key}` | {types} | {entry.meaning} |")
    return "\n".join(lines) + "\n"
