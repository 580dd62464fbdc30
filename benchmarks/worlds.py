"""Made-up test sets and runs whose truth is known, for benchmarks/coverage.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Random = np.random.Generator

# Scores of independent episodes: (what they are, true mean, draw(random, n)).
QUERIES = 75


def _mixed(random: Random, n: int) -> Array:
    """One episode in ten is hard: skewed to the left."""
    chance = np.where(random.random(n) < 0.1, 0.5, random.beta(45, 5, n))
    return random.binomial(QUERIES, chance) / QUERIES


DISTRIBUTIONS: dict[str, tuple[float, Callable[[Random, int], Array]]] = {
    "binomial, 75 queries, p = 0.9": (0.9, lambda r, n: r.binomial(75, 0.9, n) / 75),
    "binomial, 75 queries, p = 0.995": (0.995, lambda r, n: r.binomial(75, 0.995, n) / 75),
    "binomial, 5 queries, p = 0.9": (0.9, lambda r, n: r.binomial(5, 0.9, n) / 5),
    "beta-binomial with 10 % hard episodes": (0.1 * 0.5 + 0.9 * 0.9, _mixed),
}


def pairs(random: Random, n: int) -> tuple[Array, Array]:
    """Two methods on the same episodes of varying difficulty; true difference 0.02."""
    easy = random.beta(18, 4, n)
    a = random.binomial(QUERIES, np.minimum(0.95 * easy + 0.02, 1)) / QUERIES
    return a, random.binomial(QUERIES, 0.95 * easy) / QUERIES


@dataclass(frozen=True)
class TestSet:
    """Classes with their images, and how likely each query is answered rightly.

    chance = 0.6 + class + what the other classes of the episode do + support image + query image.
    Every effect has mean 0 and is bounded so that the chance stays in [0, 1].

    Arguments:
        own, other: [C], of a class on its own queries and on those of the other classes.
        support, query: [C, I], of an image in either part.
    """

    own: Array
    other: Array
    support: Array
    query: Array

    WAY, SHOT, QUERY, MEAN = 5, 1, 3, 0.6

    @classmethod
    def draw(cls, random: Random, classes: int = 60, images: int = 20) -> TestSet:
        """A test set from the population of all classes, whose mean accuracy is 0.6."""
        shape = (classes, images)
        return cls(
            random.uniform(-0.14, 0.14, classes),
            random.uniform(-0.01, 0.01, classes),
            random.uniform(-0.02, 0.02, shape),
            0.2 * random.choice((-1.0, 1.0), shape),
        )

    def truth(self, claim: str) -> float:
        """The mean that an interval has to contain under a claim."""
        if claim == "new classes":
            return self.MEAN
        known = self.MEAN + self.own.mean() + (self.WAY - 1) * self.other.mean()
        if claim == "new images":
            return float(known)
        return float(known + self.support.mean() + self.query.mean())  # these images

    def closed(self, random: Random, episodes: int) -> tuple[Array, npt.NDArray[np.intp]]:
        """Accuracies and class ids of episodes that re-use images."""
        classes, images = self.own.size, self.query.shape[1]
        ids = random.random((episodes, classes)).argpartition(self.WAY)[:, : self.WAY]
        taken = self.SHOT + self.QUERY
        order = random.random((episodes, self.WAY, images)).argpartition(taken)[..., :taken]
        return self._scores(random, ids, order), ids

    def open(self, random: Random) -> tuple[Array, npt.NDArray[np.intp]]:
        """The same of a plan that uses no image twice and ends when too few classes are left."""
        classes, images = self.query.shape
        taken = self.SHOT + self.QUERY
        deck = random.random((classes, images)).argsort(axis=1)
        used = np.zeros(classes, dtype=np.intp)
        ids, order = [], []
        while len(left := np.flatnonzero(used + taken <= images)) >= self.WAY:
            chosen = random.choice(left, self.WAY, replace=False)
            order.append([deck[c, used[c] : used[c] + taken] for c in chosen])
            used[chosen] += taken
            ids.append(chosen)
        return self._scores(random, np.array(ids), np.array(order)), np.array(ids)

    def _scores(
        self, random: Random, ids: npt.NDArray[np.intp], images: npt.NDArray[np.intp]
    ) -> Array:
        other = self.other[ids]
        effect = self.own[ids] + other.sum(axis=1, keepdims=True) - other
        effect += self.support[ids, images[..., 0]]
        chance = (
            self.MEAN + effect[..., None] + self.query[ids[..., None], images[..., self.SHOT :]]
        )
        return (random.random(chance.shape) < chance).mean(axis=(1, 2))


def _lognormal(random: Random, n: int) -> Array:
    """Minus the exponential of a standard normal variable: mean 0, variance 1, skewness -6.2."""
    mean, sd = np.exp(0.5), np.sqrt(np.e * (np.e - 1))
    return (mean - random.lognormal(size=n)) / sd


# Effects of classes, of mean 0 and variance 1.
EFFECTS: dict[str, Callable[[Random, int], Array]] = {
    "normal": lambda random, n: random.normal(size=n),
    "exponential": lambda random, n: 1 - random.exponential(size=n),
    "lognormal": _lognormal,
}


@dataclass(frozen=True)
class ClassWorld:
    """Accuracies of classes in episodes as sums of effects; their mean over new classes is 0.

    Arguments:
        classes, episodes, way: of the test.
        own, other: standard deviation of a class's effect on itself and on the others.
        noise: of an accuracy; half of it is added to a whole episode.
        effects: a name of ``EFFECTS``; all but the normal one make a few classes much harder than
            the others.
    """

    classes: int
    episodes: int
    way: int
    own: float
    other: float
    noise: float
    effects: str = "normal"

    def draw(self, random: Random) -> tuple[Array, npt.NDArray[np.intp]]:
        """Accuracies [E, way] and class ids [E, way]."""
        shape = (self.episodes, self.way)
        ids = random.random((self.episodes, self.classes)).argpartition(self.way)[:, : self.way]
        own, other = (
            size * EFFECTS[self.effects](random, self.classes) for size in (self.own, self.other)
        )
        others = other[ids].sum(axis=1, keepdims=True) - other[ids]
        noise = random.normal(size=shape) + 0.5 * random.normal(size=(self.episodes, 1))
        return own[ids] + others + self.noise * noise, ids


def seeds_by_episodes(
    random: Random, seeds: int, episodes: int, share: float
) -> tuple[Array, float]:
    """Scores [S, E] of mean 0: episode and rest of equal variance, and an effect of the seed.

    Beside them, the mean that more seeds would have on these episodes.

    Arguments:
        random: draws.
        seeds, episodes: how many.
        share: variance of the mean that is the seeds' over that of the episodes.
    """
    seed = np.sqrt(share * seeds / episodes) * random.normal(size=(seeds, 1))
    episode = random.normal(size=(1, episodes))
    return seed + episode + random.normal(size=(seeds, episodes)), float(episode.mean())
