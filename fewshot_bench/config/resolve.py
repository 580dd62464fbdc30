"""The configuration of a run: signature defaults, then the preset, then what the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fewshot_bench.config.interval import Every
from fewshot_bench.config.names import FIELDS, OF_EVALUATION, OF_RUN, to_fields, unknown_option
from fewshot_bench.config.options import (
    Option,
    backbone_options,
    dataset_options,
    load,
    method_options,
)
from fewshot_bench.config.other_data import kept_options
from fewshot_bench.config.presets import preset_of, refuse_wrong_types, settle
from fewshot_bench.config.schema import (
    CHANGEABLE,
    CORE,
    DEFAULTS,
    OPTIONS,
    RESERVED,
    sampler_options,
)
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.hooks.registry import CORE as OWN
from fewshot_bench.hooks.registry import Registry

__all__ = ["CORE", "DEFAULTS", "RunConfig", "configure", "reconfigure"]


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's numbers, complete. See ``CORE`` for what each field means.

    The options of method, backbone, data set and sampler are flat and complete;
    ``sources`` says of each setting whether it is the ``default``'s, the ``preset``'s or the
    ``user``'s.
    """

    method: str
    method_options: dict[str, Any]
    backbone: str
    backbone_options: dict[str, Any]
    dataset: str
    dataset_options: dict[str, Any]
    sampling_options: dict[str, Any]
    preset: str
    way: int
    shot: int
    query: int
    unlabeled: int
    distractors: int
    train_way: int
    train_shot: int
    train_query: int
    train_unlabeled: int
    train_distractors: int
    labeled_fraction: float
    labeled_classes: float
    labeled_seed: int
    task_batch: int
    steps: int
    validate_every: int
    validation_episodes: int
    episodes: int
    level: float
    sampling: str
    within_family: bool
    pixels: str
    seed: int
    episode_seed: int
    device: str
    engine: str
    precision: str
    task_chunk: int | None
    skip_spikes: float | None
    detect_anomaly: bool
    profile: bool
    pictures: bool
    checkpoint_every: str
    keep_checkpoints: int
    init: str | None
    allow_overlap: bool
    runs_dir: str
    data_root: str | None
    cache_dir: str | None
    metrics: tuple[str, ...]
    observers: tuple[str, ...]
    sources: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: lists for tuples."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Back from a record; settings that are newer than it have their defaults.

        Raises:
            ConfigError: a setting is missing or unknown.
        """
        # An older version did without the settings that it did not have.
        younger: dict[str, Any] = {"sampling_options": {}}
        values = {option.name: option.default for option in CORE} | younger | dict(values)
        for name in ("unlabeled", "distractors"):  # training had what the evaluation has
            if values[f"train_{name}"] is None:
                values[f"train_{name}"] = values[name]
        names = {field.name for field in fields(cls)}
        if names != set(values):
            odd = sorted(names ^ set(values))
            raise ConfigError(f"the record's configuration does not fit this version: {odd[0]}.")
        refuse_wrong_types(values)
        back: dict[str, Any] = {name: tuple(values[name]) for name in ("metrics", "observers")}
        for name in OPTIONS:
            options = values[name].items()
            back[name] = {n: tuple(v) if isinstance(v, list) else v for n, v in options}
        return cls(**{**values, **back})

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result has to know about the settings."""
        told = []
        if self.preset == "quick":
            told.append(
                "preset 'quick' is meant for minutes on two CPU cores, not the paper's schedule"
            )
        for of, part in (
            ("the images of each training class", self.labeled_fraction),
            ("the training classes", self.labeled_classes),
        ):
            if part < 1:
                told.append(f"{part:.3g} of {of} is labeled (seed {self.labeled_seed})")
        return tuple(told)


def configure(method: str, registry: Registry | None = None, /, **settings: Any) -> RunConfig:
    """A complete configuration.

    Arguments:
        method: its name.
        registry: where names are looked up; default: what is installed.
        settings: options of ``fsb run``, named as :mod:`fewshot_bench.config.names` says: core
            options, hyper-parameters of the method, of the backbone (``backbone_*``), of the
            sampler (``sampling_*``) and of the data set, ``metric`` and ``with_`` (a name or
            several).

    Raises:
        ConfigError: a name, option or value that is not possible; says what is.
    """
    fields = to_fields(settings, f"See 'fsb run {method} --help'.")
    registry = registry or Registry.discover()
    if "backbone" in fields and not wants_backbone(registry, method):
        raise ConfigError(f"--backbone: {method} has no network to choose; leave it out.")
    return _complete(method, registry, fields)


def wants_backbone(registry: Registry, method: str) -> bool:
    """Whether the method of this name is built over a backbone, which can be chosen."""
    kind = load(registry, "methods", registry.settled("methods", method))
    return bool(kind.wants_backbone)


def _complete(
    method: str, registry: Registry, settings: dict[str, Any], *, again: bool = False
) -> RunConfig:
    """See :func:`configure`; ``again``: of a run that was there, which needs no preset any more."""
    method = registry.settled("methods", method)
    observers, metrics = (
        tuple(registry.settled(kind, name) for name in _listed(settings.pop(kind, ())))
        for kind in ("observers", "metrics")
    )
    for kind, names in (("observers", observers), ("metrics", metrics)):
        for name in names:
            load(registry, kind, name)
    core = {option.name: option for option in CORE}
    if type(settings.get("checkpoint_every")) is int:  # steps, as Python says them
        settings["checkpoint_every"] = str(settings["checkpoint_every"])
    user = {n: core[n].check(v) for n, v in settings.items() if n in core}
    values = {name: option.default for name, option in core.items()} | user
    settle(registry, values, {n: OWN for n in core if n not in user})
    preset = preset_of(registry, method, values, needed=not again)
    values |= {n: core[n].check(v) for n, v in preset.items() if n in core and n not in user}
    author = registry.resolve("methods", method).distribution
    settle(registry, values, {n: author for n in preset if n not in user})
    spaces = _spaces(registry, method, values, {**preset, **settings})
    _refuse_clashes(registry.resolve("methods", method).title, core, spaces)
    _refuse_unknown(method, settings, preset, core, spaces, again=again)

    chosen: list[dict[str, Any]] = []
    sources = {n: _source(n, settings, preset) for n in core}
    for space in spaces:
        chosen.append({})
        for option in space:
            said = {option.name: option.default, **preset, **settings}[option.name]
            value = option.check(said)
            if option.method:
                typed = option.name in settings
                value = registry.settled("methods", value, None if typed else author)
            chosen[-1][option.name] = value
            sources[option.name] = _source(option.name, settings, preset)
    for name in ("way", "shot", "query", "unlabeled", "distractors"):
        if values[f"train_{name}"] is None:
            values[f"train_{name}"] = values[name]
    if values["skip_spikes"] is not None and values["skip_spikes"] <= 1:
        raise ConfigError(
            f"--skip-spikes {values['skip_spikes']:g}: it is a factor over 1, such as 10."
        )
    if not 0 < values["level"] < 1:
        raise ConfigError(f"--level {values['level']}: it has to be between 0 and 1.")
    Every.parse(values["checkpoint_every"])
    of_method, of_backbone, of_dataset, of_sampler = chosen
    return RunConfig(
        method=method,
        method_options=of_method,
        backbone_options=of_backbone,
        dataset_options=of_dataset,
        sampling_options=of_sampler,
        metrics=metrics,
        observers=observers,
        sources=sources,
        **values,
    )


def reconfigure(config: RunConfig, **changes: Any) -> RunConfig:
    """The configuration with some settings changed; see ``kept_options`` for other data.

    ``sources`` stays as it was for what did not change. ``changes`` are options or fields.

    Raises:
        ConfigError: the images would be others than those that the network was trained on.
    """
    changes = {FIELDS.get(name, name): value for name, value in changes.items()}
    registry = Registry.discover()
    options = [config.method_options, config.backbone_options]
    options.append(kept_options(registry, config.dataset, config.dataset_options, changes))
    samplers = (config.sampling, changes.get("sampling", config.sampling))
    if len({registry.resolve("samplers", name).full_name for name in samplers}) == 1:
        options.append(config.sampling_options)
    settings: dict[str, Any] = {option.name: getattr(config, option.name) for option in CORE}
    settings |= {"metrics": config.metrics, "observers": config.observers}
    for group in options:
        settings |= group
    # What the preset decided stands in the configuration; for other data there may be none.
    changed = _complete(config.method, registry, {**settings, **changes}, again=True)
    kept = {n: s for n, s in config.sources.items() if n in changed.sources and n not in changes}
    return replace(changed, sources={**changed.sources, **kept})


def _spaces(
    registry: Registry, method: str, values: Mapping[str, Any], chosen: Mapping[str, Any]
) -> tuple[list[Option], ...]:
    """The options of method, backbone, data set and sampler."""
    kind = load(registry, "methods", method)
    of_backbone = backbone_options(registry, values["backbone"]) if kind.wants_backbone else []
    return (
        method_options(registry, method, chosen),
        of_backbone,
        dataset_options(registry, values["dataset"]),
        sampler_options(registry, values["sampling"]),
    )


def _refuse_clashes(
    method: str, core: Mapping[str, Option], spaces: Sequence[Sequence[Option]]
) -> None:
    """One name, one option: what is typed must never go to two places."""
    owners = dict.fromkeys((*core, *RESERVED), "'fsb run' itself")
    several = (method, "the backbone", "the data set", "the sampler")
    for owner, space in zip(several, spaces, strict=True):
        for option in space:
            if option.name in owners:
                raise PluginError(
                    f"the option {option.flag} of {owner} clashes with that of "
                    f"{owners[option.name]}; its author has to rename it."
                )
            owners[option.name] = owner


def _refuse_unknown(
    method: str,
    settings: Mapping[str, Any],
    preset: Mapping[str, Any],
    core: Mapping[str, Option],
    spaces: Sequence[Sequence[Option]],
    *,
    again: bool,
) -> None:
    known = set(core) | {option.name for space in spaces for option in space}
    for name in settings:
        if name in known:
            continue
        if not again:
            raise unknown_option(name, {*known, *OF_RUN}, f"See 'fsb run {method} --help'.")
        of_method, _, of_dataset, of_sampler = spaces
        own = {option.name for option in (*of_method, *of_dataset, *of_sampler)}
        offered = {*CHANGEABLE, *own, *OF_EVALUATION}
        raise unknown_option(name, offered, "See 'fsb eval --help'.")
    # A preset speaks of the backbone and the inner method that it names; with others, their
    # options fall away.
    inner = tuple(f"{option.name}_" for option in spaces[0] if option.method)
    for name in preset:
        if name not in known and not name.startswith(("backbone_", "sampling_", *inner)):
            raise ConfigError(f"a preset of {method} sets '{name}', which is no option here.")


def _source(name: str, settings: Mapping[str, Any], preset: Mapping[str, Any]) -> str:
    return "user" if name in settings else "preset" if name in preset else "default"


def _listed(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value or ()
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"--metric or --with {value}: expected a name or a list of names.")
    return tuple(names)
