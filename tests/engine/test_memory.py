"""A device that is short of memory: chunks of the same gradient, or a size that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fewshot_bench.engine.checkpointing import Checkpoint
from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.memory import within_memory
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.engine.weights import pack
from fewshot_bench.errors import OutOfMemory, is_out_of_memory
from tests.engine.toys import Prototypes, TwoPlayers, logged, source, two_threads

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    MemoryError(),
]


def short(kind: type[Any], most: int, error: BaseException = ERRORS[0]) -> Any:
    """A method of this kind on a device that holds the queries of so many at a time."""

    class Short(kind):  # type: ignore[misc]
        sizes: list[int] = []

        def losses(self, episode: Any) -> Any:
            self._hold(episode.query)
            return super().losses(episode)

        def predict(self, state: Any, query: Any) -> Any:
            if not torch.is_grad_enabled() or not self.training:
                self._hold(query)
            return super().predict(state, query)

        def _hold(self, query: Any) -> None:
            self.sizes.append(query.shape[0] * query.shape[1])
            if self.sizes[-1] > most:
                raise error

    Short.sizes = []
    torch.manual_seed(0)
    return Short()


def trained(method: Any, executor: Callable[[Any], Any] = Eager) -> tuple[Trainer, list[str]]:
    chosen = executor(method)
    trainer = Trainer(method, chosen, source(), Plan(steps=3, task_batch=8))
    with logged() as lines, chosen.running():
        trainer.run()
    return trainer, lines


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", [Prototypes, TwoPlayers])
def test_a_step_is_run_in_chunks_of_the_same_gradient(kind: Any, error: BaseException) -> None:
    assert is_out_of_memory(error)
    whole, _ = trained(short(kind, 1000))
    method = short(kind, 2 * 9, error)
    trainer, lines = trained(method)
    assert trainer.executor.calls(8) == 4
    assert trainer.history.shrunk_at == 1
    assert lines == [
        "out of memory with 8 tasks at once; using 4 from here on, which gives the same gradient",
        "out of memory with 4 tasks at once; using 2 from here on, which gives the same gradient",
    ]
    assert set(method.sizes[2:]) == {18}  # it is not tried again in the next step
    expected = whole.history.steps.arrays()
    for name, values in trainer.history.steps.arrays().items():
        assert values == pytest.approx(expected[name], rel=1e-3), name


def test_the_gradient_is_the_same_in_double_precision() -> None:
    method, plenty = short(Prototypes, 2 * 9).double(), short(Prototypes, 1000).double()
    episode = source().batch(range(8)).to(torch.float64)
    found = []
    for one in (method, plenty):
        executor, players = Eager(one), one.players()

        def gradients(part: Any, executor: Any = executor, players: Any = players) -> Any:
            return executor.gradients(part, players, ("meta",))

        found.append(within_memory(executor, episode, gradients))
    for a, b in zip(found[0].gradients["meta"], found[1].gradients["meta"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert torch.equal(found[0].losses["meta"], found[1].losses["meta"])


def test_threads_hold_fewer_tasks_at_once() -> None:
    error, held = ERRORS[0], []

    class Crowded(Prototypes):
        """Two tasks at a time are too many."""

        def losses(self, episode: Any) -> Any:
            held.append(1)
            if len(held) == 3:
                raise error
            return super().losses(episode)

    trainer, lines = trained(Crowded(), two_threads)
    assert trainer.executor.at_once(8) == 1
    assert "out of memory with 2 tasks at once; using 1 from here on" in lines[0]


def test_a_training_that_goes_on_holds_no_more_than_before() -> None:
    before, _ = trained(short(Prototypes, 9))
    tensors: dict[str, Any] = {}
    state = pack(before.state(), tensors, "state")
    method = Prototypes()
    after = Trainer(method, Eager(method), source(), Plan(steps=3, task_batch=8))
    assert after.executor.at_once(8) == 8
    after.restore(Checkpoint(3, {}, state, tensors))
    assert after.executor.at_once(8) == before.executor.at_once(8) == 1
    assert after.history.shrunk_at == before.history.shrunk_at == 1


def test_a_thread_is_no_limit_unless_memory_was_short() -> None:
    trainer, _ = trained(Prototypes(), two_threads)
    assert trainer.state()["at_once"] is None
    trainer.executor.limit(1)
    assert trainer.executor.at_once(8) == 1


def test_a_task_that_does_not_fit_is_told_with_a_size_that_does() -> None:
    with pytest.raises(OutOfMemory) as caught:
        trained(short(Prototypes, 4))
    assert str(caught.value).startswith("one task with 9 queries needs more memory than cpu has")
    assert "--train-query 1 fits (it was tried)" in str(caught.value)


def test_nothing_fits() -> None:
    with pytest.raises(OutOfMemory, match="lower --train-way, --train-shot or the width"):
        trained(short(Prototypes, 2))


def test_tasks_that_belong_together_are_not_parted() -> None:
    method = short(Prototypes, 3 * 9)
    type(method).batchable = False
    with pytest.raises(OutOfMemory, match="8 tasks, which have to be run together") as caught:
        trained(method)
    assert "--task-batch 2 fits (it was tried)" in str(caught.value)


def test_an_evaluation_is_run_in_chunks_too() -> None:
    method, plenty = short(Prototypes, 3 * 9), short(Prototypes, 1000)
    executor = Eager(method)
    found = evaluate(executor, source(), 10, chunk=10)
    expected = evaluate(Eager(plenty), source(), 10, chunk=10)
    assert (found.accuracy == expected.accuracy).all()
    assert executor.task_chunk == 3


def test_other_errors_are_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("out of luck"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))
