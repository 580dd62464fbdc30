"""The sampler under hypothesis: right parts, right classes, no information where none belongs."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_bench.data.images import LabeledImages
from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.sampling.base import (
    ClosedSampler,
    EpisodeSource,
    Indices,
    Sampler,
    check_indices,
)
from fewshot_bench.sampling.inspection import draw_episodes
from fewshot_bench.sampling.open import InOrderSampler, OpenSampler
from tests.ratios import ratio


def table_of(
    counts: list[int],
    groups: list[int] | None = None,
    families: list[int] | None = None,
    order: list[int] | None = None,
):
    """A table whose pixels say which class (first pixel) and which image (second) they are."""
    total = sum(counts)
    images = np.zeros((total, 1, 1, 2), np.uint8)
    images[:, 0, 0, 0] = np.repeat(np.arange(len(counts)), counts)
    images[:, 0, 0, 1] = np.concatenate([np.arange(c) for c in counts])
    names = tuple(f"class{i}" for i in range(len(counts)))
    empty = np.empty(0, np.int64)
    return ClassTable(
        LabeledImages(
            images,
            np.array(counts),
            names,
            empty if groups is None else np.array(groups),
            empty if families is None else np.array(families),
            order=empty if order is None else np.array(order),
        ),
        pixel_range=(0.0, 255.0),
    )


@st.composite
def cases(draw):
    way = draw(st.integers(2, 5))
    shot, query = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    unlabeled = draw(st.integers(0, 2))
    distractors = draw(st.integers(0, 2)) if unlabeled else 0
    least = shot + query + unlabeled
    extra = draw(st.lists(st.integers(0, 5), min_size=way + distractors, max_size=12))
    task = Task(way, shot, query, unlabeled, distractors)
    return task, [least + e for e in extra], draw(st.integers(0, 2**40))


@given(cases())
@settings(max_examples=60, deadline=None)
def test_parts_are_disjoint_and_of_their_class(case) -> None:
    task, counts, seed = case
    table = table_of(counts)
    source = EpisodeSource(ClosedSampler(table, task, seed))
    ids = range(8)
    indices, episode = source.indices(ids), source.batch(ids)
    assert (indices.images().sort(1).values.diff(dim=1) > 0).all()
    assert (indices.class_ids.sort(1).values.diff(dim=1) > 0).all()
    shown = episode.support.images[..., 0, 0, 0]
    assert torch.equal(shown, episode.class_ids.unsqueeze(-1).expand_as(shown).float())
    query_class = episode.class_ids.gather(1, episode.target)
    assert torch.equal(episode.query[..., 0, 0, 0], query_class.float())
    if task.unlabeled:
        classes = episode.support.unlabeled[..., 0, 0, 0].long()
        for t in range(8):
            seen = set(classes[t].tolist())
            assert set(episode.class_ids[t].tolist()) <= seen
            assert len(seen) == task.way + task.distractors


@given(cases(), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_batch_size_and_split_between_processes_change_nothing(case, chunk) -> None:
    task, counts, seed = case
    source = EpisodeSource(ClosedSampler(table_of(counts), task, seed))
    whole = source.indices(range(12)).rows()
    parts = [source.indices(range(i, min(i + chunk, 12))).rows() for i in range(0, 12, chunk)]
    assert torch.equal(whole, torch.cat(parts))
    strided = torch.empty_like(whole)
    for rank in range(3):  # three processes, each with every third episode
        strided[rank::3] = source.indices(torch.arange(rank, 12, 3)).rows()
    assert torch.equal(whole, strided)


def test_classes_images_and_slots_are_uniform() -> None:
    table, task = table_of([6] * 10), Task(4, 2, 2)
    indices = ClosedSampler(table, task, 0)(torch.arange(6_000))
    assert scipy.stats.chisquare(torch.bincount(indices.class_ids.flatten())).pvalue > 1e-3
    for slot in range(4):
        counts = torch.bincount(indices.class_ids[:, slot], minlength=10)
        assert scipy.stats.chisquare(counts).pvalue > 1e-3
    for part in (indices.support, indices.query):
        counts = torch.bincount(part.flatten(), minlength=60)
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_order_of_queries_and_unlabeled_images_tells_nothing() -> None:
    table, task = table_of([8] * 6), Task(3, 1, 2, unlabeled=2, distractors=1)
    indices = ClosedSampler(table, task, 1)(torch.arange(9_000))
    by_position = [torch.bincount(indices.target[:, q], minlength=3) for q in range(6)]
    assert scipy.stats.chi2_contingency(torch.stack(by_position)).pvalue > 1e-3
    owner = torch.searchsorted(table.class_start, indices.unlabeled, right=True) - 1
    slot = (owner.unsqueeze(-1) == indices.class_ids.unsqueeze(1)).long()
    code = torch.where(slot.any(-1), slot.argmax(-1), torch.tensor(3))  # 3: the distractor
    by_position = [torch.bincount(code[:, u], minlength=4) for u in range(8)]
    assert scipy.stats.chi2_contingency(torch.stack(by_position)).pvalue > 1e-3


def test_twins_never_meet_and_are_all_used() -> None:
    groups = [g for g in range(6) for _ in range(4)]
    indices = ClosedSampler(table_of([5] * 24, groups), Task(5, 1, 2), 3)(torch.arange(2_000))
    drawn = (indices.class_ids // 4).sort(1).values
    assert (drawn.diff(dim=1) > 0).all()
    assert scipy.stats.chisquare(torch.bincount(indices.class_ids.flatten())).pvalue > 1e-3


def test_within_family() -> None:
    families = [0] * 3 + [1] * 2 + [2] * 5
    table = table_of([4] * 10, families=families)
    sampler = ClosedSampler(table, Task(3, 1, 2), 0, within_family=True)
    drawn = torch.tensor(families)[sampler(torch.arange(500)).class_ids]
    assert (drawn == drawn[:, :1]).all()
    assert set(drawn.unique().tolist()) == {0, 2}
    with pytest.raises(ConfigError, match="the largest has 5"):
        ClosedSampler(table, Task(6, 1, 2), 0, within_family=True)


@given(st.integers(0, 1000), st.integers(2, 4), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_open_plan_uses_no_image_twice_and_ends_when_it_must(seed, way, shot) -> None:
    table, task = table_of([7, 9, 12, 6, 8, 10]), Task(way, shot, 1)
    sampler = OpenSampler(table, task, seed)
    assert sampler.length is not None
    indices = EpisodeSource(sampler).indices(range(sampler.length))
    used = indices.images().flatten()
    assert len(used.unique()) == len(used)
    left = table.class_count - torch.bincount(
        torch.searchsorted(table.class_start, used, right=True) - 1, minlength=6
    )
    assert (left >= shot + 1).sum() < way
    with pytest.raises(ConfigError, match=f"has {sampler.length} episodes"):
        sampler(torch.tensor([sampler.length]))


def test_open_plan_within_families() -> None:
    table = table_of([4] * 8, families=[0] * 4 + [1] * 4)
    sampler = OpenSampler(table, Task(3, 1, 1), 0, within_family=True)
    assert sampler.length is not None
    families = sampler(torch.arange(sampler.length)).class_ids // 4
    assert (families == families[:, :1]).all()
    assert set(families.unique().tolist()) == {0, 1}


def test_open_plan_uses_a_rotated_drawing_once() -> None:
    groups = [g for g in range(4) for _ in range(4)]
    table = table_of([6] * 16, groups)
    sampler = OpenSampler(table, Task(2, 1, 1), 5)
    assert sampler.length is not None
    images = sampler(torch.arange(sampler.length)).images().flatten()
    drawing = images // 24 * 6 + images % 6
    assert len(drawing.unique()) == len(drawing)


def test_in_order_by_hand() -> None:
    """Seven characters of two turns each: three tasks of two characters, one is left over."""
    table = table_of([5] * 14, groups=[g for g in range(7) for _ in range(2)])
    source = EpisodeSource(InOrderSampler(table, Task(2, 1, 2), 3))
    assert source.sampler.length == 3
    indices, episode = source.indices(range(3)), source.batch(range(3))
    assert indices.class_ids.tolist() == [[0, 2], [4, 6], [8, 10]]
    assert episode.support.images[..., 0, 0, 1].unique().tolist() == [0]
    assert sorted(episode.query[0, :, 0, 0, 1].tolist()) == [1, 1, 2, 2]
    with pytest.raises(ConfigError, match="has 3 episodes; use --episodes 3 or fewer"):
        source.indices(range(4))
    with pytest.raises(ConfigError, match="--within-family"):
        InOrderSampler(table, Task(2, 1, 2), 3, within_family=True)


def test_in_order_follows_the_reading_order() -> None:
    """Five classes of three images; a class is complete when the last of its images is read."""
    places = [[5, 2, 3], [0, 8, 1], [7, 6, 4], [14, 13, 12], [9, 10, 11]]  # 5, 8, 7, 14, 11 end
    table = table_of([3] * 5, order=[place for own in places for place in own])
    indices = EpisodeSource(InOrderSampler(table, Task(2, 1, 2), 0)).indices(range(2))
    assert indices.class_ids.tolist() == [[0, 2], [1, 4]]
    assert indices.support.flatten(1).tolist() == [[1, 8], [3, 12]]
    assert indices.query.sort(dim=1).values.tolist() == [[0, 2, 6, 7], [4, 5, 13, 14]]


def test_digest_pairs_and_tells_apart() -> None:
    table, task = table_of([6] * 8), Task(3, 1, 2)
    one = EpisodeSource(ClosedSampler(table, task, 0))
    other = EpisodeSource(ClosedSampler(table, task, 1))
    digest = draw_episodes(one, 50, "closed").digest
    assert digest == draw_episodes(one, 50, "closed", chunk=7).digest
    assert digest != draw_episodes(one, 49, "closed").digest
    assert digest != draw_episodes(other, 50, "closed").digest


def test_too_much_is_asked() -> None:
    table = table_of([6, 5, 6])
    with pytest.raises(ConfigError, match="at most 3"):
        ClosedSampler(table, Task(4, 1, 1), 0)
    with pytest.raises(ConfigError, match="class 'class1' of the split has 5"):
        ClosedSampler(table, Task(2, 3, 3), 0)


class Leaky(Sampler):
    """A wrong sampler: the first query is a support image."""

    def __call__(self, ids: torch.Tensor) -> Indices:
        indices = ClosedSampler(self.table, self.task, 0)(ids)
        indices.query[:, 0] = indices.support[:, 0, 0]
        return indices


class Mislabeled(Sampler):
    """A wrong sampler: targets are rolled."""

    def __call__(self, ids: torch.Tensor) -> Indices:
        indices = ClosedSampler(self.table, self.task, 0)(ids)
        indices.target[:] = (indices.target + 1) % self.task.way
        return indices


@pytest.mark.parametrize(
    ("wrong", "said"), [(Leaky, "one image twice"), (Mislabeled, "of another class")]
)
def test_a_wrong_sampler_is_caught(wrong, said) -> None:
    source = EpisodeSource(wrong(table_of([6] * 5), Task(3, 1, 2), 0))
    with pytest.raises(PluginError, match=said):
        source.batch(range(2))


def test_shape_check() -> None:
    table = table_of([6] * 5)
    indices = ClosedSampler(table, Task(3, 1, 2), 0)(torch.arange(2))
    with pytest.raises(PluginError, match="expected"):
        check_indices(indices, table, Task(3, 1, 1))


def test_it_is_many_times_faster_than_image_by_image() -> None:
    """The guard of the sampler's speed: a ratio in one process, so that no machine matters."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60 * 20, 1, 28, 28), dtype=np.uint8)
    table = ClassTable(LabeledImages(images, np.full(60, 20), tuple(map(str, range(60)))))
    fast = EpisodeSource(ClosedSampler(table, Task(5, 5, 15), 0))

    def plain(episodes: int) -> None:
        for _ in range(episodes):
            chosen = rng.choice(60, 5, replace=False)
            drawn = [
                torch.from_numpy(images[c * 20 + i]).float() / 255
                for c in chosen
                for i in rng.choice(20, 20, replace=False)
            ]
            torch.stack(drawn)

    bound = 64 / 16 / 3  # three times as fast: 64 episodes against 16
    assert ratio(lambda: fast.batch(range(64)), lambda: plain(16), bound) < bound
