"""The hooks that a plugin may implement. Hook modules import no torch.

Every ``register_*`` hook returns ``{name: "module:attribute"}``; the import string is resolved when
somebody names it. A plugin is a module listed in the entry-point group ``fewshot_bench``::

    [project.entry-points.fewshot_bench]
    my_method = "fsb_my_method"

Commands of ``fsb`` are an entry-point group of their own; each names a ``typer.Typer``::

    [project.entry-points."fewshot_bench.commands"]
    my-command = "fsb_my_method.cli:app"
"""

from __future__ import annotations

from pathlib import Path

import pluggy

GROUP = "fewshot_bench"
# Raised when a hook or an argument is added, or one changes: docs/hooks.md has the policy.
INTERFACE = 1
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Names = dict[str, str]


@hookspec
def register_methods() -> Names:  # type: ignore[empty-body]
    """Few-shot methods: {name: "module:Method subclass"}."""


@hookspec
def register_datasets() -> Names:  # type: ignore[empty-body]
    """Data sets: {name: "module:Dataset subclass"}."""


@hookspec
def register_backbones() -> Names:  # type: ignore[empty-body]
    """Feature extractors: {name: "module:factory"}; factory(image_shape, *, options) -> module.

    The module maps images [N, C, H, W] to maps [N, c, h, w] and has ``out_shape`` (c, h, w).
    """


@hookspec
def register_samplers() -> Names:  # type: ignore[empty-body]
    """Episode samplers: {name: "module:Sampler subclass"}."""


@hookspec
def register_metrics() -> Names:  # type: ignore[empty-body]
    """Scores beside accuracy: {name: "module:metric"}.

    metric(logits [T, Q, way], target [T, Q]) -> [T].
    """


@hookspec
def register_observers() -> Names:  # type: ignore[empty-body]
    """Observers of a run: {name: "module:Observer subclass"}, used when named by ``--with``."""


@hookspec
def register_exporters() -> Names:  # type: ignore[empty-body]
    """Formats of comparison tables: {name: "module:exporter"}; exporter(Comparison) -> str."""


@hookspec(firstresult=True)
def locate_dataset(name: str) -> Path | None:
    """A folder that holds the files of a data set, or None. Its content is still verified."""
