"""What the installed plugins offer. Nothing here imports torch, and no plugin can break another.

Entry points are read one at a time; a hook module that fails to import, raises, or returns the
wrong thing becomes a row that says so. The objects behind the names are imported when named.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from fewshot_bench.errors import ConfigError, FewshotBenchError, PluginError, UnknownName
from fewshot_bench.hooks import specs

KINDS = (
    "methods",
    "datasets",
    "backbones",
    "samplers",
    "metrics",
    "observers",
    "exporters",
)


@dataclass(frozen=True)
class Registered:
    """A name that a plugin registered.

    Arguments:
        kind: one of ``KINDS``.
        name: without its distribution.
        target: ``"module:attribute"``.
        distribution, version: what installed it.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str

    @property
    def title(self) -> str:
        """What it is and where it came from, for messages."""
        return f"{self.kind[:-1]} '{self.name}' of {self.distribution} {self.version}"

    def load(self) -> Any:
        """Import the object.

        Raises:
            PluginError: the import fails; names the distribution and the reason.
        """
        module_name, _, attribute = self.target.partition(":")
        try:
            with redirect_stdout(sys.stderr):  # standard output is for results
                return getattr(importlib.import_module(module_name), attribute)
        except FewshotBenchError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self.title} cannot be loaded from '{self.target}': "
                f"{type(error).__name__}: {error}."
            ) from error


@dataclass
class PluginInfo:
    """One entry point, and how it fared."""

    name: str
    distribution: str
    version: str
    module: str
    kinds: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None
    traceback: str = ""

    @property
    def status(self) -> str:
        """``ok`` or ``broken``."""
        return "broken" if self.error else "ok"


def plugin_points(group: str) -> list[EntryPoint]:
    """The entry points of a group, sorted by name, that ``FSB_PLUGINS`` lets through."""
    wanted = os.environ.get("FSB_PLUGINS")
    only = None if wanted is None else {n.strip() for n in wanted.split(",") if n.strip()}
    points: dict[tuple[str, str], EntryPoint] = {}
    for point in entry_points(group=group):
        distribution = distribution_of(point)
        # The first counts, should one distribution be found twice on the path.
        if only is None or only & {point.name, distribution}:
            points.setdefault((point.name, distribution), point)
    return [points[key] for key in sorted(points)]


def distribution_of(point: EntryPoint) -> str:
    """The distribution that an entry point came with."""
    return point.dist.name if point.dist else "unknown"


class Registry:
    """Names and what they stand for. Use :meth:`discover`."""

    def __init__(self) -> None:
        self.plugins: list[PluginInfo] = []
        self._manager = pluggy.PluginManager(specs.GROUP)
        self._manager.add_hookspecs(specs)
        self._found: dict[str, list[Registered]] = {kind: [] for kind in KINDS}

    @classmethod
    def discover(cls) -> Registry:
        """Read the entry points of every installed distribution.

        ``FSB_PLUGINS=a,b`` loads only the entry points or distributions of these names;
        ``FSB_PLUGINS=`` (empty) loads none.
        """
        registry = cls()
        for point in plugin_points(specs.GROUP):
            registry.add(point)
        return registry

    def add(self, point: EntryPoint) -> PluginInfo:
        """Load one hook module; whatever is wrong with it stays in its row."""
        dist = point.dist
        info = PluginInfo(
            point.name,
            distribution_of(point),
            dist.version if dist else "?",
            point.value,
        )
        self.plugins.append(info)
        try:
            with redirect_stdout(sys.stderr):
                module = point.load()
                _check_hooks(module)
                names = {kind: _names_of(module, kind) for kind in KINDS}
            self._refuse_twice(info, names)
            self._manager.register(module, name=f"{info.distribution}:{info.name}")
        except (Exception, SystemExit) as error:
            told = (
                str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            )
            info.error, info.traceback = told, traceback.format_exc()
            return info
        for kind, offered in names.items():
            if offered:
                info.kinds[kind] = sorted(offered)
            for name, target in offered.items():
                self._found[kind].append(
                    Registered(kind, name, target, info.distribution, info.version)
                )
        return info

    def _refuse_twice(self, info: PluginInfo, names: dict[str, dict[str, str]]) -> None:
        """One distribution cannot offer a name twice: ``distribution:name`` would be no way out.

        Raises:
            PluginError: another hook module of this distribution offers one of the names.
        """
        for kind, offered in names.items():
            for item in self._found[kind]:
                if item.name in offered and item.distribution == info.distribution:
                    raise PluginError(
                        f"{info.module} offers the {kind[:-1]} '{item.name}', which another plugin "
                        f"of {info.distribution} offers too"
                    )

    def names(self, kind: str) -> dict[str, list[Registered]]:
        """Every name of a kind; more than one entry where distributions claim the same."""
        names: dict[str, list[Registered]] = {}
        for item in sorted(self._found[kind], key=lambda r: (r.name, r.distribution)):
            names.setdefault(item.name, []).append(item)
        return names

    def claims(self, kind: str, name: str) -> list[Registered]:
        """Everything that ``name`` or ``distribution:name`` could stand for."""
        distribution, _, bare = name.rpartition(":")
        return [
            item
            for item in self.names(kind).get(bare, [])
            if not distribution or _normal(item.distribution) == _normal(distribution)
        ]

    def resolve(self, kind: str, name: str) -> Registered:
        """What ``name`` or ``distribution:name`` stands for.

        Raises:
            UnknownName: nothing registers it.
            ConfigError: two distributions claim it.
            PluginError: the plugin that would register it is broken.
        """
        names = self.names(kind)
        claims = self.claims(kind, name)
        if len(claims) == 1:
            return claims[0]
        if claims:
            full = " or ".join(f"{item.distribution}:{item.name}" for item in claims)
            raise ConfigError(f"two plugins offer a {kind[:-1]} '{name}'; write {full}.")
        broken = [p for p in self.plugins if p.error]
        hint = f"'fsb list {kind}' shows them."
        if broken:
            hint += f" Broken plugins: {', '.join(p.name for p in broken)}; see 'fsb plugins'."
        raise UnknownName(kind[:-1], name, names, hint)

    def locate_dataset(self, name: str) -> Path | None:
        """The folder that the first ``locate_dataset`` hook names, or None.

        Raises:
            PluginError: a hook raises.
        """
        try:
            found = self._manager.hook.locate_dataset(name=name)
        except Exception as error:
            raise PluginError(
                f"a locate_dataset hook raised {type(error).__name__}: {error}."
                " FSB_PLUGINS=NAME,... loads only the plugins that it names."
            ) from error
        return None if found is None else Path(found)


def _normal(distribution: str) -> str:
    """A distribution's name as packaging tools compare it: ``My_Plugin`` is ``my-plugin``."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _check_hooks(module: ModuleType) -> None:
    """Hold a module's hook implementations against the specifications.

    Raises:
        PluginError: a hook or an argument that no specification has, with the nearest name.
    """
    if not inspect.ismodule(module):
        raise PluginError("the entry point has to name a module, without ':attribute'")
    known = {n: f for n, f in vars(specs).items() if hasattr(f, f"{specs.GROUP}_spec")}
    for name, function in vars(module).items():
        marked = hasattr(function, f"{specs.GROUP}_impl")
        looks = inspect.isfunction(function) and name.startswith("register_") and not marked
        if looks and name in known:
            raise PluginError(f"{module.__name__}.{name} lacks @hookimpl, so nothing calls it")
        if not marked:
            continue
        if name not in known:
            raise PluginError(f"{module.__name__}.{name} is no hook{_nearest(name, known)}")
        allowed = inspect.signature(known[name]).parameters
        for argument in inspect.signature(function).parameters:
            if argument not in allowed:
                raise PluginError(
                    f"{module.__name__}.{name} asks for '{argument}', which this hook does not "
                    f"give{_nearest(argument, allowed)}"
                )


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(known) or 'none'}"


def _names_of(module: ModuleType, kind: str) -> dict[str, str]:
    """What a module's hook of this kind returns, checked."""
    function = getattr(module, f"register_{kind}", None)
    if function is None:
        return {}
    offered = function()
    where = f"{module.__name__}.register_{kind}()"
    if not isinstance(offered, dict):
        raise PluginError(
            f"{where} returned {type(offered).__name__}; a dictionary "
            '{name: "module:attribute"} is wanted'
        )
    for name, target in offered.items():
        if not isinstance(name, str) or not isinstance(target, str) or target.count(":") != 1:
            raise PluginError(f"{where}: {name!r}: {target!r} is not a name and 'module:attribute'")
        if not name or not all(c.isalnum() or c in "-_." for c in name):
            raise PluginError(f"{where}: the name {name!r} may hold letters, digits, '-', '_', '.'")
    return offered
