"""What the installed plugins offer. Nothing here imports torch, and no plugin can break another.

A hook module that fails to import, raises, or returns the wrong thing becomes a row that says so.
The objects behind the names are imported when named.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Any

import pluggy

from fewshot_bench import errors
from fewshot_bench.errors import ConfigError, PluginError, PluginWarning
from fewshot_bench.hooks import discovery, specs
from fewshot_bench.hooks import single_file as files
from fewshot_bench.hooks.discovery import distribution_of, normal, summary

CORE = "fewshot-bench"  # the distribution whose names the defaults are
INTERFACE_NAME = "fewshot_bench_interface"
HOOKS = tuple(name for name, f in vars(specs).items() if hasattr(f, f"{specs.GROUP}_spec"))
KINDS = tuple(n.removeprefix("register_") for n in HOOKS if n.startswith("register_"))
LIFECYCLE = tuple(n for n in HOOKS if not n.startswith(("register_", "locate_")))
_NAME = re.compile(r"[^\W_][\w.-]{0,63}")  # names become names of folders


@dataclass(frozen=True)
class Registered:
    """A name that a plugin registered, or an object in a file whose path was typed.

    For one in a file, ``target`` has the absolute path in place of the module.
    """

    kind: str
    name: str
    target: str  # "module:attribute", or "module" for an observer that is a module
    distribution: str  # that installed it; "file"
    version: str  # of a file the content's digest

    @property
    def in_file(self) -> bool:
        return self.distribution == files.DISTRIBUTION

    @property
    def title(self) -> str:
        """What it is and where it came from, for messages."""
        origin = "" if self.in_file else f" of {self.distribution} {self.version}"
        return f"{self.kind[:-1]} '{self.name}'{origin}"

    @property
    def full_name(self) -> str:
        """``distribution:name``, or the path and attribute: never ambiguous."""
        return self.target if self.in_file else f"{self.distribution}:{self.name}"

    @property
    def identity(self) -> dict[str, str]:
        """The fields that a record stores."""
        return {n: getattr(self, n) for n in ("kind", "name", "distribution", "version")}

    @property
    def source(self) -> str:
        """The module or file that it comes from, for digests of code."""
        whole = self.target.endswith(".py") or ":" not in self.target
        return self.target if whole else self.target.rpartition(":")[0]

    def load(self) -> Any:
        """Import the object; PluginError, with distribution and reason, if that fails."""
        if self.in_file:
            path, attribute = files.split(self.target, module=True)
            return self._attribute(files.load(path), attribute)
        name, _, attribute = self.target.partition(":")
        try:
            with redirect_stdout(sys.stderr):  # standard output is for results
                module = importlib.import_module(name)
        except errors.FewshotBenchError:
            raise
        except (Exception, SystemExit) as error:
            what = f"{self.title} cannot be loaded from '{self.target}' ({summary(error)})"
            where = f"'fsb plugins --trace {self.name}' shows where"
            raise PluginError(f"{what}; {where}.") from error
        return self._attribute(module, attribute)

    def _attribute(self, module: Any, attribute: str) -> Any:
        try:
            return getattr(module, attribute) if attribute else module
        except AttributeError as error:
            near = difflib.get_close_matches(attribute, dir(module), n=1)
            what = f"there is no '{attribute}' in '{self.source}'"
            what += f"; did you mean '{near[0]}'?" if near else "."
            raise PluginError(f"{self.title} cannot be loaded: {what}") from error


@dataclass
class PluginInfo:
    """One entry point: what it offers by kind, and in one line what is wrong or worth knowing."""

    name: str
    distribution: str
    version: str
    module: str
    kinds: dict[str, list[str]] = field(default_factory=dict)
    note: str = ""
    error: str | None = None
    traceback: str = ""

    @property
    def status(self) -> str:
        return "broken" if self.error else "ok"

    @property
    def problem(self) -> str:
        """What is wrong, in one line that names the distribution."""
        return f"plugin '{self.name}' of {self.distribution} {self.version} is broken: {self.error}"

    def fail(self, error: BaseException, message: str | None = None) -> None:
        """Note what went wrong; default: a PluginError's own message."""
        own = str(error) if isinstance(error, PluginError) else summary(error)
        self.error = " ".join((message or own).split()).removesuffix(".")
        self.traceback = "".join(traceback.format_exception(error))


def new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(specs.GROUP)
    manager.add_hookspecs(specs)
    return manager


Implementation = tuple[str, pluggy.HookImpl]  # name of the hook


def register(manager: pluggy.PluginManager, plugin: Any, name: str) -> list[Implementation]:
    """Register an object or a module; returns what it implements.

    PluginError for a hook or argument that no specification has, or a hook without @hookimpl.
    """
    for hook in HOOKS:
        unmarked = inspect.isroutine(getattr(plugin, hook, None))
        if unmarked and manager.parse_hookimpl_opts(plugin, hook) is None:
            where = f"{getattr(plugin, '__name__', plugin)}.{hook}"
            raise PluginError(f"{where} lacks @hookimpl; write @hookimpl above it")
    if manager.is_registered(plugin):
        known = f"its module is registered already, as '{manager.get_name(plugin)}'"
        raise PluginError(f"{known}; remove one of the two entry points")
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        raise PluginError(f"{error}{next(_hints(manager, plugin), '')}") from error
    hooks = manager.get_hookcallers(plugin) or ()
    return [(h.name, i) for h in hooks for i in h.get_hookimpls() if i.plugin is plugin]


def _hints(manager: pluggy.PluginManager, plugin: Any) -> Iterator[str]:
    """The nearest names of hooks and arguments that no specification has."""
    for name in dir(plugin):
        if (options := manager.parse_hookimpl_opts(plugin, name)) is None:
            continue
        hook = getattr(manager.hook, options.get("specname") or name, None)
        if hook is None or not hook.spec:
            yield nearest(name, HOOKS)
            continue
        for argument in inspect.signature(getattr(plugin, name)).parameters:
            if argument not in ("self", *hook.spec.argnames):
                yield nearest(argument, hook.spec.argnames)


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or the known names."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known) or 'none'}"


def _check_module(module: Any) -> None:
    if not inspect.ismodule(module):
        raise PluginError("the entry point has to name a module, without ':attribute'")
    made_for, ours = getattr(module, INTERFACE_NAME, specs.INTERFACE), specs.INTERFACE
    if type(made_for) is not int or made_for < 1:
        where = f"{module.__name__}.{INTERFACE_NAME}"
        raise PluginError(f"{where}: expected an integer, now {ours}, got {made_for!r}")
    if made_for > ours:
        has = f"fewshot-bench {version('fewshot-bench')} has interface {ours}"
        upgrade = "pip install --upgrade fewshot-bench"
        raise PluginError(f"it was made for interface {made_for}, and {has}: {upgrade}")


def _names_from(where: str, call: Callable[[], list[Any]], kind: str) -> specs.Names:
    """What a registration hook returns, checked."""
    try:
        names = next(iter(call()), None)
    except Exception as error:
        what = f"{where} raised {summary(error)}; it may only return its names"
        raise PluginError(what) from error

    def expected(what: str, found: str) -> PluginError:
        return PluginError(f"{where}: expected {what}, got {found}")

    if not isinstance(names, dict):
        raise expected('a dictionary {name: "module:attribute"}', type(names).__name__)
    colons = (0, 1) if kind == "observers" else (1,)
    for name, target in names.items():
        texts = isinstance(name, str) and isinstance(target, str)
        if not texts or target.count(":") not in colons:
            raise expected("a name and 'module:attribute', both strings", f"{name!r}: {target!r}")
        if not _NAME.fullmatch(name):
            what = "at most 64 letters, digits, '-', '_' and '.' that begins with a letter or digit"
            raise expected(f"a name of {what}", repr(name[:64]))
    return names


class Registry:
    """Names and what they stand for. Use :meth:`discover`."""

    def __init__(self) -> None:
        self.plugins: list[PluginInfo] = []
        self._manager = new_manager()
        self._found: dict[str, list[Registered]] = {kind: [] for kind in KINDS}

    @classmethod
    def discover(cls) -> Registry:
        """Load the entry points of every distribution, or those that ``FSB_PLUGINS=a,b`` names."""
        registry = cls()
        points, unreadable = discovery.read_points(specs.GROUP)
        for point in points:
            registry.add(point)
        for distribution, its_version, error in unreadable:
            info = PluginInfo("?", distribution, its_version, "?")
            again = f"install it again: pip install --force-reinstall {distribution}"
            info.fail(error, f"its installation is damaged ({summary(error)}); {again}")
            registry.plugins.append(info)
        return registry

    def add(self, point: EntryPoint) -> None:
        """Load one hook module; an error is noted in its row."""
        info = PluginInfo(point.name, *distribution_of(point), point.value)
        self.plugins.append(info)
        try:
            with redirect_stdout(sys.stderr):
                module = point.load()
        except (Exception, SystemExit) as error:
            info.fail(error, discovery.import_problem(point, info.distribution, error))
            return
        key = f"{info.distribution}:{info.name}"
        try:
            with redirect_stdout(sys.stderr):
                _check_module(module)
                found = self._collect(info, module, register(self._manager, module, key))
        except (Exception, SystemExit) as error:
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            info.fail(error)
            return
        for item in found:
            info.kinds.setdefault(item.kind, []).append(item.name)
            self._found[item.kind].append(item)

    def _collect(
        self, info: PluginInfo, module: Any, implementations: list[Implementation]
    ) -> list[Registered]:
        """What the registration hooks of a module return; PluginError for wrong or no hooks.

        Another hook module of its distribution cannot offer the same name.
        """
        if not implementations:
            what = f"{module.__name__} implements no hook; known: {', '.join(HOOKS)}"
            raise PluginError(f"{what}. Does the entry point name the right module?")
        found: list[Registered] = []
        origin = info.distribution, info.version
        for hook, implementation in implementations:
            where, kind = f"{module.__name__}.{hook}()", hook.removeprefix("register_")
            if hook not in LIFECYCLE and (implementation.wrapper or implementation.hookwrapper):
                raise PluginError(f"{where} is a wrapper, which only lifecycle hooks may be")
            if kind in KINDS:
                names = sorted(_names_from(where, partial(self._call, module, hook), kind).items())
                found += [Registered(kind, name, target, *origin) for name, target in names]
        for item in found:
            if any(item.full_name == other.full_name for other in self._found[item.kind]):
                what = f"{info.module} offers the {item.kind[:-1]} '{item.name}'"
                other = f"another plugin of {info.distribution}"
                raise PluginError(f"{what}, which {other} offers too; rename one of the two")
        if any(hook in LIFECYCLE for hook, _ in implementations):
            own = [item.name for item in found if item.target == module.__name__]
            when = f"only with --with {own[0]}" if own else "never: no observer is this module"
            info.note = f"its lifecycle hooks are called {when}"
        return found

    def _call(self, plugin: Any, hook: str, **arguments: Any) -> Any:
        """Call a hook of one plugin alone: pluggy's own call ends at the first that raises."""
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        return self._manager.subset_hook_caller(hook, others)(**arguments)

    def names(self, kind: str) -> dict[str, list[Registered]]:
        """Every name of a kind; more than one entry where distributions claim the same."""
        names: dict[str, list[Registered]] = {}
        for item in sorted(self._found[kind], key=lambda r: (r.name, r.distribution)):
            names.setdefault(item.name, []).append(item)
        return names

    def typed(self, kind: str) -> list[tuple[str, Registered]]:
        """Everything of a kind, with the name that means it alone."""
        names = self.names(kind)
        every = [item for claims in names.values() for item in claims]
        return [(i.name if len(names[i.name]) == 1 else i.full_name, i) for i in every]

    def claims(self, kind: str, name: str) -> list[Registered]:
        """Everything that ``name``, ``distribution:name`` or ``PATH.py:ATTRIBUTE`` may stand for.

        ConfigError if it is typed as a file's, and there is no such file.
        """
        if files.is_file(name):
            path, attribute = files.split(name, module=kind == "observers")
            end, version = f":{attribute}" if attribute else "", files.content(path)
            target = f"{path}{end}"
            return [Registered(kind, f"{path.name}{end}", target, files.DISTRIBUTION, version)]
        distribution, _, bare = name.rpartition(":")
        found = self.names(kind).get(bare, [])
        own = [item for item in found if normal(item.distribution) == normal(distribution)]
        return own if distribution else found

    def resolve(self, kind: str, name: str) -> Registered:
        """The one of :meth:`claims`; ConfigError if two distributions claim it.

        UnknownName if nothing registers it, PluginError if a broken plugin would.
        """
        claims = self.claims(kind, name)
        if len(claims) == 1:
            return claims[0]
        if claims:
            full = " or ".join(item.full_name for item in claims)
            raise ConfigError(f"two plugins offer a {kind[:-1]} '{name}'; write {full}.")
        for plugin in self.plugins:
            if plugin.error and normal(name) in (normal(plugin.name), normal(plugin.distribution)):
                raise PluginError(plugin.problem)
        hint = f"'fsb list {kind}' shows them."
        if broken := [f"{p.name} of {p.distribution}" for p in self.plugins if p.error]:
            hint += f" Broken plugins: {', '.join(broken)}; see 'fsb plugins'."
        if (allowed := discovery.allowed_names()) is not None:
            hint += f" {discovery.VARIABLE} allows only: {', '.join(allowed) or 'nothing'}."
        raise errors.UnknownName(kind[:-1], name, self.names(kind), hint)

    def settled(self, kind: str, name: str, chooser: str | None = None) -> str:
        """A name that means the same whatever is installed, and from whichever folder.

        A file's path becomes absolute. A name that ``chooser``, a distribution, has as a default or
        in a preset gets its distribution in front when another one claims it too.
        """
        claims = self.claims(kind, name)
        if claims and claims[0].in_file:
            return claims[0].full_name
        if chooser is not None and len(claims) > 1:
            own = [item for o in (chooser, CORE) for item in claims if item.distribution == o]
            return own[0].full_name if own else name
        return name

    def locate_dataset(self, name: str) -> Path | None:
        """The folder that the first ``locate_dataset`` hook names, or None.

        A hook that raises or returns something else gives a :class:`PluginWarning`, and the next
        one is called.
        """
        rows = {f"{info.distribution}:{info.name}": info for info in self.plugins}
        for hook in reversed(self._manager.hook.locate_dataset.get_hookimpls()):
            info = rows[hook.plugin_name]
            where = f"{info.module}.locate_dataset('{name}')"
            try:
                with redirect_stdout(sys.stderr):
                    folder: Any = self._call(hook.plugin, "locate_dataset", name=name)
                if isinstance(folder, str | Path):
                    return Path(folder)
                if folder is None:
                    continue
                found = f"expected a folder or None, got {type(folder).__name__}"
                info.fail(PluginError(f"{where}: {found}; skipped it"))
            except Exception as error:
                own = isinstance(error, PluginError)
                info.fail(error, None if own else f"{where} raised {summary(error)}; skipped it")
            warnings.warn(PluginWarning(info.problem), stacklevel=2)
        return None
