"""The lifecycle hooks of one run, called through a plugin manager of the run's own."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pluggy

from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.hooks.registry import LIFECYCLE, Implementation, new_manager, register
from fewshot_bench.hooks.specs import hookimpl

if TYPE_CHECKING:
    from fewshot_bench.sampling.base import Indices


def is_observer(loaded: Any) -> bool:
    """Whether a class, an instance or a module has functions that are marked with @hookimpl."""
    manager = new_manager()
    return any(manager.parse_hookimpl_opts(loaded, name) is not None for name in dir(loaded))


def lifecycle_hooks_of(title: str, observer: Any) -> list[Implementation]:
    """What an observer implements; PluginError for an unknown hook or argument, or no hook."""
    try:
        found = register(new_manager(), observer, title)
    except PluginError as error:
        raise PluginError(f"{title}: {error}") from error
    if not any(hook in LIFECYCLE for hook, _ in found):
        what = f"{title} is of type {type(observer).__name__} and implements no lifecycle hook"
        functions = f"@hookimpl functions such as {', '.join(LIFECYCLE)}"
        raise PluginError(f"{what}; expected a class, an object or a module with {functions}.")
    return found


class RunHooks:
    """Calls the lifecycle hooks of a run: ``hooks.train_logged(step=1, metrics={...})``.

    Observers, {title: class (built here, without arguments), instance or module}, get copies as
    plain data; where nobody implements a hook, nothing is gathered. The first one is called first,
    but for ``tryfirst`` and ``trylast``. PluginError, with its title, for a fault of one.
    """

    def __init__(self, observers: Mapping[str, Any] | None = None) -> None:
        manager = new_manager()
        # Pluggy calls what is registered last first.
        for title, observer in reversed([*(observers or {}).items()]):
            with plugin_errors(title):
                built = observer() if inspect.isclass(observer) else observer
            found = lifecycle_hooks_of(title, built)
            functions = {f"_{i}": _blaming(title, *item) for i, item in enumerate(found)}
            manager.register(SimpleNamespace(**functions), title)
        self._relay, self._bound = manager.hook, dict[str, Any]()

    def __getattr__(self, hook: str) -> Callable[..., None]:
        if hook not in LIFECYCLE:
            raise AttributeError(f"no lifecycle hook '{hook}'; known: {', '.join(LIFECYCLE)}")
        caller = getattr(self._relay, hook)

        def call(**data: Any) -> None:
            if caller.get_hookimpls():
                caller(**{name: _plain(value) for name, value in (self._bound | data).items()})

        return call

    def bind(self, **data: Any) -> RunHooks:
        """The same hooks, with these arguments given: ``split`` and ``step`` of an evaluation."""
        bound = copy.copy(self)
        bound._bound = self._bound | data
        return bound

    def implemented(self, hook: str) -> bool:
        """Whether an observer implements a hook: data that has to be made first need not be."""
        return bool(getattr(self._relay, hook).get_hookimpls())

    def sampled(self, ids: range, indices: Indices) -> None:
        """Call ``episodes_sampled`` with the sampler's indices of these episodes."""
        parts = {name: getattr(indices, name) for name in ("support", "query", "target")}
        if indices.unlabeled is not None:
            parts["unlabeled"] = indices.unlabeled
        self.episodes_sampled(ids=ids, class_ids=indices.class_ids, indices=parts)


def _plain(value: Any) -> Any:
    """A copy; of a tensor as an array, of a range as a list."""
    if hasattr(value, "cpu"):
        return value.cpu().numpy().copy()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, range) else copy.deepcopy(value)


def _blaming(title: str, hook: str, implementation: pluggy.HookImpl) -> Any:
    """An implementation whose exceptions are PluginErrors that name observer and hook."""
    function: Any = implementation.function
    where = f"{hook}() of {title}"

    def call(*arguments: Any, **keywords: Any) -> Any:
        with plugin_errors(where):
            return function(*arguments, **keywords)

    def wrap(*arguments: Any, **keywords: Any) -> Generator[Any, Any, Any]:
        with plugin_errors(where):
            return (yield from function(*arguments, **keywords))

    wraps = implementation.wrapper or implementation.hookwrapper
    options: Any = {**implementation.opts, "specname": hook}
    return hookimpl(**options)(functools.wraps(function)(wrap if wraps else call))
