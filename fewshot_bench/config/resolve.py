"""From settings to a configuration: signature defaults, then the preset, then the user's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fewshot_bench.config.options import (
    Option,
    backbone_options,
    dataset_options,
    load,
    method_options,
    own_options,
    split_dataset,
    unknown_option,
)
from fewshot_bench.config.presets import preset_of
from fewshot_bench.config.schema import CHANGEABLE, FOLLOWERS, SETTINGS, RunConfig
from fewshot_bench.errors import ConfigError, PluginError, UnknownName
from fewshot_bench.hooks.registry import CORE, Registry

# Further options of 'fsb run', whose names no plugin can use.
RESERVED = ("debug", "help", "if_exists", "json")
ALSO = ("if_exists",)  # what a run takes in Python besides settings
# Names of settings that are given once for each value, and the fields that hold all values.
REPEATED = {option.option: name for name, option in SETTINGS.items() if option.option}


def configure(method: str, registry: Registry | None = None, /, **settings: Any) -> RunConfig:
    """A complete configuration.

    Arguments:
        method: its name.
        registry: resolves names; default: what is installed.
        settings: options of ``fsb run``, named as :mod:`fewshot_bench.config.options` says:
            settings of :class:`RunConfig`, hyper-parameters of the method, of the backbone
            (``backbone_*``), of the sampler (``sampling_*``) and of the data set, ``metric`` and
            ``with_`` (a name or several).

    Raises:
        ConfigError: an unknown name, option or value; says which there are.
    """
    registry = registry or Registry.discover()
    given = to_fields(settings, f"See 'fsb run {method} --help'.", (*REPEATED, *ALSO))
    return Draft(method, registry, given).complete(given)


def to_fields(settings: Mapping[str, Any], hint: str, also: tuple[str, ...]) -> dict[str, Any]:
    """Options by name to fields of a configuration: ``metric`` to ``metrics``.

    Arguments:
        settings: by name.
        hint: what to type next.
        also: options of the call that are no settings, and those of ``REPEATED`` that it takes.

    Raises:
        UnknownName: a field's name in place of the option's.
    """
    for option, name in REPEATED.items():
        if name in settings:
            near = option if option in also else None
            raise UnknownName("option", name, {*also, *SETTINGS} - {name}, hint, near=near)
    return {REPEATED.get(name, name): value for name, value in settings.items()}


class Draft:
    """A configuration whose names and preset are resolved, so that all of its options are known.

    Arguments:
        method: name of the method.
        registry: resolves names.
        given: the user's values by field or option, as typed; those that decide which options
            there are (data set, backbone, preset, task, sampler, inner methods) are used, and
            the others may come later, to :meth:`complete`.
        preset_required: whether the preset has to exist for this method, data set and task.

    Attributes:
        options: {"Run", "Method", "Backbone", "Data set", "Sampler": options of that group}.
        defaults: {option or field: its value unless the user gives one}.
        preset: the settings of the preset.

    Raises:
        ConfigError: an unknown name or impossible value among ``given``.
        PluginError: a plugin cannot be imported, or two of its options have one name.
    """

    def __init__(
        self,
        method: str,
        registry: Registry,
        given: Mapping[str, Any],
        *,
        preset_required: bool = True,
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
        self.options: dict[str, list[Option]] = {
            "Run": [
                option
                for name, option in SETTINGS.items()
                if name != "backbone" or self.kind.wants_backbone
            ],
            "Method": method_options(registry, method, {**preset, **given}),
            "Backbone": (
                backbone_options(registry, values["backbone"]) if self.kind.wants_backbone else []
            ),
            "Data set": dataset_options(registry, values["dataset"]),
            "Sampler": sampler_options(registry, values["sampling"]),
        }
        for option in self.plugin_options():
            value = {option.name: option.default, **preset}[option.name]
            self.defaults[option.name] = (
                registry.settled("methods", value, author) if option.method else value
            )
        self._refuse_clashes()

    def plugin_options(self) -> list[Option]:
        """All options but those of every run."""
        return [o for group, options in self.options.items() if group != "Run" for o in options]

    def complete(self, given: Mapping[str, Any], *, evaluated: bool = False) -> RunConfig:
        """The configuration with the user's values.

        Arguments:
            given: by field or option, as typed.
            evaluated: it is that of a finished run, for ``fsb eval``.

        Raises:
            ConfigError: an unknown option, or an impossible value.
        """
        self._refuse_unknown(given, evaluated)
        values = {**self.defaults, **self._checked(given, {})}
        for option in self.plugin_options():
            value = values[option.name] = option.check(
                given.get(option.name, self.defaults[option.name])
            )
            if option.method:
                values[option.name] = self.registry.settled("methods", value)
        settle(self.registry, values, {})
        for name, leader in FOLLOWERS.items():
            if values[name] is None:
                values[name] = values[leader]
        sources = {
            name: "user" if name in given else "preset" if name in self.preset else "default"
            for name in values
            if name not in REPEATED.values()
        }
        groups: dict[str, Any] = {
            f"{field}_options": {o.name: values.pop(o.name) for o in self.options[group]}
            for field, group in (
                ("method", "Method"), ("backbone", "Backbone"), ("dataset", "Data set"),
                ("sampling", "Sampler"),
            )
        }  # fmt: skip
        return RunConfig(method=self.method, sources=sources, **groups, **values)

    def _checked(
        self, given: Mapping[str, Any], start: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """These values of settings, checked, over the defaults of all (or over ``start``)."""
        values = (
            {name: option.default for name, option in SETTINGS.items()} if start is None else start
        )
        for name, option in SETTINGS.items():
            if name in given:
                value = given[name]
                if name == "checkpoint_every" and type(value) is int:  # steps, in Python
                    value = str(value)
                values[name] = option.check(value)
        for kind in ("observers", "metrics"):
            if kind in values:
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
                if option.name in owners:
                    raise PluginError(
                        f"the option {option.flag} of {owner} clashes with that of "
                        f"{owners[option.name]}; its author has to rename it."
                    )
                owners[option.name] = owner

    def _refuse_unknown(self, given: Mapping[str, Any], evaluated: bool) -> None:
        known = {*SETTINGS, *(option.name for option in self.plugin_options())}
        for name in given:
            if name in known:
                continue
            own = [option.name for option in self.plugin_options()]
            offered = [*CHANGEABLE, *own, "part", "trust_code"] if evaluated else [*known, *ALSO]
            command = "fsb eval" if evaluated else f"fsb run {self.method}"
            names = {SETTINGS[n].option or n if n in SETTINGS else n for n in offered}
            raise unknown_option(name, names, f"See '{command} --help'.")
        # A preset also sets options of the backbone and the inner method that it names; with
        # others, these do not apply.
        inner = tuple(f"{option.name}_" for option in self.options["Method"] if option.method)
        for name in self.preset:
            if name not in known and not name.startswith(("backbone_", "sampling_", *inner)):
                raise ConfigError(
                    f"a preset of {self.method} sets '{name}', which is no option here."
                )


def sampler_options(registry: Registry, name: str) -> list[Option]:
    """A sampler's options, with ``sampling_`` in front, without what every sampler gets."""
    own = own_options(registry, "samplers", name, "sampling_")
    return [option for option in own if option.name.removeprefix("sampling_") not in SETTINGS]


def settle(registry: Registry, values: dict[str, Any], choosers: Mapping[str, str]) -> None:
    """Make the names of backbone, sampler and data set unambiguous; changes ``values``.

    A default such as a sampler's name is that of the distribution that chose it, also when another
    plugin claims the name: installing something must not change or break what did not name it.

    Arguments:
        choosers: {setting: distribution whose default or preset it is}, of those not typed.
    """
    for setting, kind in (("backbone", "backbones"), ("sampling", "samplers")):
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
            raise ConfigError(
                f"fsb eval: {SETTINGS[field].flag} decided the training of the run and cannot "
                "change; 'fsb eval --help' shows what can."
            )


def with_changes(
    config: RunConfig,
    registry: Registry,
    changes: Mapping[str, Any],
    dataset_options: Mapping[str, Any] | None = None,
) -> RunConfig:
    """A run's configuration with other values for some settings and options.

    ``sources`` stay as they were for what did not change. The preset need not exist any more: what
    it decided is in the configuration.

    Arguments:
        config: of the run.
        registry: resolves names.
        changes: by field or option.
        dataset_options: options that other data keep; default: all of the run's.

    Raises:
        ConfigError: an unknown option, or an impossible value.
    """
    given: dict[str, Any] = {name: getattr(config, name) for name in SETTINGS}
    given |= config.method_options | config.backbone_options
    given |= config.dataset_options if dataset_options is None else dataset_options
    samplers = (config.sampling, changes.get("sampling", config.sampling))
    if len({registry.resolve("samplers", name).full_name for name in samplers}) == 1:
        given |= config.sampling_options
    given |= changes
    new = Draft(config.method, registry, given, preset_required=False).complete(
        given, evaluated=True
    )
    kept = {n: s for n, s in config.sources.items() if n in new.sources and n not in changes}
    return replace(new, sources={**new.sources, **kept})
