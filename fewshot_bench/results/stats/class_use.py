"""How evenly the classes of a split fill the episodes of a test.

An episode has a slot for each of its classes. Where some classes fill more slots than others, the
accuracy is about those more than about the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FEWER = 0.8  # of the effective number that equal chances would leave: then the use is uneven


def class_use(
    class_ids: npt.NDArray[np.integer], group_count: npt.NDArray[np.integer]
) -> dict[str, Any]:
    """How often the classes of a split are in some episodes.

    Arguments:
        class_ids: [E, way], of the episodes.
        group_count: how many classes each group has, group after group; classes of one group share
            their images (turns of a drawing) and count as one here.

    Returns:
        ``classes`` in the split and ``used`` of them; ``effective``, 1 over the sum of the squared
        shares of slots: how many classes, used equally, would be as uneven (Simpson, Nature 163,
        1949; Hill, Ecology 54, 1973); ``top`` and ``top_share``: a quarter of the classes, those
        that are used most, and their share of the slots; ``uneven``: whether ``effective`` is under
        0.8 of what draws with equal chances would leave.
    """
    group = np.repeat(np.arange(len(group_count)), group_count)
    uses = np.bincount(group[class_ids].ravel(), minlength=len(group_count))
    slots, classes = int(uses.sum()), len(uses)
    top = math.ceil(classes / 4)
    effective = float(slots**2 / (uses.astype(np.float64) ** 2).sum())
    by_chance = slots / (1 + (slots - 1) / classes)
    return {
        "classes": classes,
        "used": int((uses > 0).sum()),
        "effective": effective,
        "top": top,
        "top_share": float(np.sort(uses)[-top:].sum() / slots),
        "uneven": effective < FEWER * by_chance,
    }


def use_words(use: Mapping[str, Any] | None, sampling: str) -> str | None:
    """A sentence on classes that are used unevenly; None if they are not, or nobody counted.

    Arguments:
        use: ``test.class_use`` of a record.
        sampling: ``test.sampling`` of it.
    """
    if use is None or not use["uneven"]:
        return None
    advice = " (--sampling open-balanced uses all alike)" if sampling == "open" else ""
    return (
        f"The test's episodes use the classes unevenly: {use['top']} of {use['classes']} fill "
        f"{100 * use['top_share']:.0f} % of the places, as if there were "
        f"{use['effective']:.0f} classes; the accuracy is about those more than about the rest"
        f"{advice}."
    )
