"""From settings to a configuration: signature defaults, then the preset, then the user's values."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fewshot_bench.config.options import (
    Option,
    backbone_options,
    dataset_options,
    load,
    method_options,
    options_of,
    own_options,
    split_dataset,
    unknown_option,
)
from fewshot_bench.config.schema import CHANGEABLE, FOLLOWERS, OPTION_FIELDS, SETTINGS, RunConfig
from fewshot_bench.errors import ConfigError, PluginError, UnknownName
from fewshot_bench.hooks.registry import CORE, Registry

Values = Mapping[str, Any]  # by option or field
# Further options of 'fsb run', whose names no plugin can use.
RESERVED = ("debug", "help", "if_exists", "json")
ALSO = ("if_exists",)  # what a run takes in Python besides settings
KIND_OF = {"backbone": "backbones", "sampling": "samplers"}  # settings that name a plugin
# Names of settings that are given once for each value, and the fields that hold all values.
REPEATED = {option.option: name for name, option in SETTINGS.items() if option.option}


def configure(method: str, registry: Registry | None = None, /, **settings: Any) -> RunConfig:
    """A complete configuration.

    Arguments:
        registry: resolves names; default: what is installed.
        settings: options of ``fsb run``, named as :mod:`fewshot_bench.config.options` says.

    Raises:
        ConfigError: an unknown name, option or value; says which there are.
    """
    registry = registry or Registry.discover()
    given = to_fields(settings, f"See 'fsb run {method} --help'.", (*REPEATED, *ALSO))
    return Draft(method, registry, given).complete(given)


def to_fields(settings: Mapping[str, Any], hint: str, also: tuple[str, ...]) -> dict[str, Any]:
    """Options by name to fields of a configuration: ``metric`` to ``metrics``, which is unknown.

    ``also``: options of the call that are no settings, and those of ``REPEATED`` that it takes.
    """
    for option, name in REPEATED.items():
        if name in settings:
            near = option if option in also else None
            raise UnknownName("option", name, {*also, *SETTINGS} - {name}, hint, near=near)
    return {REPEATED.get(name, name): value for name, value in settings.items()}


class Draft:
    """A configuration whose names and preset are resolved, so that all of its options are known.

    Arguments:
        given: the user's values by field or option, as typed; those that decide no options may come
            later, to :meth:`complete`.
        preset_required: whether the preset has to exist for this method, data set and task.

    Attributes:
        options: {"Run", "Method", "Backbone", "Data set", "Sampler": options of that group}.
        defaults: {option or field: its value unless the user gives one}.
        preset: the settings of the preset.

    ConfigError for an unknown name or value; PluginError for an import, or two options of one name.
    """

    def __init__(
        self, method: str, registry: Registry, given: Values, *, preset_required: bool = True
    ) -> None:
        self.registry = registry
        self.method = method = registry.settled("methods", method)
        self.kind = load(registry, "methods", method)
        if "backbone" in given and preset_required and not self.kind.wants_backbone:
            raise ConfigError(f"--backbone: {method} uses no backbone; leave it out.")
        values = self._checked(given)
        settle(registry, values, {name: CORE for name in SETTINGS if name not in given})
        preset = self.preset = preset_of(registry, method, values, needed=preset_required)
        author = registry.resolve("methods", method).distribution
        values |= self._checked({n: v for n, v in preset.items() if n not in given}, {})
        settle(registry, values, {name: author for name in preset if name not in given})
        self.defaults = {name: values[name] for name in SETTINGS}
        network = self.kind.wants_backbone
        self.options: dict[str, list[Option]] = {
            "Run": [o for name, o in SETTINGS.items() if name != "backbone" or network],
            "Method": method_options(registry, method, {**preset, **given}),
            "Backbone": backbone_options(registry, values["backbone"]) if network else [],
            "Data set": dataset_options(registry, values["dataset"]),
            "Sampler": sampler_options(registry, values["sampling"]),
        }
        for option in self.plugin_options():
            value = preset.get(option.name, option.default)
            value = registry.settled("methods", value, author) if option.method else value
            self.defaults[option.name] = value
        self._refuse_clashes()

    def plugin_options(self) -> list[Option]:
        return [o for group, options in self.options.items() if group != "Run" for o in options]

    def complete(self, given: Mapping[str, Any], *, evaluated: bool = False) -> RunConfig:
        """The configuration with the user's values, by field or option; ConfigError for wrong ones.

        ``evaluated``: it is that of a finished run, for ``fsb eval``.
        """
        self._refuse_unknown(given, evaluated)
        values = {**self.defaults, **self._checked(given, {})}
        for option in self.plugin_options():
            value = option.check(given.get(option.name, self.defaults[option.name]))
            value = self.registry.settled("methods", value) if option.method else value
            values[option.name] = value
        settle(self.registry, values, {})
        values |= {n: values[leader] for n, leader in FOLLOWERS.items() if values[n] is None}
        chosen = {**dict.fromkeys(self.preset, "preset"), **dict.fromkeys(given, "user")}
        sources = {n: chosen.get(n, "default") for n in values if n not in REPEATED.values()}
        groups: dict[str, Any] = {
            field: {o.name: values.pop(o.name) for o in self.options[group]}
            for field, group in zip(OPTION_FIELDS, tuple(self.options)[1:], strict=True)
        }
        return RunConfig(method=self.method, sources=sources, **groups, **values)

    def _checked(self, given: Values, start: dict[str, Any] | None = None) -> dict[str, Any]:
        """These values of settings, checked, over the defaults of all (or over ``start``)."""
        values = {n: o.default for n, o in SETTINGS.items()} if start is None else start
        for name in (name for name in SETTINGS if name in given):
            value = given[name]
            if name == "checkpoint_every" and type(value) is int:  # steps, in Python
                value = str(value)
            values[name] = SETTINGS[name].check(value)
        for kind in (kind for kind in ("observers", "metrics") if kind in values):
            values[kind] = tuple(self.registry.settled(kind, name) for name in values[kind])
            for name in values[kind]:
                load(self.registry, kind, name)
        return values

    def _refuse_clashes(self) -> None:
        """Raise PluginError for two options of one name: a value must never go to two places."""
        owners = dict.fromkeys((*SETTINGS, *REPEATED, *RESERVED, "with"), "'fsb run' itself")
        titles = {"Method": self.registry.resolve("methods", self.method).title}
        for group, options in self.options.items():
            owner = titles.get(group, f"the {group.lower()}")
            for option in options if group != "Run" else ():
                if other := owners.get(option.name):
                    clash = f"the option {option.flag} of {owner} clashes with that of {other}"
                    raise PluginError(f"{clash}; its author has to rename it.")
                owners[option.name] = owner

    def _refuse_unknown(self, given: Mapping[str, Any], evaluated: bool) -> None:
        own = [option.name for option in self.plugin_options()]
        known = {*SETTINGS, *own}
        for name in (name for name in given if name not in known):
            offered = [*CHANGEABLE, *own, "part", "trust_code"] if evaluated else [*known, *ALSO]
            command = "fsb eval" if evaluated else f"fsb run {self.method}"
            names = {SETTINGS[n].option or n if n in SETTINGS else n for n in offered}
            raise unknown_option(name, names, f"See '{command} --help'.")
        # A preset also sets options of the backbone and the inner method that it names; with
        # others, these do not apply.
        inner = tuple(f"{option.name}_" for option in self.options["Method"] if option.method)
        for name in self.preset:
            if name not in known and not name.startswith(("backbone_", "sampling_", *inner)):
                what = f"a preset of {self.method} sets '{name}'"
                raise ConfigError(f"{what}, which is no option here.")


def preset_of(registry: Registry, method: str, values: Values, *, needed: bool) -> dict[str, Any]:
    """The settings of ``values["preset"]`` for this method, data set and task.

    UnknownName if it is ``needed`` and there is none; PluginError for malformed ``presets``.
    """
    from fewshot_bench.episode import Task  # imports torch
    from fewshot_bench.method import preset_settings

    kind, item = load(registry, "methods", method), registry.resolve("methods", method)
    dataset, _ = split_dataset(registry, values["dataset"])
    data, name = load(registry, "datasets", dataset), values["preset"]
    task = Task(values["way"], values["shot"], values["query"])
    try:
        settings = preset_settings(kind, name, data, task)
        known = [n for n in kind.presets if preset_settings(kind, n, data, task) is not None]
    except Exception as error:
        raise PluginError(f"{item.title}: preset '{name}': {error}.") from error
    if settings is None and needed:
        hint = f"These are for {method} on {dataset}, {task.way}-way {task.shot}-shot."
        if name in kind.presets:
            hint += f" '{name}' exists for another --dataset, --way or --shot."
        raise UnknownName("preset", name, known, hint)
    settings = settings or {}
    for option in options_of(kind):
        if option.method and option.name in settings:
            inner = settings[option.name]
            settings[option.name] = registry.settled("methods", inner, item.distribution)
    return settings


def sampler_options(registry: Registry, name: str) -> list[Option]:
    """A sampler's options, with ``sampling_`` in front, without what every sampler gets."""
    own = own_options(registry, "samplers", name, "sampling_")
    return [option for option in own if option.name.removeprefix("sampling_") not in SETTINGS]


def settle(registry: Registry, values: dict[str, Any], choosers: Mapping[str, str]) -> None:
    """Make the names of backbone, sampler and data set unambiguous; changes ``values``.

    A name that was not typed is that of the distribution that chose it (``choosers``, by setting),
    also when another plugin claims it: installing something must not change what did not name it.
    """
    for setting, kind in KIND_OF.items():
        if values[setting] is not None:
            values[setting] = registry.settled(kind, values[setting], choosers.get(setting))
    name, path = split_dataset(registry, values["dataset"])
    name = registry.settled("datasets", name, choosers.get("dataset"))
    values["dataset"] = name if path is None else f"{name}:{path}"


def check_changes(changes: Iterable[str]) -> None:
    """Raise ConfigError if a setting decided the training of a finished run, or observes one."""
    for name in changes:
        field = REPEATED.get(name, name)
        if field == "observers":
            raise ConfigError("fsb eval: --with is for training; an evaluation has no observers.")
        if field in SETTINGS and field not in CHANGEABLE:
            fixed = f"{SETTINGS[field].flag} decided the training of the run and cannot change"
            raise ConfigError(f"fsb eval: {fixed}; 'fsb eval --help' shows what can.")


def with_changes(
    config: RunConfig, registry: Registry, changes: Values, dataset_options: Values | None = None
) -> RunConfig:
    """A run's configuration with other values for some settings and options; the rest is kept.

    The preset need not exist any more. ``dataset_options`` are those that other data keep; default:
    all. ConfigError for an unknown option, or an impossible value.
    """
    given: dict[str, Any] = {name: getattr(config, name) for name in SETTINGS}
    given |= config.method_options | config.backbone_options
    given |= config.dataset_options if dataset_options is None else dataset_options
    samplers = (config.sampling, changes.get("sampling", config.sampling))
    if len({registry.resolve("samplers", name).full_name for name in samplers}) == 1:
        given |= config.sampling_options
    given |= changes
    draft = Draft(config.method, registry, given, preset_required=False)
    new = draft.complete(given, evaluated=True)
    kept = {n: s for n, s in config.sources.items() if n in new.sources and n not in changes}
    return replace(new, sources={**new.sources, **kept})
