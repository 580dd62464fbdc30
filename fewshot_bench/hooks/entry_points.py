"""The entry points of installed distributions, read one distribution at a time.

``importlib.metadata.entry_points`` reads all of them at once, so that one damaged installation
would take every command with it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions

VARIABLE = "FSB_PLUGINS"


@dataclass(frozen=True)
class Unreadable:
    """An installed distribution whose metadata cannot be read.

    Arguments:
        distribution: its name, or its folder where the name is what cannot be read.
        version: ``?`` if unknown.
        error: what reading it raised.
    """

    distribution: str
    version: str
    error: Exception


def read_points(group: str) -> tuple[list[EntryPoint], list[Unreadable]]:
    """The entry points of a group that ``FSB_PLUGINS`` lets through, sorted by name.

    The first counts, should one distribution be found twice on the path.
    """
    points: dict[tuple[str, str], EntryPoint] = {}
    unreadable: list[Unreadable] = []
    seen: set[str] = set()
    for found in distributions():
        try:
            # To look for the group's name first saves parsing the metadata of everything else.
            if group not in (found.read_text("entry_points.txt") or ""):
                continue
            name = normal(found.name)
            if name in seen:
                continue
            seen.add(name)
            for point in found.entry_points.select(group=group):
                if let_through(point.name, name):
                    points[point.name, name] = point
        except Exception as error:
            broken = Unreadable(*_identity(found), error)
            if let_through("", broken.distribution):
                unreadable.append(broken)
    return [points[key] for key in sorted(points)], unreadable


def plugin_points(group: str) -> list[EntryPoint]:
    """Those of :func:`read_points` that can be read."""
    return read_points(group)[0]


def only() -> list[str] | None:
    """What ``FSB_PLUGINS`` names: entry points or distributions; None: it is not set."""
    value = os.environ.get(VARIABLE)
    return None if value is None else [n.strip() for n in value.split(",") if n.strip()]


def let_through(point: str, distribution: str) -> bool:
    """Whether ``FSB_PLUGINS`` allows this entry point of this distribution."""
    names = only()
    if names is None:
        return True
    return point in names or normal(distribution) in map(normal, names)


def distribution_of(point: EntryPoint) -> str:
    """The distribution that an entry point came with."""
    return point.dist.name if point.dist else "unknown"


def normal(distribution: str) -> str:
    """A distribution's name as packaging tools compare it: ``My_Plugin`` is ``my-plugin``."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _identity(found: Distribution) -> tuple[str, str]:
    """Name and version, as far as they can be read."""
    try:
        return str(found.metadata["Name"] or found.locate_file("")), str(found.version or "?")
    except Exception:
        return str(found.locate_file("")), "?"
