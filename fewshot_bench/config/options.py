"""Hyper-parameters as options: read from signatures, and checked.

Keyword-only parameters are options. ``Annotated[float, "help"]`` gives help; ``Literal`` gives
choices; ``X | None`` allows none; ``InputFile`` is a path whose content counts. A parameter
annotated with ``Method`` takes the name of a method, whose own options appear behind the
parameter's name: ``base`` brings ``base_inner_lr``.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

from fewshot_bench.config.names import flag
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.utils.inputs import InputFile

_PLAIN = (bool, int, float, str)
# What the objects behind a name have to be subclasses of; those of other kinds are called.
_BASES = {
    "methods": ("fewshot_bench.method", "Method"),
    "datasets": ("fewshot_bench.data.images", "Dataset"),
    "samplers": ("fewshot_bench.sampling.base", "Sampler"),
    "observers": ("fewshot_bench.engine.observer", "Observer"),
}


@dataclass(frozen=True)
class Option:
    """One setting.

    Arguments:
        name: with underscores; ``flag`` is how it is typed.
        type: bool, int, float or str; for a tuple, of its items.
        default: used where neither preset nor user says anything.
        help: one sentence.
        choices: what it may be, if that is a list.
        optional: whether it may be None (typed ``none``).
        items: length of a tuple, or 0.
        minimum: the least it may be.
        method: whether it names a method whose options follow.
        file: whether it is the path of a file or folder, whose content counts.
        without: those of that method's options that do not follow.
    """

    name: str
    type: type
    default: Any
    help: str = ""
    choices: tuple[str, ...] = ()
    optional: bool = False
    items: int = 0
    minimum: float | None = None
    method: bool = False
    file: bool = False
    without: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """As typed: ``--inner-lr``."""
        return flag(self.name)

    def check(self, value: Any) -> Any:
        """The value in the option's type.

        Raises:
            ConfigError: it is of another type, not a choice, or too small.
        """
        if self.optional and (value is None or value == "none"):
            return None
        if self.items:
            if not isinstance(value, list | tuple) or len(value) != self.items:
                raise ConfigError(f"{self.flag} {value}: it takes {self.items} numbers.")
            return tuple(self._one(v) for v in value)
        return self._path(value) if self.file else self._one(value)

    def _path(self, value: Any) -> InputFile:
        """A path at which something is."""
        path = InputFile(self._one(os.fspath(value) if isinstance(value, os.PathLike) else value))
        if not path:
            raise ConfigError(f"{self.flag}: expected the path of a file or folder.")
        if not path.path.exists():
            where = "" if Path(path).is_absolute() else f" in '{Path.cwd()}'"
            raise ConfigError(f"{self.flag} {path}: there is no such file or folder{where}.")
        return path

    def _one(self, value: Any) -> Any:
        right = isinstance(value, self.type) and (self.type is bool or not isinstance(value, bool))
        if self.type is int and isinstance(value, float) and value.is_integer():
            value, right = int(value), True
        if self.type in (int, float) and isinstance(value, int | str) and not right:
            try:
                value, right = self.type(value), not isinstance(value, bool)
            except (ValueError, OverflowError):
                right = False
        if self.type in (int, float) and right:  # no infinity, and no more than a tensor's integer
            right = abs(value) < (2**63 if self.type is int else math.inf)
        if not right:
            raise ConfigError(f"{self.flag} {value}: it takes {_SAID[self.type]}.")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.flag} {value}: it is one of {', '.join(self.choices)}.")
        if self.minimum is not None and value < self.minimum:
            raise ConfigError(f"{self.flag} {value}: it has to be at least {self.minimum}.")
        return value


_SAID = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def load(registry: Registry, kind: str, name: str) -> Any:
    """The object behind a name, held against what its kind has to be.

    What its module draws from global generators while it is imported is the same in every process.

    Raises:
        PluginError: it cannot be imported, or is something else; else as ``Registry.resolve``.
    """
    from fewshot_bench.rng import generators_seeded  # and torch

    item = registry.resolve(kind, name)
    with generators_seeded("import"):
        loaded = item.load()
    if kind in _BASES:
        module, attribute = _BASES[kind]
        base = getattr(importlib.import_module(module), attribute)
        fits = inspect.isclass(loaded) and issubclass(loaded, base)
        wanted = f"subclass of fewshot_bench.{attribute}"
    else:
        fits, wanted = callable(loaded), "function or class"
    if not fits:
        raise PluginError(f"{item.title} is of type {type(loaded).__name__}; a {wanted} is wanted.")
    return loaded


def options_of(factory: Callable[..., Any], prefix: str = "") -> list[Option]:
    """The options of a class or function, in the order of its signature.

    Raises:
        PluginError: a parameter without a default, or of a type that cannot be typed.
    """
    function = factory.__init__ if inspect.isclass(factory) else factory
    called = getattr(factory, "__qualname__", repr(factory))
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise PluginError(
            f"{called}: {error} when its annotations are read; import it at run time, not only "
            "for type checking."
        ) from error
    options = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        try:
            hint = hints.get(parameter.name, type(parameter.default))
            options.append(_option(parameter, hint, prefix))
        except ValueError as error:
            raise PluginError(f"{called}: parameter '{parameter.name}' {error}.") from error
    return options


def _option(parameter: inspect.Parameter, hint: Any, prefix: str) -> Option:
    name, text, without = prefix + parameter.name, "", ()
    if typing.get_origin(hint) is typing.Annotated:
        without = next((m for m in hint.__metadata__ if isinstance(m, tuple)), ())
        text = next((m for m in hint.__metadata__ if isinstance(m, str)), "")
        hint = hint.__origin__
    optional = False
    if typing.get_origin(hint) in (Union, types.UnionType):
        rest = [a for a in typing.get_args(hint) if a is not type(None)]
        if len(rest) > 1:
            raise ValueError(f"is of type {hint}; it can be of one type, or of that and None")
        optional, hint = len(rest) < len(typing.get_args(hint)), rest[0]
    if parameter.default is parameter.empty:
        raise ValueError("has no default; every keyword-only parameter is an option and needs one")
    default = parameter.default
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if not all(isinstance(choice, str) for choice in choices):
            raise ValueError(f"is of type {hint}; the choices of a Literal have to be words")
        return Option(name, str, default, text, choices, optional)
    if typing.get_origin(hint) is tuple:
        items = typing.get_args(hint)
        if len(set(items)) != 1 or items[0] not in _PLAIN:
            raise ValueError(f"is of type {hint}; a tuple has to be of items of one plain type")
        default = None if default is None else tuple(default)
        return Option(name, items[0], default, text, optional=optional, items=len(items))
    if hint is InputFile:
        return Option(name, str, default, text, optional=optional, file=True)
    if inspect.isclass(hint) and hint not in _PLAIN:
        from fewshot_bench.method import Method  # imports torch

        if issubclass(hint, Method):
            return Option(name, str, default, text, method=True, without=without)
    if hint not in _PLAIN:
        raise ValueError(
            f"is of type {hint}; bool, int, float, str, InputFile, Literal and tuples can be typed"
        )
    return Option(name, hint, default, text, optional=optional)


def own_options(registry: Registry, kind: str, name: str, prefix: str = "") -> list[Option]:
    """The options of what stands behind a name.

    Raises:
        PluginError: names the plugin; see :func:`options_of`.
    """
    factory = load(registry, kind, name)
    try:
        return options_of(factory, prefix)
    except PluginError as error:
        raise PluginError(f"{registry.resolve(kind, name).title}: {error}") from error


def method_options(registry: Registry, name: str, chosen: Mapping[str, Any]) -> list[Option]:
    """A method's options and, prefixed, those of the methods that it is given.

    Arguments:
        chosen: settings so far; decides which method a nested option names.
    """
    return _nested(registry, name, chosen, "")


def _nested(registry: Registry, name: str, chosen: Mapping[str, Any], prefix: str) -> list[Option]:
    options: list[Option] = []
    for option in own_options(registry, "methods", name, prefix):
        options.append(option)
        if option.method:
            author = registry.resolve("methods", name).distribution
            inner = chosen.get(option.name)
            if inner is None:
                inner = registry.settled("methods", option.default, author)
            left_out = {f"{option.name}_{own}" for own in option.without}
            nested = _nested(registry, inner, chosen, option.name + "_")
            options += [own for own in nested if own.name not in left_out]
    return options


def backbone_options(registry: Registry, name: str) -> list[Option]:
    """A backbone's options, with ``backbone_`` in front."""
    return own_options(registry, "backbones", name, "backbone_")


def dataset_options(registry: Registry, name: str) -> list[Option]:
    """A data set's options, without ``path``, which is typed behind the name's colon.

    Raises:
        ConfigError: something is typed behind the colon, and the data set takes no path.
    """
    registered, path = split_dataset(registry, name)
    options = own_options(registry, "datasets", registered)
    if path is not None and not any(option.name == "path" for option in options):
        raise ConfigError(
            f"--dataset {name}: '{registered}' takes nothing behind a colon; write "
            f"--dataset {registered}."
        )
    return [option for option in options if option.name != "path"]


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
