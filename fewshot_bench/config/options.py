"""Options: settings and hyper-parameters as they are typed, read from annotations and checked.

Keyword-only parameters of a plugin's class or function are options. ``Annotated[float, "help"]``
gives the help text, ``msgspec.Meta(ge=0)`` bounds, ``Literal`` choices; ``X | None`` allows none;
``InputFile`` is a path whose content counts. A parameter annotated with ``Method`` takes the name
of a method, whose options get the parameter's name as a prefix: ``base`` brings ``base_inner_lr``.
One annotated with a frozen dataclass is a group, whose fields are options with that prefix. A
subclass whose ``__init__`` takes ``**options`` has the options of its base classes too.

An option has one name everywhere: ``--inner-lr`` is ``inner_lr`` in Python, ``inner-lr`` or
``inner_lr`` in a grid file; ``--with`` is ``with_``; ``--no-first-order`` is ``first_order=False``.
One that may be repeated takes one value or a list: ``metric=["accuracy", "f1"]``.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import keyword
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union

import msgspec

from fewshot_bench.errors import ConfigError, PluginError, UnknownName
from fewshot_bench.hooks.lifecycle import lifecycle_hooks_of
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.utils.inputs import InputFile

_PLAIN = (bool, int, float, str)
_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
# Options that are about what the command line prints; in Python a run returns its record.
_PRINTING = ("json", "debug", "help")
# Base class of what plugins register; objects of other kinds are called.
_BASES = {
    "methods": ("fewshot_bench.method", "Method"),
    "datasets": ("fewshot_bench.data.images", "Dataset"),
    "samplers": ("fewshot_bench.sampling.base", "Sampler"),
}


class Scope(enum.Flag):
    """What a setting decides. A rule that depends on settings asks for their scope.

    * Two runs are equal if all settings are, except those with scope ``MACHINE`` or ``OUTPUT``.
    * A resumed run takes new values of those with scope ``MACHINE`` only.
    * ``fsb eval`` may change those with scope ``EVALUATION``, and those with scope ``MACHINE``
      and not ``TRAINING``.
    * The trainings of two rows of a table are compared by the settings that have a ``label``.
    """

    TRAINING = enum.auto()  # how weights are trained
    EVALUATION = enum.auto()  # test episodes and how they are scored
    MACHINE = enum.auto()  # where data are and what computes; changes no number
    OUTPUT = enum.auto()  # which files are written; changes no number


@dataclass(frozen=True)
class Option:
    """A setting or a hyper-parameter."""

    name: str  # with underscores; of a setting, its field
    type: Any  # of its values, but for None
    default: Any  # where neither preset nor user gives a value
    help: str = ""
    optional: bool = False  # whether None is allowed, typed "none"
    expected: str = ""  # the values that it takes, in words
    method: bool = False  # whether it names a method, whose options follow
    without: tuple[str, ...] = ()  # but for these
    scope: Scope | None = None  # this and the following: see fewshot_bench.config.schema.setting
    follows: str = ""
    option: str = ""
    same_scores: bool = False
    label: str = ""
    unit: str | None = None

    @property
    def flag(self) -> str:
        """As typed: ``--inner-lr``."""
        return flag(self.option or self.name)

    @property
    def choices(self) -> tuple[str, ...]:
        return typing.get_args(self.type) if typing.get_origin(self.type) is Literal else ()

    @property
    def items(self) -> int:
        """The length of a tuple, 0 for anything else and for a tuple of any length."""
        fixed = typing.get_origin(self.type) is tuple and not self.repeated
        return len(typing.get_args(self.type)) if fixed else 0

    @property
    def repeated(self) -> bool:
        """Whether it is given once for each of its values."""
        return ... in typing.get_args(self.type)

    @property
    def file(self) -> bool:
        """Whether it is the path of a file or folder, whose content counts."""
        return self.type is InputFile

    @property
    def words(self) -> str:
        """The values that it takes: ``an integer >= 2``."""
        return self.expected or _words_of(self.type)

    def check(self, value: Any) -> Any:
        """The value in the option's type, converted if it is text; ConfigError if it is wrong."""
        if self.optional and (value is None or (isinstance(value, str) and value == "none")):
            return None
        none = " or none" if self.optional and not self.follows else ""
        wrong = ConfigError(f"{self.flag}: expected {self.words}{none}, got {value!r}.")
        if self.file:
            if not isinstance(value, (str, Path)) or not str(value):
                raise wrong
            path = InputFile(value)
            if not path.path.exists():
                where = "" if Path(path).is_absolute() else f" in '{Path.cwd()}'"
                raise ConfigError(f"{self.flag} {path}: there is no such file or folder{where}.")
            return path
        value = (value,) if self.repeated and isinstance(value, str) else value
        try:
            # Text is converted, but 1 is no switch.
            checked = msgspec.convert(value, self.type, strict=self.type is bool)
        except (msgspec.ValidationError, TypeError) as error:
            raise wrong from error
        for one in checked if isinstance(checked, tuple) else (checked,):
            # No infinity or NaN, and no integer beyond 64 bits.
            largest = 2**63 if isinstance(one, int) else math.inf
            if not isinstance(one, bool | str) and not abs(one) < largest:
                raise wrong
        return checked


def flag(name: str) -> str:
    """How an option is typed: ``with_`` -> ``--with``."""
    return "--" + name.rstrip("_").replace("_", "-")


def option_name(typed: str) -> str:
    """The Python name of a flag or of a key in a file: ``--with`` -> ``with_``."""
    name = typed.lstrip("-").replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def unknown_option(name: str, known: Collection[str], hint: str) -> ConfigError:
    """The error for an unknown option, as it was given, with the nearest of the Python names."""
    plain = option_name(name.rstrip("_"))
    if plain in _PRINTING:
        about = f"option '{name}' is about what the command line prints"
        leave = "leave it out in Python and in files: a run returns its record"
        return ConfigError(f"{about}; {leave}.")
    switch = plain.removeprefix("no_")
    instead = f"{switch}=False" if switch != plain and switch in known else None
    near = plain if plain in known else instead
    return UnknownName("option", name, set(known), hint, near=near)


def _words_of(type_: Any) -> str:
    """``an integer >= 2``, ``one of a, b``, ``2 numbers``."""
    if type_ is InputFile:
        return "the path of a file or folder"
    bounds = ""
    if typing.get_origin(type_) is typing.Annotated:
        meta = type_.__metadata__[0]  # as option_of makes it
        limits = {">=": meta.ge, ">": meta.gt, "<=": meta.le, "<": meta.lt}
        found = [f"{sign} {limit:g}" for sign, limit in limits.items() if limit is not None]
        bounds, type_ = " " + " and ".join(found) if found else "", type_.__origin__
    arguments = typing.get_args(type_)
    if typing.get_origin(type_) is Literal:
        return "one of " + ", ".join(arguments)
    if typing.get_origin(type_) is tuple:
        noun = _words_of(arguments[0]).partition(" ")[2] or "name"
        return f"a {noun} or a list of {noun}s" if ... in arguments else f"{len(arguments)} {noun}s"
    return _WORDS.get(type_, str(type_)) + bounds


def load(registry: Registry, kind: str, name: str) -> Any:
    """The object behind a name; PluginError if its import fails or it does not fit its kind.

    What its module draws from global generators while it is imported is the same in every process.
    """
    from fewshot_bench.utils.generators import generators_seeded  # and torch

    item = registry.resolve(kind, name)
    with generators_seeded("import"):
        loaded = item.load()
    if kind == "observers":
        lifecycle_hooks_of(item.title, loaded)
        return loaded
    fits, wanted = callable(loaded), "function or class"
    if kind in _BASES:
        module, attribute = _BASES[kind]
        base = getattr(importlib.import_module(module), attribute)
        fits = inspect.isclass(loaded) and issubclass(loaded, base)
        wanted = f"subclass of fewshot_bench.{attribute}"
    if not fits:
        raise PluginError(f"{item.title} is of type {type(loaded).__name__}; expected a {wanted}.")
    return loaded


def options_of(factory: Callable[..., Any], prefix: str = "") -> list[Option]:
    """The options in the order of a signature; PluginError for a parameter that can be none."""
    options: list[Option] = []
    for name, (hint, default) in _parameters(factory).items():
        try:
            if default is inspect.Parameter.empty:
                raise ValueError("has no default; every keyword-only parameter is an option")
            if not _is_group(hint):
                options.append(option_of(prefix + name, hint, default))
                continue
            start, hints = f"{prefix}{name}_", _hints(hint, hint)
            names = [field.name for field in fields(hint)]
            options += [option_of(start + n, hints[n], getattr(default, n)) for n in names]
        except ValueError as error:
            raise PluginError(f"{_called(factory)}: parameter '{name}' {error}.") from error
    return options


def arguments_of(factory: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as keyword arguments of a class or function: those of a group as its dataclass."""
    arguments = dict(options)
    for name, (hint, default) in _parameters(factory).items():
        if _is_group(hint):
            own = [f.name for f in fields(hint) if f"{name}_{f.name}" in arguments]
            chosen = {n: arguments.pop(f"{name}_{n}") for n in own}
            arguments[name] = replace(default, **chosen)
    return arguments


def _parameters(factory: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """{name: (annotation, default)} of the keyword-only parameters, inherited ones last."""
    found: dict[str, tuple[Any, Any]] = {}
    functions = [factory]
    if inspect.isclass(factory):
        functions = [f for kind in factory.__mro__[:-1] if (f := vars(kind).get("__init__"))]
    for function in functions:
        hints, parameters = _hints(function, factory), inspect.signature(function).parameters
        for name, parameter in parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                hint = hints.get(name, type(parameter.default))
                found.setdefault(name, (hint, parameter.default))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break  # nothing is passed on to the base class
    return found


def _called(factory: Callable[..., Any]) -> str:
    return getattr(factory, "__qualname__", repr(factory))


def _hints(annotated: Any, factory: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(annotated, include_extras=True)
    except NameError as error:
        what = f"{_called(factory)}: {error} when its annotations are read"
        raise PluginError(f"{what}; import it at run time, not only for type checking.") from error


def _is_group(hint: Any) -> bool:
    return inspect.isclass(hint) and is_dataclass(hint)


def option_of(name: str, hint: Any, default: Any) -> Option:
    """The option that an annotation describes; ValueError for a type that no option has."""
    metadata: tuple[Any, ...] = ()
    if typing.get_origin(hint) is typing.Annotated:
        metadata, hint = hint.__metadata__, hint.__origin__
    optional = False
    if typing.get_origin(hint) in (Union, types.UnionType):
        rest = [a for a in typing.get_args(hint) if a is not type(None)]
        if len(rest) > 1:
            raise ValueError(f"is of type {hint}; it can be of one type, or of that and None")
        optional, hint = len(rest) < len(typing.get_args(hint)), rest[0]
        if typing.get_origin(hint) is typing.Annotated:
            metadata, hint = (*metadata, *hint.__metadata__), hint.__origin__
    text = next((m for m in metadata if isinstance(m, str)), "")
    bounds = next((m for m in metadata if isinstance(m, msgspec.Meta)), None)
    if typing.get_origin(hint) is Literal:
        if not all(isinstance(choice, str) for choice in typing.get_args(hint)):
            raise ValueError(f"is of type {hint}; the choices of a Literal have to be text")
    elif typing.get_origin(hint) is tuple:
        items = {item for item in typing.get_args(hint) if item is not ...}
        if len(items) != 1 or not items <= {*_PLAIN}:
            raise ValueError(f"is of type {hint}; a tuple has to be of items of one plain type")
        default = None if default is None else tuple(default)
    elif hint not in (*_PLAIN, InputFile):
        from fewshot_bench.method import Method  # imports torch

        if not (inspect.isclass(hint) and issubclass(hint, Method)):
            known = "bool, int, float, str, InputFile, Literal, a tuple or a frozen dataclass"
            raise ValueError(f"is of type {hint}; expected {known}")
        without = next((m for m in metadata if isinstance(m, tuple)), ())
        return Option(name, str, default, text, method=True, without=without)
    return Option(name, typing.Annotated[hint, bounds] if bounds else hint, default, text, optional)


def own_options(registry: Registry, kind: str, name: str, prefix: str = "") -> list[Option]:
    """The options of a registered object; a PluginError names the plugin."""
    factory = load(registry, kind, name)
    try:
        return options_of(factory, prefix)
    except PluginError as error:
        raise PluginError(f"{registry.resolve(kind, name).title}: {error}") from error


def method_options(
    registry: Registry, name: str, chosen: Mapping[str, Any], prefix: str = ""
) -> list[Option]:
    """A method's options and, prefixed, those of the methods that it is given (``chosen``)."""
    options: list[Option] = []
    for option in own_options(registry, "methods", name, prefix):
        options.append(option)
        if option.method:
            if (inner := chosen.get(option.name)) is None:
                author = registry.resolve("methods", name).distribution
                inner = registry.settled("methods", option.default, author)
            left_out = {f"{option.name}_{own}" for own in option.without}
            nested = method_options(registry, inner, chosen, option.name + "_")
            options += [own for own in nested if own.name not in left_out]
    return options


def backbone_options(registry: Registry, name: str) -> list[Option]:
    """A backbone's options, with ``backbone_`` in front."""
    return own_options(registry, "backbones", name, "backbone_")


def dataset_options(registry: Registry, name: str) -> list[Option]:
    """A data set's options but ``path``, which follows a colon; ConfigError: there are none."""
    registered, path = split_dataset(registry, name)
    every = own_options(registry, "datasets", registered)
    options = [option for option in every if option.name != "path"]
    if path is not None and options == every:
        what = f"--dataset {name}: '{registered}' takes nothing after a colon"
        raise ConfigError(f"{what}; write --dataset {registered}.")
    return options


def split_dataset(registry: Registry, name: str) -> tuple[str, str | None]:
    """``folder:PATH`` is a registered name and a path; ``distribution:name`` is a name alone.

    ``distribution:folder:PATH`` is both.
    """
    head, colon, rest = name.partition(":")
    second, more, path = rest.partition(":")
    if colon and registry.claims("datasets", f"{head}:{second}"):
        return f"{head}:{second}", path if more else None
    if colon and registry.claims("datasets", head):
        return head, rest
    return name, None
