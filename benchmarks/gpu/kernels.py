"""What kind of work a kernel does, by its name; for "what the rest is spent on"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# In this order: the first that a name has.
KINDS: tuple[tuple[str, str], ...] = (
    ("pooling and resizing", r"max_?pool|avg_?pool|upsample|interpolate"),
    ("normalization", r"batch_?norm|bn_fw|bn_bw|layer_?norm|group_?norm|native_norm"),
    # The first two are those of fewshot_bench/nn/columns_triton.py; Triton adds to their names what
    # it has compiled them for.
    (
        "columns and windows",
        r"^_gather(_\d\w*)?$|^_add_up(_\d\w*)?$|im2col|col2im|unfold|columns|windows|_fold",
    ),
    (
        "products and convolutions",
        r"gemm|gemv|cutlass|cublas|xmma|wgrad|dgrad|fprop|conv|winograd|scudnn|sm\d\d_|nvjet|dot_"
        r"|\bmm\b|\bbmm\b|addmm|baddbmm|splitk",
    ),
    ("optimizer", r"multi_tensor|foreach|adam"),
    ("copies and layout", r"copy|memcpy|memset|nchw|nhwc|transpose|cat_?array|catarray|contiguous"),
    ("gathers and indices", r"gather|scatter|index|sort|radix|embedding|randperm"),
    ("sums", r"reduce|softmax|logsumexp|cumsum|scan|\bsum\b|\bmean\b"),
    ("elementwise", r"elementwise|vectorized|fill|where|relu|mul|add|sub|div|exp|clamp|pow|sqrt"),
)
_COMPILED = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in KINDS)
OTHER = "other"


def kind_of(name: str) -> str:
    """The kind of a kernel of this name."""
    return next((kind for kind, pattern in _COMPILED if pattern.search(name)), OTHER)


def by_kind(kernels: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """{kind: ms}, the largest first."""
    sums: dict[str, float] = {}
    for kernel in kernels:
        kind = kind_of(kernel["kernel"])
        sums[kind] = sums.get(kind, 0.0) + kernel["ms"]
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
