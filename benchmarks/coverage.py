"""How often the intervals contain the truth, and the tests keep their promises, by simulation.

    uv run python benchmarks/coverage.py

Writes ``results/<date>-coverage.md`` and ``.json``. Needs no data set and no GPU; 2,000 simulated
experiments of each case took ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from not_taken import (
    bca,
    bootstrap_t,
    class_means,
    jackknife_half,
    per_class_half,
    satterthwaite_half,
)
from worlds import DISTRIBUTIONS, EFFECTS, ClassWorld, TestSet, pairs, seeds_by_episodes

from fewshot_bench.results.stats import (
    Interval,
    bootstrap_interval,
    class_interval,
    episodes_needed,
    hierarchical_interval,
    holm,
    paired_difference,
    paired_over_seeds,
    seeds_interval,
    student_interval,
)

Row = dict[str, Any]
RESAMPLES = 999  # of a bootstrap here; 9,999 are the default
SIZES = (100, 600)  # episodes
SEEDS = (3, 5, 10)
SHARES = (0.0, 0.3, 1.0, 3.0, 30.0)  # the seeds' part of the variance over the episodes'


class Hits:
    """Counts how often intervals contain the truth, and how wide they are."""

    def __init__(self) -> None:
        self.hits: dict[tuple[str, str], list[tuple[bool, float, bool]]] = {}

    def add(self, claim: str, name: str, low: float, high: float, truth: float) -> None:
        entry = (low <= truth <= high, (high - low) / 2, truth < low)
        self.hits.setdefault((claim, name), []).append(entry)

    def interval(self, claim: str, name: str, interval: Interval, truth: float) -> None:
        assert interval.low is not None
        assert interval.high is not None
        self.add(claim, name, interval.low, interval.high, truth)

    def half(self, claim: str, name: str, mean: float, half: float, truth: float) -> None:
        self.add(claim, name, mean - half, mean + half, truth)

    def rows(self, case: str, *, under: bool = False) -> Iterator[Row]:
        for (claim, name), entries in self.hits.items():
            inside, widths, below = np.array(entries).T
            row = {
                "case": case, "claim": claim, "interval": name,
                "coverage": 100 * float(inside.mean()), "half_width": float(widths.mean()),
            }  # fmt: skip
            more = {"under": 100 * float(below.mean()), "median": float(np.median(widths))}
            yield row | more if under else row


def episodes(random: np.random.Generator, experiments: int) -> Iterator[Row]:
    """Student, percentile, BCa and paired intervals over independent episodes."""
    for n in SIZES:
        for name, (truth, draw) in DISTRIBUTIONS.items():
            hits = Hits()
            for _ in range(experiments):
                scores = draw(random, n)
                hits.interval("these images", "student", student_interval(scores), truth)
                for method in ("percentile", "BCa"):
                    found = bootstrap_interval(scores, method=method, resamples=RESAMPLES)
                    hits.interval("these images", method.lower(), found, truth)
            yield from hits.rows(f"{name}, n = {n}")
        hits = Hits()
        for _ in range(experiments):
            paired = paired_difference(*pairs(random, n), ranks=False)
            assert paired.half_width is not None
            hits.half("these images", "paired", paired.difference, paired.half_width, 0.02)
        yield from hits.rows(f"two methods, beta-binomial, 75 queries, n = {n}")


def sampling(random: np.random.Generator, experiments: int) -> Iterator[Row]:
    """Closed, open and class-clustered intervals against three claims."""
    designs: dict[str, Callable[[TestSet], Any]] = {
        "closed, 600 episodes (50 uses a class)": lambda world: world.closed(random, 600),
        "closed, 120 episodes (10 uses a class)": lambda world: world.closed(random, 120),
        "open, about 60 episodes (5 uses a class)": lambda world: world.open(random),
    }
    for name, draw in designs.items():
        hits = Hits()
        for _ in range(experiments):
            world = TestSet.draw(random)
            scores, ids = draw(world)
            plain, classes = student_interval(scores), class_interval(scores, ids)
            for claim in ("these images", "new images", "new classes"):
                hits.interval(claim, "student", plain, world.truth(claim))
            hits.interval("new classes", "classes", classes, world.truth("new classes"))
        yield from hits.rows(name)


CLASS_WORLDS = {
    "100 classes, 10 uses each": ClassWorld(100, 200, 5, 0.1, 0.0, 0.15),
    "100 classes, 10 uses each, which mislead": ClassWorld(100, 200, 5, 0.1, 0.04, 0.15),
    "20 classes, 150 uses each": ClassWorld(20, 600, 5, 0.06, 0.0, 0.15),
    "20 classes, 150 uses each, which mislead": ClassWorld(20, 600, 5, 0.06, 0.02, 0.15),
    "20 classes, 150 uses each, nearly alike": ClassWorld(20, 600, 5, 0.01, 0.0, 0.15),
    "20 classes, 150 uses each, skewed": ClassWorld(20, 600, 5, 0.06, 0.02, 0.15, "exponential"),
    "423 classes, 7 uses each": ClassWorld(423, 600, 5, 0.1, 0.02, 0.2),
    "423 classes, 7 uses each, skewed": ClassWorld(423, 600, 5, 0.1, 0.02, 0.2, "exponential"),
    "423 classes, 20-way, 28 uses each": ClassWorld(423, 600, 20, 0.1, 0.02, 0.2),
}


def classes(random: np.random.Generator, experiments: int) -> Iterator[Row]:
    """The class-clustered interval, and two other ways that were not taken."""
    for name, world in CLASS_WORLDS.items():
        hits = Hits()
        for _ in range(experiments):
            accuracy, ids = world.draw(random)
            scores = accuracy.mean(axis=1)
            mean = float(scores.mean())
            hits.interval("new classes", "student", student_interval(scores), 0.0)
            hits.interval("new classes", "classes", class_interval(scores, ids), 0.0)
            half = per_class_half(accuracy, ids)
            hits.half("new classes", "accuracy per class (not taken)", mean, half, 0.0)
            half = jackknife_half(scores, ids)
            hits.half("new classes", "delete-one-class jackknife (not taken)", mean, half, 0.0)
        yield from hits.rows(name)


SYMMETRIC = "classes, symmetric (until 2026-11-26)"
SKEWED_CLASSES = (10, 20, 50, 64, 100, 200)


def skewed(random: np.random.Generator, experiments: int) -> Iterator[Row]:
    """How the interval over classes bears a few classes that are much harder than the others.

    600 5-way episodes. Effects of the same variance are normal, minus exponential (skewness -2) or
    minus lognormal (-6.2). "Under": the truth lies under the whole interval.
    """
    for number in SKEWED_CLASSES:
        for effects in EFFECTS:
            world, hits = ClassWorld(number, 600, 5, 0.1, 0.0, 0.15, effects), Hits()
            for _ in range(experiments):
                accuracy, ids = world.draw(random)
                scores, means = accuracy.mean(axis=1), class_means(accuracy, ids)
                hits.interval("new classes", "classes", class_interval(scores, ids), 0.0)
                even = class_interval(scores, ids, symmetric=True)
                hits.interval("new classes", SYMMETRIC, even, 0.0)
                for name, ends in (("BCa", bca), ("bootstrap-t", bootstrap_t)):
                    found = ends(means, random, RESAMPLES)
                    hits.add("new classes", f"{name} of class means (not taken)", *found, 0.0)
            yield from hits.rows(f"{number} classes, {effects}", under=True)


def seeds(random: np.random.Generator, experiments: int) -> Iterator[Row]:
    """The hierarchical interval, what was not taken, and those that cover less."""
    claim, narrow = "new seeds and episodes", "new seeds, these episodes"
    for count in SEEDS:
        for share in SHARES:
            hits, found = Hits(), 0
            for _ in range(experiments):
                table, of_episodes = seeds_by_episodes(random, count, 600, share)
                mean = float(table.mean())
                hits.interval(claim, "hierarchical", hierarchical_interval(table), 0.0)
                half = satterthwaite_half(table)
                hits.half(claim, "Satterthwaite (not taken)", mean, half, 0.0)
                plain = student_interval(table.mean(axis=0))
                hits.interval(claim, "student over episodes, of the seeds' mean", plain, 0.0)
                alone = seeds_interval(table.mean(axis=1))
                hits.interval(claim, "seeds", alone, 0.0)
                hits.interval(narrow, "seeds", alone, of_episodes)
                p = paired_over_seeds(table, np.zeros_like(table)).p_t
                found += p is not None and p < 0.05
            case = f"{count} seeds, 600 episodes, seeds' variance {share:g} of the episodes'"
            yield from hits.rows(case)
            yield {
                "case": case, "claim": "no difference", "interval": "paired over seeds, p < 0.05",
                "error": 100 * found / experiments,
            }  # fmt: skip


def families(random: np.random.Generator, experiments: int) -> Iterator[Row]:
    """Family-wise error of a table of ten methods against a baseline, with and without Holm."""
    n, methods = 200, 10
    for better in (0, 5):
        plain = corrected = 0
        for _ in range(experiments):
            easy = random.beta(18, 4, n)
            baseline = random.binomial(75, 0.95 * easy) / 75
            p_values = []
            for method in range(methods):
                chance = np.minimum(0.95 * easy + (0.02 if method < better else 0.0), 1)
                other = random.binomial(75, chance) / 75
                p_values.append(paired_difference(other, baseline, ranks=False).p_t)
            null = range(better, methods)
            plain += any((p_values[i] or 0) < 0.05 for i in null)
            corrected += bool((holm(p_values)[better:] < 0.05).any())
        case = f"{methods} methods against a baseline, {better} of them better, n = {n}"
        for name, errors in (("uncorrected", plain), ("Holm", corrected)):
            yield {
                "case": case, "claim": "no difference", "interval": name,
                "error": 100 * errors / experiments,
            }  # fmt: skip


def power(random: np.random.Generator, experiments: int) -> Iterator[Row]:
    """Power that the planned number of episodes has."""
    a, b = pairs(random, 1_000_000)
    binomial = float((a - b).std())
    cases: dict[str, tuple[float, float, Callable[[int], np.ndarray]]] = {
        "normal, sd 5 points, to find 1": (0.05, 0.01, lambda n: random.normal(0.01, 0.05, n)),
        "normal, sd 5 points, to find 5": (0.05, 0.05, lambda n: random.normal(0.05, 0.05, n)),
        "two methods, beta-binomial, to find 2": (
            binomial, 0.02, lambda n: np.subtract(*pairs(random, n)),
        ),
    }  # fmt: skip
    for name, (sd, difference, draw) in cases.items():
        for wanted in (0.8, 0.9):
            n = episodes_needed(sd, difference, wanted)
            found = 0
            for _ in range(experiments):
                values = draw(n)
                p = paired_difference(values, np.zeros(n), ranks=False).p_t
                found += p is not None and p < 0.05
            yield {
                "case": f"{name}: {n} episodes", "planned": 100 * wanted,
                "reached": 100 * found / experiments,
            }  # fmt: skip


BLOCKS = {
    "Over episodes": episodes,
    "Closed, open, classes": sampling,
    "Classes as clusters": classes,
    "Seeds and episodes": seeds,
    "Many tests": families,
    "Planned power": power,
    "Skewed classes": skewed,  # the last, because a block's place seeds it
}


def table(rows: list[Row]) -> list[str]:
    """Markdown; columns as the first row has them, and those that come later."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        f"| {' | '.join(head.replace('_', ' ') for head in heads)} |",
        "|---" * len(heads) + "|",
    ]
    digits = {"half_width": 4, "median": 4}
    for row in rows:
        cells = [row.get(head, "") for head in heads]
        shown = [
            f"{cell:.{digits.get(head, 1)}f}" if isinstance(cell, float) else str(cell)
            for head, cell in zip(heads, cells, strict=True)
        ]
        lines.append(f"| {' | '.join(shown)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage by simulation.")
    parser.add_argument("--experiments", type=int, default=2000, help="of each case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--only", nargs="+", choices=BLOCKS, default=list(BLOCKS), help="blocks")
    arguments = parser.parse_args()
    date, start = time.strftime("%Y-%m-%d"), time.perf_counter()
    versions = {
        "python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__,
    }  # fmt: skip
    part = len(arguments.only) < len(BLOCKS)
    only = f" --only {shlex.join(arguments.only)}" if part else ""
    blocks: dict[str, list[Row]] = {}
    lines = [
        f"# Coverage by simulation, {date}", "",
        f"`uv run python benchmarks/coverage.py --experiments {arguments.experiments} --seed "
        f"{arguments.seed}{only}`, {', '.join(f'{k} {v}' for k, v in versions.items())}.", "",
        f"{arguments.experiments} simulated experiments of each case; intervals of 95 %, coverage, "
        "errors and power in %. The simulation's own standard error at 95 % is "
        f"{100 * math.sqrt(0.95 * 0.05 / arguments.experiments):.1f}.",
    ]  # fmt: skip
    for name in arguments.only:
        block = BLOCKS[name]
        random = np.random.default_rng((arguments.seed, list(BLOCKS).index(name)))
        blocks[name] = list(block(random, arguments.experiments))
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        lines += [
            "",
            f"## {name}",
            "",
            " ".join((block.__doc__ or "").split()),
            "",
            *table(blocks[name]),
        ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{date}-coverage.md"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    result = {"date": date, "experiments": arguments.experiments, "versions": versions}
    path.with_suffix(".json").write_text(
        json.dumps(result | {"blocks": blocks}, indent=1) + "\n", "utf-8"
    )


if __name__ == "__main__":
    main()
