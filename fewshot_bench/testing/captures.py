"""The ``captures`` checks: every line that a GPU would wait for or refuse is reported.

A method is trained and evaluated, or a sampler drawn from, on a stand-in for a GPU.
"""

import inspect
import linecache
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fewshot_bench
from fewshot_bench.engine.evaluation import predictions, scores_of
from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.executors.conditions import changed, conditions
from fewshot_bench.engine.executors.graph import STEPS_AHEAD, make_capturable
from fewshot_bench.engine.training import Plan, Trainer, check_players
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method, title_of
from fewshot_bench.sampling import ClosedSampler, EpisodeSource
from fewshot_bench.sampling.few_labels import UnlabeledTasks
from fewshot_bench.testing.checks import Fault, NotClaimed
from fewshot_bench.testing.component_checks import SamplerSubject
from fewshot_bench.testing.meta_device import META, Frames, MetaDevice, Operation, What, as_a_gpu
from fewshot_bench.testing.method_checks import MethodSubject
from fewshot_bench.utils.text import one_line

PACKAGE, TORCH = Path(fewshot_bench.__file__).parent, Path(torch.__file__).parent
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = "site-packages"
TASKS, CHUNKS = 2, 3  # of a step; of an evaluation
SHOWN = 3  # lines in a message
SPELLED = {"_local_scalar_dense": "item(), int(), float(), bool(), if", "_to_copy": "to(), cpu()"}
READS = "waits for the device, because it reads a number on the host ({})"
ON_DEVICE = "make it there (device=x.device, torch.full, torch.arange), or once, {once}"
# {kind of violation: what it means, what to do instead}
ADVICE: dict[What, tuple[str, str]] = {
    "read": (READS, "keep it a tensor, with torch.where in place of a branch{show}"),
    "inside": (READS, "use an operation that stays on the device, as torch.where(mask, value, x)"),
    "shape": ("waits for the device, because the size of its result depends on numbers ({})",
              "use fixed shapes: torch.where, or multiply by the mask"),
    "print": ("waits for the device, because it prints a tensor", "remove it{show}"),
    "solver": ("waits for the device, to know whether a solver succeeded ({})",
               "use a form that does not ask, as torch.linalg.solve_ex"),
    "to the host": ("waits for the device, because it copies a tensor to the host ({})",
                    "leave it on the device"),
    "to the device": ("copies to the device from the host, which a GPU waits for ({})", ON_DEVICE),
    "mixed": ("mixes a tensor on the host with tensors on the device ({})", ON_DEVICE),
}  # fmt: skip
FOR_METHODS = {"once": "as a registered buffer", "show": "; return values to show in Losses.log"}
FOR_SAMPLERS = {"once": "in __init__ on table.device", "show": ""}


class DeviceCheck:
    """Runs a plugin's object (or class) on the stand-in for a GPU, and collects its faults.

    ``faults``: sentences, each with file, line and source line.
    """

    def __init__(self, plugin: object) -> None:
        self.device = MetaDevice()
        self.faults: list[str] = []
        kinds = {type(m) for m in plugin.modules()} if isinstance(plugin, nn.Module) else {plugin}
        bases = {base for kind in kinds for base in inspect.getmro(kind)}  # type: ignore[arg-type]
        modules = [sys.modules.get(base.__module__) for base in bases]
        files = [Path(file) for module in modules if (file := getattr(module, "__file__", None))]
        self.files = {f for f in files if not _within(f, PACKAGE, TORCH, LIBRARY)}
        self.advice = FOR_METHODS if isinstance(plugin, nn.Module) else FOR_SAMPLERS
        self._ranks: dict[str, int] = {}
        self._operations: list[list[Operation]] = []  # of each step
        self._states: list[Any] = []  # of the method after each step

    @contextmanager
    def running(self) -> Iterator[MetaDevice]:
        """Run the block on the device; an exception is a fault, too."""
        try:
            with as_a_gpu(self.device):
                yield self.device
        except Exception as error:
            self._collect()
            while isinstance(error, PluginError) and isinstance(error.__cause__, Exception):
                error = error.__cause__  # the plugin's own exception, with its frames
            steps = reversed(traceback.extract_tb(error.__traceback__))
            frames = tuple((step.filename, step.lineno or 0, step.name) for step in steps)
            if not self.faults:  # otherwise a violation is the cause
                self.faults.append(
                    f"{self.line(frames)} raises on another device than the CPU "
                    f"({type(error).__name__}: {one_line(str(error))})"
                )
        self._collect()

    def _collect(self) -> None:
        for found in self.device.violations:
            meaning, advice = ADVICE[found.what]
            call = SPELLED.get(found.call, f"{found.call}()")
            line, when = self.line(found.frames), "in its backward pass " if found.backward else ""
            fault = f"{line} {when}{meaning.format(call)}; {advice.format(**self.advice)}"
            # A backward pass repeats violations of its forward pass, at no line of the plugin's.
            repeated = found.backward and any(f.startswith(line) for f in self.faults)
            if self._own(found.frames) is None:
                repeated = bool(self.faults)
            if fault not in self.faults and not repeated:
                self.faults.append(fault)
        self.device.violations.clear()

    @contextmanager
    def step(self, method: Method, *, first: bool, recorded: bool = True) -> Iterator[None]:
        """Run a step of a method on the device. The first ones may wait, to prepare something."""
        allowed = self.device.waits_allowed() if first else nullcontext()
        with allowed, self.device.recorded(recorded) as operations:
            yield
        self._operations.append(operations)
        with self.device.waits_allowed():  # for extra state, which is on the host
            self._states.append(conditions(method, META))

    def compare_steps(self, method: Method, period: int = 1) -> None:
        """Compare the last steps with those one period earlier; a CUDA graph would repeat them."""
        for back in range(1, period + 1):
            runs = self._operations[-back - period], self._operations[-back]
            own = ([op for op in run if self._own(op.frames)] for run in runs)
            pairs = zip_longest(*own, fillvalue=Operation("", (), ()))
            changes = (pair for pair in pairs if pair[0][:2] != pair[1][:2])  # name and given
            if pair := next(changes, None):
                op = pair[0] if pair[0].frames else pair[1]
                self.faults.append(
                    f"{self.line(op.frames)} does not do the same for every batch ({op.name}()): "
                    "shapes, or Python numbers, change from step to step, and a CUDA graph "
                    "would repeat those of one step; use fixed ones, or tensors on the device"
                )
        # If its lines do other work in each call, that is reported already, with the line.
        if not self.faults and (what := changed(*self._states[-2:])):
            self.faults.append(
                f"{title_of(method)}: each call changes {what}, and a CUDA graph would not; return "
                "it in Losses.log, or in Losses.buffers what a later step needs"
            )

    def line(self, frames: Frames) -> str:
        """``file.py:12, `source` in adapt()``: the innermost line of the plugin.

        A line of this package if there is none: the fault is its own, or shows only there.
        """
        inner = _inner(frames)
        here = next((frame for frame in inner if _within(Path(frame[0]), PACKAGE)), frames[0])
        file, number, function = self._own(frames) or here
        path, cwd = Path(file), Path.cwd()
        name = path.relative_to(cwd) if cwd in path.parents else f"{path.parent.name}/{path.name}"
        return f"{name}:{number}, `{linecache.getline(file, number).strip()}` in {function}(),"

    def _own(self, frames: Frames) -> tuple[str, int, str] | None:
        """The innermost frame in the plugin's files; else in any file that is not a library's."""
        best = min(_inner(frames), key=lambda frame: self._rank(frame[0]), default=None)
        return None if best is None or self._rank(best[0]) == 2 else best

    def _rank(self, file: str) -> int:
        if file not in self._ranks:
            path = Path(file)
            library = not path.is_file() or _within(path, PACKAGE, TORCH, LIBRARY)
            own = any(_belongs(path, to) for to in self.files)
            self._ranks[file] = 2 if library else 0 if own else 1
        return self._ranks[file]


def _inner(frames: Frames) -> Frames:
    """The frames inside those of this module, which runs the plugin."""
    own = next((i for i, (file, _, _) in enumerate(frames) if file == __file__), len(frames))
    return frames[:own]


def _belongs(file: Path, plugin: Path) -> bool:
    """Whether it is a file of a plugin, or a helper beside or below it; no installed package."""
    folder = plugin.parent
    if file == plugin or folder.name == PACKAGES:
        return file == plugin
    return folder in file.parents and PACKAGES not in file.relative_to(folder).parts


def _within(file: Path, *folders: Path) -> bool:
    """Whether a file is in one of these folders, not counting third-party packages."""
    inside = next((folder for folder in folders if folder in file.parents), None)
    return inside is not None and (inside is not LIBRARY or PACKAGES not in file.parts)


def train(
    check: DeviceCheck, subject: MethodSubject, executor: Eager, steps: int | None = None
) -> Trainer | None:
    """Train on the device as an engine does. None: nothing trains, or training failed.

    ``steps``: None: as few as can compare the last step of each source with the one before it.
    """
    method = executor.method
    with check.running() as device:
        with device.waits_allowed():
            if not check_players(method.to(META)):
                return None
            others = unlabeled_tasks(subject)
            sources = 1 if others is None else 2
            plan, tasks = Plan(steps or 3 * sources, TASKS), subject.source("train", META)
            trainer = Trainer(method.train(), executor, tasks, plan, unlabeled=others)
            for source in trainer.sources:  # a source checks its first batch
                source.batch(range(TASKS))
            if why := make_capturable(list(trainer.optimizers.values()), META):
                check.faults.append(f"players(): {why}, so that a GPU runs every step eagerly")
        for step in range(plan.steps):
            with check.step(method, first=step < sources, recorded=steps is None):
                trainer.advance()
        check.compare_steps(method, sources)
        return trainer
    return None


def evaluate(
    check: DeviceCheck, subject: MethodSubject, executor: Eager
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Logits and scores of chunks of test tasks on the device, as far as the evaluation got."""
    method = executor.method
    logits, scores = [], []
    with check.running() as device:
        with device.waits_allowed():
            method.to(META).eval()
            source = subject.source("test", META)
            source.batch(range(TASKS))
        chunks = predictions(executor, source, CHUNKS * TASKS, TASKS)
        for i in range(CHUNKS):
            # A chunk that a graph repeats runs no operation of the plugin.
            with check.step(method, first=not i, recorded=not executor.graph):
                indices, prediction = next(chunks)
            logits.append(prediction.logits)
            scores.append(scores_of(prediction, indices, {}, title_of(method)))
        check.compare_steps(method)
    return logits, scores


def unlabeled_tasks(
    subject: MethodSubject, device: torch.device | str = META
) -> UnlabeledTasks | None:
    """Tasks without labels, for a method that declares that it learns from them."""
    if not subject.kind.unlabeled_tasks or subject.kind.source == "batches":
        return None
    return UnlabeledTasks(ClosedSampler(subject.table("train", device), subject.task, 1))


def sampler_captures(subject: SamplerSubject) -> None:
    """No line of it synchronizes with a GPU, batch after batch."""
    check = DeviceCheck(subject.kind)
    with check.running() as device:
        with device.waits_allowed():
            sampler = subject.build(device=META)
            size = min(TASKS, sampler.length or TASKS)
            source = EpisodeSource(sampler)
            source.batch(range(size))
        for start in (0, size):
            if start + size <= (sampler.length or 2 * size):
                source.batch(range(start, start + size))
        with device.waits_allowed():  # many at once, as a captured training draws them
            source.batch(torch.arange(STEPS_AHEAD * size, device=META))
    if check.faults:
        raise Fault(f"{_joined(check.faults)}.")


def method_captures(subject: MethodSubject) -> str | None:
    """No line of it synchronizes with a GPU, and shapes are fixed, where capturable is declared."""
    faults: dict[str, None] = {}
    for run in (train, evaluate):
        method = subject.build()
        check = DeviceCheck(method)
        run(check, subject, Eager(method))
        faults |= dict.fromkeys(check.faults)
    if faults and method.capturable:
        raise Fault(f"{_joined(list(faults))}; or declare capturable = False.")
    if faults:
        raise NotClaimed(f"capturable = False; {next(iter(faults))}")
    if method.capturable:
        return None
    return (
        "it could declare capturable = True: no wait, no tensor from another device and only "
        "fixed shapes were found"
    )


def _joined(faults: Sequence[str]) -> str:
    more = f" (and {len(faults) - SHOWN} more)" if len(faults) > SHOWN else ""
    return "; ".join(faults[:SHOWN]) + more
