"""Names that tell the runs of one table apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewshot_bench.results.compare import Run

# Settings of a configuration that do not change what was trained.
ASIDE = {
    "method", "dataset", "sources", "given", "runs_dir", "data_root", "cache_dir", "device",
    "metrics", "observers", "episodes", "level", "sampling", "episode_seed", "way", "shot", "query",
    "unlabelled", "distractors", "within_family",
}  # fmt: skip
MOST = 3  # settings in a label; more would be a table of their own


def labels(runs: Sequence[Run]) -> list[str]:
    """One name per run: its method, and in brackets what sets it apart from its like.

    Runs of one method get the settings in which they differ, or, where none does, the last part
    of their id.
    """
    names = [run.label for run in runs]
    for method in {run.record["method"] for run in runs}:
        alike = [i for i, run in enumerate(runs) if run.record["method"] == method]
        if len(alike) < 2:
            continue
        settings = [_settings(runs[i]) for i in alike]
        keys = list(dict.fromkeys(key for one in settings for key in one))
        keys = [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1][:MOST]
        for i, one in zip(alike, settings, strict=True):
            told = ", ".join(f"{key} {_short(one[key])}" for key in keys if key in one)
            names[i] = f"{method} ({told})" if told else method
    repeated = {name for name in names if names.count(name) > 1}
    return [
        f"{name} {run.record['id'].rsplit('-', 1)[-1]}" if name in repeated else name
        for name, run in zip(names, runs, strict=True)
    ]


def _settings(run: Run) -> dict[str, Any]:
    """Every setting of a run under its plain name, the seed first."""
    config = run.record["config"]
    flat: dict[str, Any] = {"seed": run.record["seed"]}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= value if key.endswith("_options") else {}
        elif key not in ASIDE and key not in flat:
            flat[key] = value
    return flat


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
