"""Intervals beyond Student's, each for another claim.

What each covers is told by :func:`what_it_covers` and, with formulas and sources, in
docs/statistics.md. ``scipy.stats`` is imported only by what needs it: it takes a second.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fewshot_bench.results.statistics import Interval, Paired, Scores, student_interval

Matrix = npt.NDArray[np.float64]

KINDS = ("student", "percentile", "bca", "classes", "hierarchical", "seeds")
RESAMPLES = 9999
_PAIRS_AT_ONCE = 512  # rows of the table of episode pairs that are in memory
_COVERED = {
    "closed": "the choice of episodes from these test images; not new images or classes",
    "open": "new images of these test classes, as no image is used twice; not new classes",
}


def bootstrap_interval(
    scores: Scores,
    level: float = 0.95,
    method: str = "percentile",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean of independent scores (Efron 1987), by ``scipy.stats``.

    Arguments:
        scores: one per episode.
        level: of confidence.
        method: ``percentile`` or ``bca`` (bias-corrected and accelerated).
        resamples: bootstrap samples.
        seed: of them; the same scores give the same interval.

    Returns:
        ``half_width`` is half the distance between the ends, which need not be centred.

    Raises:
        ValueError: there is no score, one is not finite, or no such method.
    """
    from scipy.stats import bootstrap

    plain = student_interval(scores, level)
    if not plain.varies:
        return plain
    names = {"percentile": "percentile", "bca": "BCa"}
    if method.lower() not in names:
        raise ValueError(f"no bootstrap '{method}'; there are: percentile, bca")
    values = np.asarray(scores, dtype=np.float64)
    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=resamples,
        method=names[method.lower()],
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = float(found.low), float(found.high)
    return Interval(plain.mean, (high - low) / 2, low, high, plain.sd, plain.n, True)


def class_interval(
    scores: Scores, class_ids: npt.NDArray[np.int64], level: float = 0.95
) -> Interval:
    """Interval of the mean for new classes: the classes at hand are a sample of all.

    With class effects u_c, an episode's accuracy is mu + (sum of its classes' u_c) / way + rest.
    Two episodes with k classes in common have covariance k var(u) / way^2, so the slope of the
    products of their residuals on k gives var(u) (as Haseman and Elston 1972 do for relatives).
    The mean of C classes then varies by var(u) / C, and for given classes by the variance s^2 / E
    of the closed interval; the degrees of freedom of the sum are Satterthwaite's (1946).

    Arguments:
        scores: [E], one per episode.
        class_ids: [E, way], the classes of each.
        level: of confidence.

    Raises:
        ValueError: no score, one that is not finite, or ids of another length.
    """
    from scipy.special import stdtrit

    plain = student_interval(scores, level)
    ids = np.asarray(class_ids)
    if ids.ndim != 2 or len(ids) != plain.n:
        raise ValueError(f"class ids have to be of shape [{plain.n}, way], not {ids.shape}")
    if not plain.varies or plain.sd is None:
        return plain
    residual = np.asarray(scores, dtype=np.float64) - plain.mean
    classes = len(np.unique(ids))
    of_classes = _class_variance(residual, ids) / classes
    of_episodes = plain.sd**2 / plain.n
    variance = of_classes + of_episodes
    freedom = variance**2 / (of_classes**2 / (classes - 1) + of_episodes**2 / (plain.n - 1))
    half = float(stdtrit(freedom, 0.5 + level / 2)) * math.sqrt(variance)
    return Interval(plain.mean, half, plain.mean - half, plain.mean + half, plain.sd, plain.n, True)


def _class_variance(residual: Matrix, ids: npt.NDArray[np.int64]) -> float:
    """var(u) of :func:`class_interval`; 0 where the episodes do not show any.

    Arguments:
        residual: [E].
        ids: [E, way].
    """
    episodes, way = ids.shape
    names, position = np.unique(ids, return_inverse=True)
    member = np.zeros((episodes, len(names)), dtype=np.float32)
    np.put_along_axis(member, position.reshape(ids.shape), 1, axis=1)
    # Sums over ordered pairs of episodes; what an episode has with itself is taken off.
    k_sum, k_square, product = -float(way * episodes), -float(way**2 * episodes), 0.0
    for start in range(0, episodes, _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        common = member[part] @ member.T
        k_sum += float(common.sum())
        k_square += float((common * common).sum())
        product += float(residual[part] @ (common @ residual))
    squares = float(residual @ residual)
    product -= way * squares
    pairs = episodes * (episodes - 1)
    spread = k_square - k_sum**2 / pairs
    if spread <= 0:  # every two episodes have the same number in common
        return 0.0
    # The residuals add up to 0, so their products over all pairs add up to -squares.
    slope = (product + k_sum * squares / pairs) / spread
    return max(0.0, way**2 * slope)


def hierarchical_interval(scores: Matrix, level: float = 0.95) -> Interval:
    """Interval of the mean over training seeds and episodes, which are crossed.

    In the two-way layout y_se = mu + a_s + b_e + r_se with mean squares of seeds, episodes and
    the rest, the variance of the mean is (MS_s + MS_e - MS_r) / (S E), with the degrees of freedom
    of Satterthwaite (Biometrics Bulletin 1946).

    Arguments:
        scores: [S, E]: seeds by episodes, the same episodes for all.
        level: of confidence.

    Raises:
        ValueError: no scores, one that is not finite, or fewer than two seeds or episodes.
    """
    from scipy.special import stdtrit

    mean, error, freedom, sd = _two_way(scores)
    n = int(np.size(scores))
    if error == 0:
        return Interval(mean, 0.0, mean, mean, sd, n, False)
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    return Interval(mean, half, mean - half, mean + half, sd, n, True)


def _two_way(scores: Matrix) -> tuple[float, float, float, float]:
    """Mean, its standard error, degrees of freedom, and the deviation of a single score."""
    y = np.asarray(scores, dtype=np.float64)
    if y.ndim != 2 or min(y.shape) < 2 or not np.isfinite(y).all():
        raise ValueError("a hierarchical interval needs finite scores of two seeds and episodes")
    seeds, episodes = y.shape
    mean = float(y.mean())
    by_seed, by_episode = y.mean(1), y.mean(0)
    rest = y - by_seed[:, None] - by_episode[None, :] + mean
    ms_s = episodes * float(by_seed.var(ddof=1))
    ms_e = seeds * float(by_episode.var(ddof=1))
    ms_r = float((rest**2).sum()) / ((seeds - 1) * (episodes - 1))
    # A negative component of variance is none: the mean varies at least as either factor says.
    combined = max(ms_s + ms_e - ms_r, ms_s, ms_e)
    spread = (
        ms_s**2 / (seeds - 1) + ms_e**2 / (episodes - 1) + ms_r**2 / ((seeds - 1) * (episodes - 1))
    )
    # What is left of scores that are all the same is rounding.
    if combined <= 1e-24 * max(1.0, mean**2):
        return mean, 0.0, 1.0, 0.0
    components = (ms_s - ms_r) / episodes, (ms_e - ms_r) / seeds
    sd = math.sqrt(ms_r + sum(max(c, 0.0) for c in components))
    return mean, math.sqrt(combined / y.size), combined**2 / spread, sd


def seeds_interval(means: Scores, level: float = 0.95) -> Interval:
    """Student's interval over the mean accuracies of training seeds: [S].

    Raises:
        ValueError: no mean, or one that is not finite.
    """
    return student_interval(means, level)


def paired_over_seeds(a: Matrix, b: Matrix, level: float = 0.95) -> Paired:
    """Compare two methods over training seeds and episodes.

    Arguments:
        a, b: [S, E]: seed s of one is paired with seed s of the other; the same episodes for all.
        level: of the interval, see :func:`hierarchical_interval`.

    Returns:
        ``p_t`` is of that interval's t; there is no signed-rank test of crossed data.

    Raises:
        ValueError: other shapes, or see :func:`hierarchical_interval`.
    """
    from scipy.special import stdtr

    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"paired scores have to be of one shape, not {x.shape} and {y.shape}")
    difference = np.round(x - y, 14)
    interval = hierarchical_interval(difference, level)
    p_t = effect = None
    if interval.varies:
        _, error, freedom, sd = _two_way(difference)
        p_t = 2 * float(stdtr(freedom, -abs(interval.mean) / error))
        effect = interval.mean / sd
    return Paired(
        interval.mean,
        interval.half_width,
        interval.low,
        interval.high,
        p_t,
        None,
        effect,
        difference.shape[1],
        interval.varies,
    )


def what_it_covers(kind: str, sampling: str) -> str:
    """For a table's caption: what may vary and what stays fixed.

    Arguments:
        kind: one of ``KINDS``.
        sampling: of the episodes, ``closed`` or ``open``.
    """
    covered = _COVERED.get(sampling, f"the choice of {sampling} episodes; not new classes")
    if kind in ("student", "percentile", "bca"):
        return f"it covers {covered}, and not training seeds."
    if kind == "classes":
        return "it covers new classes of the same kind; not training seeds."
    if kind == "hierarchical":
        return f"it covers new training seeds and {covered}."
    if kind == "seeds":
        return "it covers new training seeds on these episodes; not other episodes or classes."
    raise ValueError(f"no interval '{kind}'; there are: {', '.join(KINDS)}")
