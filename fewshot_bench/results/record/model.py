"""The record of a run: one typed model, which is written, read, checked and documented.

Nested structs hold what a record consists of. Whoever writes a part constructs its struct;
:mod:`.files` encodes and decodes the whole and checks every value against the types here.
The reference page and the JSON schema in docs/reference are made from them.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

# Version 1 spelled some keys as British English does (`dataset_licence`, `unlabelled`).
SCHEMA_VERSION = 2
TEST, VALIDATION = "test", "validation"  # the splits that can be evaluated
Part = Literal["test", "validation"]
LARGEST = 2**53  # every reader of JSON has integers up to this exactly


def about(text: str) -> Meta:
    """The description of a field."""
    return Meta(description=text)


Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Positive = Annotated[int, Meta(ge=1, le=LARGEST)]
Seed = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Amount = Annotated[float, Meta(ge=0, le=1e300)]
Number = Annotated[float, Meta(ge=-1e300, le=1e300)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Level = Annotated[float, Meta(ge=1e-6, le=1 - 1e-9)]
Interval = Annotated[list[Number | None], Meta(min_length=2, max_length=2)]
Range = Annotated[list[Count], Meta(min_length=2, max_length=2)]
# The name of one folder, which leads nowhere else.
Name = Annotated[str, Meta(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$(?!\n)", max_length=255)]


class Struct(msgspec.Struct):
    """A part of a record."""

    def to_dict(self) -> dict[str, Any]:
        """The part as JSON has it."""
        return msgspec.to_builtins(self)


class Task(Struct):
    """The counts of an episode."""

    way: Annotated[Positive, about("classes")]
    shot: Annotated[Positive, about("support images of a class")]
    query: Annotated[Positive, about("queries of a class")]
    unlabeled: Annotated[Count, about("unlabeled images of a class")]
    distractors: Annotated[Count, about("classes of which there are only unlabeled images")]


class Plugin(Struct):
    """Where a method comes from."""

    distribution: str | None = None
    version: str | None = None


class NamedPlugin(Struct):
    """A plugin that a run names."""

    kind: Annotated[str, about("`methods`, `datasets`, `backbones`, `samplers`, ...")]
    name: str
    distribution: str
    version: str


class Environment(Struct, rename={"fewshot_bench": "fewshot-bench"}):
    """What a run was made with."""

    python: str | None = None
    fewshot_bench: str | None = None
    torch: str | None = None
    torchvision: str | None = None
    numpy: str | None = None
    scipy: str | None = None
    platform: str | None = None
    cpu: Annotated[str | None, about("the processor")] = None
    cores: Count | None = None
    threads: Annotated[Count | None, about("of torch")] = None
    cuda: str | None = None
    commit: Annotated[str | None, about("of a source checkout, with `+` if files changed")] = None
    code: Annotated[str | None, about("sha256 of the source that made the numbers")] = None


class Device(Struct, omit_defaults=True):
    """Where a run was computed. The clocks are nvidia-smi's when the run begins."""

    type: Annotated[str, about("`cpu` or `cuda`")]
    name: str
    memory_bytes: Annotated[Count | None, about("of a GPU, as what follows")] = None
    compute_capability: str | None = None
    cudnn: Count | None = None
    driver: str | None = None
    clock_mhz: Amount | None = None
    max_clock_mhz: Amount | None = None
    memory_clock_mhz: Amount | None = None
    power_limit_w: Amount | None = None


class Sampler(Struct):
    """What drew the episodes, and the images of a class that they have, [fewest, most]."""

    name: str
    distribution: str
    version: str
    options: dict[str, Any]
    code: Annotated[str, about("sha256 of its source")]
    sampling: Annotated[str, about("`closed` or `open`, as it declares")]
    support: Range
    query: Range
    unlabeled: Range


class SeenClass(Struct, omit_defaults=True, kw_only=True):
    """An evaluated class that took part in making the weights."""

    name: Annotated[str, about("the class")] = field(name="class")
    seen_as: Annotated[str, about("the class that it is there")] = field(name="as")
    part: Annotated[str, about("`training` or `validation`")]
    run: Annotated[str | None, about("whose; this one if missing")] = None
    images: Annotated[Count, about("of them, identical images")]
    of: Annotated[Count, about("images of the class")]


class SameName(Struct):
    """An evaluated class of other content that has the name of one that took part."""

    name: str = field(name="class")
    seen_as: str = field(name="as")
    part: str


class Overlap(Struct):
    """Evaluated classes that took part in training or validation, by their images' content."""

    split: Annotated[str, about("that was evaluated")]
    classes: Annotated[Count, about("classes that took part")]
    of: Annotated[Count, about("classes of the split")]
    training: Annotated[Count, about("of `classes`, in training")]
    validation: Annotated[Count, about("of `classes`, in validation")]
    images: Annotated[Count, about("identical images")]
    found: list[SeenClass]
    unknown: Annotated[list[str], about("sentences on what cannot be known")]
    same_names: Annotated[list[SameName], about("if most classes have such a name")] = []


class Metric(Struct):
    """The mean of a metric over the episodes; null where it was not finite."""

    mean: Number | None
    half_width: Amount | None
    higher_is_better: bool | None = None


class ClassUse(Struct):
    """How evenly the classes fill the episodes."""

    classes: Annotated[Count, about("classes of the split")]
    used: Count
    effective: Annotated[Amount, about("classes that, used equally, would be as uneven")]
    top: Annotated[Count, about("a quarter of all classes, those used most")]
    top_share: Annotated[Fraction, about("share of the places that these fill")]
    uneven: bool


class Result(Struct):
    """The result of an evaluation."""

    accuracy: Annotated[Fraction, about("mean over the episodes")]
    half_width: Annotated[Amount | None, about("of the interval; null for one episode")]
    level: Annotated[Level, about("confidence level")]
    interval: Annotated[Interval | None, about("[low, high]")]
    episodes: Positive
    per_episode_sd: Amount | None
    transductive: Annotated[bool, about("whether all queries of a task are seen together")]
    sampling: Annotated[str, about("`closed` or `open`")]
    metrics: Annotated[dict[str, Metric], about("of `--metric`, by name")]
    class_use: ClassUse


class Validation(Struct):
    """The step that validation chose; with a whole result where the split was evaluated."""

    best_step: Count | None = None
    accuracy: Fraction | None = None
    half_width: Amount | UnsetType | None = UNSET
    level: Level | UnsetType = UNSET
    interval: Interval | UnsetType | None = UNSET
    episodes: Positive | UnsetType = UNSET
    per_episode_sd: Amount | UnsetType | None = UNSET
    transductive: bool | UnsetType = UNSET
    sampling: str | UnsetType = UNSET
    metrics: dict[str, Metric] | UnsetType = UNSET
    class_use: ClassUse | UnsetType = UNSET


class Training(Struct):
    """What the training came to."""

    steps: Count | None = None
    seconds: Annotated[Amount | None, about("of all processes, without what a kill lost")] = None
    warmup_seconds: Amount | None = None
    engine: str | None = None
    chunks: Annotated[Count | None, about("calls in which a batch of tasks was computed")] = None
    skipped_steps: Annotated[Count | None, about("by `--skip-spikes`")] = None


class TrainingSummary(Struct, kw_only=True):
    """What was trained on, also in a run that evaluates another one's weights."""

    source: Annotated[str, about("`episodes` or `batches`")]
    settings: Annotated[dict[str, Any], about("of `config`, those of the training, as then")]
    dataset_digest: str
    train_digest: Annotated[str, about("of the training and validation splits")]
    init_digest: Annotated[str | None, about("sha256 of the weights of `--init`")] = None
    classes: Annotated[Count, about("of the training split")]
    images: Annotated[Count, about("of the training split")]
    labeled_images: Count
    turns: Annotated[Count, about("batches of a step")]
    images_per_task: Count
    images_seen: Annotated[Count, about("steps x turns x tasks x images of a task")]


class StepTime(Struct):
    """Milliseconds of a training step."""

    median: Amount | None = None
    p95: Amount | None = None


class Timing(Struct):
    """Times and memory."""

    interruptions: Annotated[Count, about("how often the run was resumed")] = 0
    step_ms: StepTime | None = None
    tasks_per_s: Annotated[Amount | None, about("of training")] = None
    phases: Annotated[dict[str, Amount | None] | None, about("median ms of parts of it")] = None
    warmup_steps: Annotated[Count | None, about("steps that are not counted")] = None
    adapt_ms: Annotated[Amount | None, about("median per test task")] = None
    predict_ms: Annotated[Amount | None, about("median per test task")] = None
    timed_episodes: Count | None = None
    memory_estimate_bytes: Annotated[Amount | None, about("of a step, before the run")] = None
    peak_memory_bytes: Annotated[Amount | None, about("allocated; of a process on a CPU")] = None
    flops_per_step: Amount | None = None
    flops_per_s: Amount | None = None
    clocks: Annotated[dict[str, str] | None, about("`device events` or `host clock`")] = None


class Input(Struct):
    """Something that the run read."""

    option: Annotated[str, about("`init`, `dataset`, an option that takes a file, `code of ...`")]
    path: Annotated[str | None, about("as it was typed")]
    absolute: str | None
    sha256: Annotated[str, about("of the content; of `dataset`, images, classes and splits")]
    bytes: Count


class File(Struct, omit_defaults=True):
    """A file beside the record; whoever loads it checks the digest."""

    file: str
    sha256: str
    bytes: Count | None = None
    tensors: Annotated[Count | None, about("how many, of `weights`")] = None


class Settings(Struct):
    """The keys of `config` that a reader relies on; the others are as the run had them."""

    dataset_options: dict[str, Any]
    sources: dict[str, str]
    within_family: bool
    init: str | None
    metrics: list[str]
    observers: list[str]
    method_options: dict[str, Any]
    backbone_options: dict[str, Any]
    sampling_options: dict[str, Any]


class TrainingSettings(Struct):
    """The same of `training_summary.settings`."""

    dataset: str
    dataset_options: dict[str, Any]
    init: str | None


class Record(Struct, kw_only=True):
    """The record of a run of fewshot-bench."""

    schema_version: Annotated[int, about("grows when a key changes its name or meaning")]
    status: Annotated[str, about("`completed`, `failed`, `interrupted`, `running` (or killed)")]
    id: Annotated[Name, about("name of the run's folder")]
    command: Annotated[str, about("command line or script that started it")]
    method: str
    dataset: Annotated[str, about("data set, with its path where it has one")]
    dataset_digest: Annotated[str, about("sha256 of the data's content, however it is split")]
    evaluated_digest: Annotated[str, about("the same of the evaluated split alone")]
    dataset_license: str
    dataset_source: str
    split: Annotated[str | None, about("name of the split into training, validation, test")]
    train_task: Annotated[Task, about("of training episodes")]
    task: Annotated[Task, about("of validation and test episodes")]
    seed: Annotated[Seed, about("of initialization and training episodes")]
    episode_seed: Annotated[Seed, about("of validation and test episodes")]
    preset: Annotated[str, about("`config.sources` says which settings it decided")]
    config: Annotated[dict[str, Any], about("every setting")]
    parameters: Annotated[Count, about("how many numbers the method has")]
    plugin: Annotated[Plugin, about("that the method comes from")]
    plugins: Annotated[list[NamedPlugin], about("every plugin that the run names")]
    environment: Environment
    device: Device
    episodes_digest: Annotated[str | None, about("sha256 of classes, images, targets, in order")]
    part: Annotated[Part, about("the evaluated split, which has the result")]
    sampler: Annotated[Sampler, about("what drew the episodes")]
    overlap: Annotated[Overlap | None, about("classes that took part; null: not checked")] = None
    test: Annotated[Result | None, about("null while there is none")]
    validation: Annotated[Validation | None, about("null without a validation split")]
    training: Annotated[Training | None, about("null if nothing was trained")]
    training_summary: Annotated[TrainingSummary | None, about("null without parameters")]
    timing: Timing
    inputs: Annotated[list[Input], about("what the run read")]
    weights: Annotated[File | None, about("the weights that made the result")] = None
    seen: Annotated[File | None, about("the images that took part in making the weights")] = None
    notes: Annotated[list[str], about("what a reader of the result has to know")]
    error: Annotated[str | None, about("what went wrong")]
    evaluated_from: Annotated[str | None, about("of `fsb eval`: id of the evaluated run")] = None
