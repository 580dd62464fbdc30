"""What the installed plugins offer. Nothing here imports torch, and no plugin can break another.

Entry points are read one at a time; a hook module that fails to import, raises, or returns the
wrong thing becomes a row that says so. The objects behind the names are imported when named.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import redirect_stdout
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy

from fewshot_bench.errors import ConfigError, PluginError, PluginWarning, UnknownName
from fewshot_bench.hooks import single_file as files
from fewshot_bench.hooks import specs
from fewshot_bench.hooks.checks import (
    KINDS,
    check_hooks,
    check_interface,
    import_problem,
    names_of,
    said,
)
from fewshot_bench.hooks.entry_points import VARIABLE, distribution_of, normal, only, read_points
from fewshot_bench.hooks.registered import InFile, PluginInfo, Registered

__all__ = ["CORE", "KINDS", "PluginInfo", "Registered", "Registry"]

CORE = "fewshot-bench"  # the distribution whose names the defaults are


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
        points, unreadable = read_points(specs.GROUP)
        for point in points:
            registry.add(point)
        for broken in unreadable:
            info = PluginInfo("?", broken.distribution, broken.version, "?")
            info.fail(
                broken.error,
                f"its installation is damaged ({said(broken.error)}); install it again: "
                f"pip install --force-reinstall {broken.distribution}",
            )
            registry.plugins.append(info)
        return registry

    def add(self, point: EntryPoint) -> PluginInfo:
        """Load one hook module; whatever is wrong with it stays in its row."""
        distribution = distribution_of(point)
        version = point.dist.version if point.dist else "?"
        info = PluginInfo(point.name, distribution, version or "?", point.value)
        self.plugins.append(info)
        try:
            with redirect_stdout(sys.stderr):
                module = point.load()
        except (Exception, SystemExit) as error:
            info.fail(error, import_problem(point, distribution, error))
            return info
        try:
            with redirect_stdout(sys.stderr):
                check_interface(module)
                check_hooks(module)
                names = {kind: names_of(module, kind) for kind in KINDS}
            self._refuse_twice(info, names)
            self._manager.register(module, name=f"{distribution}:{info.name}")
        except (Exception, SystemExit) as error:
            info.fail(error, str(error) if isinstance(error, PluginError) else said(error))
            return info
        for kind, offered in names.items():
            if offered:
                info.kinds[kind] = sorted(offered)
            for name, target in offered.items():
                self._found[kind].append(Registered(kind, name, target, distribution, info.version))
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
                        f"of {info.distribution} offers too; rename one of the two"
                    )

    def names(self, kind: str) -> dict[str, list[Registered]]:
        """Every name of a kind; more than one entry where distributions claim the same."""
        names: dict[str, list[Registered]] = {}
        for item in sorted(self._found[kind], key=lambda r: (r.name, r.distribution)):
            names.setdefault(item.name, []).append(item)
        return names

    def claims(self, kind: str, name: str) -> list[Registered]:
        """Everything that ``name``, ``distribution:name`` or ``PATH.py:ATTRIBUTE`` may stand for.

        Raises:
            ConfigError: it is typed as a file's, and there is no such file.
        """
        if files.is_file(name):
            path, attribute = files.split(name)
            title, target = f"{path.name}:{attribute}", f"{path}:{attribute}"
            return [InFile(kind, title, target, files.DISTRIBUTION, files.content(path))]
        distribution, _, bare = name.rpartition(":")
        return [
            item
            for item in self.names(kind).get(bare, [])
            if not distribution or normal(item.distribution) == normal(distribution)
        ]

    def resolve(self, kind: str, name: str) -> Registered:
        """What ``name``, ``distribution:name`` or ``PATH.py:ATTRIBUTE`` stands for.

        Raises:
            UnknownName: nothing registers it.
            ConfigError: two distributions claim it.
            PluginError: the plugin that would register it is broken.
        """
        claims = self.claims(kind, name)
        if len(claims) == 1:
            return claims[0]
        if claims:
            full = " or ".join(item.full_name for item in claims)
            raise ConfigError(f"two plugins offer a {kind[:-1]} '{name}'; write {full}.")
        for plugin in self.plugins:
            if plugin.error and normal(name) in (normal(plugin.name), normal(plugin.distribution)):
                raise PluginError(plugin.told)
        raise UnknownName(kind[:-1], name, self.names(kind), self._hint(kind))

    def _hint(self, kind: str) -> str:
        """Why a name may be missing."""
        hint = f"'fsb list {kind}' shows them."
        broken = [f"{p.name} of {p.distribution}" for p in self.plugins if p.error]
        if broken:
            hint += f" Broken plugins: {', '.join(broken)}; see 'fsb plugins'."
        if (let_through := only()) is not None:
            hint += f" {VARIABLE} lets through: {', '.join(let_through) or 'nothing'}."
        return hint

    def settled(self, kind: str, name: str, chooser: str | None = None) -> str:
        """A name that means the same whatever is installed, and from whichever folder.

        A file's path becomes absolute. A name that nobody typed (a default, a preset's) keeps
        its meaning when another distribution claims it too: it gets its distribution in front.

        Arguments:
            name: of a thing of this kind.
            chooser: the distribution whose default it is; None: somebody typed it.
        """
        claims = self.claims(kind, name)
        if len(claims) == 1 and isinstance(claims[0], InFile):
            return claims[0].full_name
        if chooser is not None and len(claims) > 1:
            for owner in (chooser, CORE):
                for item in claims:
                    if item.distribution == owner:
                        return item.full_name
        return name

    def locate_dataset(self, name: str) -> Path | None:
        """The folder that the first ``locate_dataset`` hook names, or None.

        A hook that raises or returns something else is told in a :class:`PluginWarning`, and the
        next one is asked.
        """
        hooks = self._manager.hook.locate_dataset.get_hookimpls()
        for hook in reversed(hooks):  # pluggy keeps the first to be called last
            info = next(p for p in self.plugins if f"{p.distribution}:{p.name}" == hook.plugin_name)
            where = f"{info.module}.locate_dataset('{name}')"
            try:
                with redirect_stdout(sys.stderr):
                    found: Any = hook.function(*[name for _ in hook.argnames])
            except Exception as error:
                info.fail(error, f"{where} raised {said(error)}; it was passed over")
            else:
                if found is None:
                    continue
                if isinstance(found, str | Path):
                    return Path(found)
                told = f"{where} returned {type(found).__name__}; a folder or None is wanted"
                info.fail(PluginError(told), told)
            warnings.warn(PluginWarning(info.told), stacklevel=2)
        return None
