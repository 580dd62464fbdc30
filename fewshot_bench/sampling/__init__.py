"""Samplers: which images make up episode i, as a function of the split, the task, the seed and i.

Plugins import the names below from here; each is loaded when it is first used.
``base`` has the contract of a sampler, ``inspection`` checks what a sampler draws.
"""

from typing import TYPE_CHECKING

from fewshot_bench.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from fewshot_bench.sampling.base import *  # noqa: F403
    from fewshot_bench.sampling.batches import *  # noqa: F403
    from fewshot_bench.sampling.few_labels import *  # noqa: F403
    from fewshot_bench.sampling.inspection import *  # noqa: F403
    from fewshot_bench.sampling.open import *  # noqa: F403
else:
    __getattr__ = lazy_exports(
        __name__,
        base="ClosedSampler EpisodeSource Indices Sampler",
        batches="BatchSource",
        few_labels="Labels without_labels",
        inspection="draw_episodes",
        open="BalancedOpenSampler InOrderSampler OpenSampler",
    )
