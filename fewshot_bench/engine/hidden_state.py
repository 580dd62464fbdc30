"""Hidden state and random numbers without a key, detected while a method runs.

Results are a function of weights and keys. What breaks that is state that everything shares:
buffers that a forward pass changes (``nn.BatchNorm2d``), global random generators
(``nn.Dropout``, ``torch.rand``), statistics of everything in a batch. Each is found by its effect
(compared around every call), or in the calls of torch that a method makes (once a run).
"""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method, losses_call, title_of
from fewshot_bench.nn import TaskBatchNorm
from fewshot_bench.nn.norm import TORCH_BATCH_NORMS
from fewshot_bench.utils.generators import (
    generators_preserved,
    generators_used,
    global_generators,
    known_equal,
)

NORMALIZES = ("batch_norm", "native_batch_norm", "_native_batch_norm_legit")
TRAINING = 5  # position of their argument "training"
TORCH, OWN_LAYERS = Path(torch.__file__).parent, Path(__file__).parents[1] / "nn"
INSTEAD = (
    "normalize with fewshot_bench.nn.TaskBatchNorm, or keep the layer in evaluation mode "
    "(fewshot_bench.nn.Frozen)"
)
UNREPEATABLE = "not repeatable"  # how a note on that begins
KEYED = "draw from fewshot_bench.rng with support.key"
# Of SharedState: what is compared, packages whose state is their own, and how many numbers (a
# larger table is data, and costs too much to copy).
PLAIN = (bool, int, float, complex, str, bytes, type(None), list, dict, set, tuple, Tensor,
         np.ndarray)  # fmt: skip
LIBRARIES = ("torch", "fewshot_bench", "builtins", "abc", "typing")
MOST = 2**24


def copy_of(method: Method) -> Method:
    """A deep copy for trial calls; the method itself if it cannot be copied."""
    try:
        return copy.deepcopy(method)
    except Exception:  # it holds what cannot be copied: a tensor of a graph, a lock
        return method


@contextmanager
def unchanged(method: Method, call: str) -> Iterator[None]:
    """Raise PluginError if a call of the method changes or replaces a parameter or buffer.

    A buffer that is not saved may be replaced: a cache is made when it is first needed.
    """
    before = dict(_tensors(method))
    yield
    for (owner, name), (tensor, version) in _tensors(method):
        old, old_version = before.get((owner, name), (tensor, version))
        made_anew = old is not tensor and name in owner._non_persistent_buffers_set
        if made_anew or (old is tensor and old_version == version):
            continue
        does = (
            f"changes '{name}' of {_path_of(method, owner)}: with several threads or batches its "
            "value is undefined; return the new value in Losses.buffers."
        )
        if isinstance(owner, TORCH_BATCH_NORMS):
            does = (
                f"runs {_path_of(method, owner)} in training mode, which takes its statistics over "
                "everything in a call, tasks mixed, and stores them there: results would depend on "
                f"threads and batches; {INSTEAD}."
            )
        raise PluginError(f"{title_of(method)}.{call}() {does}")


def _tensors(method: Method) -> Iterator[tuple[tuple[nn.Module, str], tuple[Tensor, int]]]:
    for module in method.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                version = 0 if tensor.is_inference() else tensor._version
                yield (module, name), (tensor, version)


def _path_of(method: Method, module: nn.Module) -> str:
    """``'backbone.1' (torch.nn.BatchNorm2d)``, after the title of the plugin that owns it."""
    path = next((n for n, m in method.named_modules() if m is module), "")
    title, parts = "", path.split(".")
    for i in range(len(parts), 0, -1):
        part = method.get_submodule(".".join(parts[:i])) if path else method
        if own := getattr(part, "_title", ""):
            title, path = f"{own}: ", ".".join(parts[i:])
            break
    package = "torch.nn." if type(module).__module__.startswith("torch.nn.") else ""
    named = f"{package}{type(module).__name__}"
    return f"{title}'{path}' ({named})" if path else f"{title}{named}"


class _Calls(TorchFunctionMode):
    """Notes who normalizes over a batch, and who draws from torch's global generator."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.normalizes: list[str] = []
        self.draws: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in NORMALIZES:
            by_batch = kwargs.get("training", args[TRAINING] if len(args) > TRAINING else False)
            if by_batch and (place := self._place(name, sys._getframe(1))):
                self.normalizes.append(place)
        before = torch.get_rng_state()
        result = func(*args, **kwargs)
        if not torch.equal(before, torch.get_rng_state()):
            self.draws.append(self._place(name, sys._getframe(1)) or name)
        return result

    def _place(self, call: str, frame: FrameType | None) -> str | None:
        """Where a call comes from; None: from a layer of this package, which is safe."""
        line = ""
        while frame is not None:
            path, owner = Path(frame.f_code.co_filename), frame.f_locals.get("self")
            inside = TORCH in path.parents
            if isinstance(owner, TaskBatchNorm) or (not line and OWN_LAYERS in path.parents):
                return None
            if not inside and not line:
                line = f" at {path.name}:{frame.f_lineno}"
            if isinstance(owner, nn.Module):
                there = _path_of(self.method, owner)
                return there if inside else f"{call}(){line} in {there}"
            frame = frame.f_back
        return f"{call}(){line}"


def _draws(method: Method, call: Callable[[], object], generators: Sequence[str]) -> str:
    """Where such a call draws from these generators, as part of a sentence; it is done again."""
    with generators_preserved(), _Calls(method) as calls:
        call()
    first, *others = dict.fromkeys(calls.draws) or [""]
    more = f" and {len(others)} more" if others else ""
    return ", ".join(generators) + (f": {first}{more}" if first else "")


def unkeyed_draws(method: Method, episode: Episode, generators: Sequence[str]) -> str:
    twin, call = copy_of(method), losses_call(episode)
    where = _draws(twin, lambda: getattr(twin, call)(episode), generators)
    return (
        f"{UNREPEATABLE}: {title_of(method)}.{call}() draws random numbers from {where}, so that "
        f"the training depends on threads, batches and what ran before; {KEYED}"
    )


def require_separate_tasks(method: Method, name: str, call: Callable[[], object]) -> None:
    """Raise PluginError if the call normalizes over a batch by other means than TaskBatchNorm."""
    with generators_preserved(), _Calls(method) as calls:
        call()
    if calls.normalizes:
        raise PluginError(
            f"{title_of(method)}.{name}() normalizes over everything in a call, tasks mixed, in "
            f"{calls.normalizes[0]}: results would depend on threads and batches; {INSTEAD}."
        )


@contextmanager
def repeatable(method: Method, call: str, again: Callable[[], object]) -> Iterator[None]:
    """Raise PluginError if the block, an evaluation, draws from a generator of the process.

    ``call`` is what is called, for the message; ``again`` does it once more.
    """
    before = global_generators()
    yield
    found = generators_used(before, global_generators())
    # The generators of Python and numpy may be used by a thread beside this one: try again.
    if found and not found[0].startswith("torch"):
        before = global_generators()
        again()
        found = generators_used(before, global_generators())
    if found:
        raise PluginError(
            f"{title_of(method)}.{call} draws random numbers at test from "
            f"{_draws(method, again, found)}: evaluated again, it would answer differently; "
            f"{KEYED}."
        )


class SharedState:
    """Plain values of the classes and modules of a method (not torch's, or of this package)."""

    def __init__(self, method: nn.Module) -> None:
        kinds = dict.fromkeys(kind for m in method.modules() for kind in type(m).__mro__)
        own = [kind for kind in kinds if kind.__module__.partition(".")[0] not in LIBRARIES]
        modules = dict.fromkeys(kind.__module__ for kind in own)
        self._owners = [*own, *(sys.modules[name] for name in modules if name in sys.modules)]
        self._saved: dict[tuple[Any, str], Any] = {}  # by class or module, and name in it
        self._names = self._values()
        for place, value in self._names.items():
            try:
                self._saved[place] = copy.deepcopy(value)
            except Exception:  # it holds a lock, a file, a tensor of a graph
                continue

    @contextmanager
    def restored(self) -> Iterator[list[str]]:
        """Put back for a while what has changed since; gives its names."""
        now = self._values()
        new = [place for place in now if place not in self._names]
        changed = [
            place for place, old in self._saved.items() if not known_equal(now.get(place), old)
        ]
        names = []
        for owner, name in (*changed, *new):
            module = Path(getattr(owner, "__file__", None) or "").name
            title = f"class {owner.__name__}" if isinstance(owner, type) else f"module {module}"
            names.append(f"'{name}' of {title}")
        try:
            for owner, name in new:
                delattr(owner, name)
            for owner, name in changed:
                setattr(owner, name, copy.deepcopy(self._saved[owner, name]))
            yield names
        finally:
            for owner, name in (*changed, *new):
                if (owner, name) in now:
                    setattr(owner, name, now[owner, name])

    def _values(self) -> dict[tuple[Any, str], Any]:
        return {
            (owner, name): value
            for owner in self._owners
            for name, value in vars(owner).items()
            if isinstance(value, PLAIN) and not name.startswith("__") and _size(value) <= MOST
        }


def _size(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else getattr(value, "size", 0)
