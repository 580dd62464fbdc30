"""Holds a hook module against the specifications; says what is wrong, and how it is mended."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from importlib.metadata import EntryPoint, version
from types import ModuleType
from typing import Any

from fewshot_bench.errors import PluginError
from fewshot_bench.hooks import specs

INTERFACE_NAME = "fewshot_bench_interface"
LONGEST_NAME = 64
KINDS = (
    "methods",
    "datasets",
    "backbones",
    "samplers",
    "metrics",
    "observers",
    "exporters",
)


def check_interface(module: ModuleType) -> None:
    """Refuse a module that says that it was made for a newer interface than this one.

    Raises:
        PluginError: it was, or what it says is no number.
    """
    made_for = getattr(module, INTERFACE_NAME, specs.INTERFACE)
    if not isinstance(made_for, int) or isinstance(made_for, bool) or made_for < 1:
        raise PluginError(
            f"{module.__name__}.{INTERFACE_NAME} is {made_for!r}; it is a whole number, now "
            f"{specs.INTERFACE}"
        )
    if made_for > specs.INTERFACE:
        raise PluginError(
            f"it was made for interface {made_for}, and fewshot-bench {version('fewshot-bench')} "
            f"has interface {specs.INTERFACE}: pip install --upgrade fewshot-bench"
        )


def check_hooks(module: Any) -> None:
    """Hold a module's hook implementations against the specifications.

    Raises:
        PluginError: a hook or an argument that no specification has, with the nearest name.
    """
    if not inspect.ismodule(module):
        raise PluginError("the entry point has to name a module, without ':attribute'")
    known = {n: f for n, f in vars(specs).items() if hasattr(f, f"{specs.GROUP}_spec")}
    found = 0
    for name, function in vars(module).items():
        marks = getattr(function, f"{specs.GROUP}_impl", None)
        looks = inspect.isfunction(function) and name.startswith("register_") and not marks
        if looks and name in known:
            raise PluginError(
                f"{module.__name__}.{name} lacks @hookimpl, so nothing calls it; write @hookimpl "
                "above it"
            )
        if not marks:
            continue
        found += 1
        _check_hook(f"{module.__name__}.{name}", name, function, marks, known)
    if not found:
        raise PluginError(
            f"{module.__name__} implements no hook; there are: {', '.join(known)}. Has the entry "
            "point the right module?"
        )


def _check_hook(where: str, name: str, function: Any, marks: Any, known: dict[str, Any]) -> None:
    """One implementation against its specification; see :func:`check_hooks`."""
    if name not in known:
        raise PluginError(f"{where} is no hook{nearest(name, known)}")
    if marks.get("wrapper") or marks.get("hookwrapper"):
        raise PluginError(f"{where} is a wrapper, and no hook takes any; write @hookimpl alone")
    allowed = inspect.signature(known[name]).parameters
    for argument in inspect.signature(function).parameters:
        if argument not in allowed:
            raise PluginError(
                f"{where} asks for '{argument}', which this hook does not "
                f"give{nearest(argument, allowed)}"
            )


def names_of(module: ModuleType, kind: str) -> dict[str, str]:
    """What a module's hook of this kind returns, checked.

    Raises:
        PluginError: it raises, or returns something else than names and import strings.
    """
    function = getattr(module, f"register_{kind}", None)
    if function is None:
        return {}
    where = f"{module.__name__}.register_{kind}()"
    try:
        offered = function()
    except Exception as error:
        raise PluginError(
            f"{where} raised {said(error)}; it may do no more than return its names"
        ) from error
    if not isinstance(offered, dict):
        raise PluginError(
            f"{where} returned {type(offered).__name__}; a dictionary "
            '{name: "module:attribute"} is wanted'
        )
    for name, target in offered.items():
        if not isinstance(name, str) or not isinstance(target, str) or target.count(":") != 1:
            raise PluginError(
                f"{where}: {name!r}: {target!r} is not a name and 'module:attribute', both as text"
            )
        if not name or not all(c.isalnum() or c in "-_." for c in name):
            raise PluginError(f"{where}: the name {name!r} may hold letters, digits, '-', '_', '.'")
        if not name[0].isalnum() or len(name) > LONGEST_NAME:  # names become names of folders
            raise PluginError(
                f"{where}: the name {name[:LONGEST_NAME]!r} has to begin with a letter or digit, "
                f"and to have at most {LONGEST_NAME} characters"
            )
    return offered


def import_problem(point: EntryPoint, distribution: str, error: BaseException) -> str:
    """Why a hook module cannot be imported, and what to do about it."""
    module = point.value.partition(":")[0].strip()
    missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
    if not module or not all(part.isidentifier() for part in module.split(".")):
        return (
            f"its entry point '{point.name} = {point.value}' names no module; write "
            f'{point.name} = "package.module", and install it again'
        )
    if missing and missing.partition(".")[0] == "fewshot_bench":
        return (
            f"{module} cannot be imported ({said(error)}); it was made for another fewshot-bench "
            f"than {version('fewshot-bench')}: pip install --upgrade fewshot-bench {distribution}"
        )
    if isinstance(error, ModuleNotFoundError) and missing:
        if missing.partition(".")[0] == module.partition(".")[0]:
            return (
                f"its entry point names '{module}', which is not there ({said(error)}): "
                f"pip install --force-reinstall {distribution}"
            )
        return (
            f"{module} cannot be imported ({said(error)}); install what has "
            f"'{missing.partition('.')[0]}', or pip uninstall {distribution}"
        )
    return (
        f"{module} cannot be imported ({said(error)}); 'fsb plugins --trace {point.name}' shows "
        f"where; update it, or pip uninstall {distribution}"
    )


def said(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or what there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(known) or 'none'}"
