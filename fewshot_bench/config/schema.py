"""The settings of a run. A field of ``RunConfig`` is the only place where a setting is described.

From it follow the command line, Python's arguments, grid files, the rules of reuse, resumption and
evaluation, labels of rows, and the reference page.
"""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.resources import files
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fewshot_bench.config.options import Option, Scope, option_of
from fewshot_bench.errors import ConfigError
from fewshot_bench.utils.inputs import InputFile

# Which plugins a run names where neither user nor preset does: the core knows no plugin by name.
DEFAULT_PLUGINS: dict[str, str] = tomllib.loads(
    files("fewshot_bench").joinpath("config/defaults.toml").read_text("utf-8")
)
# The fields that hold the options of what the configuration names.
OPTION_FIELDS = ("method_options", "backbone_options", "dataset_options", "sampling_options")
TRAINING, EVALUATION, MACHINE, OUTPUT = Scope
NOTHING = Scope(0)


def setting(help: str, scope: Scope, default: Any = MISSING, **more: Any) -> Any:
    """A field of :class:`RunConfig`: what its type and bounds (``Meta``) do not say.

    Arguments:
        more: ``follows``, the setting whose value it has unless given; ``option``, its name where
            it is not the field's (such a one may be repeated); ``expected``, its values in words,
            where the type does not say it; ``same_scores``, whether an evaluation gives each
            episode the same score whatever its value; ``label``, what tables call it where the
            trainings of rows differ in it (settings with one label are one difference), and
            ``unit``, what follows its values in a sentence; default: the label.
    """
    return field(default=default, metadata={"help": help, "scope": scope, **more})


PATTERN = r"(\d+)|(\d+(?:\.\d+)?)([smh])"  # of --checkpoint-every
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Every:
    """How often a checkpoint is written: after so many steps or seconds; 0: that does not count."""

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Every:
        """From ``500`` (steps), ``30s``, ``10m`` or ``2h``; 0: when it ends or stops."""
        found = re.fullmatch(PATTERN, text.strip())
        if found is None:
            what = "give a number of steps like 500, or a time like 30s, 10m or 2h"
            raise ConfigError(f"--checkpoint-every {text}: {what}.")
        steps, number, unit = found.groups()
        return cls(int(steps)) if steps else cls(seconds=float(number) * _UNITS[unit])


Count = Annotated[int, Meta(ge=1)]
Way = Annotated[int, Meta(ge=2)]
Whole = Annotated[int, Meta(ge=0)]
Part = Annotated[float, Meta(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's numbers, complete.

    Options of method, backbone, data set and sampler are flat; ``sources`` names for each setting
    where its value is from: ``default``, ``preset`` or ``user``.
    """

    method: str
    method_options: dict[str, Any]
    backbone_options: dict[str, Any]
    dataset_options: dict[str, Any]
    sampling_options: dict[str, Any]
    dataset: str = setting(
        "data set; folder:PATH for your own images", TRAINING | EVALUATION, label="training data"
    )
    backbone: str = setting("network from images to feature maps", TRAINING, label="backbone")
    preset: str = setting(
        "settings by name: quick, paper, ...", TRAINING, "quick", label="preset", unit=" (preset)"
    )
    way: Way = setting("classes per episode", EVALUATION, 5)
    shot: Count = setting("support images per class", EVALUATION, 5)
    query: Count = setting("query images per class", EVALUATION, 15)
    unlabeled: Whole = setting("unlabeled images per class", EVALUATION, 0)
    distractors: Whole = setting("further classes among the unlabeled images", EVALUATION, 0)
    train_way: Way = setting(
        "classes per training episode", TRAINING, follows="way", label="way", unit="-way"
    )
    train_shot: Count = setting(
        "support images per class in training", TRAINING, follows="shot", label="shot", unit="-shot"
    )
    train_query: Count = setting(
        "query images per class in training", TRAINING, follows="query", label="query",
        unit=" queries a class",
    )  # fmt: skip
    train_unlabeled: Whole = setting(
        "unlabeled images per class in training", TRAINING, follows="unlabeled", label="unlabeled",
        unit=" unlabeled images a class",
    )  # fmt: skip
    train_distractors: Whole = setting(
        "distractor classes in training", TRAINING, follows="distractors", label="distractors"
    )
    labeled_fraction: Part = setting(
        "fraction of each training class's images that is labeled", TRAINING, 1.0,
        label="labeled images",
    )  # fmt: skip
    labeled_classes: Part = setting(
        "fraction of the training classes that is labeled", TRAINING, 1.0, label="labeled images"
    )
    labeled_seed: int = setting(
        "seed for choosing the labeled images; independent of --seed", TRAINING, 0,
        label="labeled images",
    )  # fmt: skip
    task_batch: Count = setting(
        "tasks per training step (meta-batch)", TRAINING, 4, label="tasks a step"
    )
    steps: Count = setting("training steps", TRAINING, 500, label="steps")
    validate_every: Whole = setting(
        "steps between validations; 0: only at the end", TRAINING, 100, label="validated"
    )
    validation_episodes: Count = setting(
        "episodes per validation", TRAINING, 100, label="validated"
    )
    episodes: Count = setting("test episodes", EVALUATION, 600)
    level: Annotated[float, Meta(gt=0, lt=1)] = setting(
        "confidence level", EVALUATION, 0.95, same_scores=True
    )
    sampling: str = setting(
        "sampling of test episodes: closed (images are reused), open (no image is used twice), "
        "open-balanced (open, and all classes equally often), in-order (open, in the order of the "
        "data)", EVALUATION, "closed",
    )  # fmt: skip
    within_family: bool = setting(
        "draw the classes of an episode from one family, e.g. one alphabet", TRAINING | EVALUATION,
        False, label="within family", unit=" (classes of one family)",
    )  # fmt: skip
    pixels: Literal["unit", "signed"] = setting(
        "scale pixels to [0, 1] or [-1, 1]", TRAINING, "unit", label="augmentation"
    )
    seed: int = setting("seed for initialization and training episodes", TRAINING, 0)
    episode_seed: int = setting("seed for validation and test episodes", EVALUATION, 0)
    device: str = setting("auto, cpu, cuda or cuda:N", MACHINE, "auto")
    engine: str = setting(
        "executor: auto, eager, threads, batched, im2col or graph", TRAINING | EVALUATION, "auto",
        same_scores=True,
    )  # fmt: skip
    precision: Literal["fp32", "tf32", "bf16"] = setting(
        "precision of matrix products and convolutions", TRAINING, "fp32", label="precision",
        unit="",
    )  # fmt: skip
    task_chunk: Count | None = setting(
        "most tasks in memory at a time; default: all of a step", TRAINING, None, same_scores=True
    )
    skip_spikes: Annotated[float, Meta(gt=1)] | None = setting(
        "skip steps whose loss or gradient norm exceeds this multiple of the usual", TRAINING, None,
        label="skips spikes over",
    )  # fmt: skip
    detect_anomaly: bool = setting(
        "name the operation behind a NaN or infinity; slow", TRAINING | MACHINE, False
    )
    profile: bool = setting(
        "profile a few steps: trace.json and the most expensive operations", TRAINING | OUTPUT,
        False,
    )  # fmt: skip
    pictures: bool = setting(
        "save generated images of a held-out task during training", TRAINING | OUTPUT, False
    )
    checkpoint_every: Annotated[str, Meta(pattern=f"^(?:{PATTERN})$")] = setting(
        "steps (500) or time (30s, 10m, 2h) between checkpoints; 0: only at the end or when "
        "interrupted", TRAINING | MACHINE, "10m",
        expected="steps such as 500 or a time such as 30s, 10m or 2h",
    )  # fmt: skip
    keep_checkpoints: Count = setting(
        "number of checkpoints kept until the run is finished", TRAINING | MACHINE, 2
    )
    init: InputFile | None = setting(
        "folder of a run whose weights to start from", TRAINING, None, same_scores=True,
        label="pretrained",
    )  # fmt: skip
    allow_overlap: bool = setting(
        "also test classes whose images were used in training; the result is marked", EVALUATION,
        False, same_scores=True,
    )  # fmt: skip
    runs_dir: str = setting("folder for runs", EVALUATION | OUTPUT, "runs")
    data_root: str | None = setting("folder of the data set's files", MACHINE, None)
    cache_dir: str | None = setting(
        "folder for decoded data; default: the user's cache", MACHINE, None
    )
    metrics: tuple[str, ...] = setting(
        "further metric", EVALUATION, (), option="metric", same_scores=True
    )
    observers: tuple[str, ...] = setting("observer", TRAINING | OUTPUT, (), option="with_")
    sources: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: lists in place of tuples."""
        values = asdict(self).items()
        return {n: list(value) if isinstance(value, tuple) else value for n, value in values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """The configuration in a record; ConfigError for a missing, unknown or wrong setting."""
        if unfit := sorted({field.name for field in fields(cls)} ^ set(values)):
            raise ConfigError(f"the record's configuration: unknown or missing '{unfit[0]}'.")
        try:
            config = msgspec.convert(values, cls, dec_hook=lambda kind, value: kind(value))
        except (msgspec.ValidationError, TypeError) as error:
            for name, option in SETTINGS.items():
                option.check(values[name])  # raises, and names the setting
            raise ConfigError(f"the record's configuration is not valid: {error}.") from error
        groups: dict[str, Any] = {
            name: {n: tuple(v) if isinstance(v, list) else v for n, v in values[name].items()}
            for name in OPTION_FIELDS
        }
        return replace(config, **groups)

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts about the settings that a reader of the result needs."""
        quick = "preset 'quick' is meant for minutes on two CPU cores, not the paper's schedule"
        notes = [quick] if self.preset == "quick" else []
        images, classes = "the images of each training class", "the training classes"
        for noun, part in ((images, self.labeled_fraction), (classes, self.labeled_classes)):
            if part < 1:
                notes.append(f"{part:.3g} of {noun} is labeled (seed {self.labeled_seed})")
        return tuple(notes)


def _settings() -> dict[str, Option]:
    """An option for each field that is a :func:`setting`."""
    found = {}
    hints = typing.get_type_hints(RunConfig, include_extras=True)
    for item in (item for item in fields(RunConfig) if item.metadata):
        default = DEFAULT_PLUGINS.get(item.name) if item.default is MISSING else item.default
        option = option_of(item.name, hints[item.name], default)
        optional = option.optional or "follows" in item.metadata
        found[item.name] = replace(option, optional=optional, **item.metadata)
    return found


SETTINGS: dict[str, Option] = _settings()  # by field


def settings_of(scope: Scope, without: Scope = NOTHING) -> tuple[str, ...]:
    """The fields of settings of these scopes and none of the others."""
    scopes = {name: option.scope or NOTHING for name, option in SETTINGS.items()}
    return tuple(n for n, own in scopes.items() if own & scope and not own & without)


IGNORED = {*settings_of(MACHINE | OUTPUT), "sources"}  # in the search for an equal run
RESUMABLE = settings_of(MACHINE)  # may change when a run is resumed
CHANGEABLE = (*settings_of(EVALUATION), *settings_of(MACHINE, without=TRAINING))  # by fsb eval
WATCHED = settings_of(OUTPUT, without=EVALUATION)  # request output files
FOLLOWERS = {name: option.follows for name, option in SETTINGS.items() if option.follows}
