"""Embedding every image once: the same scores, told when a method's declaration is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fsb_protonet.protonet import ProtoNet

from fewshot_bench.engine.evaluation import embedding_pays, evaluate
from fewshot_bench.engine.executors import Eager, TaskThreads
from fewshot_bench.errors import PluginError
from fewshot_bench.testing import TinyBackbone
from tests.engine.toys import TASK, source


class Counted(ProtoNet):
    """Counts the images that pass its network."""

    images = 0

    def embed(self, images):
        type(self).images += images.shape[0] * images.shape[1]
        return super().embed(images)


def protonet(kind=Counted, statistics="running"):
    torch.manual_seed(0)
    kind.images = 0
    return kind(TASK, TinyBackbone((1, 6, 6), statistics=statistics))


@pytest.mark.parametrize("executor", [Eager, lambda m: TaskThreads(m, 2)])
def test_same_scores_and_each_image_once(executor) -> None:
    class Plain(ProtoNet):
        embeds = False

    want = evaluate(Eager(protonet(Plain)), source(), 60, chunk=8)
    runs = executor(protonet())
    with runs.running():
        got = evaluate(runs, source(), 60, chunk=8)
    assert np.array_equal(got.accuracy, want.accuracy)
    assert np.array_equal(got.confusion, want.confusion)
    # 8 episodes of 3 x (2 + 3) images the direct way, then 8 classes of 10 images
    assert Counted.images == 8 * 15 + 80


def test_times_are_those_of_whole_tasks() -> None:
    scores = evaluate(Eager(protonet()), source(), 60, chunk=8)
    assert np.isfinite(scores.adapt_ms).tolist() == [True] * 8 + [False] * 52
    assert np.isfinite(scores.predict_ms).sum() == 8


def test_only_where_it_is_right_and_pays() -> None:
    assert embedding_pays(Eager(protonet()), source(), 60)
    assert not embedding_pays(
        Eager(protonet()), source(), 5
    )  # 75 images; embedding all would be 80
    assert not embedding_pays(Eager(protonet(statistics="batch")), source(), 60)

    class Silent(ProtoNet):
        embeds = False

    assert not embedding_pays(Eager(protonet(Silent)), source(), 60)


def test_a_method_that_sees_more_than_it_says_is_told() -> None:
    class Peeks(ProtoNet):
        def predict(self, state, query):
            return super().predict(state, query) + query.flatten(2).mean(-1, keepdim=True)

    with pytest.raises(PluginError, match="Peeks declares embeds = True, but its predictions"):
        evaluate(Eager(protonet(Peeks)), source(), 60, chunk=8)
