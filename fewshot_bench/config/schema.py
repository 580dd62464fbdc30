"""The settings that every run has, whatever its method and data: ``CORE``, their defaults."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from fewshot_bench.config.names import FIELDS
from fewshot_bench.config.options import Option, own_options
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry

DEFAULTS: dict[str, Any] = tomllib.loads(
    files("fewshot_bench").joinpath("config/defaults.toml").read_text("utf-8")
)


def _core(name: str, type_: type, help_: str, **more: Any) -> Option:
    default = DEFAULTS.get(name)
    return Option(name, type_, default, help_, optional=default is None, **more)


CORE: tuple[Option, ...] = (
    _core("dataset", str, "data set; folder:PATH for your own images"),
    _core("backbone", str, "network from images to feature maps"),
    _core("preset", str, "settings by name: quick, paper, ..."),
    _core("way", int, "classes of an episode", minimum=2),
    _core("shot", int, "support images per class", minimum=1),
    _core("query", int, "query images per class", minimum=1),
    _core("unlabeled", int, "unlabeled images per class", minimum=0),
    _core("distractors", int, "further classes among the unlabeled images", minimum=0),
    _core("train_way", int, "classes of a training episode; default: --way", minimum=2),
    _core("train_shot", int, "support images in training; default: --shot", minimum=1),
    _core("train_query", int, "query images in training; default: --query", minimum=1),
    _core("train_unlabeled", int, "the same in training; default: --unlabeled", minimum=0),
    _core("train_distractors", int, "the same in training; default: --distractors", minimum=0),
    _core("labeled_fraction", float, "part of each training class's images that is labeled"),
    _core("labeled_classes", float, "part of the training classes that is labeled"),
    _core("labeled_seed", int, "of what is labeled: the same for every method and --seed"),
    _core("task_batch", int, "tasks in a training step", minimum=1),
    _core("steps", int, "training steps", minimum=1),
    _core("validate_every", int, "steps between validations; 0: at the end only", minimum=0),
    _core("validation_episodes", int, "episodes of a validation", minimum=1),
    _core("episodes", int, "test episodes", minimum=1),
    _core("level", float, "of the interval"),
    _core(
        "sampling",
        str,
        "test episodes: closed (images come again), open (never), open-balanced (never, and all "
        "classes equally often), in-order (never, and as the data are read)",
    ),
    _core("within_family", bool, "draw an episode's classes from one family, e.g. one alphabet"),
    _core("pixels", str, "bytes become [0, 1] or [-1, 1]", choices=("unit", "signed")),
    _core("seed", int, "of initialization and training episodes"),
    _core("episode_seed", int, "of validation and test episodes"),
    _core("device", str, "auto, cpu, cuda, cuda:N"),
    _core("engine", str, "how tasks are run: auto, eager, threads, batched, im2col, graph"),
    _core("precision", str, "of products: fp32, tf32, bf16", choices=("fp32", "tf32", "bf16")),
    _core("task_chunk", int, "tasks in memory at a time; default: the whole step's", minimum=1),
    _core("skip_spikes", float, "skip a step of over FACTOR times the usual loss or gradient norm"),
    _core("detect_anomaly", bool, "name the operation behind a NaN or infinity; slow"),
    _core(
        "profile", bool, "also profile a few steps: trace.json and the most expensive operations"
    ),
    _core(
        "pictures", bool, "keep what the method draws of a task it is not trained on, over training"
    ),
    _core("checkpoint_every", str, "steps (500) or time (30s, 10m, 2h); 0: when it ends or stops"),
    _core("keep_checkpoints", int, "the newest so many stay until the run is finished", minimum=1),
    _core("init", str, "folder of a run whose weights to start from", file=True),
    _core("allow_overlap", bool, "test also classes whose images took part in training; marked"),
    _core("runs_dir", str, "where runs are written"),
    _core("data_root", str, "folder of the data set's files"),
    _core("cache_dir", str, "folder for decoded data; default: the user's cache"),
)

# The fields of a configuration that hold the options of what it names.
OPTIONS = ("method_options", "backbone_options", "dataset_options", "sampling_options")


def sampler_options(registry: Registry, name: str) -> list[Option]:
    """A sampler's options, with ``sampling_`` in front.

    What every sampler gets from the run, such as ``within_family``, is no option of its own.
    """
    given = {option.name for option in CORE}
    own = own_options(registry, "samplers", name, "sampling_")
    return [option for option in own if option.name.removeprefix("sampling_") not in given]


# What may differ where a finished run is evaluated again; the rest decided its training.
CHANGEABLE = (
    "dataset",
    "way",
    "shot",
    "query",
    "unlabeled",
    "distractors",
    "episodes",
    "level",
    "sampling",
    "within_family",
    "episode_seed",
    "device",
    "engine",
    "allow_overlap",
    "runs_dir",
    "data_root",
    "cache_dir",
)
EVALUATED = ("test", "validation")


def check_part(part: str) -> None:
    """Raise ConfigError if this is no split that can be evaluated."""
    if part not in EVALUATED:
        raise ConfigError(f"--part {part}: expected {' or '.join(EVALUATED)}.")


def check_changes(changes: Iterable[str]) -> None:
    """Raise ConfigError if an option of a finished run decided its training, or watches one."""
    core = {option.name: option for option in CORE}
    for name in changes:
        if FIELDS.get(name, name) == "observers":
            raise ConfigError("fsb eval: --with is for a training; an evaluation has no observers.")
        if name in core and name not in CHANGEABLE:
            raise ConfigError(
                f"fsb eval: {core[name].flag} decided the training of the run and stays as it was; "
                "'fsb eval --help' shows what may differ."
            )


# Further words that 'fsb run' takes for itself.
RESERVED = ("debug", "help", "if_exists", "json", "metric", "metrics", "observers", "with", "with_")
