"""A state that another kind of device saved, in the form that optimizers have here."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewshot_bench.engine.checkpointing import Store, read_checkpoint
from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.executors.graph import make_capturable
from fewshot_bench.engine.training import Plan, Trainer
from tests.engine.replaying import let_optimizers_be_captured
from tests.engine.toys import Prototypes, source

CPU = torch.device("cpu")
# Those whose state has a number of steps; AdamW's as Adam's.
OPTIMIZERS = (torch.optim.Adam, torch.optim.NAdam, torch.optim.RMSprop, torch.optim.Adadelta)


@pytest.fixture(autouse=True)
def _as_where_graphs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    let_optimizers_be_captured(monkeypatch)


def trainer(kind: type[torch.optim.Optimizer], captured: bool) -> Trainer:
    class Moved(Prototypes):
        def players(self):  # type: ignore[no-untyped-def]
            [player] = super().players().values()
            return {"meta": replace(player, optimizer=partial(kind, lr=0.05))}

    torch.manual_seed(0)
    method = Moved()
    found = Trainer(method.train(), Eager(method), source(), Plan(8, 4))
    if captured:
        assert make_capturable(list(found.optimizers.values()), CPU) is None
    return found


def weights_after(trainer: Trainer, steps: int) -> Tensor:
    """Of the layer; biases have no gradient but for rounding, which some optimizers blow up."""
    for _ in range(steps):
        trainer.advance()
    return dict(trainer.method.named_parameters())["embed.1.weight"].detach()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("captured", [False, True])
def test_a_training_goes_on_where_the_other_kind_of_device_left_it(
    kind: type[torch.optim.Optimizer], captured: bool, tmp_path: Path
) -> None:
    before, here = trainer(kind, not captured), trainer(kind, captured)
    weights_after(before, 3)
    saved = read_checkpoint(Store(tmp_path, 1, {}).save(before.step, before.state()))
    assert not isinstance(saved, str)
    here.restore(saved)
    [group] = here.optimizers["meta"].param_groups
    assert group["capturable"] is captured
    assert isinstance(group["lr"], Tensor) is captured
    assert float(group["lr"]) == pytest.approx(0.05)
    whole = weights_after(trainer(kind, captured), 6)
    assert torch.allclose(weights_after(here, 3), whole, 1e-3, 1e-4)
