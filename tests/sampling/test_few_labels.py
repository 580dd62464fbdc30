"""Few labels: the partitions of images and classes, and the tasks that are made of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task, UnlabeledEpisode
from fewshot_bench.errors import ConfigError
from fewshot_bench.sampling.base import ClosedSampler, EpisodeSource
from fewshot_bench.sampling.batches import BatchSource
from fewshot_bench.sampling.few_labels import (
    Labels,
    labeled_images,
    training_sources,
    without_labels,
)
from fewshot_bench.testing import tiny_episode


def table_of(
    counts: list[int], groups: list[int] | None = None, families: list[int] | None = None
) -> ClassTable:
    """A table whose pixels say which class (first) and which image (second) they are."""
    images = np.zeros((sum(counts), 1, 1, 2), np.uint8)
    images[:, 0, 0, 0] = np.repeat(np.arange(len(counts)), counts)
    images[:, 0, 0, 1] = np.concatenate([np.arange(c) for c in counts])
    more = [np.array(x) if x else np.empty(0, np.int64) for x in (groups, families)]
    names = tuple(f"class{i}" for i in range(len(counts)))
    return ClassTable(LabeledImages(images, np.array(counts), names, *more), "cpu", (0.0, 255.0))


def pixels(images: torch.Tensor) -> set[tuple[int, int]]:
    """(class, image) of every picture."""
    return {tuple(row) for row in images.reshape(-1, 2).long().tolist()}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Task, list[int], float, int]:
    task = Task(draw(st.integers(2, 4)), 1, draw(st.integers(1, 2)), draw(st.integers(0, 3)))
    counts = draw(st.lists(st.integers(12, 15), min_size=task.way, max_size=8))
    fraction = draw(st.sampled_from([0.25, 0.5, 0.7]))
    return task, counts, fraction, draw(st.integers(0, 2**40))


@given(cases())
@settings(max_examples=40, deadline=None)
def test_labeled_and_unlabeled_images_are_never_exchanged(
    case: tuple[Task, list[int], float, int],
) -> None:
    task, counts, fraction, seed = case
    table, labels = table_of(counts), Labels(fraction, seed=3)
    labeled, unlabeled = set(), set()
    for stream in (seed, seed + 1):  # the partition is that of every training seed
        source, _ = training_sources(table, task, stream, labels)
        episode = source.batch(range(30))
        labeled |= pixels(episode.support.images) | pixels(episode.query)
        if task.unlabeled:
            unlabeled |= pixels(episode.support.unlabeled)
            # unlabeled images are of the episode's classes, as many of each
            shown = episode.support.unlabeled[..., 0, 0, 0].sort(1).values
            classes = episode.class_ids.sort(1).values.repeat_interleave(task.unlabeled, 1)
            assert torch.equal(shown, classes.float())
    assert not labeled & unlabeled
    everything = pixels(table.gather(labeled_images(table, labels)))
    assert labeled <= everything
    assert not unlabeled & everything
    wanted = [int(fraction * n + 0.5) for n in counts]
    assert [sum(c == k for c, _ in everything) for k in range(len(counts))] == wanted


def test_ten_per_cent_of_twenty_images_are_two_and_the_seed_decides_which() -> None:
    table = table_of([20] * 30)
    first, again, other = (labeled_images(table, Labels(0.1, seed=s)) for s in (0, 0, 1))
    assert len(first) == 60
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Whatever the class, each of its images is as likely to be labeled.
    positions = torch.stack(
        [labeled_images(table, Labels(0.1, seed=s)) % 20 for s in range(30)]
    ).flatten()
    assert positions.bincount(minlength=20).min() > 50  # 90 expected


def test_rotations_of_a_character_share_their_labels() -> None:
    table = table_of([6] * 8, groups=[0, 0, 0, 0, 1, 1, 1, 1])
    chosen = pixels(table.gather(labeled_images(table, Labels(0.5, 0.5))))
    classes = {c for c, _ in chosen}
    assert classes in ({0, 1, 2, 3}, {4, 5, 6, 7})
    drawings = [{image for c, image in chosen if c == k} for k in classes]
    assert all(of == drawings[0] for of in drawings)
    assert len(drawings[0]) == 3


@pytest.mark.parametrize("families", [None, [0] * 4 + [1] * 6])
def test_labeled_and_unlabeled_tasks_have_other_classes(families: list[int] | None) -> None:
    table, task = table_of([5] * 10, families=families), Task(2, 1, 2)
    labeled, unlabeled = training_sources(table, task, 7, Labels(classes=0.4))
    assert unlabeled is not None
    of_labeled = {c for c, _ in pixels(labeled.batch(range(40)).query)}
    batch = unlabeled.batch(range(40))
    of_unlabeled = {c for c, _ in pixels(batch.query)}
    assert len(of_labeled) == 4
    assert of_labeled | of_unlabeled == set(range(10))
    assert not of_labeled & of_unlabeled
    assert isinstance(batch, UnlabeledEpisode)
    assert batch.support.images.shape == (40, 2, 1, 1, 2)
    # class ids count within the labeled part; its names go with them
    names = labeled.table.class_names
    episode = labeled.batch(range(5))
    shown = episode.support.images[..., 0, 0, 0].long()[..., 0]
    assert [[names[i] for i in row] for row in episode.class_ids.tolist()] == [
        [f"class{i}" for i in row] for row in shown.tolist()
    ]


def test_a_part_of_the_classes_within_one_family() -> None:
    table = table_of([5] * 12, families=[0] * 4 + [1] * 8)
    labels = Labels(classes=0.5)
    source, _ = training_sources(table, Task(2, 1, 2), 7, labels, within_family=True)
    for row in source.batch(range(20)).support.images[..., 0, 0, 0].long().flatten(1).tolist():
        assert len({int(c >= 4) for c in row}) == 1


def test_with_all_labels_episodes_are_what_they_were() -> None:
    table, task = table_of([8] * 6), Task(3, 2, 2, 1, 1)
    source, unlabeled = training_sources(table, task, 5, Labels())
    assert unlabeled is None
    plain = EpisodeSource(ClosedSampler(table, task, 5))
    assert torch.equal(source.indices(range(9)).rows(), plain.indices(range(9)).rows())


def test_images_of_a_class_do_not_depend_on_which_classes_are_labeled() -> None:
    table = table_of([8] * 10)
    everywhere = pixels(table.gather(labeled_images(table, Labels(0.5))))
    source, _ = training_sources(table, Task(2, 1, 2), 5, Labels(0.5, 0.5))
    assert pixels(source.batch(range(60)).query) <= everywhere


def test_without_labels_keeps_the_images_and_hides_the_rest() -> None:
    episode = tiny_episode(way=3, shot=2, tasks=8, unlabeled=1)
    bare = without_labels(episode)
    assert isinstance(bare, UnlabeledEpisode)
    before = torch.cat([episode.support.labeled()[0], episode.support.unlabeled], 1).flatten(2)
    after = bare.support.images.flatten(2)
    assert after.shape == before.shape
    same = (before.unsqueeze(2) == after.unsqueeze(1)).all(-1)
    assert (same.sum(1) == 1).all()
    assert not torch.equal(before, after)
    assert torch.equal(bare.query, episode.query)


def test_mini_batches_are_of_labeled_images() -> None:
    table, labels = table_of([4] * 5), Labels(0.5, 0.4)
    chosen = labeled_images(table, labels)
    episode = BatchSource(table, 50, 1, labeled=chosen).batch(range(4))
    assert pixels(episode.query) == pixels(table.gather(chosen))
    assert torch.equal(episode.query[..., 0, 0, 0].long(), episode.target)


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        ((0.0, 1.0), Task(2, 1, 1), "--labeled-fraction: expected .* got 0"),
        ((1.0, 1.5), Task(2, 1, 1), "--labeled-classes: expected .* got 1.5"),
        ((0.1, 1.0), Task(2, 1, 2), "leaves 2 labeled images of class 'class0', but .* takes 3"),
        (
            (0.9, 1.0),
            Task(2, 1, 1, 3),
            "leaves 2 unlabeled images .* takes 3 .*--train-unlabeled",
        ),
        ((1.0, 0.1), Task(2, 1, 1), "the labeled part of the train split has 1 that can be in one"),
        ((1.0, 0.9), Task(2, 1, 1), "leaves 1 training classes without labels .* takes 2; lower"),
    ],
)
def test_impossible_settings_are_one_clear_line(
    labels: tuple[float, float], task: Task, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        training_sources(table_of([20] * 10), task, 0, Labels(*labels))
    assert "\n" not in str(caught.value)
