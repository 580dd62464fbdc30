"""Evaluations whose chunks are replays of a graph: the numbers of the direct way, never stale ones.

The graph is a stand-in that runs on a CPU (replaying.py).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fsb_maml.maml import MAML
from fsb_metagan.metagan import MetaGAN
from fsb_metagan.settings import Encoder, Generator
from fsb_protonet.protonet import ProtoNet
from fsb_relationnet.relationnet import RelationNet
from torch.utils._pytree import tree_leaves

from fewshot_bench.engine import evaluation
from fewshot_bench.engine.evaluation import Scores, draw_chunks, evaluate
from fewshot_bench.engine.executors import CudaGraphs, Eager, Executor
from fewshot_bench.engine.executors.base import Call, Prediction
from fewshot_bench.engine.executors.conditions import conditions
from fewshot_bench.engine.memory import within_memory
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method
from fewshot_bench.testing import TinyBackbone
from tests.engine.replaying import Graph, Outside, stand_in_for_graphs
from tests.engine.toys import TASK, Prototypes, TwoPlayers, logged, source

CPU = torch.device("cpu")
METRICS = {"size": lambda logits, target: logits.abs().sum((1, 2))}  # shows any change of logits


def backbone(statistics: Any = "batch") -> TinyBackbone:
    return TinyBackbone((1, 6, 6), statistics=statistics)


def maml(**options: Any) -> MAML:
    return MAML(TASK, backbone(), **{"inner_steps": 2, "inner_lr": 0.5} | options)


KINDS: dict[str, Callable[[], Method]] = {
    "maml": maml,
    "maml with running statistics": lambda: MAML(TASK, backbone("running"), inner_steps=2),
    "protonet": lambda: ProtoNet(TASK, backbone()),
    "relationnet": lambda: RelationNet(TASK, backbone()),
    "metagan": lambda: MetaGAN(
        TASK, base=maml(), generator=Generator("small", z_dim=4), encoder=Encoder("small")
    ),
    "prototypes": Prototypes,
    "two players": TwoPlayers,
}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> type[Graph]:
    return stand_in_for_graphs(monkeypatch)


def made(kind: Callable[[], Method]) -> Method:
    torch.manual_seed(0)
    return kind()


def scores(executor: Executor, episodes: Any = None, count: int = 30, chunk: int = 8) -> Scores:
    return evaluate(executor, episodes or source(seed=2), count, chunk=chunk, metrics=METRICS)


def same(found: Scores, expected: Scores) -> None:
    assert np.array_equal(found.accuracy, expected.accuracy)
    assert np.array_equal(found.class_ids, expected.class_ids)
    assert np.array_equal(found.confusion, expected.confusion)
    assert np.allclose(found.metrics["size"], expected.metrics["size"], rtol=1e-5)
    assert len(found.adapt_ms) == len(found.predict_ms) == len(expected.accuracy)
    assert (found.adapt_ms > 0).all()
    assert (found.predict_ms > 0).all()


@pytest.mark.parametrize("strategy", ["auto", "im2col"])
@pytest.mark.parametrize("kind", KINDS)
def test_replays_give_the_numbers_of_the_direct_way(
    kind: str, strategy: Any, graphs: type[Graph]
) -> None:
    method = made(KINDS[kind])
    direct = scores(Eager(method, strategy=strategy))
    assert not graphs.captures
    same(scores(CudaGraphs(method, strategy=strategy)), direct)
    # The first of four chunks is direct, and the last one of six tasks is filled up.
    assert (graphs.captures, graphs.replays) == (1, 3)


@pytest.mark.parametrize(
    ("count", "chunk", "replays"), [(24, 8, 2), (25, 8, 3), (8, 8, 0), (5, 8, 0), (3, 1, 2)]
)
def test_chunks_of_any_size(count: int, chunk: int, replays: int, graphs: type[Graph]) -> None:
    method = made(maml)
    found = scores(CudaGraphs(method), count=count, chunk=chunk)
    same(found, scores(Eager(method), count=count, chunk=chunk))
    assert graphs.replays == replays


def test_parts_of_a_chunk_that_is_short_of_memory(graphs: type[Graph]) -> None:
    method = made(maml)
    same(scores(CudaGraphs(method, task_chunk=3)), scores(Eager(method)))
    assert graphs.replays == 3


@pytest.mark.parametrize("count", [8, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_the_next_evaluation_replays_with_the_weights_of_its_time(
    kind: str, count: int, graphs: type[Graph]
) -> None:
    """Trained in place, and loaded in place: the addresses stay."""
    method, episodes = made(KINDS[kind]), source(seed=2)
    executor = CudaGraphs(method)
    before = scores(executor, episodes, count)
    first = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    scores(executor, episodes, count)
    captures, replays = graphs.captures, graphs.replays
    after = scores(executor, episodes, count)
    assert not np.allclose(before.metrics["size"], after.metrics["size"])
    same(after, scores(Eager(method), count=count))
    method.load_state_dict(first)
    same(scores(executor, episodes, count), before)
    # From the second evaluation on its first chunk is replayed, too.
    assert captures == graphs.captures == 1
    assert graphs.replays == replays + 2 * math.ceil(count / 8)


def test_a_training_is_validated_as_it_is_directly(graphs: type[Graph]) -> None:
    def validations(graph: bool) -> dict[int, float]:
        method, episodes = made(lambda: Prototypes(ema=0.8)), source(seed=2)
        executor = CudaGraphs(method) if graph else Eager(method)

        def validate(step: int) -> float:
            return float(scores(executor, episodes, count=20).metrics["size"].mean())

        plan = Plan(steps=6, task_batch=2, validate_every=2)
        return dict(Trainer(method, Eager(method), source(), plan, validate).run().validation)

    assert validations(True) == pytest.approx(validations(False))
    assert (graphs.captures, graphs.replays) == (1, 2 + 3 + 3)


FORMER: list[torch.Tensor] = []


def moved(method: Any) -> None:
    """As ``method.to(...)`` does it; the old memory is held, so that it could be read again."""
    FORMER[:] = [parameter.data for parameter in method.parameters()]
    for parameter in method.parameters():
        parameter.data = 1.5 * parameter.data


def another_layer(method: Any) -> None:
    torch.manual_seed(1)
    method.net.head = torch.nn.Linear(method.net.head.in_features, TASK.way)


def frozen_statistics(method: Any) -> None:
    for layer in method.modules():
        if hasattr(layer, "running_mean"):
            layer.running_mean = layer.running_mean + 0.5


CHANGES: dict[str, Callable[[Any], None]] = {
    "storage": moved,
    "a module": another_layer,
    "a buffer": frozen_statistics,
    "a number": lambda method: setattr(method, "inner_lr", 0.1),
    "steps": lambda method: setattr(method, "test_steps", 5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_captured_anew(change: str, graphs: type[Graph]) -> None:
    method = made(lambda: MAML(TASK, backbone("running"), inner_steps=2, inner_lr=0.5))
    episodes, executor = source(seed=2), CudaGraphs(method)
    before = scores(executor, episodes)
    CHANGES[change](method)
    gc.collect()
    after = scores(executor, episodes)
    assert not np.allclose(after.metrics["size"], before.metrics["size"])
    same(after, scores(Eager(method)))
    assert graphs.captures == 2


def test_settings_of_the_executor_count(graphs: type[Graph]) -> None:
    method, episodes = made(maml), source(seed=2)
    executor = CudaGraphs(method)
    settings: dict[str, Any] = {}
    for name, value in (
        ("task_chunk", None), ("task_chunk", 3), ("strategy", "im2col"),
        ("precision", "bf16"),
    ):  # fmt: skip
        settings[name] = value
        setattr(executor, name, value)
        captures = graphs.captures
        same(scores(executor, episodes, 16), scores(Eager(method, **settings), count=16))
        assert graphs.captures == captures + 1


def test_extra_state_counts_by_value(graphs: type[Graph]) -> None:
    class Tracker:
        value = 1.0

    class Scaled(TwoPlayers):
        """Its scale is in an object that no comparison of attributes looks into."""

        def __init__(self) -> None:
            super().__init__()
            self.tracker = Tracker()

        def get_extra_state(self) -> Any:
            return {"scale": torch.tensor(self.tracker.value)}

        def set_extra_state(self, state: Any) -> None:
            self.tracker.value = float(state["scale"])

        def predict(self, state: Any, query: Any) -> Any:
            return self.tracker.value * super().predict(state, query)

    method, episodes = made(Scaled), source(seed=2)
    executor = CudaGraphs(method)
    before = scores(executor, episodes)
    method.load_state_dict(method.state_dict() | {"_extra_state": {"scale": torch.tensor(2.0)}})
    after = scores(executor, episodes)
    assert np.allclose(after.metrics["size"], 2 * before.metrics["size"])
    assert graphs.captures == 2


def test_a_tensor_that_was_read_by_the_host_counts_by_its_changes() -> None:
    method, cpu, gpu = made(TwoPlayers), CPU, torch.device("meta")
    here, there = conditions(method, cpu), conditions(method, gpu)
    with torch.no_grad():
        method.critic.weight.add_(1)
    assert conditions(method, cpu) == here  # a replay reads it again
    assert conditions(method, gpu) != there


def test_a_mode_counts() -> None:
    method = made(maml)
    before = conditions(method, CPU)
    method.net.train(False)
    assert conditions(method, CPU) != before
    method.net.train(True)
    assert conditions(method, CPU) == before


def test_a_change_between_two_chunks_is_seen(graphs: type[Graph]) -> None:
    def changed(executor: Executor) -> Scores:
        def tick(done: int, accuracy: float) -> None:
            if done == 16:
                moved(executor.method)

        return evaluate(executor, source(seed=2), 40, chunk=8, metrics=METRICS, tick=tick)

    same(changed(CudaGraphs(made(maml))), changed(Eager(made(maml))))
    assert graphs.captures == 2


def test_other_episodes_and_sizes_have_a_graph_of_their_own(graphs: type[Graph]) -> None:
    method, one, other = made(maml), source(seed=2), source(seed=3, noise=60)
    executor = CudaGraphs(method)
    for episodes, chunk in ((one, 8), (other, 8), (one, 8), (one, 7)):
        same(scores(executor, episodes, chunk=chunk), scores(Eager(method), episodes, chunk=chunk))
    assert graphs.captures == 4
    one.table = other.table  # of the same source, other images
    same(scores(executor, one, chunk=7), scores(Eager(method), one, chunk=7))
    assert graphs.captures == 5


def test_what_a_chunk_reads_is_held(graphs: type[Graph]) -> None:
    """A replay of the stand-in fails at memory that was freed."""
    executor = CudaGraphs(made(maml))
    episodes = source(seed=2)
    scores(executor, episodes, count=16)
    gc.collect()
    junk = [torch.full((n,), -(2**40)) for n in range(1, 200)]  # in the place of what was freed
    scores(executor, episodes, count=16)
    assert graphs.replays == 1 + 2
    assert junk
    graph = executor.chunk
    read = {call.storage for call in outside(graph._graph)}
    assert not any(storage.expired() for storage in read)
    del episodes
    gc.collect()
    assert not any(storage.expired() for storage in read)


def outside(graph: Any) -> list[Outside]:
    """What a graph of the stand-in has read and not made."""
    leaves = [leaf for call in graph.capture.calls for leaf in tree_leaves(call[1:3])]
    found = [leaf for leaf in leaves if isinstance(leaf, Outside)]
    assert found
    return found


def test_only_a_whole_chunk_warms_up(graphs: type[Graph]) -> None:
    """Kernels of a capture have run before with its shapes."""

    class Together(Prototypes):
        batchable = False

    executor, episodes = CudaGraphs(made(Together)), source(seed=2)

    def tick(done: int, accuracy: float) -> None:
        if done == 16:  # before the smaller last chunk
            moved(executor.method)

    evaluate(executor, episodes, 20, chunk=8, tick=tick)
    evaluate(executor, episodes, 8, chunk=8)
    assert (graphs.captures, graphs.replays) == (1, 1)


def test_tasks_that_belong_together_are_never_filled_up(graphs: type[Graph]) -> None:
    class Together(Prototypes):
        """Each answer depends on all tasks of a call."""

        batchable = False

        def predict(self, state: Any, query: Any) -> Any:
            logits = super().predict(state, query)
            return logits + 10 * query.mean() * logits.detach().mean(0, keepdim=True)

    method = made(Together)
    same(scores(CudaGraphs(method)), scores(Eager(method)))
    assert graphs.replays == 2  # of four chunks the first and the last are direct


class Waits(TwoPlayers):
    def predict(self, state: Any, query: Any) -> Any:
        logits = super().predict(state, query)
        return logits + float(logits.amax().item() > 1e9)


class Counts(TwoPlayers):
    calls = 0

    def adapt(self, support: Any) -> Any:
        self.calls += 1
        return super().adapt(support) * (1 + self.calls // 10**6)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Waits, "Waits.predict() raised RuntimeError: operation not permitted when stream is"),
        (Counts, "each call of the method changes 'calls' of Counts"),
    ],
)
def test_what_cannot_be_captured_is_run_directly(kind: Any, why: str, graphs: type[Graph]) -> None:
    executor = CudaGraphs(made(kind))
    episodes = source(seed=2)
    with logged() as lines:
        for _ in range(2):
            same(scores(executor, episodes), scores(Eager(made(kind))))
    [line] = lines  # and it is not tried again
    assert line.startswith("evaluation: eager, because no CUDA graph could be captured: ")
    assert why in line
    assert (graphs.captures, graphs.replays) == (1, 0)


def test_a_capture_of_which_nothing_comes_leaves_no_trace(graphs: type[Graph]) -> None:
    """It runs the method's lines once: what they set would be there, of a chunk that never ran."""

    class CountsVisibly(TwoPlayers):
        def __init__(self) -> None:
            super().__init__()
            self.calls = {"count": torch.zeros(())}

        def adapt(self, support: Any) -> Any:
            self.calls["count"] = self.calls["count"] + 1
            return super().adapt(support) * (1 + self.calls["count"])

    found = scores(CudaGraphs(made(CountsVisibly)))
    same(found, scores(Eager(made(CountsVisibly))))
    assert (graphs.captures, graphs.replays) == (1, 0)


def test_a_capture_without_memory_leaves_smaller_chunks(
    graphs: type[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory in the capture, and in the direct chunk after it."""

    class Short(TwoPlayers):
        def adapt(self, support: Any) -> Any:
            if len(support.key) > most[0]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return super().adapt(support)

    def tick(done: int, accuracy: float) -> None:
        most[0] = 3  # from the second chunk on

    most = [8]
    executor = CudaGraphs(made(Short))
    with logged() as lines:
        found = evaluate(executor, source(seed=2), 30, chunk=8, metrics=METRICS, tick=tick)
    same(found, scores(Eager(made(TwoPlayers))))
    assert executor.task_chunk == 2
    assert lines[0] == (
        "evaluation: eager, because no CUDA graph could be captured: CUDA out of memory. Tried to "
        "allocate 2.00 GiB."
    )
    assert all("out of memory with" in line for line in lines[1:])
    assert executor.chunk.release() is False


def test_chunks_that_became_smaller_are_captured_so(graphs: type[Graph]) -> None:
    class Short(TwoPlayers):
        def adapt(self, support: Any) -> Any:
            if len(support.key) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().adapt(support)

    executor = CudaGraphs(made(Short))
    same(scores(executor), scores(Eager(made(TwoPlayers))))
    assert executor.task_chunk == 2
    assert (graphs.captures, graphs.replays) == (1, 3)


def test_memory_of_an_evaluation_is_given_up_before_a_step_is_parted(graphs: type[Graph]) -> None:
    executor = CudaGraphs(made(TwoPlayers))
    episodes = source(seed=2)
    expected = scores(executor, episodes)

    def step(part: Any) -> int:
        if executor.chunk._graph is not None or len(part) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return len(part)

    assert within_memory(executor, episodes.batch(range(4)), step) == 4
    assert executor.task_chunk is None
    same(scores(executor, episodes), expected)
    assert graphs.captures == 2


def test_a_fault_of_the_method_is_one_at_every_evaluation(graphs: type[Graph]) -> None:
    """What the first chunk did not pass is never captured."""

    class Draws(TwoPlayers):
        def adapt(self, support: Any) -> Any:
            return super().adapt(support) + torch.rand(())

    executor, episodes = CudaGraphs(made(Draws)), source(seed=2)
    for _ in range(2):
        with pytest.raises(PluginError, match="draws random numbers at test"):
            scores(executor, episodes)
    assert not graphs.captures


def test_where_images_are_embedded_once_nothing_is_captured(graphs: type[Graph]) -> None:
    method = made(lambda: ProtoNet(TASK, backbone("running")))
    found, expected = scores(CudaGraphs(method)), scores(Eager(method))
    assert np.array_equal(found.accuracy, expected.accuracy)
    assert np.isnan(found.adapt_ms[8:]).all()
    assert not graphs.captures


def test_times_of_a_replay_are_read_before_the_next(graphs: type[Graph]) -> None:
    executor, episodes = CudaGraphs(made(TwoPlayers).eval()), source(seed=2)
    chunk = executor.chunk_graph(episodes, 4)
    assert chunk is not None
    chunk.ran_directly(executor, 4)
    one, two = (chunk.predict(executor, episodes.indices(range(4 * i, 4 * i + 4))) for i in (0, 1))
    assert one is not None
    assert two is not None
    assert one.adapt_ms.isnan().all()
    assert (two.adapt_ms > 0).all()
    assert not torch.equal(one.logits, two.logits)  # those are copies


def test_times_are_shared_out_by_the_tasks_that_ran() -> None:
    calls = [Call(2, 2, lambda: (2.0, 4.0)), Call(4, 4, lambda: (8.0, 12.0))]
    prediction = Prediction(torch.zeros(6, 1, 1), calls).first(3)
    assert prediction.adapt_ms.tolist() == [1, 1, 2]
    assert prediction.predict_ms.tolist() == [2, 2, 3]
    assert len(prediction.logits) == 3


def test_an_evaluation_has_a_stream_of_its_own_where_it_may_be_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.Stream", lambda device: object())
    cuda, executor = torch.device("cuda"), CudaGraphs(made(maml))
    assert executor.stream(CPU) is None
    assert executor.stream(cuda) is executor.stream(cuda) is not None


def test_indices_are_drawn_for_many_chunks_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "AHEAD", 20)
    episodes, asked = source(seed=2), list[range]()

    def indices(ids: range) -> Any:
        asked.append(ids)
        return episodes.indices(ids)

    for device, expected in (
        ("cuda", [range(16), range(16, 32), range(32, 35)]),
        ("cpu", [range(a, min(a + 8, 35)) for a in range(0, 35, 8)]),
    ):
        asked.clear()
        table = SimpleNamespace(device=torch.device(device))
        found = list(draw_chunks(SimpleNamespace(table=table, indices=indices), range(35), 8))  # type: ignore[arg-type]
        assert asked == expected
        assert [len(part.key) for part in found] == [8, 8, 8, 8, 3]
        rows = torch.cat([part.rows() for part in found])
        assert torch.equal(rows, episodes.indices(range(35)).rows())
