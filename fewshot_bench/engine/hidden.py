"""What a method does that its numbers do not show, noticed while it runs.

Results are a function of weights and keys. What breaks that is state that everything shares:
buffers that a forward pass changes (``nn.BatchNorm2d``), global random generators
(``nn.Dropout``, ``torch.rand``), statistics of everything in a batch. A threaded run races for it,
a batched one mixes tasks by it, and neither can be repeated. Each is looked for where it happens,
by its effect where that shows (states and versions, compared around every call) and else in the
calls that a method makes of torch (once a run).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method, losses_call, title_of
from fewshot_bench.nn import TaskBatchNorm
from fewshot_bench.nn.norm import TORCH_BATCH_NORMS
from fewshot_bench.rng import generators_kept, global_generators, moved

NORMALIZES = ("batch_norm", "native_batch_norm", "_native_batch_norm_legit")
TRAINING = 5  # position of their argument "training"
TORCH, OWN_LAYERS = Path(torch.__file__).parent, Path(__file__).parents[1] / "nn"
INSTEAD = (
    "normalize with fewshot_bench.nn.TaskBatchNorm, or keep the layer in evaluation mode "
    "(fewshot_bench.nn.Frozen)"
)
UNREPEATABLE = "not repeatable"  # how a sentence on that begins
KEYED = "draw from fewshot_bench.rng with support.key"


def copied(method: Method) -> Method:
    """A copy to try things on, so that no counter of the method's moves; itself if it has none."""
    try:
        return copy.deepcopy(method)
    except Exception:  # it holds what cannot be copied: a tensor of a graph, a lock
        return method


@contextmanager
def unchanged(method: Method, call: str) -> Iterator[None]:
    """Hold parameters and buffers after a call of the method against those before it.

    Arguments:
        method: a replica has tensors in common with the others, so that a change anywhere shows.
        call: its name.

    Raises:
        PluginError: one was changed in place, or replaced (but for a buffer that is not saved: a
            cache may be made when it is first needed).
    """
    before = dict(_held(method))
    yield
    for (owner, name), (tensor, version) in _held(method):
        old = before.get((owner, name))
        saved = name not in owner._non_persistent_buffers_set
        if old is None or (old[0] is not tensor and not saved):
            continue
        if old[0] is not tensor or old[1] != version:
            raise PluginError(f"{title_of(method)}.{call}() {_changed(method, owner, name)}")


def _held(method: Method) -> Iterator[tuple[tuple[nn.Module, str], tuple[Tensor, int]]]:
    for module in method.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    version = 0 if tensor.is_inference() else tensor._version
                    yield (module, name), (tensor, version)


def _changed(method: Method, owner: nn.Module, name: str) -> str:
    place = _named(method, owner)
    if isinstance(owner, TORCH_BATCH_NORMS):
        return f"runs {place} in training mode, {_MIXES}; {INSTEAD}."
    return (
        f"changes '{name}' of {place}: with several threads or batches nobody knows by how much; "
        "return what it becomes in Losses.buffers."
    )


_MIXES = (
    "which takes its statistics over everything in a call, tasks mixed, and stores them there: "
    "results would depend on threads and batches"
)


def _named(method: Method, module: nn.Module) -> str:
    """``'backbone.1' (torch.nn.BatchNorm2d)``, behind the title of the plugin that it is of."""
    path = next((n for n, m in method.named_modules() if m is module), "")
    title, parts = "", path.split(".")
    for i in range(len(parts), 0, -1):
        part = method.get_submodule(".".join(parts[:i])) if path else method
        if own := getattr(part, "_title", ""):
            title, path = f"{own}: ", ".".join(parts[i:])
            break
    kind = type(module)
    package = "torch.nn." if kind.__module__.startswith("torch.nn.") else ""
    named = f"{package}{kind.__name__}"
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
        """Where a call comes from; None: from a layer of this package, which knows what it does."""
        line = ""
        while frame is not None:
            path, owner = Path(frame.f_code.co_filename), frame.f_locals.get("self")
            inside = TORCH in path.parents
            if isinstance(owner, TaskBatchNorm) or (not line and OWN_LAYERS in path.parents):
                return None
            if not inside and not line:
                line = f" at {path.name}:{frame.f_lineno}"
            if isinstance(owner, nn.Module):
                there = _named(self.method, owner)
                return there if inside else f"{call}(){line} in {there}"
            frame = frame.f_back
        return f"{call}(){line}"


def draws(method: Method, call: Callable[[], object], generators: Sequence[str]) -> str:
    """Where such a call of a method draws from these generators, as part of a sentence.

    The call is done once more; the generators are left where they were found.
    """
    with generators_kept(), _Calls(method) as calls:
        call()
    places = list(dict.fromkeys(calls.draws))
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    named = ", ".join(generators)
    return f"{named}: {places[0]}{more}" if places else named


def told_of_draws(method: Method, episode: Episode, generators: Sequence[str]) -> str:
    """The sentence on losses that have drawn from these generators; see :func:`draws`."""
    twin = copied(method)
    call = losses_call(episode)
    where = draws(twin, lambda: getattr(twin, call)(episode), generators)
    return (
        f"{UNREPEATABLE}: {title_of(method)}.{call}() draws random numbers from {where}, so that "
        f"the training depends on threads, batches and what ran before; {KEYED}"
    )


def require_tasks_apart(method: Method, name: str, call: Callable[[], object]) -> None:
    """Do a call of a method once, and look whether it normalizes over everything in a batch.

    Raises:
        PluginError: it does, by other means than TaskBatchNorm.
    """
    with generators_kept(), _Calls(method) as calls:
        call()
    if calls.normalizes:
        raise PluginError(
            f"{title_of(method)}.{name}() normalizes over everything in a call, tasks mixed, in "
            f"{calls.normalizes[0]}: results would depend on threads and batches; {INSTEAD}."
        )


@contextmanager
def repeatable(method: Method, call: str, again: Callable[[], object]) -> Iterator[None]:
    """An evaluation draws no random number but by keys.

    Arguments:
        call: what is called, for the message.
        again: does it once more.

    Raises:
        PluginError: it drew from a generator that the process has one of.
    """
    before = global_generators()
    yield
    found = moved(before, global_generators())
    # The generators of Python and numpy may be used by a thread beside this one: look again.
    if found and not found[0].startswith("torch"):
        before = global_generators()
        again()
        found = moved(before, global_generators())
    if found:
        raise PluginError(
            f"{title_of(method)}.{call} draws random numbers at test from "
            f"{draws(method, again, found)}: evaluated again, it would answer otherwise; {KEYED}."
        )
