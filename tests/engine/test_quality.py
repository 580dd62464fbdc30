"""Precision, recall and distance of drawn images: by hand, and in the cases that are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import fewshot_bench
from fewshot_bench import Method, Task
from fewshot_bench.engine.pictures import held_out, inside, measure, nearest
from fewshot_bench.errors import PluginError, plugin_errors
from fewshot_bench.testing import tiny_episode


def on_a_line(*points: float) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float64).view(1, -1, 1)


def test_a_manifold_by_hand() -> None:
    # Third nearest of 0, 1, 2, 3, 10: at 3, 2, 2, 3 and 9, so the balls cover [-3, 6] and [1, 19].
    real = on_a_line(0, 1, 2, 3, 10)
    assert inside(on_a_line(-3, 6, 19), real).tolist() == [1.0]
    assert inside(on_a_line(-3.01, 19.01, 0, 5), real).tolist() == [0.5]


def test_a_manifold_of_two_points_has_the_one_neighbor() -> None:
    assert inside(on_a_line(-1, 2, 2.5, -1.5), on_a_line(0, 1)).tolist() == [0.5]


def test_the_distance_by_hand() -> None:
    assert nearest(on_a_line(4, 9, 0), on_a_line(0, 1, 10)).tolist() == [pytest.approx(4 / 3)]


def test_so_many_queries_of_each_class_are_held_out() -> None:
    episode = tiny_episode(way=3, shot=1, query=4, tasks=2)
    some, others = held_out(episode, 1)
    assert some.shape == (2, 3)
    assert others.shape == (2, 9)
    for task in range(2):
        assert episode.target[task, some[task]].tolist() == [0, 1, 2]
        together = torch.cat([some[task], others[task]])
        assert together.sort().values.tolist() == list(range(12))


class Draws(Method):
    """Its features are the pixels, unless told otherwise."""

    def __init__(self, given: torch.Tensor | None = None) -> None:
        super().__init__(Task(3, 2, 4))
        self.given = given

    def adapt(self, support):
        return support.images

    def features(self, state, images):
        return self.given


def judged(kind: str):
    episode = tiny_episode(way=3, shot=2, query=4, tasks=8)
    some, others = held_out(episode, 2)
    rows = torch.arange(8).unsqueeze(1)
    drawn = {
        "the held-out images": episode.query[rows, some],
        "the reference": episode.query[rows, others],
        "far away": episode.query[rows, some] + 100,
    }[kind]
    quality = measure(Draws(), episode, drawn.unflatten(1, (3, 2)))
    assert quality is not None
    return quality


def test_a_perfect_generator_is_as_good_as_the_real_images() -> None:
    quality = judged("the held-out images")
    assert torch.equal(quality.precision, quality.real_precision)
    assert torch.equal(quality.recall, quality.real_recall)
    assert torch.allclose(quality.distance, torch.ones(8, dtype=quality.distance.dtype))


def test_a_copy_is_at_no_distance_and_the_moon_is_off_the_manifold() -> None:
    assert float(judged("the reference").distance.max()) < 1e-3
    far = judged("far away")
    assert float(far.precision.max()) == float(far.recall.max()) == 0
    assert float(far.distance.min()) > 3


def test_too_few_queries_are_not_judged() -> None:
    episode = tiny_episode(way=3, shot=1, query=1, tasks=1)
    assert measure(Draws(), episode, episode.support.images) is None


def test_features_of_another_shape_are_told() -> None:
    episode = tiny_episode(way=3, shot=2, query=4, tasks=2)
    with (
        pytest.raises(PluginError, match=r"Draws.features.*\[2, 12, d\], got \(2, 5\)"),
        plugin_errors("a title"),
    ):
        measure(Draws(torch.zeros(2, 5)), episode, episode.support.images)


def test_a_run_keeps_numbers_of_each_task(tmp_path: Path) -> None:
    record = fewshot_bench.run(
        "metagan", dataset="glyphs", way=3, shot=2, query=4, steps=2, task_batch=2, pictures=True,
        validation_episodes=2, episodes=2, backbone_channels=4, validate_every=0,
        train_classes=8, validation_classes=6, test_classes=6,
        runs_dir=str(tmp_path / "runs"), cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    path = tmp_path / "runs" / record["id"] / "pictures" / "quality.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["name"]) for line in lines] == [
        (0, "generated images"),
        (2, "generated images"),
    ]
    for line in lines:
        assert len(line["precision"]) == len(line["real_recall"]) == 24
        assert all(0 <= share <= 1 for share in line["precision"] + line["real_precision"])
        assert all(distance > 0 for distance in line["distance"])
