"""kill -9 at random moments, and at each call that changes a file: nothing is lost or torn.

After each, going on gives the bytes of a run that was never killed, and ``fsb compare`` reads what
is there.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewshot_bench.engine.checkpointing import FOLDER, step_of
from fewshot_bench.results.record import read_record
from tests.faults.broken_off import CONV, assert_same, command, newest
from tests.faults.killing import Fsb, server

STEPS = 16
SETTINGS: dict[str, Any] = CONV | {
    "steps": STEPS,
    "validate_every": 5,
    "validation_episodes": 8,
    "episodes": 400,
    "checkpoint_every": 2,
    "cache_dir": "cache",
}
ALTERNATING = SETTINGS | {"base": "protonet", "update": "alternating", "episodes": 200}
KINDS = {
    "protonet": ("protonet", SETTINGS),
    "maml": ("maml", SETTINGS | {"episodes": 64, "validation_episodes": 4, "test_steps": 2}),
    "metagan": ("metagan", ALTERNATING),
}

# From when on it may be killed in a phase.
PHASES: dict[str, Callable[[Path], object]] = {
    "data": lambda at: True,
    "training": lambda at: runs(at),
    "checkpointing": lambda at: part(at),
    "evaluation": lambda at: trained(at),
}


def runs(at: Path) -> list[Path]:
    return list(at.glob("runs/*/record.json"))


def reached(at: Path) -> int:
    """The step of the newest checkpoint."""
    return max(map(step_of, at.glob(f"runs/*/{FOLDER}/step-*")), default=0)


def part(at: Path) -> list[Path]:
    """A checkpoint that is being written."""
    return list(at.glob(f"runs/*/{FOLDER}/.step-*"))


def tables(at: Path) -> list[Path]:
    return list(at.glob("runs/*/episodes.csv"))


@pytest.fixture(scope="module")
def context() -> Any:
    return server()


class Whole:
    """Runs that nobody kills, one of each kind, and how long their phases take."""

    def __init__(self, context: Any, folder: Path) -> None:
        self.context, self.folder = context, folder
        self.found: dict[str, tuple[Path, dict[str, float]]] = {}

    def of(self, kind: str) -> tuple[Path, dict[str, float]]:
        if kind not in self.found:
            at = self.folder / kind
            at.mkdir()
            begin = time.monotonic()
            fsb = Fsb(self.context, command(*KINDS[kind]), at)
            times = {}
            for name, mark in (("data", runs), ("training", trained), ("evaluation", tables)):
                while fsb.process.is_alive() and not mark(at):
                    time.sleep(0.002)
                times[name] = time.monotonic() - begin
            code, said = fsb.end()
            assert code == 0, said
            self.found[kind] = newest(at / "runs"), times | {"all": time.monotonic() - begin}
        return self.found[kind]


def trained(at: Path) -> bool:
    return reached(at) == STEPS


@pytest.fixture(scope="module")
def whole(context: Any, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(context, tmp_path_factory.mktemp("whole"))


def typed(kind: str, at: Path) -> list[str]:
    """What somebody types after a kill: go on, if there is anything."""
    found = runs(at)
    return ["resume", str(found[0].parent.relative_to(at))] if found else command(*KINDS[kind])


def check_in_between(context: Any, at: Path) -> None:
    """After a kill: no record is torn, and compare says in a line what it leaves out."""
    for path in runs(at):
        read_record(path.parent)
    code, said = Fsb(context, ["compare"], at).end()
    finished = any(read_record(p.parent)["status"] == "completed" for p in runs(at))
    assert code == (0 if finished else 2), said
    assert "Traceback" not in said
    assert finished or len(said.splitlines()) == 1, said


def go_on_to_the_end(context: Any, kind: str, at: Path, whole: Path) -> None:
    code, said = Fsb(context, typed(kind, at), at).end()
    assert code == 0, said
    assert "damaged" not in said
    (record,) = runs(at)
    assert_same(whole, record.parent)
    # A run that was killed before its first record has left a folder without one, and no more.
    left = [p for folder in (record.parent, at / "cache") for p in folder.rglob("*.part")]
    assert not left, left
    code, said = Fsb(context, ["compare", "runs"], at).end()
    assert code == 0, said


def killed_at_random(
    context: Any, kind: str, phase: str, rng: random.Random, at: Path, whole: Whole, part_of: float
) -> str:
    """Kill a run in a phase, and perhaps again while it goes on, then let it end.

    Arguments:
        part_of: the phase from whose beginning on the moment is drawn; machines are not equally
            fast from one minute to the next.

    Returns:
        The phase that it was in, by what it left; ``over`` if it was too late.
    """
    folder, times = whole.of(kind)
    lasts = {
        "data": times["data"],
        "training": times["training"] - times["data"],
        "checkpointing": 0.004,
        "evaluation": times["evaluation"] - times["training"],
    }[phase]
    fsb = Fsb(context, typed(kind, at), at)
    landed = "over"
    if fsb.kill_at(lambda: PHASES[phase](at), part_of * rng.uniform(0, lasts)):
        landed = where(at)
        check_in_between(context, at)
        while rng.random() < 0.3:
            again = Fsb(context, typed(kind, at), at)
            again.kill_at(lambda: True, rng.uniform(0, times["all"]))
    go_on_to_the_end(context, kind, at, folder)
    return landed


def where(at: Path) -> str:
    """What a killed run was doing."""
    if not runs(at):
        return "data"
    if read_record(runs(at)[0].parent)["status"] == "completed":
        return "over"
    if part(at):
        return "checkpointing"
    return "evaluation" if trained(at) else "training"


@pytest.mark.parametrize(("kind", "phase"), [("protonet", "training"), ("maml", "evaluation")])
def test_a_killed_run_goes_on_to_the_same_bytes(
    kind: str, phase: str, context: Any, whole: Whole, tmp_path: Path
) -> None:
    killed_at_random(context, kind, phase, random.Random(kind), tmp_path, whole, 0.5)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("call", "number"), [("replace", 2), ("fsync", 5), ("unlink", 1)])
def test_killed_at_a_call_that_changes_a_file(
    call: str, number: int, done: bool, context: Any, whole: Whole, tmp_path: Path
) -> None:
    died_at(context, whole, tmp_path, call, number, done)


def died_at(context: Any, whole: Whole, at: Path, call: str, number: int, done: bool) -> bool:
    """Whether there was such a call to die at; then the rest is checked."""
    fsb = Fsb(context, typed("protonet", at), at, dies=(call, number, done))
    code, said = fsb.end()
    if code >= 0:
        assert code == 0, said
        return False
    check_in_between(context, at)
    go_on_to_the_end(context, "protonet", at, whole.of("protonet")[0])
    return True


@pytest.mark.exhaustive
def test_fifty_random_kills(context: Any, whole: Whole, tmp_path: Path) -> None:
    """In every phase, of three methods; those that came too late do not count."""
    rng = random.Random(int(os.environ.get("FSB_SEED", "0")))
    landed: Counter[str] = Counter()
    part_of = dict.fromkeys(PHASES, 1.0)
    late = 0
    while landed.total() < 50:
        phase = min(PHASES, key=lambda name: landed[name])
        kind = rng.choice(list(KINDS))
        at = tmp_path / str(landed.total() + late)
        at.mkdir()
        where_it_was = killed_at_random(context, kind, phase, rng, at, whole, part_of[phase])
        if where_it_was == "over":
            late += 1
            assert late < 50, landed
        else:
            landed[where_it_was] += 1
        if where_it_was != phase:
            part_of[phase] = max(0.9 * part_of[phase], 0.2)
    print(f"\n{landed.total()} runs were killed ({late} more had ended): {dict(landed)}")
    assert min(landed[phase] for phase in PHASES) >= 5


@pytest.mark.exhaustive
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_killed_at_every_call_that_changes_a_file(
    done: bool, context: Any, whole: Whole, tmp_path: Path
) -> None:
    """From the first to the last one of a short run; of the many alike, every fifth."""
    died = 0
    for number in range(1, 10_000, 5):
        at = tmp_path / str(number)
        at.mkdir()
        if not died_at(context, whole, at, "any", number, done):
            break
        died += 1
    print(f"\ndied at {died} places")
    assert died > 20
