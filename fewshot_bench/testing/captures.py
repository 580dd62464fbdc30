"""Whether a CUDA graph could hold a plugin's part of a step: checked on a stand-in for a GPU.

A captured step has fixed shapes, waits for nothing, and reads nothing of the host's. The plugin
runs as in a training on a GPU (:mod:`fewshot_bench.testing.meta`), and each line of it that a GPU
would wait for or refuse is named.
"""

from __future__ import annotations

import inspect
import linecache
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
from fewshot_bench.engine.conditions import changed, conditions
from fewshot_bench.engine.evaluation import predictions, scores_of
from fewshot_bench.engine.executors.eager import Eager
from fewshot_bench.engine.executors.graph import Ahead, make_capturable
from fewshot_bench.engine.plan import Plan
from fewshot_bench.engine.players import check_players
from fewshot_bench.engine.training import Trainer
from fewshot_bench.episode import Episode
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method, title_of
from fewshot_bench.sampling.base import EpisodeSource
from fewshot_bench.sampling.closed import ClosedSampler
from fewshot_bench.sampling.few_labels import UnlabeledTasks
from fewshot_bench.testing.calls import Frames
from fewshot_bench.testing.checks import Check, Fault, NotClaimed
from fewshot_bench.testing.meta import MetaDevice, Operation, Seen
from fewshot_bench.testing.offenses import ADVICE, META
from fewshot_bench.testing.part_checks import SamplerSubject
from fewshot_bench.testing.stand_ins import as_a_gpu
from fewshot_bench.testing.subject import MethodSubject
from fewshot_bench.utils.text import one_line

PACKAGE, TORCH = Path(fewshot_bench.__file__).parent, Path(torch.__file__).parent
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
PACKAGES = "site-packages"
TASKS, CHUNKS = 2, 3  # of a step, or of a chunk of an evaluation
SHOWN = 3  # lines in a message
SPELLED = {"_local_scalar_dense": "item(), int(), float(), bool(), if", "_to_copy": "to(), cpu()"}
# What else there is to do about it, for a method and for a sampler.
OF_METHODS = {
    "once": "as a registered buffer",
    "show": "; return what is to be shown in Losses.log",
}
OF_SAMPLERS = {"once": "in __init__ on table.device", "show": ""}
COULD = (
    "it could declare capturable = True: no wait, no tensor from another device, fixed shapes were "
    "found"
)


class Watched:
    """Runs a plugin on the stand-in for a GPU, and collects what is wrong with it.

    Arguments:
        plugin: its object, or its class; its files, and those of the modules in it, are its own.

    Attributes:
        device: the stand-in.
        faults: sentences, each with file, line and the line's text.
    """

    def __init__(self, plugin: object) -> None:
        self.device = MetaDevice()
        self.faults: list[str] = []
        kinds = {type(m) for m in plugin.modules()} if isinstance(plugin, nn.Module) else {plugin}
        bases = {base for kind in kinds for base in inspect.getmro(kind)}  # type: ignore[arg-type]
        files = filter(None, map(_file_of, bases))
        self.files = {f for f in files if not _within(f, PACKAGE, TORCH, LIBRARY)}
        self.mends = OF_METHODS if isinstance(plugin, nn.Module) else OF_SAMPLERS
        self._ranks: dict[str, str] = {}

    @contextmanager
    def running(self) -> Iterator[MetaDevice]:
        """Do the block on the device; whatever it raises is a fault, too."""
        try:
            with as_a_gpu(self.device):
                yield self.device
        except Exception as error:
            self._tell_seen()
            if not self.faults:  # else what was seen is the reason
                self.faults.append(self._raised(error))
        self._tell_seen()

    def _tell_seen(self) -> None:
        for seen in self.device.seen:
            meaning, mend = ADVICE[seen.what]
            call = SPELLED.get(seen.call, f"{seen.call}()")
            line, when = self.line(seen.frames), "in its backward pass " if seen.backward else ""
            told = f"{line} {when}{meaning.format(call)}; {mend.format(**self.mends)}"
            if told not in self.faults and not self._repeats(seen, line):
                self.faults.append(told)
        self.device.seen.clear()

    def _repeats(self, seen: Seen, line: str) -> bool:
        """Whether it only shows again what was seen: a backward pass meets what the forward did."""
        if self._own(seen.frames) is None:
            return bool(self.faults)
        return seen.backward and any(fault.startswith(line) for fault in self.faults)

    def _raised(self, error: Exception) -> str:
        while isinstance(error, PluginError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # what a plugin raised, with its frames
        steps = traceback.extract_tb(error.__traceback__)
        frames = [(step.filename, step.lineno or 0, step.name) for step in steps]
        told = f"{type(error).__name__}: {one_line(str(error))}"
        return (
            f"{self.line(tuple(reversed(frames)))} raises on another device than the CPU ({told})"
        )

    def same_operations(self, first: Sequence[Operation], second: Sequence[Operation]) -> None:
        """Hold what the plugin's lines did for one batch against what they did for another."""
        own = [[op for op in run if self._own(op.frames)] for run in (first, second)]
        for one, two in zip_longest(*own):
            if one is None or two is None or (one.name, one.given) != (two.name, two.given):
                op = one or two
                assert op is not None
                self.faults.append(
                    f"{self.line(op.frames)} does not do the same for every batch ({op.name}()): "
                    "shapes, or numbers of Python's, change from step to step, and a CUDA graph "
                    "would repeat those of one step; keep them fixed, or in tensors of the device"
                )
                return

    def same_attributes(self, method: Method, before: Any, after: Any) -> None:
        """Hold what the method is after a call against what it was before it."""
        # If its lines do other work in each call, that is reported already, with the line.
        if not self.faults and (what := changed(before, after)):
            self.faults.append(
                f"{title_of(method)}: each call changes {what}, and a CUDA graph would not; return "
                "it in Losses.log, or in Losses.buffers what a later step needs"
            )

    def line(self, frames: Frames) -> str:
        """``file.py:12, `its text` in adapt()``: the innermost line that is the plugin's.

        One of this package where there is none: the fault is its own, or shows only there.
        """
        mine = _above(frames)
        here = next((frame for frame in mine if _within(Path(frame[0]), PACKAGE)), frames[0])
        file, number, function = self._own(frames) or here
        text = linecache.getline(file, number).strip()
        return f"{_shown(Path(file))}:{number}, `{text}` in {function}(),"

    def _own(self, frames: Frames) -> tuple[str, int, str] | None:
        """The innermost of the plugin's files; else of any that is no library's."""
        mine = _above(frames)
        for rank in ("own", "beside"):
            for frame in mine:
                if self._ranked(frame[0]) == rank:
                    return frame
        return None

    def _ranked(self, file: str) -> str:
        if file not in self._ranks:
            path = Path(file)
            beside = path.is_file() and not _within(path, PACKAGE, TORCH, LIBRARY)
            own = beside and any(_belongs(path, to) for to in self.files)
            self._ranks[file] = "own" if own else "beside" if beside else ""
        return self._ranks[file]


def _above(frames: Frames) -> Frames:
    """Without those of whoever runs this."""
    own = next((i for i, (file, _, _) in enumerate(frames) if file == __file__), len(frames))
    return frames[:own]


def _file_of(kind: type) -> Path | None:
    try:
        return Path(inspect.getfile(kind))
    except (TypeError, OSError):  # built in, or typed at a prompt
        return None


def _belongs(file: Path, plugin: Path) -> bool:
    """Whether it is a file of a plugin, or a helper beside or below it; no installed package."""
    folder = plugin.parent
    if file == plugin or folder.name == PACKAGES:
        return file == plugin
    return folder in file.parents and PACKAGES not in file.relative_to(folder).parts


def _within(file: Path, *folders: Path) -> bool:
    """Whether a file is in one of these folders, other people's packages left out."""
    for folder in folders:
        if folder in file.parents:
            return folder is not LIBRARY or PACKAGES not in file.parts
    return False


def _shown(file: Path) -> str:
    here = Path.cwd()
    return (
        str(file.relative_to(here)) if here in file.parents else f"{file.parent.name}/{file.name}"
    )


def train(
    watched: Watched, subject: MethodSubject, lowering: Eager, steps: int | None = None
) -> Trainer | None:
    """Train on the device, as an engine does, with tasks without labels where they are declared.

    Arguments:
        lowering: of the method, which may still be on the CPU.
        steps: how many; None: as few as it takes to hold the last ones, one of each source of
            tasks, against those before them.

    Returns:
        The trainer after these steps; None: nothing trains, or it could not.
    """
    method = lowering.method
    with watched.running() as device:
        with device.waits_allowed():
            if not check_players(method.to(META)):
                return None
            others = unlabeled_tasks(subject)
            sources = 1 if others is None else 2
            plan = Plan(steps or 3 * sources, TASKS)
            trainer = Trainer(
                method.train(), lowering, subject.source("train", META), plan,
                unlabeled=others,
            )  # fmt: skip
            for source in trainer.sources:  # a source looks at its first batch
                source.batch(range(TASKS))
            if why := make_capturable(list(trainer.optimizers.values()), META):
                watched.faults.append(f"players(): {why}, so that a GPU runs every step eagerly")
        done: list[list[Operation]] = []
        stood: list[Any] = []
        for step in range(plan.steps):
            # What the first one of each source prepares is there when a graph is captured.
            allowed = device.waits_allowed() if step < sources else nullcontext()
            with allowed, device.noted(steps is None) as operations:
                trainer.advance()
            done.append(operations)
            with device.waits_allowed():  # for extra state, which is the host's business
                stood.append(conditions(method, META))
        for back in range(1, sources + 1):
            watched.same_operations(done[-back - sources], done[-back])
        watched.same_attributes(method, stood[-2], stood[-1])
        return trainer
    return None


def evaluate(
    watched: Watched, subject: MethodSubject, lowering: Eager
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Learn, classify and score chunks of test tasks on the device, as an evaluation does.

    Returns:
        Logits and scores of each, as far as it came.
    """
    method = lowering.method
    logits: list[Tensor] = []
    scores: list[dict[str, Tensor]] = []
    done: list[list[Operation]] = []
    stood: list[Any] = []
    with watched.running() as device:
        with device.waits_allowed():
            method.to(META).eval()
            source = subject.source("test", META)
            assert isinstance(source, EpisodeSource)
            source.batch(range(TASKS))
        chunks = predictions(lowering, source, CHUNKS * TASKS, TASKS)
        for i in range(CHUNKS):
            allowed = nullcontext() if i else device.waits_allowed()
            # A chunk that a graph repeats is no operation of the plugin's.
            with allowed, device.noted(not lowering.graph) as operations:
                indices, prediction = next(chunks)
            done.append(operations)
            with device.waits_allowed():
                stood.append(conditions(method, META))
            logits.append(prediction.logits)
            scores.append(scores_of(prediction, indices, {}, title_of(method)))
        watched.same_operations(done[-2], done[-1])
        watched.same_attributes(method, stood[-2], stood[-1])
    return logits, scores


def unlabeled_tasks(
    subject: MethodSubject, device: torch.device | str = META
) -> UnlabeledTasks | None:
    """Tasks without labels, for a method that declares that it learns from them."""
    if not subject.kind.unlabeled_tasks or subject.kind.source == "batches":
        return None
    return UnlabeledTasks(ClosedSampler(subject.table("train", device), subject.task, 1))


def draw(subject: SamplerSubject) -> tuple[Watched, list[Episode]]:
    """Batches on the device: two by their ranges, and two as a captured training draws them."""
    watched = Watched(subject.kind)
    episodes: list[Episode] = []
    with watched.running() as device:
        with device.waits_allowed():
            sampler = subject.build(device=META)
            size = min(TASKS, sampler.length or TASKS)
            source = EpisodeSource(sampler)
            source.batch(range(size))
        starts = [start for start in (0, size) if start + size <= (sampler.length or 2 * size)]
        episodes += [source.batch(range(start, start + size)) for start in starts]
        with device.waits_allowed():
            ahead = Ahead(source, size, size, META)
        for start in starts:
            if not ahead.holds(start):
                ahead.draw(start)
            ahead.go_to(start)
            episodes.append(ahead.episode())
    return watched, episodes


def _method(subject: MethodSubject) -> str | None:
    faults: list[str] = []
    for run in (train, evaluate):
        method = subject.build()
        watched = Watched(method)
        run(watched, subject, Eager(method))
        faults += [fault for fault in watched.faults if fault not in faults]
    if not method.capturable:
        if faults:
            raise NotClaimed(f"capturable = False; {faults[0]}")
        return COULD
    if faults:
        raise Fault(f"{_joined(faults)}; or declare capturable = False.")
    return None


def _sampler(subject: SamplerSubject) -> None:
    watched, _ = draw(subject)
    if watched.faults:
        raise Fault(f"{_joined(watched.faults)}.")


def _joined(faults: Sequence[str]) -> str:
    more = f" (and {len(faults) - SHOWN} more)" if len(faults) > SHOWN else ""
    return "; ".join(faults[:SHOWN]) + more


CHECKS = {
    "methods": Check(
        "captures",
        "A GPU waits for no line of it and shapes are fixed, where capturable is declared.",
        _method,
    ),
    "samplers": Check("captures", "A GPU waits for no line of it, batch after batch.", _sampler),
}
