"""Nearest centroid on pixels: by hand, and nothing to train."""

from __future__ import annotations

import torch
from fsb_nearest_centroid.nearest_centroid import NearestCentroid

from fewshot_bench.engine.training import check_players
from fewshot_bench.episode import Support
from fewshot_bench.testing import TINY, tiny_episode


def test_logits_by_hand() -> None:
    method = NearestCentroid(TINY)
    images = torch.tensor([[0.0, 2.0], [3.0, 5.0]]).view(1, 2, 2, 1, 1, 1)
    state = method.adapt(Support(images, None, torch.zeros(1, dtype=torch.int64)))
    assert state.tolist() == [[[1.0], [4.0]]]
    query = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1, 1)
    torch.testing.assert_close(
        method.predict(state, query), torch.tensor([[[0.0, -9.0], [-1.0, -4.0]]])
    )


def test_there_is_nothing_to_train_and_no_backbone() -> None:
    method = NearestCentroid(TINY)
    assert not method.wants_backbone
    assert not method.transductive
    assert check_players(method) == {}


def test_it_tells_easy_classes_apart() -> None:
    method, episode = NearestCentroid(TINY), tiny_episode(shot=20, query=20, tasks=4)
    logs = method.losses(episode).log
    assert logs["accuracy"].min() > 0.9
