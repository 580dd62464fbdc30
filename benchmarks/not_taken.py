"""95 % intervals that the package does not use, for benchmarks/coverage.py."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit
from scipy.stats import bootstrap


def per_class_half(accuracy: np.ndarray, ids: np.ndarray) -> float:
    """Half width with the accuracies of each class as a cluster of their own (a ratio's)."""
    uses = np.bincount(ids.ravel())
    total = np.bincount(ids.ravel(), weights=accuracy.ravel())
    seen = int((uses > 0).sum())
    residual = total - uses * accuracy.mean()
    variance = seen / (seen - 1) * float(residual @ residual) / accuracy.size**2
    return float(stdtrit(seen - 1, 0.975)) * math.sqrt(variance)


def class_means(accuracy: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The mean accuracy of each class [C] over its episodes."""
    uses = np.bincount(ids.ravel())
    total = np.bincount(ids.ravel(), weights=accuracy.ravel())
    return total[uses > 0] / uses[uses > 0]


def bca(values: np.ndarray, random: np.random.Generator, resamples: int) -> tuple[float, float]:
    """Ends of scipy's BCa bootstrap of the mean of class means [C]."""
    found = bootstrap(
        (values,), np.mean, method="BCa", n_resamples=resamples, random_state=random
    ).confidence_interval
    return float(found.low), float(found.high)


def bootstrap_t(
    values: np.ndarray, random: np.random.Generator, resamples: int
) -> tuple[float, float]:
    """Ends of the studentized bootstrap of the mean of class means [C]; scipy has none."""
    n, mean = len(values), values.mean()
    drawn = values[random.integers(0, n, (resamples, n))]
    deviation = np.maximum(drawn.std(axis=1, ddof=1), 1e-12)
    low, high = np.quantile((drawn.mean(axis=1) - mean) / deviation, (0.025, 0.975))
    scale = values.std(ddof=1)
    return float(mean - high * scale), float(mean - low * scale)


def jackknife_half(scores: np.ndarray, ids: np.ndarray) -> float:
    """Half width by leaving out each class with all its episodes in turn."""
    uses = np.bincount(ids.ravel())
    total = np.bincount(ids.ravel(), weights=np.repeat(scores, ids.shape[1]))[uses > 0]
    without = (scores.sum() - total) / (len(scores) - uses[uses > 0])
    seen = len(without)
    variance = (seen - 1) / seen * float(((without - without.mean()) ** 2).sum())
    return float(stdtrit(seen - 1, 0.975)) * math.sqrt(variance)


def satterthwaite_half(table: np.ndarray) -> float:
    """Half width with the same variance as the hierarchical one's and Satterthwaite's degrees."""
    s, e = table.shape
    of_seeds = e * table.mean(axis=1).var(ddof=1)
    of_episodes = s * table.mean(axis=0).var(ddof=1)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    of_rest = float((rest**2).sum()) / ((s - 1) * (e - 1))
    total = max(of_seeds + of_episodes - of_rest, of_seeds, of_episodes)
    parts = of_seeds**2 / (s - 1) + of_episodes**2 / (e - 1) + of_rest**2 / ((s - 1) * (e - 1))
    return float(stdtrit(total**2 / parts, 0.975)) * math.sqrt(total / table.size)
