"""The settings of a run. A field of ``RunConfig`` is the only place where a setting is described.

From its type, default, bounds, help and scope follow the command line, Python's arguments, grid
files, the rules of reuse, resumption and evaluation, labels of rows, and the reference page.
"""

from __future__ import annotations

import enum
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.resources import files
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fewshot_bench.config.interval import PATTERN
from fewshot_bench.config.options import Option, option_of
from fewshot_bench.errors import ConfigError
from fewshot_bench.utils.inputs import InputFile

# Which plugins a run names where neither user nor preset does: the core knows no plugin by name.
DEFAULT_PLUGINS: dict[str, str] = tomllib.loads(
    files("fewshot_bench").joinpath("config/defaults.toml").read_text("utf-8")
)
# The fields that hold the options of what the configuration names.
OPTION_FIELDS = ("method_options", "backbone_options", "dataset_options", "sampling_options")


class Scope(enum.Flag):
    """What a setting decides. A rule that depends on settings asks for their scope.

    * reuse: a setting counts unless it is of the ``MACHINE`` or of the ``OUTPUT``;
    * resumption takes a new value for those of the ``MACHINE``, and for no others;
    * an evaluation of a finished run may change those of the ``EVALUATION`` and those of the
      ``MACHINE`` that are not of the ``TRAINING``;
    * rows of a table may differ in those of the ``TRAINING`` that count for reuse.
    """

    TRAINING = enum.auto()  # the weights, or how they come to be
    EVALUATION = enum.auto()  # test episodes, and what is made of them
    MACHINE = enum.auto()  # where data lie and on what a run is computed; changes no number
    OUTPUT = enum.auto()  # which files are written; changes no number


TRAINING, EVALUATION, MACHINE, OUTPUT = Scope


@dataclass(frozen=True)
class Setting:
    """Metadata of a field of :class:`RunConfig`, beside its type, bounds (``Meta``) and default.

    Arguments:
        help: one phrase.
        follows: the setting whose value it has unless given.
        option: the option's name where it is not the field's; such a one may be repeated.
        expected: the values that it takes, in words, where the type does not say it.
        same_scores: whether an evaluation gives each episode the same score whatever its value.
    """

    help: str
    scope: Scope
    follows: str = ""
    option: str = ""
    expected: str = ""
    same_scores: bool = False


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
    dataset: Annotated[
        str, Setting("data set; folder:PATH for your own images", TRAINING | EVALUATION)
    ]
    backbone: Annotated[str, Setting("network from images to feature maps", TRAINING)]
    preset: Annotated[str, Setting("settings by name: quick, paper, ...", TRAINING)] = "quick"
    way: Annotated[Way, Setting("classes per episode", EVALUATION)] = 5
    shot: Annotated[Count, Setting("support images per class", EVALUATION)] = 5
    query: Annotated[Count, Setting("query images per class", EVALUATION)] = 15
    unlabeled: Annotated[Whole, Setting("unlabeled images per class", EVALUATION)] = 0
    distractors: Annotated[
        Whole, Setting("further classes among the unlabeled images", EVALUATION)
    ] = 0
    train_way: Annotated[Way, Setting("classes per training episode", TRAINING, "way")]
    train_shot: Annotated[Count, Setting("support images per class in training", TRAINING, "shot")]
    train_query: Annotated[Count, Setting("query images per class in training", TRAINING, "query")]
    train_unlabeled: Annotated[
        Whole, Setting("unlabeled images per class in training", TRAINING, "unlabeled")
    ]
    train_distractors: Annotated[
        Whole, Setting("distractor classes in training", TRAINING, "distractors")
    ]
    labeled_fraction: Annotated[
        Part, Setting("fraction of each training class's images that is labeled", TRAINING)
    ] = 1.0
    labeled_classes: Annotated[
        Part, Setting("fraction of the training classes that is labeled", TRAINING)
    ] = 1.0
    labeled_seed: Annotated[
        int, Setting("seed for choosing the labeled images; independent of --seed", TRAINING)
    ] = 0
    task_batch: Annotated[Count, Setting("tasks per training step (meta-batch)", TRAINING)] = 4
    steps: Annotated[Count, Setting("training steps", TRAINING)] = 500
    validate_every: Annotated[
        Whole, Setting("steps between validations; 0: only at the end", TRAINING)
    ] = 100
    validation_episodes: Annotated[Count, Setting("episodes per validation", TRAINING)] = 100
    episodes: Annotated[Count, Setting("test episodes", EVALUATION)] = 600
    level: Annotated[
        Annotated[float, Meta(gt=0, lt=1)],
        Setting("confidence level", EVALUATION, same_scores=True),
    ] = 0.95
    sampling: Annotated[
        str,
        Setting("sampling of test episodes: closed (images are reused), open (no image is used "
                "twice), open-balanced (open, and all classes equally often), in-order (open, in "
                "the order of the data)", EVALUATION),
    ] = "closed"  # fmt: skip
    within_family: Annotated[
        bool,
        Setting("draw the classes of an episode from one family, e.g. one alphabet",
                TRAINING | EVALUATION),
    ] = False  # fmt: skip
    pixels: Annotated[
        Literal["unit", "signed"], Setting("scale pixels to [0, 1] or [-1, 1]", TRAINING)
    ] = "unit"
    seed: Annotated[int, Setting("seed for initialization and training episodes", TRAINING)] = 0
    episode_seed: Annotated[int, Setting("seed for validation and test episodes", EVALUATION)] = 0
    device: Annotated[str, Setting("auto, cpu, cuda or cuda:N", MACHINE)] = "auto"
    engine: Annotated[
        str,
        Setting("executor: auto, eager, threads, batched, im2col or graph", TRAINING | EVALUATION,
                same_scores=True),
    ] = "auto"  # fmt: skip
    precision: Annotated[
        Literal["fp32", "tf32", "bf16"],
        Setting("precision of matrix products and convolutions", TRAINING),
    ] = "fp32"
    task_chunk: Annotated[
        Count | None,
        Setting("most tasks in memory at a time; default: all of a step", TRAINING,
                same_scores=True),
    ] = None  # fmt: skip
    skip_spikes: Annotated[
        Annotated[float, Meta(gt=1)] | None,
        Setting("skip steps whose loss or gradient norm exceeds this multiple of the usual",
                TRAINING),
    ] = None  # fmt: skip
    detect_anomaly: Annotated[
        bool,
        Setting("name the operation behind a NaN or infinity; slow", TRAINING | MACHINE),
    ] = False
    profile: Annotated[
        bool,
        Setting("profile a few steps: trace.json and the most expensive operations",
                TRAINING | OUTPUT),
    ] = False  # fmt: skip
    pictures: Annotated[
        bool,
        Setting("save generated images of a held-out task during training", TRAINING | OUTPUT),
    ] = False
    checkpoint_every: Annotated[
        Annotated[str, Meta(pattern=f"^(?:{PATTERN})$")],
        Setting("steps (500) or time (30s, 10m, 2h) between checkpoints; 0: only at the end or "
                "when interrupted", TRAINING | MACHINE,
                expected="steps such as 500 or a time such as 30s, 10m or 2h"),
    ] = "10m"  # fmt: skip
    keep_checkpoints: Annotated[
        Count, Setting("number of checkpoints kept until the run is finished", TRAINING | MACHINE)
    ] = 2
    init: Annotated[
        InputFile | None,
        Setting("folder of a run whose weights to start from", TRAINING, same_scores=True),
    ] = None
    allow_overlap: Annotated[
        bool,
        Setting("also test classes whose images were used in training; the result is marked",
                EVALUATION, same_scores=True),
    ] = False  # fmt: skip
    runs_dir: Annotated[str, Setting("folder for runs", EVALUATION | OUTPUT)] = "runs"
    data_root: Annotated[str | None, Setting("folder of the data set's files", MACHINE)] = None
    cache_dir: Annotated[
        str | None, Setting("folder for decoded data; default: the user's cache", MACHINE)
    ] = None
    metrics: Annotated[
        tuple[str, ...],
        Setting("further metric", EVALUATION, option="metric", same_scores=True),
    ] = ()
    observers: Annotated[
        tuple[str, ...], Setting("observer", TRAINING | OUTPUT, option="with_")
    ] = ()
    sources: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: lists in place of tuples."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """The configuration in a record; settings that are newer than it have their defaults.

        Raises:
            ConfigError: a setting is missing, unknown or of another type.
        """
        default = {name: option.default for name, option in SETTINGS.items() if not option.follows}
        values = {**default, "sampling_options": {}, **values}
        names = {field.name for field in fields(cls)}
        if unfit := sorted(names ^ set(values)):
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
        parts = {
            "the images of each training class": self.labeled_fraction,
            "the training classes": self.labeled_classes,
        }
        labeled = [
            f"{part:.3g} of {noun} is labeled (seed {self.labeled_seed})"
            for noun, part in parts.items()
            if part < 1
        ]
        return (*([quick] if self.preset == "quick" else []), *labeled)


def _settings() -> dict[str, Option]:
    """An option for each field that has a :class:`Setting`."""
    found = {}
    hints = typing.get_type_hints(RunConfig, include_extras=True)
    for item in fields(RunConfig):
        default = DEFAULT_PLUGINS.get(item.name) if item.default is MISSING else item.default
        metadata = getattr(hints[item.name], "__metadata__", ())
        setting = next((m for m in metadata if isinstance(m, Setting)), None)
        if setting is not None:
            option = option_of(item.name, hints[item.name], default)
            optional = option.optional or bool(setting.follows)
            found[item.name] = replace(option, optional=optional, **vars(setting))
    return found


SETTINGS: dict[str, Option] = _settings()  # by field


def settings_of(scope: Scope, without: Scope | None = None) -> tuple[str, ...]:
    """The fields of settings of these scopes and none of the others."""
    return tuple(
        name
        for name, option in SETTINGS.items()
        if option.scope and option.scope & scope and not (without and option.scope & without)
    )


COUNTED = settings_of(TRAINING | EVALUATION, without=MACHINE | OUTPUT)  # for reuse
RESUMABLE = settings_of(MACHINE)  # what a resumed run takes from now
CHANGEABLE = (*settings_of(EVALUATION), *settings_of(MACHINE, without=TRAINING))  # by fsb eval
WATCHED = settings_of(OUTPUT, without=EVALUATION)  # files that whoever asks for them expects
FOLLOWERS = {name: option.follows for name, option in SETTINGS.items() if option.follows}
