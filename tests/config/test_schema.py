"""The settings of a run, and the rules that follow from their scopes."""

from __future__ import annotations

import pytest

from fewshot_bench.config.schema import (
    CHANGEABLE,
    FOLLOWERS,
    IGNORED,
    RESUMABLE,
    SETTINGS,
    WATCHED,
    Scope,
)

CHANGED = (
    "dataset", "way", "shot", "query", "unlabeled", "distractors", "episodes", "level", "sampling",
    "within_family", "episode_seed", "engine", "allow_overlap", "runs_dir", "metrics", "device",
    "data_root", "cache_dir",
)  # fmt: skip
RESUMED = (
    "data_root", "cache_dir", "device", "checkpoint_every", "keep_checkpoints", "detect_anomaly",
)  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_help_and_a_scope(name: str) -> None:
    option = SETTINGS[name]
    assert option.help
    assert option.help == option.help.strip()
    assert isinstance(option.scope, Scope)
    assert option.scope
    assert option.words
    if option.default is not None:
        assert option.check(option.default) == option.default


def test_the_rules_that_follow_from_scopes() -> None:
    """Which settings an evaluation may change, a resumption takes anew, and reuse ignores."""
    assert set(CHANGEABLE) == set(CHANGED)
    assert set(RESUMABLE) == set(RESUMED)
    assert set(WATCHED) == {"profile", "pictures", "observers"}
    assert {*RESUMABLE, *WATCHED, "runs_dir", "sources"} == IGNORED
    for names in (CHANGEABLE, RESUMABLE, WATCHED):
        assert len(set(names)) == len(names)


def test_the_training_task_follows_the_evaluations() -> None:
    parts = ("way", "shot", "query", "unlabeled", "distractors")
    assert {f"train_{part}": part for part in parts} == FOLLOWERS
