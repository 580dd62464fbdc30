"""What the parts of a record look like inside, so that one which does not is told, not met.

A shape is a tuple of types; a :class:`Number`; :class:`Or` null; ``[shape]``, a list of such; or a
dictionary: ``{"name": shape}``, where ``"name?"`` may be missing and further names may stand
beside; ``{str: shape}`` is about all names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

MOST = 2**53  # what every reader of JSON has exactly


@dataclass(frozen=True)
class Number:
    """A number between two others, both included.

    Arguments:
        low, high: the ends.
        whole: whether it has to be an integer.
    """

    low: float = -1e300
    high: float = 1e300
    whole: bool = False

    def fits(self, value: Any) -> bool:
        """Whether it is one of them."""
        kinds = (int,) if self.whole else (int, float)
        return (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
        )

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.high < MOST:
            return f"{kind} from {self.low:g} to {self.high:g}"
        return f"{kind} of at least {self.low:g}" if self.low > -1e300 else kind


@dataclass(frozen=True)
class Or:
    """Null, or the other shape."""

    shape: Any


COUNT = Number(0, MOST, whole=True)
SOME = Number(0)
FRACTION = Number(0, 1)
TEXT = (str,)
_IDENTITY = {"kind": TEXT, "name": TEXT, "distribution": TEXT, "version": TEXT}
_TASK = {
    "way": Number(1, MOST, whole=True),
    "shot": Number(1, MOST, whole=True),
    "query": Number(1, MOST, whole=True),
    "unlabeled": COUNT,
    "distractors": COUNT,
}

_TOOK_PART = {
    "class": TEXT, "as": TEXT, "part": TEXT, "run?": Or(TEXT), "images": COUNT, "of": COUNT,
}  # fmt: skip

_RANGE = [COUNT]

SHAPES: dict[str, Any] = {
    "part": Or(TEXT),
    "sampler": Or(
        {"name": TEXT, "distribution": TEXT, "version": TEXT, "options": {}, "code": TEXT,
         "sampling": TEXT, "support": _RANGE, "query": _RANGE, "unlabeled": _RANGE}
    ),
    "overlap": Or(
        {"split": TEXT,
            "classes": COUNT, "of": COUNT, "images": COUNT, "training": COUNT, "validation": COUNT,
         "found": [_TOOK_PART], "unknown": [TEXT],
         "same_names?": [{"class": TEXT, "as": TEXT, "part": TEXT}]}
    ),
    "train_task": _TASK,
    "task": _TASK,
    "seed": Number(-MOST, MOST, whole=True),
    "episode_seed": Number(-MOST, MOST, whole=True),
    "parameters": COUNT,
    "config": {"dataset_options": {}, "sources?": Or({str: TEXT}), "within_family?": (bool,),
               "init?": Or(TEXT), "metrics?": Or([TEXT]), "observers?": Or([TEXT]),
               "method_options?": Or({}), "backbone_options?": Or({}), "sampling_options?": Or({})},
    "plugin": {"distribution?": TEXT, "version?": TEXT},
    "plugins": [_IDENTITY],
    "environment": {"code?": Or(TEXT), "torch?": Or(TEXT)},
    "device": {
        "type": TEXT, "name": TEXT, "driver?": TEXT, "memory_bytes?": COUNT,
        "compute_capability?": TEXT, "clock_mhz?": SOME, "max_clock_mhz?": SOME,
    },
    "test": Or(
        {
            "accuracy": FRACTION,
            "half_width": Or(SOME),
            "level": Number(1e-6, 1 - 1e-9),
            "interval": Or([Or(Number())]),
            "episodes": Number(1, MOST, whole=True),
            "per_episode_sd": Or(SOME),
            "transductive": (bool,),
            "sampling": TEXT,
            "metrics": {str: {"mean": Or(Number()), "half_width": Or(SOME)}},
            "class_use?": Or(
                {
                    "classes": COUNT,
                    "used": COUNT,
                    "effective": SOME,
                    "top": COUNT,
                    "top_share": FRACTION,
                    "uneven": (bool,),
                }
            ),
        }
    ),
    "validation": Or({"best_step?": Or(COUNT), "accuracy?": Or(FRACTION)}),
    "training": Or(
        {"steps?": Or(COUNT), "seconds?": Or(SOME), "warmup_seconds?": Or(SOME), "engine?": TEXT}
    ),
    "training_summary": Or(
        {"source": TEXT, "dataset_digest": TEXT, "train_digest?": Or(TEXT),
         "classes": COUNT, "images": COUNT,
         "settings": {"dataset": TEXT, "dataset_options": {}, "init?": Or(TEXT)},
         "labeled_images": COUNT, "init_digest?": Or(TEXT), "turns": COUNT,
         "images_per_task": COUNT, "images_seen": COUNT}
    ),
    "timing": {
        "step_ms": Or({"median": Or(SOME), "p95": Or(SOME)}),
        "tasks_per_s": Or(SOME),
        "phases?": Or({str: Or(SOME)}),
        "adapt_ms": Or(SOME),
        "predict_ms": Or(SOME),
        "warmup_steps?": Or(COUNT),
        "timed_episodes?": Or(COUNT),
        "memory_estimate_bytes?": Or(SOME),
        "peak_memory_bytes?": Or(SOME),
        "flops_per_step?": Or(SOME),
        "flops_per_s?": Or(SOME),
        "clocks?": Or({str: TEXT}),
    },
    "inputs": Or([
        {"option": TEXT, "path": Or(TEXT), "absolute": Or(TEXT), "sha256": TEXT, "bytes": COUNT}
    ]),
    "weights": Or({"file": TEXT, "sha256": TEXT, "bytes?": COUNT, "tensors?": COUNT}),
    "seen": Or({"file": TEXT, "sha256": TEXT, "bytes?": COUNT}),
    "notes": [TEXT],
}  # fmt: skip

_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{,254}")


def is_name(text: str) -> bool:
    """Whether a run may be called so: the name of one folder, which leads nowhere else."""
    return _NAME.fullmatch(text) is not None


def misfit(value: Any, shape: Any, where: str) -> str | None:
    """The first thing that is not as the shape has it, as ``'timing.step_ms' is ...``; or None."""
    if isinstance(shape, Or):
        return None if value is None else misfit(value, shape.shape, where)
    if isinstance(shape, Number):
        return None if shape.fits(value) else f"'{where}' is not {shape}"
    if isinstance(shape, tuple):
        return None if isinstance(value, shape) else f"'{where}' is of the wrong type"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"'{where}' is of the wrong type"
        found = (misfit(item, shape[0], f"{where}.{i}") for i, item in enumerate(value))
        return next(filter(None, found), None)
    return _misfit_inside(value, shape, where)


def _misfit_inside(value: Any, shape: dict[Any, Any], where: str) -> str | None:
    if not isinstance(value, dict):
        return f"'{where}' is of the wrong type"
    for name, inner in shape.items():
        if name is str:
            found = (misfit(item, inner, f"{where}.{key}") for key, item in value.items())
            if (first := next(filter(None, found), None)) is not None:
                return first
        elif (plain := name.removesuffix("?")) in value:
            if (first := misfit(value[plain], inner, f"{where}.{plain}")) is not None:
                return first
        elif plain == name:
            return f"'{where}' lacks '{name}'"
    return None
