"""Evaluation: the same numbers however it is cut up, and honest times."""

import numpy as np
import pytest
import torch

from fewshot_bench.engine.evaluation import confusion, evaluate
from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.timing import PHASES, StepTimer
from fewshot_bench.engine.weights import load_weights, read_weights, save_weights
from fewshot_bench.errors import ConfigError, PluginError, RecordError
from tests.engine.toys import TASK, Prototypes, source, two_threads


def method():
    torch.manual_seed(0)
    return Prototypes()


def test_chunks_and_threads_change_no_score() -> None:
    whole = evaluate(Eager(method()), source(seed=2), 30, chunk=30)
    for executor, chunk in ((Eager, 1), (Eager, 7), (two_threads, 8)):
        runs = executor(method())
        with runs.running():
            parts = evaluate(runs, source(seed=2), 30, chunk=chunk)
        assert np.array_equal(whole.accuracy, parts.accuracy)
        assert np.array_equal(whole.class_ids, parts.class_ids)
        assert np.array_equal(whole.confusion, parts.confusion)
        assert parts.adapt_ms.shape == parts.predict_ms.shape == (30,)
        assert (parts.adapt_ms > 0).all()


def test_confusion_agrees_with_accuracy() -> None:
    scores = evaluate(Eager(method()), source(seed=2), 20, chunk=6)
    assert (scores.confusion.sum((1, 2)) == TASK.way * TASK.query).all()
    assert (scores.confusion.sum(2) == TASK.query).all()
    diagonal = np.trace(scores.confusion, axis1=1, axis2=2) / (TASK.way * TASK.query)
    assert np.allclose(diagonal, scores.accuracy)


def test_confusion_by_hand() -> None:
    logits = torch.tensor([[[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]]])
    assert confusion(logits, torch.tensor([[0, 1, 1]])).tolist() == [[[1, 0], [1, 1]]]


def test_metrics_and_mode() -> None:
    model = method().train()
    scores = evaluate(
        Eager(model),
        source(),
        5,
        chunk=2,
        metrics={"top": lambda logits, target: logits.amax((1, 2))},
    )
    assert scores.metrics["top"].shape == (5,)
    assert model.training


def test_wrong_logits_are_told() -> None:
    class Short(Prototypes):
        def predict(self, state, query):
            return super().predict(state, query)[..., :2]

    with pytest.raises(PluginError, match=r"\[T, Q, way\] of shape \(4, 9, 3\)"):
        evaluate(Eager(Short()), source(), 4, chunk=4)


def test_timer_keeps_warmup_and_turns_apart() -> None:
    timer = StepTimer(torch.device("cpu"), warmup=1, turns=2)
    for row in [[5.0, 5.0, 5.0]] * 2 + [[1.0, 2.0, 3.0]] * 4 + [[9.0, 9.0, 9.0]]:
        timer.add(sum(row), row)
    summary = timer.summary(tasks_per_step=6)
    assert timer.columns()["step_ms"].tolist() == [30.0, 12.0, 12.0]
    assert summary["step_ms"] == {"median": 12.0, "p95": 12.0}
    assert summary["phases"] == dict(zip(PHASES, (2.0, 4.0, 6.0), strict=True))
    assert summary["tasks_per_s"] == pytest.approx(500.0)
    assert StepTimer(torch.device("cpu")).summary(1)["step_ms"] is None


def test_weights_go_round_and_bad_ones_are_told(tmp_path) -> None:
    one, two = method(), Prototypes()
    save_weights(one, tmp_path)
    load_weights(two, tmp_path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )
    with pytest.raises(ConfigError, match=r"'embed.1.bias' differs"):
        load_weights(torch.nn.ModuleDict({"embed": torch.nn.Linear(2, 2)}), tmp_path)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(RecordError, match="damaged"):
        read_weights(tmp_path)
    with pytest.raises(RecordError, match="has no weights"):
        read_weights(tmp_path / "nowhere")
