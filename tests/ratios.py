"""Two pieces of work compared by the processor time that they take: other work does not count."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

FEWEST, MOST = 4, 30  # rounds; the first warms up, and is hardly the best


def ratio(
    ours: Callable[[], object],
    plain: Callable[[], object],
    below: float,
    clock: Callable[[], float] = time.thread_time,
) -> float:
    """Time of ours over the plain one's, the best round of each, taken in turn.

    Arguments:
        ours, plain: the work, which is done by one thread of torch.
        below: what the ratio should be. Processor time grows too where others use the caches and
            the other half of a core; so there are more rounds until it is.
        clock: of this thread; or of what else works.
    """
    best = [float("inf"), float("inf")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for done in range(1, MOST + 1):
            for i, work in enumerate((ours, plain)):
                start = clock()
                work()
                best[i] = min(best[i], clock() - start)
            if done >= FEWEST and best[0] < below * best[1]:
                break
    finally:
        torch.set_num_threads(threads)
    print(f"{best[0] / best[1]:.2f} of the plain one's time, of {done} rounds")
    return best[0] / best[1]
