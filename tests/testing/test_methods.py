"""The suite of methods: a right one passes, and each check catches what it is there for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewshot_bench.episode import Episode
from fewshot_bench.errors import UnknownName
from fewshot_bench.method import Losses, Method, Player, cross_entropy, trainable
from fewshot_bench.testing import SUITES, Outcome, check_method
from tests.testing.wrong_methods import MORE_HOST_READS, WRONG, Right

CHECKS = [check.id for check in SUITES["methods"]]


def outcome(kind: type[Method], check: str) -> Outcome:
    (found,) = check_method(kind, only=[check])
    return found


def test_a_right_method_passes_every_check() -> None:
    outcomes = check_method(Right)
    assert [(o.id, o.message) for o in outcomes if o.status not in ("passed", "note")] == []
    assert [o.id for o in outcomes] == CHECKS
    assert all(o.sentence.endswith(".") for o in outcomes)


def test_every_check_that_can_fail_has_a_wrong_method() -> None:
    assert set(WRONG) == set(CHECKS) - {"speed"}


@pytest.mark.parametrize("check", WRONG)
def test_a_check_catches_its_wrong_method(check: str) -> None:
    found = outcome(WRONG[check], check)
    assert found.status == "failed", found
    assert len(found.message) > 30
    assert "\n" not in found.message


class Told(WRONG["resume"]):  # type: ignore[misc]
    """The counter that is lost without this."""

    def get_extra_state(self) -> Any:
        return {"calls": self.calls, "at": torch.tensor([self.calls])}

    def set_extra_state(self, state: Any) -> None:
        assert state["at"].tolist() == [state["calls"]]
        self.calls = state["calls"]


@pytest.mark.parametrize("check", ["resume", "round-trip", "builds-alike", "pure-losses"])
def test_state_beside_the_tensors_is_saved_where_it_is_given(check: str) -> None:
    assert outcome(Told, check).status == "passed"


def test_state_that_no_checkpoint_can_hold_is_told() -> None:
    class Odd(Told):
        def get_extra_state(self) -> Any:
            return {"calls": {1, 2}}

    found = outcome(Odd, "resume")
    assert found.status == "failed"
    assert "weights._extra_state.calls is a set" in found.message


@pytest.mark.parametrize("kind", MORE_HOST_READS, ids=lambda kind: kind.__name__)
def test_each_kind_of_wait_is_seen(kind: type[Method]) -> None:
    assert outcome(kind, "captures").status == "failed"


@pytest.mark.parametrize(
    ("check", "declared"),
    [
        ("class-relabeling", {"class_equivariant": False}),
        ("inductive", {"transductive": True}),
        ("captures", {"capturable": False}),
        ("autocast", {"autocast": False}),
        ("embeds", {"embeds": False}),
        ("unlabeled-tasks", {"unlabeled_tasks": False}),
        ("independent-tasks", {"batchable": False}),
    ],
)
def test_what_is_not_declared_is_not_claimed(check: str, declared: dict[str, Any]) -> None:
    kind = type("Modest", (WRONG[check],), declared)
    found = outcome(kind, check)
    assert found.status == "not claimed"
    assert found.message


def test_what_a_method_raises_is_an_outcome() -> None:
    class Raising(Right):
        def adapt(self, support: Any) -> Tensor:
            raise RuntimeError("out of\ncheese")

    found = outcome(Raising, "shapes")
    assert (found.status, found.message) == ("failed", "it raised RuntimeError: out of cheese")


def test_a_pretrained_method_is_shown_mini_batches() -> None:
    class Pretrained(Right):
        source = "batches"
        unlabeled_tasks = False

        def __init__(self, task: Any, backbone: Any) -> None:
            super().__init__(task, backbone)
            self.head = nn.Linear(3 * 4 * 4, task.way)

        def losses(self, episode: Episode) -> Losses:
            assert episode.support.images.shape[2] == 0
            logits = self.head(self.embed(episode.query))
            return Losses({"meta": cross_entropy(logits, episode.target)})

    outcomes = check_method(Pretrained)
    assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []


def test_a_second_player_is_checked_too() -> None:
    class Adversary(Right):
        turns = (("meta",), ("other",))

        def __init__(self, task: Any, backbone: Any) -> None:
            super().__init__(task, backbone)
            self.shift = nn.Parameter(torch.ones(()))

        def players(self) -> Any:
            own = trainable(self)
            shift = own.pop("shift")
            return {"meta": Player(own), "other": Player({"shift": shift})}

        def losses(self, episode: Episode) -> Losses:
            fair = super().losses(episode).players["meta"]
            return Losses({"meta": fair, "other": (self.shift.detach() * self.shift) * 1e3 + fair})

    found = outcome(Adversary, "gradients")
    assert found.status == "failed"
    assert "player 'other'" in found.message


def test_an_unknown_check_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'shapes'"):
        check_method(Right, only=["shape"])
