"""The entry points of installed distributions, read one distribution at a time.

``importlib.metadata.entry_points`` reads all of them at once, so that one damaged installation
would break every command.
"""

import os
import re
from contextlib import suppress
from importlib import metadata
from importlib.metadata import EntryPoint

VARIABLE = "FSB_PLUGINS"
Unreadable = tuple[str, str, Exception]  # distribution or its folder, version, the error


def read_points(group: str) -> tuple[list[EntryPoint], list[Unreadable]]:
    """The entry points of a group that ``FSB_PLUGINS`` allows, sorted by name.

    Of a distribution that is on the path twice, the first counts. Distributions whose metadata
    cannot be read are returned beside them.
    """
    points: dict[tuple[str, str], EntryPoint] = {}
    unreadable: list[Unreadable] = []
    seen: set[str] = set()
    for found in metadata.distributions():
        try:
            # Looking for the group's name first saves parsing the metadata of everything else.
            if group not in (found.read_text("entry_points.txt") or ""):
                continue
            name = normal(found.name)
            if name in seen:
                continue
            seen.add(name)
            for point in found.entry_points.select(group=group):
                if _allowed(point.name, name):
                    points[point.name, name] = point
        except Exception as error:
            name, version = str(found.locate_file("")), "?"  # as far as they can be read
            with suppress(Exception):
                name, version = str(found.metadata["Name"] or name), str(found.version or "?")
            if _allowed("", name):
                unreadable.append((name, version, error))
    return [points[key] for key in sorted(points)], unreadable


def allowed_names() -> list[str] | None:
    """The entry points or distributions that ``FSB_PLUGINS`` names; None: it is not set."""
    value = os.environ.get(VARIABLE)
    return None if value is None else [n.strip() for n in value.split(",") if n.strip()]


def _allowed(point: str, distribution: str) -> bool:
    names = allowed_names()
    return names is None or point in names or normal(distribution) in map(normal, names)


def distribution_of(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version or "?") if point.dist else ("unknown", "?")


def normal(distribution: str) -> str:
    """A distribution's name as packaging tools compare it: ``My_Plugin`` is ``my-plugin``."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def import_problem(point: EntryPoint, distribution: str, error: BaseException) -> str:
    """Why a hook module cannot be imported, and what to do about it."""
    module, name = point.value.partition(":")[0].strip(), point.name
    missing = (isinstance(error, ImportError) and error.name) or ""
    package = missing.partition(".")[0]
    if not all(part.isidentifier() for part in module.split(".")):
        wrong = f"its entry point '{name} = {point.value}' names no module"
        return f'{wrong}; write {name} = "package.module", and install it again'
    remove = f"pip uninstall {distribution}"
    if package == "fewshot_bench":
        made_for = f"it was made for another fewshot-bench than {metadata.version('fewshot-bench')}"
        advice = f"{made_for}: pip install --upgrade fewshot-bench {distribution}"
    elif isinstance(error, ModuleNotFoundError) and package == module.partition(".")[0]:
        missing = f"its entry point names the missing module '{module}' ({summary(error)})"
        return f"{missing}: pip install --force-reinstall {distribution}"
    elif isinstance(error, ModuleNotFoundError) and package:
        advice = f"install the package of '{package}', or {remove}"
    else:
        advice = f"'fsb plugins --trace {name}' shows where; update it, or {remove}"
    return f"{module} cannot be imported ({summary(error)}); {advice}"


def summary(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
