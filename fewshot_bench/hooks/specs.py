"""The hooks that a plugin may implement. Hook modules import no torch.

A plugin is a module listed in the entry-point group ``fewshot_bench``::

    [project.entry-points.fewshot_bench]
    my_method = "fsb_my_method"

``register_*`` hooks return ``{name: "module:attribute"}``; the import string is resolved when
somebody names it. The lifecycle hooks are implemented by observers, which ``--with NAME`` adds to
a run; they are called between steps, with copies of plain data, and return nothing. docs/hooks.md
has an example of each hook.

Commands of ``fsb`` are an entry-point group of their own; each names a ``typer.Typer``::

    [project.entry-points."fewshot_bench.commands"]
    my-command = "fsb_my_method.cli:app"
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import numpy as np

GROUP = "fewshot_bench"
# Raised when a hook or an argument is added or changed: docs/hooks.md has the policy.
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
    """Objects with lifecycle hooks: {name: "module:attribute" or "module"}.

    The attribute is a class, which each run builds without arguments, or an instance, which all
    runs of a process share; ``"module"`` is the module itself.
    """


@hookspec
def register_exporters() -> Names:  # type: ignore[empty-body]
    """Formats of comparison tables: {name: "module:exporter"}; exporter(Comparison) -> str."""


@hookspec(firstresult=True)
def locate_dataset(name: str) -> Path | None:
    """A folder that holds the files of a data set, or None; its content is still verified."""


@hookspec
def run_started(config: Mapping[str, Any], folder: Path, resumed_from: int) -> None:
    """The configuration is complete and the data are read; training comes next.

    Arguments:
        config: every setting of the run by name: JSON values.
        folder: of the run; an observer may write files of its own there.
        resumed_from: step of the checkpoint that the run continues from, 0 at its first start.
            What was reported of later steps is reported again.
    """


@hookspec
def episodes_sampled(
    split: str, ids: list[int], class_ids: np.ndarray, indices: Mapping[str, np.ndarray]
) -> None:
    """T episodes were sampled: those to be evaluated next, or those of the last training step.

    Arguments:
        split: ``train`` (at log boundaries, right after ``train_logged``), ``validation`` or
            ``test``.
        ids: numbers of the episodes; with the split and the seed they determine the episode.
        class_ids: int64 [T, way], positions of the classes in the split.
        indices: positions of the images in the split, int64: ``support`` [T, way, shot], ``query``
            [T, Q] with ``target`` [T, Q] in [0, way), and ``unlabeled`` [T, U] if there are any.
    """


@hookspec
def train_logged(step: int, metrics: Mapping[str, float]) -> None:
    """A window of training steps ended; ``metrics`` are those of its last step, ``step``."""


@hookspec
def evaluation_started(split: str, episodes: int, step: int) -> None:
    """Episodes 0 to ``episodes`` - 1 of ``split`` will be evaluated, after ``step`` steps."""


@hookspec
def episodes_scored(
    split: str, ids: list[int], scores: np.ndarray, metrics: Mapping[str, np.ndarray],
    confusion: np.ndarray,
) -> None:  # fmt: skip
    """T episodes of an evaluation were scored.

    Arguments:
        split: ``validation`` or ``test``.
        ids: numbers of the episodes.
        scores: accuracy of each episode, float64 [T], fractions.
        metrics: {name: float64 [T]} of the metrics that ``--metric`` named.
        confusion: int64 [T, way, way]; rows are true positions in ``class_ids``, columns predicted.
    """


@hookspec
def evaluation_finished(
    split: str, step: int, scores: np.ndarray, metrics: Mapping[str, np.ndarray]
) -> None:
    """All E episodes of an evaluation were scored: ``scores`` [E] and ``metrics`` {name: [E]}."""


@hookspec
def checkpoint_saved(step: int, path: Path) -> None:
    """The state after ``step`` training steps was written to ``path``."""


@hookspec
def run_finished(record: Mapping[str, Any]) -> None:
    """The run is complete and its record is written: JSON values, as in record.json."""
