"""Statistics of per-episode scores: intervals, paired tests, power. Arrays in, numbers out.

docs/statistics.md derives them and says what each covers; other rooms import from here.
"""

from fewshot_bench.results.stats.classes import class_interval, class_use, few_classes, use_words
from fewshot_bench.results.stats.intervals import (
    INTERVALS,
    UNEVEN,
    Interval,
    bootstrap_interval,
    hierarchical_interval,
    seeds_interval,
    student_interval,
    what_it_covers,
)
from fewshot_bench.results.stats.tests import (
    Paired,
    best_and_tied,
    detectable_difference,
    detectable_over_seeds,
    episodes_needed,
    holm,
    paired_difference,
    paired_over_seeds,
    paired_power,
)

__all__ = [
    "INTERVALS", "UNEVEN", "Interval", "Paired", "best_and_tied", "bootstrap_interval",
    "class_interval", "class_use", "detectable_difference", "detectable_over_seeds",
    "episodes_needed", "few_classes", "hierarchical_interval", "holm", "paired_difference",
    "paired_over_seeds", "paired_power", "seeds_interval", "student_interval", "use_words",
    "what_it_covers",
]  # fmt: skip
