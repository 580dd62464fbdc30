"""Parts of ``measure.py`` that hold figures against each other; the tests are in ``tests.py``."""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import differing
import numpy as np
import torch
import work
from bench import Bench
from turns import PEERS as peers_folder
from turns import peers_python

from fewshot_bench.config.options import load
from fewshot_bench.config.resolve import configure
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.executors import Eager, choose
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.episode import Episode
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import Method
from fewshot_bench.results.stats import paired_difference
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import PreparedRun, prepare
from fewshot_bench.runs.train import make_trainer

# ---- precision ------------------------------------------------------------------------------


# The first row on an H200, of ProtoNet, took so many seconds, the start of its process among them.
FIRST_S = 12.0


def precision(bench: Bench) -> None:
    """What TF32 and bf16 change: the same weights and the same training, paired per episode."""
    # In miniature, one that declares autocast and one that does not.
    methods = (
        ("protonet", "maml") if bench.small else ("protonet", "maml", "relationnet", "metagan")
    )
    for method in methods:
        if not in_every_precision(method, bench):
            return


def in_every_precision(method: str, bench: Bench) -> bool:
    """The rows of a method; whether there was time for all."""
    trained: dict[str, np.ndarray] = {}
    seconds = FIRST_S
    for name in ("fp32", "tf32", "bf16"):
        about = {"method": method, "precision": name}
        if name == "bf16" and not declares_autocast(method):
            bench.row(**about, not_offered=f"{method} does not declare autocast")
            continue
        if bench.over(seconds, f"{method} {name}"):
            return False
        with bench.told(**about) as row:
            row |= trained_in(method, name, trained, bench)
        seconds = row["took_s"]  # those behind the first are as long as that
    return True


def declares_autocast(method: str) -> bool:
    """Whether a method may run in bf16."""
    return bool(load(Registry.discover(), "methods", method).autocast)


def trained_in(
    method: str, name: str, trained: dict[str, np.ndarray], bench: Bench
) -> dict[str, Any]:
    """Train and evaluate in a precision.

    Arguments:
        trained: {precision: accuracies [episodes]} of the trainings before; this one's is added.
    """
    steps, episodes = (4, 8) if bench.small else (200, 600)
    less = {"query": 3, "train_way": 5, "train_query": 3, "task_batch": 2} if bench.small else {}
    parts = prepare(RunContext(configure(
            method, dataset=work.dataset(), way=5, shot=1, steps=steps, validate_every=0,
            device=str(bench.device), precision=name, episodes=episodes, **less,
        )))  # fmt: skip
    with parts.executor.running():
        make_trainer(parts).run()
        own = evaluate(parts.executor, parts.test, episodes, chunk=100).accuracy
    trained[name] = own
    row: dict[str, Any] = {"steps": steps, "accuracy": float(own.mean())}
    row["trained_minus_fp32"] = paired(own, trained["fp32"])
    if name != "fp32":  # the same weights, evaluated in full precision
        full = choose("eager", parts.method, bench.device)
        with full.running():
            exact = evaluate(full, parts.test, episodes, chunk=100).accuracy
        row["evaluated_minus_fp32"] = paired(own, exact)
    return row


def paired(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Mean difference in points, and its 95 % half width."""
    found = paired_difference(a, b, ranks=False)
    return {"points": 100 * found.difference, "half_width": 100 * (found.half_width or 0.0)}


# ---- the same seed, the same bits -----------------------------------------------------------

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "protonet": ("protonet", {}),
    "soft-kmeans": ("soft-kmeans", {"unlabeled": 2, "train_unlabeled": 2}),
    "relationnet": ("relationnet", {}),
    "metagan": ("metagan", {"base_inner_steps": 2}),
    "maml": ("maml", {"first_order": False, "inner_steps": 2}),
    "maml first order": ("maml", {"first_order": True, "inner_steps": 2}),
    "metagan over protonet": ("metagan", {"base": "protonet", "backbone": "conv4"}),
    "metagan over relationnet": (
        "metagan",
        {"base": "relationnet", "backbone": "conv4-relation"},
    ),
}
# Small batches of networks of their usual depth: what is asked is whether bits are equal.
SMALL = {
    "dataset": "glyphs", "way": 5, "shot": 1, "query": 3, "train_way": 5, "train_query": 3,
    "task_batch": 4, "episodes": 8, "validate_every": 0,
}  # fmt: skip
STEPS = 24  # of a training that is done twice; longer than what begins eagerly, and a window


def repeat(bench: Bench) -> None:
    """Whether a training repeats to the bit, which operation breaks it, what makes it repeat."""
    broken = []
    for kind in list(KINDS)[: 1 if bench.small else None]:
        if bench.over(3, kind):
            return
        with bench.told(kind=kind, switch="none") as row:
            row |= trained_twice(kind, bench)
        if row.get("repeats", True):
            continue
        broken.append(kind)
        with bench.told(kind=kind, switch="none", looked="one step") as row:
            row["broken_by"] = differing.find(one_step(kind, bench), repeats=3)
    # In miniature, where everything repeats, the switches are tried all the same.
    for kind in broken or list(KINDS)[: 1 if bench.small else 0]:
        for name, switch in SWITCHES.items():
            if bench.over(3, f"{kind} {name}"):
                return
            with bench.told(kind=kind, switch=name) as row:
                with switch() as warned:
                    row |= trained_twice(kind, bench)
                row["warned"] = sorted({line.partition("\n")[0][:200] for line in warned})


@contextmanager
def cudnn_deterministic() -> Iterator[list[str]]:
    """cuDNN's own switch."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield []
    finally:
        torch.backends.cudnn.deterministic = before


@contextmanager
def deterministic_algorithms() -> Iterator[list[str]]:
    """torch's switch; what has no deterministic form is warned of, and runs all the same."""
    told: list[str] = []
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield told
        told += [str(one.message) for one in caught if "determinis" in str(one.message)]
    finally:
        torch.use_deterministic_algorithms(False)


SWITCHES: dict[str, Callable[[], Any]] = {
    "cudnn.deterministic": cudnn_deterministic,
    "use_deterministic_algorithms": deterministic_algorithms,
}


def prepared(kind: str, bench: Bench) -> PreparedRun:
    """Everything of a kind's small run."""
    method, settings = KINDS[kind]
    return prepare(RunContext(configure(method, **SMALL, **settings, device=str(bench.device))))


def trained_twice(kind: str, bench: Bench) -> dict[str, Any]:
    """How far two trainings from the same seed are apart, and what a step takes."""
    weights, ms, engines = [], [], []
    steps = 6 if bench.small else STEPS
    for _ in range(2):
        parts = prepared(kind, bench)
        trainer = Trainer(parts.method, parts.executor, parts.train, Plan(steps, 4, window=5))
        with parts.executor.running():
            trainer.run()
        values = [v for v in parts.method.state_dict().values() if v.is_floating_point()]
        weights.append(torch.cat([v.detach().double().cpu().flatten() for v in values]))
        ms.append(statistics.median(trainer.timer.columns()["step_ms"][-3:].tolist()))
        engines.append(parts.executor.name)
    a, b = weights
    return {
        "repeats": bool(torch.equal(a, b)),
        "apart": float((a - b).norm() / a.norm()),
        "step_ms": min(ms),
        "steps": steps,
        "ran_as": engines[-1],
    }


def one_step(kind: str, bench: Bench) -> Callable[[], None]:
    """A step's gradients, from the same weights and the same episodes each time."""
    parts = prepared(kind, bench)
    first = parts.method.train()
    episode = parts.train.batch(range(4))
    strategy = parts.executor.strategy

    def work_again() -> None:
        gradients(copy.deepcopy(first), episode, strategy)

    return work_again


def gradients(
    method: Method, episode: Any, strategy: Any = "auto"
) -> dict[str, list[torch.Tensor]]:
    """Of every player."""
    players = method.players()
    executor = Eager(method, strategy=strategy)
    with executor.running():
        return executor.gradients(episode, players, tuple(players)).gradients


# ---- peers' gradients -----------------------------------------------------------------------

AGREE = 1e-3  # relative; float32 leaves 1e-6 to 1e-5, an undecided ReLU more
AGREED = ("W1_second_order", "W1_first_order", "W1_one_shot_one_step")
PEERS = ("learn2learn", "torchopt", "higher")
PATIENCE = 60  # seconds, at most, for a peer's process


def agree(bench: Bench) -> None:
    """The peers' meta-gradients of the same weights and episodes, against ours in float64."""
    python = peers_python() or sys.executable
    with tempfile.TemporaryDirectory() as folder:
        for item in AGREED[: 1 if bench.small else None]:
            if bench.over(8, item):
                return
            given, exact = Path(folder) / f"{item}.npz", None
            with bench.told(item=item, peer="ours") as row:
                exact, own = write_given(item, bench, given)
                row |= held(own, exact)
            if exact is None:
                continue
            peers = PEERS[: 1 if bench.small else None]
            found = {peer: Path(folder) / f"{item}-{peer}.npy" for peer in peers}
            asked = {
                peer: gradient_of(python, peer, item, given, found[peer], bench) for peer in peers
            }
            for peer, process in asked.items():
                with bench.told(item=item, peer=peer) as row:
                    answer_of(process, PATIENCE if bench.small else max(1.0, bench.left()))
                    row |= held(np.load(found[peer]), exact)


def held(found: np.ndarray, exact: np.ndarray) -> dict[str, Any]:
    """How far a gradient is from the exact one, and whether that is near enough."""
    if found.shape != exact.shape:
        raise ValueError(f"a gradient of {found.size} numbers in place of {exact.size}")
    apart = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    return {"apart": apart, "agrees": apart < AGREE}


def write_given(item: str, bench: Bench, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Weights and episodes for the peers; our gradient in float64 and as it is."""
    settings = work.settings_of(item) | {"device": str(bench.device), "engine": "eager"}
    parts = prepare(RunContext(configure(settings.pop("method"), **settings)))
    method, tasks = parts.method.train(), 2 if bench.small else 4
    episode: Episode = parts.train.batch(range(tasks))
    weights = [p.detach().cpu().numpy() for p in method.parameters()]
    np.savez(
        path,
        support=episode.support.images.cpu().numpy(),
        query=episode.query.cpu().numpy(),
        target=episode.target.cpu().numpy(),
        **{f"weight_{i:02}": weight for i, weight in enumerate(weights)},
    )
    own = flat(gradients(method, episode))
    exact = flat(gradients(copy.deepcopy(method).double(), episode.to(torch.float64)))
    return exact, own


def flat(found: dict[str, list[torch.Tensor]]) -> np.ndarray:
    """All numbers of a gradient of one player."""
    (values,) = found.values()
    return torch.cat([v.detach().double().cpu().flatten() for v in values]).numpy()


def gradient_of(
    python: str, peer: str, item: str, given: Path, found: Path, bench: Bench
) -> subprocess.Popen[str]:
    """A peer's process that writes its gradient of an item."""
    words = [python, str(peers_folder / "worker.py"), peer, item, "--data", str(given)]
    words += ["--device", str(bench.device), "--small", "--gradient", str(found)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=peers_folder)


def answer_of(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait for a peer.

    Raises:
        RuntimeError: it cannot, or not in time.
    """
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer in {seconds:.0f} s") from None
    finally:
        process.kill()
        process.wait()
    lines = said.strip().splitlines()
    answer = json.loads(lines[-1]) if lines else {"error": f"ended with {process.returncode}"}
    if "error" in answer:
        raise RuntimeError(answer["error"])
